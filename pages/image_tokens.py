"""Which image tokens does a noun need, and in which layers does attention read them?"""

from __future__ import annotations

import streamlit as st

from app import charts, filter_bar, filters, resources, study_page
from mmn.counts import counted
from mmn.studies.image_tokens.queries import ImageTokenQueries
from mmn.view import View

INTRODUCTION = (
    "Image tokens are replaced by the mean image token of the run, and the model reads the same caption again: is "
    "the noun still the most likely word? **The object**: tokens that its outline touches. **Gradients**: as many "
    "tokens, those with the highest integrated gradients. Beside each set: as many random tokens (Neo et al. 2025; "
    "their code was read)."
)
KNOCKOUT = (
    "The same for attention: in a window of layers, some positions cannot attend to a set of image tokens. "
    "**p(c)** is the position that predicts the noun; **the text** is every position after the picture, because an "
    "earlier word may have read it."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    job = study_page.measurement("image-tokens")
    if not study_page.is_measured(run, job):
        return
    concepts = resources.store().concepts(run["run_id"])
    filters.tidy_filters(run, [], concepts)
    with filter_bar.bar():
        view = View(run["run_id"], concepts=tuple(filters.concept_picker(concepts)))
    without_outlines(run["run_id"])
    study_page.guarded(lambda: show(view, "image-tokens", "image-token-share"))
    st.subheader("Without attention")
    st.markdown(KNOCKOUT)
    study_page.guarded(lambda: show(view, "knockout"))
    study_page.measure_again(run, job)


def show(view: View, *figures: str) -> None:
    """Figures of the view, one below the other."""
    for name in figures:
        charts.show(name, view)


def without_outlines(run_id: str) -> None:
    """Says which nouns have no rows of an object, and what would give them some."""
    counts = resources.store().ask(ImageTokenQueries).counts(run_id)
    missing, n_nouns = int(counts["n_nouns"] - counts["n_outlined"]), int(counts["n_nouns"])
    if missing:
        st.caption(
            f"Without an outline of their object: {missing:,} of {counted(n_nouns, 'noun')}, so rows that need one are "
            "missing for them; `mmn annotate RUN --masks FILE` adds outlines."
        )


page()
