"""Every form of SRC: what is found, in which order, with which captions, and what is said of what is not found."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmn.errors import CacheError, SourceError, UsageError
from mmn.images import list_source, open_image
from mmn.images import sources as sources_module


def picture(path: Path, level: int = 0, size: tuple[int, int] = (16, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path, "PNG")
    return path


def names(listing) -> list[str]:
    return [Path(example.source).name for example in listing.examples]


def references(listing) -> dict[str, tuple[str, ...]]:
    return {Path(example.source).name: example.references for example in listing.examples}


def test_a_folder_is_walked_in_the_order_of_its_paths(tmp_path):
    for level, name in enumerate(["b.png", "a.png", "sub/c.jpg", "Z.webp", ".hidden.png", ".git/x.png"]):
        picture(tmp_path / name, level)
    for name in ["notes.txt", "data.json", "captions.tsv", "README", "README.md"]:
        (tmp_path / name).write_text("beside")
    listing = list_source(str(tmp_path))
    assert names(listing) == ["Z.webp", "a.png", "b.png", "c.jpg"]
    assert listing.failures == ()
    first = listing.examples[0]
    assert first.image_id == hashlib.sha256((tmp_path / "Z.webp").read_bytes()).hexdigest()
    assert (first.width, first.height, first.references) == (16, 12, ())
    assert first.sources == (first.source,)
    assert listing == list_source(str(tmp_path))


def test_a_picture_counts_whatever_it_is_called(tmp_path):
    picture(tmp_path / "no-ending", 1)
    picture(tmp_path / "odd.txt", 2)
    assert names(list_source(str(tmp_path))) == ["no-ending", "odd.txt"]


@pytest.mark.timeout(10)
def test_what_does_not_open_is_a_failure_and_the_rest_is_kept(tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "broken.jpg").write_text("no picture")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    picture(tmp_path / "tiny.png", size=(2, 2))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    listing = list_source(str(tmp_path))
    assert names(listing) == ["good.png"]
    failed = {Path(failure.source).name: failure for failure in listing.failures}
    assert set(failed) == {"broken.jpg", "film.mp4", "tiny.png", "pipe.png", "gone.png"}
    assert {(failure.stage, failure.error) for failure in listing.failures} == {("open", "ImageError")}
    assert "2 × 2" in failed["tiny.png"].message


def test_the_same_bytes_twice_are_one_example_with_both_paths(tmp_path):
    picture(tmp_path / "b.png", 1)
    picture(tmp_path / "a.png", 2)
    picture(tmp_path / "z" / "copy of a.png", 2)
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,one\nz/copy of a.png,two\na.png,one\n")
    listing = list_source(str(tmp_path))
    assert names(listing) == ["a.png", "b.png"]
    assert [Path(source).name for source in listing.examples[0].sources] == ["a.png", "copy of a.png"]
    assert listing.examples[0].references == ("one", "two")


def test_a_limit_counts_distinct_pictures_and_still_finds_their_copies(tmp_path):
    for name, level in [("a.png", 1), ("b.png", 1), ("c.png", 2), ("d.png", 3), ("e.png", 1)]:
        picture(tmp_path / name, level)
    (tmp_path / "f.png").write_text("beyond the limit")
    listing = list_source(str(tmp_path), limit=2)
    assert names(listing) == ["a.png", "c.png"]
    assert [Path(source).name for source in listing.examples[0].sources] == ["a.png", "b.png", "e.png"]
    assert listing.failures == ()
    with pytest.raises(UsageError, match="limit of 0"):
        list_source(str(tmp_path), limit=0)


def test_progress_counts_up_to_all_places(tmp_path):
    for level in range(3):
        picture(tmp_path / f"{level}.png", level)
    seen: list[tuple[int, int]] = []
    list_source(str(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_size_is_the_upright_one_and_nothing_is_decoded(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 8
    for kind in ("png", "jpeg"):
        Image.new("RGB", (30, 20), "red" if kind == "png" else "blue").save(tmp_path / f"x.{kind}", exif=exif)

    def refuse(*_args):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", refuse)
    assert [(example.width, example.height) for example in list_source(str(tmp_path)).examples] == [(20, 30)] * 2


def test_folders_that_are_links_are_followed_once(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here" / "loop").symlink_to(tmp_path / "here")
    listing = list_source(str(tmp_path / "here"))
    assert [example.sources for example in listing.examples] == [(str(tmp_path / "here" / "link" / "a.png"),)]


def test_a_name_that_is_not_utf8_is_a_failure_that_tables_can_store(tmp_path):
    picture(tmp_path / "a.png", 1)
    picture(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")), 2)
    listing = list_source(str(tmp_path))
    assert names(listing) == ["a.png"]
    assert "not UTF-8" in listing.failures[0].message
    (listing.failures[0].source + listing.failures[0].message).encode()


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "captions.csv"])
def test_captions_beside_the_pictures(tmp_path, name):
    picture(tmp_path / "sub" / "a.png", 1)
    picture(tmp_path / "sub" / "deep" / "b.png", 2)
    picture(tmp_path / "c.png", 3)
    rows: list[dict] = [
        {"file_name": "a.png", "text": " a dog "},
        {"file_name": "deep/b.png", "captions": ["a cat", "", "cats, two\u2028lines"]},
        {"file_name": "missing.png", "caption": "nothing"},
    ]
    path = tmp_path / "sub" / name
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as stream:  # as spreadsheets save it
            writer = csv.DictWriter(stream, ["file_name", "text", "caption", "captions"])
            writer.writeheader()
            writer.writerows(
                {**row, "captions": json.dumps(row.get("captions"))} if "captions" in row else row for row in rows
            )
    listing = list_source(str(tmp_path))
    assert references(listing) == {"c.png": (), "a.png": ("a dog",), "b.png": ("a cat", "cats, two\u2028lines")}
    assert [Path(failure.source).name for failure in listing.failures] == ["missing.png"]
    assert "does not exist" in listing.failures[0].message


def coco(tmp_path: Path, data: object) -> str:
    (tmp_path / "annotations.json").write_text(json.dumps(data))
    (tmp_path / "images").mkdir(exist_ok=True)
    return f"coco:{tmp_path}/annotations.json:{tmp_path}/images"


IMAGES = [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "val/a.png"}, {"id": 9, "file_name": "gone.png"}]


def test_coco_captions_are_references(tmp_path):
    captions = [
        {"image_id": 7, "id": 1, "caption": "first"},
        {"image_id": 3, "id": 2, "caption": "other"},
        {"image_id": 7, "id": 3, "caption": "second\ud800"},
    ]
    spec = coco(tmp_path, {"images": IMAGES, "annotations": captions})
    picture(tmp_path / "images" / "b.png", 1)
    picture(tmp_path / "images" / "a.png", 2)
    listing = list_source(spec)
    assert references(listing) == {"a.png": ("other",), "b.png": ("first", "second?")}
    assert [Path(failure.source).name for failure in listing.failures] == ["gone.png"]


@pytest.mark.parametrize(
    "extra",
    [
        {
            "annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]}],
            "categories": [{"id": 1, "name": "dog"}],
        },
        {"annotations": [{"image_id": 7, "file_name": "b_mask.png", "segments_info": []}]},
        {"annotations": {}},
        {},
    ],
    ids=["instances", "panoptic", "odd", "images only"],
)
def test_coco_without_captions_lists_pictures_without_references(tmp_path, extra):
    spec = coco(tmp_path, {"images": IMAGES, **extra})
    picture(tmp_path / "images" / "b.png")
    assert references(list_source(spec)) == {"b.png": ()}


@pytest.mark.parametrize(
    "data",
    [
        [
            {"image": "http://img.org/x/a%20b.png?size=2", "caption": "one"},
            {"url": "http://img.org/gone.png", "captions": ["x"]},
        ],
        {
            "image_urls": ["http://img.org/a%20b.png", "http://img.org/gone.png"],
            "captions": ["one", "x"],
            "user_ids": [1, 2],
        },
    ],
    ids=["rows", "released"],
)
def test_sbu_pictures_are_found_by_base_name(tmp_path, data):
    (tmp_path / "sbu.json").write_text(json.dumps(data))
    picture(tmp_path / "images" / "0001" / "a b.png")
    listing = list_source(f"sbu:{tmp_path}/sbu.json:{tmp_path}/images")
    assert references(listing) == {"a b.png": ("one",)}
    assert [Path(failure.source).name for failure in listing.failures] == ["gone.png"]


def test_colons_in_names_cut_nothing_apart(tmp_path):
    odd = tmp_path / "a:b"
    picture(odd / "images" / "b.png")
    assert names(list_source(f"{odd}/images")) == ["b.png"]
    spec = coco(odd, {"images": IMAGES[:1]})
    assert names(list_source(spec)) == ["b.png"]


def dataset(folder: Path, columns: dict, kind: str) -> Path:
    folder.mkdir(parents=True)
    table = pa.table(columns)
    if kind == "parquet":
        pq.write_table(table, folder / "train-00000-of-00001.parquet")
    else:
        with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return folder


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_a_saved_dataset_is_written_out_as_pictures_that_open(tmp_path, kind):
    data = [picture(tmp_path / f"{level}.png", level).read_bytes() for level in range(3)]
    jpeg = tmp_path / "x.jpg"
    Image.new("RGB", (20, 20)).save(jpeg)
    rows = [
        {"bytes": data[0], "path": "0.png"},
        {"bytes": jpeg.read_bytes(), "path": None},
        {"bytes": data[0], "path": None},
        {"bytes": None, "path": str(tmp_path / "1.png")},
        {"bytes": b"broken", "path": None},
        None,
    ]
    captions = [["a dog", "one dog"], ["grey"], ["again"], None, ["b"], ["c"]]
    folder = dataset(tmp_path / "set" / "train", {"label": list(range(6)), "image": rows, "captions": captions}, kind)
    (folder / "state.json").write_text("{}")
    (folder / "cache-123.arrow").write_text("left over")
    work = tmp_path / "work"
    listing = list_source(f"hf:{tmp_path}/set", work_path=work)
    assert [Path(example.source).suffix for example in listing.examples] == [".png", ".jpg", ".png"]
    assert listing.examples[0].references == ("a dog", "one dog", "again")
    for example in listing.examples:
        open_image(example.source)
        assert hashlib.sha256(Path(example.source).read_bytes()).hexdigest() == example.image_id
    assert Path(listing.examples[0].source) == work / f"{listing.examples[0].image_id}.png"
    assert [failure.stage for failure in listing.failures] == ["open", "open"]
    assert "row 5" in listing.failures[1].message
    assert not list(work.glob(".writing*"))
    before = {path: path.stat().st_mtime_ns for path in work.iterdir()}
    assert list_source(f"hf:{tmp_path}/set", work_path=work) == listing
    assert {path: path.stat().st_mtime_ns for path in work.iterdir()} == before  # not written again


def test_a_limited_dataset_writes_no_more_than_it_lists(tmp_path):
    rows = [{"bytes": picture(tmp_path / "x.png", level).read_bytes(), "path": None} for level in range(5)]
    dataset(tmp_path / "set", {"image": rows, "text": list("abcde")}, "arrow")
    listing = list_source(f"hf:{tmp_path}/set", limit=2, work_path=tmp_path / "work")
    assert [example.references for example in listing.examples] == [("a",), ("b",)]
    assert len(list((tmp_path / "work").iterdir())) == 2


def test_a_half_written_picture_of_an_earlier_run_is_replaced(tmp_path):
    data = picture(tmp_path / "x.png").read_bytes()
    dataset(tmp_path / "set", {"image": [{"bytes": data, "path": None}]}, "parquet")
    work = tmp_path / "work"
    work.mkdir()
    (work / f"{hashlib.sha256(data).hexdigest()}.png").write_bytes(data[:20])
    assert len(list_source(f"hf:{tmp_path}/set", work_path=work).examples) == 1


def test_a_work_folder_that_cannot_be_written_says_so(tmp_path):
    dataset(tmp_path / "set", {"image": [{"bytes": picture(tmp_path / "x.png").read_bytes(), "path": None}]}, "parquet")
    with pytest.raises(CacheError, match="cannot be written"):
        list_source(f"hf:{tmp_path}/set", work_path=tmp_path / "x.png" / "work")


def test_lists_are_relative_to_their_own_folder(tmp_path, monkeypatch):
    picture(tmp_path / "in" / "a.png", 1)
    elsewhere = picture(tmp_path / "b.png", 2)
    (tmp_path / "list.txt").write_text(
        f"# pictures\n\nin/a.png\n  {elsewhere}  \n./in/../in/a.png\ngone.png\n~no-such-user/x.png\n"
    )
    (tmp_path / "list.csv").write_text("path,caption\nin/a.png,a dog\n")
    monkeypatch.chdir(tmp_path / "in")
    listing = list_source("../list.txt")
    assert names(listing) == ["b.png", "a.png"]
    assert [Path(failure.source).name for failure in listing.failures] == ["gone.png", "x.png"]
    assert references(list_source("../list.csv")) == {"a.png": ("a dog",)}
    assert names(list_source("a.png")) == ["a.png"]
    assert Path(list_source("a.png").examples[0].source).is_absolute()


def test_the_gallery_is_the_bundled_folder(tmp_path, monkeypatch):
    assert sources_module.GALLERY_PATH.parent.name == "specimen"
    picture(tmp_path / "gallery" / "a.png")
    (tmp_path / "gallery" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a dog."}\n')
    monkeypatch.setattr(sources_module, "GALLERY_PATH", tmp_path / "gallery")
    assert references(list_source("gallery")) == {"a.png": ("a dog.",)}


BAD = {
    "": "no folder or list",
    "nowhere": "no folder or list",
    "coco:": "no folder or list",
    "coco:only.json": "lacks a part",
    "coco:gone.json:images": "cannot be read",
    "coco:images:images": "not a file",
    "coco:garbage.json:images": "not valid JSON",
    "coco:deep.json:images": "not valid JSON",
    "coco:list.json:images": "lists no images",
    "coco:nameless.json:images": "without a file_name",
    "coco:absent.json:images": "none of the 1 pictures",
    "coco:absent.json:nowhere": "is no folder",
    "sbu:garbage.json:images": "not valid JSON",
    "sbu:uneven.json:images": "two lists of one length",
    "sbu:list.json:images": "names no picture",
    "sbu:urls.json:images": "none of the 1 pictures",
    "hf:images": "no .arrow or .parquet",
    "hf:garbage-set": "no readable Arrow stream",
    "hf:textual": "no picture column",
    "empty": "holds no picture",
    "sidecar": "line 1, is not valid JSON",
    "namelesssidecar": "has no file_name",
    "latin.txt": "not UTF-8",
    "blank.txt": "names no picture",
    "columns.csv": "names no picture",
    "list.json": "annotation file",
}


@pytest.fixture
def bad_sources(tmp_path, monkeypatch):
    picture(tmp_path / "images" / "a.png")
    texts = {
        "garbage.json": "{", "deep.json": "[" * 100_000, "list.json": "[1]", "nameless.json": '{"images": [{"id": 1}]}',
        "absent.json": '{"images": [{"id": 1, "file_name": "x.png"}]}',
        "uneven.json": '{"image_urls": ["a"], "captions": []}',
        "urls.json": '[{"url": "http://a/b.png"}]', "blank.txt": "# nothing\n", "columns.csv": "a,b\n1,2\n",
        "sidecar/metadata.jsonl": "{oops\n", "namelesssidecar/metadata.csv": "text\na dog\n", "empty/notes.txt": "",
        "garbage-set/data.arrow": "not arrow",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.png\n")
    dataset(tmp_path / "textual", {"text": ["a"]}, "arrow")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("spec", BAD)
def test_what_cannot_be_listed_says_what_to_do(bad_sources, spec):
    with pytest.raises(SourceError) as caught:
        list_source(spec)
    assert BAD[spec] in str(caught.value)
    assert ": " in str(caught.value)  # the remedy
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), name=st.sampled_from(["x.jpg", "x", "x.png", "x.tif", "x.bin"]))
def test_any_file_of_a_folder_is_an_example_or_a_failure(tmp_path, data, name):
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / name).write_bytes(data)
    listing = list_source(str(tmp_path))
    assert len(listing.examples) + len(listing.failures) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["images", "annotations", "id", "file_name", "caption", "image_id", "url", "image_urls", "captions"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=JSON, kind=st.sampled_from(["coco", "sbu"]))
def test_any_annotation_file_is_listed_or_refused_in_our_words(tmp_path, data, kind):
    (tmp_path / "any.json").write_text(json.dumps(data))
    with contextlib.suppress(SourceError):
        list_source(f"{kind}:{tmp_path}/any.json:{tmp_path}")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80), suffix=st.sampled_from([".txt", ".csv"]))
def test_any_list_is_listed_or_refused_in_our_words(tmp_path, data, suffix):
    (tmp_path / f"list{suffix}").write_bytes(b"path,caption\n" * (suffix == ".csv") + data)
    with contextlib.suppress(SourceError):
        list_source(str(tmp_path / f"list{suffix}"))
