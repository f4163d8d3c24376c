"""A second pass over a scored run: units decoded, where they look, how that fits the objects; resumed and added to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmn import names
from mmn.cli import main
from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.images import open_image
from mmn.models.model import Model
from mmn.reading.nouns import lemma_of
from mmn.runs import shards
from mmn.runs.plan import Progress
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.studies.annotate import measure as annotating
from mmn.studies.annotate.measure import annotate, count
from mmn.studies.annotate.queries import FieldQueries
from mmn.studies.annotate.set_looks import annotate_set
from mmn.units.decoding import decode_units
from mmn.units.masks import open_masks
from mmn.units.receptive_fields import control_units, field_rows, unit_maps
from mmn.units.sets import UnitSet
from tests.scored import interrupted_at_the_second, run_path_of, tables_of

METHODS = "contribution,attribution,random"
TOP = 4

ANNOTATIONS = ("neuron", "field", "outline", "look", "grid", "lens")


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--progress", "none"]


@pytest.fixture(scope="module")
def gallery(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures; in the left half of two lies what their captions say first, in the right half something else.

    The captions of a random model are not known beforehand, so they are asked for first.
    """
    folder, masks = paint(tmp_path_factory.mktemp("gallery") / "pictures", 3), tmp_path_factory.mktemp("masks")
    cache = folder.parent / "asked"
    assert main(words("score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING)) == 0
    with Store.open(cache) as store:
        pictures = store.ask(PictureQueries).pictures("latest")
        nouns = [
            store.ask(PictureQueries).concepts("latest", image_id)["lemma"].tolist()
            for image_id in pictures["image_id"]
        ]
    assert all(nouns), nouns
    rows = []
    for number in range(2):
        numbers = np.zeros((100, 120), np.uint8)
        numbers[20:80, :60], numbers[:, 90:] = 1, 2
        Image.fromarray(numbers).convert("P").save(masks / f"{number}.png")
        objects = [{"noun": nouns[number][0], "mask": 1}, {"noun": "zebra", "mask": 2}]
        rows.append({"file_name": f"00{number}.png", "mask_file": str(masks / f"{number}.png"), "objects": objects})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


SCORING = ["--methods", METHODS, "--top-k", 12, "--max-new-tokens", 8, "--batch-size", 2, "--device", "cpu"]


@pytest.fixture(scope="module")
def scored(gallery: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of the gallery in two batches, with a chosen word and a grey picture. Read only."""
    cache = tmp_path_factory.mktemp("scored") / "cache"
    more = ["--target", "window", "--blank"]
    assert main(words("score", "--model", checkpoint, "--images", gallery, "--cache", cache, *SCORING, *more)) == 0
    return cache


def tables(cache: Path) -> dict[str, pd.DataFrame]:
    return tables_of(cache, [*ANNOTATIONS, "failure", "score", "image"])


def top_units(score: pd.DataFrame, methods: list[str], top: int) -> pd.DataFrame:
    is_top = score["rank"].between(1, top) & score["method"].isin(methods)
    return score[is_top & (score["variant"] == names.ORIGINAL)]


def test_a_run_is_annotated_whole(cache: Path, tiny: Model) -> None:
    told: list[Progress] = []
    annotate(tiny, run_path_of(cache), TOP, None, told.append)
    found = tables(cache)
    methods = ["contribution", "attribution"]
    methods += [method + names.MINUS_BLANK for method in methods]
    expected = top_units(found["score"], methods, TOP)
    keys = ["image_id", "noun", "method", "rank", "layer", "unit"]
    assert found["field"][keys].to_numpy().tolist() == expected.sort_values(keys)[keys].to_numpy().tolist()
    assert "window" in set(found["field"]["noun"])
    seen = expected[["image_id", "layer", "unit"]].drop_duplicates()
    assert len(found["look"]) == len(seen)
    assert found["look"]["activations"].map(len).unique().tolist() == [64]
    stored = found["score"][["layer", "unit"]].drop_duplicates()
    assert len(found["neuron"]) == len(stored) > len(seen[["layer", "unit"]].drop_duplicates())
    assert len(found["grid"]) == 3
    assert found["failure"].empty
    assert [(one.stage, one.done, one.total) for one in told][1:] == [("annotate", n, 3) for n in (0, 2, 3)]


def test_looks_words_and_overlaps_are_what_the_library_computes(cache: Path, tiny: Model, gallery: Path) -> None:
    annotate(tiny, run_path_of(cache), TOP)
    run, _ = shards.read_run(run_path_of(cache))
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        picture = store.ask(PictureQueries).picture(
            "latest", store.ask(PictureQueries).pictures("latest")["image_id"].iloc[0]
        )
        image = open_image(picture["source"])
        noun = store.ask(PictureQueries).concepts("latest", picture["image_id"])["noun"].iloc[0]
        ranked = store.ask(PictureQueries).ranked_units(
            "latest", picture["image_id"], noun, names.CONTRIBUTION, limit=TOP
        )
        units = [Neuron(row.layer, row.unit) for row in ranked.itertuples()]
        maps = unit_maps(tiny, image, run.prompt, units)
        assert store.ask(PictureQueries).grid("latest", picture["image_id"]) == maps.grids
        looks = store.ask(PictureQueries).looks("latest", picture["image_id"], units)
        assert np.allclose(np.stack(looks["activations"]), maps.values, atol=1e-5)
    example = next(e for e in open_examples(gallery) if e.image_id == picture["image_id"])
    masks = open_masks(str(gallery), [example]).find(example)
    assert set(masks) == {lemma_of(noun), "zebra"}
    of = (picture["image_id"], noun, names.CONTRIBUTION)
    controls = control_units(units, tiny.anatomy.widths, (str(run.settings.seed), *of))
    maps = unit_maps(tiny, image, run.prompt, sorted({*units, *controls}))
    rows = list(field_rows(maps, *of, units, controls, masks))
    for name in ("iou", "iou_other", "iou_random"):
        assert ranked[name].tolist() == pytest.approx([asdict(row)[name] for row in rows])
    assert ranked["tokens"].tolist() == decode_units(tiny, units)["tokens"].to_pylist()


def test_of_a_large_picture_grids_keep_the_pixels_of_the_file(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate(tiny, run_path_of(cache), TOP)
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        image_id = store.ask(PictureQueries).pictures("latest")["image_id"].iloc[0]
        before, fields = store.ask(PictureQueries).grid("latest", image_id), store.table("latest", "field")
    for shard in run_path_of(cache).glob("annotation-*"):
        shutil.rmtree(shard)
    (cache / "mmn.duckdb").unlink()
    monkeypatch.setattr("mmn.images.opening.LARGE_PIXELS", 100 * 120 - 1)
    annotate(tiny, run_path_of(cache), TOP)
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        after, again = store.ask(PictureQueries).grid("latest", image_id), store.table("latest", "field")
    assert before is not None
    assert after is not None
    assert np.allclose([grid.box for grid in after.tiles], [grid.box for grid in before.tiles], atol=8)  # 2 pixels of 4
    assert again["iou"].notna().tolist() == fields["iou"].notna().tolist()
    assert (again["iou"] - fields["iou"]).abs().mean() < 0.1


def open_examples(folder: Path) -> tuple:
    from mmn.images import list_source

    return list_source(str(folder)).examples


def test_a_noun_without_a_region_has_looks_and_no_overlaps(cache: Path, tiny: Model) -> None:
    annotate(tiny, run_path_of(cache), TOP)
    found = tables(cache)
    without = found["field"][found["field"]["iou"].isna()]
    assert "window" in set(without["noun"])
    assert without[["iou_other", "iou_random"]].isna().all(axis=None)
    third = found["image"].sort_values("source")["image_id"].iloc[2]  # has no masks at all
    assert third in set(without["image_id"])
    assert third not in set(found["field"].dropna(subset=["iou"])["image_id"])
    assert third in set(found["look"]["image_id"])
    assert found["field"]["iou"].notna().any()


def test_again_does_nothing_and_an_interrupted_call_goes_on(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_path = run_path_of(cache)
    with interrupted_at_the_second(monkeypatch, annotating, "_annotate_batch"):
        annotate(tiny, run_path, TOP)
    assert count(run_path).n_looks > 0
    told: list[Progress] = []
    annotate(tiny, run_path, TOP, None, told.append)
    assert [(one.stage, one.done) for one in told] == [("annotate", 2), ("annotate", 3)]
    before = {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")}
    monkeypatch.setattr(annotating, "decode_units", None)
    monkeypatch.setattr(annotating, "unit_maps", None)
    annotate(tiny, run_path, TOP)
    assert {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")} == before


def test_a_resumed_annotation_equals_an_uninterrupted_one(cache: Path, tiny: Model, tmp_path: Path) -> None:
    other = Path(shutil.copytree(cache, tmp_path / "other"))
    annotate(tiny, run_path_of(cache), TOP)
    annotate(tiny, run_path_of(other), TOP)
    shutil.rmtree(next(run_path_of(other).glob("annotation-batch-00001-*")))
    annotate(tiny, run_path_of(other), TOP)
    first, second = tables(cache), tables(other)
    for name in ANNOTATIONS:
        pd.testing.assert_frame_equal(first[name], second[name])


def test_another_top_adds_to_what_is_there(cache: Path, tiny: Model) -> None:
    run_path = run_path_of(cache)
    annotate(tiny, run_path, 2, ["contribution"])
    first = tables(cache)
    annotate(tiny, run_path, TOP, ["contribution", "random"])
    both = tables(cache)
    expected = top_units(both["score"], ["contribution", "random"], TOP)
    assert len(both["field"]) == len(expected)
    assert len(both["look"]) == len(expected[["image_id", "layer", "unit"]].drop_duplicates())
    assert len(both["grid"]) == len(first["grid"]) == 3
    assert len(both["neuron"]) == len(first["neuron"])
    assert len(list(run_path.glob("annotation-batch-00000-*"))) == 2


def test_of_a_large_model_only_annotated_units_are_decoded(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotating, "MANY_UNITS", 100)
    run_path = run_path_of(cache)
    for top in (1, TOP):
        annotate(tiny, run_path, top, ["contribution"])
        found = tables(cache)
        units = top_units(found["score"], ["contribution"], top)[["layer", "unit"]].drop_duplicates()
        assert len(found["neuron"]) == len(units)
    assert len(list(run_path.glob("neurons*"))) == 2


def test_another_model_a_method_that_is_not_there_and_a_top_of_none_are_refused(cache: Path, tiny: Model) -> None:
    run_path = run_path_of(cache)
    other = replace(tiny, facts=replace(tiny.facts, fingerprint="0" * 64))
    with pytest.raises(UsageError, match="is another model"):
        annotate(other, run_path)
    with pytest.raises(UsageError, match=r"no 'activation' scores; its methods are: contribution, attribution, random"):
        annotate(tiny, run_path, methods=["activation"])
    with pytest.raises(UsageError, match="at least 1"):
        annotate(tiny, run_path, 0)
    assert count(run_path) == annotating.Annotated(0, 0, 0, 0)


def test_image_tokens_without_a_place_get_words_only_and_it_is_said(cache: Path, tiny: Model) -> None:
    told: list[Progress] = []
    blind = replace(tiny, family=replace(tiny.family, grid="queries"))
    annotate(blind, run_path_of(cache), TOP, None, told.append)
    found = count(run_path_of(cache))
    assert found.n_neurons > 0
    assert (found.n_looks, found.n_fields, found.n_failed) == (0, 0, 0)
    assert [one.message for one in told if "Q-Former" in one.message] == [told[-1].message]


def test_pictures_that_are_gone_or_changed_are_failures_and_the_others_unharmed(
    gallery: Path, checkpoint: Path, tiny: Model, tmp_path: Path
) -> None:
    pictures = Path(shutil.copytree(gallery, tmp_path / "pictures"))
    cache = tmp_path / "cache"
    assert main(words("score", "--model", checkpoint, "--images", pictures, "--cache", cache, *SCORING)) == 0
    (pictures / "000.png").unlink()
    shutil.copy(pictures / "002.png", pictures / "001.png")
    annotate(tiny, run_path_of(cache), TOP)
    found = tables(cache)
    failures = found["failure"].sort_values("source")
    assert failures["stage"].tolist() == ["annotate", "annotate"]
    assert [Path(source).name for source in failures["source"]] == ["000.png", "001.png"]
    assert "has changed since it was scored" in failures["message"].iloc[1]
    assert found["look"]["image_id"].nunique() == 1


def test_a_source_without_masks_is_said_once(pictures: Path, checkpoint: Path, tiny: Model, tmp_path: Path) -> None:
    more = [*SCORING, "--limit", 2]
    assert main(words("score", "--model", checkpoint, "--images", pictures, "--cache", tmp_path, *more)) == 0
    told: list[Progress] = []
    annotate(tiny, run_path_of(tmp_path), TOP, None, told.append)
    assert len([one for one in told if "there are no object masks" in one.message]) == 1
    found = tables(tmp_path)
    assert found["field"]["iou"].isna().all()
    assert len(found["look"])


# ---- command line


def test_the_command_annotates_loads_and_says_what(
    cache: Path, capfd: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    capfd.readouterr()
    command = words("annotate", "latest", "--cache", cache, "--top", TOP, "--methods", "contribution", "--json")
    assert main(command) == 0
    said = json.loads(capfd.readouterr().out)
    run_id = run_path_of(cache).name
    assert said == said | {"run_id": run_id, "n_failed": 0, "database": "loaded"}
    assert min(said["n_neurons"], said["n_looks"], said["n_fields"]) > 0
    with Store.open(cache) as store:  # nothing new to load
        assert store.load_new_shards([store.runs_path]) == 0
        assert len(store.ask(FieldQueries).summary(run_id, top=TOP)) == 1
    assert main([*words("annotate", run_id[:6], "--cache", cache, "--top", TOP, "--methods", "contribution")]) == 0
    assert f"{run_id}: {said['n_neurons']} units decoded" in capfd.readouterr().out


def test_the_command_names_what_it_cannot_use(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "no run 'nothing'": ["nothing"],
        "no 'activation' scores": ["latest", "--methods", "activation"],
        "is another model|is no folder|neither a folder": ["latest", "--model", "./nowhere"],
        "whole number": ["latest", "--top", "0"],
    }
    for message, more in wrong.items():
        capfd.readouterr()
        assert main(words("annotate", *more, "--cache", cache)) == 2
        err = capfd.readouterr().err
        assert any(part in err for part in message.split("|")), err
        assert err.count("\n") == 1


def test_scoring_annotates_when_asked(gallery: Path, checkpoint: Path, tmp_path: Path) -> None:
    more = ["--annotate", 2]
    assert main(words("score", "--model", checkpoint, "--images", gallery, "--cache", tmp_path, *SCORING, *more)) == 0
    with Store.open(tmp_path) as store:
        assert store.table("latest", "field")["rank"].max() == 2


def test_a_saved_set_is_compared_with_objects_as_a_ranking_is(cache: Path, tiny: Model) -> None:
    """Of every noun, or of the one that it was saved for; what was measured of rankings stays as it is."""
    run_path = run_path_of(cache)
    annotate(tiny, run_path, TOP, ["contribution"])
    ranked = tables(cache)["field"]
    of_noun = ranked[ranked["iou"].notna() & (ranked["selection"] == names.SAME_PICTURE)]
    image_id, noun = of_noun[["image_id", "noun"]].iloc[0]
    same = of_noun[(of_noun["image_id"] == image_id) & (of_noun["noun"] == noun)].sort_values("rank")
    units = tuple(Neuron(int(layer), int(unit)) for layer, unit in zip(same["layer"], same["unit"], strict=True))
    sets = [UnitSet("all", units), UnitSet("one", units, origin={"noun": lemma_of(noun)})]
    sets.append(UnitSet("other", units, origin={"noun": "giraffe"}))
    for one in sets:
        annotate_set(tiny, run_path, one)
    found = tables(cache)["field"]
    by_label = dict(list(found[found["method"].str.startswith(names.SET)].groupby("method")))
    assert set(by_label) == {sets[0].label, sets[1].label}, "no caption says the third one's noun"
    assert {tuple(pair) for pair in by_label[sets[1].label][["image_id", "noun"]].to_numpy()} <= {
        tuple(pair) for pair in by_label[sets[0].label][["image_id", "noun"]].to_numpy()
    }
    for rows in by_label.values():
        assert set(rows["selection"]) == {names.GIVEN}
        here = rows[(rows["image_id"] == image_id) & (rows["noun"] == noun)].sort_values("rank")
        measured = ["rank", "layer", "unit", "iou", "iou_other", "iou_best"]
        assert here[measured].to_numpy().tolist() == same[measured].to_numpy().tolist()
    rest = found[~found["method"].str.startswith(names.SET)]
    pd.testing.assert_frame_equal(rest.reset_index(drop=True), ranked.reset_index(drop=True))
    with Store.open(cache) as store:
        summary = store.ask(FieldQueries).summary("latest")
    assert list(summary["method"])[-2:] == sorted(by_label)
