"""Invariance, specificity and sensitivity asked of the store: numbers by hand, filters, and intervals by picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mmn.core import ModelFacts, Outcome, Run, ScoreSettings
from mmn.errors import UsageError
from mmn.names import COMPLETE, ORIGINAL
from mmn.runs.shards import create_run, finish_run, write_shard
from mmn.store import Store
from mmn.studies.invariance.cross_image_queries import CrossImageQueries
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.studies.selectivity.queries import SelectivityQueries
from mmn.studies.sensitivity.queries import SensitivityQueries
from mmn.studies.specificity.queries import SpecificityQueries
from mmn.studies.tables import TABLES

TIME = "2026-11-20T10:00:00+00:00"
D_MLP = 10
FLAGS: dict[str, object] = {
    "n_mentions": 1,
    "token_id": 7,
    "logit": 1.0,
    "prob": 0.5,
    "residual": 0.0,
    "is_first": True,
}
FLAGS |= {"is_multi_token": False, "is_shared_token": False, "is_in_reference": None, "target_at": None}


def concept(image: str, noun: str, lemma: str, position: int, variant: str = ORIGINAL) -> dict:
    return {"image_id": image, "variant": variant, "noun": noun, "lemma": lemma, "position": position} | FLAGS


def scores(image: str, noun: str, units: list[tuple[int, int]], variant: str = ORIGINAL) -> list[dict]:
    key = {"image_id": image, "variant": variant, "noun": noun, "method": "contribution", "activation": None}
    return [
        key | {"rank": rank, "layer": layer, "unit": unit, "score": 9.0 - rank, "token_position": None}
        for rank, (layer, unit) in enumerate(units, start=1)
    ]


def region(image: str, noun: str, draw: int, ratio: float, floor: float | None, k: int = 2) -> dict:
    key = {"image_id": image, "kind": "region", "noun": noun, "method": "contribution", "k": k, "draw": draw}
    return key | {"ratio": ratio, "floor_other_noun": floor, "floor_random": k / 20, "n": 1}


def across(noun: str, draw: int, ratio: float, n: int = 5) -> dict:
    key = {"image_id": None, "kind": "cross-image", "noun": noun, "method": "contribution", "k": 2, "draw": draw}
    return key | {"ratio": ratio, "floor_other_noun": None, "floor_random": 0.01, "n": n}


def shared(noun: str, draw: int, layer: int, n_shared: int, n: int = 5) -> dict:
    key = {"noun": noun, "method": "contribution", "k": 2, "draw": draw, "n": n}
    return key | {"layer": layer, "n_shared": n_shared, "n_random": 0.02 if draw == 2 else 0.01}


def specific(
    image: str,
    unit_noun: str,
    noun: str,
    share: float,
    is_control: bool = False,
    layer: int = 0,
    selection: str = "held-out",
) -> dict:
    key = {"image_id": image, "unit_noun": unit_noun, "noun": noun, "method": "contribution", "layer": layer}
    found = {"selection": selection, "found_on": "other" if selection == "held-out" else None}
    return key | found | {"unit": 3, "score": 10 * share, "share": share, "is_control": is_control}


def fits(image: str, noun: str, value: float, control: float, metric: str = "word-f1-v1") -> dict:
    key = {"image_id": image, "noun": noun, "method": "contribution", "metric": metric}
    return key | {"value": value, "control": control, "control_blank": None}


def selective(unit_noun: str, noun: str, share: float, n_units: int = 20) -> dict:
    key = {"unit_noun": unit_noun, "noun": noun, "method": "contribution", "is_control": False, "value": 2 * share}
    return key | {"share": share, "n_units": n_units, "n_images": 5, "held_out": 5}


# Picture a says dogs and a cat, b says a dog. Under shuffling 0 a says a dog only, under 1 both; b says its dog in 0.
ROWS: dict[str, list[dict]] = {
    "image": [
        {"image_id": image, "source": image, "sources": [image], "width": 8, "height": 8, "reference": []}
        for image in "ab"
    ],
    "caption": [
        {"image_id": image, "variant": variant, "text": f"text of {image}", "tokens": [1]}
        for image, variant in itertools.product("ab", (ORIGINAL, "shuffled-0", "shuffled-1"))
    ],
    "concept": [
        concept("a", "dogs", "dog", 1),
        concept("a", "cat", "cat", 4),
        concept("b", "dog", "dog", 1),
        concept("a", "dog", "dog", 1, "shuffled-0"),
        concept("a", "dog", "dog", 1, "shuffled-1"),
        concept("a", "cat", "cat", 2, "shuffled-1"),
        concept("b", "dog", "dog", 1, "shuffled-0"),
    ],
    "score": [
        *scores("a", "dogs", [(0, 1), (0, 2), (1, 1), (1, 2)]),
        *scores("a", "cat", [(0, 5), (0, 6), (1, 5), (1, 6)]),
        *scores("b", "dog", [(1, 2), (0, 1), (1, 3), (1, 4)]),
        *scores("a", "dog", [(0, 1), (1, 1), (0, 2), (1, 9)], "shuffled-0"),
        *scores("a", "dog", [(1, 8), (1, 9), (0, 2), (0, 3)], "shuffled-1"),
        *scores("b", "dog", [(1, 2), (0, 1), (0, 8), (0, 9)], "shuffled-0"),
    ],
    "invariance": [
        region("a", "dogs", 0, 1.0, 0.2),
        region("a", "dogs", 1, 0.5, 0.0),
        region("a", "cat", 1, 0.0, 0.4),
        region("b", "dog", 0, 0.5, None),
        *[across("dog", draw, ratio) for draw, ratio in enumerate((0.0, 0.5, 1.0))],
        across("cat", 0, 0.75),
        across("cat", 0, 0.25, n=3),
    ],
    "shared_layer": [shared("dog", 0, 1, 0), shared("dog", 1, 1, 1), shared("dog", 2, 0, 1), shared("dog", 2, 1, 1)],
    "specificity": [
        specific("a", "dogs", "dogs", 1.0),
        specific("a", "dogs", "cat", 0.2),
        specific("a", "cat", "cat", 1.0, layer=1),
        specific("a", "cat", "dogs", 1.5, layer=1),
        specific("a", "dogs", "dogs", 0.1, is_control=True),
        specific("a", "dogs", "cat", -0.1, is_control=True),
        specific("b", "dog", "dog", 1.0),
        specific("b", "dog", "dog", 1.0, selection="same"),
        specific("a", "dogs", "dogs", 1.0, selection="same"),
        specific("a", "dogs", "cat", 0.9, selection="same"),
        specific("a", "dogs", "dogs", 1.0, True, selection="shuffled"),
        specific("a", "dogs", "cat", 0.3, True, selection="shuffled"),
    ],
    "selectivity": [
        selective("dog", "dog", 1.0),
        selective("dog", "cat", 0.25),
        selective("cat", "dog", 0.5),
        selective("cat", "dog", 0.9, n_units=5),
    ],
    "sensitivity": [
        fits("a", "dogs", 0.4, 0.0),
        fits("a", "cat", 0.8, 0.4),
        fits("b", "dog", 0.2, 0.1),
        fits("b", "dog", 7.0, 3.0, "clip"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    with filled(tmp_path_factory.mktemp("cache")) as opened:
        yield opened


@contextmanager
def filled(path: Path) -> Iterator[Store]:
    """A store with `ROWS`."""
    facts = ModelFacts("tiny", "f" * 16, "llava", 2, D_MLP)
    settings = ScoreSettings(prompt="A", methods=("contribution",), top_k=4)
    run_path = create_run(path / "runs", Run("e" * 16, TIME, facts, "two", "A", settings, {}))
    write_shard(run_path, "all", {name: pa.Table.from_pylist(rows, schema=TABLES[name]) for name, rows in ROWS.items()})
    finish_run(run_path, Outcome(COMPLETE, TIME, 1.0))
    with Store.open(path) as opened:
        opened.load_new_shards([opened.runs_path])
        yield opened


def test_region_is_the_mean_over_concepts_then_pictures_then_seeds(store: Store) -> None:
    [row] = store.ask(InvarianceQueries).curves("latest", ["contribution"], [2, 99]).to_dict("records")
    assert row["ratio"] == pytest.approx(((1.0 + 0.5) / 2 + (0.5 + 0.0) / 2) / 2)
    assert row["floor_other_noun"] == pytest.approx((0.2 + (0.0 + 0.4) / 2) / 2)
    assert (row["floor_random"], row["n_images"], row["n_concepts"]) == (pytest.approx(0.1), 2, 3)
    assert np.isnan([row["ratio_low"], row["ratio_high"]]).all(), "two pictures are too few"


def test_concepts_filter_by_lemma_and_count_a_lemma_s_forms_together(store: Store) -> None:
    rows = store.ask(InvarianceQueries).by_concept("latest", "contribution", 2).set_index("lemma")
    assert rows.loc["dog", "ratio"] == pytest.approx(((1.0 + 0.5) / 2 + 0.5) / 2)
    assert rows.loc["dog", "n_images"] == 2
    assert rows.loc["cat", ["ratio", "difference"]].tolist() == pytest.approx([0.0, -0.4])
    assert rows.loc["dog", "difference"] == pytest.approx((0.8 + 0.5) / 2), "b has no other noun, so no difference"
    assert store.ask(InvarianceQueries).curves("latest", ["contribution"], [2], ["cat"])["n_concepts"].tolist() == [1]
    with pytest.raises(UsageError, match=r"mmn invariance e+ --kind region"):
        store.ask(InvarianceQueries).curves("latest", ["contribution"], [2], ["bus"])


def test_layers_keep_the_nouns_whose_first_unit_lies_there(store: Store) -> None:
    """Layer 1 leads b's dog, layer 0 both nouns of a."""
    high = (1, 1)
    [row] = store.ask(InvarianceQueries).curves("latest", ["contribution"], [2], layers=high).to_dict("records")
    assert (row["ratio"], row["n_images"], row["n_concepts"]) == (0.5, 1, 1)
    assert store.ask(InvarianceQueries).curves("latest", ["contribution"], [2], layers=(0, 0))[
        "n_concepts"
    ].tolist() == [2]
    [dog] = store.ask(InvarianceQueries).by_concept("latest", "contribution", 2, layers=high).to_dict("records")
    assert (dog["lemma"], dog["ratio"], dog["n_images"]) == ("dog", 0.5, 1)
    assert store.ask(InvarianceQueries).by_layer("latest", "contribution", 4, layers=high)["n_units"].tolist() == [
        1,
        3,
    ]
    assert store.ask(SensitivityQueries).summary("latest", ["contribution"], ["word-f1-v1"], layers=high)[
        "value"
    ].tolist() == [0.2]
    with pytest.raises(UsageError, match="for the nouns cat led by layers 1 to 1"):
        store.ask(InvarianceQueries).curves("latest", ["contribution"], [2], ["cat"], high)
    with pytest.raises(UsageError, match="layers 1 … 2 are not in 0 … 1"):
        store.ask(SensitivityQueries).summary("latest", ["contribution"], ["word-f1-v1"], layers=(1, 2))


