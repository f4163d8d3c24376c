"""Which units are specific to a domain of pictures, to text tokens or to image tokens?"""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import streamlit as st

from app import charts, filter_bar, filters, launcher, resources, state, study_page, unit_sets, unit_tables
from app.text import code, plain
from mmn.errors import UsageError
from mmn.names import RAW
from mmn.studies.domains.queries import DomainQueries
from mmn.studies.domains.rows import Found, group_table
from mmn.studies.domains.words import BYS, RULES
from mmn.view import View

INTRODUCTION: Final = (
    "A unit is active at a token if act(gate) is above 0. Three papers call a unit specific by how often it is "
    "active: in pictures of one domain, at text tokens or at image tokens. Here: the layers of such units, whether "
    "other pictures give the same units, whether they are top units of nouns, and what is lost when they are "
    "zeroed. The control: as many random units of the same layers."
)
RULE_HELP: Final = (
    "dape: domains, by the entropy of a unit's activity over domains (MMNeuron; its code was read). la-mu, "
    "adaptive: text and image tokens, by importance (MINER; its code was read; la-mu takes as many units for "
    "both). tokens: often active at image tokens, at text tokens, or at both (after Xu et al., whose own rule we "
    "could not read)."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    job = study_page.measurement("domains")
    if not study_page.is_measured(run, job):
        others()
        return
    view = chosen_view(run)
    study_page.guarded(lambda: show(run, view))
    study_page.measure_again(run, job)
    others()


def chosen_view(run: dict[str, Any]) -> View:
    """What pictures are grouped by, and how units are told apart, which are also the address."""
    there = resources.store().ask(DomainQueries).grouped_by(run["run_id"])
    state.tidy_address({"rule": lambda text: text if text in RULES else None, "by": lambda text: _there(text, there)})
    if st.session_state.get("by") not in (None, *there):
        del st.session_state["by"]  # of another run
    with filter_bar.bar():
        usual = state.usual("rule", RULES[0])
        rule = st.segmented_control(
            "Units by", RULES, default=usual, required=True, key="rule", bind="query-params", help=RULE_HELP
        )
        by = there[0]
        if len(there) > 1:
            options = [plain(by) for by in there]
            by = st.segmented_control(
                "Domains by", options, default=state.usual("by", by), required=True, key="by", bind="query-params"
            )
    return View(run["run_id"], by=by, rule=rule)


def _there(text: str, there: list[str]) -> str | None:
    return text if text in BYS and text in there else None


def show(run: dict[str, Any], view: View) -> None:
    """Where the groups lie and what they are, whose top they share, and what goes with them."""
    what = Found(resources.store(), run, view.by, view.rule)
    charts.show("domain-layers", view)
    groups(run, what)
    st.subheader("Are they top units of nouns?")
    study_page.guarded(lambda: overlap(view))
    st.subheader("What is lost when they are zeroed?")
    ablation(run, view)


def overlap(view: View) -> None:
    charts.show("domain-overlap", view)


def groups(run: dict[str, Any], what: Found) -> None:
    """A line for each group, and the units of one."""
    number = st.column_config.NumberColumn
    table = group_table(what)
    st.dataframe(
        table.assign(again=100 * table["again"], chance=100 * table["chance"]),
        hide_index=True,
        placeholder="–",
        column_order=["group", "n_units", "n_images", "again", "chance", "set"],
        column_config={
            "group": st.column_config.TextColumn("Units of", width=130),
            "n_units": number("Units", width=64),
            "n_images": number("Pictures", width=72),
            "again": number(
                "By both halves",
                width=110,
                format="%.0f %%",
                help="Share of the group that each half of the pictures finds on its own",
            ),
            "chance": number(
                "By chance", width=86, format="%.1f %%", help="By chance, for groups of these sizes in these layers"
            ),
            "set": st.column_config.TextColumn("Set of units", help="Its name when saved by `mmn domains RUN --save`"),
        },
    )
    name = st.selectbox("Show the units of", table["group"].tolist(), key="domain-group", width=filters.WIDE)
    one = next(group for group in what.groups if group.name == name)
    rows = pd.DataFrame({"layer": [unit.layer for unit in one.units], "unit": [unit.unit for unit in one.units]})
    rows = rows.assign(score=one.scores)
    unit_tables.plain_table(run, rows, RAW)
    origin = {"rule": what.rule, "group": one.name, "by": what.by}
    unit_sets.save(run, rows, origin, f"domains-{what.rule}-{what.run_id[:8]}")


def ablation(run: dict[str, Any], view: View) -> None:
    """What zeroing each group leaves of nouns, or the job that measures it."""
    try:
        charts.show("domain-ablation", view)
    except UsageError:
        st.info("No group of this rule has been switched off yet.", icon=":material/science:")
    job = study_page.measurement("domains", "ablate")
    with st.expander("Switch groups off", icon=":material/add:"):
        launcher.offer(run, [*job.of(run["run_id"]), "--by", view.by, "--rules", view.rule], job.button, job.note)


def others() -> None:
    """How pictures are grouped otherwise."""
    folders, tags = (code(f"python -m mmn domains RUN --by {by}") for by in ("folder", "tag"))
    told = "a tag belongs to a whole run (Runs page); domains by tag compare runs of one model"
    st.caption(f"Domains by folder: {folders}. By tag: {tags}; {plain(told)}.")


page()
