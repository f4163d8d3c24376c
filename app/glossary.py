"""What the words of the app mean, in one place: behind the question marks of filters, and as a list in the sidebar."""

from __future__ import annotations

from typing import Final

import streamlit as st

TERMS: Final = {
    "unit": "One number in a feed-forward network (FFN) of the decoder: L5.u217 is number 217 of layer 5, both from 0. "
    "Each time it is active it adds its own vector to what the model is about to say. Often called a neuron.",
    "layer": "One step of the decoder, counted from 0. Each holds as many units as the others.",
    "concept": "A noun that a caption says; forms of one word (dog, dogs) count as one.",
    "score": "How much of a noun's logit a unit writes, or is estimated to: the higher, the more the unit pushes the "
    "noun. `docs/methods.md` defines each.",
    "logit": "What the model gives each possible next token before that becomes a probability.",
    "top units": "The units with the highest scores for a noun. How many: k.",
    "k": "How many of the highest-ranked units count; beside it their share of all units of the model. 1.4 % are the "
    "6,400 units of P1.",
    "random units": "The control: as many units drawn at random. What top units show counts only beyond them.",
    "interpretable unit": "A unit of whose ten most raised tokens at least seven are English words (P1).",
    "generality": "The share of a run's nouns that a unit leads, whatever the noun: high where it pushes all words.",
    "suppressor": "A unit that pushes a noun down: its score is among the most negative.",
    "image token": "A piece of the picture as the decoder reads it, between the tokens of the text.",
    "grey picture": "The same words scored over a uniform grey picture: what the language model says by itself.",
    "ablate": "Set units to 0 while the model writes, and see what becomes of the noun.",
    "run": "A model, a set of pictures and settings that were scored together. All pages look at one run at a time.",
    "interval": "Where the value lies with 95 % confidence, had other pictures been taken. By picture, not by noun: "
    "nouns of one picture are not independent.",
    "p(c)": "The position from which the noun c is predicted: there its units and its logit are read.",
    "residual stream": "What one position holds on its way through the decoder; every layer's attention and FFN add to "
    "it, and W_U reads its end.",
    "W_U": "The matrix that turns what the decoder holds into logits, a row for each token.",
    "P1, P2": "The papers behind the methods: Schwettmann and others, 2023 (arXiv 2308.01544), and Pan and others, "
    "2024 (arXiv 2311.07470).",
}


def tip(told: str, *terms: str) -> str:
    """A tooltip, and below it what these terms mean."""
    return "\n\n".join([told, *(f"**{term}**: {TERMS[term]}" for term in terms)])


def popover() -> None:
    """All terms, to look up from any page."""
    with st.popover("Glossary", icon=":material/menu_book:", width="stretch"):
        st.markdown("\n\n".join(f"**{term}**: {told}" for term, told in TERMS.items()))