def test_nouns_that_survive_are_found_by_lemma(store: Store) -> None:
    found = store.ask(InvarianceQueries).survival("latest")
    assert found["share"] == pytest.approx(((0.5 + 1) / 2 + (1 + 0) / 2) / 2)
    assert (found["n_concepts"], found["n_kept"], found["n_images"], found["n_draws"]) == (6, 4, 2, 2)
    assert store.ask(InvarianceQueries).survival("latest", ["bus"])["n_images"] == 0


def test_nouns_that_survive_are_those_led_by_the_layers(store: Store) -> None:
    """By contribution the dog of b alone has its first unit in layer 1; shuffling 0 keeps it, 1 does not."""
    found = store.ask(InvarianceQueries).survival("latest", method="contribution", layers=(1, 1))
    assert (found["share"], found["n_concepts"], found["n_kept"], found["n_images"]) == (0.5, 2, 1, 1)
    assert store.ask(InvarianceQueries).survival("latest", method="activation", layers=(0, 1))["n_images"] == 0


def test_layers_tell_which_share_of_their_top_units_stays(store: Store) -> None:
    rows = store.ask(InvarianceQueries).by_layer("latest", "contribution", 4).set_index("layer")
    # Layer 0: a's 1, 2 stay under shuffling 0, 2 under 1; b's 1 stays. Layer 1: a's 1 under 0, b's 2 of 2, 3, 4.
    assert rows["share"].tolist() == pytest.approx([4 / 5, 2 / 7])
    assert rows["n_units"].tolist() == [5, 7]
    assert rows["chance"].tolist() == pytest.approx(
        [(2 * 2 + 2 * 2 + 1 * 3) / D_MLP / 5, (2 * 2 + 2 * 2 + 3) / D_MLP / 7]
    )
    assert rows["n_images"].tolist() == [2, 2]
    top = store.ask(InvarianceQueries).by_layer("latest", "contribution", 2, ["dog"]).set_index("layer")
    assert top["share"].tolist() == pytest.approx([2 / 5, 1.0])
    with pytest.raises(UsageError):
        store.ask(InvarianceQueries).by_layer("latest", "activation", 2)


