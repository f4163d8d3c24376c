"""How well units' words fit. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "sensitivity",
        "image_id text, noun text, method text, metric text, value double, control double, control_blank double?",
        key=("image_id", "noun", "method", "metric"),
        later={"control_blank": None},
    ),
)
