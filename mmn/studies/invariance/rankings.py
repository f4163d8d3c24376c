"""The stored rankings of a run's nouns, and how many of their top k units several of them share.

Both measurements of invariance (`region`, `cross_image`) compare rankings so: |A ∩ B| / k against k, where no k reaches
beyond the run's top k. Only shards are read, without a model. Left out: words that the user chose, and suppressors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from mmn.core import Run
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.runs import shards
from mmn.studies.tables import TABLES

SHARES: Final = (0.001, 0.003, 0.01, 0.014, 0.03, 0.05, 0.1, 0.25)  # of all units (METHODS: k)
P2_K: Final = 100
RANKS_AT_ONCE: Final = 1 << 24  # numbers held while rankings are compared: pairs × L·m


@dataclass(frozen=True)
class Rankings:
    """Stored rankings of one method: `units[i]` are those of `keys[i]`, (picture, noun); flat indices, best first.

    In a mixture of experts one may hold fewer than the next, those of the experts that its tokens woke: -1 behind them.
    """

    keys: tuple[tuple[str, str], ...]
    units: Int[np.ndarray, "n K"]

    def of(self, wanted: Sequence[tuple[str, str]]) -> Int[np.ndarray, "wanted K"]:
        place = {key: number for number, key in enumerate(self.keys)}
        return self.units[[place[key] for key in wanted]]


@dataclass(frozen=True)
class CaptionNoun:
    """A noun of a caption."""

    image_id: str
    lemma: str
    noun: str


def usual_ks(run: Run) -> tuple[int, ...]:
    """The default grid: METHODS' shares of all units and P2's 100, as far as the run keeps them."""
    most = most_units(run)
    usual = {P2_K, *(max(1, round(share * run.model.n_units)) for share in SHARES)}
    return tuple(sorted(k for k in usual if k <= most)) or (most,)


def most_units(run: Run) -> int:
    """How far the stored rankings reach."""
    return min(run.settings.top_k, run.model.n_units)


def checked_ks(run: Run, ks: Sequence[int] | None) -> tuple[int, ...]:
    """`ks` in order, or the default grid. Of experts fewer may be awake: then a noun has no row for such a k.

    Raises:
        UsageError: none, one below 1, or one that the run's rankings do not reach.
    """
    chosen = tuple(sorted(set(usual_ks(run) if ks is None else ks)))
    for k in chosen or (0,):
        if not 1 <= k <= most_units(run):
            raise UsageError(
                f"k = {k}: run {run.run_id} keeps the top {counted(most_units(run), 'unit')} of each noun, so "
                "k is 1 to that; "
                "score with a larger --top-k to go further"
            )
    return chosen


def checked_methods(run: Run, methods: Sequence[str] | None, stored: Sequence[str]) -> tuple[str, ...]:
    """`methods` if the run has them, or all that are `stored`.

    Raises:
        UsageError: one that it does not have.
    """
    for method in methods or ():
        if method not in stored:
            raise UsageError(f"run {run.run_id} has no {method!r} rankings here; there are: {', '.join(stored)}")
    return tuple(dict.fromkeys(methods)) if methods is not None else tuple(stored)


def caption_nouns(shard_path: Path, variant: str) -> list[CaptionNoun]:
    """The nouns of a shard's captions of one variant, without the words that the user chose."""
    if "concept" not in shards.row_counts(shard_path):
        return []
    rows = shards.read_columns(shard_path, "concept", ["image_id", "variant", "lemma", "noun", "target_at"])
    rows = rows.filter(pc.and_(pc.equal(rows["variant"], variant), pc.is_null(rows["target_at"])))
    return [CaptionNoun(row["image_id"], row["lemma"], row["noun"]) for row in rows.to_pylist()]


def stored_rankings(
    shard_path: Path, variant: str, methods: Collection[str], d_mlp: int, image_ids: Collection[str] | None = None
) -> dict[str, Rankings]:
    """The top units of every noun of a shard, by method; of `image_ids` alone, where given."""
    if "score" not in shards.row_counts(shard_path):
        return {}
    columns = ["image_id", "variant", "noun", "method", "rank", "layer", "unit"]
    scores = shards.read_columns(shard_path, "score", columns)
    is_meant = pc.and_(pc.equal(scores["variant"], variant), pc.greater_equal(scores["rank"], 1))
    if image_ids is not None:
        is_meant = pc.and_(is_meant, pc.is_in(scores["image_id"], pa.array(sorted(image_ids), pa.string())))
    found = {}
    for method in methods:
        rows = scores.filter(pc.and_(is_meant, pc.equal(scores["method"], method)))
        if len(rows):
            found[method] = _rankings(rows, d_mlp)
    return found