def test_across_pictures_the_range_is_of_draws_and_a_single_draw_has_none(store: Store) -> None:
    rows = store.ask(CrossImageQueries).by_concept("latest", "contribution", 2, 5)
    assert rows["noun"].tolist() == ["cat", "dog"]
    dog = rows.set_index("noun").loc["dog"]
    assert dog[["ratio", "ratio_low", "ratio_high", "n_draws"]].tolist() == pytest.approx([0.5, 0, 1, 3])
    cat = rows.set_index("noun").loc["cat"]
    assert cat["n_draws"] == 1
    assert cat[["ratio_low", "ratio_high"]].isna().all()
    assert store.ask(CrossImageQueries).by_concept("latest", "contribution", 2, 3)["ratio"].tolist() == [0.25]
    measured = store.ask(InvarianceQueries).measured("latest").to_dict("records")
    assert {(row["kind"], row["k"], row["n"], row["n_draws"]) for row in measured} == {
        ("region", 2, 1, 2), ("cross-image", 2, 5, 3), ("cross-image", 2, 3, 1)
    }  # fmt: skip


def test_across_pictures_layers_show_their_part_of_the_whole(store: Store) -> None:
    """Dog's three draws share none, one unit of layer 1, and one of each layer, of k = 2."""
    ask = ("latest", "contribution", 2, 5, ["dog"])
    [whole] = store.ask(CrossImageQueries).by_concept(*ask).to_dict("records")
    [low], [high] = (
        store.ask(CrossImageQueries).by_concept(*ask, layers).to_dict("records") for layers in ((0, 0), (1, 1))
    )
    assert (low["ratio"], high["ratio"]) == (pytest.approx(1 / 6), pytest.approx(1 / 3))
    assert low["ratio"] + high["ratio"] == pytest.approx(whole["ratio"])
    assert (low["floor_random"], high["floor_random"]) == (pytest.approx(0.02 / 6), pytest.approx(0.04 / 6))
    assert (low["n_draws"], low["ratio_high"]) == (3, pytest.approx(0.5))
    rows = store.ask(CrossImageQueries).by_layer(*ask)
    assert rows["layer"].tolist() == [0, 1]
    assert rows["share"].tolist() == pytest.approx([1 / 6, 1 / 3])
    assert rows["floor_random"].tolist() == pytest.approx([0.02 / 6, 0.04 / 6])
    assert rows["n_concepts"].tolist() == [1, 1]
    with pytest.raises(UsageError, match="not in 0 … 1"):
        store.ask(CrossImageQueries).by_concept(*ask, (1, 2))


