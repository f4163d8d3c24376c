"""How far do two rankings of the same nouns agree?

Concepts are the nouns of pictures' own captions; words that the user chose are left out, and so are suppressors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd

from mmn.errors import UsageError
from mmn.names import CONTRIBUTION, RANDOM, chance_overlap, reference_of
from mmn.statistics.intervals import draw_intervals
from mmn.store.cells import by_picture, with_intervals
from mmn.store.reader import Reader, require_k

# Concepts as numbers, so that two million rows are joined by one integer and not by three strings; and each ranking
# read by itself, twice as fast as both together and taken apart.
_PLACES: Final = """
    SELECT concept, rank, (concept * $n_layers + layer) * $d_mlp + unit AS place
    FROM score JOIN nouns USING (image_id, noun)
    WHERE run_id = $run_id AND variant = 'original' AND method = {method} AND rank BETWEEN 1 AND $max_k
"""
_NOUNS_OF: Final = """
    nouns AS (
        SELECT image_id, noun, row_number() OVER () AS concept, dense_rank() OVER (ORDER BY image_id) - 1 AS picture
        FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
            AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))
    )
"""

# A unit is in both top k exactly when its worse rank is at most k.
_OVERLAP: Final = f"""
    WITH {_NOUNS_OF},
    shared AS (
        SELECT a.concept, greatest(a.rank, b.rank) AS rank
        FROM ({_PLACES.format(method="$a")}) AS a JOIN ({_PLACES.format(method="$b")}) AS b USING (place)
    ),
    worse AS (SELECT picture, rank, count(*) AS n FROM shared JOIN nouns USING (concept) GROUP BY ALL),
    pictures AS (SELECT picture, count(*) AS n_concepts FROM nouns GROUP BY picture)
    SELECT pictures.picture AS place, list_position($ks, k) - 1 AS cell,
        coalesce(sum(n), 0) / k / any_value(n_concepts) AS overlap
    FROM (SELECT unnest($ks)::INTEGER AS k) CROSS JOIN pictures
        LEFT JOIN worse ON worse.picture = pictures.picture AND rank <= k
    GROUP BY pictures.picture, k
"""  # noqa: S608 - no user's words

# A list of length l has the other units of the union at the ranks l + 1 to n: tied, at (l + n + 1) / 2.
_CORRELATION: Final = f"""
    WITH {_NOUNS_OF},
    ranked AS (
        SELECT coalesce(a.concept, b.concept) AS concept, a.rank AS a, b.rank AS b
        FROM ({_PLACES.format(method="$a")}) AS a FULL JOIN ({_PLACES.format(method="$b")}) AS b USING (place)
    ),
    counted AS (
        SELECT concept, a, b, count(a) OVER own AS n_a, count(b) OVER own AS n_b, count(*) OVER own AS n
        FROM ranked WINDOW own AS (PARTITION BY concept)
    ),
    rhos AS (
        SELECT concept, corr(coalesce(a, (n_a + n + 1) / 2), coalesce(b, (n_b + n + 1) / 2)) AS rho, any_value(n) AS n
        FROM counted GROUP BY concept HAVING count(*) >= 2
    )
    SELECT picture AS place, 0 AS cell, avg(rho) AS spearman, count(*) AS n, sum(rhos.n) AS n_units
    FROM rhos JOIN nouns USING (concept) WHERE isfinite(rho) GROUP BY picture
"""  # noqa: S608 - no user's words

# Random units with the reference's n_l of each layer share n_l²/m of it on average.
_MATCHED: Final = f"""
    WITH {_NOUNS_OF},
    counted AS (
        SELECT concept, place // $d_mlp AS layer, count(*) AS n FROM ({_PLACES.format(method="$b")}) GROUP BY ALL
    ),
    expected AS (SELECT concept, sum(n * n) / $d_mlp / $max_k AS share FROM counted GROUP BY concept),
    by_picture AS (SELECT picture, avg(share) AS share FROM expected JOIN nouns USING (concept) GROUP BY picture)
    SELECT avg(share) FROM by_picture
