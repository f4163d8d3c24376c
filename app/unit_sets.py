"""Sets of units and notes on units, on pages: save a ranking, add a unit by a click, choose a set, note something.

They are files of the cache (`mmn.units.kept`, `mmn.units.notes`): they outlive the app, and commands find them, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import resources
from app.text import plain, sentence
from mmn.core import Neuron, unit_name
from mmn.counts import counted
from mmn.errors import CacheError, MmnError, UsageError
from mmn.store.rankings import d_experts
from mmn.store.unit_rankings import facts_of, set_of_rows
from mmn.units.kept import add_unit, kept_sets, save_set
from mmn.units.notes import MOST_LETTERS, note_on, write_note
from mmn.units.sets import UnitSet, fitting

OWN: Final = "each noun's own"  # in the place of a set
NEW: Final = "a new set"


def save(run: dict[str, Any], rows: pd.DataFrame, origin: dict[str, str], key: str) -> None:
    """A button that keeps a ranking as a set.

    Args:
        run: its row.
        rows: layer, unit, score, best first.
        origin: what the ranking is of.
        key: of the widgets.
    """
    if rows.empty:
        return
    with st.popover("Save as a set", icon=":material/bookmark_add:"):
        name = st.text_input("Name of the set", key=f"set-name-{key}", placeholder="dogs", max_chars=60).strip()
        k = st.number_input("Units, the first", 1, len(rows), len(rows), key=f"set-k-{key}-{len(rows)}")
        told = "Experiments can use a set instead of each noun's own units: on their pages, or with `--units NAME`."
        st.caption(told)
        if st.button("Save", key=f"set-save-{key}", type="primary", disabled=not name):
            found = rows.head(int(k))
            of = {**origin, "k": str(int(k)), "run": str(run["run_id"])}
            if _changed(lambda: save_set(resources.cache_path(), set_of_rows(run, name, found, of))):
                st.success(f"{counted(len(found), 'unit')} saved as {plain(name)}.")


def of_unit(run: dict[str, Any], neuron: Neuron) -> None:
    """The note on a unit, and a set to add it to."""
    _note(run, neuron)
    sets = {one.name: one for one in fitting_sets(run) if one.fingerprint == run["model_fingerprint"]}
    member = [name for name, one in sets.items() if neuron in one.units]
    if member:
        st.caption(f"In the sets: {plain(', '.join(member), 300)}")
    with st.popover("Add to a set", icon=":material/bookmark_add:"):
        options = [NEW, *sets]
        chosen = st.selectbox("Set", options, key="set-to-add")
        name = chosen
        if chosen == NEW:
            name = st.text_input("Its name", key="set-new", placeholder="beaks", max_chars=60).strip()
        if st.button("Add this unit", key="set-add", type="primary", disabled=not name):
            _add(run, neuron, name)


def _add(run: dict[str, Any], neuron: Neuron, name: str) -> None:
    found: list[UnitSet] = []

    def add() -> None:
        found.append(add_unit(resources.cache_path(), name, neuron, str(run["run_id"]), facts_of(run)))

    if _changed(add):
        st.success(f"{plain(name)} has {counted(len(found[0].units), 'unit')} now.")


def _note(run: dict[str, Any], neuron: Neuron) -> None:
    fingerprint = str(run["model_fingerprint"])
    try:
        there = note_on(resources.cache_path(), fingerprint, neuron)
    except CacheError as error:
        st.caption(f"Its note cannot be read: {plain(error)}")
        return
    name = unit_name(neuron, d_experts(run))
    key = f"note-{fingerprint[:8]}-{name}"
    text = st.text_area(
        f"Note on {plain(name)}",
        there,
        key=key,
        height=80,
        max_chars=MOST_LETTERS,
        placeholder="What you think it does",
        help=(
            "The note belongs to the model's unit, in every run of these weights. It is saved in the cache when "
            "you leave the field."
        ),
    )
    if text.strip() != there.strip():
        _changed(lambda: write_note(resources.cache_path(), fingerprint, neuron, text))


def picker(run: dict[str, Any], key: str) -> str:
    """The set that an experiment takes, `""` for each noun's own units; nothing is shown where no set fits."""
    sets = {one.name: one for one in fitting_sets(run)}
    if not sets:
        st.session_state.pop(key, None)
        return ""
    if st.session_state.get(key) not in (None, OWN, *sets):
        del st.session_state[key]  # deleted, or of another model
    chosen = st.selectbox(
        "Units", [OWN, *sets], key=key, help="A saved set, in its own order, replaces each noun's own units"
    )
    if chosen == OWN:
        return ""
    if note := fitting(sets[chosen], facts_of(run)):
        st.caption(f":orange[{plain(note)}]")
    return chosen


def fitting_sets(run: dict[str, Any]) -> list[UnitSet]:
    """The sets of the cache whose units the run's model has; what is broken is told by `mmn units`."""
    found = []
    facts = facts_of(run)
    for one in kept_sets(resources.cache_path()).sets:
        try:
            fitting(one, facts)
        except UsageError:
            continue
        found.append(one)
    return found


def _changed(change: Callable[[], None]) -> bool:
    """Makes a change of the cache, or says why it cannot be made: it may be read-only."""
    try:
        change()
    except MmnError as error:
        st.warning(sentence(error), icon=":material/lock:")
        return False
    return True
