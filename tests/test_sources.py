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
    "coco:absent.json:images": "names 1 picture, and none is in",
    "coco:absent.json:nowhere": "is no folder",
    "sbu:garbage.json:images": "not valid JSON",
    "sbu:uneven.json:images": "two lists of one length",
    "sbu:list.json:images": "names no picture",
    "sbu:urls.json:images": "names 1 picture, and none is in",
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


# ---- which file a name means


def by_folder(listing) -> dict[str, tuple[str, ...]]:
    return {"/".join(Path(example.source).parts[-2:]): example.references for example in listing.examples}


def captioned(tmp_path: Path, names_: list[str], ids: list | None = None) -> str:
    """A COCO file in which every name has its own number as caption."""
    images = [{"id": n, "file_name": name} for n, name in enumerate(names_)]
    captions = [{"image_id": n, "caption": f"of {n}"} for n in (range(len(names_)) if ids is None else ids)]
    return coco(tmp_path, {"images": images, "annotations": captions})


def test_captions_of_a_missing_picture_do_not_go_to_another_of_the_same_name(tmp_path):
    spec = captioned(tmp_path, ["a/001.png", "b/001.png"])
    picture(tmp_path / "images" / "a" / "001.png", 1)
    picture(tmp_path / "images" / "c" / "002.png", 2)
    listing = list_source(spec)
    assert by_folder(listing) == {"a/001.png": ("of 0",)}
    (failure,) = listing.failures
    assert failure.source == str(tmp_path / "images" / "b" / "001.png")
    assert "a/001.png is in another folder" in failure.message


def test_the_longest_common_end_decides(tmp_path):
    for level, name in enumerate(["x/a/001.png", "x/b/001.png", "y/a/001.png", "001.png"]):
        picture(tmp_path / "images" / name, level)
    spec = captioned(tmp_path, ["set/x/a/001.png", "set/x/b/001.png", "set/y/a/001.png", "001.png"])
    found = {
        Path(e.source).relative_to(tmp_path / "images").as_posix(): e.references for e in list_source(spec).examples
    }
    assert found == {"x/a/001.png": ("of 0",), "x/b/001.png": ("of 1",), "y/a/001.png": ("of 2",), "001.png": ("of 3",)}


def test_folders_of_another_name_above_the_last_two_parts_are_no_matter(tmp_path):
    for level, name in enumerate(["a", "b"]):
        picture(tmp_path / "images" / "pictures" / name / "001.png", level)
    found = list_source(captioned(tmp_path, ["imgs/a/001.png", "imgs/b/001.png"]))
    assert by_folder(found) == {"a/001.png": ("of 0",), "b/001.png": ("of 1",)}


def test_a_name_that_could_be_two_pictures_is_a_failure(tmp_path):
    for level, name in enumerate(["a", "b"]):
        picture(tmp_path / "images" / name / "001.png", level)
    picture(tmp_path / "images" / "c.png", 3)
    listing = list_source(captioned(tmp_path, ["001.png", "c.png"]))
    assert by_folder(listing) == {"images/c.png": ("of 1",)}
    assert "a/001.png or " in listing.failures[0].message


def test_two_names_that_could_be_one_picture_are_failures(tmp_path):
    picture(tmp_path / "images" / "001.png")
    picture(tmp_path / "images" / "c.png", 3)
    listing = list_source(captioned(tmp_path, ["a/001.png", "b/001.png", "c.png"]))
    assert by_folder(listing) == {"images/c.png": ("of 2",)}
    assert len(listing.failures) == 2
    assert all("could be one file" in failure.message for failure in listing.failures)


def test_of_two_addresses_with_one_last_part_the_nearer_is_meant(tmp_path):
    rows = [{"url": f"http://img.org/{n}/x.png?s=1", "caption": f"of {n}"} for n in ("a", "b")]
    (tmp_path / "sbu.json").write_text(json.dumps(rows))
    picture(tmp_path / "images" / "b" / "x.png")
    listing = list_source(f"sbu:{tmp_path}/sbu.json:{tmp_path}/images")
    assert by_folder(listing) == {"b/x.png": ("of b",)}
    assert [failure.message.split(" ")[0] for failure in listing.failures] == ["http://img.org/a/x.png?s=1"]


NFC, NFD = "caf\u00e9.png", "cafe\u0301.png"


@pytest.mark.parametrize(("on_disk", "written"), [(NFC, NFD), (NFD, NFC)], ids=["NFC on disk", "NFD on disk"])
def test_unicode_names_are_one_in_either_form(tmp_path, on_disk, written):
    picture(tmp_path / "images" / on_disk)
    assert references(list_source(captioned(tmp_path, [written]))) == {on_disk: ("of 0",)}
    (tmp_path / "images" / "list.csv").write_text(f"file_name,text\n{written},a cup\n", encoding="utf-8")
    assert references(list_source(str(tmp_path / "images" / "list.csv"))) == {on_disk: ("a cup",)}
    (tmp_path / "images" / "list.csv").rename(tmp_path / "images" / "metadata.csv")
    assert references(list_source(str(tmp_path / "images"))) == {on_disk: ("a cup",)}


