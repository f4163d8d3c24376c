"""Do the same units write a noun in other pictures of it? Concept by concept, and layer by layer.

P2, figure 4 (arXiv 2311.07470). Beside each ratio stands what random units in the same layers have in common, in
a mixture of experts in the same experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.wording import of_run, parts_word, require, span
from mmn.statistics.interval_words import percent
from mmn.statistics.many_tests import survivors_line
from mmn.studies.invariance.marks import SHARE_AXIS, concept_dots, k_words, layer_bars, titled

CONCEPT_COLUMNS: Final = ("noun", "ratio", "ratio_low", "ratio_high", "floor_random", "n_draws", "n")
LAYER_COLUMNS: Final = ("layer", "share", "floor_random", "n_concepts")


def by_concept(
    data: pd.DataFrame, run: Mapping[str, Any], method: str, k: int, layers: tuple[int, int] | None = None
) -> alt.TopLevelMixin:
    """Dots per concept: the share of the top k units that several pictures of it have in common, over random units.

    Args:
        data: `CrossImageQueries.by_concept`, in the order to draw.
        run: the run's row: model, images, n_layers, d_mlp.
        method: the ranking.
        k: units compared.
        layers: the layers that the data is of, first and last; None for all.
    """
    require(data.columns, CONCEPT_COLUMNS)
    n_pictures = int(data["n"].max())
    rows = _with_range(data).rename(columns={"noun": "concept", "floor_random": "floor"})
    title = titled(
        f"Top units that {counted(n_pictures, 'picture')} of a concept share: {method}, {k_words(k, run)}",
        f"{of_run(run)}, {_draws_text(data['n_draws'], n_pictures)}",
        *([] if layers is None else [f"only units of layers {layers[0]} to {layers[1]}, as a share of all k"]),
        "dot: mean over the concept's draws; line: from its lowest to its highest draw, not a confidence interval"
        + ("; no line: a single draw" if (data["n_draws"] == 1).any() else ""),
        f"tick: expected of random units in the same {parts_word(run)}",
        *(f"{line}; others hollow" for line in survivors_line(data)),
    )
    tips = [
        alt.Tooltip("range:N", title="draws from"),
        alt.Tooltip("floor:Q", title=_random_units(run), format=".2~%"),
        alt.Tooltip("n_draws:Q", title="draws"),
        alt.Tooltip("n:Q", title="pictures in common"),
    ]
    x_title = f"share of the top k common to all {n_pictures}" + ("" if layers is None else ", in these layers")
    return concept_dots(rows, x_title, method, tips, "top units in common", _random_units(run)).properties(title=title)


def by_layer(
    data: pd.DataFrame,
    run: Mapping[str, Any],
    method: str,
    k: int,
    n: int,
    subset: str = "all concepts",
    layers: tuple[int, int] | None = None,
) -> alt.TopLevelMixin:
    """Bars per layer: where the top k units lie that n pictures of a concept share, over random units.

    Args:
        data: `CrossImageQueries.by_layer`.
        run: the run's row: model, images, n_layers, d_mlp.
        method: the ranking.
        k: units compared.
        n: pictures of a concept.
        subset: which concepts were compared, as words for the subtitle.
        layers: drawn in full colour, first and last; None for all.
    """
    require(data.columns, LAYER_COLUMNS)
    first, last = layers or (0, int(run["n_layers"]) - 1)
    tips = [
        alt.Tooltip("share:Q", title="share of k", format=".2~%"),
        alt.Tooltip("n_concepts:Q", title="concepts"),
        alt.Tooltip("floor_random:Q", title=_random_units(run), format=".2~%"),
    ]
    is_meant = (alt.datum.layer >= first) & (alt.datum.layer <= last)
    opacity = alt.condition(is_meant, alt.value(0.9), alt.value(0.3))
    chosen = "" if layers is None else f"; full colour: layers {first} to {last}"
    title = titled(
        f"Where the units lie that {counted(n, 'picture')} of a concept share: {method}",
        f"{of_run(run)}, n = {counted(data['n_concepts'].max(), 'concept')}; {subset}; {k_words(k, run)}",
        f"bars: mean over draws, then concepts; all add up to the whole share; tick: random units{chosen}",
    )
    y = {"axis": SHARE_AXIS, "title": "shared units of the layer, of k"}
    names = ("shared units", _random_units(run))
    return layer_bars(data, method, "floor_random", y, tips, opacity, names).properties(title=title)


def _random_units(run: Mapping[str, Any]) -> str:
    return f"random units, same {parts_word(run)}"


def _draws_text(n_draws: pd.Series, n_pictures: int) -> str:
    """`100 concepts: 30 with 2–5 draws of 5 pictures, 70 with a single draw`."""
    several, n_single = n_draws[n_draws > 1], int((n_draws == 1).sum())
    concepts, of = counted(len(n_draws), "concept"), f"of {counted(n_pictures, 'picture')}"
    if several.empty:
        return f"{concepts}, each with a single draw {of}"
    if not n_single:
        return f"{concepts}, each with {span(several, 'draw')} {of}"
    return f"{concepts}: {len(several):,} with {span(several, 'draw')} {of}, {n_single:,} with a single draw"


def _with_range(data: pd.DataFrame) -> pd.DataFrame:
    """`data` with the words for the range of each concept's draws."""
    ends = zip(data["ratio_low"], data["ratio_high"], strict=True)
    words = [f"{percent(low, 1)} to {percent(high, 1)}" if low == low else "a single draw" for low, high in ends]
    return data.assign(range=words)
