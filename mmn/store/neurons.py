"""What does one unit do over all pictures of a run? Its words, its strongest pictures and nouns, how general it is.

A concept is a noun of a picture's own caption; words that the user chose are left out, and so are suppressors. A unit
counts for a concept where its ranking stored it, which is among the run's `top_k`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
from jaxtyping import Float

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.models.geometry import Grids, serialise
from mmn.names import CENTRED, COSINE, RAW
from mmn.store.generality import generality_k
from mmn.store.rankings import chance_of
from mmn.store.reader import Reader, require_k

_NOUNS: Final = """
    SELECT image_id, noun, lemma, 1.0 / count(*) OVER (PARTITION BY lemma) AS weight FROM concept
    WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
"""
_SCORES: Final = f"""
    SELECT image_id, noun, lemma, weight, method, rank, score, activation FROM (
        SELECT image_id, noun, method, rank, score, activation FROM score
        WHERE layer = $layer AND unit = $unit AND run_id = $run_id AND variant = 'original' AND rank >= 1
    ) JOIN ({_NOUNS}) USING (image_id, noun)
"""  # noqa: S608 - no user's words

_NEURON: Final = """
    SELECT tokens::VARCHAR[] AS tokens, logits::FLOAT[] AS logits, is_interpretable, mean_logit,
        cosine_tokens::VARCHAR[] AS cosine_tokens, cosines::FLOAT[] AS cosines, is_cosine_interpretable
    FROM neuron WHERE model_fingerprint = $fingerprint AND layer = $layer AND unit = $unit
"""

_DECODED: Final = """
    SELECT 1 FROM (SELECT layer, unit FROM score WHERE run_id = $run_id AND rank = 1)
    SEMI JOIN (SELECT layer, unit FROM neuron WHERE model_fingerprint = $fingerprint) USING (layer, unit) LIMIT 1
"""

_PICTURES: Final = f"""
    WITH strongest AS (
        SELECT image_id, noun, rank, score, activation FROM ({_SCORES}) WHERE method = $method
        ORDER BY score DESC, rank, image_id, noun LIMIT $limit
    )
    SELECT image_id, source, noun, rank, score, activation, coalesce(text, '') AS text
    FROM strongest
    JOIN (SELECT image_id, source FROM image WHERE run_id = $run_id) USING (image_id)
    LEFT JOIN (SELECT image_id, text FROM caption WHERE run_id = $run_id AND variant = 'original') USING (image_id)
    ORDER BY score DESC, rank, image_id, noun
"""  # noqa: S608 - no user's words

_CONCEPTS: Final = f"""
    SELECT lemma, count(DISTINCT image_id) AS n_images, avg(score) AS mean_score, min(rank) AS best_rank
    FROM ({_SCORES}) WHERE method = $method AND rank <= $k
    GROUP BY lemma ORDER BY n_images DESC, mean_score DESC, lemma
"""  # noqa: S608 - no user's words

_RANKS: Final = f"""
    SELECT method, min(rank) AS best_rank, median(rank) AS median_rank, count(*) AS n_concepts_in_top,
        count(*) / (SELECT count(*) FROM ({_NOUNS})) AS share_of_concepts,
        coalesce(sum(weight) FILTER (rank <= $k), 0) / (SELECT count(DISTINCT lemma) FROM ({_NOUNS})) AS generality
    FROM ({_SCORES}) GROUP BY method ORDER BY best_rank, method
"""  # noqa: S608 - no user's words

_LOOKS: Final = """
    SELECT image_id, activations, grid, width, height
    FROM look JOIN grid USING (run_id, image_id) JOIN image USING (run_id, image_id)
    WHERE run_id = $run_id AND layer = $layer AND unit = $unit AND image_id IN (SELECT unnest($image_ids))
"""


@dataclass(frozen=True)
class WordColumns:
    """The columns of `neuron` that hold a unit's words by some rows of W_U."""

    tokens: str
    values: str
    flag: str


_BY_PRODUCTS: Final = WordColumns("tokens", "logits", "is_interpretable")
WORD_COLUMNS: Final[Mapping[str, WordColumns]] = {
    RAW: _BY_PRODUCTS,
    CENTRED: _BY_PRODUCTS,  # centring takes the same number from every token
    COSINE: WordColumns("cosine_tokens", "cosines", "is_cosine_interpretable"),
}


@dataclass(frozen=True)
class Words:
    """What a unit writes, by some rows of W_U: ten tokens, and `value` (logit, cosine) of each."""

    tokens: Sequence[str]
    value: str
    values: Sequence[float]
    is_interpretable: bool


def words_of(known: Mapping[str, Any], rows: str) -> Words | None:
    """A unit's words by rows of `names.WORD_ROWS`, of `NeuronQueries.neuron`; None where it is not decoded by them."""
    columns = WORD_COLUMNS[rows]
    tokens, values = known[columns.tokens], known[columns.values]
    if tokens is None or (rows == CENTRED and known["mean_logit"] is None):
        return None
    values = [value - known["mean_logit"] for value in values] if rows == CENTRED else values
    return Words(tokens, "cosine" if rows == COSINE else "logit", values, bool(known[columns.flag]))


