"""What shares of pictures did an edit change as it should? For the page, its figure and the terminal alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from mmn.statistics.intervals import interval_table

MEASURES: Final[Mapping[str, str]] = {  # role of a picture -> the share over such pictures
    "edited": "efficacy",
    "other": "generalisation",
    "unrelated": "locality",
}


def edit_shares(captions: pd.DataFrame) -> pd.DataFrame:
    """Returns each edit's shares of pictures whose new caption is as wished: edit_id, role, mean, low, high, n.

    Args:
        captions: rows of `edited_caption`.
    """
    said = captions.assign(said=captions["is_as_wished"].astype(float))
    return interval_table(said, ["edit_id", "role"], "said")
