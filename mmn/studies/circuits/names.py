"""The words of a circuit's tables: rules, directions, and how the ends of an edge are called."""

from __future__ import annotations

from typing import Final

RAJARAM: Final = "rajaram"  # plain gradients (Rajaram et al., arXiv 2404.14349)
RULE_NAMES: Final = (RAJARAM,)

KEPT: Final = "kept"  # only the circuit's units compute, all others are held at their mean
ABLATED: Final = "ablated"  # only the circuit's units are held at their mean
DIRECTIONS: Final = (KEPT, ABLATED)
CIRCUIT: Final = "circuit"
ANOTHER: Final = "another"  # as many units of each layer, of the circuit of a noun that these pictures do not say
RANDOM: Final = "random"  # as many units of each layer, drawn
SELECTIONS: Final = (CIRCUIT, ANOTHER, RANDOM)

IMAGE: Final = "image"  # the end of an edge: all image tokens together
TEXT: Final = "text"  # all other tokens: prompt, and the caption before the noun
NOUN: Final = "noun"  # the noun's logit


def token_name(position: int) -> str:
    """One token of a circuit of one picture, by its position from 0: of prompt, picture or caption."""
    return f"token:{position}"
