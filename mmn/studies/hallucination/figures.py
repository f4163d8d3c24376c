"""Does confidence tell what is there, where does it lie, and what is left of a caption without an object?

Jiang et al. 2025 (arXiv 2410.02762): precision against recall of objects, maps, and ProjectAway before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import numpy as np
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import interval_tip
from mmn.figures.theme import DASHES, FIRST, GREY, MUTED, SECOND, SHAPES, THIRD
from mmn.figures.wording import of_run, require
from mmn.statistics.interval_words import bracket, interval_note, percent, with_words
from mmn.studies.hallucination.judging import ABSENT, HALLUCINATED, PRESENT
from mmn.studies.hallucination.rows import ANOTHER, BEFORE, NORMED, OTHER, OWN, PROB, QUANTITIES, RANDOM, RAW

CURVE_COLUMNS: Final = ("line", "recall", "precision", "low", "high", "n", "auroc", "auroc_low", "auroc_high")
FIT_COLUMNS: Final = ("readout", "measure", "whose", "mean", "low", "high", "n")
EDIT_COLUMNS: Final = ("quantity", "line", "mean", "low", "high", "n")
N_BINS: Final = 30
LEAST: Final = 1e-7  # a probability below is drawn there
_BANDED: Final = (RAW, ANOTHER)  # four bands over each other would hide the lines
_COLOURS: Final = {RAW: FIRST, NORMED: SECOND, PROB: THIRD, ANOTHER: MUTED}
_SHOWN: Final = {PRESENT: "named, there", HALLUCINATED: "named, hallucinated", ABSENT: "neither named nor there"}
_OF_READOUT: Final = {"raw": "no norm", "normed": "final norm"}


def precision_recall(
    data: pd.DataFrame, run: Mapping[str, Any], what: str, n_images: int, n_there: int, n_not: int, synonyms: str
) -> alt.TopLevelMixin:
    """Precision against recall of objects that are there, by falling confidence, one line for each score.

    Args:
        data: `rows.of_named`: line, recall, precision with its interval, and the line's AUROC.
        run: the run's row: model, images.
        what: the objects, in words.
        n_images: pictures that they are of.
        n_there: objects that are there.
        n_not: those that are not.
        synonyms: by which objects were found, in words.
    """
    require(data.columns, CURVE_COLUMNS)
    told = with_words(data, ".1%", n="n")
    said = {line: _with_auroc(rows.iloc[0]) for line, rows in told.groupby("line", sort=False)}
    told = told.assign(score=told["line"].map(said))
    names = list(said.values())
    legend = _stroked()
    base = alt.Chart(told).encode(
        alt.X("recall:Q", title="recall of what is there", axis=alt.Axis(format="~%", tickCount=5, grid=False)),
        alt.Color("score:N", scale=alt.Scale(domain=names, range=[_COLOURS[one] for one in said]), legend=legend),
    )
    tooltip = [
        alt.Tooltip("score:N"),
        alt.Tooltip("recall:Q", format=".1%"),
        alt.Tooltip("precision:Q", format=".1%"),
        interval_tip(),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
    ]
    y: dict[str, Any] = {
        "title": "precision",
        "scale": alt.Scale(zero=False),
        "axis": alt.Axis(format="~%", tickCount=5),
    }
    dash = alt.StrokeDash(
        "score:N", scale=alt.Scale(domain=names, range=[list(one) for one in DASHES[: len(names)]]), legend=legend
    )
    band = base.mark_area(opacity=0.12).transform_filter(alt.FieldOneOfPredicate("line", list(_BANDED)))
    band = band.encode(alt.Y("low:Q", **y), alt.Y2("high:Q"))
    lines = base.mark_line(strokeWidth=1.3).encode(alt.Y("precision:Q", **y), dash, tooltip=tooltip)
    share, banded = n_there / (n_there + n_not), data[data["line"].isin(_BANDED)]
    chance = alt.Chart(pd.DataFrame({"share": [share]})).mark_rule(color=GREY, strokeDash=[1, 2])
    kind = "hallucinated" if PROB in said else "absent"
    title = alt.TitleParams(
        f"Is it there? Confidence in {what}",
        subtitle=[
            f"{of_run(run)}, n = {n_there:,} there, {n_not:,} {kind}, {counted(n_images, 'picture')}",
            f"{synonyms}; dotted: chance, {percent(share, 1)}; {interval_note('bands', banded['n'])}",
        ],
    )
    return alt.layer(band, chance.encode(alt.Y("share:Q", **y)), lines).properties(height=200, title=title)


def confidences(data: pd.DataFrame, run: Mapping[str, Any], threshold: float) -> alt.TopLevelMixin:
    """Histograms of internal confidence: of objects that are there, of hallucinated and of absent ones.

    Args:
        data: `rows.confidences`: image_id, state, confidence.
        run: the run's row: model, images.
        threshold: at or below which a named noun is doubted.
    """
    require(data.columns, ("image_id", "state", "confidence"))
    known = data[data["state"].isin(_SHOWN)]
    counts = known["state"].value_counts()
    names = {state: f"{words} ({counts[state]:,})" for state, words in _SHOWN.items() if state in counts}
    colours = dict(zip(_SHOWN, (FIRST, SECOND, MUTED), strict=True))
    scale = alt.Scale(domain=list(names.values()), range=[colours[state] for state in names])
    dashes = alt.Scale(domain=list(names.values()), range=[list(one) for one in DASHES[: len(names)]])
    base = alt.Chart(_binned(known, names)).encode(
        alt.X(
            "confidence:Q",
            title="internal confidence (no norm)",
            scale=alt.Scale(type="log", domain=[LEAST, 1]),
            axis=alt.Axis(format="~e", values=[1e-6, 1e-4, 1e-2, 1], grid=False),
        ),
        alt.Y("share:Q", title="share of the objects", stack=None, axis=alt.Axis(format="~%", tickCount=5)),
        alt.Color("objects:N", scale=scale, legend=_stroked()),
        tooltip=[
            alt.Tooltip("objects:N"),
            alt.Tooltip("confidence:Q", format=".2e"),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    area = base.mark_area(interpolate="step-after", opacity=0.15)
    line = base.mark_line(interpolate="step-after", strokeWidth=1.3).encode(
        alt.StrokeDash("objects:N", scale=dashes, legend=_stroked())
    )
    layers = [area, line]
    note = "no interval: a distribution"
    if not np.isnan(threshold):
        rule = alt.Chart(pd.DataFrame({"confidence": [max(threshold, LEAST)]})).mark_rule(color=GREY, strokeDash=[1, 2])
        layers.append(rule.encode(alt.X("confidence:Q")))
        note = f"dotted: {threshold:.2g}, above 95\u00a0% of unnamed objects; a named one below it is doubted"
    title = alt.TitleParams(
        "How sure image tokens are of objects",
        subtitle=[f"{of_run(run)}, n = {counted(data['image_id'].nunique(), 'picture')}", note],
    )
    return alt.layer(*layers).properties(height=200, title=title)


def maps(data: pd.DataFrame, run: Mapping[str, Any]) -> alt.TopLevelMixin:
    """Points with 95 % intervals: how well maps of confidence outline their object, and another of the picture.

    Args:
        data: `rows.maps`: readout, measure, whose, mean, low, high, n.
        run: the run's row: model, images.
    """
    require(data.columns, FIT_COLUMNS)
    told = data.assign(row=[f"{one.measure}, {_OF_READOUT[one.readout]}" for one in data.itertuples()])
    colours = {"its own map": FIRST, "another object's map": SECOND, "chance": MUTED}
    title = alt.TitleParams(
        "Do maps of confidence outline the object?",
        subtitle=[
            f"{of_run(run)}, n = {counted(data['n'].max(), 'picture')} with two outlined objects",
            f"means within a picture, then over pictures; {interval_note('lines', data['n'])}",
        ],
        frame="bounds",
    )
    return _points(told, list(dict.fromkeys(told["row"])), "row", "whose", colours).properties(title=title)


def project_away(
    data: pd.DataFrame, run: Mapping[str, Any], alpha: float, text_layer: int, image_layer: int, synonyms: str
) -> alt.TopLevelMixin:
    """Points with 95 % intervals: hallucination before and after objects were projected out, and which nouns are gone.

    Args:
        data: `rows.project_away`: quantity, line, mean, low, high, n.
        run: the run's row: model, images.
        alpha: how much of the projection was taken.
        text_layer: after which the direction was read.
        image_layer: after which the image tokens lost it.
        synonyms: by which objects were found, in words.
    """
    require(data.columns, EDIT_COLUMNS)
    colours = {BEFORE: THIRD, OWN: FIRST, OTHER: SECOND, RANDOM: MUTED}
    there = [one for one in QUANTITIES if one in set(data["quantity"])]
    fewest = f"{data['n'].min():,} to " if data["n"].nunique() > 1 else ""
    title = alt.TitleParams(
        "Captions after an object was projected out",
        subtitle=[
            f"{of_run(run)}, n = {fewest}{counted(data['n'].max(), 'picture')}",
            f"α = {alpha:g}, direction after layer {text_layer}, image tokens after layer {image_layer}",
            f"{synonyms}; {interval_note('lines', data['n'])}",
        ],
        frame="bounds",
    )
    return _points(data, there, "quantity", "line", colours).properties(title=title)


def _points(data: pd.DataFrame, rows: Sequence[str], row: str, line: str, colours: Mapping[str, str]) -> Any:
    """A row for each quantity, in it a point with its interval for each line."""
    words = [one for one in colours if one in set(data[line])]
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=200)
    told: dict[str, Any] = {"field": line, "type": "nominal", "sort": words, "legend": legend}
    base = alt.Chart(with_words(data, ".1%", n="n")).encode(
        alt.Y(f"{row}:N", sort=list(rows), title=None, axis=alt.Axis(labelLimit=250)),
        alt.YOffset(f"{line}:N", sort=words),
        alt.Color(**told, scale=alt.Scale(domain=words, range=[colours[one] for one in words])),
        tooltip=[
            alt.Tooltip(f"{row}:N", title="of"),
            alt.Tooltip(f"{line}:N", title="by"),
            alt.Tooltip("mean:Q", format=".1%"),
            interval_tip(),
            alt.Tooltip("n:Q", title="pictures", format=",d"),
        ],
    )
    shape = alt.Shape(**told, scale=alt.Scale(domain=words, range=list(SHAPES[: len(words)])))
    axis = alt.Axis(tickCount=5, format="~%")
    points = base.mark_point(size=20, filled=True, opacity=1).encode(
        alt.X("mean:Q", title="mean over pictures", scale=alt.Scale(domain=[0, 1]), axis=axis), shape
    )
    intervals = base.mark_rule(strokeWidth=1.2).encode(alt.X("low:Q"), alt.X2("high:Q"))
    return alt.layer(intervals, points).properties(height=(10 * len(words) + 6) * len(rows))


def _with_auroc(row: pd.Series) -> str:
    """`no norm: AUROC .93 [.88, .97]`."""
    ends = bracket(row["auroc_low"], row["auroc_high"], "z.2f")
    return f"{row['line']}: AUROC {row['auroc']:z.2f}{ends}"


def _binned(data: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The share of each kind's objects in common bins of the logarithm; a closing bin brings the last step down."""
    edges = np.linspace(np.log10(LEAST), 0.0, N_BINS + 1)
    parts = []
    for state, words in names.items():
        logs = np.log10(data.loc[data["state"] == state, "confidence"].clip(lower=LEAST).to_numpy(float))
        found, _ = np.histogram(logs, edges)
        share = np.append(found / found.sum(), 0.0)
        parts.append(pd.DataFrame({"objects": words, "confidence": 10**edges, "share": share}))
    return pd.concat(parts, ignore_index=True)


def _stroked() -> alt.Legend:
    symbol: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 200, "symbolStrokeWidth": 1.3, "symbolOpacity": 1}
    return alt.Legend(title=None, orient="top", columns=1, labelLimit=300, **symbol)
