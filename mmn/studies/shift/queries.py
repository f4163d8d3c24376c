"""What another run's model changed, by `mmn shift`: concepts, pictures, layers and units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from mmn.statistics.intervals import ANYWHERE, interval_table
from mmn.store.reader import Reader

_OF: Final = "run_id = $run_id AND other = $other AND (len($nouns) = 0 OR noun IN (SELECT unnest($nouns)))"

_OTHERS: Final = (
    "SELECT other, max(n_images) AS n FROM shift WHERE run_id = $run_id GROUP BY ALL ORDER BY n DESC, other"
)

_ABOUT: Final = f"""
    SELECT * EXCLUDE (run_id) FROM shift WHERE {_OF} ORDER BY n_images DESC, noun, site
"""  # noqa: S608 - no user's words

_CONCEPTS: Final = f"""
    SELECT * EXCLUDE (run_id) FROM shift_concept WHERE {_OF} ORDER BY noun, site, concept
"""  # noqa: S608 - no user's words

_PICTURES: Final = f"""
    SELECT image_id, noun, avg(cosine) AS cosine, avg(cosine_shifted - cosine) AS gain,
        avg(cosine_random - cosine) AS gain_random, avg(cosine_other - cosine) AS gain_other
    FROM shift_picture WHERE {_OF} GROUP BY ALL
"""  # noqa: S608 - no user's words

_LAYERS: Final = f"""
    SELECT image_id, layer::INTEGER AS layer, avg(change) AS change, avg(change_control) AS change_control
    FROM shift_layer WHERE {_OF} GROUP BY ALL
"""  # noqa: S608 - no user's words

_UNITS: Final = f"""
    SELECT * EXCLUDE (run_id, other, noun) FROM shift_unit WHERE {_OF} ORDER BY site, rank
"""  # noqa: S608 - no user's words

_GAINS: Final = ("gain", "gain_random", "gain_other", "cosine")


class ShiftQueries(Reader):
    """Questions about what another run's model changed; `nouns` are lemmas, all that were measured if none."""

    def others(self, run_id: str) -> list[str]:
        """Returns the runs that a run was compared with, that with most pictures first.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return [str(other) for other, _ in cursor.execute(_OTHERS, {"run_id": run["run_id"]}).fetchall()]

    def about(self, run_id: str, other: str, nouns: Sequence[str] = ()) -> pd.DataFrame:
        """Returns the table `shift`, the noun with most pictures first (raises as `others`)."""
        return self._rows(_ABOUT, run_id, other, nouns)

    def concepts(self, run_id: str, other: str, noun: str) -> pd.DataFrame:
        """Returns the table `shift_concept` of a noun (raises as `others`)."""
        return self._rows(_CONCEPTS, run_id, other, [noun])

    def units(self, run_id: str, other: str, noun: str) -> pd.DataFrame:
        """Returns the table `shift_unit` of a noun, the unit of which most is another first (raises as `others`)."""
        return self._rows(_UNITS, run_id, other, [noun])

    def gains(self, run_id: str, other: str, nouns: Sequence[str] = ()) -> pd.DataFrame:
        """Returns by noun the mean gain in cosine with the other model's state: noun, n (pictures), then gain (by the
        delta of the concept's other pictures), gain_random, gain_other and cosine (before), each with its `_low` and
        `_high`.
        """
        rows = self.pictures(run_id, other, nouns)
        ends = [f"{name}{end}" for name in _GAINS for end in ("", "_low", "_high")]
        if rows.empty:
            return pd.DataFrame(columns=["noun", "n", *ends])
        parts = []
        for name in _GAINS:
            table = interval_table(rows, ["noun"], name, within=ANYWHERE).set_index("noun")
            table = table.rename(columns={"mean": name, "low": f"{name}_low", "high": f"{name}_high"})
            parts.append(table if name == _GAINS[0] else table.drop(columns="n"))
        found = pd.concat(parts, axis=1).reset_index()
        return found.sort_values(["n", "noun"], ascending=[False, True], ignore_index=True)

    def pictures(self, run_id: str, other: str, nouns: Sequence[str] = ()) -> pd.DataFrame:
        """Returns image_id, noun, cosine and the gains of each picture (raises as `others`)."""
        return self._rows(_PICTURES, run_id, other, nouns)

    def layers(self, run_id: str, other: str, nouns: Sequence[str] = ()) -> pd.DataFrame:
        """Returns image_id, layer, change and change_control, the mean over a picture's nouns (raises as `others`)."""
        return self._rows(_LAYERS, run_id, other, nouns)

    def _rows(self, question: str, run_id: str, other: str, nouns: Sequence[str]) -> pd.DataFrame:
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(question, params={"run_id": run["run_id"], "other": other, "nouns": list(nouns)}).df()
