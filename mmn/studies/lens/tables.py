"""What image tokens say, read as words. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "lens",
        "image_id text?, kind text, layer int16?, token_position int32, tokens texts, scores floats",
        key=("image_id", "kind", "layer", "token_position"),
    ),
)
