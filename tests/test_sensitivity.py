"""Words of top units against nouns, captions and pictures: hand-made words whose value and control are known."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmn.cli import main
from mmn.errors import UsageError
from mmn.metrics import Lexical
from mmn.names import BLANK, CONTRIBUTION, ORIGINAL
from mmn.runs import shards
from mmn.runs.plan import Progress
from mmn.store import Store
from mmn.studies.sensitivity.measure import measure_sensitivity, pair_pictures, summarize_sensitivity
from mmn.studies.tables import TABLES
from tests.test_shards import RUN, concept_row
from tests.tiny_metrics import save_tiny_bert, save_tiny_clip

KEY = ["image_id", "noun", "method", "metric"]
FILLER = ["of", "the", "and", ".", ",", "<0xE2>", "a", "in", "on"]

# picture -> noun -> what each of its units writes beside filler, best first
ConceptAt = Mapping[str, Mapping[str, list[str]]]
SAID: ConceptAt = {
    "one": {"dogs": ["dog", "cat"], "beach": ["sand", "beach"]},
    "two": {"cat": ["camel", "cat"]},
    "three": {"camels": ["rocket", "sea"], "dog": ["dogs", "dog"], "sea": ["dog", "sea"]},
}
REFERENCES = {"one": ["a dog at the sea.", "sand."], "two": [], "three": ["a camel."]}
METHODS = (CONTRIBUTION, "random")


def no_model() -> NoReturn:
    raise AssertionError("the model was loaded, and all units are decoded")


@dataclass(frozen=True)
class Shared:
    """How many words two texts share; counts its calls, and refuses to be called where it must not be."""

    calls: list[int]
    may: bool = True
    name: str = "shared-v0"

    def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        assert self.may
        self.calls.append(len(candidates))
        pairs = zip(candidates, references, strict=True)
        return [float(len(set(one.split()) & set(other.split()))) for one, other in pairs]


@dataclass(frozen=True)
class Whose:
    """The number in the word that a unit writes."""

    name: str = "whose-v0"

    def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        pairs = zip(candidates, references, strict=True)
        return [float(text.split("word")[1][:2]) for text, _ in pairs]


@dataclass(frozen=True)
class Width:
    """An image metric: the picture's width, plus 1 where the text says dog."""

    name: str = "width-v0"

    def compare_images(self, texts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        pairs = zip(texts, images, strict=True)
        return [image.width + float("dog" in text.split()) for text, image in pairs]


def write_run(
    path: Path, said: ConceptAt = SAID, ids: Mapping[str, str] | None = None, variants: tuple[str, ...] = (ORIGINAL,)
) -> Path:
    """A scored run in two batches: `contribution` ranks the units given, `random` their reverse; over grey the other
    way round.
    """
    settings = replace(RUN.settings, methods=METHODS, variants=variants)
    run_path = shards.create_run(path / "runs", replace(RUN, settings=settings))
    ids = ids or {}
    words: list[str] = []
    pictures = list(said.items())
    for number, some in enumerate(filter(None, (pictures[:2], pictures[2:]))):
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("image", "caption", "concept", "score")}
        for name, nouns in some:
            image_id, source = ids.get(name, name), str(path / f"{name}.png")
            size = {"width": 32, "height": 24, "reference": REFERENCES.get(name, [])}
            rows["image"].append({"image_id": image_id, "source": source, "sources": [source]} | size)
            caption = {"image_id": image_id, "variant": ORIGINAL, "text": f"a {' and '.join(nouns)}.", "tokens": [1]}
            rows["caption"].append(caption)
            for position, (noun, units) in enumerate(nouns.items()):
                rows["concept"].append(concept_row(image_id, noun, position))
                places = [(len(words) + index) for index in range(len(units))]
                words += units
                rows["score"] += [
                    score_row(image_id, noun, method, rank, place) | {"variant": variant}
                    for variant in variants
                    for method, turn in ((CONTRIBUTION, 1), ("random", -1))
                    for rank, place in enumerate(places[:: turn if variant == ORIGINAL else -turn], 1)
                ]
                if BLANK in variants:
                    rows["concept"].append(concept_row(image_id, noun, position) | {"variant": BLANK})
        chosen = ids.get(some[0][0], some[0][0])
        rows["concept"].append(concept_row(chosen, "window", 9, target_at=next(iter(some[0][1]))))
        rows["score"].append(score_row(chosen, "window", CONTRIBUTION, 1, 0))
        tables = {name: pa.Table.from_pylist(of, schema=TABLES[name]) for name, of in rows.items()}
        shards.write_shard(run_path, f"batch-{number:05d}", tables)
    decoded = [
        {
            "model_fingerprint": RUN.model.fingerprint,
            "layer": place // 8,
            "unit": place % 8,
            "tokens": [*FILLER[:4], word, *FILLER[4:]],
            "logits": [0.0] * 10,
            "is_interpretable": False,
        }
        for place, word in enumerate(words)
    ]
    shards.write_shard(run_path, "neurons", {"neuron": pa.Table.from_pylist(decoded, schema=TABLES["neuron"])})
    return run_path


