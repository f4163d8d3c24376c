"""Inputs and controls that pages share: the run in the sidebar, filters that live in the address, chart export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st
from altair.utils.schemapi import disable_debug_mode

from app import resources, state
from app.text import code, file_name, plain
from mmn.figures import glyphs
from mmn.figures.export import FORMATS, PPI, WIDTHS_IN, chart_bytes, unshown
from mmn.figures.theme import NUMBERS, wrap
from mmn.figures.wording import k_text
from mmn.names import COMPLETE, RUNNING, default_method, definition
from mmn.no_nouns import why
from mmn.store.neurons import NeuronQueries

CHART_HEIGHT: Final = 420  # pixels, title and legend included
NARROWEST: Final = 480  # pixels that a chart has in a window of 800
SUBTITLE: Final = "#76808a"  # Streamlit's theme leaves it black, which nobody can read in the dark

_GRID: Final = """<style>
[class*="st-key-grid-"] {
    display: grid !important; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr));
}
</style>"""

disable_debug_mode()  # Altair checks a chart whole when it is drawn; checking each part, too, takes as long as all else


def run_picker(runs: pd.DataFrame) -> None:
    """The choice of run for all pages (`?run=`), with what is worth knowing of it."""
    if runs.empty:
        st.caption("No runs yet.")
        return
    rows = runs.to_dict("records")
    labels = [state.run_label(row) for row in rows]
    if st.session_state.get("run", labels[0]) not in labels:
        del st.session_state["run"]  # it was deleted
    state.tidy_address({"run": lambda text: state.find_label(labels, text)})
    chosen = st.selectbox("Run", labels, key="run", bind="query-params", help="Model, pictures, and the run's id")
    _describe(rows[labels.index(chosen)])


def chosen_run() -> dict[str, Any] | None:
    """The run chosen in the sidebar, its row and counts together; None while there are none.

    A page of nouns ends here, with the reason, where the run has no noun (`captioned_run` is for the others).
    """
    run = captioned_run()
    if run is not None and not run["n_concepts"]:
        st.info(_sentence(why(run["n_images"])), icon=":material/speaker_notes_off:")
        st.stop()
    return run


def captioned_run() -> dict[str, Any] | None:
    """The run chosen in the sidebar, whether its captions hold nouns or not; None while there are none."""
    label = st.session_state.get("run")
    if not label:
        return None
    store = resources.store()
    run = store.run(label.split()[-1])
    return run | store.summary(run["run_id"])


def no_runs() -> None:
    """What a page says while nothing has been scored."""
    st.info(
        "Nothing has been scored yet. The Score page scores the bundled gallery with the bundled model in a few "
        "minutes, or your own pictures with your own model.",
        icon=":material/inbox:",
    )
    st.page_link(resources.ROOT / "pages" / "score.py", label="Score pictures", icon=":material/play_circle:")
    st.caption("From a terminal: `python -m mmn score --model specimen --images gallery`")


def annotate(run: dict[str, Any]) -> str:
    """The command that decodes units and finds where they look, as Markdown."""
    return code(f"python -m mmn annotate {run['run_id'][:8]}")


def n_units(run: dict[str, Any]) -> int:
    """The units that a ranking of this run runs over, L·m."""
    return int(run["n_layers"]) * int(run["d_mlp"])


def tidy_filters(run: dict[str, Any], methods: Sequence[str], concepts: pd.DataFrame) -> None:
    """Lets hand-written and foreign values of the filters below mean what they can (`state.tidy_address`)."""
    labels = concept_labels(concepts)
    state.rename_address({"led": "layers"})  # as it was called on three of the pages
    state.tidy_address(
        {
            "method": lambda text: text if text in methods else None,
            "k": lambda text: _k_label(run, text),
            "concept": lambda text: labels.get(text.partition(" (")[0]),
        }
    )
    for key, known in (("concept", labels.values()), ("method", methods)):  # chosen in another run
        chosen = st.session_state.get(key, [])
        if any(text not in known for text in chosen):
            meant = [labels.get(text.partition(" (")[0], text) for text in chosen]
            st.session_state[key] = [text for text in meant if text in known]


def method_picker(methods: Sequence[str]) -> list[str]:
    """Scores of the run; at first the default one."""
    usual = state.usual("method", [default_method(methods)] if methods else [])
    return st.multiselect("Scores", methods, default=usual, key="method", bind="query-params", wrap=True)


def kind_picker(run: dict[str, Any], kinds: list[str]) -> str:
    """All units, or those whose decoded tokens are words, or the others; only once units of the run are decoded."""
    if not resources.store().ask(NeuronQueries).are_top_units_decoded(run["run_id"]):
        st.session_state.pop("units", None)
        st.caption(f"To split units into interpretable and not: {annotate(run)}")
        return kinds[0]
    return st.segmented_control(
        "Units",
        kinds,
        default=kinds[0],
        required=True,
        key="units",
        bind="query-params",
        help="Interpretable: at least 7 of the 10 tokens that it raises most are English words of 3 letters or more "
        "(P1). In models of many units only the top ones are decoded; the others are in neither part.",
    )


def ranking_picker(methods: Sequence[str]) -> str:
    """One score of the run (`?ranking=`), with every score's equation and source to look up."""
    if st.session_state.get("ranking") not in (None, *methods):
        del st.session_state["ranking"]  # of another run
    told = "\n".join(f"- **{plain(method)}**: {_defined(method)}" for method in methods)
    usual = methods.index(state.usual("ranking", default_method(methods)))
    method = st.selectbox("Ranked by", methods, index=usual, key="ranking", bind="query-params", help=told)
    st.caption(_defined(method))
    return method


