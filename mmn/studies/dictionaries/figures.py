"""Do a concept's words fit pictures that it was not made of, and how many pictures does each concept lead?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import DOT, TICK, diamond, dot, interval, interval_tip, key, tick
from mmn.figures.theme import FIRST, MUTED
from mmn.figures.wording import of_run, require, span
from mmn.statistics.interval_words import interval_note, with_words
from mmn.studies.dictionaries.rows import measure_words

TEST_COLUMNS: Final = (
    *("label", "metric", "value", "value_low", "value_high", "any_concept", "random", "n"),
    *("difference", "difference_low", "difference_high"),
)
CONCEPT_COLUMNS: Final = ("label", "led", "led_test", "low", "high", "n")


def dictionaries(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """A dot with its interval for each dictionary; ticks of random directions, diamonds of any of its concepts.

    Args:
        data: `rows.dictionaries`; several measures become panels.
        run: the run's row: model, images.
        subset: which nouns, in words.
    """
    require(data.columns, TEST_COLUMNS)
    data = data.assign(metric=[measure_words(metric) for metric in data["metric"]])
    metrics = list(dict.fromkeys(data["metric"]))
    title = alt.TitleParams(
        frame="bounds",
        text="How well a concept's words fit" + (f" {metrics[0]}" if len(metrics) == 1 else ""),
        subtitle=[
            f"{of_run(run)}, n = {span(data['n'], 'picture')} that dictionaries were not made of; {subset}",
            f"dot: the picture's strongest concept; {interval_note('lines', data['n'])}",
            "means over a picture's nouns, then pictures; a noun's own forms do not count",
        ],
    )
    if len(metrics) == 1:
        return _tests(data).properties(title=title)
    facet = alt.Facet("metric:N", title=None, sort=metrics, header=alt.Header(labelFontWeight="bold", labelPadding=4))
    return _tests(data).facet(facet=facet, columns=1).resolve_scale(x="independent").properties(title=title)


def _tests(data: pd.DataFrame) -> Any:
    labels = list(dict.fromkeys(data["label"]))
    x: dict[str, Any] = {"title": "mean of the measure", "scale": alt.Scale(zero=False, padding=8)}
    x["axis"] = alt.Axis(tickCount=5)
    data = with_words(with_words(data, ".3f", "value_", "n"), ".3f", "difference_", "n")
    base = alt.Chart(data).encode(
        alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(grid=True, labelLimit=200)),
        tooltip=[
            alt.Tooltip("label:N", title="dictionary"),
            alt.Tooltip("value:Q", title="strongest concept", format=".3f"),
            interval_tip("value_", "strongest concept, "),
            alt.Tooltip("any_concept:Q", title="any concept", format=".3f"),
            alt.Tooltip("random:Q", title="random directions", format=".3f"),
            interval_tip("difference_", "strongest less random, "),
            alt.Tooltip("n:Q", title="pictures", format=",d"),
        ],
    )
    layers = [
        tick(base, "random", x),
        diamond(base, "any_concept", x),
        interval(base, "value_low", "value_high", x),
        dot(base, "value", x),
    ]
    named = {
        "strongest concept": (DOT, FIRST),
        "random directions": (TICK, MUTED),
        "any concept of the dictionary": ("diamond", MUTED),
    }
    return alt.layer(*layers, key(base, named)).properties(height=alt.Step(20))


def concepts(
    data: pd.DataFrame, run: Mapping[str, Any], noun: str, dictionary: str, n_fit: int, n_test: int
) -> alt.TopLevelMixin:
    """A dot for each concept: the share of held-out pictures of which it is the strongest; a tick for its own ones.

    Args:
        data: `rows.concepts`.
        run: the run's row: model, images.
        noun: whose concepts they are.
        dictionary: its name, in words.
        n_fit: pictures that it was made of.
        n_test: pictures that were held out.
    """
    require(data.columns, CONCEPT_COLUMNS)
    labels = data["label"].tolist()
    x: dict[str, Any] = {"title": "share of pictures led", "axis": alt.Axis(format="~%", tickCount=4)}
    base = alt.Chart(with_words(data, ".1%", n="n")).encode(
        alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(grid=True, labelLimit=170)),
        tooltip=[
            alt.Tooltip("label:N", title="concept"),
            alt.Tooltip("led_test:Q", title="held-out pictures", format=".1%"),
            interval_tip(),
            alt.Tooltip("led:Q", title="its own pictures", format=".1%"),
        ],
    )
    title = alt.TitleParams(
        frame="bounds",
        text=f"Concepts of “{noun}”: {dictionary}",
        subtitle=[
            f"{of_run(run)}; made of {counted(n_fit, 'picture')}, n = {counted(n_test, 'picture')} held out",
            f"dot: held-out pictures; {interval_note('lines', [n_test])}",
        ],
    )
    layers = [
        tick(base, "led", x),
        interval(base, "low", "high", x),
        dot(base, "led_test", x),
    ]
    named = {"held-out pictures": (DOT, FIRST), "its own pictures": (TICK, MUTED)}
    return alt.layer(*layers, key(base, named)).properties(height=alt.Step(20), title=title)