@pytest.mark.parametrize("absolute", ["C:\\Users\\me\\set\\", "\\\\host\\share\\", "/home/other/set/", ""])
def test_lists_of_another_machine_find_their_pictures(tmp_path, absolute):
    slash = "/" if absolute.startswith("/") else "\\"
    for level, name in enumerate(["a", "b"]):
        picture(tmp_path / name / "001.png", level)
    rows = [f"{absolute}{name}{slash}001.png" for name in ("a", "b", "c")]
    (tmp_path / "list.txt").write_text("\n".join(rows))
    listing = list_source(str(tmp_path / "list.txt"))
    assert set(by_folder(listing)) == {"a/001.png", "b/001.png"}
    (failure,) = listing.failures
    assert "c" in failure.source
    assert by_folder(list_source(captioned(tmp_path, rows[:2]).replace("/images", ""))) == {
        "a/001.png": ("of 0",),
        "b/001.png": ("of 1",),
    }


def test_two_absent_paths_that_end_alike_are_not_one_picture(tmp_path):
    picture(tmp_path / "001.png")
    (tmp_path / "list.csv").write_text("path,text\n/x/a/001.png,a dog\n/x/b/001.png,a cat\n")
    listing = list_source(str(tmp_path / "list.csv"))
    assert listing.examples == ()
    assert len(listing.failures) == 2


@pytest.mark.parametrize("of_row", ["17", 17, 17.0, "000017"])
def test_ids_as_text_and_as_numbers_are_alike(tmp_path, of_row):
    picture(tmp_path / "images" / "b.png")
    data = {"images": [{"id": 17, "file_name": "b.png"}], "annotations": [{"image_id": of_row, "caption": "a dog"}]}
    assert references(list_source(coco(tmp_path, data))) == {"b.png": ("a dog",)}


def test_one_id_of_two_pictures_captions_neither_and_is_told(tmp_path):
    for level, name in enumerate("abc"):
        picture(tmp_path / "images" / f"{name}.png", level)
    images = [{"id": 1, "file_name": "a.png"}, {"id": "1", "file_name": "b.png"}, {"id": 2, "file_name": "c.png"}]
    listing = list_source(coco(tmp_path, {"images": images, "annotations": [{"image_id": 1, "caption": "a dog"}]}))
    assert names(listing) == ["c.png"]
    assert all("have one id, 1" in failure.message for failure in listing.failures)


# ---- which columns are read


def described(tmp_path: Path, row: dict, name: str = "metadata.jsonl") -> dict[str, tuple[str, ...]]:
    path = tmp_path / "set" / name
    picture(tmp_path / "set" / "x" / "1.png", 1)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row))
    return references(list_source(str(tmp_path / "set")))


CONVERSATION = [
    {"from": "human", "value": "<image>\nWhat is in the picture?"},
    {"from": "gpt", "value": "A red wall."},
    {"from": "human", "value": "Is there a boat?"},
    {"from": "gpt", "value": "No."},
]
MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A red wall."}]},
]
SAID = ("a red wall",)
ROWS = [
    ({"image_file_name": "x/1.png", "text": "a red wall"}, SAID),
    ({"file_names": ["x/1.png"], "caption": "a red wall"}, SAID),
    ({"photo_file_name": "x/1.png", "caption": "a red wall"}, SAID),
    ({"images": ["x/1.png"], "captions": ["a red wall"]}, SAID),
    ({"images": [{"path": "x/1.png"}], "alt_text": "a red wall"}, SAID),
    ({"image": "x/1.png", "conversations": CONVERSATION}, ("A red wall.", "No.")),
    ({"id": "7", "image": "x/1.png", "messages": MESSAGES}, ("A red wall.",)),
    ({"file_name": "x/1.png", "sentences": [{"raw": "a red wall", "tokens": ["a"], "sentid": 3}]}, SAID),
    ({"file_name": "x/1.png", "raw": ["a red wall"]}, SAID),
    ({"file_name": "x/1.png", "description": "a red wall"}, SAID),
    ({"file_name": "x/1.png", "caption_0": "a red wall", "caption_1": "a wall"}, ("a red wall", "a wall")),
    ({"File Name": "x/1.png", "TEXT": "a red wall"}, SAID),
    ({"file_name": "x/1.png", "caption": "a red wall", "negative_caption": "a blue wall"}, SAID),
]