"""  # noqa: S608 - no user's words


class RankingQueries(Reader):
    """Questions about whole rankings of a run."""

    def overlap(
        self, run_id: str, method_a: str, method_b: str, ks: Sequence[int], lemmas: Sequence[str] = ()
    ) -> pd.DataFrame:
        """Returns |A ∩ B| / k of two rankings' top k, its mean over a picture's concepts, then over pictures.

        Columns: k, overlap with overlap_low and overlap_high (95 %, by picture), n_images, and chance: k over the units
        that the wider of the two rankings runs over.

        Args:
            run_id: of one run.
            method_a: one ranking.
            method_b: the other.
            ks: units compared.
            lemmas: only these nouns; all if empty.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of a method, a k that is not stored, or no such nouns.
        """
        if not ks:
            raise UsageError("choose at least one k")
        with self._of_run(run_id) as (cursor, run):
            for k in ks:
                require_k(run, k)
            values = self._pair(cursor, run, method_a, method_b, lemmas) | {
                "ks": list(dict.fromkeys(ks)),
                "max_k": max(ks),
            }
            rows = cursor.sql(_OVERLAP, params=values).df()
        if rows.empty:
            raise UsageError(f"run {run['run_id']} has no concepts of {list(lemmas) or 'any caption'} to compare")
        cells = pd.DataFrame({"k": values["ks"]})
        found = with_intervals(cells, ["overlap"], by_picture(rows, ["overlap"], len(cells)), draw_intervals)
        return found.assign(chance=[chance_of(run, k, (method_a, method_b)) for k in found["k"]])

    def correlation(self, run_id: str, method_a: str, method_b: str, lemmas: Sequence[str] = ()) -> dict[str, Any]:
        """Returns Spearman's rho of two rankings, its mean over a picture's concepts, then over pictures.

        `spearman` with `low` and `high` (95 %, by picture), `n_images`, `n` (concepts) and `n_units` (compared for each
        concept, their mean). Compared are the units that either ranking stored, of the run's top k; in the list that
        lacks them they share its worst rank. Two lists without a common unit have about −.86, equal ones 1. (Over the
        common units alone, lists that share little could agree perfectly.) NaN where no concept has two units.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of a method.
        """
        with self._of_run(run_id) as (cursor, run):
            values = self._pair(cursor, run, method_a, method_b, lemmas) | {"max_k": run["settings"]["top_k"]}
            rows = cursor.sql(_CORRELATION, params=values).df()
        found = with_intervals(
            pd.DataFrame(index=[0]), ["spearman"], by_picture(rows, ["spearman"], 1), draw_intervals
        ).iloc[0]
        told = {"spearman": "spearman", "low": "spearman_low", "high": "spearman_high"}
        rho = {name: float(found[column]) for name, column in told.items()}
        n = int(rows["n"].sum())
        n_units = float(rows["n_units"].sum() / n) if n else float("nan")
        return rho | {"n_images": int(found["n_images"]), "n": n, "n_units": n_units}

    def control_overlap(self, run_id: str, k: int | None = None, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns how far the run's random rankings hold the units of the ranking that they are the control of.

        A control's units are drawn from all, the reference's own not excluded (METHODS: random). Columns: control,
        reference, then as `ranking_overlap`; chance for a matched control is that of its layers. Empty without random
        rankings, or without the reference's.

        Args:
            run_id: of one run.
            k: units compared; None for the run's top k.
            lemmas: only these nouns; all if empty.

        Raises:
            RunNotFoundError: no such run.
            UsageError: a k that is not stored, or no such nouns.
        """
        with self._of_run(run_id) as (cursor, run):
            stored = self._score_methods(cursor, run)
        k = k or min(run["settings"]["top_k"], run["n_layers"] * run["d_mlp"])
        found = [
            self.overlap(run_id, control, reference, [k], lemmas).assign(control=control, reference=reference)
            for control, reference in _controls(stored)
        ]
        if not found:
            return pd.DataFrame(columns=["control", "reference", "k"])
        table = pd.concat(found, ignore_index=True)
        is_matched = table["control"] != RANDOM
        table.loc[is_matched, "chance"] = [
            self._matched_chance(run_id, reference, k, lemmas) for reference in table.loc[is_matched, "reference"]
        ]
        return table

    def _matched_chance(self, run_id: str, reference: str, k: int, lemmas: Sequence[str]) -> float:
        with self._of_run(run_id) as (cursor, run):
            if has_experts(run):
                return float("nan")
            values = self._pair(cursor, run, reference, reference, lemmas) | {"max_k": k}
            del values["a"]
            [(chance,)] = cursor.execute(_MATCHED, values).fetchall()
        return float(chance)

    def _pair(
        self,
        cursor: duckdb.DuckDBPyConnection,
        run: dict[str, Any],
        method_a: str,
        method_b: str,
        lemmas: Sequence[str],
    ) -> dict[str, Any]:
        self._require_methods(cursor, run, method_a, method_b)
        shape = {name: run[name] for name in ("run_id", "n_layers", "d_mlp")}
        return shape | {"a": method_a, "b": method_b, "lemmas": list(lemmas)}


def d_experts(run: Mapping[str, Any]) -> tuple[int, ...]:
    """`ModelFacts.d_experts` of a run's model; () for one that is no mixture of experts."""
    widths = run["d_experts"]
    return tuple(map(int, widths)) if isinstance(widths, Sequence | np.ndarray) else ()


def has_experts(run: Mapping[str, Any]) -> bool:
    """Whether the run's model is a mixture of experts."""
    return len(d_experts(run)) > 0


def chance_of(run: Mapping[str, Any], k: int, methods: Sequence[str]) -> float:
    """`names.chance_overlap`; NaN for experts: rankings hold the units that are awake, and not all of them are."""
    if has_experts(run):
        return float("nan")
    return chance_overlap(k, methods, run["n_layers"], run["d_mlp"], run["settings"].get("effect_layers", ()))


def _controls(stored: Sequence[str]) -> list[tuple[str, str]]:
    """The random rankings among those `stored`, each with the ranking that it is a control of, where that is there."""
    references = [method for method in stored if not method.startswith(RANDOM)]
    pairs = [(control, reference_of(control)) for control in stored if control.startswith(RANDOM)]
    if references and CONTRIBUTION not in references:  # plain `random` follows none in particular
        pairs = [(control, references[0] if control == RANDOM else reference) for control, reference in pairs]
    return [(control, reference) for control, reference in pairs if reference in references]