def test_draws_counted_without_layers_are_to_be_counted_again(store: Store) -> None:
    """The cat's draw has units that chance would share, and no rows that tell in which layers they lie."""
    for ask in (
        lambda: store.ask(CrossImageQueries).by_concept("latest", "contribution", 2, 5, ["cat"], (0, 1)),
        lambda: store.ask(CrossImageQueries).by_layer("latest", "contribution", 2, 5),
    ):
        with pytest.raises(UsageError, match=r"count them again with mmn invariance .* --kind cross-image"):
            ask()


def test_specificity_means_by_concept_and_over_all(store: Store) -> None:
    rows = store.ask(SpecificityQueries).by_concept("latest", "contribution")
    found = {(row.is_control, row.unit_lemma, row.lemma): (row.share, row.n_images) for row in rows.itertuples()}
    assert found[False, "dog", "dog"] == (1.0, 2)
    assert found[False, "cat", "dog"] == (1.5, 1)
    assert found[True, "dog", "cat"] == (pytest.approx(-0.1), 1)
    key = ["selection", "is_control", "is_own"]
    summary = store.ask(SpecificityQueries).summary("latest", ["contribution"]).set_index(key)
    held_out = summary.loc["held-out"]
    assert held_out.loc[(False, False), ["share", "n_images", "n"]].tolist() == pytest.approx([(0.2 + 1.5) / 2, 1, 2])
    assert held_out.loc[(True, True), "share"] == pytest.approx(0.1)
    assert summary.loc[("same", False, False), "share"] == pytest.approx(0.9)
    assert summary.loc[("shuffled", True, False), "share"] == pytest.approx(0.3)
    low = store.ask(SpecificityQueries).summary("latest", ["contribution"], layers=(0, 0)).set_index(key)
    assert low.loc[("held-out", False, False), "share"] == pytest.approx(0.2)