def _defined(method: str) -> str:
    known = definition(method)
    return plain(f"{known.equation} (read at: {known.position}; {known.source})")


def k_picker(run: dict[str, Any]) -> list[int]:
    """Several k, as numbers or shares of all units, at most what the run stored; sorted, without what means nothing."""
    n, top_k = n_units(run), stored_k(run)
    given = st.multiselect(
        "Units per picture, k (share of all units)",
        [k_text(k, n) for k in state.k_options(n, top_k)],
        default=[k_text(k, n) for k in state.default_ks(n, top_k)],
        key="k",
        bind="query-params",
        accept_new_options=True,
        wrap=True,
        help=f"Choose, or type a number or a share such as 2 %. This run keeps the top {top_k:,} of {n:,} units.",
    )
    ks = {text: state.parse_k(text, n, top_k) for text in given}
    if ignored := [text for text, k in ks.items() if k is None]:
        st.caption(f":orange[Left out: {plain(', '.join(ignored), 200)}] (k is from 1 to {top_k:,} in this run)")
    return sorted({k for k in ks.values() if k is not None})


def stored_k(run: dict[str, Any]) -> int:
    """The largest k that the run's rankings hold."""
    return min(int(run["settings"]["top_k"]), n_units(run))


def concept_picker(concepts: pd.DataFrame) -> list[str]:
    """Lemmas to filter by, each with the number of pictures whose caption says it; none means all."""
    labels = list(concept_labels(concepts).values())
    state.usual("concept", [])
    chosen = st.multiselect(
        "Concepts (pictures)", labels, key="concept", bind="query-params", placeholder="All", wrap=True
    )
    return [text.partition(" (")[0] for text in chosen]


def concept_labels(concepts: pd.DataFrame) -> dict[str, str]:
    """Lemma to `dog (12)`."""
    return {row.lemma: f"{row.lemma} ({row.n_images:,})" for row in concepts.itertuples()}


def layer_picker(n_layers: int, told: str | None = None) -> tuple[int, int]:
    """First and last layer (`?layers=`), kept from page to page; `told` says what a page keeps by them."""
    if n_layers == 1:
        return 0, 0
    whole = (0, n_layers - 1)
    state.usual("layers", whole)
    if st.session_state.get("layers", whole)[1] > whole[1]:
        del st.session_state["layers"]  # of a deeper run
    return st.slider("Layers", *whole, whole, key="layers", bind="query-params", help=told)


def show_chart(chart: alt.TopLevelMixin, key: str, selection: str, height: int = CHART_HEIGHT) -> list[dict[str, Any]]:
    """Draws `chart` in the app's theme; returns the points of its click selection named `selection`."""
    event = st.altair_chart(_themed(chart), height=height, on_select="rerun", selection_mode=selection, key=key)
    return event["selection"].get(selection, [])


