"""What happens to a noun, and to the caption, when its top units are zeroed, multiplied or put under noise?"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import degradation_charts, effect_captions, effect_inputs, filters, resources, study_page
from mmn.names import ABLATE, PERTURB, SCALE
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.view import View

KINDS = {"Ablate": ABLATE, "Scale": SCALE, "Perturb": PERTURB}
UNCHANGED = {ABLATE: "set to 0", SCALE: "multiplied", PERTURB: "put under noise"}


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(
        "If units write a noun, the noun should disappear when they are zeroed. Here: what is left of the noun's "
        "probability when its own top units are changed, compared with random units and with the top units of a "
        "noun of another picture. Only a drop beyond both is the noun's own."
    )
    settings = resources.store().ask(EffectQueries).settings(run["run_id"])
    concepts = resources.store().concepts(run["run_id"])
    filters.tidy_filters(run, list(settings["method"].unique()), concepts)
    asked = st.segmented_control(
        "Intervention",
        list(KINDS),
        default="Ablate",
        required=True,
        key="effect",
        bind="query-params",
        help="Ablate: units are set to 0 at every position. Scale: they are multiplied by 0.5, 2 or another "
        "factor. Perturb: noise is added to their output weights.",
    )
    kind = KINDS[asked]
    job = study_page.measurement("degradation", kind)
    settings = settings[settings["kind"] == kind]
    if settings.empty:
        st.info(f"No unit of this run has been {UNCHANGED[kind]} yet.", icon=":material/science:")
        effect_inputs.offer(run, job)
        return
    view = effect_inputs.chosen_view(run, settings, concepts, kind)
    if not view.methods:
        st.info("Choose at least one score above.", icon=":material/tune:")
        return
    found = resources.store().ask(EffectQueries).pictures(run["run_id"], EffectFilter.of(view, kind))
    if found.empty:
        st.info("No noun that was measured fits these filters.", icon=":material/filter_alt_off:")
    else:
        show(run, view, kind, found)
    with st.expander("Measure more", icon=":material/add:"):
        effect_inputs.offer(run, job)


def show(run: dict[str, Any], view: View, kind: str, found: pd.DataFrame) -> None:
    """The curves and what they come to, then captions side by side; `found` are the nouns with effects."""
    is_captioned = bool(found["n_captions"].any())
    if kind == ABLATE:
        degradation_charts.ablation(run, view, is_captioned)
    else:
        degradation_charts.sized(run, view, is_captioned, kind)
    effect_captions.show(run, view, kind, found)


page()
