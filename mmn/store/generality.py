"""How general is a unit: of how many nouns is it in the top k, whatever the noun? OURS; `docs/methods.md`, Generality.

    g(u) = mean over lemmas c of   (pictures whose caption says c and whose top k for c holds u) / (pictures that say c)

by one method's rankings. A lemma counts once, however many pictures say it. Were a lemma's pictures united instead of
averaged, a lemma of many pictures would hold nearly every unit by chance. A ranking that knows nothing gives every unit
k / (units that the method ranks), on average, whatever the pictures.

k is 1.4 % of all units, the share that P1's 6,400 are of GPT-J's, or what the run stored where that is less.
Left out: words that the user chose, suppressors, and the grey picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import pandas as pd

from mmn.store.rankings import chance_of
from mmn.store.reader import Reader

SHARE: Final = 0.014  # of all units

_GENERALITY: Final = """
    WITH nouns AS (
        SELECT image_id, noun, 1.0 / count(*) OVER (PARTITION BY lemma) AS weight FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
    )
    SELECT method, layer::INTEGER AS layer, unit,
        sum(weight) / (SELECT count(DISTINCT lemma) FROM concept
            WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL) AS generality
    FROM score JOIN nouns USING (image_id, noun)
    WHERE run_id = $run_id AND variant = 'original' AND method = $method AND rank BETWEEN 1 AND $k
    GROUP BY method, layer, unit ORDER BY generality DESC, layer, unit
"""

# Follows a question about (method, layer, unit), and leaves out the units of the table that `hide` registers.
HIDDEN: Final = "ANTI JOIN hidden USING (method, layer, unit)"


def generality_k(run: Mapping[str, Any]) -> int:
    """The k that generality is of."""
    n_units = int(run["n_layers"]) * int(run["d_mlp"])
    return min(max(1, round(SHARE * n_units)), int(run["settings"]["top_k"]), n_units)


class GeneralityQueries(Reader):
    """How general the units of a run are, by the rankings of each method."""

    def units(self, run_id: str, method: str) -> pd.DataFrame:
        """Returns method, layer, unit and generality (above 0 to 1), the most general first; other units have 0.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of that method.
        """
        with self._of_run(run_id) as (cursor, run):
            self._require_methods(cursor, run, method)
            values = {"run_id": run["run_id"], "method": method, "k": generality_k(run)}
            question = (f"generality of {method}", run["run_id"])
            return self._database.remember(question, lambda: cursor.sql(_GENERALITY, params=values).df()).copy()

    def told(self, run_id: str, method: str) -> dict[str, float]:
        """Returns k, `chance` (a unit's, by a ranking that knows nothing; NaN for experts) and `most`, the largest.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of that method.
        """
        units = self.units(run_id, method)
        with self._of_run(run_id) as (_, run):
            k = generality_k(run)
        return {"k": k, "chance": chance_of(run, k, [method]), "most": float(units["generality"].max())}

    def hidden(self, run_id: str, methods: Sequence[str], most: float | None) -> pd.DataFrame | None:
        """Returns method, layer and unit of those units that are more general than `most`; None for no limit.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of a method.
        """
        if most is None:
            return None
        units = pd.concat([self.units(run_id, method) for method in dict.fromkeys(methods)], ignore_index=True)
        return units.loc[units["generality"] > most, ["method", "layer", "unit"]]

    def with_generality(self, run_id: str, rows: pd.DataFrame, method: str) -> pd.DataFrame:
        """`rows` (layer, unit) with their generality by a method; 0 for units that lead no noun.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of that method.
        """
        known = self.units(run_id, method).set_index(["layer", "unit"])["generality"]
        keys = pd.MultiIndex.from_frame(rows[["layer", "unit"]].astype("int64"))
        return rows.assign(generality=known.reindex(keys).fillna(0.0).to_numpy())


def hide(cursor: duckdb.DuckDBPyConnection, hidden: pd.DataFrame | None) -> str:
    """Gives a cursor the table `hidden`, and returns what a question says to leave its units out; "" for none."""
    if hidden is None:
        return ""
    cursor.register("hidden", hidden)
    return HIDDEN
