"""Are image tokens words? How near to one they enter the decoder, and after which layer they say the caption's.

`nearest_cosines` is P1's comparison (arXiv 2308.01544, Table 2), `noun_shares` the logit lens over layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import numpy as np
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import interval_tip
from mmn.figures.theme import DASHES, FIRST, MUTED, SECOND
from mmn.figures.wording import of_run, require
from mmn.statistics.interval_words import interval_note, with_words
from mmn.statistics.kolmogorov_smirnov import kolmogorov_smirnov

COSINE_COLUMNS: Final = ("kind", "image_id", "cosine")
SHARE_COLUMNS: Final = ("layer", "line", "mean", "low", "high", "n")
N_BINS: Final = 40
_KINDS: Final = {"nearest": "image tokens", "random": "random vectors of the same spread"}


def nearest_cosines(data: pd.DataFrame, run: Mapping[str, Any]) -> alt.TopLevelMixin:
    """Two distributions of the cosine with the nearest embedding: of image tokens, and of random vectors.

    Args:
        data: kind (`nearest`, `random`), image_id, cosine: `LensQueries.nearest_tokens`, both kinds present.
        run: the run's row: model, images.
    """
    require(data.columns, COSINE_COLUMNS)
    cosines = {kind: data.loc[data["kind"] == kind, "cosine"].to_numpy(np.float64) for kind in _KINDS}
    test = kolmogorov_smirnov(cosines["nearest"], cosines["random"])
    names = list(_KINDS.values())
    base = alt.Chart(_binned(cosines)).encode(
        alt.X("cosine:Q", title="cosine with the nearest token's embedding", axis=alt.Axis(grid=False, tickCount=6)),
        alt.Y("share:Q", title="share of the vectors", stack=None, axis=alt.Axis(format="~%", tickCount=5)),
        alt.Color(
            "vectors:N",
            scale=alt.Scale(domain=names, range=[FIRST, MUTED]),
            legend=_stroked(columns=2),
        ),
        tooltip=[
            alt.Tooltip("vectors:N"),
            alt.Tooltip("cosine:Q", title="cosine from", format=".3f"),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    n_images = data.loc[data["kind"] == "nearest", "image_id"].nunique()
    n = (
        f"n = {counted(test.n_first, 'image token')} of {counted(n_images, 'picture')}, "
        f"{counted(test.n_second, 'random vector')}"
    )
    caveat = "p as if image tokens were independent, which those of a picture are not"
    title = alt.TitleParams(
        f"Nearest word of each image token: D = {test.statistic:z.3f}, p\u00a0{test.p_text}",
        subtitle=[f"{of_run(run)}, {n}", caveat],
    )
    area = base.mark_area(interpolate="step-after", opacity=0.15)
    line = base.mark_line(interpolate="step-after", strokeWidth=1.3).encode(_dash("vectors", names))
    return alt.layer(area, line).properties(height=200, title=title)


def noun_shares(data: pd.DataFrame, run: Mapping[str, Any]) -> alt.TopLevelMixin:
    """After each layer, the share of image tokens whose most probable token is a noun of the caption.

    Args:
        data: `rows.layer_shares`: layer, line (what is counted of which image tokens), mean, low, high, n.
        run: the run's row: model, images.
    """
    require(data.columns, SHARE_COLUMNS)
    lines = list(dict.fromkeys(data.sort_values("line")["line"]))
    scale = alt.Scale(domain=lines, range=[FIRST, MUTED, SECOND] if len(lines) > 1 else [FIRST])
    base = alt.Chart(with_words(data, ".1%", n="n")).encode(
        alt.X("layer:Q", title="after decoder layer (from 0)", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        alt.Color(
            "line:N",
            scale=scale,
            legend=_stroked(columns=1),
        ),
    )
    share = alt.Y("mean:Q", title="share of image tokens", axis=alt.Axis(format="~%", tickCount=5))
    tooltip = [
        alt.Tooltip("line:N", title="says"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("mean:Q", title="share", format=".1%"),
        interval_tip(),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
    ]
    band = base.mark_area(opacity=0.18).encode(alt.Y("low:Q", title="share of image tokens"), alt.Y2("high:Q"))
    sample = f"{of_run(run)}, n = {_counts(data, lines)}"
    means = f"{interval_note('band', data['n'])}; means over a picture's image tokens, then pictures"
    return alt.layer(
        band, base.mark_line(strokeWidth=1.3, point={"size": 20}).encode(share, _dash("line", lines), tooltip=tooltip)
    ).properties(
        height=200, title=alt.TitleParams("Image tokens that say a noun of the caption", subtitle=[sample, means])
    )


def _stroked(columns: int) -> alt.Legend:
    symbol: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 200, "symbolStrokeWidth": 1.3, "symbolOpacity": 1}
    return alt.Legend(title=None, orient="top", columns=columns, labelLimit=300, **symbol)


def _dash(field: str, names: list[str]) -> alt.StrokeDash:
    """A dash for each line, in the legend of its colour."""
    scale = alt.Scale(domain=names, range=[list(dash) for dash in DASHES[: len(names)]])
    return alt.StrokeDash(f"{field}:N", scale=scale, legend=_stroked(columns=2 if field == "vectors" else 1))


def _binned(cosines: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The share of each kind's vectors in common bins; a closing bin brings the last step down."""
    every = np.concatenate(list(cosines.values()))
    edges = (
        np.linspace(every.min(), every.max() or 1.0, N_BINS + 1) if every.max() > every.min() else np.array([0.0, 1.0])
    )
    parts = []
    for kind, values in cosines.items():
        shares = np.histogram(values, edges)[0] / len(values)
        parts.append(pd.DataFrame({"vectors": _KINDS[kind], "cosine": edges, "share": [*shares, 0.0]}))
    return pd.concat(parts, ignore_index=True)


def _counts(data: pd.DataFrame, lines: list[str]) -> str:
    counts = [int(data.loc[data["line"] == line, "n"].max()) for line in lines]
    if len(set(counts)) == 1:
        return counted(counts[0], "picture")
    return f"{counted(max(counts), 'picture')}, {min(counts):,} with known objects"
