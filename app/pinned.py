"""The page Figures: each pinned figure as it stands in the paper, its caption and its place; then all in one file.

A pin whose run is gone, or was measured again, says so in its own frame, and has no letter where it cannot be drawn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import streamlit as st

from app import pins, resources, state
from app.boundary import error_boundary
from app.text import plain
from mmn.counts import counted
from mmn.errors import MmnError
from mmn.figures.captions import caption
from mmn.figures.figure import Drawn
from mmn.figures.panels import Grid, fitting_columns, grid_file, panel_svg, usual_columns
from mmn.figures.paper_set import Panel, captions_text, set_bytes
from mmn.figures.pins import MOST_LETTERS, Pin
from mmn.figures.presets import DOUBLE, PPI, PRESETS, SINGLE, Layout
from mmn.figures.recipes import letter, of_rows
from mmn.figures.replay import redrawn
from mmn.figures.saving import rows_recipe
from mmn.studies.registry import find_figure

SMALL: Final = 170  # pixels of a figure in its frame
PAGE_IN: Final = 9.0  # of text, from top to bottom, in most venues
_REMOVED, _ZIP = state.OF_PAGE + "removed-pins", state.OF_PAGE + "zip"


@dataclass(frozen=True)
class Shown:
    """A pin, what it draws now, and its place among those that can be drawn; or why it cannot."""

    pin: Pin
    drawn: Drawn | None
    place: int
    why: str = ""
    changed: tuple[str, ...] = ()

    @property
    def panel(self) -> Panel:
        assert self.drawn is not None, self.why
        return Panel(self.drawn, self.pin.caption)


def shown(found: Sequence[Pin]) -> list[Shown]:
    """Draws every pin of what the cache holds now."""
    every: list[Shown] = []
    with st.spinner(f"Reading {counted(len(found), 'figure')}"):
        for pin in found:
            every.append(_shown(pin, sum(one.drawn is not None for one in every)))
    return every


def _shown(pin: Pin, place: int) -> Shown:
    try:
        drawn = redrawn(pin.recipe, find_figure(pin.recipe.figure), resources.store())
        return Shown(pin, drawn, place, changed=tuple(of_rows(pin.recipe, rows_recipe(drawn))))
    except MmnError as error:
        return Shown(pin, None, place, why=str(error))


def chosen_grid() -> Grid:
    """Whose columns, how wide, and how many panels side by side, which is also the address."""
    state.tidy_address(
        {
            "venue": lambda text: next((one.title for key, one in PRESETS.items() if text in (key, one.title)), None),
            "columns": lambda text: text if text in {"1", "2", "3", "4"} else None,
        }
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {key: one.title for key, one in PRESETS.items()}
        preset = st.selectbox(
            "For", list(titles), format_func=titles.__getitem__, key="venue", width=170, bind="query-params"
        )
        width = _width_picker(preset)
        fitting = [f"{n:d}" for n in fitting_columns(Layout(preset, width))]
        usual = str(usual_columns(Layout(preset, width)))
        if st.session_state.get("columns", usual) not in fitting:
            del st.session_state["columns"]  # of a wider layout
        columns = st.segmented_control(
            "Side by side", fitting, default=usual, required=True, key="columns", bind="query-params"
        )
        ppi = st.segmented_control("PNG, ppi", list(PPI), default=PPI[0], required=True, key="pins-ppi")
    return Grid(Layout(preset, width, ppi), int(columns))


def _width_picker(preset: str) -> str:
    venue = PRESETS[preset]
    widths = {DOUBLE: venue.double_in, SINGLE: venue.single_in}
    if venue.double_in == venue.single_in:
        return DOUBLE
    labels = {f"{key.capitalize()} column ({inches:.2f} in)": key for key, inches in widths.items()}
    label = st.segmented_control(
        "Width", list(labels), default=next(iter(labels)), required=True, key=f"pins-width-{preset}"
    )
    return labels[label]


def cards(every: Sequence[Shown], grid: Grid) -> None:
    """A frame for each pin."""
    for number, one in enumerate(every):
        with st.container(border=True, key=f"pin-card-{one.pin.pin_id}"), error_boundary():
            _framed(one, grid, is_first=number == 0, is_last=number == len(every) - 1)


def _framed(one: Shown, grid: Grid, is_first: bool, is_last: bool) -> None:
    name = f"({letter(one.place)})" if one.drawn else "No letter"
    with st.container(horizontal=True, gap="medium"):
        if one.drawn is not None:
            svg = panel_svg(one.drawn, one.place, "svg", grid)
            st.image(_picture(svg), width=SMALL, alt=f"{name} {one.pin.recipe.figure}")
        with st.container(width="stretch", gap="small"):
            st.markdown(f"**{name}** {plain(_title(one))}")
            st.caption(_wanted(one))
            _changes(one)
            with st.container(horizontal=True, gap="small"):
                _mover(one.pin.pin_id, name, "up", is_first)
                _mover(one.pin.pin_id, name, "down", is_last)
                _remover(one.pin.pin_id, name)
    if one.drawn is not None:
        _caption_box(one, name)


def _title(one: Shown) -> str:
    """What the chart says of itself; of one that cannot be drawn its name."""
    if one.drawn is None:
        return one.pin.recipe.figure
    text = one.drawn.chart.title.text
    return text if isinstance(text, str) else " ".join(text)


def _changes(one: Shown) -> None:
    """What is not as it was when the figure was pinned."""
    if one.drawn is None:
        st.warning(f"It can no longer be drawn: {plain(one.why)}.", icon=":material/broken_image:")
    if not one.changed:
        return
    st.warning(
        f"The run has changed since this was pinned: {plain('; '.join(one.changed))}.",
        icon=":material/difference:",
    )
    st.button("Pin the current version", key=f"again-{one.pin.pin_id}", on_click=pins.told, args=(_pin_again, one))


def _mover(pin_id: str, name: str, way: str, is_end: bool) -> None:
    st.button(
        "",
        icon=f":material/arrow_{way}ward:",
        key=f"{way}-{pin_id}",
        help=f"Moves {name} {way}",
        disabled=is_end,
        on_click=pins.told,
        args=(_move, pin_id, -1 if way == "up" else 1),
        type="tertiary",
    )


def _remover(pin_id: str, name: str) -> None:
    st.button(
        "",
        icon=":material/delete:",
        key=f"remove-{pin_id}",
        help=f"Removes {name}; it can be brought back until this page is left",
        on_click=pins.told,
        args=(_remove, pin_id),
        type="tertiary",
    )


def _wanted(one: Shown) -> str:
    """The run, the figure, and what was chosen, as a command says it."""
    recipe = one.pin.recipe
    run = f"run {recipe.run_id[:8]}" if one.drawn is None else state.run_label(dict(one.drawn.asked.run))
    chosen = {name: value for name, value in recipe.view.items() if name != "run"}
    words = [f"{name} {', '.join(value) if isinstance(value, list) else value}" for name, value in chosen.items()]
    return plain("; ".join([run, recipe.figure, *words]))


def _caption_box(one: Shown, name: str) -> None:
    draft = caption(one.panel.drawn)
    pin_id = one.pin.pin_id
    is_own = bool(one.pin.caption)
    with st.expander(f"Caption of {name}: {'your own' if is_own else 'a draft'}", icon=":material/notes:"):
        key = f"caption-{pin_id}-{is_own}"
        st.text_area(
            "Caption",
            one.pin.caption or draft,
            key=key,
            max_chars=MOST_LETTERS,
            height=200,
            label_visibility="collapsed",
            on_change=pins.told,
            args=(_write_caption, pin_id, key, draft),
        )
        if is_own:
            st.button("Back to the draft", key=f"draft-{pin_id}", on_click=pins.told, args=(_draft, pin_id))


def _move(pin_id: str, by: int) -> str:
    pins.pins().move(pin_id, by)
    return ""


def _remove(pin_id: str) -> str:
    removed = pins.pins().remove(pin_id)
    if removed is not None:
        st.session_state.setdefault(_REMOVED, []).append(removed)
    return ""


def _bring_back() -> str:
    pin, place = st.session_state[_REMOVED].pop()
    pins.pins().add(pin, place=place)
    return ""


def _pin_again(one: Shown) -> str:
    assert one.drawn is not None
    pins.pins().add(Pin(rows_recipe(one.drawn), one.pin.caption))
    return "The current version is pinned"


def _write_caption(pin_id: str, key: str, draft: str) -> str:
    text = st.session_state[key].strip()
    pins.pins().write_caption(pin_id, "" if text == draft else text)
    return ""


def _draft(pin_id: str) -> str:
    pins.pins().write_caption(pin_id, "")
    return ""


def undo() -> None:
    """Brings back what was removed since this page was opened, the last first."""
    removed = st.session_state.get(_REMOVED)
    if not removed:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Removed: {plain(removed[-1][0].recipe.figure)}", width="content")
        st.button("Undo", icon=":material/undo:", key="pins-undo", on_click=pins.told, args=(_bring_back,))


def together(every: Sequence[Shown], grid: Grid) -> None:
    """The grid as it will be, and the files."""
    panels = [one.panel for one in every if one.drawn]
    st.subheader("All in one file")
    if not panels:
        st.caption("None of the pinned figures can be drawn.")
        return
    drawings = [panel.drawn for panel in panels]
    with st.spinner(f"Drawing {counted(len(panels), 'figure')}"):
        made = grid_file(drawings, "svg", grid)
    with st.container(horizontal=True, vertical_alignment="center"):
        _offer_file("SVG", "svg", lambda: made.content, "image/svg+xml")
        _offer_file("PDF", "pdf", lambda: grid_file(drawings, "pdf", grid).content, "application/pdf")
        _offer_file("PNG", "png", lambda: grid_file(drawings, "png", grid).content, "image/png")
        _offer_file("Captions", "txt", lambda: captions_text(panels).encode(), "text/plain")
        _zip(panels, grid, made.recipe.to_json())
    size = f"{grid.layout.width_in:.2f} × {made.height_in:.2f} in, letters from {grid.layout.size:g} pt"
    if made.height_in > PAGE_IN:
        st.caption(f":orange[{size}: higher than a page of {PAGE_IN:g} in. More side by side, or fewer, would fit.]")
    else:
        st.caption(f"{size}. Every file carries its recipe: `mmn figure --recipe FILE` makes it again.")
    st.image(_picture(made.content.decode()), width="stretch", alt="All pinned figures as a grid")


def _offer_file(label: str, ending: str, data: Any, mime: str) -> None:
    st.download_button(label, data, f"figures.{ending}", mime, key=f"pins-{ending}", on_click="ignore")


def _zip(panels: Sequence[Panel], grid: Grid, recipe: str) -> None:
    """Makes the zip with a bar of how far it is, then offers it; another order or layout asks for another."""
    wanted = (recipe, grid, tuple(panel.caption for panel in panels))
    known, content = st.session_state.get(_ZIP, (None, b""))
    if known == wanted:
        st.download_button(
            f"Save the zip ({len(content) / 1e6:.1f} MB)",
            content,
            "figures.zip",
            "application/zip",
            key="pins-save-zip",
            type="primary",
            icon=":material/download:",
            on_click="ignore",
        )
    elif st.button("Make the zip", key="pins-make-zip", type="primary", icon=":material/folder_zip:"):
        bar = st.progress(0.0, "Making the files")

        def tell(done: int, n: int) -> None:
            bar.progress(done / n, f"Making file {done:,} of {n:,}")

        content = set_bytes(panels, grid, tell)
        st.session_state[_ZIP] = (wanted, content)
        st.rerun()


def _picture(svg: str) -> str:
    """An SVG for a browser's picture: without its recipe, which holds what would double its size."""
    return re.sub(r"<metadata.*?</metadata>", "", svg, count=1, flags=re.S)
