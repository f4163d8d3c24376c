"""Does the projector keep what a picture shows, and how alike are image and text behind it?"""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import charts, filter_bar, study_page
from mmn.view import View

INTRODUCTION = (
    "The projector makes of what the vision encoder saw the image tokens that the decoder reads. **Probe**: is a "
    "picture's label still to be read from its mean image token behind it (Verma et al. 2024, by a ridge probe of "
    "ours)? **Cosines**: how near are the states of image tokens and of the caption, layer by layer (Shukor and Cord "
    "2024, second-hand)? **Units**: which are among the most active at both?"
)
OF_LABELS = (
    "Labels: folders, where every folder has pictures enough, and nouns that are there in the references, or, where "
    "not every picture has some, in the model's own caption; with the number of classes. A probe is trained on four "
    "fifths of the pictures and judged on the others. Shuffled labels show what one reaches that knows nothing."
)
OF_UNITS = (
    "IMA compares weights that pruning keeps for each modality; here it is the units of highest mean |a| at either "
    "kind of token, in one pass over picture and caption (ours)."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    filter_bar.none()
    job = study_page.measurement("projector")
    if not study_page.is_measured(run, job):
        return
    view = View(run["run_id"])
    study_page.guarded(lambda: probe(view))
    with charts.grid("modalities"):
        for name in ("modalities", "modality-units"):
            with st.container():
                study_page.guarded(partial(over_layers, name, view))
    st.caption(OF_UNITS)
    study_page.measure_again(run, job)


def probe(view: View) -> None:
    charts.show("projector", view)
    st.caption(OF_LABELS)


def over_layers(name: str, view: View) -> None:
    charts.show(name, view)


page()
