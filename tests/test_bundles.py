"""A run as one file for another installation; and files that are none, or that want more than to be read."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from mmn.cli import BAD_INPUT, DONE, main
from mmn.errors import MmnError
from mmn.store import Store
from mmn.store.bundles import CONTENTS, read_bundle
from mmn.store.pictures import PictureQueries
from tests.pages.filled import fill_whole

RUN = "5e6f000000000000"
Files = dict[str, bytes]


@pytest.fixture(autouse=True, scope="module")
def without_the_bundled_runs() -> Iterator[None]:
    """Loading them takes longer than all of these tests."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ("cache", "running"):
            patched.setattr(f"mmn.cli.{module}.RUN_PATHS", ())
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundled")
    fill_whole(path)
    out = path / "run.zip"
    assert main(f"bundle {RUN} --out {out} --cache {path}".split()) == DONE
    again = path / "again.zip"
    assert main(f"bundle {RUN} --out {again} --cache {path}".split()) == DONE
    assert out.read_bytes() == again.read_bytes()
    return out


def test_another_installation_has_the_same_run_with_small_pictures(bundle: Path, tmp_path: Path) -> None:
    assert main(f"load {bundle} --cache {tmp_path}".split()) == DONE
    with Store.open(bundle.parent) as there, Store.open(tmp_path) as here:
        for table in ("concept", "score", "effect", "field"):
            assert there.table(RUN, table).equals(here.table(RUN, table)), table
        assert here.summary(RUN) == there.summary(RUN)
        pictures = here.ask(PictureQueries).pictures(RUN)
    assert len(pictures) == 20
    for source in pictures["source"]:
        assert Path(source).is_relative_to(tmp_path / "runs" / RUN)
        with Image.open(source) as picture:
            assert picture.size == (64, 48)
    assert main(f"load {bundle} --cache {tmp_path}".split()) == DONE  # again: nothing is new


def test_a_bundle_tells_no_folder_of_this_machine_and_holds_no_weights(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        assert not [name for name in names if name.endswith((".safetensors", ".bin"))]
        for name in names:
            assert str(bundle.parent).encode() not in archive.read(name), name


def files_of(bundle: Path) -> Files:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def listed(files: Files, **changes: object) -> Files:
    """The files with a list of contents that is true of them."""
    told = json.loads(files[CONTENTS]) | changes
    told["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != CONTENTS}
    return files | {CONTENTS: json.dumps(told).encode()}


def packed(files: Files, out: Path, more: Callable[[zipfile.ZipFile], None] = lambda _archive: None) -> Path:
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        more(archive)
    return out


def a_link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("run/batch/score.parquet")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def a_bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("run/batch/score.parquet", b"0" * 20_000_000, zipfile.ZIP_DEFLATED)


def twice(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("run/run.json", "{}")


@pytest.mark.parametrize(
    ("change", "more", "why"),
    [
        (lambda files: listed(files | {"run/../../outside.txt": b"x"}), None, "no name of a file in a bundle"),
        (lambda files: listed(files | {"/tmp/outside.txt": b"x"}), None, "no name of a file in a bundle"),  # noqa: S108
        (lambda files: listed(files | {"run/batch\\..\\x.parquet": b"x"}), None, "no name of a file in a bundle"),
        (lambda files: listed(files | {"run/batch/model.safetensors": b"x"}), None, "no name of a file in a bundle"),
        (lambda files: files, a_link, "is a link"),
        (lambda files: files, a_bomb, "unpacks to"),
        (lambda files: files, twice, "is in it twice"),
        (lambda files: listed(files | {"run/RUN.json": b"x"}), None, "no name of a file in a bundle"),
        (lambda files: files | {"run/run.json": files["run/run.json"] + b" "}, None, "checksum"),
        (lambda files: files | {"run/new/score.parquet": b"x"}, None, "does not list the files"),
        (lambda files: {name: data for name, data in files.items() if name != CONTENTS}, None, f"no {CONTENTS}"),
        (lambda files: files | {CONTENTS: b"[]"}, None, "not as mmn bundle writes it"),
        (lambda files: listed(files, schema=999), None, "newer mmn"),
        (lambda files: listed(files, run_id="0" * 16), None, "it holds the run"),
        (lambda files: listed(files | {"run/all/score.parquet": b"x"}), None, "all"),
        (lambda files: listed(files | {f"run/thumbnails/{'0' * 64}.webp": b"x"}), None, "picture"),
    ],
)
def test_a_hostile_file_is_refused_in_one_line_and_leaves_nothing(
    change: Callable[[Files], Files],
    more: Callable[[zipfile.ZipFile], None] | None,
    why: str,
    bundle: Path,
    tmp_path: Path,
) -> None:
    hostile = packed(change(files_of(bundle)), tmp_path / "hostile.zip", more or (lambda _archive: None))
    with pytest.raises(MmnError, match=why) as refused:
        read_bundle(hostile, tmp_path / "cache" / "runs")
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path != hostile]
    assert left == []


def test_what_is_no_zip_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.zip"
    cut.write_bytes(bundle.read_bytes()[:5000])
    for name in ("cut.zip", "none.zip"):
        assert main(f"load {tmp_path / name} --cache {tmp_path}".split()) == BAD_INPUT
        assert capsys.readouterr().err.strip().count("\n") == 0
    assert main(f"bundle {RUN} --out {tmp_path / 'x.tar'} --cache {bundle.parent}".split()) == BAD_INPUT
    assert main(f"bundle {RUN} --out {tmp_path / 'no' / 'x.zip'} --cache {bundle.parent}".split()) == BAD_INPUT
