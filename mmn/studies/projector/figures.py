"""Can a picture's label be read before and after the projector, and how alike are image and text behind it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import interval_tip
from mmn.figures.layer_lines import BROWN, GREEN, SKY, layer_lines
from mmn.figures.theme import FIRST, MUTED, SECOND, SHAPES, THIRD
from mmn.figures.wording import of_run, require
from mmn.statistics.interval_words import interval_note, with_words
from mmn.studies.projector.rows import COSINES, OVERLAPS, PROBE, SHUFFLED
from mmn.studies.projector.tables import AFTER, BEFORE

COLUMNS: Final = ("label", "classes", "stage", "line", "mean", "low", "high", "n")
_STAGES: Final = {BEFORE: "before the projector", AFTER: "after the projector"}
_COSINES: Final = dict(zip(COSINES.values(), (FIRST, MUTED, SECOND, THIRD, GREEN, SKY), strict=True))
_UNITS: Final = dict(
    zip(
        [f"top {share} %: {words}" for share in ("1", "10") for words in OVERLAPS.values()],
        (FIRST, THIRD, MUTED, SKY, SECOND, BROWN),
        strict=True,
    )
)


def probe_f1(data: pd.DataFrame, run: Mapping[str, Any]) -> alt.TopLevelMixin:
    """Macro F1 of a probe before and after the projector, beside that of shuffled labels; lines are 95 % intervals.

    Args:
        data: `rows.probe`.
        run: the run's row: model, images.
    """
    require(data.columns, COLUMNS)
    kinds = data["label"] + " (" + data["classes"].astype(str) + ")"
    n_labels = kinds.nunique()
    of_label = "" if n_labels > 1 else f"; label (classes): {kinds.iloc[0]}"
    rows = with_words(data.assign(where=data["stage"].map(_STAGES), label=kinds), ".3f", n="n")
    legend = alt.Legend(title=None, orient="top")
    lines = [PROBE, SHUFFLED]
    base = (
        alt.Chart(rows)
        .encode(
            alt.Y("where:N", sort=list(_STAGES.values()), title=None, axis=alt.Axis(labelLimit=200)),
            alt.YOffset("series:N", sort=sorted(set(rows["label"])), title=None),
            alt.Color("line:N", scale=alt.Scale(domain=lines, range=[FIRST, MUTED]), legend=legend),
            tooltip=[
                alt.Tooltip("label:N", title="label (classes)"),
                alt.Tooltip("where:N"),
                alt.Tooltip("line:N", title="of"),
                alt.Tooltip("mean:Q", title="macro F1", format=".3f"),
                interval_tip(),
                alt.Tooltip("n:Q", title="pictures", format=",d"),
            ],
        )
        .transform_calculate(series="datum.label + ' ' + datum.line")
    )
    x = alt.X("mean:Q", title="macro F1, cross-validated", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    kind = alt.Shape(
        "label:N",
        scale=alt.Scale(domain=sorted(set(rows["label"])), range=list(SHAPES[: rows["label"].nunique()])),
        legend=alt.Legend(title="label (classes)", orient="top", columns=1, labelLimit=300) if n_labels > 1 else None,
    )
    points = base.mark_point(size=30, filled=True, opacity=1).encode(x, kind)
    rules = base.mark_rule(strokeWidth=1.2).encode(alt.X("low:Q"), alt.X2("high:Q"))
    title = alt.TitleParams(
        "What a probe reads from the mean image token",
        subtitle=[
            f"{of_run(run)}, n = {counted(data['n'].max(), 'picture')}",
            f"ridge probe, five folds by picture{of_label}",
            interval_note("lines", data["n"]),
        ],
        frame="bounds",
    )
    return alt.layer(rules, points).properties(height=30 * len(data) + 30, title=title)


def modality_cosines(data: pd.DataFrame, run: Mapping[str, Any]) -> alt.TopLevelMixin:
    """Cosines of image and caption states over layers.

    Args:
        data: `rows.modalities`.
        run: the run's row.
    """
    titles = ["How alike image and caption states are", _sample(run, data), interval_note("band", data["n"])]
    return layer_lines(data, titles, "cosine", ".2f", _COSINES)


def unit_overlaps(data: pd.DataFrame, run: Mapping[str, Any]) -> alt.TopLevelMixin:
    """Intersection over union of the units most active at image tokens and at caption tokens, layer by layer.

    Args:
        data: `rows.units`.
        run: the run's row.
    """
    titles = [
        "Units active at image tokens and at the caption's",
        _sample(run, data),
        "a layer's units of highest mean |a| at either",
        interval_note("band", data["n"]),
    ]
    return layer_lines(data, titles, "intersection over union", ".2f", _UNITS, x="decoder layer")


def _sample(run: Mapping[str, Any], data: pd.DataFrame) -> str:
    return f"{of_run(run)}, n = {counted(data['n'].max(), 'picture')}"
