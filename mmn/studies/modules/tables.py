"""What attention and FFN of each layer say of a noun alone. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "module",
        "image_id text, noun text, is_control bool, layer int16, part text, value float, prob float",
        key=("image_id", "noun", "is_control", "layer", "part"),
        shares=("prob",),
        among={"part": ("attention", "ffn")},
    ),
)
