"""What the marks of the figures over all pictures stand for: whose units, for whose nouns; and their shapes."""

from __future__ import annotations

from typing import Final

from mmn.names import HELD_OUT, SAME_PICTURE, SHUFFLED_UNITS

_RANDOM: Final = "random unit of its layer"
SUMMARY: Final = {
    (HELD_OUT, False, True): ("found on another picture, own noun", "circle"),
    (HELD_OUT, False, False): ("found on another picture, other nouns", "triangle-up"),
    (HELD_OUT, True, True): (f"{_RANDOM}, own noun", "square"),
    (HELD_OUT, True, False): (f"{_RANDOM}, other nouns", "diamond"),
    (SAME_PICTURE, False, False): ("chosen on this picture (P2), other nouns", "cross"),
    (SHUFFLED_UNITS, True, False): ("the null of that: identities shuffled", "triangle-down"),
    (SAME_PICTURE, True, True): ("random unit (older run), own noun", "square"),
    (SAME_PICTURE, True, False): ("random unit (older run), other nouns", "diamond"),
}  # by selection, is_control, is_own; what is 1 by definition is left out
HIGHEST: Final = {
    (HELD_OUT, False): ("found on another picture", "circle"),
    (HELD_OUT, True): (_RANDOM, "square"),
    (SAME_PICTURE, False): ("chosen on this picture (P2)", "cross"),
    (SHUFFLED_UNITS, True): ("the null of that: identities shuffled", "triangle-down"),
    (SAME_PICTURE, True): ("random unit (older run)", "square"),
}  # by selection, is_control
