"""What scoring writes: pictures, captions, their nouns, the units of each, and where its logit comes from."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "image",
        "image_id text, source text, sources texts, width int32, height int32, reference texts",
        key=("image_id",),
        is_added=False,
    ),
    Table(
        "caption",
        "image_id text, variant text, text text, tokens ints, is_cut bool?",
        key=("image_id", "variant"),
        is_added=False,
    ),
    Table(
        "concept",
        "image_id text, variant text, lemma text, noun text, n_mentions int32, token_id int32, position int32, "
        "logit double, prob double, residual double, is_first bool, is_multi_token bool, is_shared_token bool, "
        "is_in_reference bool?, target_at text?, is_compound bool?, is_modifier bool?",
        key=("image_id", "variant", "noun"),
        is_added=False,
        shares=("prob",),
    ),
    Table(
        "score",
        "image_id text, variant text, noun text, method text, rank int32, layer int16, unit int32, score float, "
        "activation float?, token_position int32?, expert int16?",
        key=("image_id", "variant", "noun", "method", "rank"),
        is_added=False,
        later={"expert": None},
        check={"score": "isfinite(score)"},
    ),
    Table(
        "budget",
        "image_id text, variant text, noun text, term text, layer int16?, logit double",
        key=("image_id", "variant", "noun", "term", "layer"),
        is_added=False,
    ),
    Table(
        "conservation",
        "image_id text, variant text, noun text, method text, expected double, total double",
        key=("image_id", "variant", "noun", "method"),
        is_added=False,
    ),
    Table(
        "failure",
        "source text, stage text, error text, message text",
        is_added=False,
    ),
)
