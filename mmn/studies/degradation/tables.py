"""What units that were changed leave of a noun. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "effect",
        "image_id text, variant text, noun text, kind text, selection text, method text, k int32, sigma double?, "
        "sigma_unit text?, draw int32, logit double, prob double, caption text?, similarity double?, metric text?, "
        "is_lost bool?",
        key=(
            "image_id",
            "variant",
            "noun",
            "kind",
            "selection",
            "method",
            "k",
            "sigma",
            "sigma_unit",
            "draw",
            "metric",
        ),
        shares=("prob",),
    ),
)
