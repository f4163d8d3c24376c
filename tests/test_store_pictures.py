"""What the store says of a picture, a unit or a pair of rankings is what a plain computation over the rows says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.models.geometry import Cell, Grid, Grids, serialise
from mmn.names import BLANK, CONTRIBUTION, CONTRIBUTION_FOLDED, ORIGINAL, RANDOM, chance_overlap
from mmn.runs import shards
from mmn.store import Store, migrations
from mmn.store.neurons import NeuronQueries
from mmn.store.pictures import PictureQueries, _with_other_ranks
from mmn.store.rankings import RankingQueries
from mmn.studies.annotate.queries import FieldQueries
from mmn.studies.scoring.layer_queries import LayerQueries
from mmn.studies.tables import ADDED, SCHEMAS, TABLES
from tests.test_shards import MODEL, RUN, concept_row, score_rows
from tests.test_store import documented, in_database
from tests.unbound import unbind

METHODS = (CONTRIBUTION, CONTRIBUTION_FOLDED, RANDOM)
PICTURES = {"aa1": ["dog", "cats", "zebra"], "aa2": ["dog"], "b": ["trees", "dogs", "sky"], "c": []}
UNREFERENCED = {("aa1", "dog"): False, ("aa1", "cats"): True, ("b", "sky"): False, ("b", "trees"): False}
TARGET = ("aa1", "zebra")  # a word that the user chose
K, BOTTOM = 6, 2
GRIDS = Grids((Grid.even(1, 2, (0, 0, 1 / 3, 24)),), (Cell(0, 0, 1), None, Cell(0, 0, 0)))

ANNOTATIONS = ("neuron", "field", "outline", "look", "grid", "lens")


def a_run() -> dict[str, list[dict[str, Any]]]:
    """The rows of a scored and annotated run, as its shards have them."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for image_id, said in PICTURES.items():
        source = f"/pictures/{image_id}.png"
        size = {"width": 32, "height": 24}
        rows["image"].append({"image_id": image_id, "source": source, "sources": [source], "reference": []} | size)
        for variant in (ORIGINAL, BLANK):
            text = f"{variant} {' '.join(said)}"
            rows["caption"].append({"image_id": image_id, "variant": variant, "text": text, "tokens": [1]})
            for position, noun in enumerate(said):
                key = (image_id, noun)
                concept = concept_row(image_id, noun, 0 if key == TARGET else position)
                concept |= {"variant": variant, "prob": rng.random(), "is_in_reference": UNREFERENCED.get(key)}
                rows["concept"].append(concept | {"target_at": "dog" if key == TARGET else None})
                for method in METHODS:
                    rows["score"] += ranked_rows(rng, variant, image_id, noun, method)
                for term, layer in [("embedding", None), ("bias", None), ("ffn", 1), ("attention", 0), ("ffn", 0)]:
                    budget = {"image_id": image_id, "variant": variant, "noun": noun, "term": term, "layer": layer}
                    rows["budget"].append(budget | {"logit": rng.standard_normal()})
    return rows | annotated(rng, rows["score"])


def ranked_rows(rng: np.random.Generator, variant: str, image_id: str, noun: str, method: str) -> list[dict[str, Any]]:
    scores = rng.standard_normal(MODEL.n_units)
    top = score_rows(image_id, noun, method, scores, K)
    bottom = [
        row | {"score": -row["score"], "rank": -row["rank"]}
        for row in score_rows(image_id, noun, method, -scores, BOTTOM)
    ]
    return [row | {"variant": variant, "activation": rng.standard_normal()} for row in top + bottom]


