"""Which units carry a noun from the picture to its logit, and is the noun still there with them alone?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, links, resources, state, study_page, unit_tables
from app.text import file_name
from mmn.counts import counted
from mmn.figures.wording import parts_word
from mmn.statistics.interval_words import TOO_FEW
from mmn.store.rankings import d_experts
from mmn.studies.circuits.queries import CircuitQueries
from mmn.studies.circuits.tracer import graph
from mmn.view import View

LEFT = {"probability": "prob", "share of the untouched": "relative", "logit": "logit"}
FORMAT = "application/json"
INTRODUCTION = (
    "Image tokens are at the bottom, the noun at the top, and between them the units of each layer that pass most "
    "on to the units of the next (after Rajaram et al., known to us at second hand: no code was released; `--rule "
    "relp` takes the derivative by RelP's rules, whose code was read). A unit is darker the more of its input "
    "comes from the picture; an edge shows how much of it goes through attention. To test whether these units are "
    "enough, all others are held at their mean."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    job = study_page.measurement("circuits")
    if study_page.is_measured(run, job):
        circuits = resources.store().ask(CircuitQueries).circuits(run["run_id"])
        study_page.guarded(lambda: show(run, chosen(circuits)))
        study_page.measure_again(run, job)


def chosen(circuits: pd.DataFrame) -> dict[str, Any]:
    """The circuit to look at (`?noun=`, `?image=`): one of several pictures for each noun, and those of one picture."""
    rows = circuits.drop_duplicates(["noun", "image_id", "rule", "k"]).to_dict("records")
    labels = {_label(row): row for row in rows}
    asked = st.query_params.get("noun"), st.query_params.get("image", "")
    usual = next((number for number, row in enumerate(rows) if _is(row, *asked)), 0)
    state.tidy_address(
        {
            "circuit": lambda text: text if text in labels else None,
            "left": lambda text: next((one for one, name in LEFT.items() if text in (one, name)), None),
        }
    )
    if st.session_state.get("circuit") not in (None, *labels):
        del st.session_state["circuit"]  # of another run
    label = st.selectbox("Circuit", list(labels), index=usual, key="circuit", bind="query-params", width=420)
    return dict(labels[label])


def _label(row: dict[str, Any]) -> str:
    where = (
        f"on picture {row['image_id'][:12]}" if isinstance(row["image_id"], str) else counted(row["n_found"], "picture")
    )
    return f"{row['noun']}, {where}, {row['rule']}, {row['k']} a layer"


def _is(row: dict[str, Any], noun: str | None, image: str) -> bool:
    image_id = row["image_id"] if isinstance(row["image_id"], str) else ""
    return row["noun"] == noun and (image_id.startswith(image) if image else not image_id)


def show(run: dict[str, Any], about: dict[str, Any]) -> None:
    """The graph, whether it is enough, and its units."""
    image = about["image_id"] if isinstance(about["image_id"], str) else ""
    view = View(run["run_id"], noun=about["noun"], image=image, derivative=about["rule"], ks=(int(about["k"]),))
    figure = charts.drawn("circuit", view)
    clicked = [one.neuron for one in charts.show_clickable(figure) if one.neuron is not None]
    with st.container(horizontal=True, horizontal_alignment="right"):
        if clicked:
            links.neuron_link(run, clicked[0])
        charts.export_control(figure)
    st.subheader("Is the circuit enough?")
    words = st.segmented_control(
        "What is left", list(LEFT), default="probability", required=True, key="left", bind="query-params"
    )
    charts.show("circuit-curve", replace(view, measure=LEFT[words]))
    st.caption(
        "Kept: only these units compute; every other unit of every layer stays at its mean activation, and "
        f"attention is unchanged. Ablated: the other way round. What random units of the same {parts_word(run)}, or "
        "another noun's circuit, keep equally well is not specific to this noun."
    )
    units(run, about)
    download(run, about)


def units(run: dict[str, Any], about: dict[str, Any]) -> None:
    """The units with their words."""
    st.subheader("Its units")
    found = resources.store().ask(CircuitQueries).units(run["run_id"], about["circuit"])
    shown = unit_tables.with_links(found, run).assign(
        writes=[unit_tables.tokens_text(cell) for cell in found["tokens"]],
        **{name: 100 * found[name] for name in ("from_image", "at_image")},
    )
    number = st.column_config.NumberColumn
    columns: dict[str, Any] = {
        "neuron": unit_tables.unit_column(),
        "place": number(
            "Place", help="Its place in its layer, by what it passes on to the kept units of the next layer"
        ),
        "score": number("Passes on", format="%.3f", help="In logits, without sign: units are selected by this"),
        "effect": number(
            "Effect", format="%+.3f", help="First-order estimate of its contribution to the logit, over all paths"
        ),
        "effect_low": number("95 % from", format="%+.3f", help=f"95 % interval by picture. {TOO_FEW}"),
        "effect_high": number("to", format="%+.3f"),
        "from_image": number(
            "From the picture", format="%.0f %%", help="The share of its input that comes from image tokens"
        ),
        "at_image": number(
            "At image tokens",
            format="%.0f %%",
            help="The share of its effect at image tokens; the rest is at text tokens",
        ),
        "writes": st.column_config.TextColumn("Writes", width=320),
    }
    order = [name for name in columns if shown[name].notna().any()]
    st.dataframe(shown, hide_index=True, placeholder="–", column_order=order, column_config=columns, row_height=30)


def download(run: dict[str, Any], about: dict[str, Any]) -> None:
    """The graph for another viewer."""
    queries = resources.store().ask(CircuitQueries)
    found = queries.units(run["run_id"], about["circuit"])
    words = {(row.layer, row.unit): row.tokens for row in found.itertuples()}
    slug = f"{run['run_id'][:8]}-{about['circuit']}"

    def content() -> bytes:
        edges = queries.edges(run["run_id"], about["circuit"]).to_dict("records")
        of = {"run_id": run["run_id"], "model": run["model"], "n_layers": run["n_layers"], "d_experts": d_experts(run)}
        made = graph(slug, circuit=about, units=found.to_dict("records"), edges=edges, words=words, **of)
        return json.dumps(made, indent=1, ensure_ascii=False).encode()

    st.download_button(
        "Graph for circuit-tracer", content, file_name(f"{slug}.json"), FORMAT, key="graph", on_click="ignore"
    )


page()
