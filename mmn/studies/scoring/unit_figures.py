"""What does a unit write? The ten tokens that its output raises most, with their logits (P1, P2: decoding a unit)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.theme import SECOND
from mmn.figures.wording import token_text

COLUMNS: Final = ("token", "logit")


def decoded_tokens(data: pd.DataFrame, run: Mapping[str, Any], neuron: str) -> alt.TopLevelMixin:
    """Bars of the logits W_U[t] · W_out[:, i] of a unit's ten tokens, highest first.

    Args:
        data: token, logit; in order.
        run: the run's row: model.
        neuron: the unit, as `L14.u2019` or `L14.e3.u201`.
    """
    assert set(COLUMNS) <= set(data.columns), f"missing columns: {sorted(set(COLUMNS) - set(data.columns))}"
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
            alt.X("logit:Q", title="logit per unit of activation", axis=alt.Axis(tickCount=5)),
            tooltip=[alt.Tooltip("words:N", title="token"), alt.Tooltip("logit:Q", format=".3f")],
        )
        .properties(
            height=200,
            title=alt.TitleParams(
                frame="bounds",
                text=f"What {neuron} writes",
                subtitle=[f"{run['model']}, top {len(rows)} tokens"],
            ),
        )
    )
