"""Circuits of nouns, what is left of the noun with them alone, and the words in these tables.

`docs/schema.md` tells what the columns mean.
"""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

RAJARAM: Final = "rajaram"  # plain gradients (Rajaram et al., arXiv 2404.14349)
RELP: Final = "relp"  # of the pass made linear (Jafari et al., arXiv 2508.21258)
RULE_NAMES: Final = (RAJARAM, RELP)

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

TABLES: Final = (
    Table(
        "circuit",
        "circuit text, noun text, rule text, image_id text?, k int32, n_found int32, n_judged int32, n_mean int32, "
        "other_noun text?, token text, token_id int32, logit double, prob double, tokens texts, image_at ints",
        key=("circuit",),
        shares=("prob",),
        among={"rule": RULE_NAMES},
    ),
    Table(
        "circuit_unit",
        "circuit text, layer int16, unit int32, place int32, score double, effect double, effect_low double?, "
        "effect_high double?, at_image double, from_image double, position int32?",
        key=("circuit", "layer", "unit"),
        shares=("at_image", "from_image"),
    ),
    Table(
        "circuit_edge",
        "circuit text, source text, target text, weight double, weight_low double?, weight_high double?, size double, "
        "through_attention double",
        key=("circuit", "source", "target"),
        shares=("through_attention",),
    ),
    Table(
        "circuit_layer",
        "circuit text, layer int16, through_attention double, carried double",
        key=("circuit", "layer"),
        shares=("through_attention", "carried"),
    ),
    Table(
        "circuit_effect",
        "circuit text, image_id text, direction text, selection text, size int32, draw int32, logit double, "
        "prob double, is_held_out bool",
        key=("circuit", "image_id", "direction", "selection", "size", "draw"),
        shares=("prob",),
        among={"direction": DIRECTIONS, "selection": SELECTIONS},
    ),
)


def token_name(position: int) -> str:
    """One token of a circuit of one picture, by its position from 0: of prompt, picture or caption."""
    return f"token:{position}"
