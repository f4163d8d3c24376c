"""Tables of units: what each scores, what it writes, where it looks, and how other scores rank it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from app import filters, links, resources, unit_sets
from app.table_height import fitting
from app.text import plain
from mmn.core import Neuron
from mmn.counts import counted
from mmn.figures.wording import k_text, without_general
from mmn.names import RAW
from mmn.store.neurons import WORD_COLUMNS
from mmn.studies.scoring.layer_queries import INTERPRETABLE, MAX_UNIT_ROWS, LayerQueries
from mmn.view import View

RANK_OF: Final = "rank:"  # begins the columns of other methods' ranks
_DIGITS: Final = "%.3g"
_ROW: Final = 30  # pixels of a row of many


def with_links(rows: pd.DataFrame, run: dict[str, Any]) -> pd.DataFrame:
    """`rows` (layer, unit) with `neuron`, the address of the unit's page."""
    return rows.assign(neuron=[links.neuron_url(run, Neuron(row.layer, row.unit)) for row in rows.itertuples()])


def unit_column() -> Any:
    return st.column_config.LinkColumn(
        "Unit",
        display_text=links.NEURON_IN_URL,
        alignment="left",
        width=78,
        help="Layer and unit, both from 0. Opens the unit's own page in a new tab.",
    )


def tokens_text(tokens: object, n_shown: int = 10) -> str:
    """Decoded tokens in one line; empty for a unit that is not decoded."""
    return " · ".join(str(token).strip() for token in tokens[:n_shown]) if isinstance(tokens, list | np.ndarray) else ""


def ranked_table(rows: pd.DataFrame, run: dict[str, Any], key: str) -> Neuron | None:
    """Draws `PictureQueries.ranked_units`; returns the unit whose row is selected. Empty columns are left out."""
    shown = with_links(rows, run).assign(
        difference=rows["score"] - rows["blank_score"],
        writes=[tokens_text(cell) for cell in rows["tokens"]],
        generality=100 * rows["generality"],
    )
    event = st.dataframe(
        shown,
        hide_index=True,
        height=fitting(len(shown), 395, _ROW),
        row_height=_ROW,
        column_order=_filled(shown, _order(shown)),
        column_config=_columns(shown),
        on_select="rerun",
        selection_mode="single-row",
        placeholder="–",
        key=key,
    )
    chosen = [number for number in event["selection"]["rows"] if number < len(rows)]
    return Neuron(int(rows.iloc[chosen[0]]["layer"]), int(rows.iloc[chosen[0]]["unit"])) if chosen else None


def _order(rows: pd.DataFrame) -> list[str]:
    here = ["rank", "neuron", "score", "difference", "iou", "writes", "is_interpretable", "generality"]
    more = ["iou_other", "iou_random", "blank_score", "activation", "token_position"]
    return here + more + [name for name in rows if str(name).startswith(RANK_OF)]


def _filled(rows: pd.DataFrame, order: list[str]) -> list[str]:
    return [name for name in order if rows[name].notna().any() and not (rows[name] == "").all()]


def _columns(rows: pd.DataFrame) -> dict[str, Any]:
    number = st.column_config.NumberColumn
    others = {
        name: number(f"Rank: {name.removeprefix(RANK_OF)}", format="%d", help="Empty: not among the units that it kept")
        for name in map(str, rows)
        if name.startswith(RANK_OF)
    }
    return others | {
        "rank": number("Rank", width=50),
        "generality": _generality_column(),
        "neuron": unit_column(),
        "score": number("Score", format=_DIGITS),
        "blank_score": number(
            "Grey",
            help="Its score for the same words over a grey picture. Empty: not among the stored units",
            format=_DIGITS,
        ),
        "difference": number("Score − grey", help="What is due to the picture itself", format=_DIGITS),
        "writes": _words_column(),
        "is_interpretable": _interpretable_column(),
        "iou": number(
            "IoU", format="%.2f", help="Overlap of the brightest 5 % of its map with the noun's object, 0 to 1"
        ),
        "iou_other": number("IoU other", format="%.2f", help="With the picture's other objects (mean)"),
        "iou_random": number("IoU random", format="%.2f", help="Of random units of its layer, with the noun's object"),
        "activation": number("Activation", help="a, the input of W_out, where the score is read", format=_DIGITS),
        "token_position": number("Image token", format="%d", help="The image token at which its score is highest"),
    }


def concept_table(rows: pd.DataFrame, run: dict[str, Any]) -> None:
    """Draws `NeuronQueries.concepts`, each noun linked to its pictures."""
    st.dataframe(
        rows.assign(concept=[links.concept_url(run, lemma) for lemma in rows["lemma"]]),
        hide_index=True,
        column_order=["concept", "n_images", "mean_score", "best_rank"],
        column_config={
            "concept": st.column_config.LinkColumn(
                "Noun", display_text=links.CONCEPT_IN_URL, alignment="left", help="Opens its pictures in a new tab"
            ),
            "n_images": st.column_config.ProgressColumn(
                "Pictures", format="%d", min_value=0, max_value=int(rows["n_images"].max()), color="#E69F00",
                help="Pictures in which the unit is in the noun's top k",
            ),
            "mean_score": st.column_config.NumberColumn("Mean score", help="Over those pictures", format=_DIGITS),
            "best_rank": st.column_config.NumberColumn("Best rank"),
        },
    )  # fmt: skip


