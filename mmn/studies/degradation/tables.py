"""What units that were changed leave of a noun. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.names import ALL_SELECTIONS, EVERYWHERE, INTERVENTIONS, POSITIONS
from mmn.studies.table import Table

_KEY: Final = (
    *("image_id", "variant", "noun", "kind", "selection", "method", "k", "sigma", "sigma_unit", "draw"),
    *("positions", "factor"),
)
_KEY_COLUMNS: Final = (
    "image_id text, variant text, noun text, kind text, selection text, method text, k int32, sigma double?, "
    "sigma_unit text?, draw int32, positions text, factor double?"
)
_AMONG: Final = {"positions": POSITIONS, "kind": INTERVENTIONS, "selection": ALL_SELECTIONS}

TABLES: Final = (
    Table(
        "effect",
        f"{_KEY_COLUMNS}, logit double, prob double, caption text?, similarity double?, metric text?, is_lost bool?, "
        "other_image_id text?, other_noun text?",
        key=(*_KEY, "metric"),
        later={"positions": EVERYWHERE},
        shares=("prob",),
        among=_AMONG,
    ),
    Table(
        "noun_share",
        f"{_KEY_COLUMNS}, n_nouns int32, noun_share double",
        key=_KEY,
        shares=("noun_share",),
        among=_AMONG,
    ),
    Table(
        "perplexity",
        f"{_KEY_COLUMNS}, text text, n_tokens int32, nats double",
        key=(*_KEY, "text"),
        among=_AMONG,
    ),
    Table(
        "unit_set",
        "name text, place int32, layer int16, unit int32, score double?, model text, origin json",
        key=("name", "place"),
    ),
)
