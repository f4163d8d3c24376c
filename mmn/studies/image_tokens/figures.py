"""What nouns lose without image tokens, and without attention to them: dots, curves, a heat map; beside random tokens.

After Neo et al. 2025 (arXiv 2410.07149), table 1 and figure 4; the control and the intervals are OURS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import DOT, TICK, interval_tip, key
from mmn.figures.heat_map import Look, share_maps
from mmn.figures.theme import DASHES, FIRST, MUTED
from mmn.figures.wording import of_run, require, sample_of_each
from mmn.statistics.interval_words import interval_note, with_words
from mmn.studies.image_tokens.rows import MEASURE_WORDS, SET_WORDS

_TOLD: Final = {"value": "lost", "control": "with random tokens", "difference": "difference"}
_COLUMNS: Final = (
    "measure",
    *(f"{name}{end}" for name in _TOLD for end in ("", "_low", "_high")),
    "n_images",
    "n",
    "n_tokens",
)
KNOCKOUT_COLUMNS: Final = ("row", "column", "owner", "share", "is_control", "n_images", "n", "n_tokens")


def token_loss(
    data: pd.DataFrame, run: Mapping[str, Any], n_outlined: int, n_nouns: int, subset: str = "all concepts"
) -> alt.TopLevelMixin:
    """Dots with intervals for each set of tokens, a panel for each measure; ticks are random tokens, as many.

    Args:
        data: `rows.token_loss`.
        run: the run's row: model, images.
        n_outlined: nouns whose object has an outline.
        n_nouns: all that were measured.
        subset: which concepts, as words for the subtitle.
    """
    require(data.columns, (*_COLUMNS, "token_set"))
    data = _worded(data).assign(token_set=data["token_set"].map(SET_WORDS))
    sets = list(dict.fromkeys(data["token_set"]))
    base = _base(data).encode(
        alt.Y("token_set:N", sort=sets, title=None, axis=alt.Axis(grid=True, labelLimit=170, labelFlush=False))
    )
    named = {"these tokens": (DOT, FIRST), "random tokens": (TICK, MUTED)}
    panel = alt.layer(*_dots(base), key(base, named)).properties(height=alt.Step(20))
    outlined = (
        f"replaced by the mean one, random ones as many; {n_outlined:,} of {counted(n_nouns, 'noun')} with an outline"
    )
    title = alt.TitleParams(
        frame="bounds",
        text="What nouns lose with image tokens",
        subtitle=[f"{of_run(run)}, {sample_of_each(data['n_images'], data['n'])}; {subset}", outlined, _means(data)],
    )
    return _panels(panel, title)


def token_share(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Curves against the share of image tokens that are replaced, those of highest integrated gradients first.

    Args:
        data: `rows.token_share`.
        run: the run's row: model, images.
        subset: which concepts, as words for the subtitle.
    """
    require(data.columns, (*_COLUMNS, "size"))
    data = _worded(data)
    lines = {"value": "highest gradients first", "control": "random tokens"}
    parts = [
        data.assign(line=words, mean=data[name], low=data[f"{name}_low"], high=data[f"{name}_high"])
        for name, words in lines.items()
    ]
    words = list(lines.values())
    base = _base(pd.concat(parts, ignore_index=True)).encode(
        alt.X("size:Q", title="share of image tokens replaced", axis=alt.Axis(format="~%", grid=False, tickCount=4)),
        alt.Color("line:N", title=None, sort=words, scale=alt.Scale(domain=words, range=[FIRST, MUTED]), legend=_top()),
    )
    y = alt.Y("mean:Q", title="lost, mean", axis=alt.Axis(format="~%", tickCount=5))
    dashes = alt.Scale(domain=words, range=[list(dash) for dash in DASHES[:2]])
    dash = alt.StrokeDash("line:N", title=None, sort=words, scale=dashes, legend=_top())
    band = base.mark_area(opacity=0.18).encode(alt.Y("low:Q", title="lost, mean"), alt.Y2("high:Q"))
    line = base.mark_line(strokeWidth=1.3, point={"size": 20}).encode(y, dash)
    title = alt.TitleParams(
        frame="bounds",
        text="What nouns lose, by how many image tokens are replaced",
        subtitle=[f"{of_run(run)}, {sample_of_each(data['n_images'], data['n'])}; {subset}", _means(data, "band")],
    )
    return _panels(alt.layer(band, line).properties(height=120), title)