def layer_table(run: dict[str, Any], bar: View) -> None:
    """Draws the units behind a bar of the layer distribution: those of one layer, interpretable or not if asked for."""
    assert bar.layers is not None, bar
    method, k, layer = bar.methods[0], bar.ks[0], bar.layers[0]
    queries = resources.store().ask(LayerQueries)
    rows = queries.unit_rows(run["run_id"], method, k, layer, bar.concepts, most_general=bar.generality)
    cap = ", of the first 500 by rank" if len(rows) == MAX_UNIT_ROWS else ""
    rows = queries.with_generality(run["run_id"], rows, method)
    rows = _with_words(run, rows, bar.words_by or RAW).assign(generality=lambda found: 100 * found["generality"])
    if bar.units in INTERPRETABLE:
        rows = rows[rows["is_interpretable"] == INTERPRETABLE[bar.units]]
    st.subheader(f"Layer {layer:d}: {counted(len(rows), 'unit')}{cap}")
    concepts = plain(", ".join(bar.concepts)) or "all concepts"
    less = without_general(bar.generality)
    st.caption(f"{plain(method)}, k = {k_text(k, filters.n_units(run))}, {concepts}{less}")
    st.caption(filters.told_generality(run, method))
    unit_sets.save(run, rows.assign(score=rows["mean_score"]), _origin(bar), "layer")
    shown = with_links(rows, run)
    order = ["neuron", "best_rank", "n_images", "n_concepts", "mean_score", "max_score", "writes", "is_interpretable"]
    order.insert(4, "generality")
    st.dataframe(
        shown, hide_index=True, placeholder="–", column_order=_filled(shown, order), column_config=_layer_columns()
    )


def _origin(bar: View) -> dict[str, str]:
    """What the units of a bar are, for a set of them."""
    assert bar.layers is not None, bar
    filters_told = [f"layer {bar.layers[0]}", *([bar.units] if bar.units in INTERPRETABLE else [])]
    noun = {"noun": bar.concepts[0]} if len(bar.concepts) == 1 else {}
    return {"method": bar.methods[0], "filter": ", ".join(filters_told), **noun}


def _layer_columns() -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "neuron": unit_column(),
        "best_rank": number("Best rank", help="Its highest place in any picture's ranking"),
        "n_images": number("Pictures", help="Pictures with the unit in their top k"),
        "n_concepts": number("Concepts", help="Nouns with the unit in their own top k"),
        "generality": _generality_column(),
        "mean_score": number("Mean score", format=_DIGITS),
        "max_score": number("Highest score", format=_DIGITS),
        "writes": _words_column(),
        "is_interpretable": _interpretable_column(),
    }


def _words_column() -> Any:
    return st.column_config.TextColumn(
        "Writes",
        width="medium",
        help="The ten tokens that it promotes most, or is closest to, by the rows chosen above",
    )


def _generality_column() -> Any:
    return st.column_config.NumberColumn(
        "General", format="%.1f %%", help="Share of nouns that it leads, by the score: the mean over their pictures"
    )


def _interpretable_column() -> Any:
    return st.column_config.CheckboxColumn(
        "Words", help="Interpretable: at least 7 of the 10 are English words of 3 letters or more (P1)"
    )


def _with_words(run: dict[str, Any], rows: pd.DataFrame, words_by: str) -> pd.DataFrame:
    """`rows` with `writes` and `is_interpretable` by some rows of W_U, empty for units that are not decoded by them."""
    columns = WORD_COLUMNS[words_by]
    known = resources.store().table(run["run_id"], "neuron")[["layer", "unit", columns.tokens, columns.flag]]
    known = known.rename(columns={columns.tokens: "tokens", columns.flag: "is_interpretable"})
    joined = rows.merge(known, on=["layer", "unit"], how="left")
    return joined.assign(writes=[tokens_text(cell) for cell in joined["tokens"]])


def plain_table(run: dict[str, Any], rows: pd.DataFrame, words_by: str) -> None:
    """Draws units in order: layer, unit, score, and what they write where they are decoded."""
    shown = _with_words(run, with_links(rows, run), words_by)
    order = ["neuron", "score", *(["writes"] if shown["writes"].any() else [])]
    config = {
        "neuron": unit_column(),
        "score": st.column_config.NumberColumn("Score", format=_DIGITS, help="The measure that orders the group"),
        "writes": _words_column(),
    }
    height = fitting(len(shown), 245)
    st.dataframe(shown, hide_index=True, placeholder="–", height=height, column_order=order, column_config=config)


def rank_table(rows: pd.DataFrame) -> None:
    """Draws `NeuronQueries.ranks`; a score that never keeps the unit has an empty row."""
    number = st.column_config.NumberColumn
    st.dataframe(
        rows.assign(share_of_concepts=100 * rows["share_of_concepts"], generality=100 * rows["generality"]),
        hide_index=True,
        placeholder="–",
        column_order=["method", "best_rank", "median_rank", "share_of_concepts", "generality"],
        column_config={
            "method": st.column_config.TextColumn("Score", width=205),
            "best_rank": number("Best", width=58, help="Best rank, over all nouns of all pictures"),
            "median_rank": number("Median", width=68, format="%.0f", help="Median rank, over nouns that keep it"),
            "share_of_concepts": number(
                "Kept", width=68, format="%.1f %%", help="Share of all nouns of all pictures that keep it"
            ),
            "generality": st.column_config.ProgressColumn(
                "General",
                width=112,
                format="%.1f %%",
                max_value=100,
                help="Share of nouns that it leads: each noun once, the mean over the pictures that say it",
            ),
        },
    )
