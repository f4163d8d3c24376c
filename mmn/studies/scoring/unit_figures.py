"""What does a unit write? The ten tokens that its output raises most, with their logits (P1, P2: decoding a unit).

Or the ten whose rows of W_U lie nearest to what it writes, with their cosines (OURS).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.theme import SECOND
from mmn.figures.wording import require, short_name, token_text
from mmn.names import CENTRED, COSINE, RAW

VALUES: Final[Mapping[str, tuple[str, str]]] = {  # rows of W_U -> the column of what is drawn, and its axis
    RAW: ("logit", "logit per unit of activation"),
    CENTRED: ("logit", "logit above the mean token's, per unit of activation"),
    COSINE: ("cosine", "cosine of W_U[t] and W_out[:, i]"),
}


def decoded_tokens(data: pd.DataFrame, run: Mapping[str, Any], neuron: str, words_by: str = RAW) -> alt.TopLevelMixin:
    """Bars of the logits W_U[t] · W_out[:, i] of a unit's ten tokens, highest first; of cosines by cosine rows.

    Args:
        data: token, and logit or cosine; in order.
        run: the run's row: model.
        neuron: the unit, as `L14.u2019` or `L14.e3.u201`.
        words_by: the rows of W_U that they are by, one of `names.WORD_ROWS`.
    """
    value, axis = VALUES[words_by]
    require(data.columns, ("token", value))
    rows = data.assign(place=range(1, len(data) + 1), words=[token_text(text) for text in data["token"]])
    rows["row"] = [f"{place}. {words}" for place, words in zip(rows["place"], rows["words"], strict=True)]
    return (
        alt.Chart(rows)
        .mark_bar(color=SECOND)
        .encode(
            alt.Y(
                "row:N",
                sort=list(rows["row"]),
                title=None,
                axis=alt.Axis(labelLimit=130, labelOverlap=False, labelFlush=False),
            ),
            alt.X(f"{value}:Q", title=axis, axis=alt.Axis(tickCount=5)),
            tooltip=[alt.Tooltip("words:N", title="token"), alt.Tooltip(f"{value}:Q", format=".3f")],
        )
        .properties(
            height=200,
            title=alt.TitleParams(
                frame="bounds",
                text=f"What {neuron} writes",
                subtitle=[f"{short_name(run['model'])}, top {counted(len(rows), 'token')} by {words_by} rows of W_U"],
            ),
        )
    )
