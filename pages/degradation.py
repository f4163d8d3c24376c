"""What happens to a noun, and to the caption, when its top units are zeroed or put under noise? Random units beside."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import degradation_charts, effect_captions, effect_inputs, resources, widgets
from mmn.names import ABLATE, PERTURB
from mmn.studies.degradation.queries import EffectQueries, Which

KINDS = {"Ablate": ABLATE, "Perturb": PERTURB}


def page() -> None:
    run = widgets.chosen_run()
    if run is None:
        widgets.no_runs()
        return
    st.markdown(
        "If units write a noun, the noun should go when they go. Here: what the noun's own top units leave of its "
        "probability when they are changed, and what random units leave."
    )
    settings = resources.store().ask(EffectQueries).settings(run["run_id"])
    concepts = resources.store().concepts(run["run_id"])
    widgets.tidy_filters(run, list(settings["method"].unique()), concepts)
    with st.container(horizontal=True, gap="large"):
        asked = st.segmented_control(
            "Intervention",
            list(KINDS),
            default="Ablate",
            required=True,
            key="effect",
            bind="query-params",
            help="Ablate: units are set to 0 at every position. Perturb: noise on the weights that they write with.",
        )
        is_first = effect_inputs.only_first()
    kind = KINDS[asked]
    settings = settings[settings["kind"] == kind]
    if settings.empty:
        nothing_yet(run, kind)
        return
    which = effect_inputs.filters(run, settings, concepts, Which(kind, (), only_first=is_first))
    if not which.methods:
        st.info("Choose at least one score above.", icon=":material/tune:")
        return
    means = resources.store().ask(EffectQueries).means(run["run_id"], which)
    if means.empty:
        st.info("No noun fits these filters.", icon=":material/filter_alt_off:")
        return
    if kind == ABLATE:
        degradation_charts.ablation(run, which, means)
    else:
        degradation_charts.perturbation(run, which, means)
    effect_captions.show(run, which)
    with st.expander("Measure more", icon=":material/add:"):
        effect_inputs.offer(run, kind)


def nothing_yet(run: dict[str, Any], kind: str) -> None:
    st.info(
        f"No unit of this run has been {'set to 0' if kind == ABLATE else 'put under noise'} yet.",
        icon=":material/science:",
    )
    effect_inputs.offer(run, kind)


page()