def test_units_of_the_same_picture_have_their_null_for_a_control(store: Store) -> None:
    assert store.ask(SpecificityQueries).selections("latest") == ["held-out", "same", "shuffled"]
    rows = store.ask(SpecificityQueries).by_concept("latest", "contribution", selection="same")
    found = {(row.is_control, row.unit_lemma, row.lemma): row.share for row in rows.itertuples()}
    assert found[False, "dog", "cat"] == pytest.approx(0.9)
    assert found[True, "dog", "cat"] == pytest.approx(0.3), "the shuffled null, not random units"
    one = store.ask(SpecificityQueries).of_picture("latest", "a", "contribution", selection="same")
    assert set(zip(one["selection"], one["is_control"], strict=True)) == {("same", False), ("shuffled", True)}


def test_each_pair_of_concepts_is_tested_against_its_control_on_the_same_pictures(tmp_path: Path) -> None:
    """Dog's units beat their control in 12 pictures by .5 each, and for the cat of six of them by nothing."""
    facts = ModelFacts("tiny", "f" * 16, "llava", 2, D_MLP)
    settings = ScoreSettings(prompt="A", methods=("contribution",), top_k=4)
    run_path = create_run(tmp_path / "runs", Run("e" * 16, TIME, facts, "two", "A", settings, {}))
    names = [f"{number:02d}" for number in range(12)]
    rows: dict[str, list[dict]] = {"image": [], "concept": [], "specificity": []}
    for number, name in enumerate(names):
        rows["image"].append(
            {"image_id": name, "source": name, "sources": [name], "width": 8, "height": 8, "reference": []}
        )
        rows["concept"] += [concept(name, noun, noun, at) for at, noun in enumerate(("dog", "cat")[: 1 + number % 2])]
        rows["specificity"] += [specific(name, "dog", "dog", 0.6), specific(name, "dog", "dog", 0.1, True)]
        if number % 2:
            rows["specificity"] += [specific(name, "dog", "cat", share, share > 0) for share in (0.0, 0.001)]
    write_shard(run_path, "one", {n: pa.Table.from_pylist(told, schema=TABLES[n]) for n, told in rows.items()})
    with Store.open(tmp_path) as opened:
        opened.load_new_shards([opened.runs_path])
        found = opened.ask(SpecificityQueries).by_concept("latest", "contribution")
    told = {(row.is_control, row.lemma): (row.n_images, row.p, row.is_discovery) for row in found.itertuples()}
    assert told[False, "dog"] == (12, 2 / 2**12, True)
    assert told[False, "cat"] == (6, pytest.approx(2 / 2**6), True)  # .031, the larger of two: its bound is .05
    assert pd.isna(told[True, "dog"][1]), "a control is not tested against itself"


def test_highest_for_own_noun_needs_two_nouns(store: Store) -> None:
    rows = (
        store.ask(SpecificityQueries)
        .highest_for_own_noun("latest", ["contribution"])
        .set_index(["selection", "is_control"])
    )
    top, control = rows.loc[("held-out", False)], rows.loc[("held-out", True)]
    assert top[["share", "n_images", "n", "chance"]].tolist() == [0.5, 1, 2, 0.5]
    assert control["share"] == 1.0
    assert rows.loc[("shuffled", True), "share"] == rows.loc[("same", False), "share"] == 1.0


def test_a_silent_unit_fails_and_is_not_left_out(tmp_path: Path) -> None:
    """Without a share (its noun's top score is not above 0) a unit did not count, and only good ones were judged."""
    with filled(tmp_path) as store:
        store._database.connection.execute(
            "UPDATE specificity SET share = NULL, score = score - 100 WHERE unit_noun = 'cat' AND NOT is_control"
        )
        [share] = store.ask(SpecificityQueries).highest_for_own_noun("latest", ["contribution"], ["cat"])["share"]
    assert share == 0.0


def test_nouns_of_one_picture_are_counted(store: Store) -> None:
    assert store.ask(SpecificityQueries).nouns_of_one_picture("latest") == 1  # the cat; two pictures say dog
    assert store.ask(SpecificityQueries).nouns_of_one_picture("latest", ["dog"]) == 0


