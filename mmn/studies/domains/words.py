"""The words that this study is scripted by: what pictures are grouped by, kinds of token, and rules of choice."""

from __future__ import annotations

from typing import Final

from mmn.names import GROUPED_BY, TOKEN_SETS, UNIT_RULES

NOUN, FOLDER, TAG = BYS = GROUPED_BY
TEXT, IMAGE = TOKEN_SETS
EVERY: Final = ""  # the domain that stands for all pictures that were read

DAPE, LA_MU, ADAPTIVE, TOKENS = RULES = UNIT_RULES
RULE_WORDS: Final = {
    DAPE: "domains by DAPE",
    LA_MU: "modalities by LA_MU",
    ADAPTIVE: "modalities, adaptive",
    TOKENS: "by active tokens",
}
