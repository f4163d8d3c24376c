"""How far do two rankings agree, and how well do a ranking's top units look at their nouns?

Concepts are the nouns of pictures' own captions; words that the user chose are left out, and so are suppressors.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd

from mmn.errors import UsageError
from mmn.names import CONTRIBUTION, FOUND, RANDOM, chance_overlap, reference_of
from mmn.statistics.intervals import draw_intervals, interval_table
from mmn.store.cells import by_picture, with_intervals
from mmn.store.reader import Reader, require_k

_OVERLAPS: Final = ("iou", "iou_other", "iou_random")

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


class RankingReader(Reader):
    """Questions about whole rankings of a run."""

    def ranking_overlap(
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
        with self._of_run(run_id) as (own, run):
            for k in ks:
                require_k(run, k)
            values = self._pair(own, run, method_a, method_b, lemmas) | {
                "ks": list(dict.fromkeys(ks)),
                "max_k": max(ks),
            }
            rows = own.sql(_OVERLAP, params=values).df()
        if rows.empty:
            raise UsageError(f"run {run['run_id']} has no concepts of {list(lemmas) or 'any caption'} to compare")
        cells = pd.DataFrame({"k": values["ks"]})
        found = with_intervals(cells, ["overlap"], by_picture(rows, ["overlap"], len(cells)), draw_intervals)
        shape = (run["n_layers"], run["d_mlp"])
        return found.assign(chance=[chance_overlap(k, (method_a, method_b), *shape) for k in found["k"]])

    def rank_correlation(self, run_id: str, method_a: str, method_b: str, lemmas: Sequence[str] = ()) -> dict[str, Any]:
        """Returns Spearman's rho of two rankings, its mean over a picture's concepts, then over pictures.

        `spearman` with `low` and `high` (95 %, by picture), `n_images`, `n` (concepts) and `n_units` (compared for each
        concept, their mean). Compared are the units that either ranking stored, of the run's top k; in the list that
        lacks them they share its worst rank. Two lists without a common unit have about −.86, equal ones 1. (Over the
        common units alone, lists that share little could agree perfectly.) NaN where no concept has two units.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of a method.
        """
        with self._of_run(run_id) as (own, run):
            values = self._pair(own, run, method_a, method_b, lemmas) | {"max_k": run["settings"]["top_k"]}
            rows = own.sql(_CORRELATION, params=values).df()
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
        with self._of_run(run_id) as (own, run):
            stored = self._score_methods(own, run)
        k = k or min(run["settings"]["top_k"], run["n_layers"] * run["d_mlp"])
        found = [
            self.ranking_overlap(run_id, control, reference, [k], lemmas).assign(control=control, reference=reference)
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
        with self._of_run(run_id) as (own, run):
            values = self._pair(own, run, reference, reference, lemmas) | {"max_k": k}
            del values["a"]
            [(chance,)] = own.execute(_MATCHED, values).fetchall()
        return float(chance)

    def field_summary(self, run_id: str, top: int = 10) -> pd.DataFrame:
        """Returns how well the `top` units of each ranking look at their nouns, with 95 % intervals by picture.

        A row for each method and selection: units that another picture of the noun ranks highest (`held-out`), those
        that this one does (`same`). Columns: method, selection, n (rows of `field` with a region), n_images, and for
        each of iou, iou_other, iou_random its mean within pictures, then over them, with `_low` and `_high`; iou_best
        is the mean of what the objects' sizes allow. NaN where no picture has another region. Empty without regions.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (own, run):
            pictures = own.sql(_FIELDS, params={"run_id": run["run_id"], "top": top}).df()
            order = self._score_methods(own, run)
        by = ["method", "selection"]
        found = pictures.groupby(by).agg(n=("n", "sum"), n_images=("image_id", "size"), iou_best=("iou_best", "mean"))
        for name in _OVERLAPS:
            columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
            if pictures[name].notna().any():
                means = interval_table(pictures, by, name).rename(columns=columns).set_index(by)
                found = found.join(means[list(columns.values())])
            else:
                found = found.assign(**dict.fromkeys(columns.values(), np.nan))
        ordered = [key for key in itertools.product(order, FOUND) if key in found.index]
        return found.loc[ordered].reset_index()

    def _pair(
        self, own: duckdb.DuckDBPyConnection, run: dict[str, Any], method_a: str, method_b: str, lemmas: Sequence[str]
    ) -> dict[str, Any]:
        self._require_methods(own, run, method_a, method_b)
        shape = {name: run[name] for name in ("run_id", "n_layers", "d_mlp")}
        return shape | {"a": method_a, "b": method_b, "lemmas": list(lemmas)}


def _controls(stored: Sequence[str]) -> list[tuple[str, str]]:
    """The random rankings among those `stored`, each with the ranking that it is a control of, where that is there."""
    references = [method for method in stored if not method.startswith(RANDOM)]
    pairs = [(control, reference_of(control)) for control in stored if control.startswith(RANDOM)]
    if references and CONTRIBUTION not in references:  # plain `random` follows none in particular
        pairs = [(control, references[0] if control == RANDOM else reference) for control, reference in pairs]
    return [(control, reference) for control, reference in pairs if reference in references]
