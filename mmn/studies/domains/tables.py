"""How often units are active, by domain and kind of token. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.names import GROUPED_BY, TOKEN_SETS
from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "domain_rate",
        "measured text, grouped_by text, domain text, token_set text, half int16, layer int16, n_images int32, "
        "n_tokens int32, active ints",
        key=("measured", "grouped_by", "domain", "token_set", "half", "layer"),
        among={"grouped_by": GROUPED_BY, "token_set": TOKEN_SETS},
    ),
    Table(
        "modality_score",
        "measured text, token_set text, half int16, layer int16, n_images int32, prob floats, mean floats, "
        "maximum floats, attn_k floats?, attn_q floats?",
        key=("measured", "token_set", "half", "layer"),
        shares=("prob",),
        among={"token_set": TOKEN_SETS},
    ),
)
