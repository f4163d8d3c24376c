"""A noun's unit, scored for the other nouns. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.names import FOUND
from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "specificity",
        "image_id text, unit_noun text, noun text, method text, layer int16, unit int32, score float, share double?, "
        "is_control bool, selection text, found_on text?",
        key=("image_id", "unit_noun", "noun", "method", "is_control", "selection"),
        among={"selection": FOUND},
        later={"selection": "same", "found_on": None},
    ),
)
