"""What the words of the app mean, in one place: behind the question marks of filters, and as a list in the sidebar."""

from __future__ import annotations

from typing import Final

import streamlit as st

TERMS: Final = {
    "unit": "A neuron in a feed-forward network (FFN) of the decoder: L5.u217 is number 217 of layer 5, both from "
    "0. When it is active it adds its own output vector to the residual stream.",
    "layer": "One block of the decoder, counted from 0.",
    "concept": "A noun that a caption says; forms of one word (dog, dogs) count as one.",
    "score": "How much a unit contributes to a noun's logit, measured or estimated: the higher, the more it "
    "promotes the noun. `docs/methods.md` defines each score.",
    "logit": "The model's value for each possible next token, before the softmax turns it into a probability.",
    "top units": "The units with the highest scores for a noun. How many: k.",
    "k": "How many of the highest-ranked units are taken, also as a share of all units of the model. P1's 6,400 "
    "units are 1.4 %.",
    "random units": (
        "The control: as many units drawn at random. A result of top units counts only if it exceeds theirs."
    ),
    "interpretable unit": (
        "A unit that promotes mostly words: at least seven of its ten top tokens are English words (P1)."
    ),
    "generality": "The share of a run's nouns that a unit leads: high if it promotes all words.",
    "suppressor": "A unit that lowers a noun's logit: its score is among the most negative.",
    "image token": "An input of the decoder that stands for a piece of the picture.",
    "grey picture": (
        "The same caption scored with a uniform grey picture: what the language model predicts without the picture."
    ),
    "ablate": "Set units to 0 while the model predicts or captions, and measure what happens to the noun.",
    "run": "A model, a set of pictures and settings that were scored together. All pages look at one run at a time.",
    "interval": "The 95 % confidence interval over pictures (not over nouns: nouns "
    "of one picture are not independent).",
    "p(c)": "The position that predicts the noun c: its units and its logit are read there.",
    "residual stream": "The vector of one position on its way through the decoder; attention and FFN of every "
    "layer add to it, and W_U reads it at the end.",
    "W_U": "The unembedding: the matrix that turns the final residual stream into logits, one row per token.",
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
