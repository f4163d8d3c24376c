"""Score pictures with a model: choose, see what it will cost, start, watch, cancel."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import job_list, resources, score_inputs, state
from app.estimate import Estimate, estimate
from app.text import sentence
from mmn.counts import counted
from mmn.errors import MmnError
from mmn.images import Listing, list_source
from mmn.names import RANDOM
from mmn.runs import jobs
from mmn.safety.roots import require_model
from mmn.view import LAYERS


def page() -> None:
    inputs, cost = st.columns([3, 2], gap="large")
    with inputs:
        options = score_inputs.choose()
    with cost, st.container(border=True):
        st.subheader("Before you start")
        confirm(options)
    st.subheader("Jobs")
    job_list.show_jobs()


def confirm(options: dict[str, Any]) -> None:
    """What it will cost, what is missing, and the button."""
    for name, wanted in (("model", "a model"), ("images", "pictures"), ("methods", "at least one score")):
        if not options[name]:
            st.caption(f"Choose {wanted} first.")
            return
    if wrong := wrong_layers(options["effect_layers"]):
        st.error(sentence(wrong))
        return
    try:
        require_model(options["model"])
        listing = look_at(options["images"], options["limit"])
    except MmnError as error:
        st.error(sentence(error))
        return
    n, n_failed = len(listing.examples), len(listing.failures)
    n_rankings = count_rankings(options)
    ks = options["top_k"], options["bottom_k"]
    bundled = resources.bundled_ids()
    tell(estimate(resources.store().runs(), options["model"], n, n_failed, n_rankings, *ks, bundled), n_rankings)
    if n_failed:
        with st.expander(f"{counted(n_failed, 'file')} cannot be used"):
            st.dataframe([{"file": f.source, "why": f.message} for f in listing.failures], hide_index=True)
    if listing.note:
        st.text(listing.note)
    if any(jobs.is_alive(job) for job in jobs.list_jobs(job_list.jobs_path())):
        st.caption(":orange[A job is running already; two at once slow each other down.]")
    if st.button("Start scoring", type="primary", icon=":material/play_arrow:", disabled=not n):
        start(options)


def wrong_layers(text: str) -> str:
    """What is wrong with the layers of effects, empty where nothing is."""
    try:
        _ = text and LAYERS.read(text)
    except ValueError as error:
        return f"Layers of effect: {error}"
    return ""


@st.cache_data(ttl=60, max_entries=4, show_spinner="Looking at the pictures")
def look_at(images: str, limit: int | None) -> Listing:
    return list_source(images, limit, work_path=resources.cache_path() / "images")


def count_rankings(options: dict[str, Any]) -> int:
    """One for each score; over a grey picture another, and one by the difference, which a draw does not have."""
    methods = options["methods"]
    n_differences = sum(not method.startswith(RANDOM) for method in methods)
    return len(methods) + (len(methods) + n_differences) * options["blank"]


def tell(cost: Estimate, n_rankings: int) -> None:
    broken = f", and {cost.n_failed:,} that cannot be used" if cost.n_failed else ""
    about, basis = ("About", "as in its last run") if cost.is_measured else ("At most about", "assumed")
    time = "none, there is no picture" if cost.rate else "not known yet, this model has no earlier run here"
    if cost.rate and cost.seconds:
        time = f"about {state.duration(cost.seconds)}, at {state.pace(cost.rate)} as in its last run"
    st.markdown(
        f"- **{counted(cost.n_images, 'picture')}**{broken}\n"
        f"- {about} **{cost.n_rows:,} score rows**: {cost.concepts_per_image:.1f} nouns a picture ({basis}), "
        f"{counted(n_rankings, 'ranking')}\n"
        f"- {about} **{cost.n_bytes / 1e6:,.0f} MB** on disk\n"
        f"- Time: **{time}**"
    )


def start(options: dict[str, Any]) -> None:
    words = options | {"methods": ",".join(options["methods"]), "cache": str(resources.cache_path())}
    try:
        jobs.start(jobs.score_command(words), job_list.jobs_path(), options["model"], options["images"])
    except MmnError as error:
        st.warning(sentence(error), icon=":material/hourglass_top:")
        return
    st.toast("Started")


page()
