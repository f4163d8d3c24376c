"""Do a noun's top units write words that fit the picture? P1 table 1 (arXiv 2308.01544) as dots: each score's top
units beside the shuffled pairing, a panel per measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import DOT, TICK, interval_tip, key
from mmn.figures.theme import MUTED, method_colours
from mmn.figures.wording import metric_words, of_run, require, sample_of_each
from mmn.statistics.interval_words import interval_note, with_words
from mmn.statistics.many_tests import survivors_line

COLUMNS: Final = (
    "method",
    "metric",
    "value",
    "value_low",
    "value_high",
    "control",
    "control_low",
    "control_high",
    "difference",
    "difference_low",
    "difference_high",
    "control_blank",
    "n_images",
    "n",
)
_TOLD: Final = (
    ("value", "top units"),
    ("control", "another picture's"),
    ("difference", "difference"),
    ("control_blank", "over a grey picture"),
)


def sensitivity(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Dots with intervals per score: its top units' words, and as ticks those of other pictures' units.

    Args:
        data: `Store.sensitivity`; several metrics become panels with axes of their own.
        run: the run's row: model, images.
        subset: which concepts were compared, as words for the subtitle.
    """
    require(data.columns, COLUMNS)
    data = data.assign(metric=[metric_words(metric) for metric in data["metric"]])
    metrics = list(dict.fromkeys(data["metric"]))
    one = metrics[0] if len(metrics) == 1 else ""
    title = alt.TitleParams(
        frame="bounds",
        text="How well the top units' words fit" + (f" {one}" if one.startswith("the ") else f": {one}" if one else ""),
        subtitle=[
            f"{of_run(run)}, {sample_of_each(data['n_images'], data['n'])}; {subset}",
            f"dot: top units; grey: words of another picture's units; {interval_note('lines', data['n_images'])}",
            "means over a picture's concepts, then pictures",
            *(["diamond: the same noun's units over a grey picture, chosen likewise"] if _has_blank(data) else []),
            *survivors_line(data),
        ],
    )
    if one:
        return _panel(data, "mean of the measure").properties(title=title)
    facet = alt.Facet("metric:N", title=None, sort=metrics, header=alt.Header(labelFontWeight="bold", labelPadding=4))
    panel = _panel(data, "mean of the measure")
    return panel.facet(facet=facet, columns=1).resolve_scale(x="independent").properties(title=title)


def _panel(data: pd.DataFrame, x_title: str) -> Any:
    methods = list(dict.fromkeys(data["method"]))
    colour = alt.Color("method:N", scale=alt.Scale(domain=methods, range=method_colours(methods)), legend=None)
    x: dict[str, Any] = {"title": x_title, "scale": alt.Scale(zero=False, padding=8), "axis": alt.Axis(tickCount=5)}
    means = {name: words for name, words in _TOLD if name != "control_blank" or _has_blank(data)}
    for name in means:
        data = with_words(data, ".3f", f"{name}_")
    ends = [
        tip
        for name, words in means.items()
        for tip in (alt.Tooltip(f"{name}:Q", title=words, format=".3f"), interval_tip(f"{name}_", f"{words}, "))
    ]
    counts = [
        alt.Tooltip("n_images:Q", title="pictures", format=",d"),
        alt.Tooltip("n:Q", title="concepts", format=",d"),
    ]
    base = alt.Chart(data).encode(
        alt.Y("method:N", sort=methods, title=None, axis=alt.Axis(grid=True, labelLimit=200, labelFlush=False)),
        tooltip=[alt.Tooltip("method:N"), alt.Tooltip("metric:N"), *ends, *counts],
    )
    control_ends = base.transform_filter("isValid(datum.control_low)").mark_rule(strokeWidth=1.4, color=MUTED)
    control_ends = control_ends.encode(alt.X("control_low:Q", **x), alt.X2("control_high"))
    controls = base.mark_tick(thickness=2, size=13, color=MUTED, opacity=1).encode(alt.X("control:Q", **x))
    value_ends = base.transform_filter("isValid(datum.value_low)").mark_rule(strokeWidth=1.6)
    value_ends = value_ends.encode(alt.X("value_low:Q", **x), alt.X2("value_high"), colour)
    values = base.mark_point(filled=True, size=46, opacity=1).encode(alt.X("value:Q", **x), colour)
    layers = [control_ends, controls, value_ends, values]
    named = {"top units": (DOT, method_colours(methods)[0]), "another picture's units": (TICK, MUTED)}
    if _has_blank(data):
        blank = base.mark_point(shape="diamond", filled=True, size=40, opacity=1, color=MUTED)
        layers.insert(2, blank.encode(alt.X("control_blank:Q", **x)))
        named["over grey"] = ("diamond", MUTED)
    return alt.layer(*layers, key(base, named)).properties(height=alt.Step(24))


def _has_blank(data: pd.DataFrame) -> bool:
    return bool(data["control_blank"].notna().any())