def show_figure(
    chart: alt.TopLevelMixin, data: pd.DataFrame, name: str, height: int = 340, width: int = NARROWEST
) -> None:
    """Draws a chart without clicks, and its export below; `width` is the least that it may have, in pixels."""
    show_plain(chart, name, height, width)
    with st.container(horizontal=True, horizontal_alignment="right"):
        export_control(chart, data, name)


def grid(key: str) -> Any:
    """A container whose parts share the page's whole width, and go below each other in a narrow window."""
    st.html(_GRID)
    return st.container(horizontal=True, gap="medium", key=f"grid-{key}")


def show_plain(chart: alt.TopLevelMixin, name: str, height: int = 340, width: int = NARROWEST) -> None:
    st.altair_chart(_themed(chart, width), height=height, key=f"chart-{name}")


def export_control(chart: alt.TopLevelMixin, data: pd.DataFrame, name: str) -> None:
    """Downloads of a chart and its data. Each file is made only when its button is pressed.

    Args:
        chart: The chart as it is on the screen; the files wear the paper theme instead of the app's.
        data: The rows behind it.
        name: The file's name without its ending; says run and figure.
    """
    with st.popover("Export", icon=":material/download:", key=f"export-{name}"):
        widths = {f"{key.capitalize()} column ({inches} in)": key for key, inches in WIDTHS_IN.items()}
        label = st.segmented_control("Width", list(widths), default=next(iter(widths)), required=True, key=f"w-{name}")
        width = widths[label]
        with st.container(horizontal=True):
            for form in ("svg", "pdf", "png", "csv"):
                _download(chart, data, form, width, name)
        st.caption(f"On white, text as text; PNG at {PPI} ppi. CSV holds the numbers of the chart.")
        for told in _unshown(chart, data):
            st.caption(f":orange[{plain(told)}.]")


def _unshown(chart: Any, data: pd.DataFrame) -> list[str]:
    """What the files could not show of the chart's letters; charts of Latin letters alone are not looked through."""
    texts = data.select_dtypes(exclude="number").astype(str)
    said = [*np.ravel([chart.title.text]), *np.ravel([chart.title.subtitle]), *pd.unique(texts.to_numpy().ravel())]
    if not glyphs.suspects(map(str, said)):
        return []
    told = [glyphs.remedy(unshown(chart, form), form) for form in ("png", "pdf")]
    return [line for line in told if line]


def _themed(chart: Any, width: int = NARROWEST) -> Any:
    """The chart with a title that is not cut off at `width` pixels."""
    chart = chart.configure_axis(labelFlush=False)  # Streamlit's theme pushes the first and last label off its mark
    title = chart.title.copy()
    title.text, title.subtitle = wrap(title.text, width, 15), wrap(title.subtitle, width, 12)
    style: dict[str, Any] = {"subtitleColor": SUBTITLE, "subtitlePadding": 6, "subtitleFontSize": 13, "offset": 12}
    themed = chart.properties(title=title).configure_title(**style)
    themed.config.locale = NUMBERS
    return themed


def _k_label(run: dict[str, Any], text: str) -> str | None:
    k = state.parse_k(text, n_units(run), stored_k(run))
    return None if k is None else k_text(k, n_units(run))


def _download(chart: alt.TopLevelMixin, data: pd.DataFrame, form: str, width: str, name: str) -> None:
    st.download_button(
        form.upper(),
        data=lambda: chart_bytes(chart, data, form, width),
        file_name=file_name(f"{name}.csv" if form == "csv" else f"{name}-{width}.{form}"),
        mime=FORMATS[form],
        key=f"{form}-{name}",
        on_click="ignore",
    )


def _describe(run: dict[str, Any]) -> None:
    parts = [state.count(run["n_images"], "picture"), state.count(run["n_concepts"], "concept")]
    if run["n_failed"]:
        parts.append(f"{run['n_failed']:,} failed")
    size = f"{run['n_layers']:,} layers × {run['d_mlp']:,} units"
    st.caption(f"{', '.join(parts)}. {size}. {run['created_at']:%d %b %Y, %H:%M} UTC")
    if run["n_images"] and not run["n_concepts"]:
        st.info("No caption of this run holds a noun.", icon=":material/speaker_notes_off:")
    if run["status"] == RUNNING:
        st.caption(":blue[Still being scored: what you see is partial.]")
    elif run["status"] != COMPLETE:
        st.caption(f":orange[This run was {plain(run['status'])}: only the finished pictures are here.]")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
