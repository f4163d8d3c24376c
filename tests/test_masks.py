"""Object masks: drawn and decoded by hand, found for the right picture, turned with it, or refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmn.core import Example
from mmn.errors import SourceError, UsageError
from mmn.images import list_source, open_image
from mmn.units.heat_maps import Mask
from mmn.units.masks import open_masks
from mmn.units.outlines import decode_runs, draw_polygon, unpack_counts

SIZE = (10, 8)  # width, height


def load_masks(example: Example, spec: str) -> dict[str, Mask]:
    """Masks of one picture."""
    return open_masks(spec, (example,)).find(example)


def test_a_polygon_covers_the_pixels_whose_centres_it_holds():
    mask = draw_polygon([2, 3, 6, 3, 6, 8, 2, 8], SIZE)
    assert mask.shape == (8, 10)
    assert (np.argwhere(mask).min(axis=0).tolist(), np.argwhere(mask).max(axis=0).tolist()) == ([3, 2], [7, 5])
    assert mask.sum() == 20  # 4 × 5 exactly, no outline beyond


def test_a_polygon_may_leave_the_picture():
    assert draw_polygon([-5, -5, 20, -5, 20, 20, -5, 20], SIZE).all()
    assert not draw_polygon([-5, -5, -1, -5, -1, 20], SIZE).any()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 13), st.floats(-3, 11)), min_size=3, max_size=8))
def test_a_polygon_is_what_crossing_numbers_say_it_is(corners):
    mask = draw_polygon([number for corner in corners for number in corner], SIZE)
    for y in range(SIZE[1]):
        for x in range(SIZE[0]):
            n_left = 0
            for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                    n_left += x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= x + 0.5
            assert mask[y, x] == bool(n_left % 2), (x, y)


def test_runs_go_down_the_columns_and_begin_with_background():
    mask = decode_runs([1, 2, 3], (2, 3))
    assert mask.tolist() == [[False, False], [True, False], [True, False]]
    assert decode_runs([0, 6], (2, 3)).all()
    with pytest.raises(ValueError, match="runs of 5 pixels"):
        decode_runs([1, 4], (2, 3))


def pack(counts: list[int]) -> str:
    """The inverse of `unpack_counts`, after pycocotools' rleToString."""
    packed = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        has_more = True
        while has_more:
            bits = value & 0x1F
            value >>= 5
            has_more = value != -1 if bits & 0x10 else value != 0
            packed += chr((bits | (0x20 if has_more else 0)) + 48)
    return packed


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_packed_runs_unpack(counts):
    assert unpack_counts(pack(counts)) == counts


def test_a_mask_that_pycocotools_packed():
    """What pycocotools 2.0 writes is "41202", for 3 rows × 4 columns of which row 1 is set in columns 1 and 2."""
    assert np.argwhere(decode_runs(unpack_counts("41202"), (4, 3))).tolist() == [[1, 1], [1, 2]]


