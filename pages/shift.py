"""What did an edit, a LoRA or a fine-tune change? Two runs of the same pictures, as concepts, layers and units."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, filter_bar, links, pictures, resources, state, study_page, unit_tables
from app.text import code, plain
from mmn.core import Neuron
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.store.pictures import PictureQueries
from mmn.studies.shift.queries import ShiftQueries
from mmn.studies.shift.rows import model_of
from mmn.view import View

INTRODUCTION = (
    "Two models read the same captions over the same pictures. A **concept** is a cluster of the first model's "
    "states that say a noun; its **delta** is the mean difference to the other model's states (Khayatan et al.; "
    "their code was read). If the delta brings states of other pictures closer to the other model's, the change is "
    "one shift."
)
APART = 0.9  # median cosine of columns below which unit i of one model is hardly unit i of the other


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    filter_bar.none()
    others = resources.store().ask(ShiftQueries).others(run["run_id"])
    if not others:
        st.info("This run has not been compared with another one yet.", icon=":material/science:")
        st.markdown(
            "Score the same pictures with the edited or tuned model. Then, in a terminal, with that run's id as OTHER:"
        )
        st.code(f"python -m mmn shift {run['run_id'][:8]} OTHER", language="sh")
        return
    other, about = chosen(run, others)
    told(other, about)
    view = View(run["run_id"], other=other, noun=about["noun"], concepts=(about["noun"],))
    with charts.grid("shift"):
        for figure in ("shift", "shift-layers"):
            with st.container():
                study_page.guarded(partial(shown, figure, view))
    st.subheader("Its concepts")
    study_page.guarded(partial(shown, "shift-concepts", view))
    cards(run, other, about)
    st.subheader("Units that write something different")
    units(run, other, about)


def shown(figure: str, view: View) -> None:
    charts.show(figure, view)


def chosen(run: dict[str, Any], others: list[str]) -> tuple[str, pd.Series]:
    """The second run, and the row of the noun, that the two pickers and the address name."""
    labels = {_label(one): one for one in others}
    state.tidy_address({"other": lambda text: next((one for one in labels if text.split()[-1] in one), None)})
    if st.session_state.get("other") not in (None, *labels):
        del st.session_state["other"]
    row = st.container(horizontal=True, gap="large", vertical_alignment="bottom")
    other = labels[row.selectbox("Compared with", list(labels), key="other", bind="query-params", width=420)]
    known = resources.store().ask(ShiftQueries).about(run["run_id"], other)
    nouns = list(dict.fromkeys(known["noun"]))
    state.tidy_address({"noun": lambda text: text if text in nouns else None})
    if st.session_state.get("noun") not in (None, *nouns):
        del st.session_state["noun"]
    noun = row.selectbox("Noun", nouns, key="noun", bind="query-params", width=200)
    return other, known[known["noun"] == noun].iloc[0]


def _label(run_id: str) -> str:
    """A run as its model and id; one that is not in this cache any more has but its id."""
    model = model_of(resources.store(), run_id)
    return model if run_id[:8] in model else f"{model} {run_id[:8]}"


def told(other: str, about: pd.Series) -> None:
    """How many columns are others, and whether unit i is still unit i."""
    model = plain(model_of(resources.store(), other))
    columns = counted(about["n_columns_changed"], "column")
    said = f"{counted(about['n_images'], 'picture')}; changed in {model}: {columns} of W_out"
    st.caption(f"{said}; the median cosine of a unit's two columns is {about['column_cosine']:.3f}.")
    if about["column_cosine"] < APART:
        st.caption(
            ":orange[Unit i of one model is hardly the same as unit i of the other: compare the concepts, "
            "not the units.]"
        )


def cards(run: dict[str, Any], other: str, about: pd.Series) -> None:
    """A card for each concept: its pictures, and its words before, with the delta, in the other model."""
    found = resources.store().ask(ShiftQueries).concepts(run["run_id"], other, about["noun"])
    with charts.grid("shift-cards"):
        for concept in found.to_dict("records"):
            with st.container(border=True):
                st.markdown(f"**{int(concept['concept']) + 1}** · {counted(int(concept['n_images']), 'picture')}")
                said("before", concept["words"])
                said("with its delta", concept["words_shifted"])
                said("the other's concept", concept["words_other"])
                said("the delta alone", concept["words_delta"])
                thumbnails(run, concept)


def said(what: str, words: list[str]) -> None:
    st.markdown(f":gray[{plain(what)}:] {plain(', '.join(words[:8]) or '–')}")


def thumbnails(run: dict[str, Any], concept: dict[str, Any]) -> None:
    """The pictures whose states are nearest to a concept; a click opens the picture."""
    rows = []
    for image_id in concept["images"]:
        try:
            found = resources.store().ask(PictureQueries).picture(run["run_id"], image_id)
        except UsageError:
            continue
        rows.append({name: found[name] for name in ("image_id", "source", "text")})
    if rows and (clicked := pictures.tiles(pd.DataFrame(rows), f"shift-{int(concept['concept'])}")):
        links.go_to_image(clicked, st.session_state["noun"])


def units(run: dict[str, Any], other: str, about: pd.Series) -> None:
    """The table of units, most of which is another first."""
    found = resources.store().ask(ShiftQueries).units(run["run_id"], other, about["noun"])
    if found.empty:
        st.caption("No unit writes anything different at this noun.")
        return
    number = st.column_config.NumberColumn
    found["unit_url"] = [
        links.neuron_url(run, Neuron(int(layer), int(unit)))
        for layer, unit in zip(found["layer"], found["unit"], strict=True)
    ]
    for name in ("tokens", "tokens_other"):
        found[name] = [unit_tables.tokens_text(tokens) for tokens in found[name]]
    columns: dict[str, Any] = {
        "unit_url": st.column_config.LinkColumn("Unit", display_text=links.NEURON_IN_URL, width=70),
        "written": number("Writes otherwise", format="%.3f", help="‖mean of what it writes, other less first‖"),
        "noise": number("Random signs", format="%.3f", help="The same with a random sign for each picture"),
        "column_change": number("Column", format="%.3f", help="‖ΔW_out column‖ / ‖column‖: 0 where it is the same"),
        "activation": number("Activation", format="%.3f", help="Mean over pictures, first model"),
        "activation_other": number("in the other", format="%.3f"),
        "tokens": st.column_config.TextColumn("Writes", width=150, help="The ten tokens that it raises most"),
        "tokens_other": st.column_config.TextColumn("in the other", width=150),
    }
    st.dataframe(found, hide_index=True, placeholder="–", column_order=list(columns), column_config=columns)
    command = f"python -m mmn export {run['run_id'][:8]} --table shift_unit --out units.csv"
    st.caption(f"Of all nouns: {code(command)}")


page()