@pytest.mark.parametrize(("row", "said"), ROWS)
@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.parquet"])
def test_columns_that_data_sets_have_are_read(tmp_path, row, said, name):
    assert described(tmp_path, row, name) == {"1.png": said}


@pytest.mark.parametrize(
    "cell",
    ['["a dog", "it\'s a cat"]', "['a dog', \"it's a cat\"]", "['a dog' \"it's a cat\"]", "['a dog'\n \"it's a cat\"]"],
    ids=["json", "python", "numpy", "numpy in two lines"],
)
def test_list_cells_of_a_csv_are_lists_however_they_were_written(tmp_path, cell):
    picture(tmp_path / "a.png")
    with (tmp_path / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file_name", "captions"], ["a.png", cell]])
    assert references(list_source(str(tmp_path))) == {"a.png": ("a dog", "it's a cat")}


@pytest.mark.parametrize("text", ["[laughs] a dog", "[1, 2", "['a' + 'b']", "['unclosed"])
def test_a_caption_that_begins_with_a_bracket_is_a_caption(tmp_path, text):
    picture(tmp_path / "a.png")
    with (tmp_path / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file_name", "text"], ["a.png", text]])
    assert references(list_source(str(tmp_path))) == {"a.png": (text,)}


def test_masks_that_metadata_names_are_no_pictures_of_the_folder(tmp_path):
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "masks" / "a.png", 2)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "mask_file_name": "masks/a.png", "text": "a dog"}')
    assert references(list_source(str(tmp_path))) == {"a.png": ("a dog",)}
    assert len(list_source(str(tmp_path)).examples) == 1


def test_metadata_without_captions_says_which_columns_there_are(tmp_path):
    assert described(tmp_path, {"file_name": "x/1.png", "label": 3, "beschreibung": "rot"}) == {"1.png": ()}
    note = list_source(str(tmp_path / "set")).note
    assert "columns file_name, label, beschreibung" in note
    assert "captions are read from text, caption" in note
    assert "\n" not in note


def test_captions_in_a_file_that_is_not_read_are_not_passed_over_in_silence(tmp_path):
    picture(tmp_path / "a.png")
    assert list_source(str(tmp_path)).note == ""
    (tmp_path / "captions.tsv").write_text("a.png\ta dog\n")
    assert "captions.tsv is not read" in list_source(str(tmp_path)).note


def test_coco_without_captions_says_so_and_how_to_add_them(tmp_path):
    spec = coco(tmp_path, {"images": IMAGES, "annotations": [{"image_id": 7, "category_id": 1}]})
    picture(tmp_path / "images" / "b.png")
    assert "has no captions" in list_source(spec).note
    assert "--references" in list_source(spec).note


@pytest.mark.parametrize(
    ("columns", "word"), [({"label": [1]}, "columns image, label"), ({"text": [""]}, "nothing is")]
)
def test_a_dataset_without_captions_says_which_columns_there_are(tmp_path, columns, word):
    data = picture(tmp_path / "x.png").read_bytes()
    dataset(tmp_path / "set", {"image": [{"bytes": data, "path": None}]} | columns, "parquet")
    assert word in list_source(f"hf:{tmp_path}/set", work_path=tmp_path / "work").note


def test_a_dataset_with_lists_of_pictures_and_conversations(tmp_path):
    rows = [{"bytes": picture(tmp_path / "x.png", n).read_bytes(), "path": None} for n in range(3)]
    dataset(tmp_path / "set", {"images": [rows[:2], rows[2:]], "messages": [MESSAGES, MESSAGES]}, "parquet")
    listing = list_source(f"hf:{tmp_path}/set", work_path=tmp_path / "work")
    assert [example.references for example in listing.examples] == [("A red wall.",)] * 3


def test_scoring_says_why_there_are_no_references(tmp_path, capfd):
    from mmn.cli import main

    described(tmp_path, {"file_name": "x/1.png", "label": 3})
    command = ["score", "--model", "specimen", "--images", str(tmp_path / "set"), "--cache", str(tmp_path / "cache")]
    assert main([*command, "--progress", "json", "--max-new-tokens", "4"]) == 0
    assert "no references: " in capfd.readouterr().err


def test_the_gallery_of_some_nouns_is_its_pictures_whose_captions_say_one():
    found = list_source("gallery:beach,desert", limit=10)
    said = {text for example in found.examples for text in example.references}
    assert {noun for text in said for noun in ("beach", "desert") if noun in text} == {"beach", "desert"}
    assert all("beach" in text or "desert" in text for text in said)
    whole = names(list_source("gallery"))
    assert names(found) == [name for name in whole if name in names(found)], "in the gallery's order"
    with pytest.raises(SourceError, match="says 'unicorn'"):
        list_source("gallery:beach,unicorn")
