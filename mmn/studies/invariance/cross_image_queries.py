"""Do the same units write a noun in several pictures of it? (P2, figure 4; arXiv 2311.07470)

The ratio is averaged over draws of pictures; beside it stands what random units in the same layers have in common. Both
are sums over layers, so a filter by layer shows a part of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import pandas as pd

from mmn.errors import UsageError
from mmn.names import CROSS_IMAGE
from mmn.statistics.many_tests import at_least_by_chance, marked
from mmn.store.cells import checked_layers, distinct
from mmn.store.reader import Reader
from mmn.studies.invariance.queries import Layers, nothing_measured

_DRAWS: Final = """
    draws AS (
        SELECT noun, draw, n, ratio, floor_random FROM invariance
        WHERE run_id = $run_id AND kind = 'cross-image' AND method = $method AND k = $k AND n = $n
            AND (len($lemmas) = 0 OR noun IN (SELECT unnest($lemmas)))
    ),
    by_layer AS (
        SELECT noun, draw, layer, n_shared, n_random FROM shared_layer SEMI JOIN draws USING (noun, draw)
        WHERE run_id = $run_id AND method = $method AND k = $k AND n = $n
    )
"""

_CROSS_IMAGE: Final = f"""
    WITH {_DRAWS}, shares AS ({{shares}})
    SELECT noun, avg(ratio) AS ratio,
        CASE WHEN count(*) > 1 THEN min(ratio) END AS ratio_low,
        CASE WHEN count(*) > 1 THEN max(ratio) END AS ratio_high,
        avg(floor_random) AS floor_random, count(*) AS n_draws, any_value(n) AS n
    FROM shares GROUP BY noun ORDER BY ratio DESC, noun
"""  # noqa: S608 - no user's words

# What of a draw's shared units lies in some layers; nothing where its pictures have no top units of one layer there.
_IN_LAYERS: Final = """
    SELECT noun, n, coalesce(n_shared, 0) / $k AS ratio, coalesce(n_random, 0) / $k AS floor_random
    FROM draws LEFT JOIN (
        SELECT noun, draw, sum(n_shared) AS n_shared, sum(n_random) AS n_random FROM by_layer
        WHERE layer BETWEEN $first_layer AND $last_layer GROUP BY noun, draw
    ) USING (noun, draw)
"""

_SHARED_BY_LAYER: Final = f"""
    WITH {_DRAWS},
    cells AS (SELECT noun, draw, layer FROM draws, (SELECT unnest(range($n_layers)) AS layer)),
    by_noun AS (
        SELECT layer, noun, avg(coalesce(n_shared, 0)) / $k AS share, avg(coalesce(n_random, 0)) / $k AS floor_random
        FROM cells LEFT JOIN by_layer USING (noun, draw, layer) GROUP BY layer, noun
    )
    SELECT layer::INTEGER AS layer, avg(share) AS share, avg(floor_random) AS floor_random, count(*) AS n_concepts
    FROM by_noun GROUP BY layer ORDER BY layer
"""  # noqa: S608 - no user's words

# Units that chance would share lie in some layer: a draw without rows there was counted before these were kept.
_WITHOUT_LAYERS: Final = f"""
    WITH {_DRAWS} SELECT count(*) FROM draws ANTI JOIN by_layer USING (noun, draw) WHERE floor_random > 0
"""  # noqa: S608 - no user's words


class CrossImageQueries(Reader):
    """Questions about units that several pictures of a concept share."""

    def by_concept(
        self, run_id: str, method: str, k: int, n: int, lemmas: Sequence[str] = (), layers: Layers = None
    ) -> pd.DataFrame:
        """Returns the share of the top k units that n pictures of a concept have in common, the largest first.

        Columns: noun (a lemma), ratio (mean over draws) with ratio_low and ratio_high (the lowest and the highest draw:
        how much the choice of pictures matters, no interval of confidence, since draws have pictures in common; NaN
        for a single draw), floor_random (random units in the same layers), n_draws (that this concept has), n; `p` of
        sharing as much by chance (`many_tests.at_least_by_chance`), and `is_discovery`, whether it survives among these
        concepts. With `layers`, first and last, both ratios count the units there alone, still over k: those of all
        layers add up to the whole.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured, or not by layer; layers that the model does not have.
        """
        asked = {"method": method, "k": k, "n": n, "lemmas": distinct(lemmas)}
        with self._of_run(run_id) as (cursor, run):
            values = asked | {"run_id": run["run_id"]}
            shares = "FROM draws"
            if layers is not None:
                _assert_by_layer(cursor, run, values)
                first, last = checked_layers(run, layers)
                shares, values = _IN_LAYERS, values | {"first_layer": first, "last_layer": last}
            found = cursor.sql(_CROSS_IMAGE.format(shares=shares), params=values).df()
        if found.empty:
            raise nothing_measured(run, CROSS_IMAGE, [method], lemmas)
        return marked(found, at_least_by_chance(found["ratio"].to_numpy(), found["floor_random"].to_numpy()))

    def by_layer(self, run_id: str, method: str, k: int, n: int, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns where the top k units lie that n pictures of a concept have in common: one row per layer.

        Columns: layer, share (of k; mean over draws, then concepts: it adds up to the mean ratio), floor_random (random
        units in the same layers), n_concepts.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured, or not by layer.
        """
        asked = {"method": method, "k": k, "n": n, "lemmas": distinct(lemmas)}
        with self._of_run(run_id) as (cursor, run):
            values = asked | {"run_id": run["run_id"]}
            _assert_by_layer(cursor, run, values)
            found = cursor.sql(_SHARED_BY_LAYER, params=values | {"n_layers": run["n_layers"]}).df()
        if found.empty:
            raise nothing_measured(run, CROSS_IMAGE, [method], lemmas)
        return found


def _assert_by_layer(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], values: dict[str, Any]) -> None:
    """Raises UsageError where an earlier version counted the draws, which did not store the layers of shared units."""
    [(n_without,)] = cursor.execute(_WITHOUT_LAYERS, values).fetchall()
    if n_without:
        raise UsageError(
            f"the shared units of run {run['run_id']} were counted before their layers were kept: "
            f"count them again with mmn invariance {run['run_id']} --kind {CROSS_IMAGE}"
        )
