"""How far do two rankings agree, and how well do a ranking's top units look at their nouns?

Concepts are the nouns of pictures' own captions; words that the user chose are left out, and so are suppressors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
from jaxtyping import Float

from mmn.errors import UsageError
from mmn.store.reader import Reader, require_k

RESAMPLES: Final = 1000
INTERVAL: Final = (2.5, 97.5)  # percentiles of the bootstrapped means: a 95 % interval
_OVERLAPS: Final = ("iou", "iou_other", "iou_random")

# Concepts as numbers, so that two million rows are joined by one integer and not by three strings; and each ranking
# read by itself, twice as fast as both together and taken apart.
_PLACES: Final = """
    SELECT concept, rank, (concept * $n_layers + layer) * $d_mlp + unit AS place
    FROM score JOIN nouns USING (image_id, noun)
    WHERE run_id = $run_id AND variant = 'original' AND method = {method} AND rank BETWEEN 1 AND $max_k
"""
_SHARED: Final = f"""
    nouns AS (
        SELECT image_id, noun, row_number() OVER () AS concept FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
            AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))
    ),
    shared AS (
        SELECT a.concept, a.rank AS rank_a, b.rank AS rank_b
        FROM ({_PLACES.format(method="$a")}) AS a JOIN ({_PLACES.format(method="$b")}) AS b USING (place)
    )
"""  # noqa: S608 - no user's words

# A unit is in both top k exactly when its worse rank is at most k.
_OVERLAP: Final = f"""
    WITH {_SHARED},
    worse AS (SELECT greatest(rank_a, rank_b) AS rank, count(*) AS n FROM shared GROUP BY ALL),
    compared AS (SELECT count(*) AS n_concepts FROM nouns)
    SELECT k, coalesce(sum(n), 0) / k / any_value(n_concepts) AS overlap
    FROM (SELECT unnest($ks)::INTEGER AS k) CROSS JOIN compared LEFT JOIN worse ON rank <= k
    GROUP BY k ORDER BY list_position($ks, k)
"""  # noqa: S608 - no user's words

_CORRELATION: Final = f"""
    WITH {_SHARED},
    ranked_again AS (
        SELECT concept, row_number() OVER (PARTITION BY concept ORDER BY rank_a) AS place_a,
            row_number() OVER (PARTITION BY concept ORDER BY rank_b) AS place_b
        FROM shared
    ),
    rhos AS (SELECT corr(place_a, place_b) AS rho FROM ranked_again GROUP BY concept HAVING count(*) >= 2)
    SELECT avg(rho), count(*) FROM rhos
"""  # noqa: S608 - no user's words

_FIELDS: Final = """
    SELECT method, image_id,
        count(iou) AS n_iou, count(iou_other) AS n_iou_other, count(iou_random) AS n_iou_random,
        coalesce(sum(iou), 0) AS iou, coalesce(sum(iou_other), 0) AS iou_other,
        coalesce(sum(iou_random), 0) AS iou_random
    FROM field SEMI JOIN (
        SELECT image_id, noun FROM concept WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
    ) USING (image_id, noun)
    WHERE run_id = $run_id AND rank BETWEEN 1 AND $top AND iou IS NOT NULL
    GROUP BY method, image_id ORDER BY method, image_id
"""


class RankingReader(Reader):
    """Questions about whole rankings of a run."""

    def ranking_overlap(
        self, run_id: str, method_a: str, method_b: str, ks: Sequence[int], lemmas: Sequence[str] = ()
    ) -> pd.DataFrame:
        """Returns |A ∩ B| / k of two rankings' top k, its mean over concepts: k, overlap, chance = k / (L·m).

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
            overlap = own.sql(_OVERLAP, params=values).df()
        if overlap["overlap"].isna().any():
            raise UsageError(f"run {run['run_id']} has no concepts of {list(lemmas) or 'any caption'} to compare")
        return overlap.assign(chance=overlap["k"] / (run["n_layers"] * run["d_mlp"]))

    def rank_correlation(self, run_id: str, method_a: str, method_b: str) -> dict[str, Any]:
        """Returns `spearman`, the mean over concepts of Spearman's rho of two rankings, and `n`, how many concepts.

        Only units that both rankings stored are compared, ranked anew among themselves: it tells whether the two agree
        on the order of what they both find important, not whether they find the same (`ranking_overlap` does). A
        concept with fewer than two such units has no rho and is left out; with none left, `spearman` is NaN.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no scores of a method.
        """
        with self._of_run(run_id) as (own, run):
            values = self._pair(own, run, method_a, method_b, ()) | {"max_k": run["settings"]["top_k"]}
            [(spearman, n)] = own.execute(_CORRELATION, values).fetchall()
        return {"spearman": float("nan") if spearman is None else spearman, "n": n}

    def field_summary(self, run_id: str, top: int = 10) -> pd.DataFrame:
        """Returns how well the `top` units of each ranking look at their nouns, with 95 % intervals, by method.

        Columns: method, n (rows of `field` with a region), n_images, and for each of iou, iou_other, iou_random its
        mean over those rows and the interval `_low`, `_high` of a bootstrap by image (1,000 resamples, seed 0): all
        rows of a picture are drawn together. NaN where no picture has another region. Empty without regions.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (own, run):
            sums = own.sql(_FIELDS, params={"run_id": run["run_id"], "top": top}).df()
            order = self._score_methods(own, run)
        found = [method for method in order if method in set(sums["method"])]
        rows = [_summarised(method, sums[sums["method"] == method]) for method in found]
        columns = [f"{name}{end}" for name in _OVERLAPS for end in ("", "_low", "_high")]
        return pd.DataFrame(rows, columns=["method", "n", "n_images", *columns])

    def _pair(
        self, own: duckdb.DuckDBPyConnection, run: dict[str, Any], method_a: str, method_b: str, lemmas: Sequence[str]
    ) -> dict[str, Any]:
        self._require_methods(own, run, method_a, method_b)
        shape = {name: run[name] for name in ("run_id", "n_layers", "d_mlp")}
        return shape | {"a": method_a, "b": method_b, "lemmas": list(lemmas)}


def _summarised(method: str, images: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "n": int(images["n_iou"].sum()), "n_images": len(images)}
    for name in _OVERLAPS:
        means = mean_by_image(
            images[name].to_numpy(dtype=np.float64), images[f"n_{name}"].to_numpy(dtype=np.float64), RESAMPLES
        )
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), means, strict=True))
    return row


def mean_by_image(
    sums: Float[np.ndarray, " images"], counts: Float[np.ndarray, " images"], n_resamples: int
) -> tuple[float, float, float]:
    """The mean of all rows and its 95 % interval, from each picture's sum and number of rows.

    Pictures are drawn with replacement, as many as there are; a draw without any row has no mean and is left out.
    """
    if not counts.sum():
        return (float("nan"),) * 3
    draws = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=n_resamples)
    drawn = draws @ counts
    means = (draws @ sums)[drawn > 0] / drawn[drawn > 0]
    low, high = np.percentile(means, INTERVAL)
    return float(sums.sum() / counts.sum()), float(low), float(high)
