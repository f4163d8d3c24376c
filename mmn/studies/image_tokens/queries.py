"""What do nouns lose without image tokens, and without attention to them? Means over a picture's nouns, then pictures.

`lost` is p₀ − p of the noun's token, `wrong` whether another token is then the likeliest, of nouns that were right
before; each beside its control on the same nouns, and their difference noun by noun. Intervals are by picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from mmn.errors import UsageError
from mmn.statistics.intervals import SHARE, Range, mean_intervals
from mmn.store.cells import NOUNS, by_picture, distinct, values_by_picture, with_intervals
from mmn.store.reader import Reader
from mmn.studies.image_tokens.tables import GRADIENTS_OF_SIZE, SOURCES, TARGETS, TOKEN_SETS, WINDOWS

LOST, WRONG = "lost", "wrong"
_SIGNED: Final = (-1.0, 1.0)
VALUES: Final[Mapping[str, Range]] = MappingProxyType(
    {
        LOST: _SIGNED,
        f"{LOST}_control": _SIGNED,
        f"{LOST}_difference": _SIGNED,
        WRONG: SHARE,
        f"{WRONG}_control": SHARE,
        f"{WRONG}_difference": _SIGNED,
    }
)

_WORDS: Final = {"token_set": TOKEN_SETS, "source": SOURCES, "target": TARGETS, "layer_window": WINDOWS}

# Of each picture the newest question's rows; {key} are columns that tell cells apart.
_ROWS: Final = f"""
    WITH {NOUNS},
    newest AS (
        SELECT * FROM {{table}} WHERE run_id = $run_id
        QUALIFY revision = max(revision) OVER (PARTITION BY image_id)
    )
    SELECT place, {{key}}, avg(n_tokens) AS n_tokens, count(*) AS n,
        avg(baseline_prob - prob) AS lost, avg(baseline_prob - control_prob) AS lost_control,
        avg(control_prob - prob) AS lost_difference,
        avg(is_wrong::INTEGER) FILTER (is_right) AS wrong, avg(control_wrong) FILTER (is_right) AS wrong_control,
        avg(is_wrong::INTEGER - control_wrong) FILTER (is_right) AS wrong_difference
    FROM newest JOIN nouns USING (image_id, noun) JOIN pictures USING (image_id)
    GROUP BY ALL
"""  # noqa: S608 - no user's words

_COUNTS: Final = """
    SELECT count(DISTINCT image_id) AS n_images, count(DISTINCT (image_id, noun)) AS n_nouns,
        count(DISTINCT (image_id, noun)) FILTER (token_set = 'object') AS n_outlined,
        max(residual) AS residual
    FROM token_loss WHERE run_id = $run_id
"""


class ImageTokenQueries(Reader):
    """Questions about image tokens that were replaced, and attention that was blocked."""

    def token_sets(self, run_id: str, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns a row for each set that is not made to a size: token_set, n_tokens, n (nouns), n_images, and each of
        `VALUES` with `_low` and `_high`.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        rows = self._rows(run_id, "token_loss", ("token_set", "size"), lemmas)
        return _summary(rows[rows["token_set"] != GRADIENTS_OF_SIZE], ["token_set"])

    def sizes(self, run_id: str, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns the same for the tokens of highest integrated gradients, by `size`, their share of all (raises
        likewise).
        """
        rows = self._rows(run_id, "token_loss", ("token_set", "size"), lemmas)
        return _summary(rows[rows["token_set"] == GRADIENTS_OF_SIZE], ["size"])

    def knockouts(self, run_id: str, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns the same by source, target, layer_window, first_layer and last_layer (raises likewise)."""
        key = ["source", "target", "layer_window", "first_layer", "last_layer"]
        return _summary(self._rows(run_id, "knockout", key, lemmas), key)

    def by_picture(self, run_id: str, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns each picture's values behind `token_sets`: image_id, token_set, lost, wrong."""
        rows = self._rows(run_id, "token_loss", ("token_set", "size"), lemmas)
        rows = rows[rows["token_set"] != GRADIENTS_OF_SIZE]
        cells = rows[["token_set"]].drop_duplicates().reset_index(drop=True)
        rows = rows.merge(cells.assign(cell=range(len(cells))), on="token_set")
        asked = {"run_id": run_id, "lemmas": distinct(lemmas)}
        with self._of_run(run_id) as (cursor, run):
            asked |= {"run_id": run["run_id"]}
            found = [values_by_picture(cursor, rows, cells, name, asked).assign(measure=name) for name in (WRONG, LOST)]
        return pd.concat(found, ignore_index=True)

    def counts(self, run_id: str) -> dict[str, Any]:
        """How many pictures and nouns had tokens replaced, how many nouns have an outline; the largest residual."""
        with self._of_run(run_id) as (cursor, run):
            found: dict[str, Any] = cursor.sql(_COUNTS, params={"run_id": run["run_id"]}).df().iloc[0].to_dict()
            return found

    def _rows(self, run_id: str, table: str, key: Sequence[str], lemmas: Sequence[str]) -> pd.DataFrame:
        """Means over the nouns of numbered pictures."""
        with self._of_run(run_id) as (cursor, run):
            asked = {"run_id": run["run_id"], "lemmas": distinct(lemmas)}
            rows = cursor.sql(_ROWS.format(table=table, key=", ".join(key)), params=asked).df()
            if rows.empty:
                of = f" for the nouns {', '.join(lemmas)}" if lemmas else ""
                raise UsageError(
                    f"run {run['run_id']} has no {table} rows{of}: measure it with "
                    f"mmn image-tokens {run['run_id']}, or choose other filters"
                )
        return rows


def _summary(rows: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Means over pictures and their intervals, a row for each cell of `key`, in the order of its words."""
    cells = rows[key].drop_duplicates().sort_values(key, key=_in_order, ignore_index=True)
    rows = rows.merge(cells.assign(cell=range(len(cells))), on=key)
    array = by_picture(rows, list(VALUES), len(cells))[:, :, 0]
    found = with_intervals(cells, list(VALUES), array, mean_intervals, VALUES)
    counts = rows.groupby("cell")[["n", "n_tokens"]].agg({"n": "sum", "n_tokens": "mean"})
    return found.assign(n=counts["n"].to_numpy(), n_tokens=counts["n_tokens"].to_numpy())


def _in_order(values: pd.Series) -> pd.Series:
    """The place of each word of a column among the words that it may hold; numbers as they are."""
    words = _WORDS.get(str(values.name))
    return values if words is None else values.map(words.index)