def annotated(rng: np.random.Generator, scores: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Half of the units decoded; fields of the top 3 of two methods, those of `b` without regions."""
    decoded = {"model_fingerprint": MODEL.fingerprint, "tokens": list("abcdefghij"), "logits": [0.5] * 10}
    neuron = [
        decoded | {"layer": layer, "unit": unit, "is_interpretable": bool(rng.random() < 0.5)}
        for layer in range(MODEL.n_layers)
        for unit in range(0, MODEL.d_mlp, 2)
    ]
    top = [s for s in scores if s["variant"] == ORIGINAL and 1 <= s["rank"] <= 3 and s["method"] != RANDOM]
    key = ("image_id", "noun", "method", "rank", "layer", "unit")
    field = [
        {name: score[name] for name in key}
        | {"iou": rng.random() if score["image_id"] != "b" else None, "iou_other": None}
        | {"iou_random": rng.random() if score["image_id"] != "b" else None}
        | {"selection": "same", "found_on": None, "iou_best": 0.5 if score["image_id"] != "b" else None}
        for score in top
    ]
    seen = sorted({(score["image_id"], score["layer"], score["unit"]) for score in top})
    look = [
        {"image_id": i, "layer": layer, "unit": unit, "activations": [layer, unit, 0.25]} for i, layer, unit in seen
    ]
    return {
        "neuron": neuron,
        "field": field,
        "look": look,
        "grid": [{"image_id": "aa1", "grid": serialise.to_json(GRIDS)}],
    }


ROWS = a_run()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The run in a database. Read only."""
    cache_path = tmp_path_factory.mktemp("pictures") / "cache"
    write(cache_path, ROWS)
    with Store.open(cache_path) as opened:
        assert opened.load_new_shards([opened.runs_path]) == 2
        yield opened


def write(cache_path: Path, rows: dict[str, list[dict[str, Any]]]) -> Path:
    settings = replace(RUN.settings, methods=METHODS, top_k=K, bottom_k=BOTTOM, variants=(ORIGINAL, BLANK))
    run_path = shards.create_run(cache_path / "runs", replace(RUN, settings=settings))
    tables = {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in TABLES.items()}
    shards.write_shard(run_path, "batch-0", {name: tables[name] for name in SCHEMAS})
    shards.write_shard(run_path, "annotation", {name: tables[name] for name in ANNOTATIONS})
    return run_path


def frame(name: str, **equal: Any) -> pd.DataFrame:
    rows = [row for row in ROWS[name] if all(row[column] == value for column, value in equal.items())]
    return pd.DataFrame(rows, columns=TABLES[name].names)


def top_scores(method: str, k: int = K) -> pd.DataFrame:
    """Scores of the nouns of captions, suppressors left out."""
    scores = frame("score", variant=ORIGINAL, method=method)
    is_target = (scores["image_id"] == TARGET[0]) & (scores["noun"] == TARGET[1])
    return scores[scores["rank"].between(1, k) & ~is_target]


# ---- one picture


def test_pictures_with_their_counts(store: Store) -> None:
    rows = store.ask(PictureQueries).pictures("latest")
    assert list(rows.columns) == ["image_id", "source", "width", "height", "text", "n_concepts", "n_unreferenced"]
    assert rows["image_id"].tolist() == ["aa1", "aa2", "b", "c"]
    assert rows["text"].tolist() == ["original dog cats zebra", "original dog", "original trees dogs sky", "original "]
    assert rows["n_concepts"].tolist() == [2, 1, 3, 0]
    assert rows["n_unreferenced"].tolist() == [1, 0, 2, 0]


def test_pictures_by_noun_and_by_what_no_reference_says(store: Store) -> None:
    def ids(*lemmas: str, only: bool = False) -> list[str]:
        return store.ask(PictureQueries).pictures("latest", lemmas, only_unreferenced=only)["image_id"].tolist()

    assert ids("dog") == ["aa1", "aa2", "b"]
    assert ids("sky", "cat") == ["aa1", "b"]
    assert ids("zebra") == []  # nobody said it
    assert ids(only=True) == ["aa1", "b"]
    assert ids("dog", only=True) == ["aa1"]  # in b it is another noun that no reference says
    assert ids("cat", only=True) == []


def test_a_picture_is_found_by_its_beginning(store: Store) -> None:
    row = store.ask(PictureQueries).picture("latest", "aa2")
    assert (row["image_id"], row["text"], row["sources"]) == ("aa2", "original dog", ["/pictures/aa2.png"])
    assert store.ask(PictureQueries).picture("latest", "b")["width"] == 32
    for text, message in {"aa": "more than one picture", "x": "no picture", "": "picture", "%": "no picture"}.items():
        with pytest.raises(UsageError, match=message):
            store.ask(PictureQueries).picture("latest", text)


def test_concepts_of_a_picture_in_the_caption_s_order(store: Store) -> None:
    rows = store.ask(PictureQueries).concepts("latest", "aa1")
    assert rows["noun"].tolist() == ["dog", "cats", "zebra"]
    assert set(rows["variant"]) == {ORIGINAL}
    blank = frame("concept", image_id="aa1", variant=BLANK).set_index("noun")
    assert rows["blank_prob"].tolist() == blank.loc[rows["noun"], "prob"].tolist()
    assert rows["blank_logit"].tolist() == [4.0, 4.0, 4.0]
    assert store.ask(PictureQueries).concepts("latest", "c").empty


@pytest.mark.parametrize("noun", ["dog", "zebra"])
def test_ranked_units_equal_brute_force(store: Store, noun: str) -> None:
    rows = store.ask(PictureQueries).ranked_units("latest", "aa1", noun, CONTRIBUTION, limit=5)
    mine = frame("score", image_id="aa1", noun=noun, variant=ORIGINAL)
    top = mine[(mine["method"] == CONTRIBUTION) & (mine["rank"] > 0)].head(5)
    for column in ("rank", "layer", "unit"):
        assert rows[column].tolist() == top[column].tolist()
    assert rows["score"].tolist() == pytest.approx(top["score"].tolist())
    for _, row in rows.iterrows():
        here = {"image_id": "aa1", "noun": noun, "layer": row["layer"], "unit": row["unit"]}
        assert_equal(row["blank_score"], frame("score", **here, variant=BLANK, method=CONTRIBUTION)["score"])
        for method in (CONTRIBUTION_FOLDED, RANDOM):
            assert_equal(row[f"rank:{method}"], frame("score", **here, variant=ORIGINAL, method=method)["rank"])
        assert_equal(row["iou"], frame("field", **here, method=CONTRIBUTION)["iou"])
        decoded = frame("neuron", layer=row["layer"], unit=row["unit"])
        assert row["tokens"] == (list("abcdefghij") if len(decoded) else None)
        assert row["is_interpretable"] is (bool(decoded["is_interpretable"].iloc[0]) if len(decoded) else None)
    assert rows["is_interpretable"].notna().any()
    assert rows["blank_score"].notna().any()


def assert_equal(found: float, expected: pd.Series) -> None:
    """A number, or NaN where no row has it."""
    assert len(expected) <= 1
    assert found == pytest.approx(expected.iloc[0] if len(expected) else float("nan"), nan_ok=True)


def test_suppressors_are_asked_for_by_sign(store: Store) -> None:
    rows = store.ask(PictureQueries).ranked_units("latest", "b", "sky", CONTRIBUTION, sign="bottom")
    assert rows["rank"].tolist() == [-1, -2]
    assert rows["score"].is_monotonic_increasing
    with pytest.raises(UsageError, match="sign 'middle'"):
        store.ask(PictureQueries).ranked_units("latest", "b", "sky", CONTRIBUTION, sign="middle")


def test_what_a_picture_has_not_is_named(store: Store) -> None:
    with pytest.raises(UsageError, match=r"no noun 'cow' for picture b; it has trees, dogs, sky"):
        store.ask(PictureQueries).ranked_units("latest", "b", "cow", CONTRIBUTION)
    with pytest.raises(UsageError, match=r"no 'attribution' scores.*contribution, contribution-folded, random"):
        store.ask(PictureQueries).ranked_units("latest", "b", "sky", "attribution")
    with pytest.raises(UsageError, match=r"k = 7 is not in 1 … 6"):
        store.ask(PictureQueries).top_share("latest", "b", "sky", ks=[7])
    with pytest.raises(UsageError, match="no noun"):
        store.ask(PictureQueries).budget("latest", "c", "sky")


def test_a_budget_is_in_order_and_shares_add_up(store: Store) -> None:
    rows = store.ask(PictureQueries).budget("latest", "b", "sky", BLANK)
    assert rows["term"].tolist() == ["embedding", "attention", "ffn", "ffn", "bias"]
    assert rows["layer"].fillna(-1).tolist() == [-1, 0, 0, 1, -1]
    stored = frame("budget", image_id="b", noun="sky", variant=BLANK)
    assert rows["logit"].sum() == pytest.approx(stored["logit"].sum())
    share = store.ask(PictureQueries).top_share("latest", "b", "sky", ks=[4, 1])
    scores = top_scores(CONTRIBUTION_FOLDED).query("image_id == 'b' and noun == 'sky'")["score"].to_numpy()
    assert share["k"].tolist() == [4, 1]
    assert share["logit"].tolist() == pytest.approx([scores[:4].sum(), scores[0]])


def test_looks_and_grids_read_back(store: Store) -> None:
    stored = [Neuron(row["layer"], row["unit"]) for row in ROWS["look"] if row["image_id"] == "aa1"]
    missing = next(Neuron(0, unit) for unit in range(8) if Neuron(0, unit) not in stored)
    rows = store.ask(PictureQueries).looks("latest", "aa1", [stored[2], missing, stored[0]])
    assert [Neuron(row.layer, row.unit) for row in rows.itertuples()] == [stored[2], stored[0]]
    assert [list(one) for one in rows["activations"]] == [[n.layer, n.unit, 0.25] for n in (stored[2], stored[0])]
    assert store.ask(PictureQueries).looks("latest", "aa1", []).empty
    assert store.ask(PictureQueries).grid("latest", "aa1") == GRIDS
    assert store.ask(PictureQueries).grid("latest", "aa2") is None
    known = store.ask(NeuronQueries).looks("latest", stored[0], ["aa2", "aa1", "b"])
    assert list(known) == ["aa1"]
    picture = store.ask(PictureQueries).picture("latest", "aa1")
    assert (known["aa1"].grids, known["aa1"].size) == (GRIDS, (picture["width"], picture["height"]))
    assert list(known["aa1"].activations) == [stored[0].layer, stored[0].unit, 0.25]
    assert store.ask(NeuronQueries).looks("latest", missing, ["aa1"]) == {}


# ---- one unit


def test_a_unit_is_decoded_or_not(store: Store) -> None:
    row = store.ask(NeuronQueries).neuron("latest", Neuron(1, 2))
    assert (row["tokens"], row["logits"]) == (list("abcdefghij"), [0.5] * 10)
    assert row["is_interpretable"] is bool(frame("neuron", layer=1, unit=2)["is_interpretable"].iloc[0])
    assert store.ask(NeuronQueries).neuron("latest", Neuron(1, 3))["is_interpretable"] is None
    assert store.ask(NeuronQueries).are_top_units_decoded("latest")
    with pytest.raises(UsageError, match=r"has no unit L3\.u0: its layers are 0–2, its units 0–7"):
        store.ask(NeuronQueries).neuron("latest", Neuron(3, 0))


@pytest.mark.parametrize("neuron", [Neuron(0, 2), Neuron(1, 5), Neuron(2, 7)])
def test_a_unit_over_all_pictures_equals_brute_force(store: Store, neuron: Neuron) -> None:
    units = {"layer": neuron.layer, "unit": neuron.unit}
    ranks = store.ask(NeuronQueries).ranks("latest", neuron).set_index("method")
    for method in METHODS:
        mine = top_scores(method).query("layer == @neuron.layer and unit == @neuron.unit")
        pictures = store.ask(NeuronQueries).pictures("latest", neuron, method)
        expected = mine.sort_values("score", ascending=False)
        assert pictures[["image_id", "noun", "rank"]].to_numpy().tolist() == (
            expected[["image_id", "noun", "rank"]].to_numpy().tolist()
        ), units
        near = mine[mine["rank"] <= 4]
        concepts = store.ask(NeuronQueries).concepts("latest", neuron, method, 4).set_index("lemma")
        grouped = near.groupby(near["noun"].str.removesuffix("s"))
        assert concepts["n_images"].to_dict() == grouped["image_id"].nunique().to_dict()
        assert concepts["mean_score"].to_dict() == pytest.approx(grouped["score"].mean().to_dict())
        assert concepts["best_rank"].to_dict() == grouped["rank"].min().to_dict()
        assert (method in ranks.index) == bool(len(mine))
        if len(mine):
            row = ranks.loc[method]
            assert row["n_concepts_in_top"] == len(mine)
            assert row["share_of_concepts"] == pytest.approx(len(mine) / 6)
            assert (row["best_rank"], row["median_rank"]) == (mine["rank"].min(), mine["rank"].median())


def test_the_strongest_pictures_come_with_their_captions(store: Store) -> None:
    best = top_scores(CONTRIBUTION).sort_values("score").iloc[-1]
    row = (
        store.ask(NeuronQueries).pictures("latest", Neuron(best["layer"], best["unit"]), CONTRIBUTION, limit=1).iloc[0]
    )
    assert (row["image_id"], row["source"]) == (best["image_id"], f"/pictures/{best['image_id']}.png")
    assert row["text"].startswith("original")


# ---- whole rankings


@pytest.mark.parametrize("lemmas", [[], ["dog"]])
def test_overlap_equals_brute_force(store: Store, lemmas: list[str]) -> None:
    rows = store.ask(RankingQueries).overlap("latest", CONTRIBUTION, RANDOM, [6, 2, 5], lemmas)
    assert rows["k"].tolist() == [6, 2, 5]
    for row in rows.itertuples():
        first, second = (units_by_concept(method, row.k, lemmas) for method in (CONTRIBUTION, RANDOM))
        assert len(first) == (3 if lemmas else 6)
        shares = pd.Series({c: len(first[c] & second[c]) / row.k for c in first})
        pictures = shares.groupby(level=0).mean()  # of each picture: one with more nouns weighs no more
        assert (row.overlap, row.n_images) == (pytest.approx(pictures.mean()), len(pictures))
        assert np.isnan(row.overlap_low) or row.overlap_low <= row.overlap <= row.overlap_high
        assert row.chance == row.k / 24
    assert (store.ask(RankingQueries).overlap("latest", RANDOM, RANDOM, [1, 6])["overlap"] == 1).all()
    with pytest.raises(UsageError, match="no concepts"):
        store.ask(RankingQueries).overlap("latest", RANDOM, CONTRIBUTION, [1], ["cow"])


def units_by_concept(method: str, k: int, lemmas: list[str]) -> dict[tuple[str, str], set[tuple[int, int]]]:
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for row in top_scores(method, k).itertuples():
        if not lemmas or row.noun.removesuffix("s") in lemmas:
            found.setdefault((row.image_id, row.noun), set()).add((row.layer, row.unit))
    return found


def test_rank_correlation_is_over_the_union_of_both_lists(store: Store) -> None:
    """Over the common units alone, two lists that shared two units could agree perfectly."""
    keys = ["image_id", "noun", "layer", "unit"]
    either = top_scores(CONTRIBUTION).merge(top_scores(RANDOM), on=keys, how="outer")
    rhos, sizes = {}, []
    for key, group in either.groupby(["image_id", "noun"]):
        ranks = [group[name].fillna(group[name].max() + 1).rank() for name in ("rank_x", "rank_y")]  # absent: tied last
        rhos[key] = ranks[0].corr(ranks[1])
        sizes.append(len(group))
    assert max(sizes) > K
    found = store.ask(RankingQueries).correlation("latest", CONTRIBUTION, RANDOM)
    assert found["spearman"] == pytest.approx(pd.Series(rhos).groupby(level=0).mean().mean())
    assert (found["n"], found["n_images"], found["n_units"]) == (6, len({one for one, _ in rhos}), np.mean(sizes))
    same = store.ask(RankingQueries).correlation("latest", RANDOM, RANDOM)
    assert (same["spearman"], same["n"], same["n_units"]) == (pytest.approx(1.0), 6, K)


def test_lists_without_a_common_unit_disagree_and_are_not_left_out(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        store._database.connection.execute(
            "UPDATE score SET layer = CASE WHEN method = 'random' THEN 0 ELSE 1 END, "
            "unit = rank WHERE variant = 'original' AND rank >= 1"
        )
        found = store.ask(RankingQueries).correlation("latest", CONTRIBUTION, RANDOM)
    n = 2 * K
    ranks = pd.Series([*range(1, K + 1), *[K + (K + 1) / 2] * K])
    assert found["spearman"] == pytest.approx(ranks.corr(ranks[::-1].reset_index(drop=True)))
    assert found["spearman"] < -0.8
    assert (found["n"], found["n_units"]) == (6, n)


def test_chance_of_a_method_that_leaves_a_layer_out_is_over_the_layers_that_it_ranks() -> None:
    """Attribution at image tokens has no units of the last layer: k/((L − 1)·m), where k/(L·m) was written."""
    assert chance_overlap(4, ["attribution"], 3, 8) == 4 / 16
    assert chance_overlap(4, ["attribution", "attribution-act-minus-blank"], 3, 8) == 4 / 16
    assert chance_overlap(4, ["random-matched:attribution"], 3, 8) == 4 / 16
    assert chance_overlap(4, ["attribution", "contribution"], 3, 8) == 4 / 24
    assert chance_overlap(4, ["random-matched"], 3, 8) == 4 / 24
    assert chance_overlap(4, ["random-matched:effect", "effect-prob"], 3, 8, (1, 2)) == 4 / 16
    assert chance_overlap(4, ["effect", "attribution"], 3, 8, (1, 2)) == 4 * 4 * 8 / (16 * 16) / 4, "layer 1 alone"
    assert chance_overlap(20, ["effect", "activation"], 3, 8, (2, 2)) == 8 / 24, "all 8 units of that layer"
    rng = np.random.default_rng(0)
    shared = [len(set(rng.choice(16, 4, False)) & set(rng.choice(24, 4, False))) / 4 for _ in range(4000)]
    assert np.mean(shared) == pytest.approx(4 / 24, abs=0.01)  # three deviations


def test_the_control_s_overlap_with_its_reference_is_reported(store: Store) -> None:
    [row] = store.ask(RankingQueries).control_overlap("latest", 5).to_dict("records")
    assert (row["control"], row["reference"], row["k"], row["chance"]) == (RANDOM, CONTRIBUTION, 5, 5 / 24)
    assert row["overlap"] == store.ask(RankingQueries).overlap("latest", RANDOM, CONTRIBUTION, [5])["overlap"].iloc[0]


def test_a_matched_control_s_chance_is_that_of_its_layers(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        store._database.connection.execute("UPDATE score SET method = 'random-matched' WHERE method = 'random'")
        [row] = store.ask(RankingQueries).control_overlap("latest", 5).to_dict("records")
    counts = top_scores(CONTRIBUTION, 5).groupby(["image_id", "noun", "layer"]).size()
    expected = (counts**2 / 8 / 5).groupby(level=[0, 1]).sum().groupby(level=0).mean().mean()
    assert (row["control"], row["chance"]) == ("random-matched", pytest.approx(expected))


def test_fields_weigh_pictures_and_not_rows(store: Store) -> None:
    """A picture of more nouns with objects, or of more units, weighed more than another."""
    rows = store.ask(FieldQueries).summary("latest", top=2).set_index("method")
    assert list(rows.index) == [CONTRIBUTION, CONTRIBUTION_FOLDED]
    assert set(rows["selection"]) == {"same"}
    for method, row in rows.iterrows():
        mine = frame("field", method=method)
        mine = mine[(mine["rank"] <= 2) & mine["iou"].notna() & (mine["noun"] != TARGET[1])].astype({"iou": float})
        assert (row["n"], row["n_images"]) == (len(mine), 2)
        means = mine.groupby("image_id")["iou"].mean()
        assert len(set(mine.groupby("image_id").size())) == 2, "the pictures have as many rows: the test says nothing"
        assert row["iou"] == pytest.approx(means.mean())
        assert row["iou"] != pytest.approx(mine["iou"].mean())
        assert row[["iou_other", "iou_other_low", "iou_other_high"]].isna().all()
        assert row["iou_random"] == pytest.approx(
            mine.astype({"iou_random": float}).groupby("image_id")["iou_random"].mean().mean()
        )
        assert row["iou_best"] == 0.5


def test_layers_of_interpretable_units_only(store: Store) -> None:
    for wanted in (True, False):
        decoded = frame("neuron", is_interpretable=wanted)
        units = set(zip(decoded["layer"], decoded["unit"], strict=True))
        rows = store.ask(LayerQueries).distribution("latest", [RANDOM], [3], ["dog"], interpretable=wanted)
        dogs = top_scores(RANDOM, 3)
        dogs = dogs[dogs["noun"].isin(["dog", "dogs"])]
        found = set(zip(dogs["layer"], dogs["unit"], strict=True)) & units
        assert found
        assert rows["n_units"].tolist() == [sum(layer == one for layer, _ in found) for one in range(3)]
        assert rows["share"].sum() == pytest.approx(1)


def test_without_decoded_units_the_filter_says_what_to_run(tmp_path: Path) -> None:
    write(tmp_path, ROWS | {"neuron": []})
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        with pytest.raises(UsageError, match=rf"run mmn annotate {RUN.run_id}"):
            store.ask(LayerQueries).distribution("latest", [RANDOM], [1], interpretable=True)
        assert not store.ask(NeuronQueries).are_top_units_decoded("latest")
        assert store.ask(FieldQueries).summary("latest", top=3)["n"].tolist() == [9, 9]


def test_a_filter_that_leaves_no_unit_shows_zeros_and_a_wrong_method_is_still_named(tmp_path: Path) -> None:
    write(tmp_path, ROWS | {"neuron": [row | {"is_interpretable": False} for row in ROWS["neuron"]]})
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        rows = store.ask(LayerQueries).distribution("latest", [RANDOM], [1], interpretable=True)
        assert rows["n_units"].tolist() == [0, 0, 0]
        assert rows["share"].tolist() == [0, 0, 0]
        with pytest.raises(UsageError, match="no 'activation' scores"):
            store.ask(LayerQueries).distribution("latest", ["activation"], [1], interpretable=True)


# ---- loading


def test_annotations_of_a_later_call_add_and_do_not_repeat(tmp_path: Path) -> None:
    run_path = write(tmp_path, ROWS)
    again = {name: pa.Table.from_pylist(ROWS[name], schema=TABLES[name]) for name in ANNOTATIONS}
    new = ROWS["look"][0] | {"unit": 7, "layer": 2, "image_id": "c"}
    again["look"] = pa.concat_tables([again["look"], pa.Table.from_pylist([new], schema=again["look"].schema)])
    shards.write_shard(run_path, "second", again)
    with Store.open(tmp_path) as store:
        assert store.load_new_shards([store.runs_path]) == 3
        for name in ANNOTATIONS:
            assert len(store.table("latest", name)) == len(ROWS[name]) + (name == "look"), name
        store.delete_run("latest")
        left = {name: n_rows(store, name) for name in ANNOTATIONS}
        assert left == dict.fromkeys(left, 0) | {"neuron": len(ROWS["neuron"])}  # units are the model's


def test_rows_told_again_with_an_empty_key_are_kept_once(tmp_path: Path) -> None:
    row = {"image_id": None, "kind": "random", "layer": None, "token_position": 0, "tokens": ["a"], "scores": [0.5]}
    tables = {"lens": pa.Table.from_pylist([row], schema=TABLES["lens"])}
    run_path = write(tmp_path, ROWS)
    shards.write_shard(run_path, "first", tables)
    shards.write_shard(run_path, "second", tables)
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        assert len(store.table("latest", "lens")) == 1


def n_rows(store: Store, table: str) -> int:
    with store._cursor() as cursor:
        return cursor.table(table).count("*").fetchall()[0][0]


def test_an_annotation_that_says_one_thing_twice_or_nothing_is_refused(tmp_path: Path) -> None:
    run_path = write(tmp_path, ROWS)
    look = pa.Table.from_pylist(ROWS["look"], schema=TABLES["look"])
    with pytest.raises(AssertionError, match="look rows"):
        shards.write_shard(run_path, "twice", {"look": pa.concat_tables([look, look])})
    for value in (float("nan"), float("inf")):
        bad = pa.Table.from_pylist([ROWS["look"][0] | {"activations": [1.0, value]}], schema=look.schema)
        with pytest.raises(AssertionError, match=r"look\.activations: 1 of 2"):
            shards.write_shard(run_path, "bad", {"look": bad})


def test_a_database_of_version_1_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_path = write(tmp_path, ROWS)
    late = run_path.rename(tmp_path / "late") / "annotation"
    kept = late.rename(tmp_path / "annotation")
    (tmp_path / "late").rename(run_path)
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        with Store.open(tmp_path) as old, old._cursor() as cursor:
            for table in ("look", "grid"):  # of version 2
                cursor.execute(f"DROP TABLE {table}")
            for column in ("selection", "found_on", "iou_best"):  # of version 5
                cursor.execute(f"ALTER TABLE field DROP COLUMN {column}")
            cursor.execute("INSERT INTO field VALUES ('old', 'a', 'dog', 'random', 1, 0, 0, NULL, NULL, NULL)")
    kept.rename(run_path / "annotation")
    with Store.open(tmp_path) as store:
        assert in_database(store).keys() == documented().keys()
        assert store.load_new_shards([store.runs_path]) == 2
        assert len(store.table("latest", "look")) == len(ROWS["look"])
        with store._cursor() as cursor:
            [found] = cursor.execute("SELECT selection, found_on FROM field WHERE run_id = 'old'").fetchall()
            assert found == ("same", None)
            with pytest.raises(duckdb.ConstraintException):
                cursor.execute("UPDATE field SET selection = NULL WHERE run_id = 'old'")


def test_an_annotation_of_an_earlier_version_loads_as_units_of_the_same_picture(tmp_path: Path) -> None:
    run_path = write(tmp_path, ROWS)
    file = run_path / "annotation" / "field.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["selection", "found_on", "iou_best"]), file)
    unbind(run_path)
    with Store.open(tmp_path) as store:
        assert store.load_new_shards([store.runs_path]) == 2
        fields = store.table("latest", "field")
        assert set(fields["selection"]) == {"same"}
        assert fields[["found_on", "iou_best"]].isna().all(axis=None)
        summary = store.ask(FieldQueries).summary("latest", 3)
        assert summary["iou_best"].isna().all()
        assert summary["iou"].notna().all()


def test_what_is_added_has_the_columns_of_the_database(store: Store) -> None:
    arrow = {"VARCHAR": "string", "INTEGER": "int32", "SMALLINT": "int16", "DOUBLE": "double", "BOOLEAN": "bool"}
    arrow |= {
        "JSON": "string",
        "FLOAT[]": "list<item: float>",
        "VARCHAR[]": "list<item: string>",
        "INTEGER[]": "list<item: int32>",
    }
    arrow |= {"TIMESTAMP": "timestamp[us]", "FLOAT": "float", "INTEGER[]": "list<item: int32>"}
    arrow |= {"VARCHAR[10]": "fixed_size_list<item: string>[10]", "FLOAT[10]": "fixed_size_list<item: float>[10]"}
    for table, columns in in_database(store).items():
        if table in ADDED:
            expected = [
                (name, arrow[dtype.removesuffix(" NULL")], dtype.endswith(" NULL"))
                for name, dtype in columns.items()
                if name != "run_id"
            ]
            found = [(f.name, re_named(str(f.type)), f.nullable) for f in ADDED[table]]
            assert found == expected, table


def re_named(arrow_type: str) -> str:
    return arrow_type.replace("element: ", "item: ")


def test_a_unit_kept_as_supporter_and_as_suppressor_has_one_rank() -> None:
    ranked = pd.DataFrame({"layer": [0, 1], "unit": [3, 4]})
    others = pd.DataFrame({"method": ["m"] * 3, "layer": [0, 0, 1], "unit": [3, 3, 4], "rank": [-2, 5, -1]})
    assert _with_other_ranks(ranked, others, ["m"])["rank:m"].tolist() == [5, -1]
