"""The Invariance page's numbers: which nouns survive the shuffling, and each concept's share of common units."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from app import links, resources
from mmn.counts import counted
from mmn.statistics.interval_words import TOO_FEW, interval_words, percent
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.view import View

SURVIVAL: Final = "Of the captions' nouns, those that the shuffled captions say, too"


def survival(view: View) -> None:
    """How many nouns the shuffled captions say at all."""
    found = resources.store().ask(InvarianceQueries).survival(view.run, view.concepts)
    if not found["n_images"]:
        return
    left, right = st.columns([1, 3], vertical_alignment="center")
    left.metric("Survive", percent(found["share"]))
    interval = interval_words(found["low"], found["high"], found["n_images"], ".0%")
    right.caption(
        f"{SURVIVAL}: {'' if np.isnan(found['low']) else '95 % interval by picture '}{interval}; "
        f"{found['n_kept']:,} of {counted(found['n_concepts'], 'noun')}, over "
        f"{counted(found['n_images'], 'picture')} and "
        f"{counted(found['n_draws'], 'permutation')}. The charts compare the nouns that are in both captions."
    )


def survival_by_score(view: View) -> None:
    """The same of the nouns that the layers lead, which differ from score to score."""
    ask = resources.store().ask(InvarianceQueries).survival
    rows = pd.DataFrame([ask(view.run, view.concepts, method, view.layers) for method in view.methods])
    rows = rows.assign(score=view.methods)[rows["n_images"] > 0]
    if rows.empty:
        return
    number = st.column_config.NumberColumn
    columns: dict[str, Any] = {"score": st.column_config.TextColumn("Led by", help="The score of the first unit")}
    shares = {"share": "Survive", "low": "95 % from", "high": "to"}
    columns |= {name: number(title, format="%.0f %%") for name, title in shares.items()}
    rows = rows.assign(**{name: 100 * rows[name] for name in shares})
    columns |= {"n_kept": number("In both"), "n_concepts": number("Nouns"), "n_images": number("Pictures")}
    st.caption(f"{SURVIVAL}: means over pictures, then permutations, with their 95 % intervals by picture. {TOO_FEW}")
    st.dataframe(rows, hide_index=True, placeholder="–", column_order=list(columns), column_config=columns)


def by_concept(run: dict[str, Any], rows: pd.DataFrame) -> None:
    """The numbers of `invariance-concepts` or `cross-image`, each concept with the way to its pictures."""
    rows = rows.rename(columns={"lemma": "concept", "noun": "concept"})
    cross = "n_draws" in rows
    shares = {
        "ratio": ("In common", ""),
        "ratio_low": (
            "from" if cross else "95 % from",
            "The lowest draw; empty if there is only one" if cross else f"95 % interval by picture. {TOO_FEW}",
        ),
        "ratio_high": ("to", "The highest draw" if cross else ""),
        "floor_other_noun": ("Another noun", "The floor; empty if no picture has another noun"),
        "difference": ("Above the floor", ""),
        "floor_random": ("Random units", "In the same layers")
        if cross
        else ("Chance", "k over the units ranked; in a mixture of experts random units of the same experts"),
    }
    number = st.column_config.NumberColumn
    columns: dict[str, Any] = {"concept": links.concept_column()}
    columns |= {name: number(title, format="%.1f %%", help=told or None) for name, (title, told) in shares.items()}
    columns |= {
        "n_images": number("Pictures", help="Pictures with the noun in both captions"),
        "n_draws": number("Draws"),
    }
    survives = "Benjamini–Hochberg, q = .05, of all rows, against " + ("random units" if cross else "another noun")
    columns |= {"is_discovery": st.column_config.CheckboxColumn("Survives", help=survives)}
    in_percent = {name: 100 * rows[name] for name in shares if name in rows}
    shown = rows.assign(concept=[links.concept_url(run, lemma) for lemma in rows["concept"]], **in_percent)
    order = [name for name in columns if name in shown]
    st.dataframe(shown, hide_index=True, placeholder="–", column_order=order, column_config=columns)
