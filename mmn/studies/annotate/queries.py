"""How well do a ranking's top units overlap with their nouns' objects?"""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import pandas as pd

from mmn.names import FOUND, GIVEN, SET
from mmn.statistics.intervals import interval_table
from mmn.store.cells import in_order
from mmn.store.reader import Reader

_OVERLAPS: Final = ("iou", "iou_other", "iou_random")

# A picture's mean, over its nouns and their units: pictures of more nouns or units weigh no more than others.
_FIELDS: Final = """
    SELECT method, selection, image_id, count(*) AS n,
        avg(iou) AS iou, avg(iou_other) AS iou_other, avg(iou_random) AS iou_random, avg(iou_best) AS iou_best
    FROM field SEMI JOIN (
        SELECT image_id, noun FROM concept WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
    ) USING (image_id, noun)
    WHERE run_id = $run_id AND rank BETWEEN 1 AND $top AND iou IS NOT NULL
    GROUP BY ALL ORDER BY method, selection, image_id
"""


class FieldQueries(Reader):
    """Questions about receptive fields."""

    def summary(self, run_id: str, top: int = 10) -> pd.DataFrame:
        """Returns how well the `top` units of each ranking look at their nouns, with 95 % intervals by picture.

        A row for each method and selection: units that another picture of the noun ranks highest (`held-out`), those
        that this one does (`same`), the first ones of a saved set (`set`). Columns: method, selection, n (rows of
        `field` with a region), n_images, and for each of iou, iou_other, iou_random its mean within pictures, then over
        them, with `_low` and `_high`; iou_best is the mean of what the objects' sizes allow. NaN where no picture has
        another region. Empty without regions.

        Raises:
            RunNotFoundError: no such run.
        """
        pictures = self.by_picture(run_id, top)
        with self._of_run(run_id) as (cursor, run):
            order = self._score_methods(cursor, run)
        order += in_order(method for method in pictures["method"].unique() if method.startswith(SET))
        by = ["method", "selection"]
        found = pictures.groupby(by).agg(n=("n", "sum"), n_images=("image_id", "size"), iou_best=("iou_best", "mean"))
        for name in _OVERLAPS:
            columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
            if pictures[name].notna().any():
                means = interval_table(pictures, by, name).rename(columns=columns).set_index(by)
                found = found.join(means[list(columns.values())])
            else:
                found = found.assign(**dict.fromkeys(columns.values(), np.nan))
        ordered = [key for key in itertools.product(order, (*FOUND, GIVEN)) if key in found.index]
        return found.loc[ordered].reset_index()

    def by_picture(self, run_id: str, top: int = 10) -> pd.DataFrame:
        """Returns each picture's means behind `summary`: method, selection, image_id, n, iou and its controls.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_FIELDS, params={"run_id": run["run_id"], "top": top}).df()
