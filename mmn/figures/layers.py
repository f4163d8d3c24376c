"""In which layers do the top units lie? Distinct units in the top k per layer, one series per k.

P1 figure S.4 (arXiv 2308.01544) and P2 figure 2 (arXiv 2311.07470), over image-level rankings: a unit's score is its
maximum over a picture's concepts, and a unit that is on top for many pictures counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import layer_axis
from mmn.figures.theme import INK, ordered_colours
from mmn.figures.wording import k_text
from mmn.names import RANDOM

COLUMNS: Final = ("method", "k", "layer", "n_units", "share")
AXES: Final[Mapping[str, tuple[str, str]]] = {  # quantity -> axis title, number format
    "n_units": ("distinct units in the top k", ",d"),
    "share": ("share of the distinct units", "~%"),
}
_MAX_BARS: Final = 72  # more are thinner than 3 pt in a column of a paper


def layer_distribution(
    data: pd.DataFrame,
    run: Mapping[str, Any],
    subset: str = "all concepts",
    quantity: str = "n_units",
    y_max: float | None = None,
) -> alt.TopLevelMixin:
    """Bars (lines in deep models) of distinct top units per layer; one panel per method, `random` as its control.

    Args:
        data: One row per method, k and layer: `Store.layer_distribution`. Rows of `random` become marks in the panels
            of the other methods, or a panel of their own when there are no others.
        run: The run's row: model, images, n_layers, d_mlp, and as n_images the pictures that enter the counts.
        subset: Which concepts the rankings are of, as words for the subtitle.
        quantity: A key of `AXES`: the count, or its share of the distinct units of all layers (same method and k).
        y_max: Upper end of the vertical axis, to compare charts drawn one by one.

    Returns:
        A chart whose click selection `layer` holds layer and k.
    """
    assert set(COLUMNS) <= set(data.columns), f"missing columns: {sorted(set(COLUMNS) - set(data.columns))}"
    assert quantity in AXES, f"{quantity!r} is none of {sorted(AXES)}"
    rows = with_control(label_k(data, int(run["n_layers"]) * int(run["d_mlp"])), int(run["d_mlp"]))
    is_barred = rows["layer"].nunique() * rows["k"].nunique() <= _MAX_BARS
    panel = (_bars if is_barred else _lines)(rows, _axis(quantity, y_max), _axis(f"control_{quantity}", y_max))
    methods = list(dict.fromkeys(rows["method"]))
    control = f"{'circles' if is_barred else 'dashed lines'}: random control" if _has_control(rows) else ""
    if len(methods) == 1:
        return panel.properties(height=200, title=_title(run, methods[0], subset, control))
    facet = alt.Facet("method:N", title=None, sort=methods, header=alt.Header(labelFontWeight="bold", labelPadding=4))
    return panel.properties(height=110).facet(facet=facet, columns=1, title=_title(run, "", subset, control))


def label_k(data: pd.DataFrame, n_units: int) -> pd.DataFrame:
    """`data` ordered by k, with the column `k_label`."""
    return data.sort_values("k", kind="stable").assign(
        k_label=lambda rows: [k_text(int(k), n_units) for k in rows["k"]]
    )


def with_control(data: pd.DataFrame, d_mlp: int) -> pd.DataFrame:
    """`data` with `layer_share` (of the layer's units), and `control_n_units` and `control_share`, those of `random`
    for the same k and layer (missing without such rows). `random`'s own rows go unless there are no others.
    """
    rows = data.assign(layer_share=data["n_units"] / d_mlp)
    is_control = rows["method"] == RANDOM
    if is_control.all():
        return rows.assign(control_n_units=float("nan"), control_share=float("nan"))
    control = rows.loc[is_control, ["k", "layer", "n_units", "share"]]
    renamed = control.rename(columns={"n_units": "control_n_units", "share": "control_share"})
    return rows[~is_control].merge(renamed, on=["k", "layer"], how="left")


def _bars(rows: pd.DataFrame, y: alt.Y, y_control: alt.Y) -> Any:
    base = _base(rows)
    offset = alt.XOffset("k_label:N", sort=_k_order(rows))
    clicked = _click()
    bars = base.mark_bar().encode(y, offset, _colour(rows), opacity=_faded(clicked), tooltip=_tooltip(rows))
    marks = base.mark_point(size=18, filled=True, fill="white", stroke=INK, strokeWidth=0.8, opacity=1)
    return alt.layer(bars.add_params(clicked), *([marks.encode(y_control, offset)] if _has_control(rows) else []))


def _lines(rows: pd.DataFrame, y: alt.Y, y_control: alt.Y) -> Any:
    base = _base(rows).encode(_colour(rows))
    clicked = _click(nearest=True)
    points = base.mark_point(size=16, filled=True).encode(y, opacity=_faded(clicked), tooltip=_tooltip(rows))
    dashed = base.mark_line(strokeWidth=0.9, strokeDash=[3, 2]).encode(y_control)
    lines = base.mark_line(strokeWidth=1.3).encode(y)
    return alt.layer(*([dashed] if _has_control(rows) else []), lines, points.add_params(clicked))


def _base(rows: pd.DataFrame) -> alt.Chart:
    return alt.Chart(rows).encode(x=layer_axis())


def _axis(field: str, y_max: float | None) -> alt.Y:
    title, form = AXES[field.removeprefix("control_")]
    scale = alt.Scale(domain=[0, y_max], nice=True) if y_max else alt.Scale(zero=True)
    step = 1 if form == ",d" else 0.01
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=form, tickCount=5, tickMinStep=step))


def _has_control(rows: pd.DataFrame) -> bool:
    return bool(rows["control_n_units"].notna().any())


def _k_order(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows.sort_values("k")["k_label"]))


def _colour(rows: pd.DataFrame) -> alt.Color:
    order = _k_order(rows)
    scale = alt.Scale(domain=order, range=ordered_colours(len(order)))
    legend = alt.Legend(title="k (share of all units)", orient="top", columns=3)
    return alt.Color("k_label:N", sort=order, scale=scale, legend=legend)


def _tooltip(rows: pd.DataFrame) -> list[alt.Tooltip]:
    shown = [
        alt.Tooltip("method:N"),
        alt.Tooltip("layer:O"),
        alt.Tooltip("k_label:N", title="k"),
        alt.Tooltip("n_units:Q", title="distinct units", format=",d"),
        alt.Tooltip("share:Q", title="share of the distinct units", format=".1%"),
        alt.Tooltip("layer_share:Q", title="share of the layer's units", format=".1%"),
    ]
    if _has_control(rows):
        shown.append(alt.Tooltip("control_n_units:Q", title="random control", format=",d"))
    return shown


def _click(nearest: bool = False) -> alt.Parameter:
    return alt.selection_point(name="layer", fields=["layer", "k"], nearest=nearest, on="click")


def _faded(clicked: alt.Parameter) -> Any:
    return alt.condition(clicked, alt.value(1), alt.value(0.4))


def _title(run: Mapping[str, Any], method: str, subset: str, control: str) -> alt.TitleParams:
    n = int(run["n_images"])
    of = f"{run['model']} on {run['images']}, n = {n:,} {'picture' if n == 1 else 'pictures'}, {subset}"
    text = "Distinct top units per layer" + (f", {method}" if method else "")
    return alt.TitleParams(text, subtitle=[of, *filter(None, [control])])
