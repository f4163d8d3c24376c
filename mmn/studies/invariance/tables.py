"""Units that stay when a picture is shuffled, or in other pictures of a noun."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "invariance",
        "image_id text?, kind text, noun text, method text, k int32, draw int32, ratio double, "
        "floor_other_noun double?, floor_random double, n int32",
        key=("image_id", "kind", "noun", "method", "k", "draw", "n"),
        shares=("ratio",),
    ),
    Table(
        "shared_layer",
        "noun text, method text, k int32, draw int32, n int32, layer int16, n_shared int32, n_random double",
        key=("noun", "method", "k", "draw", "n", "layer"),
    ),
)
