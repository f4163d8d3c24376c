"""A figure of the registry on a page: drawn of the page's view, shown in the app's theme, exported in the paper's.

This is the only module of the app that shows a chart. A page builds a view (`app.filters`) and calls `show`, or draws
first (`drawn`) where it also needs the rows.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st
from altair.utils.schemapi import disable_debug_mode

from app import compared, pins, resources
from app.text import code, file_name, plain, sentence
from mmn.errors import UsageError
from mmn.figures import glyphs, on_screen
from mmn.figures.captions import caption
from mmn.figures.carriers import BESIDE_ENDING
from mmn.figures.differences import height
from mmn.figures.export import DRAWN, FORMATS, unshown
from mmn.figures.figure import Drawn, Figure, draw
from mmn.figures.presets import DOUBLE, PPI, PRESETS, SINGLE, Layout
from mmn.figures.saving import figure_file, forms_of
from mmn.store import Store
from mmn.studies.registry import FIGURES
from mmn.view import View

_SPELLED: Final = {"json": "Vega-Lite", "parquet": "Parquet", "tex": "TeX"}
_GRID: Final = """<style>
[class*="st-key-grid-"] {
    display: grid !important; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr));
}
</style>"""

disable_debug_mode()  # Altair checks a chart whole when it is drawn; checking each part, too, takes as long as all else


def drawn(name: str, view: View) -> Drawn:
    """The figure `name` of what it reads of a view, beside that of the second run where one is chosen.

    What was drawn or refused before is not asked of the database again until that has changed.

    Raises:
        UsageError: the filters leave nothing of it, or it was not measured.
    """
    figure, store = FIGURES[name], resources.store()
    if figure.subject:  # it is of no run, and no table tells when it changes
        return draw(figure, store, view)
    asked = replace(view, compare=compared.run_id())
    found: Drawn | UsageError = store.recent((name, asked), lambda: _drawn(figure, store, asked))
    if isinstance(found, UsageError):
        raise found.with_traceback(None)
    return found


def _drawn(figure: Figure, store: Store, asked: View) -> Drawn | UsageError:
    try:
        return draw(figure, store, asked)
    except UsageError as error:
        return error


def show(name: str, view: View) -> Drawn:
    """Draws a figure and shows it, with its export below.

    Raises:
        UsageError: the filters leave nothing of it, or it was not measured.
    """
    figure = drawn(name, view)
    show_drawn(figure)
    return figure


def show_drawn(figure: Drawn) -> None:
    """A figure without clicks, and its export below."""
    show_plain(figure)
    with st.container(horizontal=True, horizontal_alignment="right"):
        export_control(figure)


def show_plain(figure: Drawn) -> None:
    """A figure alone: one of several panels that are exported together."""
    with _beside(figure):
        _show_one(figure, 0, figure.height, f"chart-{name_of(figure)}")


def show_parts(figure: Drawn, key: str) -> None:
    """Its panels (`Drawn.parts`) and their export: side by side, or where a second run is beside each, below it."""
    with grid(key) if figure.beside is None else st.container():
        for _value, part in figure.parts():
            with st.container():
                show_plain(part)
    with st.container(horizontal=True, horizontal_alignment="right"):
        export_control(figure)


def show_clickable(figure: Drawn, key: str = "") -> list[View]:
    """A figure whose marks can be clicked; returns the views that the clicked marks mean.

    With a `key` of its own a click outlives a change of filters, as long as its mark is still drawn.
    """
    click = figure.figure.click
    assert click is not None, f"{figure.figure.name} has no clicks"
    with _beside(figure):
        _heading(figure.charts[0])
        event = st.vega_lite_chart(
            spec=figure.panels[0][0].spec,
            height=figure.height,
            on_select="rerun",
            selection_mode=click.selection,
            key=key or f"chart-{name_of(figure)}",
        )
    meant = [figure.clicked(point) for point in event["selection"].get(click.selection, [])]
    return [view for view in meant if view is not None]


def _show_one(figure: Drawn, number: int, height: int, key: str) -> None:
    """One of a figure's charts below its title; the panels of a facet side by side where there is room."""
    _heading(figure.charts[number])
    first, *others = figure.panels[number]
    if not first.heading:
        st.vega_lite_chart(spec=first.spec, height=height, key=key)
        return
    with grid(f"panels-{key}"):
        for place, panel in enumerate([first, *others]):
            with st.container(gap="xxsmall"):
                st.markdown(f":small[**{plain(panel.heading)}**]")
                shown = panel.height or height
                st.vega_lite_chart(spec=panel.spec, height=shown, key=f"{key}-{place}" if place else key)


def _heading(chart: Any) -> None:
    """A chart's title as text of the page: it breaks where the window ends, which a title in a chart does not."""
    text, lines = on_screen.title_lines(chart.title)
    st.markdown("  \n".join([f"**{plain(text)}**", *(f":small[:gray[{plain(line)}]]" for line in lines)]))


@contextmanager
def _beside(figure: Drawn) -> Iterator[None]:
    """Shows the second run's chart beside what is shown inside, below both their difference, and what is to be said."""
    beside = figure.beside
    if beside is None:
        yield
        return
    name = name_of(figure)
    with grid(f"compare-{name}"):
        with st.container():
            yield
        if beside.second is not None:
            with st.container():
                _show_one(figure, 1, beside.second.height, f"second-{name}")
    if beside.paired is not None:
        _show_one(figure, 2, height(beside.paired), f"difference-{name}")
    told = [*compared.not_told("", beside.of_runs), *compared.not_told(_said_of(figure), beside.told)]
    if told:
        st.caption(" ".join(sentence(one) for one in told))


