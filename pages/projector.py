"""Does the projector keep what a picture shows, and how similar are image and text states after it?"""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import charts, filter_bar, study_page
from mmn.view import View

INTRODUCTION = (
    "The projector turns the output of the vision encoder into the image tokens that the decoder reads. **Probe**: "
    "can a picture's label still be read from its mean image token after the projector (Verma et al. 2024, paper "
    "read; our probe is a ridge regression)? **Cosines**: how similar are the states of image tokens and of the "
    "caption, layer by layer (Shukor and Cord 2024; code and README at second hand)? **Units**: which are among "
    "the most active at both?"
)
OF_LABELS = (
    "The label of a picture is its folder, if every folder has enough pictures, and whether a noun is in its "
    "references (or in the model's caption, if some pictures have no reference); the number of classes is in "
    "brackets. A probe is trained on four fifths of the pictures and evaluated on the others; with shuffled labels "
    "there is nothing to learn."
)
OF_UNITS = (
    "IMA compares the weights that pruning keeps for each modality. Here (ours) we compare the units of highest "
    "mean |a| at image tokens and at caption tokens, in one pass over both."
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