def score_row(image_id: str, noun: str, method: str, rank: int, place: int) -> dict[str, Any]:
    key = {"image_id": image_id, "variant": ORIGINAL, "noun": noun, "method": method, "rank": rank}
    return key | {"layer": place // 8, "unit": place % 8, "score": 1.0, "activation": None, "token_position": None}


def measured(run_path: Path, **more: Any) -> pd.DataFrame:
    return measure_sensitivity(run_path, no_model, **more)["sensitivity"].to_pandas()


def cell(rows: pd.DataFrame, image_id: str, noun: str, metric: str, method: str = CONTRIBUTION) -> tuple[float, float]:
    (row,) = rows[
        (rows["image_id"] == image_id)
        & (rows["noun"] == noun)
        & (rows["metric"] == metric)
        & (rows["method"] == method)
    ].itertuples()
    return row.value, row.control


# ---- pairing


@given(st.sets(st.text(min_size=1), min_size=2, max_size=40), st.integers(0, 2**32))
def test_the_pairing_is_one_cycle_without_a_picture_of_its_own(image_ids: set[str], seed: int) -> None:
    other = pair_pictures(image_ids, seed)
    assert set(other) == set(other.values()) == image_ids
    assert all(one != partner for one, partner in other.items())
    met, one = [], min(image_ids)
    for _ in image_ids:
        one = other[one]
        met.append(one)
    assert set(met) == image_ids
    assert other == pair_pictures(sorted(image_ids, reverse=True), seed)


def test_the_pairing_is_drawn_by_the_seed() -> None:
    image_ids = [str(number) for number in range(30)]
    assert pair_pictures(image_ids, 1) != pair_pictures(image_ids, 2)


def test_a_picture_alone_has_no_control(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"0 pictures with nouns: .* takes two at least; score more"):
        pair_pictures([], 0)
    with pytest.raises(UsageError, match="1 picture with nouns"):
        measured(write_run(tmp_path, {"one": SAID["one"]}))


# ---- values


def test_values_and_controls_are_those_of_the_words(tmp_path: Path) -> None:
    rows = measured(write_run(tmp_path), top=1)
    other = pair_pictures(SAID, RUN.settings.seed)
    assert not rows.duplicated(KEY).any()
    assert set(rows["noun"]) == {noun for nouns in SAID.values() for noun in nouns}  # not the word that was chosen
    assert set(rows["metric"]) == {f"lexical-v1:{target}:top1" for target in ("noun", "caption", "reference")}
    own = {"one": {"dogs": 1, "beach": 0}, "two": {"cat": 0}, "three": {"camels": 0, "dog": 1, "sea": 0}}
    first = {image_id: [units[0] for units in nouns.values()] for image_id, nouns in SAID.items()}
    for image_id, nouns in own.items():
        for place, (noun, value) in enumerate(nouns.items()):
            words = first[other[image_id]]
            written = words[place % len(words)].removesuffix("s")
            expected = float(value), float(written == noun.removesuffix("s"))
            assert cell(rows, image_id, noun, "lexical-v1:noun:top1") == expected, (image_id, noun)
    assert cell(rows, "three", "sea", "lexical-v1:caption:top1")[0] == 1  # "dog" is another noun of its caption
    assert cell(rows, "one", "beach", "lexical-v1:reference:top1")[0] == 1  # "sand" is in the second reference
    assert cell(rows, "three", "dog", "lexical-v1:reference:top1")[0] == 0
    assert set(rows.loc[rows["metric"] == "lexical-v1:reference:top1", "image_id"]) == {"one", "three"}


def test_the_best_unit_counts_and_each_method_has_its_own(tmp_path: Path) -> None:
    run_path = write_run(tmp_path)
    one, two = measured(run_path, top=1), measured(run_path, top=2)
    for method, value in ((CONTRIBUTION, 0), ("random", 1)):
        assert cell(one, "one", "beach", "lexical-v1:noun:top1", method)[0] == value
        assert cell(two, "one", "beach", "lexical-v1:noun:top2", method)[0] == 1
        assert cell(one, "three", "camels", "lexical-v1:noun:top1", method)[0] == 0
        assert cell(two, "three", "camels", "lexical-v1:noun:top2", method)[0] == 0
    shared = measured(run_path, top=2, metrics=[Shared([])])
    assert cell(shared, "two", "cat", "shared-v0:noun:top2")[0] == 1
    assert cell(shared, "two", "cat", "shared-v0:caption:top2")[0] == 1  # "a"; its caption says "cat." with the dot


def test_the_control_is_the_units_of_the_other_pictures_nouns_in_turn(tmp_path: Path) -> None:
    """Each noun's unit writes a word of its own, so that a control tells whose units it is of."""
    said = {f"p{n}": {f"noun{n}{j}": [f"word{n}{j}"] for j in range(1 + n % 3)} for n in range(6)}
    other = pair_pictures(said, RUN.settings.seed)
    rows = measured(write_run(tmp_path, said), metrics=[Whose()])
    assert rows["noun"].nunique() == 12
    for row in rows.itertuples():
        n_other = int(other[row.image_id][1])
        own, place = row.noun.removeprefix("noun"), int(row.noun[-1])
        assert (row.value, row.control) == (int(own), 10 * n_other + place % (1 + n_other % 3))


def test_a_control_undergoes_the_same_choice_as_the_units(tmp_path: Path) -> None:
    """Units chosen for a noun by a score that holds the noun's token write it; the shuffled pairing's were chosen for
    another one. Over a grey picture the same choice is made for the same noun.
    """
    run_path = write_run(tmp_path, variants=(ORIGINAL, BLANK))
    rows = measured(run_path, top=1)
    rows = rows[rows["metric"] == "lexical-v1:noun:top1"].set_index(["image_id", "noun", "method"])
    over_grey = rows["control_blank"]
    assert over_grey.notna().all()
    for image_id, noun in {
        (image_id, noun) for image_id, noun, _ in rows.index
    }:  # there the two rankings change places
        assert over_grey[image_id, noun, CONTRIBUTION] == rows["value"][image_id, noun, "random"]
        assert over_grey[image_id, noun, "random"] == rows["value"][image_id, noun, CONTRIBUTION]
    assert over_grey["one", "beach", CONTRIBUTION] != rows["value"]["one", "beach", CONTRIBUTION]
    table = summarize_sensitivity(rows.reset_index()).set_index("method")
    assert table.loc[CONTRIBUTION, "control_blank"] == pytest.approx(table.loc["random", "value"])
    assert (table["n"] == 3).all()


def test_without_a_grey_picture_there_is_no_such_control(tmp_path: Path) -> None:
    rows = measured(write_run(tmp_path), top=1)
    assert rows["control_blank"].isna().all()
    assert "control_blank" not in summarize_sensitivity(rows)


def test_pictures_are_compared_with_their_own_pixels(tmp_path: Path) -> None:
    ids = {}
    for number, name in enumerate(SAID):
        Image.new("RGB", (20 + number, 20), "red").save(tmp_path / f"{name}.png")
        ids[name] = hashlib.sha256((tmp_path / f"{name}.png").read_bytes()).hexdigest()
    run_path = write_run(tmp_path, ids=ids)
    (tmp_path / "three.png").unlink()
    found = measure_sensitivity(run_path, no_model, [Width(), Lexical()], top=1)
    assert [Path(row["source"]).name for row in found["failure"].to_pylist()] == ["three.png"]
    rows = found["sensitivity"].to_pandas()
    name = "width-v0:image:top1"
    assert set(rows.loc[rows["metric"] == name, "image_id"]) == {ids["one"], ids["two"]}
    assert set(rows.loc[rows["metric"] == "lexical-v1:noun:top1", "image_id"]) == set(ids.values())
    assert cell(rows, ids["one"], "dogs", name)[0] == 21
    assert cell(rows, ids["one"], "beach", name)[0] == 20
    assert cell(rows, ids["two"], "cat", name)[0] == 21


# ---- again, more, less


def test_again_measures_nothing_and_other_settings_add_rows(tmp_path: Path) -> None:
    run_path = write_run(tmp_path)
    calls: list[int] = []
    first = measured(run_path, metrics=[Shared(calls)], top=2)
    assert calls
    pd.testing.assert_frame_equal(measured(run_path, metrics=[Shared([], may=False)], top=2), first)
    more = measured(run_path, metrics=[Lexical()], top=1, methods=[CONTRIBUTION])
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        stored = store.table("latest", "sensitivity")
    assert len(stored) == len(first) + len(more)
    assert not stored.duplicated(KEY).any()


def test_a_limit_leaves_the_pairing_as_it_is(tmp_path: Path) -> None:
    run_path = write_run(tmp_path)
    told: list[Progress] = []
    some = measured(run_path, top=2, limit=1, progress=told.append)
    assert [(one.stage, one.done, one.total) for one in told] == [("sensitivity", 0, 1), ("sensitivity", 1, 1)]
    whole = measured(run_path, top=2)
    pd.testing.assert_frame_equal(some, whole[whole["image_id"] == "one"].reset_index(drop=True))


def test_a_top_beyond_the_stored_ranks_is_cut_and_said(tmp_path: Path) -> None:
    rows = measured(write_run(tmp_path), top=50)
    assert rows["metric"].str.endswith(f":top{RUN.settings.top_k}").all()


def test_methods_and_tops_that_are_not_there_are_refused(tmp_path: Path) -> None:
    run_path = write_run(tmp_path)
    with pytest.raises(UsageError, match="no 'attribution' scores; its methods are: contribution, random"):
        measured(run_path, methods=["attribution"])
    with pytest.raises(UsageError, match="at least 1"):
        measured(run_path, top=0)


def test_the_summary_is_of_pictures_and_differences_are_paired(tmp_path: Path) -> None:
    rows = measured(write_run(tmp_path), top=2)
    table = summarize_sensitivity(rows)
    assert len(table) == 6
    (row,) = table[(table["method"] == CONTRIBUTION) & (table["metric"] == "lexical-v1:noun:top2")].itertuples()
    mine = rows[(rows["method"] == CONTRIBUTION) & (rows["metric"] == "lexical-v1:noun:top2")]
    per_picture = mine.groupby("image_id")[["value", "control"]].mean()
    assert row.n == 3
    assert row.value == pytest.approx(per_picture["value"].mean()) == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert row.difference == pytest.approx((per_picture["value"] - per_picture["control"]).mean())
    assert np.isnan([row.value_low, row.difference_high]).all(), "three pictures are too few for an interval"
    assert summarize_sensitivity(rows.iloc[:0]).empty


# ---- command line, on a tiny model


@pytest.fixture(scope="module")
def cache(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of three pictures, nothing decoded."""
    cache = tmp_path_factory.mktemp("sensitivity")
    pictures = paint(cache / "pictures", 3)
    command = [
        "score",
        "--model",
        checkpoint,
        "--images",
        pictures,
        "--cache",
        cache,
        "--methods",
        "contribution,random",
    ]
    more = ["--top-k", 12, "--max-new-tokens", 8, "--batch-size", 2, "--device", "cpu", "--progress", "none"]
    assert main([str(word) for word in [*command, *more]]) == 0
    return cache


def command(*more: object) -> list[str]:
    return ["sensitivity", "latest", *map(str, more), "--device", "cpu", "--progress", "none", "--json"]


def test_the_command_decodes_measures_loads_and_says_what(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip, bert = save_tiny_clip(tmp_path / "tiny-clip"), save_tiny_bert(tmp_path / "tiny-bert")
    capfd.readouterr()
    metrics = f"lexical,word-f1,clipscore:{clip},bertscore:{bert}:2"
    assert main(command("--cache", cache, "--top", 3, "--metrics", metrics)) == 0
    said = json.loads(capfd.readouterr().out)
    assert said == said | {"n_failed": 0, "database": "loaded"}
    kinds = {(row["metric"].split(":")[0], row["metric"].split(":")[-2]) for row in said["table"]}
    texts = [(kind, target) for kind in ("lexical-v1", "word-f1-v1", "bertscore") for target in ("noun", "caption")]
    assert kinds == {*texts, ("clipscore", "image")}
    assert str(tmp_path) not in json.dumps(said)
    with Store.open(cache) as store:
        rows = store.table("latest", "sensitivity")
    assert {row["metric"] for row in said["table"]} == set(rows["metric"])
    for row in said["table"]:
        mine = rows[(rows["metric"] == row["metric"]) & (rows["method"] == row["method"])]
        assert row["value"] == pytest.approx(mine.groupby("image_id")["value"].mean().mean(), abs=1e-9)
    assert rows.loc[rows["metric"].str.startswith("clipscore"), ["value", "control"]].to_numpy().max() > 0


def test_pictures_that_are_gone_fail_and_the_rest_is_measured(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(cache, tmp_path / "copy"))
    (run_path,) = (path for path in (copy / "runs").iterdir() if not path.name.startswith("."))
    clip = save_tiny_clip(tmp_path / "other-clip", seed=3)
    (cache / "pictures" / "000.png").rename(tmp_path / "away.png")
    try:
        capfd.readouterr()
        assert main(command("--cache", copy, "--metrics", f"lexical,clipscore:{clip}", "--top", 2)) == 1
        said = json.loads(capfd.readouterr().out)
    finally:
        (tmp_path / "away.png").rename(cache / "pictures" / "000.png")
    assert said["n_failed"] == 1
    n_of = {row["metric"].split(":")[0]: row["n"] for row in said["table"]}
    assert n_of == {"lexical-v1": 3, "clipscore": 2}
    assert "sensitivity" in {shard.split("-")[0] for shard in shards.finished_shards(run_path)}


def test_the_command_names_what_it_cannot_use(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for message, more in {
        "no metric 'bleu'": ["--metrics", "bleu"],
        "--metrics is empty": ["--metrics", ","],
        "is no folder": ["--metrics", "bertscore:./nowhere"],
        "no 'attribution' scores": ["--methods", "attribution"],
        "whole number": ["--top", "0"],
    }.items():
        capfd.readouterr()
        assert main(command("--cache", cache, *more)) == 2
        assert message in json.loads(capfd.readouterr().out)["message"]
