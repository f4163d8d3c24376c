"""What is a concept's logit made of? Attention and FFN layer by layer, the embedding and the biases; then, how much of
it the strongest units alone make up.

    logit = embedding + Σ_l attention_l + Σ_l FFN_l + biases + residual   (METHODS: Exactness; OURS)

The residual is shown because it is the proof: rounding when the terms are read at the right places, large otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.theme import FIRST, SECOND, SHAPES
from mmn.figures.wording import k_text, short_name
from mmn.names import CROSS_ATTENTION, PER_LAYER_INPUT

SKY_BLUE: Final = "#56B4E9"  # of the same palette: for the one more term that some decoders have
COLUMNS: Final = ("noun", "term", "layer", "logit")
TERMS: Final[Mapping[str, tuple[str, str]]] = {  # term -> words, colour: as far apart in lightness as in hue
    "embedding": ("embedding", "#d9d9d9"),
    "attention": ("attention", FIRST),
    CROSS_ATTENTION: ("cross-attention", SKY_BLUE),
    PER_LAYER_INPUT: ("per-layer inputs", SKY_BLUE),
    "ffn": ("FFN units", SECOND),
    "bias": ("biases", "#7a3b63"),
}
SHARE_COLUMNS: Final = ("noun", "k", "share")


def logit_budget(
    data: pd.DataFrame,
    run: Mapping[str, Any],
    logits: Mapping[str, float],
    of: str,
    y_range: tuple[float, float] | None = None,
) -> alt.TopLevelMixin:
    """Bars of the terms of one concept's logit, layer by layer; a panel per concept on one axis.

    Args:
        data: noun, term (a key of `TERMS`), layer (missing for what belongs to none), logit; one row per term.
        run: the run's row: model, n_layers.
        logits: for each noun the logit itself; minus the terms, it is the residual.
        of: the caption and picture that the nouns are from, as words for the subtitle.
        y_range: `stacked_range` of all nouns, the ends of the vertical axis where the chart is one panel of theirs.
    """
    assert set(COLUMNS) <= set(data.columns), f"missing columns: {sorted(set(COLUMNS) - set(data.columns))}"
    nouns = list(dict.fromkeys(data["noun"]))
    assert set(nouns) <= set(logits), (nouns, sorted(logits))
    rows = _placed(data)
    order = ["embedding", *(str(layer) for layer in range(int(run["n_layers"]))), "biases"]
    order = [place for place in order if place.isdigit() or place in set(rows["place"])]
    bars = _bars(rows, order, y_range if len(nouns) == 1 else None)
    sums = data.groupby("noun")["logit"].sum()
    residuals = [f"{noun}: {logits[noun]:z.2f} logits, residual {_size(logits[noun] - sums[noun])}" for noun in nouns]
    title = alt.TitleParams(
        f"Where the logit of {' and '.join(f'“{noun}”' for noun in nouns)} comes from",
        subtitle=[f"{short_name(run['model'])}, {of}", "; ".join(residuals)],
    )
    if len(nouns) == 1:
        return bars.properties(height=200, title=title)
    facet = alt.Facet("noun:N", title=None, sort=nouns, header=alt.Header(labelFontWeight="bold", labelPadding=4))
    return bars.properties(height=120).facet(facet=facet, columns=1, title=title)


def top_share(data: pd.DataFrame, run: Mapping[str, Any], of: str) -> alt.TopLevelMixin:
    """Lines: the share of a concept's logit that its k strongest units make up, against k.

    Args:
        data: noun, k, share (of the logit; above 1 where other terms pull it down again).
        run: the run's row: model, n_layers, d_mlp.
        of: the caption and picture that the nouns are from, as words for the subtitle.
    """
    assert set(SHARE_COLUMNS) <= set(data.columns), f"missing columns: {set(SHARE_COLUMNS) - set(data.columns)}"
    n_units = int(run["n_layers"]) * int(run["d_mlp"])
    nouns = list(dict.fromkeys(data["noun"]))
    rows = data.assign(k_label=[k_text(int(k), n_units) for k in data["k"]])
    named: dict[str, Any] = {"field": "noun", "type": "nominal", "sort": nouns, "title": "concept"}
    colour = alt.Color(**named, scale=alt.Scale(domain=nouns, range=[SECOND, FIRST][: len(nouns)]))
    shape = alt.Shape(**named, scale=alt.Scale(domain=nouns, range=list(SHAPES[: len(nouns)])))
    base = alt.Chart(rows).encode(
        alt.X(
            "k:Q",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(grid=False),
            title=f"k, strongest of {counted(n_units, 'unit')}",
        ),
        alt.Y("share:Q", title="share of the logit", axis=alt.Axis(format="~%"), scale=alt.Scale(zero=True)),
        color=colour if len(nouns) > 1 else alt.value(SECOND),
        tooltip=[
            alt.Tooltip("noun:N", title="concept"),
            alt.Tooltip("k_label:N", title="k"),
            alt.Tooltip("share:Q", title="share of the logit", format=".1%"),
        ],
    )
    title = alt.TitleParams(
        f"How much of the logit the top units make up: {', '.join(nouns)}",
        subtitle=[f"{short_name(run['model'])}, {of}"],
    )
    return alt.layer(
        base.mark_line(strokeWidth=1.3), base.mark_point(size=24, filled=True).encode(*[shape][: len(nouns) - 1])
    ).properties(height=160, title=title)


def _placed(data: pd.DataFrame) -> pd.DataFrame:
    """`data` with `place` (a layer, or the name of what belongs to none) and `kind`, the words for the term."""
    ends = {"embedding": "embedding", "bias": "biases"}
    return data.assign(
        place=[
            ends.get(row.term, row.term) if pd.isna(row.layer) else str(int(row.layer)) for row in data.itertuples()
        ],
        kind=[TERMS[term][0] for term in data["term"]],
    )


def _bars(rows: pd.DataFrame, order: list[str], y_range: tuple[float, float] | None) -> alt.Chart:
    kinds = [words for words, _ in TERMS.values() if words in set(rows["kind"])]
    colours = [colour for words, colour in TERMS.values() if words in kinds]
    scale = alt.Scale(domain=list(y_range), nice=True) if y_range else alt.Scale(zero=True)
    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            alt.X(
                "place:O",
                sort=order,
                scale=alt.Scale(domain=order),
                title="decoder layer (from 0)",
                axis=alt.Axis(labelAngle=0, labelOverlap="greedy"),
            ),
            alt.Y("logit:Q", title="added to the logit", stack="zero", axis=alt.Axis(tickCount=4), scale=scale),
            alt.Color(
                "kind:N",
                sort=kinds,
                scale=alt.Scale(domain=kinds, range=colours),
                legend=alt.Legend(title=None, orient="top", columns=4),
            ),
            alt.Order("term:O"),
            tooltip=[
                alt.Tooltip("noun:N", title="concept"),
                alt.Tooltip("kind:N", title="term"),
                alt.Tooltip("place:O", title="layer"),
                alt.Tooltip("logit:Q", title="logits", format="+.3f"),
            ],
        )
    )


def stacked_range(data: pd.DataFrame) -> tuple[float, float]:
    """Lowest and highest end of the bars of `logit_budget`."""
    rows = _placed(data)
    ends = [rows[rows["logit"] * sign > 0].groupby(["noun", "place"])["logit"].sum().abs().max() for sign in (-1, 1)]
    low, high = (0.0 if pd.isna(end) else float(end) for end in ends)
    return -low, high


def _size(value: float) -> str:
    """The size of a small number as people write it: `8e-07`."""
    return f"{abs(value):.0e}"
