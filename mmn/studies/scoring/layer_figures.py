"""In which layers do the top units lie? Those of a picture, or the distinct ones of all pictures, one series per k.

P1 figure S.4 (arXiv 2308.01544) and P2 figure 2 (arXiv 2311.07470) count distinct units over image-level rankings: a
unit's score is its maximum over a picture's concepts, and a unit that is on top for many pictures counts once. So a
layer whose units differ from picture to picture looks taller than one whose units are on top every time, and random
rankings, which name other units in every picture, soon fill every layer. `mean_units` (OURS) is free of both: how many
of a picture's k units lie in the layer, k in all, for the scores as for the control.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import layer_axis
from mmn.figures.theme import INK, MUTED, SHAPES, ordered_colours
from mmn.figures.wording import k_text, of_run
from mmn.names import RANDOM

COLUMNS: Final = ("method", "k", "layer", "n_units", "share", "mean_units", "n_images")
AXES: Final[Mapping[str, tuple[str, str]]] = {  # quantity -> axis title, number format
    "mean_units": ("units of a picture's top k, mean", "~r"),
    "n_units": ("distinct units in the top k", ",d"),
    "share": ("share of the distinct units", "~%"),
}
TITLES: Final[Mapping[str, str]] = {
    "mean_units": "Top units of a picture per layer",
    "n_units": "Distinct top units per layer",
    "share": "Distinct top units per layer",
}
TOP_UNITS: Final = "top units"
CONTROLS: Final[Mapping[str, str]] = {
    "mean_units": "random units",
    "n_units": "as many random units",
    "share": "random units",
}
_K: Final = alt.Legend(title="k (share of all units)", orient="top", columns=3)
_MAX_BARS: Final = 72  # more are thinner than 3 pt in a column of a paper


def layer_distribution(
    data: pd.DataFrame,
    run: Mapping[str, Any],
    subset: str = "all concepts",
    quantity: str = "mean_units",
    y_max: float | None = None,
) -> alt.TopLevelMixin:
    """Bars (lines in deep models) of top units per layer; one panel per method, `random` as its control.

    Args:
        data: One row per method, k and layer: `LayerQueries.distribution`. Rows of `random` become marks in the panels
            of the other methods, or a panel of their own when there are no others.
        run: The run's row: model, images, n_layers, d_mlp.
        subset: Which concepts the rankings are of, as words for the subtitle.
        quantity: A key of `AXES`: a picture's number, the number of distinct units of all pictures, or its share of
            the distinct units of all layers (same method and k).
        y_max: `highest` of all methods, the upper end of the vertical axis where the chart is one panel of theirs.
            Panels of one chart share their axis without it.

    Returns:
        A chart whose click selection `layer` holds layer and k.
    """
    assert set(COLUMNS) <= set(data.columns), f"missing columns: {sorted(set(COLUMNS) - set(data.columns))}"
    assert quantity in AXES, f"{quantity!r} is none of {sorted(AXES)}"
    rows = with_control(label_k(data, int(run["n_layers"]) * int(run["d_mlp"])), int(run["d_mlp"]))
    rows = rows.assign(top_label=TOP_UNITS, control_label=CONTROLS[quantity])
    methods = list(dict.fromkeys(rows["method"]))
    y_max = y_max if len(methods) == 1 else None
    is_barred = rows["layer"].nunique() * rows["k"].nunique() <= _MAX_BARS
    panel = (_bars if is_barred else _lines)(rows, _axis(quantity, y_max), _axis(f"control_{quantity}", y_max))
    lines = _subtitle(data, rows, run, subset, quantity)
    if len(methods) == 1:
        title = alt.TitleParams(f"{TITLES[quantity]}, {methods[0]}", subtitle=lines)
        return panel.properties(height=200, title=title)
    facet = alt.Facet("method:N", title=None, sort=methods, header=alt.Header(labelFontWeight="bold", labelPadding=4))
    return panel.properties(height=110).facet(
        facet=facet, columns=1, title=alt.TitleParams(TITLES[quantity], subtitle=lines)
    )


def highest(data: pd.DataFrame, d_mlp: int, quantity: str) -> float:
    """The highest value that `layer_distribution` draws of `data`, controls too."""
    rows = with_control(data, d_mlp)
    return float(rows[[quantity, f"control_{quantity}"]].max().max())


def label_k(data: pd.DataFrame, n_units: int) -> pd.DataFrame:
    """`data` ordered by k, with the column `k_label`."""
    return data.sort_values("k", kind="stable").assign(
        k_label=lambda rows: [k_text(int(k), n_units) for k in rows["k"]]
    )


def with_control(data: pd.DataFrame, d_mlp: int) -> pd.DataFrame:
    """`data` with `layer_share` (of the layer's units) and a control of each quantity (missing without `random`).

    `control_mean_units` and `control_share` are those of `random` for the same k and layer. `control_n_units` is that
    share of the method's own distinct units: where as many would lie, had random rankings named them. (Random rankings
    name nearly every unit once pictures are many, and would say nothing of the layers.) `random`'s own rows go unless
    there are no others.
    Of a score that was measured in some layers alone (`control_scale`) the control is of as many units in these, and
    missing in the others, as its counts are.
    """
    rows = data.assign(layer_share=data["n_units"] / d_mlp)
    is_control = rows["method"] == RANDOM
    if is_control.all():
        return rows.assign(**{f"control_{quantity}": float("nan") for quantity in AXES})
    control = rows.loc[is_control, ["k", "layer", "share", "mean_units"]]
    renamed = control.rename(columns={"share": "control_share", "mean_units": "control_mean_units"})
    joined = rows[~is_control].merge(renamed, on=["k", "layer"], how="left")
    joined = _where_measured(joined)
    return joined.assign(control_n_units=joined["control_share"] * _totals(joined))


def _where_measured(joined: pd.DataFrame) -> pd.DataFrame:
    """Controls where their score was measured, and for that as many units there as everywhere."""
    if "control_scale" not in joined:
        return joined
    scale = joined["control_scale"].where(joined["n_units"].notna())
    names = ("control_share", "control_mean_units")
    return joined.assign(**{name: joined[name] * scale for name in names})


def _totals(rows: pd.DataFrame) -> pd.Series:
    """The distinct units of all layers, of each row's method and k; also where only some layers are shown."""
    sums = rows.groupby(["method", "k"])[["n_units", "share"]].transform("sum")
    return (sums["n_units"] / sums["share"]).fillna(0.0)


