"""How many top units do two rankings share? |A ∩ B| / k, against k, with what chance gives (METHODS: Region ratio).

    region        `shuffled`: one noun of a picture, before and after its tokens are shuffled (P2, figure 3)
    cross-image   `cross_image`: N pictures whose captions share a noun (P2, figure 4; arXiv 2311.07470)

Rankings are the stored ones, so a k reaches no further than the run's top k. This reads shards alone, without a model.
Left out: words that the user chose, and suppressors.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from mmn import names
from mmn.core import Run
from mmn.errors import UsageError
from mmn.runs import shards
from mmn.statistics.intervals import draw_intervals
from mmn.store.cells import by_picture, with_intervals
from mmn.studies.tables import TABLES

REGION, CROSS_IMAGE = "region", "cross-image"
KINDS: Final = (REGION, CROSS_IMAGE)
SHARES: Final = (0.001, 0.003, 0.01, 0.014, 0.03, 0.05, 0.1, 0.25)  # of all units (METHODS: k)
P2_K: Final = 100
RANKS_AT_ONCE: Final = 1 << 24  # numbers held while rankings are compared: pairs × L·m


@dataclass(frozen=True)
class Rankings:
    """Stored rankings of one method: `units[i]` are those of `keys[i]`, (picture, noun); flat indices, best first."""

    keys: tuple[tuple[str, str], ...]
    units: Int[np.ndarray, "n K"]

    def of(self, wanted: Sequence[tuple[str, str]]) -> Int[np.ndarray, "wanted K"]:
        place = {key: number for number, key in enumerate(self.keys)}
        return self.units[[place[key] for key in wanted]]


@dataclass(frozen=True)
class Spoken:
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
    """`ks` in order, or the default grid.

    Raises:
        UsageError: none, one below 1, or one that the run's rankings do not reach.
    """
    chosen = tuple(sorted(set(usual_ks(run) if ks is None else ks)))
    for k in chosen or (0,):
        if not 1 <= k <= most_units(run):
            raise UsageError(
                f"k = {k}: run {run.run_id} keeps the top {most_units(run)} units of each noun, so k is 1 to that; "
                "score with a larger --top-k to go further"
            )
    return chosen


def checked_methods(run: Run, methods: Sequence[str] | None, stored: Sequence[str]) -> tuple[str, ...]:
    """`methods` if the run has them, or all that are `stored`.

    Raises:
        UsageError: one that it has not.
    """
    for method in methods or ():
        if method not in stored:
            raise UsageError(f"run {run.run_id} has no {method!r} rankings here; there are: {', '.join(stored)}")
    return tuple(dict.fromkeys(methods)) if methods is not None else tuple(stored)


def spoken(shard_path: Path, variant: str) -> list[Spoken]:
    """The nouns of a shard's captions of one variant; words that the user chose are none."""
    if "concept" not in shards.row_counts(shard_path):
        return []
    rows = shards.read_columns(shard_path, "concept", ["image_id", "variant", "lemma", "noun", "target_at"])
    rows = rows.filter(pc.and_(pc.equal(rows["variant"], variant), pc.is_null(rows["target_at"])))
    return [Spoken(row["image_id"], row["lemma"], row["noun"]) for row in rows.to_pylist()]


