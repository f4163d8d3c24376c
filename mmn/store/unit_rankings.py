"""The units that a score ranks highest over a run's pictures, for all nouns or one, as a set to be kept (`units.sets`).

    in how many pictures a unit is among the top 100 of the chosen nouns, then its mean rank there

As the units of a class of pictures are found (`studies.selectivity`, after P1); with one picture it is its ranking.
"""

from __future__ import annotations

from typing import Any, Final

from mmn.core import ModelFacts, Neuron
from mmn.errors import UsageError
from mmn.names import default_method
from mmn.store.rankings import d_experts
from mmn.store.reader import Reader
from mmn.store.store import Store
from mmn.units.sets import Shape, UnitSet

TOP: Final = 100

_RANKED: Final = """
    SELECT layer::INTEGER AS layer, unit, count(DISTINCT image_id) AS n, avg(rank) AS mean_rank, avg(score) AS score
    FROM score JOIN (
        SELECT image_id, noun FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL AND ($lemma = '' OR lemma = $lemma)
    ) USING (image_id, noun)
    WHERE run_id = $run_id AND variant = 'original' AND method = $method AND rank BETWEEN 1 AND $top
        AND ($layer IS NULL OR layer = $layer)
    GROUP BY layer, unit ORDER BY n DESC, mean_rank, layer, unit LIMIT $k
"""


class UnitRankingQueries(Reader):
    """Which units lead the rankings of many pictures?"""

    def leading(self, run_id: str, method: str, k: int, lemma: str = "", layer: int | None = None) -> Any:
        """Returns the first k units: layer, unit, n (pictures), mean_rank, score (mean), best first.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such score in the run.
        """
        with self._of_run(run_id) as (cursor, run):
            self._require_methods(cursor, run, method)
            values = {"run_id": run["run_id"], "method": method, "lemma": lemma, "layer": layer, "k": k, "top": TOP}
            return cursor.sql(_RANKED, params=values).df()


def ranked_set(
    store: Store, run_id: str, name: str, method: str = "", k: int = 20, lemma: str = "", layer: int | None = None
) -> UnitSet:
    """The first k units of a run's rankings by a score, as a set of its model.

    Raises:
        RunNotFoundError: no such run.
        UsageError: no such score, or nothing that is ranked for this noun or in this layer.
    """
    run = store.run(run_id)
    store.require_nouns(run_id)
    method = method or default_method(store.score_methods(run_id))
    rows = store.ask(UnitRankingQueries).leading(run_id, method, k, lemma, layer)
    if rows.empty:
        what = f" for {lemma!r}" if lemma else ""
        where = "" if layer is None else f" in layer {layer}"
        raise UsageError(f"run {run_id} ranks no unit by {method}{what}{where}: choose another noun, score or layer")
    origin = {"method": method, "k": str(len(rows)), "run": str(run["run_id"])}
    origin |= {"noun": lemma} if lemma else {}
    origin |= {} if layer is None else {"filter": f"layer {layer}"}
    return set_of_rows(run, name, rows, origin)


def set_of_rows(run: dict[str, Any], name: str, rows: Any, origin: dict[str, str]) -> UnitSet:
    """Rows of a ranking (layer, unit, score), best first, as a set of the run's model."""
    units = tuple(Neuron(int(one.layer), int(one.unit)) for one in rows.itertuples())
    scores = tuple(float(one.score) for one in rows.itertuples())
    facts = facts_of(run)
    return UnitSet(name, units, scores, facts.name, facts.fingerprint, Shape.of(facts), origin)


def facts_of(run: dict[str, Any]) -> ModelFacts:
    """What a run's row says of its model."""
    shape = (int(run["n_layers"]), int(run["d_mlp"]))
    experts = tuple(int(one) for one in d_experts(run))
    return ModelFacts(run["model"], run["model_fingerprint"], run["family"], *shape, d_experts=experts)
