"""What each page is there to answer: the sentence that it begins with, and the table of all on the first page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import streamlit as st

from mmn.studies.registry import STUDIES
from mmn.studies.study import RELATED, Page

WORK: Final = "Your work"  # a section of the navigation
SCORE: Final = Page(
    "score",
    "Score",
    ":material/play_circle:",
    "How does your model caption your pictures, and which of its units write each noun?",
    WORK,
)
FIGURES: Final = Page(
    "figures",
    "Figures",
    ":material/dashboard:",
    "Which figures go into the paper, in which order, and with which captions?",
    WORK,
)
RUNS: Final = Page(
    "runs",
    "Runs",
    ":material/folder_copy:",
    "Which runs are there, what are their names, and how much disk space do they use?",
    WORK,
)
SQL: Final = Page("sql", "SQL", ":material/database:", "What else is in the tables?", WORK)
_ASKED: Final = [page for study in STUDIES for page in study.pages]
PAGES: Final = sorted([*_ASKED, FIGURES, SCORE, RUNS, SQL], key=lambda page: ("", RELATED, WORK).index(page.section))
QUESTIONS: Final = {page.title: page.question for page in PAGES}


def by_section(pages: Sequence[Any]) -> dict[str, list[Any]]:
    """Pages, in the order of `PAGES`, by their section of the navigation."""
    found: dict[str, list[Any]] = {}
    for page, told in zip(pages, PAGES, strict=True):
        found.setdefault(told.section, []).append(page)
    return found


def question(title: str) -> None:
    """The first sentence of a page."""
    st.markdown(f"**{QUESTIONS[title]}**")


def table(pages: Sequence[Any]) -> None:
    """All pages, each with its question and the way there; folded away, so that nobody has to scroll past it."""
    with st.expander("What the pages answer", icon=":material/map:"):
        for page in pages:
            with st.container(horizontal=True, vertical_alignment="center"):
                with st.container(width=160):
                    st.page_link(page)
                st.markdown(QUESTIONS[page.title], width="stretch")
