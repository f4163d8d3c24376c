"""The means of what was measured, as `mmn invariance` prints them."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from mmn import names
from mmn.statistics.intervals import draw_intervals
from mmn.store.cells import by_picture, with_intervals


def summarize(rows: pa.Table) -> pd.DataFrame:
    """Means of `invariance` rows of one kind by method and k: `ratio`, `floor_other_noun`, `floor_random`.

    Region: over nouns, then pictures, then draws (METHODS), with 95 % intervals by picture of the first two (`_low`,
    `_high`) and n_images: the numbers of `InvarianceQueries.curves`. Cross-image: over draws, then nouns, which all
    count the same, and n_concepts; no intervals, since nouns have pictures in common.
    """
    frame = rows.to_pandas()
    if len(frame) and frame["kind"].iloc[0] == names.REGION:
        return _region_means(frame)
    values = ["ratio", "floor_other_noun", "floor_random"]
    nouns = frame.groupby(["noun", "method", "k"], as_index=False, observed=True)[values].mean()
    by = nouns.groupby(["method", "k"], observed=True)
    return by[values].mean().assign(n_concepts=by.size()).reset_index()


def _region_means(frame: pd.DataFrame) -> pd.DataFrame:
    cells = frame[["method", "k"]].drop_duplicates().sort_values(["method", "k"], ignore_index=True)
    pictures = frame.groupby(["image_id", "draw", "method", "k"], as_index=False, observed=True)[
        ["ratio", "floor_other_noun", "floor_random"]
    ].mean()
    pictures = pictures.merge(cells.assign(cell=cells.index), on=["method", "k"])
    pictures["place"] = pictures.groupby("image_id").ngroup()
    quantities = ["ratio", "floor_other_noun"]
    found = with_intervals(cells, quantities, by_picture(pictures, quantities, len(cells)), draw_intervals)
    return found.assign(floor_random=pictures.groupby("cell")["floor_random"].mean())