def write_coco(folder, annotations, size=SIZE, name="dog.png", exif=None):
    image = Image.new("RGB", size, "white")
    tags = Image.Exif()
    if exif:
        tags[0x0112] = exif
    image.save(folder / name, exif=tags)
    document = {
        "images": [{"id": 7, "file_name": name, "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "hot dog"}],
        "annotations": [{"id": i, "image_id": 7, "iscrowd": 0} | row for i, row in enumerate(annotations)],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    spec = f"coco:{folder}/instances.json:{folder}"
    (example,) = list_source(spec).examples
    return example, spec


def square(x, y, side=2):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def test_coco_objects_of_one_noun_are_one_mask_and_crowds_are_left_out(tmp_path):
    example, spec = write_coco(
        tmp_path,
        [
            {"category_id": 1, "segmentation": [square(0, 0), square(4, 0)]},
            {"category_id": 1, "segmentation": {"size": [8, 10], "counts": [78, 2]}},
            {"category_id": 2, "segmentation": {"size": [8, 10], "counts": pack([0, 1, 79])}},
            {"category_id": 2, "segmentation": {"size": [8, 10], "counts": [0, 80]}, "iscrowd": 1},
        ],
    )
    masks = load_masks(example, spec)
    assert {lemma: int(mask.sum()) for lemma, mask in masks.items()} == {"dog": 10, "hot dog": 1}
    assert masks["dog"][0, 0]
    assert masks["dog"][7, 9]
    assert masks["hot dog"][0, 0]


def test_what_a_picture_shows_is_all_that_is_annotated_crowds_and_boxes_too(tmp_path):
    crowd = {"category_id": 2, "segmentation": {"size": [8, 10], "counts": [0, 80]}, "iscrowd": 1}
    box = {"category_id": 3, "bbox": [0, 0, 1, 1]}
    example, spec = write_coco(tmp_path, [{"category_id": 1, "segmentation": [square(0, 0)]}, crowd, box])
    rewrite(tmp_path, lambda told: told["categories"].append({"id": 3, "name": "Skis"}))
    found = open_masks(spec, [example])
    assert found.shown(example) == {"dog", "hot dog", "ski"}
    assert found.objects == {"dog", "hot dog", "ski"}
    assert set(found.find(example)) == {"dog"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_coco_masks_turn_with_their_picture(tmp_path, orientation):
    annotation = {"category_id": 1, "segmentation": [square(0, 0, side=3)]}
    example, spec = write_coco(tmp_path, [annotation], exif=orientation)
    picture = Image.new("RGB", SIZE, "white")
    picture.paste((0, 0, 0), (0, 0, 3, 3))
    tags = Image.Exif()
    tags[0x0112] = orientation
    picture.save(tmp_path / "dog.png", exif=tags)
    seen = np.asarray(open_image(tmp_path / "dog.png"))[..., 0] == 0
    assert np.array_equal(load_masks(example, spec)["dog"], seen)


def test_coco_outlines_of_the_upright_size_are_upright(tmp_path):
    example, spec = write_coco(tmp_path, [{"category_id": 1, "segmentation": [square(0, 0)]}], exif=6)
    document = json.loads((tmp_path / "instances.json").read_text())
    document["images"][0] |= {"width": SIZE[1], "height": SIZE[0]}
    (tmp_path / "instances.json").write_text(json.dumps(document))
    mask = load_masks(example, spec)["dog"]
    assert mask.shape == (SIZE[0], SIZE[1])
    assert mask[:2, :2].all()


BROKEN = [
    ({"category_id": 1, "segmentation": [[1, 2, 3]]}, "a polygon of 3 numbers"),
    ({"category_id": 1, "segmentation": [[1, 2, 3, 4, "x", 6]]}, "could not convert"),
    ({"category_id": 1, "segmentation": [[1, 2, 3, 4, float("nan"), 6]]}, "a corner that is no number"),
    ({"category_id": 1, "segmentation": {"size": [8, 10], "counts": [3]}}, "runs of 3 pixels"),
    ({"category_id": 1, "segmentation": {"size": [8, 10], "counts": [10**30]}}, "OverflowError"),
    ({"category_id": 1, "segmentation": {"size": [8, 10], "counts": "\x7f"}}, "runs of 15 pixels"),
    ({"category_id": 1, "segmentation": {"size": [8, 10], "counts": "o"}}, "do not end"),
    ({"category_id": 1, "segmentation": {"size": [8, 10], "counts": "o" * 5000}}, "do not end"),
    ({"category_id": 1, "segmentation": {"size": [4, 5], "counts": [20]}}, r"run lengths of \(5, 4\) pixels"),
    ({"category_id": 1, "segmentation": {"size": [10**9, 10**9], "counts": [1]}}, "run lengths of"),
    ({"category_id": 1, "segmentation": {"counts": [80]}}, "run lengths of None"),
    ({"category_id": 1, "segmentation": 7}, "a polygon of 1 numbers"),
    ({"category_id": 9, "segmentation": [square(0, 0)]}, "has no category"),
]


@pytest.mark.parametrize(("annotation", "message"), BROKEN)
def test_one_bad_outline_costs_that_outline_and_is_told(tmp_path, annotation, message):
    example, spec = write_coco(tmp_path, [annotation, {"category_id": 1, "segmentation": [square(4, 0)]}])
    found = open_masks(spec, [example]).outlines(example)
    assert {lemma: int(mask.sum()) for lemma, mask in found.masks.items()} == {"dog": 4}
    (problem,) = found.problems
    assert re.search(message, problem)
    assert "annotation 0," in problem


def test_one_bad_polygon_of_an_object_leaves_the_others(tmp_path):
    example, spec = write_coco(tmp_path, [{"category_id": 1, "segmentation": [square(0, 0), [1, 2], square(4, 0)]}])
    found = open_masks(spec, [example]).outlines(example)
    assert int(found.masks["dog"].sum()) == 8
    assert len(found.problems) == 1


def test_a_file_without_outlines_is_refused(tmp_path):
    example, spec = write_coco(tmp_path, [{"category_id": 1, "caption": "a dog"}])
    with pytest.raises(SourceError, match="outlines no objects"):
        load_masks(example, spec)


def test_a_polygon_without_a_list_around_it_is_read(tmp_path):
    assert load_masks(*write_coco(tmp_path, [{"category_id": 1, "segmentation": square(0, 0)}]))["dog"].sum() == 4


def rewrite(folder, change):
    document = json.loads((folder / "instances.json").read_text())
    change(document)
    (folder / "instances.json").write_text(json.dumps(document))


@pytest.mark.parametrize("size", [{}, {"width": None, "height": 0}, {"width": "10", "height": "8"}, {"width": 10}])
@pytest.mark.parametrize("segmentation", [[square(0, 0)], {"size": [8, 10], "counts": [0, 4, 76]}])
def test_coco_pictures_without_a_size_have_the_size_of_their_file(tmp_path, size, segmentation):
    example, spec = write_coco(tmp_path, [{"category_id": 1, "segmentation": segmentation}])

    def forget(document):
        document["images"][0] = {"id": 7, "file_name": "dog.png"} | size

    rewrite(tmp_path, forget)
    assert load_masks(example, spec)["dog"].shape == (8, 10)
    assert load_masks(example, spec)["dog"].sum() == 4


@pytest.mark.parametrize(("of_image", "of_row"), [(7, "7"), ("7", 7), (7.0, "007"), ("dog-1", "dog-1")])
def test_ids_written_as_text_and_as_numbers_are_alike(tmp_path, of_image, of_row):
    example, spec = write_coco(tmp_path, [{"category_id": "1", "segmentation": [square(0, 0)]}])

    def spell(document):
        document["images"][0]["id"], document["annotations"][0]["image_id"] = of_image, of_row

    rewrite(tmp_path, spell)
    assert set(load_masks(example, spec)) == {"dog"}


def test_one_id_of_two_pictures_outlines_neither_and_is_told(tmp_path):
    example, spec = write_coco(tmp_path, [{"category_id": 1, "segmentation": [square(0, 0)]}])
    rewrite(tmp_path, lambda document: document["images"].append({"id": "7", "file_name": "cat.png"}))
    found = open_masks(spec, [example]).outlines(example)
    assert found.masks == {}
    assert "have one id, 7" in found.problems[0]


def test_masks_go_to_the_picture_with_the_longest_common_end(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", SIZE, {"a": "red", "b": "blue"}[name]).save(tmp_path / name / "1.png")
    document = {
        "images": [{"id": 1, "file_name": "a/1.png"}, {"id": 2, "file_name": "C:\\set\\b\\1.png"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"image_id": n, "category_id": n, "segmentation": [square(0, 0)]} for n in (1, 2)],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    examples = list_source(str(tmp_path)).examples
    for spec in (f"coco:{tmp_path}/instances.json", f"coco:{tmp_path}/instances.json:{tmp_path}"):
        source = open_masks(spec, examples)
        found = {Path(one.source).parent.name: set(source.find(one)) for one in examples}
        assert found == {"a": {"dog"}, "b": {"cat"}}
        assert source.known == {one.image_id for one in examples}


def test_an_outline_that_could_be_of_two_pictures_is_of_neither_and_told(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", SIZE, {"a": "red", "b": "blue"}[name]).save(tmp_path / name / "1.png")
    document = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [square(0, 0)]}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    source = open_masks(f"coco:{tmp_path}/instances.json", list_source(str(tmp_path)).examples)
    assert source.known == frozenset()
    assert "1.png could be" in source.problems[0]


def test_a_picture_of_another_size_than_annotated_has_no_masks_and_it_is_told(tmp_path):
    _, spec = write_coco(tmp_path, [{"category_id": 1, "segmentation": [square(0, 0)]}])
    Image.new("RGB", (20, 16)).save(tmp_path / "dog.png")
    (example,) = list_source(spec).examples
    found = open_masks(spec, [example]).outlines(example)
    assert found.masks == {}
    assert "was annotated at 10 × 8" in found.problems[0]
    assert open_masks(spec, [example]).shown(example) == frozenset(), "it may be another picture of this name"


def test_a_picture_that_the_file_does_not_know_has_no_masks(tmp_path):
    example, spec = write_coco(tmp_path, [{"category_id": 1, "segmentation": [square(0, 0)]}])
    stranger = Example("0", "/else/where.png", ("/else/where.png",), 10, 8)
    source = open_masks(spec, [example, stranger])
    assert source.find(stranger) == {}
    assert set(source.find(example)) == {"dog"}


def write_folder(folder, mask, objects):
    (folder / "masks").mkdir()
    (folder / "pictures").mkdir()
    Image.new("RGB", SIZE).save(folder / "pictures" / "a.png")
    mask.save(folder / "masks" / "a.png")
    row = {"file_name": "a.png", "mask_file": "../masks/a.png", "objects": objects}
    (folder / "pictures" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = list_source(str(folder / "pictures")).examples
    return example, str(folder / "pictures")


def numbered() -> Image.Image:
    mask = Image.new("P", SIZE, 0)
    mask.paste(1, (0, 0, 2, 2))
    mask.paste(2, (4, 0, 6, 2))
    mask.paste(3, (8, 0, 9, 1))
    mask.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9])  # one colour, three objects
    return mask


def test_a_folder_names_the_numbers_of_its_masks(tmp_path):
    objects = [{"noun": "mouse", "mask": 1}, {"noun": "mice", "mask": 2}, {"noun": "cup", "mask": 3}]
    hidden = {"noun": "bed", "mask": 4}
    masks = load_masks(*write_folder(tmp_path, numbered(), [*objects, hidden]))
    assert {lemma: int(mask.sum()) for lemma, mask in masks.items()} == {"mouse": 8, "cup": 1}


def test_masks_that_do_not_fit_are_left_out_and_told(tmp_path):
    for number, (mask, message) in enumerate(
        [(Image.new("P", (3, 3)), "must be of one size"), (Image.new("RGB", SIZE), "mode RGB")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        example, spec = write_folder(folder, mask, [{"noun": "cup", "mask": 1}])
        found = open_masks(spec, [example]).outlines(example)
        assert found.masks == {}
        assert message in found.problems[0]
    (folder / "masks" / "a.png").write_bytes(b"no picture")
    assert "cannot be read" in open_masks(spec, [example]).outlines(example).problems[0]


def test_sources_without_masks_are_refused(tmp_path):
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    with pytest.raises(SourceError, match="no metadata"):
        open_masks(str(tmp_path), ())
    with pytest.raises(UsageError, match="no object masks"):
        open_masks("sbu:captions.json:folder", ())


@pytest.mark.parametrize("spec", ["gallery", "gallery:beach,desert"])
def test_every_noun_of_the_gallery_that_can_be_seen_has_a_mask(spec):
    examples = list_source(spec, limit=20).examples
    source = open_masks(spec, examples)
    for example in examples:
        masks = source.find(example)
        assert masks
        assert all(mask.shape == (example.height, example.width) for mask in masks.values())
        assert all(any(lemma in text or lemma[:4] in text for text in example.references) for lemma in masks)
        assert np.sum(list(masks.values()), axis=0).max() == 1, "two objects share a pixel"


def test_masks_need_no_torch():
    code = "import mmn.units.masks, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
