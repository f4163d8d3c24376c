"""What states say in a text prompt, and whose company they keep. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

NOUN, IMAGE = "noun", "image"  # where a state is from
PATCH, LENS, OTHER, RANDOM = "patch", "lens", "other", "random"  # how it is read, and the two controls
IDENTITY: Final = "cat->cat; 1135->1135; hello->hello; ?"  # the usual prompt: a state goes over its last token
READINGS: Final = (PATCH, LENS, OTHER, RANDOM)

TABLES: Final = (
    Table(
        "patchscope",
        "image_id text, source text, reading text, setting text, layer int16, token_position int32, noun text, "
        "surprisal float, is_top bool",
        key=("image_id", "source", "reading", "setting", "layer", "token_position", "noun"),
        among={"source": (NOUN, IMAGE), "reading": READINGS},
    ),
    Table(
        "patchscope_word",
        "image_id text, source text, reading text, setting text, layer int16, token_position int32, tokens texts, "
        "scores floats, said text?",
        key=("image_id", "source", "reading", "setting", "layer", "token_position"),
        among={"source": (NOUN, IMAGE), "reading": (PATCH, LENS)},
    ),
    Table(
        "neighbour",
        "image_id text, reading text, layer int16, token_position int32, words texts, contexts texts, scores floats, "
        "is_match bool, is_any_match bool, chance double, chance_any double",
        key=("image_id", "reading", "layer", "token_position"),
        shares=("chance", "chance_any"),
        among={"reading": (IMAGE, OTHER)},
    ),
)
