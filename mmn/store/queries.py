"""Questions about runs: a cursor and values in, a data frame out, nothing left open."""

from __future__ import annotations

import json
from typing import Any, Final

import duckdb
import pandas as pd

from mmn.errors import RunNotFoundError, UsageError
from mmn.names import METHODS
from mmn.store.migrations import PUBLIC_TABLES

LATEST: Final = "latest"

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

_SHARED = """
    WITH first AS (SELECT DISTINCT image_id FROM image WHERE run_id = $first),
    second AS (SELECT DISTINCT image_id FROM image WHERE run_id = $second)
    SELECT (SELECT count(*) FROM first), (SELECT count(*) FROM second),
        (SELECT count(*) FROM first SEMI JOIN second USING (image_id))
"""


def runs(cursor: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """Returns one row per run, newest first: the columns of `run`, then n_images, n_failed, n_concepts, n_scores."""
    return cursor.sql(_RUNS).df()


def find_run(cursor: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    """Returns the row of the run called `run_id`, begun by it, or newest for the word `latest`.

    Raises:
        RunNotFoundError: none, or more than one.
    """
    rows = cursor.sql("SELECT * FROM run ORDER BY created_at DESC, run_id")
    names, found = rows.columns, [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    assert names[0] == "run_id"
    matching = found[:1] if run_id == LATEST else [r for r in found if run_id and r["run_id"].startswith(run_id)]
    matching = [r for r in matching if r["run_id"] == run_id] or matching
    if len(matching) == 1:
        row = matching[0]
        return row | {name: json.loads(row[name] or "{}") for name in ("settings", "versions", "proof")}
    if not found:
        raise RunNotFoundError(f"no run {run_id!r}: the cache holds none yet; make one with mmn score")
    raise RunNotFoundError(
        f"{'no run' if not matching else 'more than one run begins with'} {run_id!r}; there are: "
        + ", ".join(r["run_id"] for r in (matching or found)[:20])
    )


def table(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], name: str) -> pd.DataFrame:
    """Returns all rows of a public table that belong to the run, in a stable order.

    Raises:
        UsageError: no such table.
    """
    if name not in PUBLIC_TABLES:
        raise UsageError(f"no table {name!r}; the tables are {', '.join(PUBLIC_TABLES)}")
    key = "model_fingerprint" if name == "neuron" else "run_id"
    rows = f"SELECT * FROM {name} WHERE {key} = $key ORDER BY ALL"  # noqa: S608 - names are our own
    return cursor.sql(rows, params={"key": run[key]}).df()


def has_rows(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], name: str, kind: str) -> bool:
    """Whether a public table has rows of a run, of a kind if one is given."""
    _require_table(name)
    of_kind = "AND kind = $kind" if kind else ""
    question = f"SELECT 1 FROM {name} WHERE run_id = $run_id {of_kind} LIMIT 1"  # noqa: S608 - names are our own
    values = {"run_id": run["run_id"]} | ({"kind": kind} if kind else {})
    return cursor.execute(question, values).fetchone() is not None


def _require_table(name: str) -> None:
    if name not in PUBLIC_TABLES:
        raise UsageError(f"no table {name!r}; the tables are {', '.join(PUBLIC_TABLES)}")


def concepts(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], variant: str) -> pd.DataFrame:
    """Returns one row per lemma said in the captions of a variant, most frequent first."""
    return cursor.sql(_CONCEPTS, params={"run_id": run["run_id"], "variant": variant}).df()


def score_methods(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> list[str]:
    """Returns the methods with scores in the run, in the order of `names.METHODS`."""
    found = cursor.execute("SELECT DISTINCT method FROM score WHERE run_id = ?", [run["run_id"]]).fetchall()
    order = list(METHODS)
    return sorted((m for (m,) in found), key=lambda m: (order.index(m) if m in order else len(order), m))


def run_rows(cursor: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """Returns the table `run`, to be compared with what it was."""
    return cursor.execute("SELECT * FROM run ORDER BY run_id").fetchall()


def summary(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> dict[str, Any]:
    """Returns the counts of a run, and the largest |residual| / max(|logit|, 1), None without concepts."""
    rows = cursor.sql(_SUMMARY, params={"run_id": run["run_id"]})
    return dict(zip(rows.columns, rows.fetchall()[0], strict=True))


def shared_pictures(
    cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], other: dict[str, Any]
) -> tuple[int, int, int]:
    """Returns how many pictures the run has, how many the other, and how many are the same by their fingerprints."""
    [counts] = cursor.execute(_SHARED, {"first": run["run_id"], "second": other["run_id"]}).fetchall()
    return counts
