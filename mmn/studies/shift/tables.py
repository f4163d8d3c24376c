"""What another model changed. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "shift",
        "other text, noun text, site text, k int16, n_images int32, alpha double, column_cosine double, "
        "n_columns_changed int32",
        key=("other", "noun", "site"),
    ),
    Table(
        "shift_concept",
        "other text, noun text, site text, concept int16, n_images int32, cosine double, cosine_shifted double, "
        "cosine_random double, cosine_other double, words texts, words_shifted texts, words_other texts, "
        "words_delta texts, images texts",
        key=("other", "noun", "site", "concept"),
    ),
    Table(
        "shift_picture",
        "other text, noun text, site text, image_id text, concept int16, cosine double, cosine_shifted double, "
        "cosine_random double, cosine_other double",
        key=("other", "noun", "site", "image_id"),
    ),
    Table(
        "shift_layer",
        "other text, noun text, site text, image_id text, layer int16, change double, change_control double",
        key=("other", "noun", "site", "image_id", "layer"),
    ),
    Table(
        "shift_unit",
        "other text, noun text, site text, layer int16, unit int32, rank int32, written double, noise double, "
        "column_change double, activation double, activation_other double, low double?, high double?, "
        "tokens texts, tokens_other texts",
        key=("other", "noun", "site", "layer", "unit"),
    ),
)
