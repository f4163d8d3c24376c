"""The words of image tokens, where `mmn lens` has read them: after the layer at which they say most of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from app import resources
from mmn.studies.lens.queries import LensQueries

MOST_TOLD: Final = 3


def of_tokens(run_id: str, image_id: str) -> tuple[str, ...]:
    """The likeliest words of each image token of a picture with their probabilities; empty where it was not read."""
    layer = says_most(run_id)
    if layer is None:
        return ()
    words = resources.store().ask(LensQueries).image_words(run_id, image_id, layer)
    return tuple(in_line(row.tokens, row.scores) for row in words.itertuples())


def in_line(tokens: Sequence[str], scores: Sequence[float], most: int = MOST_TOLD) -> str:
    """`beach 0.312 · sand 0.101`."""
    pairs = list(zip(tokens, scores, strict=True))[:most]
    return " · ".join(f"{str(token).strip()} {score:.3f}" for token, score in pairs)


@st.cache_data(max_entries=16, show_spinner=False)
def says_most(run_id: str) -> int | None:
    """The layer after which most image tokens say a noun of their caption; None where no layer was read.

    By the mean over pictures; the last layer often says little of the picture.
    """
    shares = resources.store().ask(LensQueries).noun_shares(run_id).groupby("layer")["share"].mean()
    return int(shares.idxmax()) if len(shares) and shares.max() > 0 else None
