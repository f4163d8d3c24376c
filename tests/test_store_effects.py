"""What the store says of interventions and edits: means by picture, the untouched model, what is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmn.core import ModelFacts, Neuron, Outcome, Run, ScoreSettings
from mmn.errors import UsageError
from mmn.names import ABLATE, COMPLETE, PERTURB
from mmn.runs.shards import create_run, finish_run, write_shard
from mmn.store import Store
from mmn.studies.degradation import curves
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.studies.editing.queries import EditQueries
from mmn.studies.tables import TABLES
from tests.unbound import unbind

RUN_ID = "ef00000000000000"
N_UNITS = 100
CONTRIBUTION = EffectFilter(ABLATE, ("contribution",))
NOUNS = {"a" * 64: ("dog", "tree"), "b" * 64: ("dog",)}
PROBS = {("a" * 64, "dog"): 0.8, ("a" * 64, "tree"): 0.4, ("b" * 64, "dog"): 0.2}


def effect(image_id: str, noun: str, k: int, prob: float, **more: Any) -> dict[str, Any]:
    plain = {
        "variant": "original",
        "kind": ABLATE,
        "selection": "top",
        "method": "contribution",
        "sigma": None,
        "sigma_unit": None,
        "draw": 0,
        "positions": "everywhere",
        "logit": 10 * prob,
        "caption": None,
        "similarity": None,
        "metric": None,
        "is_lost": None,
    }
    return plain | {"image_id": image_id, "noun": noun, "k": k, "prob": prob} | more


def effects() -> Iterator[dict[str, Any]]:
    for (image_id, noun), prob in PROBS.items():
        yield effect(image_id, noun, 10, prob / 2)
        yield effect(image_id, noun, 50, prob / 8, caption="a.", similarity=0.5, metric="one", is_lost=noun == "dog")
        yield effect(image_id, noun, 50, prob / 8, caption="a.", similarity=0.9, metric="other", is_lost=noun == "dog")
        for draw in (0, 1):
            yield effect(image_id, noun, 50, prob * (1 - draw / 10), selection="random", draw=draw)
        noise = {"kind": PERTURB, "sigma_unit": "weight"}
        yield effect(image_id, noun, 10, prob / 4, sigma=1.0, **noise)
        yield effect(image_id, noun, 0, prob, sigma=1.0, **noise)
        yield effect(image_id, noun, 10, prob, sigma=0.0, **noise)


def concept(image_id: str, noun: str, position: int) -> dict[str, Any]:
    flags = {"is_multi_token": False, "is_shared_token": False, "is_in_reference": None, "target_at": None}
    said = {"lemma": noun, "noun": noun, "n_mentions": 1, "token_id": 7, "position": position, "residual": 0.0}
    prob = PROBS[image_id, noun]
    key = {"image_id": image_id, "variant": "original", "is_first": position == 0}
    return key | said | flags | {"logit": 10 * prob, "prob": prob}


def score(image_id: str, noun: str) -> list[dict[str, Any]]:
    """The dog's first unit is in layer 0, the tree's in layer 1; 20 units are kept."""
    first = 0 if noun == "dog" else 1
    key = {"image_id": image_id, "variant": "original", "noun": noun, "method": "contribution"}
    units = [{"rank": rank, "layer": first if rank <= 15 else 1 - first, "unit": rank} for rank in range(1, 21)]
    return [key | unit | {"score": 1.0, "activation": 1.0, "token_position": None} for unit in units]


def edit(edit_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    row = {
        "edit_id": edit_id,
        "created_at": pd.Timestamp("2026-11-21T11:00:00"),
        "algorithm": "p2",
        "selection": "top",
        "method": "contribution",
        "noun": "dog",
        "target": "boat",
        "units": "[[1, 2], [0, 3]]",
        "settings": '{"checksum_before": "x"}',
        "fingerprint_before": "f",
        "fingerprint_after": "g",
        "relative_norm": 0.5,
        "efficacy": 1.0,
        "generalisation": None,
        "locality": 1.0,
        "fluency": 1.0,
        "fluency_before": 1.0,
    }
    told = {"edit_id": edit_id, "text_before": "a dog.", "prob_before": None, "prob_after": None}
    captions = [
        told | {"image_id": "a" * 64, "role": "edited", "text_after": "a boat.", "is_as_wished": True},
        told | {"image_id": "b" * 64, "role": "unrelated", "text_after": "a dog.", "is_as_wished": True},
    ]
    return row, captions


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    facts = ModelFacts("tiny", "f" * 16, "llava", 2, N_UNITS // 2)
    settings = ScoreSettings(prompt="A", methods=("contribution",), top_k=20)
    run = Run(RUN_ID, "2026-11-20T10:00:00+00:00", facts, "gallery", "A", settings, {})
    run_path = create_run(tmp_path / "runs", run)
    size = {"width": 1, "height": 1, "reference": []}
    rows = {
        "image": [{"image_id": one, "source": f"/{one[0]}.png", "sources": [], **size} for one in NOUNS],
        "caption": [{"image_id": one, "variant": "original", "text": "a.", "tokens": []} for one in NOUNS],
        "concept": [concept(one, noun, place) for one, nouns in NOUNS.items() for place, noun in enumerate(nouns)],
        "score": [row for one, nouns in NOUNS.items() for noun in nouns for row in score(one, noun)],
    }
    edits, captions = zip(*(edit(edit_id) for edit_id in ("e1", "e2")), strict=True)
    added = {
        "effect": list(effects()),
        "edit": list(edits),
        "edited_caption": [row for some in captions for row in some],
    }
    for name, tables in (("batch", rows), ("added", added)):
        found = {table: pa.Table.from_pylist(told, schema=TABLES[table]) for table, told in tables.items()}
        write_shard(run_path, name, found)
    finish_run(run_path, Outcome(COMPLETE, "2026-11-20T10:01:00+00:00", 1.0))
    return tmp_path


@pytest.fixture
def store(cache: Path) -> Iterator[Store]:
    with Store.open(cache) as opened:
        opened.load_new_shards([cache / "runs"])
        yield opened


def point(means: pd.DataFrame, image: str, k: int, selection: str = "top", draw: int = 0) -> pd.Series:
    here = (means["image_id"] == image * 64) & (means["k"] == k) & (means["selection"] == selection)
    (row,) = [row for _, row in means[here & (means["draw"] == draw)].iterrows()]
    return row


def test_a_pictures_value_is_the_mean_over_its_nouns(store: Store) -> None:
    means = store.ask(EffectQueries).means(RUN_ID, CONTRIBUTION)
    assert point(means, "a", 10)["prob"] == pytest.approx(0.3)
    assert point(means, "a", 10)["baseline_prob"] == pytest.approx(0.6)
    assert point(means, "a", 50)["lost"] == 0.5
    assert point(means, "a", 10)["n_nouns"] == 2


def test_another_metric_does_not_count_a_noun_twice(store: Store) -> None:
    row = point(
        store.ask(EffectQueries).means(RUN_ID, EffectFilter(ABLATE, ("contribution",), metric="other")), "a", 50
    )
    assert (row["n_nouns"], row["similarity"]) == (2, 0.9)


def test_every_line_begins_with_the_untouched_model(store: Store) -> None:
    means = store.ask(EffectQueries).means(RUN_ID, CONTRIBUTION)
    for selection, draw in (("top", 0), ("random", 0), ("random", 1)):
        first = point(means, "a", 0, selection, draw)
        assert (first["prob"], first["lost"]) == (pytest.approx(0.6), 0)
    noisy = store.ask(EffectQueries).means(RUN_ID, EffectFilter(PERTURB, ("contribution",)))
    assert noisy.groupby("image_id")["sigma"].apply(sorted).tolist() == [[0, 1], [0, 1]]
    assert noisy["n_nouns"].tolist() == [2, 1, 2, 1], "each noun once, also where sigma = 0 was measured"
    assert set(noisy["k"]) == {10}, "k = 0 under noise is the untouched model, too"


def test_a_measured_untouched_model_wins_over_the_stored_concept(store: Store) -> None:
    store._database.connection.execute("UPDATE effect SET prob = 0.5 WHERE kind = 'perturb' AND (k = 0 OR sigma = 0)")
    noisy = store.ask(EffectQueries).means(RUN_ID, EffectFilter(PERTURB, ("contribution",)))
    assert set(noisy["baseline_prob"]) == {0.5}


@pytest.mark.parametrize(
    ("effects", "n_nouns"),
    [
        (EffectFilter(ABLATE, ("contribution",)), 3),
        (EffectFilter(ABLATE, ("contribution",), lemmas=("dog",)), 2),
        (EffectFilter(ABLATE, ("contribution",), only_first=True), 2),
        (EffectFilter(ABLATE, ("contribution",), layers=(1, 1)), 1),
        (EffectFilter(PERTURB, ("contribution",), sigma_unit="column norm"), 0),
        (EffectFilter(ABLATE, ("activation",)), 0),
    ],
)
def test_filters(store: Store, effects: EffectFilter, n_nouns: int) -> None:
    means = store.ask(EffectQueries).means(RUN_ID, effects)
    assert curves.count_sample(means)[1] == n_nouns
    assert len(store.ask(EffectQueries).pictures(RUN_ID, effects)) == n_nouns


def test_lemmas_are_means_over_their_captions(store: Store) -> None:
    rows = store.ask(EffectQueries).by_concept(RUN_ID, CONTRIBUTION)
    dog = rows[(rows["lemma"] == "dog") & (rows["k"] == 10)].iloc[0]
    assert (dog["prob"], dog["n_nouns"]) == (pytest.approx(0.25), 2)


def test_layers_of_the_ablated_units(store: Store) -> None:
    rows = store.ask(EffectQueries).ablated_layers(RUN_ID, EffectFilter(ABLATE, ("contribution",), lemmas=("dog",)), 20)
    assert rows.to_dict("list") == {
        "selection": ["top", "top"],
        "layer": [0, 1],
        "n_units": [15.0, 5.0],
        "share": [0.75, 0.25],
    }
    with pytest.raises(UsageError, match=r"1 … 20"):
        store.ask(EffectQueries).ablated_layers(RUN_ID, CONTRIBUTION, 50)


def test_captions_of_one_noun(store: Store) -> None:
    rows = store.ask(EffectQueries).captions(RUN_ID, CONTRIBUTION, "a" * 64, "dog")
    assert list(rows["k"]) == [10, 50, 50, 50, 50]
    assert list(rows["metric"].dropna()) == ["one", "other"]


def test_what_there_is_not(store: Store) -> None:
    with pytest.raises(UsageError, match="the kinds are ablate, perturb, scale"):
        store.ask(EffectQueries).means(RUN_ID, EffectFilter("cut", ("contribution",)))
    with pytest.raises(UsageError, match="layers 0 … 2"):
        store.ask(EffectQueries).means(RUN_ID, EffectFilter(ABLATE, ("contribution",), layers=(0, 2)))


def test_edits_with_their_pictures(store: Store) -> None:
    edits = store.ask(EditQueries).edits(RUN_ID)
    assert list(edits["edit_id"]) == ["e1", "e2"]
    assert edits["units"].iloc[0] == [Neuron(1, 2), Neuron(0, 3)]
    assert edits["settings"].iloc[0]["checksum_before"] == "x"
    assert edits[["n_edited", "n_other", "n_unrelated"]].iloc[0].tolist() == [1, 0, 1]
    captions = store.ask(EditQueries).captions(RUN_ID, "e1")
    assert captions[["role", "source", "is_changed"]].values.tolist() == [
        ["edited", "/a.png", True],
        ["unrelated", "/b.png", False],
    ]


def test_path_of_an_edit_stays_in_the_cache(store: Store, cache: Path) -> None:
    assert store.edit_path("e1") == cache / "edits" / "e1.safetensors"
    with pytest.raises(UsageError, match="not the id"):
        store.edit_path("../e1")


def test_a_database_and_shards_from_before_the_controls(store: Store, cache: Path) -> None:
    """All that they ablated was ablated everywhere."""
    with store._cursor() as cursor:
        for column in ("positions", "other_image_id", "other_noun"):
            cursor.execute(f"ALTER TABLE effect DROP COLUMN {column}")
        for table in ("noun_share", "perplexity", "edited_text"):
            cursor.execute(f"DROP TABLE {table}")
        cursor.execute("DELETE FROM migration WHERE version >= 7")
    store.close()
    run_path = cache / "runs" / RUN_ID
    more = [effect("a" * 64, "dog", 99, 0.1)]
    write_shard(run_path, "older", {"effect": pa.Table.from_pylist(more, schema=TABLES["effect"])})
    unbind(run_path)
    file = run_path / "older" / "effect.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["positions", "other_image_id", "other_noun"]), file)
    with Store.open(cache) as newer:
        assert newer.load_new_shards([newer.runs_path]) == 1
        rows = newer.table("latest", "effect")
        assert 99 in set(rows["k"])
        assert set(rows["positions"]) == {"everywhere"}
        assert rows[["other_image_id", "other_noun"]].isna().all(axis=None)
        found = newer.ask(EffectQueries).means(RUN_ID, CONTRIBUTION)
        assert found[["noun_share", "nats", "nats_captions"]].isna().all(axis=None)
        assert list(newer.ask(EditQueries).edits(RUN_ID)["plain_after"].isna()) == [True, True]
        with newer._cursor() as cursor, pytest.raises(duckdb.ConstraintException):
            cursor.execute("UPDATE effect SET positions = NULL")


def test_shares_and_texts_are_means_of_what_was_measured(store: Store, cache: Path) -> None:
    """By hand: two nouns of a picture, the share of both, text of the first one alone; untouched comes first."""
    key = {name: value for name, value in effect("a" * 64, "dog", 0, 0.1).items() if name in TABLES["noun_share"].names}
    shares = [
        key | {"noun": noun, "k": k, "n_nouns": 9, "noun_share": share}
        for noun, values in {"dog": (0.9, 0.1), "tree": (0.7, 0.5)}.items()
        for k, share in zip((0, 10), values, strict=True)
    ]
    texts = [
        key | {"k": k, "text": text, "n_tokens": 5, "nats": nats + k / 10}
        for k in (0, 10)
        for text, nats in {"plain": 4.0, "captions": 2.0}.items()
    ]
    tables = {
        "noun_share": pa.Table.from_pylist(shares, schema=TABLES["noun_share"]),
        "perplexity": pa.Table.from_pylist(texts, schema=TABLES["perplexity"]),
    }
    write_shard(cache / "runs" / RUN_ID, "controls", tables)
    store.load_new_shards([cache / "runs"])
    means = store.ask(EffectQueries).means(RUN_ID, CONTRIBUTION)
    assert point(means, "a", 10)[["noun_share", "nats", "nats_captions"]].tolist() == pytest.approx([0.3, 5.0, 3.0])
    assert point(means, "a", 0)[["noun_share", "nats", "nats_captions"]].tolist() == pytest.approx([0.8, 4.0, 2.0])
    drawn = curves.curves(means, "perplexity")
    assert drawn[drawn["k"] > 0]["mean"].tolist() == pytest.approx([math.exp(5)])
    assert curves.curves(means, "share").query("k == 10")["n"].tolist() == [1]


def test_layers_of_the_other_noun_s_units(store: Store, cache: Path) -> None:
    """The dog's units lie in layer 0, those of the other picture's tree in layer 1."""
    tree = next(one for one, nouns in NOUNS.items() if "tree" in nouns)
    more = {"selection": "another", "other_image_id": tree, "other_noun": "tree"}
    rows = [effect("a" * 64, "dog", 50, 0.1, **more)]
    write_shard(cache / "runs" / RUN_ID, "other", {"effect": pa.Table.from_pylist(rows, schema=TABLES["effect"])})
    store.load_new_shards([cache / "runs"])
    found = store.ask(EffectQueries).ablated_layers(
        RUN_ID, EffectFilter(ABLATE, ("contribution",), lemmas=("dog",)), 15
    )
    assert found[["selection", "layer", "share"]].to_numpy().tolist() == [
        ["top", 0, 1.0],
        ["top", 1, 0.0],
        ["another", 0, 0.0],
        ["another", 1, 1.0],
    ]