def _bars(rows: pd.DataFrame, y: alt.Y, y_control: alt.Y) -> Any:
    base = _base(rows)
    offset = alt.XOffset("k_label:N", sort=_k_order(rows))
    clicked = _click()
    bars = base.mark_bar().encode(y, offset, _colour(rows), opacity=_faded(clicked), tooltip=_tooltip(rows))
    layers = [bars.add_params(clicked)]
    if _has_control(rows):
        legend = alt.Legend(title=None, orient="top", symbolStrokeWidth=0.8)
        shape = alt.Shape("control_label:N", scale=alt.Scale(range=["circle"]), legend=legend)
        marks = base.mark_point(size=22, fill="white", stroke=INK, strokeWidth=0.8, opacity=1)
        layers.append(marks.encode(y_control, offset, shape, tooltip=_tooltip(rows)))
    return alt.layer(*layers)


def _lines(rows: pd.DataFrame, y: alt.Y, y_control: alt.Y) -> Any:
    base = _base(rows).encode(_colour(rows))
    clicked = _click(nearest=True)
    points = base.mark_point(size=16, filled=True).encode(
        y, _shape(rows), opacity=_faded(clicked), tooltip=_tooltip(rows)
    )
    if not _has_control(rows):
        return alt.layer(base.mark_line(strokeWidth=1.3).encode(y), points.add_params(clicked))
    labels = [TOP_UNITS, rows["control_label"].iloc[0]]
    scale = alt.Scale(domain=labels, range=[[1, 0], [3, 2]])
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeColor=MUTED)

    def dash(field: str) -> alt.StrokeDash:
        return alt.StrokeDash(f"{field}:N", scale=scale, legend=legend)

    dashed = base.mark_line(strokeWidth=0.9).encode(y_control, dash("control_label"))
    lines = base.mark_line(strokeWidth=1.3).encode(y, dash("top_label"))
    return alt.layer(dashed, lines, points.add_params(clicked))


