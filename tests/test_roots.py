"""Symptom: whoever reached the Score page could list any folder and read the lines of any list."""

import json
from pathlib import Path

import pytest
from PIL import Image

from mmn.errors import ImageError
from mmn.images import list_source, open_image
from mmn.safety import roots
from mmn.safety.roots import OutsideRootsError, require_model
from mmn.specimen import MODELS
from mmn.units.masks import open_masks


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An allowed folder and another one, a picture in each; the process is confined to the first."""
    for name in ("allowed", "outside"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 48), "red" if name == "allowed" else "blue").save(tmp_path / name / "a.png")
    monkeypatch.setenv(roots.CONFINED_TO, "")
    roots.confine([tmp_path / "allowed"])
    return tmp_path / "allowed", tmp_path / "outside"


@pytest.mark.parametrize(
    "spec", ["{}", "{}/a.png", "{}/none", "hf:{}", "coco:{}/a.json:{}", "sbu:{}/a.json:{}", "{}/l.txt"]
)
def test_a_source_outside_is_refused_whether_it_is_there_or_not(folders, spec):
    with pytest.raises(OutsideRootsError, match="outside the folders"):
        list_source(spec.replace("{}", str(folders[1])))


def test_sources_inside_and_bundled_ones_are_listed(folders):
    assert len(list_source(str(folders[0])).examples) == 1
    assert list_source("gallery", limit=2).examples


def test_dots_and_links_lead_nowhere(folders):
    allowed, outside = folders
    (allowed / "link").symlink_to(outside)
    for path in (allowed / ".." / "outside", allowed / "link"):
        with pytest.raises(OutsideRootsError):
            list_source(str(path))
    with pytest.raises(OutsideRootsError):
        list_source(str(allowed))  # the walk would follow the link
    (allowed / "picture.png").symlink_to(outside / "a.png")
    with pytest.raises(ImageError, match="outside the folders"):
        open_image(allowed / "picture.png")


@pytest.mark.parametrize("named", ["../outside/a.png", "../outside/none.png"])
def test_lists_and_annotations_inside_name_no_picture_outside(folders, named):
    """Nor do they tell whether it is there."""
    allowed, _ = folders
    (allowed / "list.txt").write_text(f"a.png\n{named}\n")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": named}]
    (allowed / "coco.json").write_text(json.dumps({"images": images, "annotations": []}))
    listing = list_source(str(allowed / "list.txt"))
    assert len(listing.examples) == 1
    assert ["outside the folders" in failure.message for failure in listing.failures] == [True]
    listing = list_source(f"coco:{allowed / 'coco.json'}:{allowed}")
    assert [example.source for example in listing.examples] == [str(allowed / "a.png")]


def test_masks_outside_are_not_read(folders):
    allowed, outside = folders
    row = {"file_name": "a.png", "mask_file": "../outside/a.png", "objects": [{"noun": "dog", "mask": 1}]}
    (allowed / "metadata.jsonl").write_text(json.dumps(row))
    (example,) = list_source(str(allowed)).examples
    with pytest.raises(OutsideRootsError):
        open_masks(str(allowed), [example]).outlines(example)
    with pytest.raises(OutsideRootsError):
        open_masks(f"coco:{outside / 'a.json'}:{allowed}", [example])


@pytest.mark.parametrize(
    "name",
    [
        "{outside}",
        "{allowed}/../outside",
        "limber:{outside}/a.json",
        "specimen+{outside}/d.safetensors",
        "org/model",
        "../x",
    ],
)
def test_models_and_deltas_outside_are_refused(folders, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folders[1]))
    with pytest.raises(OutsideRootsError):
        require_model(name.format(allowed=folders[0], outside=folders[1]))


def test_models_inside_and_bundled_ones_pass(folders, monkeypatch):
    (folders[0] / "models--org--model").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folders[0]))
    for name in ("specimen", str(folders[0] / "model"), f"specimen+{folders[0]}/d.safetensors", "org/model"):
        require_model(name)


def test_reading_a_model_and_a_delta_is_refused_too(folders):
    from mmn.models.deltas import load
    from mmn.models.loading import load_model

    with pytest.raises(OutsideRootsError):
        load_model(str(folders[1]))
    with pytest.raises(OutsideRootsError):
        load(folders[1] / "d.safetensors")
    with pytest.raises(OutsideRootsError):
        load_model(f"limber:{folders[1]}/a.json")


def test_an_unconfined_process_reads_what_its_user_may(folders, monkeypatch):
    monkeypatch.delenv(roots.CONFINED_TO)
    assert len(list_source(str(folders[1])).examples) == 1
    require_model(str(folders[1]))


def test_every_bundled_model_may_be_read() -> None:
    assert roots.BUNDLED_NAMES == MODELS
