"""What another model changed. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

_OF: Final = "other text, noun text, site text"  # with which run a row compares, and of what
_KEY: Final = ("other", "noun", "site")

TABLES: Final = (
    Table(
        "shift",
        f"{_OF}, k int16, n_images int32, alpha double, column_cosine double, n_columns_changed int32",
        key=_KEY,
    ),
    Table(
        "shift_concept",
        f"{_OF}, concept int16, n_images int32, cosine double, cosine_shifted double, "
        "cosine_random double, cosine_other double, words texts, words_shifted texts, words_other texts, "
        "words_delta texts, images texts",
        key=(*_KEY, "concept"),
    ),
    Table(
        "shift_picture",
        f"{_OF}, image_id text, concept int16, cosine double, cosine_shifted double, "
        "cosine_random double, cosine_other double",
        key=(*_KEY, "image_id"),
    ),
    Table(
        "shift_layer",
        f"{_OF}, image_id text, layer int16, change double, change_control double",
        key=(*_KEY, "image_id", "layer"),
    ),
    Table(
        "shift_unit",
        f"{_OF}, layer int16, unit int32, rank int32, written double, noise double, "
        "column_change double, activation double, activation_other double, low double?, high double?, "
        "tokens texts, tokens_other texts",
        key=(*_KEY, "layer", "unit"),
    ),
)