def test_picture_of_specificity_is_in_the_order_of_its_caption(store: Store) -> None:
    assert store.ask(SpecificityQueries).pictures("latest", "contribution")["n_nouns"].tolist() == [2, 1]
    assert store.ask(SpecificityQueries).pictures("latest", "contribution", ["cat"])["image_id"].tolist() == ["a"]
    rows = store.ask(SpecificityQueries).of_picture("latest", "a", "contribution")
    assert rows["unit_noun"].tolist() == ["dogs", "dogs", "cat", "cat", "dogs", "dogs"]
    assert rows["noun"].tolist()[:4] == ["dogs", "cat", "dogs", "cat"]
    high = store.ask(SpecificityQueries).of_picture("latest", "a", "contribution", (1, 1))
    assert set(high["unit_noun"]) == {"cat"}
    with pytest.raises(UsageError, match="picture b, layers 1 to 1"):
        store.ask(SpecificityQueries).of_picture("latest", "b", "contribution", (1, 1))
    with pytest.raises(UsageError, match="picture c"):
        store.ask(SpecificityQueries).of_picture("latest", "c", "contribution")


def test_classes_of_the_larger_setting_by_how_often_they_are_said(store: Store) -> None:
    rows = store.ask(SelectivityQueries).by_class("latest", "contribution")
    assert list(zip(rows["unit_noun"], rows["noun"], rows["share"], strict=True)) == [
        ("dog", "dog", 1.0), ("dog", "cat", 0.25), ("cat", "dog", 0.5)
    ]  # fmt: skip
    assert store.ask(SelectivityQueries).by_class("latest", "contribution", most=1)["noun"].tolist() == ["dog"]


def test_sensitivity_averages_concepts_before_pictures(store: Store) -> None:
    assert store.ask(SensitivityQueries).measured("latest") == (["contribution"], ["clip", "word-f1-v1"])
    rows = store.ask(SensitivityQueries).summary("latest", ["contribution"], ["word-f1-v1", "clip"]).set_index("metric")
    assert rows.loc["word-f1-v1", ["value", "control", "difference"]].tolist() == pytest.approx([0.4, 0.15, 0.25])
    assert rows["n"].tolist() == [3, 1]
    assert rows["n_images"].tolist() == [2, 1]
    dogs = store.ask(SensitivityQueries).summary("latest", ["contribution"], ["word-f1-v1"], ["dog"])
    assert dogs["value"].tolist() == pytest.approx([0.3])


def test_tables_of_many_comparisons_are_tested(store: Store) -> None:
    """Of a hundred concepts some differ from their control by chance, and none said so."""
    across = store.ask(CrossImageQueries).by_concept("latest", "contribution", 2, 5).set_index("noun")
    assert across["p"].to_dict() == pytest.approx({"cat": 0.01 / 0.75, "dog": 0.01 / 0.5})
    assert across["is_discovery"].all()  # .0133 ≤ .05 / 2 and .02 ≤ .05
    shuffled = store.ask(InvarianceQueries).by_concept("latest", "contribution", 2).set_index("lemma")
    assert shuffled["p"].to_dict() == {"dog": 1.0, "cat": 1.0}, "one picture each has a floor"
    assert not shuffled["is_discovery"].any()
    rows = store.ask(SensitivityQueries).summary("latest", ["contribution"], ["word-f1-v1", "clip"]).set_index("metric")
    assert rows["p"].to_dict() == {"word-f1-v1": 2 / 4, "clip": 1.0}  # two pictures that agree, one picture
    assert not rows["is_discovery"].any()


def test_a_table_has_rows_of_the_kinds_that_were_measured(store: Store) -> None:
    assert store.has_rows("latest", "invariance", "region")
    assert not store.has_rows("latest", "invariance", "sideways")
    assert not store.has_rows("latest", "effect")
    with pytest.raises(UsageError, match="no table 'nowhere'"):
        store.has_rows("latest", "nowhere")


def test_a_run_without_experiments_has_empty_answers(tmp_path: Path) -> None:
    facts = ModelFacts("tiny", "f" * 16, "llava", 2, D_MLP)
    settings = ScoreSettings(prompt="A", methods=("contribution",), top_k=4)
    run_path = create_run(tmp_path / "runs", Run("d" * 16, TIME, facts, "two", "A", settings, {}))
    finish_run(run_path, Outcome(COMPLETE, TIME, 1.0))
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        assert store.ask(InvarianceQueries).measured("latest").empty
        assert store.ask(InvarianceQueries).survival("latest")["n_images"] == 0
        assert store.ask(SpecificityQueries).methods("latest") == store.ask(SelectivityQueries).methods("latest") == []
        assert store.ask(SensitivityQueries).measured("latest") == ([], [])
        assert isinstance(store.ask(SpecificityQueries).pictures("latest", "contribution"), pd.DataFrame)
