"""What do the tables say? One function per question: a cursor and values in, a data frame out, nothing left open."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import duckdb
import pandas as pd

from mmn.errors import RunNotFoundError, UsageError
from mmn.names import METHODS, ORIGINAL
from mmn.store.cells import checked_layers
from mmn.store.migrations import PUBLIC_TABLES

LATEST: Final = "latest"
MAX_UNIT_ROWS: Final = 500

_RUNS = """
    SELECT run.*, coalesce(n_images, 0) AS n_images, coalesce(n_failed, 0) AS n_failed,
        coalesce(n_concepts, 0) AS n_concepts, coalesce(n_scores, 0) AS n_scores
    FROM run
    LEFT JOIN (SELECT run_id, count(*) AS n_images FROM image GROUP BY run_id) USING (run_id)
    LEFT JOIN (SELECT run_id, count(*) AS n_failed FROM failure GROUP BY run_id) USING (run_id)
    LEFT JOIN (
        SELECT run_id, count_if(variant = 'original')::BIGINT AS n_concepts FROM concept GROUP BY run_id
    ) USING (run_id)
    LEFT JOIN (SELECT run_id, count(*) AS n_scores FROM score GROUP BY run_id) USING (run_id)
    ORDER BY created_at DESC, run_id
"""

# Ranks to count by: of the whole image, or of the caption nouns with the lemmas asked for.
_IMAGE_RANKS = """
    SELECT image_id, method, layer, unit, rank, score, 1::DOUBLE AS weight FROM image_rank
    WHERE run_id = $run_id AND variant = $variant AND method IN (SELECT unnest($methods)) AND rank <= $max_k
"""
_LEMMA_RANKS = """
    SELECT image_id, method, layer, unit, rank, score, weight FROM score
    JOIN (
        SELECT image_id, noun, 1.0 / count(*) OVER (PARTITION BY image_id) AS weight FROM concept
        WHERE run_id = $run_id AND variant = $variant AND target_at IS NULL AND lemma IN (SELECT unnest($lemmas))
    ) USING (image_id, noun)
    WHERE run_id = $run_id AND variant = $variant AND method IN (SELECT unnest($methods)) AND rank BETWEEN 1 AND $max_k
"""

# A unit is among the top k of some image exactly when its best rank over the images is at most k. The mean over images
# needs no unit's name, only how many of each rank lie in a layer; every image weighs 1, by all its rankings together.
_LAYER_DISTRIBUTION = """
    WITH ranks AS ({ranks}),
    meant AS (SELECT * FROM ranks {decoded}),
    best AS (SELECT method, layer, unit, min(rank) AS rank FROM meant GROUP BY method, layer, unit),
    sizes AS (SELECT unnest($ks)::INTEGER AS k),
    counted AS (
        SELECT method, k, layer, count(*) AS n_units FROM best JOIN sizes ON rank <= k GROUP BY method, k, layer
    ),
    placed AS (SELECT method, layer, rank, sum(weight) AS n FROM meant GROUP BY method, layer, rank),
    summed AS (
        SELECT method, k, layer, sum(n) AS n_places FROM placed JOIN sizes ON rank <= k GROUP BY method, k, layer
    ),
    pictures AS (SELECT method, sum(weight) AS n_images FROM ranks WHERE rank = 1 GROUP BY method),
    grid AS (
        SELECT method, k, layer FROM (SELECT unnest($methods)::VARCHAR AS method),
            sizes, (SELECT unnest(range($n_layers))::INTEGER AS layer)
    ),
    shared AS (
        SELECT method, k, layer, coalesce(n_units, 0) AS n_units,
            coalesce(n_units, 0) / sum(n_units) OVER (PARTITION BY method, k) AS share,
            coalesce(n_places, 0) / n_images AS mean_units, round(n_images)::INTEGER AS n_images
        FROM grid LEFT JOIN counted USING (method, k, layer) LEFT JOIN summed USING (method, k, layer)
            LEFT JOIN pictures USING (method)
    )
    SELECT method, k, layer, n_units, share, mean_units, n_images FROM shared
    ORDER BY list_position($methods, method), list_position($ks, k), layer
"""

_DECODED = """SEMI JOIN (
    SELECT layer, unit FROM neuron WHERE model_fingerprint = $fingerprint AND is_interpretable = $interpretable
) USING (layer, unit)"""

_LAYER_COUNTS_PER_IMAGE = """
    WITH ranks AS ({ranks})
    SELECT image_id, layer::INTEGER AS layer, count(DISTINCT unit) AS n_units FROM ranks
    GROUP BY image_id, layer ORDER BY image_id, layer
