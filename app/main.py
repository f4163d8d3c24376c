"""The dashboard: page table, page config, shared sidebar, error boundary.

Start it with `streamlit run app/main.py`, from any folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # `streamlit run` puts only app/ there
    sys.path.insert(0, str(ROOT))

from app import access, overview, welcome  # noqa: E402
from app.places import cache_path  # noqa: E402
from app.startup import loading_libraries  # noqa: E402


def pages() -> list[st.Page]:
    """The page table: those of the studies, and the one that scores; the first page opens."""
    return [
        st.Page(
            ROOT / "pages" / Path(page.name).with_suffix(".py"), title=page.title, icon=page.icon, default=number == 0
        )
        for number, page in enumerate(overview.PAGES)
    ]


def dashboard() -> None:
    """One script run: what is around every page, then the page."""
    st.set_page_config(
        page_title="Multimodal neurons",
        page_icon=ROOT / "app" / "icon.png",  # a :material: icon would be fetched from a font server
        layout="wide",
    )
    refusal = access.refusal()
    if refusal is not None:
        st.navigation(pages(), position="hidden")
        refusal()
        return
    every = pages()
    page = st.navigation(overview.by_section(every), expanded=True)
    st.title(page.title)  # there while the libraries still load, as is what follows
    overview.question(page.title)
    if page.title == every[0].title:
        welcome.card(cache_path())
        overview.table(every)

    with loading_libraries():
        from app import compared, deletions, glossary, resources, search, set_aside, state, widgets
        from app.boundary import error_boundary

    if access.must_confine():
        access.confine(cache_path())
    state.carry_filters(page.title)
    with error_boundary():
        broken = resources.look_for_results()
        deletions.carry_out(page.title)
        with st.sidebar:
            runs = deletions.remaining(resources.store().runs())
            run = widgets.run_picker(runs)
            compared.picker(runs)
            search.box(run, every)
            glossary.popover()
            set_aside.notice(broken)
            access.show_visitor()
        page.run()


if __name__ == "__main__":  # multiprocessing runs the main file once more in each worker that it spawns
    dashboard()
