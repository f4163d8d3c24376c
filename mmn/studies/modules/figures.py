"""Attention and FFN layer by layer: what each would say of a noun alone (VisEdit), and its part of the logit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import interval_tip
from mmn.figures.theme import FIRST, SECOND
from mmn.figures.wording import of_run, require, sample
from mmn.statistics.interval_words import interval_note, with_words

COLUMNS: Final = ("line", "part", "layer", "mean", "low", "high", "n")
PARTS: Final = {"attention": FIRST, "ffn": SECOND}
WORDS: Final = {"attention": "attention", "ffn": "FFN"}


def modules(data: pd.DataFrame, run: Mapping[str, Any], sums: pd.DataFrame, subset: str) -> alt.TopLevelMixin:
    """Bars of both modules of each layer, a panel for each reading, each with an axis of its own.

    Args:
        data: `rows.by_layer`.
        run: the run's row: model, images, and n_images and n_concepts of what enters.
        sums: `rows.sums`.
        subset: the nouns, in words; "" for all.
    """
    require(data.columns, COLUMNS)
    rows = with_words(data.assign(module=data["part"].map(WORDS)), ".3f", n="n")
    words = list(WORDS.values())
    base = alt.Chart(rows).encode(
        alt.X("layer:O", title="decoder layer (from 0)", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        xOffset=alt.XOffset("module:N", sort=words),
    )
    tooltip = [
        alt.Tooltip("module:N"),
        alt.Tooltip("layer:O"),
        alt.Tooltip("mean:Q", format=".3f"),
        interval_tip(),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
    ]
    colour = alt.Color(
        "module:N",
        scale=alt.Scale(domain=words, range=list(PARTS.values())),
        legend=alt.Legend(title=None, orient="top", columns=2),
    )
    bars = base.mark_bar().encode(alt.Y("mean:Q", title=None, axis=alt.Axis(tickCount=4)), colour, tooltip=tooltip)
    ends = base.mark_rule(strokeWidth=0.8).encode(alt.Y("low:Q", title=None), alt.Y2("high:Q"))
    facet = alt.Facet(
        "line:N", title=None, sort=list(dict.fromkeys(data["line"])), header=alt.Header(labelFontWeight="bold")
    )
    title = alt.TitleParams(
        f"Modules read alone and in the budget{f': {subset}' if subset else ''}",
        subtitle=[
            f"{of_run(run)}, {sample(run['n_images'], run['n_concepts'])}",
            added_up(sums),
            "alone: sign(v)·√(|v|·p) of a module's own logit v and probability p; budget: share of the logit",
            interval_note("line", data["n"]),
        ],
    )
    layers = alt.layer(bars, ends).properties(height=90)
    return layers.facet(facet=facet, columns=1, title=title).resolve_scale(y="independent")


def added_up(sums: pd.DataFrame) -> str:
    """How much the modules add up to by each reading, in one sentence."""
    mean = sums.set_index("what")["mean"]
    alone, folded = mean["VisEdit: alone"], mean["budget: folded"]
    budget = (
        "no budget was kept"
        if pd.isna(folded)
        else f"in the budget to {folded:z.2f} times it (the rest: embedding, biases)"
    )
    return f"read alone, the modules add up to {alone:z.1f} times the logit, {budget}"
