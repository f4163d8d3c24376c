"""Masks and references that are given to a run after it was scored: used, told, resumed, and the same in any order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from mmn.cli import main
from mmn.core import Neuron
from mmn.errors import SourceError, UsageError
from mmn.models.model import Model
from mmn.names import SET
from mmn.runs import reopen, shards
from mmn.runs.added_later import add_masks, add_references, add_synonyms, mask_specs, run_examples
from mmn.runs.held_out import read_held_out
from mmn.runs.plan import Progress
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.studies.annotate import measure as annotating
from mmn.studies.annotate.measure import annotate
from mmn.studies.annotate.set_looks import annotate_set
from mmn.units.sets import UnitSet
from tests.scored import interrupted_at_the_second, run_path_of, tables_of
from tests.unbound import unbind

TOP = 3
SCORING = ["--methods", "contribution,attribution", "--top-k", 8, "--max-new-tokens", 8, "--batch-size", 2]
TABLES = ["field", "outline", "added_source", "reference", "image", "concept", "failure"]


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--progress", "none"]


@pytest.fixture(scope="module")
def pictures(paint: Callable[[Path, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, of which nobody has said anything."""
    return paint(tmp_path_factory.mktemp("plain") / "pictures", 3)


@pytest.fixture(scope="module")
def scored(pictures: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of them in two batches. Read only."""
    cache = tmp_path_factory.mktemp("scored") / "cache"
    assert main(words("score", "--model", checkpoint, "--images", pictures, "--cache", cache, *SCORING)) == 0
    return cache


@pytest.fixture(scope="module")
def lemmas(scored: Path) -> dict[str, str]:
    """By file name, what the caption says first."""
    with Store.open(scored) as store:
        found = store.table("latest", "concept").sort_values("position").drop_duplicates("image_id")
        sources = store.table("latest", "image").set_index("image_id")["source"]
    return {Path(sources[row.image_id]).name: row.lemma for row in found.itertuples()}


def tables(cache: Path) -> dict[str, pd.DataFrame]:
    return tables_of(cache, TABLES)


def instances(
    path: Path, lemmas: dict[str, str], names: tuple[str, ...] = ("000.png", "001.png"), side: int = 60
) -> str:
    """An instances file that outlines the first noun of each picture in a square, and where it lies."""
    ids = {name: number for number, name in enumerate(names)}
    document = {
        "images": [{"id": str(number), "file_name": f"val\\{name}"} for name, number in ids.items()],
        "categories": [{"id": number, "name": lemmas[name]} for name, number in ids.items()],
        "annotations": [
            {"id": n, "image_id": n, "category_id": n, "segmentation": [[0, 0, side, 0, side, side, 0, side]]}
            for n in ids.values()
        ],
    }
    path.write_text(json.dumps(document))
    return f"coco:{path}"


def captions(path: Path, texts: dict[str, str]) -> str:
    document = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(texts)],
        "annotations": [{"image_id": str(n), "caption": text} for n, text in enumerate(texts.values())],
    }
    path.write_text(json.dumps(document))
    return f"coco:{path}"


def named(found: dict[str, pd.DataFrame], name: str) -> str:
    images = found["image"]
    return images.loc[images["source"].str.endswith(name), "image_id"].item()


def test_masks_given_later_replace_what_was_measured_without_them(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path
) -> None:
    run_path = run_path_of(cache)
    annotate(tiny, run_path, TOP)
    before = tables(cache)
    assert before["field"]["iou"].isna().all()
    added = add_masks(run_path, instances(tmp_path / "instances.json", lemmas))
    assert (added.n_images, added.n_changed, added.n_pictures) == (2, 2, 3)
    told: list[Progress] = []
    annotate(tiny, run_path, 1, ["contribution"], told.append)  # less than before: all of that is measured again
    assert any("masks or synonyms changed: measuring 1 of 2 batches again" in one.message for one in told)
    after = tables(cache)
    keys = ["image_id", "noun", "method", "rank", "layer", "unit"]
    assert (
        after["field"][keys].sort_values(keys).to_numpy().tolist()
        == before["field"][keys].sort_values(keys).to_numpy().tolist()
    )
    measured = after["field"].dropna(subset=["iou"])
    assert set(measured["image_id"]) == {named(after, "000.png"), named(after, "001.png")}
    assert set(measured["method"]) == {"contribution", "attribution"}
    assert sorted(after["outline"]["nouns"].map(list).sum()) == sorted(lemmas[name] for name in ("000.png", "001.png"))
    assert after["added_source"][["kind", "n_images"]].to_numpy().tolist() == [["masks", 2]]


def test_a_set_waits_until_rankings_were_compared_with_changed_masks(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path
) -> None:
    """Its rows would be of other masks than those beside them, and their newer revision would outdate the rankings."""

    def is_of_set() -> bool:
        return bool(tables(cache)["field"]["method"].str.startswith(SET).any())

    run_path, given = run_path_of(cache), UnitSet("one", (Neuron(0, 0),))
    annotate(tiny, run_path, 1, ["contribution"])
    add_masks(run_path, instances(tmp_path / "instances.json", lemmas))
    with pytest.raises(UsageError, match="masks or synonyms have changed"):
        annotate_set(tiny, run_path, given)
    assert not is_of_set()
    annotate(tiny, run_path, 1, ["contribution"])
    annotate_set(tiny, run_path, given)
    assert is_of_set()


def test_synonyms_give_nouns_the_masks_of_what_they_mean_and_are_measured_again(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path
) -> None:
    run_path = run_path_of(cache)
    add_masks(run_path, instances(tmp_path / "instances.json", dict.fromkeys(lemmas, "gizmo")))
    annotate(tiny, run_path, 1, ["contribution"])
    assert tables(cache)["field"]["iou"].isna().all()
    (tmp_path / "words.csv").write_text(f"word,object\n{lemmas['000.png']},gizmos\nabc,gizmo\n")
    add_synonyms(run_path, f"only:{tmp_path / 'words.csv'}")
    annotate(tiny, run_path, 1, ["contribution"])
    found = tables(cache)
    assert set(found["field"].dropna(subset=["iou"])["image_id"]) >= {named(found, "000.png")}
    assert found["outline"].groupby("image_id")["revision"].max().tolist() == [2, 2]
    names = shards.finished_shards(run_path)
    (tmp_path / "words.csv").write_text(f"word,object\n{lemmas['000.png']},gizmo\n")
    assert add_synonyms(run_path, f"only:{tmp_path / 'words.csv'}").is_changed
    annotate(tiny, run_path, 1, ["contribution"])
    assert len(shards.finished_shards(run_path)) == len(names) + 1, "a word that no noun is changes no overlap"


def test_masks_of_other_pictures_are_refused_and_hide_none(cache: Path, lemmas: dict[str, str], tmp_path: Path) -> None:
    run_path = run_path_of(cache)
    spec = instances(tmp_path / "instances.json", lemmas)
    told = json.loads((tmp_path / "instances.json").read_text())
    unnamed, wide = tmp_path / "unnamed.json", tmp_path / "wide.json"
    unnamed.write_text(json.dumps(told | {"categories": []}))
    wide.write_text(json.dumps(told | {"images": [one | {"width": 9, "height": 9} for one in told["images"]]}))
    for file, why in ((unnamed, "has no category"), (wide, "was annotated at 9 × 9")):
        with pytest.raises(SourceError, match=why):
            add_masks(run_path, f"coco:{file}")
    add_masks(run_path, spec)
    assert mask_specs(run_path) == (spec,)


def test_the_same_masks_again_change_nothing(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_path = run_path_of(cache)
    spec = instances(tmp_path / "instances.json", lemmas)
    add_masks(run_path, spec)
    annotate(tiny, run_path, TOP)
    names = shards.finished_shards(run_path)
    assert add_masks(run_path, spec).n_changed == 0
    monkeypatch.setattr(annotating, "unit_maps", None)
    annotate(tiny, run_path, TOP)
    assert shards.finished_shards(run_path) == names


def test_a_mask_file_that_changed_is_measured_again_and_back_again(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path
) -> None:
    run_path, path = run_path_of(cache), tmp_path / "instances.json"
    found = []
    for side in (60, 30, 60):
        add_masks(run_path, instances(path, lemmas, side=side))
        annotate(tiny, run_path, TOP)
        found.append(tables(cache))
    assert [one["outline"]["revision"].max() for one in found] == [1, 2, 3]
    assert not found[0]["field"]["iou"].equals(found[1]["field"]["iou"])
    pd.testing.assert_frame_equal(found[0]["field"], found[2]["field"])


def test_annotations_of_an_earlier_version_are_kept_until_masks_are_added(
    cache: Path, tiny: Model, pictures: Path, checkpoint: Path, lemmas: dict[str, str], tmp_path: Path
) -> None:
    spec = instances(tmp_path / "instances.json", lemmas)
    other = tmp_path / "other"
    more = ["--images", f"{spec}:{pictures}", "--cache", other, *SCORING]
    assert main(words("score", "--model", checkpoint, *more)) == 0
    annotate(tiny, run_path_of(other), TOP)
    for shard in run_path_of(other).glob("annotation-*"):
        (shard / "outline.parquet").unlink(missing_ok=True)
    earlier = run_path_of(other) / f"annotation-batch-00000-{hash_of(run_path_of(other), TOP)}"
    next(run_path_of(other).glob("annotation-batch-00000-*")).rename(earlier)
    unbind(run_path_of(other))
    annotate(tiny, run_path_of(other), TOP)
    assert [path.name for path in run_path_of(other).glob("annotation-batch-00000-*")] == [earlier.name]
    add_masks(run_path_of(other), instances(tmp_path / "others.json", lemmas, side=30))
    annotate(tiny, run_path_of(other), TOP)
    assert len(list(run_path_of(other).glob("annotation-batch-00000-*"))) == 2


def hash_of(run_path: Path, top: int) -> str:
    """How an annotation without known masks is named."""
    methods = ["attribution", "contribution"]
    asked = [top, methods, read_held_out(run_path, methods, top, 0).digest()]
    return reopen.shard_name("", "", asked).rpartition("-")[2]


def test_the_latest_source_that_outlines_something_in_a_picture_counts(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path
) -> None:
    run_path = run_path_of(cache)
    first = instances(tmp_path / "first.json", lemmas)
    second = instances(tmp_path / "second.json", lemmas, ("001.png", "002.png"), side=20)
    for spec in (first, second):
        add_masks(run_path, spec)
    annotate(tiny, run_path, TOP)
    assert mask_specs(run_path) == (second, first)
    after = tables(cache)
    sources = after["outline"].set_index("image_id")["source"]
    assert [sources[named(after, f"00{n}.png")] for n in range(3)] == [first, second, second]
    with Store.open(cache) as store:
        assert store.ask(PictureQueries).mask_specs("latest") == [second, first, store.run("latest")["images"]]


def test_an_interrupted_change_of_masks_goes_on_and_ends_the_same(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(cache, tmp_path / "other"))
    spec = instances(tmp_path / "instances.json", lemmas, ("000.png", "002.png"))
    for one in (cache, other):
        annotate(tiny, run_path_of(one), TOP)
        add_masks(run_path_of(one), spec)
    annotate(tiny, run_path_of(cache), TOP)
    with interrupted_at_the_second(monkeypatch, annotating, "_annotate_batch"):
        annotate(tiny, run_path_of(other), TOP)
    tables(other)  # loaded half-way
    annotate(tiny, run_path_of(other), TOP)
    for name in ("field", "outline"):
        pd.testing.assert_frame_equal(tables(cache)[name], tables(other)[name])


def test_references_given_later_are_the_pictures_references(
    cache: Path, lemmas: dict[str, str], tmp_path: Path
) -> None:
    run_path = run_path_of(cache)
    assert tables(cache)["concept"]["is_in_reference"].isna().all()
    spec = captions(tmp_path / "captions.json", {"x/000.png": f"a {lemmas['000.png']}", "elsewhere.png": "a zebra"})
    added = add_references(run_path, spec, tmp_path)
    assert (added.n_images, added.n_changed, added.n_pictures) == (1, 1, 3)
    found = tables(cache)
    first = named(found, "000.png")
    assert found["image"].set_index("image_id")["reference"].map(list)[first] == [f"a {lemmas['000.png']}"]
    own = found["concept"][found["concept"]["image_id"] == first]
    assert own.set_index("lemma")["is_in_reference"].to_dict() == {
        lemma: lemma == lemmas["000.png"] for lemma in own["lemma"]
    }
    assert found["concept"][found["concept"]["image_id"] != first]["is_in_reference"].isna().all()


@pytest.mark.parametrize("comes", ["with the run", "later"])
def test_references_say_a_noun_by_the_synonyms_of_the_run_whenever_these_are_given(
    pictures: Path, checkpoint: Path, lemmas: dict[str, str], cache: Path, tmp_path: Path, comes: str
) -> None:
    spec = captions(tmp_path / "captions.json", {"000.png": "a quux", "001.png": "ein Hund", "002.png": "eine Katze"})
    if comes == "later":
        add_references(run_path_of(cache), spec, tmp_path)
    else:
        cache = tmp_path / "other"
        more = ["--images", f"{spec}:{pictures}", "--cache", cache, *SCORING]
        assert main(words("score", "--model", checkpoint, *more)) == 0

    def are_said() -> dict[str, set[object]]:
        found = tables(cache)
        concept = found["concept"].astype({"is_in_reference": object}).replace({"is_in_reference": {pd.NA: None}})
        by_name = {Path(row.source).name: row.image_id for row in found["image"].itertuples()}
        return {name: set(concept.loc[concept["image_id"] == one, "is_in_reference"]) for name, one in by_name.items()}

    given = tmp_path / "words.csv"
    assert are_said() == {"000.png": {False}, "001.png": {None}, "002.png": {None}}
    given.write_text(f"word,object\nquux,{lemmas['000.png']}\n")
    add_synonyms(run_path_of(cache), str(given))
    assert True in are_said()["000.png"]
    assert are_said()["001.png"] == {None}
    add_synonyms(run_path_of(cache), "none")
    assert are_said()["000.png"] == {False}
    assert [tuple(one.references) for one in run_examples(run_path_of(cache))] == (
        [(), (), ()] if comes == "later" else [("a quux",), ("ein Hund",), ("eine Katze",)]
    )


def test_references_given_later_are_as_if_scored_with(
    pictures: Path, checkpoint: Path, cache: Path, lemmas: dict[str, str], tmp_path: Path
) -> None:
    spec = captions(tmp_path / "captions.json", {name: f"two {lemma}s and a cup" for name, lemma in lemmas.items()})
    add_references(run_path_of(cache), spec, tmp_path)
    other = tmp_path / "other"
    more = ["--images", f"{spec}:{pictures}", "--cache", other, *SCORING]
    assert main(words("score", "--model", checkpoint, *more)) == 0
    later, at_once = tables(cache), tables(other)
    for name in ("image", "concept"):
        left, right = (one[name].drop(columns="run_id") for one in (later, at_once))
        pd.testing.assert_frame_equal(left, right)


def test_references_of_one_source_add_up_with_others_and_replace_their_own(
    cache: Path, lemmas: dict[str, str], tmp_path: Path
) -> None:
    run_path = run_path_of(cache)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    add_references(run_path, captions(first, {"000.png": "wrong"}), tmp_path)
    add_references(run_path, captions(second, {"000.png": "a cup"}), tmp_path)
    assert add_references(run_path, captions(second, {"000.png": "a cup"}), tmp_path).n_changed == 0
    assert add_references(run_path, captions(first, {"000.png": "a dog"}), tmp_path).n_changed == 1
    found = tables(cache)
    assert found["image"].set_index("image_id")["reference"].map(list)[named(found, "000.png")] == ["a dog", "a cup"]
    assert sorted(found["added_source"]["number"]) == [1, 2, 3]


def test_a_database_that_is_built_anew_says_the_same(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_path = run_path_of(cache)
    annotate(tiny, run_path, TOP)
    tables(cache)
    add_references(run_path, captions(tmp_path / "c.json", dict.fromkeys(lemmas, "a dog")), tmp_path)
    tables(cache)
    for side in (60, 30):
        add_masks(run_path, instances(tmp_path / "i.json", lemmas, side=side))
        annotate(tiny, run_path, TOP)
        before = tables(cache)
    for is_backwards in (False, True):
        (cache / "mmn.duckdb").unlink()
        with monkeypatch.context() as patched:
            if is_backwards:
                patched.setattr("mmn.store.loading.sorted", backwards, raising=False)
            after = tables(cache)
        for name in TABLES:
            pd.testing.assert_frame_equal(before[name], after[name])


def backwards(rows: Iterable[Any], key: Callable[[Any], Any] | None = None) -> list[Any]:
    """`sorted` the other way round, but that shards with pictures still come before what tells more of them."""
    found = sorted(rows, key=key, reverse=True)
    return found if key is None else sorted(found, key=lambda one: key(one)[0])


def test_a_bad_outline_costs_no_look_and_is_a_failure(
    cache: Path, tiny: Model, lemmas: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "instances.json"
    spec = instances(path, lemmas)
    document = json.loads(path.read_text())
    document["annotations"].append({"id": 9, "image_id": 0, "category_id": 0, "segmentation": [[1, 2]]})
    path.write_text(json.dumps(document))
    capfd.readouterr()
    assert main(words("annotate", "latest", "--cache", cache, "--top", 1, "--masks", spec, "--json")) == 1
    said = json.loads(capfd.readouterr().out)
    assert said["masks"] == {"kind": "masks", "source": spec, "n_images": 2, "n_changed": 2, "n_pictures": 3}
    found = tables(cache)
    assert "annotation 9," in found["failure"]["message"].item()
    assert Path(found["failure"]["source"].item()).name == "000.png"
    assert named(found, "000.png") in set(found["field"].dropna(subset=["iou"])["image_id"])


def test_the_command_adds_references_alone_without_loading_the_model(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmn.models.loading.load_model", None)
    spec = captions(tmp_path / "captions.json", {"000.png": "a dog"})
    capfd.readouterr()
    assert main(words("annotate", "latest", "--cache", cache, "--references", spec)) == 0
    assert f"references of {spec}: 1 of 3 pictures, 1 changed" in capfd.readouterr().out


def test_what_belongs_to_no_picture_of_the_run_is_refused_in_one_line(
    cache: Path, lemmas: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    others = {f"other{name}": lemma for name, lemma in lemmas.items()}
    masks = instances(tmp_path / "i.json", others, ("other000.png",))
    references = captions(tmp_path / "c.json", {"other.png": "a dog"})
    empty = captions(tmp_path / "e.json", {"000.png": ""})
    for option, spec, message in [
        ("--masks", masks, "outlines nothing in any of the run's 3 pictures"),
        ("--masks", "sbu:x.json:y", "has no object masks"),
        ("--references", references, "no captions of any of the run's 3 pictures: its captions are of other pictures"),
        ("--references", empty, "has none at all"),
        ("--references", "nowhere", "no folder or list"),
    ]:
        capfd.readouterr()
        assert main(words("annotate", "latest", "--cache", cache, option, spec)) == 2
        err = capfd.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert run_examples(run_path_of(cache))
    with pytest.raises((SourceError, UsageError)):
        add_masks(run_path_of(cache), str(tmp_path))


def test_a_csv_of_captions_is_references_for_pictures_elsewhere(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("file_name,caption\n000.png,a dog\n001.png,a cat\n")
    assert add_references(run_path_of(cache), str(tmp_path / "captions.csv"), tmp_path).n_images == 2


def test_a_folder_of_the_same_files_gives_its_captions(cache: Path, pictures: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copy(pictures / "000.png", copies / "renamed.png")
    Image.new("RGB", (20, 20)).save(copies / "other.png")
    (copies / "metadata.csv").write_text("file_name,text\nrenamed.png,a dog\nother.png,a cat\n")
    assert add_references(run_path_of(cache), str(copies), tmp_path).n_images == 1


def test_scoring_again_from_another_source_says_that_the_run_keeps_its_first(
    cache: Path, pictures: Path, checkpoint: Path, lemmas: dict[str, str], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    spec = f"{instances(tmp_path / 'i.json', lemmas, tuple(lemmas))}:{pictures}"
    capfd.readouterr()
    command = words("score", "--model", checkpoint, "--images", spec, "--cache", cache, *SCORING)
    assert main(command) == 0
    out = capfd.readouterr().out
    assert f"scored before, from {pictures}, which the run keeps" in out
    assert f"mmn annotate {run_path_of(cache).name} --masks {spec}" in out
    assert main([*command, "--json"]) == 0
    assert "which the run keeps" in json.loads(capfd.readouterr().out)["note"]
