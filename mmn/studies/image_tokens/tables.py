"""What nouns lose with image tokens, and with attention to them. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

OBJECT, RING_1, RING_2, ELSEWHERE = "object", "object+1", "object+2", "elsewhere"
REGISTERS, GRADIENTS, GRADIENTS_OF_SIZE, ALL = "registers", "gradients", "gradients of size", "all"
TOKEN_SETS: Final = (OBJECT, RING_1, RING_2, ELSEWHERE, GRADIENTS, REGISTERS, GRADIENTS_OF_SIZE, ALL)
OTHERS, LAST_ROW = "others", "last row"
SOURCES: Final = (OBJECT, RING_1, OTHERS, LAST_ROW, ALL)
POSITION, TEXT = "position", "text"
TARGETS: Final = (POSITION, TEXT, LAST_ROW)
ALL_LAYERS: Final = "all"
WINDOWS: Final = ("early", "early to mid", "mid", "mid to late", "late", ALL_LAYERS)

_OUTCOME: Final = (
    "baseline_prob double, prob double, is_right bool, is_wrong bool, control_prob double?, control_wrong double?, "
    "n_draws int32"
)
_SHARES: Final = ("baseline_prob", "prob", "control_prob", "control_wrong")

TABLES: Final = (
    Table(
        "token_loss",
        "image_id text, noun text, revision int32, question text, token_set text, size double?, n_tokens int32, "
        f"n_image_tokens int32, {_OUTCOME}, residual double?",
        key=("image_id", "noun", "revision", "token_set", "n_tokens"),
        shares=(*_SHARES, "size"),
        among={"token_set": TOKEN_SETS},
    ),
    Table(
        "knockout",
        "image_id text, noun text, revision int32, question text, source text, target text, layer_window text, "
        f"first_layer int16, last_layer int16, n_tokens int32, n_image_tokens int32, {_OUTCOME}",
        key=("image_id", "noun", "revision", "source", "target", "layer_window"),
        shares=_SHARES,
        among={"source": SOURCES, "target": TARGETS, "layer_window": WINDOWS},
    ),
)