def rankings(
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
    assert units.min() >= 0, f"a ranking of {units.shape[1]} units has holes"
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


def _places(units: Int[np.ndarray, "n K"], n_units: int) -> Int[np.ndarray, "n units"]:
    """The place of every unit in each ranking, from 0; n_units where it is in none."""
    n, longest = units.shape
    places = np.full((n, n_units), n_units, np.int32)
    np.put_along_axis(places, units, np.broadcast_to(np.arange(longest, dtype=np.int32), units.shape), axis=1)
    return places


def region_table(
    run: Run,
    original: tuple[Sequence[Spoken], Mapping[str, Rankings]],
    shuffled: Mapping[int, tuple[Sequence[Spoken], Mapping[str, Rankings]]],
    methods: Sequence[str],
    ks: Sequence[int],
) -> pa.Table:
    """`invariance` of one batch: each noun that a picture's caption says before and after shuffling, by lemma.

    Args:
        run: for L and m.
        original: the nouns of the captions and their rankings, by method.
        shuffled: the same of each draw.
        methods: of the rankings.
        ks: how many units are compared.
    """
    tables = [TABLES["invariance"].empty_table()]
    said, before = original
    for method in [method for method in methods if method in before]:
        usable = [k for k in ks if k <= before[method].units.shape[1]]
        floors = _other_noun_floors(said, before[method], usable, run.model.n_units)
        for draw, (again, after) in sorted(shuffled.items()):
            pairs = _in_both(said, again)
            if pairs and usable:
                who = [(image_id, noun) for image_id, noun, _ in pairs]
                second = after[method].of([(image_id, noun) for image_id, _, noun in pairs])
                ratio = shared_units(before[method].of(who), second, usable, run.model.n_units) / np.array(usable)
                floor = np.stack([floors[one] for one in who])
                shape = (run.model.n_layers, run.model.d_mlp)
                floors_random = [names.chance_overlap(k, [method], *shape) for k in usable]
                chance = np.broadcast_to(np.array(floors_random), ratio.shape)
                key = {"kind": REGION, "method": method, "draw": draw, "n": 1}
                tables.append(rows_table(key, who, usable, ratio, floor, chance))
    return pa.concat_tables(tables)


def _in_both(said: Sequence[Spoken], again: Sequence[Spoken]) -> list[tuple[str, str, str]]:
    """Picture, noun before and noun after of each lemma that is in both captions of a picture."""
    after = {(one.image_id, one.lemma): one.noun for one in again}
    both = [one for one in said if (one.image_id, one.lemma) in after]
    return [(one.image_id, one.noun, after[one.image_id, one.lemma]) for one in both]


def _other_noun_floors(
    said: Sequence[Spoken], ranked: Rankings, ks: Sequence[int], n_units: int
) -> dict[tuple[str, str], np.ndarray]:
    """For each noun of a picture the mean over its other nouns of |A ∩ A'| / k; NaN where it has no other."""
    by_image: dict[str, list[tuple[str, str]]] = {}
    for one in said:
        by_image.setdefault(one.image_id, []).append((one.image_id, one.noun))
    pairs = [pair for keys in by_image.values() for pair in itertools.combinations(keys, 2)]
    found: dict[tuple[str, str], list[np.ndarray]] = {key: [] for keys in by_image.values() for key in keys}
    if pairs and ks:
        first, second = (ranked.of(list(side)) for side in zip(*pairs, strict=True))
        shares = shared_units(first, second, ks, n_units) / np.array(ks)
        for pair, share in zip(pairs, shares, strict=True):
            for key in pair:
                found[key].append(share)
    return {key: np.mean(shares, axis=0) if shares else np.full(len(ks), np.nan) for key, shares in found.items()}


def rows_table(
    key: Mapping[str, Any],
    who: Sequence[tuple[str | None, str]],
    ks: Sequence[int],
    ratio: np.ndarray,
    floor_other_noun: np.ndarray,
    floor_random: np.ndarray,
) -> pa.Table:
    """Rows of `invariance` for each of `who` (picture, noun) and k; `key` are the columns that all rows share."""
    n = len(who) * len(ks)
    columns: dict[str, Any] = {name: [value] * n for name, value in key.items()}
    columns["image_id"] = pa.array([image_id for image_id, _ in who for _ in ks], pa.string())
    columns["noun"] = [noun for _, noun in who for _ in ks]
    columns["k"] = list(ks) * len(who)
    columns["ratio"] = ratio.flatten()
    columns["floor_other_noun"] = pa.array(floor_other_noun.flatten(), from_pandas=True)  # NaN is empty
    columns["floor_random"] = floor_random.flatten()
    schema = TABLES["invariance"]
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def summarize(rows: pa.Table) -> pd.DataFrame:
    """Means of `invariance` rows of one kind by method and k: `ratio`, `floor_other_noun`, `floor_random`.

    Region: over nouns, then pictures, then draws (METHODS), with 95 % intervals by picture of the first two (`_low`,
    `_high`) and n_images: what `Store.region_invariance` gives the page. Cross-image: over draws, then nouns, which all
    count the same, and n_concepts; no intervals, since nouns have pictures in common.
    """
    frame = rows.to_pandas()
    if len(frame) and frame["kind"].iloc[0] == REGION:
        return _region_means(frame)
    values = ["ratio", "floor_other_noun", "floor_random"]
    nouns = frame.groupby(["noun", "method", "k"], as_index=False, observed=True)[values].mean()
    by = nouns.groupby(["method", "k"], observed=True)
    return by[values].mean().assign(n_concepts=by.size()).reset_index()


def _region_means(frame: pd.DataFrame) -> pd.DataFrame:
    cells = frame[["method", "k"]].drop_duplicates().sort_values(["method", "k"], ignore_index=True)
    pictures = frame.groupby(["image_id", "draw", "method", "k"], as_index=False, observed=True)[
        ["ratio", "floor_other_noun", "floor_random"]
    ].mean()
    pictures = pictures.merge(cells.assign(cell=cells.index), on=["method", "k"])
    pictures["place"] = pictures.groupby("image_id").ngroup()
    quantities = ["ratio", "floor_other_noun"]
    found = with_intervals(cells, quantities, by_picture(pictures, quantities, len(cells)), draw_intervals)
    return found.assign(floor_random=pictures.groupby("cell")["floor_random"].mean())
