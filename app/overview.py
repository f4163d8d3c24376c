"""What each page is there to answer: the sentence that it begins with, and the table of all on the first page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import streamlit as st

QUESTIONS: Final[Mapping[str, str]] = {  # a page's title -> its question
    "Layers": "In which layers do the units lie that write the captions' nouns?",
    "Image": "Which units write each noun of a picture's caption, and where in the picture do they look?",
    "Lens": "What do a picture's image tokens say, read as words?",
    "Neuron": "What does one unit write, for which pictures and nouns, and how does every score rank it?",
    "Invariance": "Do the same units write a noun when the picture is shuffled, and in other pictures of it?",
    "Specificity": "Does a noun's top unit write that noun alone?",
    "Sensitivity": "Do the words that a noun's top units write fit the noun, the caption and the picture?",
    "Degradation": "What is left of a noun, and of its caption, when units are switched off or put under noise?",
    "Edit": "Can a few units be changed so that the model says another word, and what else changes then?",
    "Score": "How does a model of yours caption pictures of yours, and which of its units write each noun?",
}


def question(title: str) -> None:
    """The first sentence of a page."""
    st.markdown(f"**{QUESTIONS[title]}**")


def table(pages: Sequence[Any]) -> None:
    """All pages, each with its question and the way there; folded away, so that nobody has to scroll past it."""
    with st.expander("What the ten pages answer", icon=":material/map:"):
        for page in pages:
            with st.container(horizontal=True, vertical_alignment="center"):
                with st.container(width=160):
                    st.page_link(page)
                st.markdown(QUESTIONS[page.title], width="stretch")