def _rankings(rows: pa.Table, d_mlp: int) -> Rankings:
    """Puts every row in its place, by picture, noun and rank; the rows may be in any order."""
    image, images = _coded(rows["image_id"])
    noun, nouns = _coded(rows["noun"])
    key, number = np.unique(image.astype(np.int64) * len(nouns) + noun, return_inverse=True)
    rank = rows["rank"].to_numpy()
    units = np.full((len(key), int(rank.max())), -1, np.int64)
    units[number, rank - 1] = rows["layer"].to_numpy().astype(np.int64) * d_mlp + rows["unit"].to_numpy()
    is_missing = units < 0
    assert not (is_missing[:, :-1] & ~is_missing[:, 1:]).any(), f"a ranking of {units.shape[1]} units has holes"
    return Rankings(tuple((images[one // len(nouns)], nouns[one % len(nouns)]) for one in key.tolist()), units)


def _coded(column: pa.ChunkedArray) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """The column's text as numbers, and what they stand for."""
    is_coded = pa.types.is_dictionary(column.type)
    coded = (column.unify_dictionaries() if is_coded else column.dictionary_encode()).combine_chunks()
    texts = coded.dictionary.to_pylist()
    distinct = sorted(set(texts))  # a stored dictionary may name a text twice
    place = {text: number for number, text in enumerate(distinct)}
    return np.array([place[text] for text in texts], np.int64)[coded.indices.to_numpy()], distinct


def shared_units(
    first: Int[np.ndarray, "pairs K"], second: Int[np.ndarray, "pairs K"], ks: Sequence[int], n_units: int
) -> Int[np.ndarray, "pairs ks"]:
    """|A ∩ B| of the top k of each pair of rankings, for every k."""
    return common_units(np.stack([first, second], axis=1), ks, n_units)


def shares(
    first: Int[np.ndarray, "pairs K"], second: Int[np.ndarray, "pairs K2"], ks: Sequence[int], n_units: int
) -> Float[np.ndarray, "pairs ks"]:
    """|A ∩ B| / k of the top k of each pair of rankings, for every k; NaN where one of both is shorter."""
    width = max(first.shape[1], second.shape[1])
    first, second = (
        np.pad(units, ((0, 0), (0, width - units.shape[1])), constant_values=-1) for units in (first, second)
    )
    length = np.minimum((first >= 0).sum(axis=1), (second >= 0).sum(axis=1))
    found = shared_units(first, second, [min(k, width) for k in ks], n_units) / np.array(ks)
    return np.where(length[:, None] >= np.array(ks), found, np.nan)


def common_units(ranked: Int[np.ndarray, "sets N K"], ks: Sequence[int], n_units: int) -> Int[np.ndarray, "sets ks"]:
    """How many units are in all N top k of each set of rankings, for every k.

    A unit is in all of them from the k on that is its lowest place in any.
    """
    assert max(ks) <= ranked.shape[2], f"k = {max(ks)} of rankings of {ranked.shape[2]} units"
    lowest = lowest_places(ranked, n_units)
    return np.stack([(lowest < k).sum(axis=1) for k in ks], axis=1)


def lowest_places(ranked: Int[np.ndarray, "sets N K"], n_units: int) -> Int[np.ndarray, "sets K"]:
    """The lowest place, from 0, in any of the N of each unit of a set's first ranking; n_units where one lacks it."""
    n_sets, n_members, longest = ranked.shape
    found = np.empty((n_sets, longest), np.int32)
    at_once = max(1, RANKS_AT_ONCE // n_units)
    for start in range(0, n_sets, at_once):
        part = ranked[start : start + at_once]
        lowest = _places(part[:, 0], n_units)
        for member in range(1, n_members):
            np.maximum(lowest, _places(part[:, member], n_units), out=lowest)
        found[start : start + at_once] = np.take_along_axis(lowest, part[:, 0], axis=1)
    return found


def _places(units: Int[np.ndarray, "n K"], n_units: int) -> Int[np.ndarray, "n units1"]:
    """The place of every unit in each ranking, from 0; n_units where it is in none. What is no unit has the last."""
    n, longest = units.shape
    places = np.full((n, n_units + 1), n_units, np.int32)
    np.put_along_axis(places, units, np.broadcast_to(np.arange(longest, dtype=np.int32), units.shape), axis=1)
    places[:, -1] = n_units
    return places


def result_rows(
    key: Mapping[str, Any],
    who: Sequence[tuple[str | None, str]],
    ks: Sequence[int],
    ratio: np.ndarray,
    floor_other_noun: np.ndarray,
    floor_random: np.ndarray,
) -> pa.Table:
    """Rows of `invariance` for each of `who` (picture, noun) and k; `key` are the columns that all rows share.

    There is none where the ratio is NaN: a ranking does not reach that k.
    """
    n = len(who) * len(ks)
    columns: dict[str, Any] = {name: [value] * n for name, value in key.items()}
    columns["image_id"] = pa.array([image_id for image_id, _ in who for _ in ks], pa.string())
    columns["noun"] = [noun for _, noun in who for _ in ks]
    columns["k"] = list(ks) * len(who)
    columns["ratio"] = ratio.flatten()
    columns["floor_other_noun"] = pa.array(floor_other_noun.flatten(), from_pandas=True)  # NaN is empty
    columns["floor_random"] = floor_random.flatten()
    schema = TABLES["invariance"]
    table = pa.table({name: columns[name] for name in schema.names})
    return table.filter(pc.is_finite(table["ratio"])).cast(schema)