"""

_UNIT_ROWS = """
    WITH ranks AS ({ranks}),
    per_image AS (
        SELECT image_id, layer, unit, max(score) AS score, min(rank) AS rank
        FROM ranks WHERE $layer IS NULL OR layer = $layer GROUP BY image_id, layer, unit
    ),
    best AS (
        SELECT layer, unit, count(*) AS n_images, avg(score) AS mean_score, max(score)::DOUBLE AS max_score,
            min(rank) AS best_rank
        FROM per_image GROUP BY layer, unit
        ORDER BY best_rank, n_images DESC, max_score DESC, layer, unit LIMIT $limit
    ),
    their_scores AS (
        SELECT image_id, noun, layer, unit FROM score
        SEMI JOIN best USING (layer, unit)
        WHERE run_id = $run_id AND variant = $variant AND method IN (SELECT unnest($methods))
            AND rank BETWEEN 1 AND $max_k
    ),
    named AS (
        SELECT layer, unit, count(DISTINCT lemma) AS n_concepts
        FROM their_scores JOIN (
            SELECT image_id, noun, lemma FROM concept
            WHERE run_id = $run_id AND variant = $variant AND target_at IS NULL
                AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))
        ) USING (image_id, noun)
        GROUP BY layer, unit
    )
    SELECT layer::INTEGER AS layer, unit, n_images, n_concepts, mean_score, max_score, best_rank
    FROM best JOIN named USING (layer, unit)
    ORDER BY best_rank, n_images DESC, max_score DESC, layer, unit
"""

_CONCEPTS = """
    SELECT lemma, count(DISTINCT image_id) AS n_images, sum(n_mentions)::BIGINT AS n_mentions, avg(prob) AS mean_prob,
        count(*) FILTER (is_first) AS n_first, count(*) FILTER (is_multi_token) AS n_multi_token,
        count(*) FILTER (is_shared_token) AS n_shared_token, count(*) FILTER (is_in_reference) AS n_in_reference,
        count(is_in_reference) AS n_with_reference
    FROM concept WHERE run_id = $run_id AND variant = $variant AND target_at IS NULL
    GROUP BY lemma ORDER BY n_images DESC, lemma
"""

_SUMMARY = """
    SELECT
        (SELECT count(*) FROM image WHERE run_id = $run_id) AS n_images,
        (SELECT count(*) FROM failure WHERE run_id = $run_id) AS n_failed,
        (SELECT count_if(variant = 'original')::BIGINT FROM concept WHERE run_id = $run_id) AS n_concepts,
        (SELECT count(*) FROM score WHERE run_id = $run_id) AS n_scores,
        (SELECT max(abs(residual) / greatest(abs(logit), 1)) FROM concept WHERE run_id = $run_id) AS max_residual
