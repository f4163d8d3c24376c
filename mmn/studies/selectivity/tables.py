"""Units of classes, in held-out pictures of every class. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "selectivity",
        "unit_noun text, noun text, method text, is_control bool, value double, share double?, n_units int32, "
        "n_images int32, held_out int32",
        key=("unit_noun", "noun", "method", "is_control", "n_units", "held_out"),
    ),
    Table(
        "class_activation",
        "unit_noun text, method text, is_control bool, image_id text, is_own bool, value float, n_units int32, "
        "held_out int32",
        key=("unit_noun", "method", "is_control", "image_id", "n_units", "held_out"),
    ),
)
