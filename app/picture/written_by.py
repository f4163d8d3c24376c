"""What wrote an image token? What it says after each layer, and the units that are most active at it.

Both are read from what is stored. Being active at a place is not having written the word: the table marks the units
whose own words hold it, and the caption says of which units activations are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import resources, unit_tables, widgets
from app.picture import said
from app.table_height import fitting
from mmn.names import RAW
from mmn.store.pictures import PictureQueries
from mmn.studies.lens.queries import LensQueries

MOST_UNITS: Final = 15
_ROW: Final = 30  # pixels


def show(run: dict[str, Any], picture: Mapping[str, Any], token: int, words_by: str = RAW) -> None:
    """The answer, or which command makes it known."""
    words = resources.store().ask(LensQueries).token_words(run["run_id"], picture["image_id"], token)
    units = (
        resources.store()
        .ask(PictureQueries)
        .most_active(run["run_id"], picture["image_id"], token, MOST_UNITS, words_by)
    )
    with st.container(border=True):
        st.markdown(f"##### Image token {token:d}: what wrote it?")
        if words.empty and units.empty:
            st.caption(
                "Nothing is known about it: this picture has no such image token, or it was not annotated "
                f"({widgets.annotate(run)}) or read (`mmn lens`)."
            )
            return
        row = st.container(horizontal=True, gap="medium")  # in a narrow window one below the other
        with row.container(width=300):
            _words(words)
        with row.container(width="stretch"):
            _units(run, units, written(words))


def written(words: pd.DataFrame) -> set[str]:
    """The likeliest words of an image token after any layer, in small letters."""
    return {_small(tokens[0]) for tokens in words["tokens"]}


def _table(rows: pd.DataFrame, columns: dict[str, Any], order: list[str]) -> None:
    st.dataframe(
        rows,
        hide_index=True,
        placeholder="–",
        height=fitting(len(rows), 300, _ROW),
        row_height=_ROW,
        column_order=order,
        column_config=columns,
    )


def _words(words: pd.DataFrame) -> None:
    if words.empty:
        st.caption("Its words after each layer are not known: `mmn lens` reads them.")
        return
    rows = pd.DataFrame(
        {
            "layer": words["layer"],
            "words": [said.in_line(row.tokens, row.scores) for row in words.itertuples()],
        }
    )
    columns = {
        "layer": st.column_config.NumberColumn("After layer", width=70),
        "words": st.column_config.TextColumn("It says (probability)"),
    }
    _table(rows, columns, list(columns))


def _units(run: dict[str, Any], units: pd.DataFrame, words: set[str]) -> None:
    if units.empty:
        st.caption(f"The units that are active at it are not known: {widgets.annotate(run)}.")
        return
    rows = unit_tables.with_links(units, run).assign(
        writes=[unit_tables.tokens_text(cell) for cell in units["tokens"]],
        is_word=[says_one_of(cell, words) for cell in units["tokens"]],
    )
    columns = {
        "neuron": unit_tables.unit_column(),
        "activation": st.column_config.NumberColumn("Here", format="%.3g", width=60, help="Its activation here"),
        "highest": st.column_config.NumberColumn(
            "Highest", format="%.3g", width=60, help="Its highest activation at an image token of this picture"
        ),
        "is_word": st.column_config.CheckboxColumn(
            "Says it", width=60, help="Its own words include one that the image token says after some layer"
        ),
        "writes": st.column_config.TextColumn("Writes", help="Its ten tokens (W_U w_out)"),
    }
    order = [*columns] if rows["writes"].any() else [name for name in columns if name not in ("writes", "is_word")]
    _table(rows, columns, order)
    st.caption(
        f"The {len(rows)} most active of the units whose activations are stored: the first of each noun by each "
        "score. A unit that is active here has not necessarily written the word: **Says it** marks units whose own "
        "words include it."
    )


def says_one_of(tokens: object, words: set[str]) -> bool:
    """Whether a unit's decoded tokens hold one of `words`."""
    return isinstance(tokens, Sequence) and any(_small(token) in words for token in tokens)


def _small(token: object) -> str:
    return str(token).strip().lower()