"""


def runs(own: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """Returns one row per run, newest first: the columns of `run`, then n_images, n_failed, n_concepts, n_scores."""
    return own.sql(_RUNS).df()


def find_run(own: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    """Returns the row of the run called `run_id`, begun by it, or newest for the word `latest`.

    Raises:
        RunNotFoundError: none, or more than one.
    """
    rows = own.sql("SELECT * FROM run ORDER BY created_at DESC, run_id")
    names, found = rows.columns, [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    assert names[0] == "run_id"
    matching = found[:1] if run_id == LATEST else [r for r in found if run_id and r["run_id"].startswith(run_id)]
    matching = [r for r in matching if r["run_id"] == run_id] or matching
    if len(matching) == 1:
        row = matching[0]
        return row | {"settings": json.loads(row["settings"]), "versions": json.loads(row["versions"])}
    if not found:
        raise RunNotFoundError(f"no run {run_id!r}: the cache holds none yet; make one with `mmn score`")
    raise RunNotFoundError(
        f"{'no run' if not matching else 'more than one run begins with'} {run_id!r}; there are: "
        + ", ".join(r["run_id"] for r in (matching or found)[:20])
    )


def table(own: duckdb.DuckDBPyConnection, run: dict[str, Any], name: str) -> pd.DataFrame:
    """Returns all rows of a public table that belong to the run, in a stable order.

    Raises:
        UsageError: no such table.
    """
    if name not in PUBLIC_TABLES:
        raise UsageError(f"no table {name!r}; the tables are {', '.join(PUBLIC_TABLES)}")
    key = "model_fingerprint" if name == "neuron" else "run_id"
    rows = f"SELECT * FROM {name} WHERE {key} = $key ORDER BY ALL"  # noqa: S608 - names are our own
    return own.sql(rows, params={"key": run[key]}).df()


def concepts(own: duckdb.DuckDBPyConnection, run: dict[str, Any], variant: str) -> pd.DataFrame:
    """Returns one row per lemma said in the captions of a variant, most frequent first."""
    return own.sql(_CONCEPTS, params={"run_id": run["run_id"], "variant": variant}).df()


def score_methods(own: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> list[str]:
    """Returns the methods with scores in the run, in the order of `names.METHODS`."""
    found = own.execute("SELECT DISTINCT method FROM score WHERE run_id = ?", [run["run_id"]]).fetchall()
    order = list(METHODS)
    return sorted((m for (m,) in found), key=lambda m: (order.index(m) if m in order else len(order), m))


def summary(own: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> dict[str, Any]:
    """Returns the counts of a run, and the largest |residual| / max(|logit|, 1), None without concepts."""
    rows = own.sql(_SUMMARY, params={"run_id": run["run_id"]})
    return dict(zip(rows.columns, rows.fetchall()[0], strict=True))


def layer_distribution(
    own: duckdb.DuckDBPyConnection,
    run: dict[str, Any],
    methods: Sequence[str],
    ks: Sequence[int],
    lemmas: Sequence[str] = (),
    layers: tuple[int, int] | None = None,
    variant: str = ORIGINAL,
    interpretable: bool | None = None,
) -> pd.DataFrame:
    """Returns how many units of each layer are on top: method, k, layer, n_units, share, mean_units, n_images.

    With `interpretable`, only those of them that are decoded and interpretable, or not; where there are none, shares
    are 0.

    Raises:
        UsageError: nothing to count for a method, lemma or variant; a k or layer that is not stored; no decoded units.
    """
    first, last = checked_layers(run, layers)
    values = _selection(run, methods, ks, lemmas, variant) | {
        "ks": list(dict.fromkeys(ks)),
        "n_layers": run["n_layers"],
    }
    if interpretable is not None:
        _require_decoded(own, run)
        values |= {"fingerprint": run["model_fingerprint"], "interpretable": interpretable}
    counted = _ask(own, _LAYER_DISTRIBUTION, values)
    if interpretable is not None and counted["share"].isna().any():
        layer_distribution(own, run, methods, ks, lemmas, layers, variant)  # raises if there is nothing to filter
        counted["share"] = counted["share"].fillna(0.0)
    for method in counted.loc[counted["share"].isna(), "method"]:
        raise _nothing(own, run, method, values)
    return counted[counted["layer"].between(first, last)].reset_index(drop=True)


def layer_counts_per_image(
    own: duckdb.DuckDBPyConnection,
    run: dict[str, Any],
    method: str,
    k: int,
    lemmas: Sequence[str] = (),
    variant: str = ORIGINAL,
) -> pd.DataFrame:
    """Returns how many of each image's top k lie in each layer: image_id, layer, n_units; layers without are left out.

    Raises:
        UsageError: nothing to count for the method, lemma or variant; a k that is not stored.
    """
    values = _selection(run, [method], [k], lemmas, variant)
    counted = _ask(own, _LAYER_COUNTS_PER_IMAGE, values)
    if not len(counted):
        raise _nothing(own, run, method, values)
    return counted


def unit_rows(
    own: duckdb.DuckDBPyConnection,
    run: dict[str, Any],
    method: str,
    k: int,
    layer: int | None = None,
    lemmas: Sequence[str] = (),
    variant: str = ORIGINAL,
) -> pd.DataFrame:
    """Returns the units among the top k of some image, best rank first, at most `MAX_UNIT_ROWS`.

    Columns: layer, unit, n_images (images that have the unit in their top k), n_concepts (lemmas whose own top k has
    it), mean_score and max_score over those images, best_rank.

    Raises:
        UsageError: nothing to count for the method, lemma or variant; a k or layer that is not stored.
    """
    checked_layers(run, None if layer is None else (layer, layer))
    values = _selection(run, [method], [k], lemmas, variant) | {"layer": layer, "limit": MAX_UNIT_ROWS}
    rows = _ask(own, _UNIT_ROWS, values)
    if not len(rows) and not len(_ask(own, _LAYER_COUNTS_PER_IMAGE, values)):
        raise _nothing(own, run, method, values)
    return rows


def _selection(
    run: dict[str, Any], methods: Sequence[str], ks: Sequence[int], lemmas: Sequence[str], variant: str
) -> dict[str, Any]:
    stored = min(run["settings"]["top_k"], run["n_layers"] * run["d_mlp"])
    for k in ks:
        if not 1 <= k <= stored:
            raise UsageError(f"k = {k} is not in 1 … {stored}, the units per noun that this run stored (its --top-k)")
    if not methods or not ks:
        raise UsageError("choose at least one method and one k")
    return {
        "run_id": run["run_id"],
        "variant": variant,
        "methods": list(dict.fromkeys(methods)),
        "lemmas": list(dict.fromkeys(lemmas)),
        "max_k": max(ks),
    }


def _ask(own: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]) -> pd.DataFrame:
    """Returns the answer to a question about ranks, giving it those of `values` that it names."""
    decoded = _DECODED if "interpretable" in values else ""
    sql = sql.format(ranks=_LEMMA_RANKS if values["lemmas"] else _IMAGE_RANKS, decoded=decoded)
    named = set(re.findall(r"\$(\w+)", sql))
    return own.sql(sql, params={name: value for name, value in values.items() if name in named}).df()


def _require_decoded(own: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> None:
    fingerprint = [run["model_fingerprint"]]
    if not own.execute("SELECT 1 FROM neuron WHERE model_fingerprint = ? LIMIT 1", fingerprint).fetchall():
        raise UsageError(
            f"no unit of {run['model']} is decoded, so none is known to be interpretable: "
            f"run `mmn annotate {run['run_id']}`"
        )


def _nothing(own: duckdb.DuckDBPyConnection, run: dict[str, Any], method: str, values: dict[str, Any]) -> UsageError:
    wanted = f"variant {values['variant']!r}" + (f" and the nouns {values['lemmas']}" if values["lemmas"] else "")
    there = ", ".join(score_methods(own, run)) or "none"
    return UsageError(f"run {run['run_id']} has no {method!r} scores for {wanted}; its methods are: {there}")