def knockout(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Heat maps of the probability lost: y who does not see what, x in which layers; random tokens below.

    Args:
        data: `rows.knockout`.
        run: the run's row: model, images.
        subset: which concepts, as words for the subtitle.
    """
    require(data.columns, KNOCKOUT_COLUMNS)
    rows = with_words(with_words(data, ".3f", "lost_"), ".3f", "lost_control_")
    tips = [
        alt.Tooltip("row:N", title="blocked"),
        alt.Tooltip("column:N", title="in layers"),
        alt.Tooltip("lost:Q", title="probability lost", format=".3f"),
        interval_tip("lost_", "probability lost, "),
        alt.Tooltip("lost_control:Q", title="with random tokens", format=".3f"),
        interval_tip("lost_control_", "with random tokens, "),
        alt.Tooltip("wrong:Q", title="turned wrong", format=".1%"),
        *_counts(),
    ]
    title = alt.TitleParams(
        frame="bounds",
        text="Probability that nouns lose without attention",
        subtitle=[
            f"{of_run(run)}, {sample_of_each(data['n_images'], data['n'])}; {subset}",
            "from image tokens → to where they are read; text: all positions behind the picture",
            "means over a picture's nouns, then pictures; intervals in its exported table",
        ],
    )
    titles = ("decoder layers in which it is blocked", "attention blocked")
    look = Look({False: "these tokens", True: "as many random tokens"}, "lost", 18)
    return share_maps(rows, titles, tips, [], look=look).properties(title=title)


def _worded(data: pd.DataFrame) -> pd.DataFrame:
    for name in _TOLD:
        data = with_words(data, ".3f", f"{name}_")
    return data.assign(measure=data["measure"].map(MEASURE_WORDS))


def _base(data: pd.DataFrame) -> alt.Chart:
    ends = [
        tip
        for name, words in _TOLD.items()
        for tip in (alt.Tooltip(f"{name}:Q", title=words, format=".3f"), interval_tip(f"{name}_", f"{words}, "))
    ]
    return alt.Chart(data).encode(tooltip=[alt.Tooltip("measure:N"), *ends, *_counts()])


def _counts() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("n_tokens:Q", title="image tokens, mean", format=".1f"),
        alt.Tooltip("n_images:Q", title="pictures", format=",d"),
        alt.Tooltip("n:Q", title="concepts", format=",d"),
    ]


def _dots(base: alt.Chart) -> list[Any]:
    """The control's interval and tick, then the value's interval and dot."""
    x: dict[str, Any] = {
        "title": "lost, mean",
        "scale": alt.Scale(padding=6),
        "axis": alt.Axis(format="~%", tickCount=4),
    }
    layers = []
    for name, colour, width in (("control", MUTED, 1.4), ("value", FIRST, 1.6)):
        rule = base.transform_filter(f"isValid(datum.{name}_low)").mark_rule(strokeWidth=width, color=colour)
        layers.append(rule.encode(alt.X(f"{name}_low:Q", **x), alt.X2(f"{name}_high")))
        known = base.transform_filter(f"isValid(datum.{name})")
        mark: Any = (
            known.mark_tick(thickness=2, size=13, color=colour, opacity=1)
            if name == "control"
            else known.mark_point(filled=True, size=46, opacity=1, color=colour)
        )
        layers.append(mark.encode(alt.X(f"{name}:Q", **x)))
    return layers


def _panels(panel: Any, title: alt.TitleParams) -> alt.TopLevelMixin:
    header = alt.Header(labelFontWeight="bold", labelPadding=4)
    facet = alt.Facet("measure:N", title=None, sort=list(MEASURE_WORDS.values()), header=header)
    return panel.facet(facet=facet, columns=1).properties(title=title)


def _means(data: pd.DataFrame, mark: str = "lines") -> str:
    return f"{interval_note(mark, data['n_images'])}; means over a picture's nouns, then pictures"


def _top() -> alt.Legend:
    symbol: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 200, "symbolStrokeWidth": 1.3, "symbolOpacity": 1}
    return alt.Legend(title=None, orient="top", columns=2, labelLimit=260, **symbol)