@dataclass(frozen=True)
class UnitLook:
    """A unit's activation at each image token of a picture, and where those lie, in pixels of the file."""

    activations: Float[np.ndarray, " tokens"]
    grids: Grids
    size: tuple[int, int]  # width and height of the file


class NeuronQueries(Reader):
    """Questions about one unit of a run's model."""

    def neuron(self, run_id: str, neuron: Neuron) -> dict[str, Any]:
        """Returns layer, unit, and the other columns of `neuron` (what it writes), None where it is not decoded.

        `words_of` reads them by the rows that are meant.

        Raises:
            RunNotFoundError: no such run.
            UsageError: the run's model has no such unit.
        """
        with self._of_run(run_id) as (cursor, run):
            _require_unit(run, neuron)
            values = {"fingerprint": run["model_fingerprint"]} | _key(neuron)
            found = cursor.sql(_NEURON, params=values)
            names, rows = found.columns, found.fetchall()
        return _key(neuron) | dict(zip(names, rows[0] if rows else [None] * len(names), strict=True))

    def are_top_units_decoded(self, run_id: str) -> bool:
        """Whether a unit that is some noun's first is decoded: the run was annotated, or its model by another run.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            values = {"run_id": run["run_id"], "fingerprint": run["model_fingerprint"]}
            return bool(cursor.execute(_DECODED, values).fetchall())

    def pictures(self, run_id: str, neuron: Neuron, method: str, limit: int = 24) -> pd.DataFrame:
        """Returns the concepts that a unit scores highest for: image_id, source, noun, rank, score, activation, text.

        Strongest first; `text` is the caption. A picture has a row for each of its nouns.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such unit, no scores of that method.
        """
        with self._of_run(run_id) as (cursor, run):
            self._require_methods(cursor, run, method)
            return _ask(cursor, run, neuron, _PICTURES, method=method, limit=limit)

    def concepts(self, run_id: str, neuron: Neuron, method: str, k: int) -> pd.DataFrame:
        """Returns the nouns whose top k has a unit: lemma, n_images, mean_score (over those), best_rank.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such unit, no scores of that method, a k that is not stored.
        """
        with self._of_run(run_id) as (cursor, run):
            self._require_methods(cursor, run, method)
            require_k(run, k)
            return _ask(cursor, run, neuron, _CONCEPTS, method=method, k=k)

    def ranks(self, run_id: str, neuron: Neuron) -> pd.DataFrame:
        """Returns how each method ranks a unit: method, best_rank, median_rank, n_concepts_in_top, share_of_concepts,
        chance, generality.

        Ranks are over the concepts whose stored top k has the unit, of which there are n_concepts_in_top;
        share_of_concepts, of all concepts, stands beside chance: the top k over the units that the method ranks.
        generality is that of `store.generality`. A method that never has the unit has no row.

        Raises:
            RunNotFoundError: no such run.
            UsageError: the run's model has no such unit.
        """
        with self._of_run(run_id) as (cursor, run):
            found = _ask(cursor, run, neuron, _RANKS, k=generality_k(run))
        k = run["settings"]["top_k"]
        return found.assign(chance=[min(chance_of(run, k, [one]), 1.0) for one in found["method"]])

    def looks(self, run_id: str, neuron: Neuron, image_ids: Sequence[str]) -> dict[str, UnitLook]:
        """Returns where a unit looks in those of some pictures for which it is known, by image_id.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such unit.
        """
        with self._of_run(run_id) as (cursor, run):
            rows = _ask(cursor, run, neuron, _LOOKS, image_ids=list(image_ids))
        return {
            row.image_id: UnitLook(row.activations, serialise.from_json(row.grid), (row.width, row.height))
            for row in rows.itertuples()
        }


def _ask(
    cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], neuron: Neuron, sql: str, **values: Any
) -> pd.DataFrame:
    _require_unit(run, neuron)
    return cursor.sql(sql, params={"run_id": run["run_id"]} | _key(neuron) | values).df()


def _key(neuron: Neuron) -> dict[str, Any]:
    """As plain numbers: a unit that was read from a data frame has numpy's, which DuckDB does not take."""
    return {"layer": int(neuron.layer), "unit": int(neuron.unit)}


def _require_unit(run: dict[str, Any], neuron: Neuron) -> None:
    if not (0 <= neuron.layer < run["n_layers"] and 0 <= neuron.unit < run["d_mlp"]):
        raise UsageError(
            f"the model {run['model']} has no unit {neuron}: its layers are 0–{run['n_layers'] - 1}, "
            f"its units 0–{run['d_mlp'] - 1}"
        )
