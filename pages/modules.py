"""What would attention and FFN of each layer say of a noun alone, and does that add up to its logit?"""

from __future__ import annotations

import streamlit as st

from app import charts, filter_bar, filters, resources, study_page
from mmn.view import View

INTRODUCTION = (
    "VisEdit (its code was read) projects what each module writes as if it were the whole residual stream: the "
    "final norm is applied to it alone. So a module that writes little gets as large a value as one that writes "
    "much, and the values do not add up to the logit. The budget uses the norm at the scale of the whole stream, "
    "and adds up. Both are shown for the same modules, with a word of another picture's caption as VisEdit's "
    "control."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    job = study_page.measurement("modules")
    if not study_page.is_measured(run, job):
        return
    concepts = resources.store().concepts(run["run_id"])
    filters.tidy_filters(run, [], concepts)
    with filter_bar.bar():
        lemmas = filters.concept_picker(concepts)
    view = View(run["run_id"], concepts=tuple(lemmas))
    study_page.guarded(lambda: draw(view))
    study_page.measure_again(run, job)


def draw(view: View) -> None:
    charts.show("modules", view)


page()