def _said_of(figure: Drawn) -> str:
    """A figure and all its panels, of which the same holds."""
    return f"{figure.figure.name} {figure.asked.view.measure}"


def grid(key: str) -> Any:
    """A container whose parts share the page's whole width, and go below each other in a narrow window."""
    st.html(_GRID)
    return st.container(horizontal=True, gap="medium", key=f"grid-{key}")


def name_of(figure: Drawn) -> str:
    """What its file is called, without the ending: run, figure, and what tells it from others of the page."""
    view = figure.asked.view
    parts = [figure.asked.run_id[:8], view.image[:8], view.noun, str(view.neuron or ""), figure.figure.name]
    parts += [view.model, *view.methods, view.measure, view.against, view.found_on, view.edit[:8]]
    parts += [str(view.ks[0])] if len(view.ks) == 1 else []
    parts += [f"beside-{view.compare[:8]}"] if view.compare else []
    panels = figure.figure.panels
    if panels and figure.rows.data[panels].nunique() == 1:
        value = figure.rows.data[panels].iloc[0]
        is_flag = isinstance(value, bool | np.bool_)
        parts.append(str(value) if not is_flag else panels.removeprefix("is_") if value else "")
    return "-".join(dict.fromkeys(part for part in parts if part)).replace(":", "-")


def export_control(figure: Drawn) -> None:
    """The pin, and downloads of a figure and its rows. Each file is made only when its button is pressed."""
    name = name_of(figure)
    with st.container(horizontal=True, width="content"):  # in a narrow window the two stay together
        pins.button(figure, name)
        export = st.popover("Export", icon=":material/download:", key=f"export-{name}")
    with export:
        layout = _chosen_layout(name)
        with st.container(horizontal=True):
            for form in ("svg", "pdf", "png", "json", "csv", "parquet", "tex"):
                if form in forms_of(figure):
                    _download(figure, form, layout, name)
            _download_recipe(figure, layout, name)
        st.caption(
            f"On white, text as text, letters from {layout.size:g} pt; every file carries its recipe, from which "
            "`--recipe FILE` makes it again. CSV, Parquet and TeX hold the rows: their recipe is a file of "
            "its own."
        )
        st.caption(f"From a terminal: {code(command(figure, layout))}")
        st.caption("Draft caption:")
        st.code(caption(figure), language=None, wrap_lines=True)
        for told in _unshown(figure.chart, figure.rows.data):
            st.caption(f":orange[{sentence(told)}]")


def _chosen_layout(name: str) -> Layout:
    """Whose columns, which of them, and how fine a PNG: as they are chosen in a figure's export."""
    preset = st.selectbox("For", list(PRESETS), format_func=lambda key: PRESETS[key].title, key=f"venue-{name}")
    ppi = st.segmented_control("PNG, ppi", list(PPI), default=PPI[0], required=True, key=f"ppi-{name}")
    venue = PRESETS[preset]
    widths = {SINGLE: venue.single_in, DOUBLE: venue.double_in}
    if venue.single_in == venue.double_in:
        widths.pop(DOUBLE)
    labels = {f"{key.capitalize()} column ({inches:.2f} in)": key for key, inches in widths.items()}
    label = st.segmented_control(
        "Width", list(labels), default=next(iter(labels)), required=True, key=f"w-{preset}-{name}"
    )
    return Layout(preset, labels[label], ppi)


def command(figure: Drawn, layout: Layout | None = None) -> str:
    """The command that makes the same file."""
    flags = figure.asked.view.to_flags()
    usual = Layout()
    if layout is not None and layout != usual:
        flags += ["--preset", layout.preset, "--width", str(layout.width)]
        flags += ["--dpi", str(layout.ppi)] if layout.ppi != usual.ppi else []
    return shlex.join(["python", "-m", "mmn", "figure", figure.figure.name, *flags, "--out", "figure.svg"])


def _unshown(chart: Any, data: pd.DataFrame) -> list[str]:
    """What the files could not show of the chart's letters; charts of Latin letters alone are not looked through."""
    texts = data.select_dtypes(exclude="number").astype(str)
    said = [*np.ravel([chart.title.text]), *np.ravel([chart.title.subtitle]), *pd.unique(texts.to_numpy().ravel())]
    if not glyphs.suspects(map(str, said)):
        return []
    told = [glyphs.remedy(unshown(chart, form), form) for form in ("png", "pdf")]
    return [line for line in told if line]


def _download(figure: Drawn, form: str, layout: Layout, name: str) -> None:
    venue = f"-{layout.preset}" if layout.preset != Layout().preset else ""
    laid_out = f"{venue}-{layout.width}" if form in DRAWN else ""
    st.download_button(
        _SPELLED.get(form, form.upper()),
        data=lambda: figure_file(figure, form, layout).content,
        file_name=file_name(f"{name}{laid_out}.{form}"),
        mime=FORMATS[form],
        key=f"{form}-{name}",
        on_click="ignore",
    )


def _download_recipe(figure: Drawn, layout: Layout, name: str) -> None:
    """The recipe of the rows as CSV, which have no place for one."""
    st.download_button(
        "Recipe",
        data=lambda: figure_file(figure, "csv", layout).beside or b"",
        file_name=file_name(f"{name}.csv{BESIDE_ENDING}"),
        mime=FORMATS["json"],
        key=f"recipe-{name}",
        on_click="ignore",
    )