def _base(rows: pd.DataFrame) -> alt.Chart:
    return alt.Chart(rows).encode(x=layer_axis())


def _axis(field: str, y_max: float | None) -> alt.Y:
    title, form = AXES[field.removeprefix("control_")]
    scale = alt.Scale(domain=[0, y_max], nice=True) if y_max else alt.Scale(zero=True)
    steps: dict[str, Any] = {"tickMinStep": 1} if form == ",d" else {}
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=form, tickCount=5, **steps))


def _has_control(rows: pd.DataFrame) -> bool:
    return bool(rows["control_mean_units"].notna().any())


def _k_order(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows.sort_values("k")["k_label"]))


def _colour(rows: pd.DataFrame) -> alt.Color:
    order = _k_order(rows)
    return alt.Color(
        "k_label:N", sort=order, scale=alt.Scale(domain=order, range=ordered_colours(len(order))), legend=_K
    )


def _shape(rows: pd.DataFrame) -> alt.Shape:
    order = _k_order(rows)
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(order))]
    return alt.Shape("k_label:N", sort=order, scale=alt.Scale(domain=order, range=shapes), legend=_K)


def _tooltip(rows: pd.DataFrame) -> list[alt.Tooltip]:
    shown = [
        alt.Tooltip("method:N"),
        alt.Tooltip("layer:O"),
        alt.Tooltip("k_label:N", title="k"),
        alt.Tooltip("mean_units:Q", title="of a picture's top k, mean", format=".2f"),
        alt.Tooltip("n_units:Q", title="distinct units", format=",d"),
        alt.Tooltip("share:Q", title="share of the distinct units", format=".1%"),
        alt.Tooltip("layer_share:Q", title="share of the layer's units", format=".1%"),
    ]
    if _has_control(rows):
        shown.append(alt.Tooltip("control_mean_units:Q", title="random units of a picture", format=".2f"))
        shown.append(alt.Tooltip("control_share:Q", title="share of the random units", format=".1%"))
    return shown


def _click(nearest: bool = False) -> alt.Parameter:
    return alt.selection_point(name="layer", fields=["layer", "k"], nearest=nearest, on="click")


def _faded(clicked: alt.Parameter) -> Any:
    return alt.condition(clicked, alt.value(1), alt.value(0.4))


def _subtitle(data: pd.DataFrame, rows: pd.DataFrame, run: Mapping[str, Any], subset: str, quantity: str) -> list[str]:
    """What was counted, and of distinct units how many there are in all layers, beside those of random rankings."""
    of = f"{of_run(run)}, n = {counted(data['n_images'].max(), 'picture')}, {subset}"
    if quantity == "mean_units":
        return [of]
    totals = rows.assign(n=_totals(rows)).groupby("k", sort=True)["n"].agg(["min", "max"])
    random = data[data["method"] == RANDOM]
    drawn = random.assign(n=_totals(random)).groupby("k")["n"].max() if _has_control(rows) else {}
    sizes = [_span(totals.loc[k]) + (f" (random: {drawn[k]:z,.0f})" if k in drawn else "") for k in totals.index]
    return [of, f"distinct in all layers: {', '.join(sizes)}"]


def _span(row: pd.Series) -> str:
    least, most = round(row["min"]), round(row["max"])
    return f"{most:,}" if least == most else f"{least:,}–{most:,}"
