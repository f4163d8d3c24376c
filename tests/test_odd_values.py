"""What a stranger tries: odd values, empty ones, places that are none. Refused in a sentence, before a model loads."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmn.cli import BAD_INPUT, main, parse, print_json
from mmn.cli.files import require_out, writing
from mmn.cli.options import number, require_given_with, sizes
from mmn.core import MOST_SEED
from mmn.errors import CacheError, ModelError, SourceError, UsageError
from mmn.images import list_source
from mmn.models.loading import with_delta
from mmn.names import PERTURB, SIGMA_UNITS
from mmn.runs.shards import read_run
from mmn.safety.atomic_files import require_folder
from mmn.specimen import RUN_PATH
from mmn.studies.bench.measure import Asked, Material
from mmn.studies.degradation.measure import InterventionPlan, check_plan

RUN = read_run(RUN_PATH)[0].run_id


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache to which the bundled run is copied by the first command that wants to write to it."""
    return tmp_path_factory.mktemp("odd") / "cache"


@pytest.fixture
def without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded inside: what is refused is refused before that."""

    def load(*_given: Any, **_more: Any) -> None:
        raise AssertionError("a model was loaded")

    for module in ("mmn.cli.running", "mmn.studies.scoring.command", "mmn.studies.bench.command"):
        monkeypatch.setattr(f"{module}.load_quietly", load)


def refusal(capfd: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line that a command says when it exits with 2, after what it may have told of its progress."""
    capfd.readouterr()
    assert main(words) == BAD_INPUT
    said = capfd.readouterr()
    assert said.out == ""
    last = said.err.splitlines()[-1]
    assert re.fullmatch(r"mmn: .{20,}", last)
    return last


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("lens RUN --layers 99", "has no layer 99: its layers are 0–7"),
        ("patchscopes RUN --layers 0,99", "has no layer 99"),
        ("patchscopes RUN --into 99", "has no layer 99"),
        ("dictionaries RUN --layer 99", "has no layer 99"),
        ("dictionaries RUN --limit 3", "'3' is not a whole number from 12"),
        ("hallucination RUN --project-away --text-layer 99", "has no layer 99"),
        ("hallucination RUN --project-away --alpha nan", "--alpha: 'nan' is not a number"),
        ("hallucination RUN --project-away --alpha -1", "--alpha -1: give a number above 0"),
        ("hallucination RUN --alpha 1", "--alpha is of --project-away"),
        ("domains RUN --ablate-limit 3", "--ablate-limit is of --ablate"),
        ("domains RUN --draws 3", "--draws is of --ablate"),
        ("shift RUN RUN --alpha inf", "--alpha: 'inf' is not a number"),
        ("annotate RUN --methods nothing", "no 'nothing' scores"),
        ("invariance RUN --kind region --ks nan", "--ks: 'nan' is not a number"),
        ("invariance RUN --kind region --ks 1e400", "--ks: '1e400' is not a number"),
        ("invariance RUN --kind region --draws 1000000000", "is not a whole number from 1 to 1000"),
        ("invariance RUN --kind cross-image --images-per-concept 999", "no noun of run .* is said of 999 pictures"),
        ("degrade RUN --kind ablate --ks nan", "--ks: 'nan' is not a number"),
        ("degrade RUN --kind ablate --sigma 3", "--sigma 3 is for --kind perturb"),
        ("degrade RUN --kind scale --sigma-unit weight", "--sigma-unit weight is for --kind perturb"),
        ("degrade RUN --kind ablate --factor 3", "--factor 3 is for --kind scale"),
        ("degrade RUN --kind perturb --sigma 1e300", "noise needs sigmas above 0, up to 1000"),
        ("degrade RUN --kind ablate --selections nothing", "there is no 'nothing'"),
        ("degrade RUN --kind ablate --at nothing", "there is no 'nothing'"),
        ("edit RUN --noun dog --to cat --seed -1", "--seed: '-1' is not a whole number from 0"),
        ("circuits RUN --noun dog --out g.txt", "must end in .json"),
        ("score --model specimen --images gallery --seed 99999999999999999999", "is not a whole number from 0"),
        ("score --model specimen --images gallery:", "'gallery:' names no noun"),
        ("score --model specimen --images gallery --delta README.md", "README.md is no delta"),
        ("bench --images gallery --pictures 999", "too few pictures of one object"),
        ("bench --methods nothing", "no method 'nothing'"),
    ],
)
@pytest.mark.usefixtures("without_models")
def test_an_odd_value_is_refused_before_a_model_is_loaded(command: str, why: str, cache: Path, capfd) -> None:
    words = [RUN if word == "RUN" else word for word in command.split()]
    said = refusal(capfd, [*words, "--cache", str(cache)])
    assert re.search(why, said), said


@pytest.mark.parametrize(
    "words",
    [
        ["figure", "layers", "--concepts", ""],
        ["figure", "layers", "--concepts="],
        ["annotate", "latest", "--masks", ""],
        ["runs", "--cache", ""],
        ["domains", "latest", "--names", ""],
        ["label", "latest", "--cache", "", "--note", "x"],
    ],
)
def test_an_option_without_its_value_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--\w+ is empty: give it a value, or leave it out$"):
        parse(words)


@pytest.mark.parametrize(
    "words",
    [
        ["label", "latest", "--name", "", "--tags=", "--note", ""],
        ["score", "--model", "specimen", "--images", "gallery", "--prompt", "", "--answer-prefix="],
        ["units", "note", "L0.u3", ""],
        ["score", "--model", "a=", "--images", "b="],
    ],
)
def test_where_nothing_is_a_value_it_stays_one(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "x", ""])
def test_what_is_no_finite_number_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number"):
        number(text, "--alpha")
    with pytest.raises(UsageError, match=r"is not a number|is empty"):
        sizes(text, None, 100)


def test_what_is_not_finite_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("inf"), {"b": float("nan")}, 1.5]})
    assert json.loads(capsys.readouterr().out) == {"a": [None, {"b": None}, 1.5]}


def test_options_of_something_that_is_not_asked_for_are_refused() -> None:
    asked = argparse.Namespace(ablate=False, draws=None, ablate_limit=2)
    require_given_with(asked, "--ablate", "draws")
    with pytest.raises(UsageError, match="--ablate-limit is of --ablate: give that, too"):
        require_given_with(asked, "--ablate", "draws", "ablate_limit")
    asked.ablate = True
    require_given_with(asked, "--ablate", "ablate_limit")


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    out.write_text("before")
    with pytest.raises(TypeError), writing(out) as place, place.open("w") as file:
        file.writelines(["half", None])  # type: ignore[list-item]
    assert out.read_text() == "before"
    with writing(out) as place:
        place.write_text("whole")
        assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert out.read_text() == "whole"


def test_a_place_that_is_none_is_told_before_anything_is_written(tmp_path: Path) -> None:
    require_out(None, ".csv")
    require_out(tmp_path / "a.CSV", ".csv")
    for out, why in [
        (tmp_path / "a.txt", r"must end in \.csv or \.parquet"),
        (tmp_path / "no" / "a.csv", "no/a.csv cannot be written"),
        (tmp_path / ("a" * 300 + ".csv"), "cannot be written"),
    ]:
        with pytest.raises(UsageError, match=why):
            require_out(out, ".csv", ".parquet")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        require_out(tmp_path / "folder.csv", ".csv")


def test_a_cache_that_is_a_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(CacheError, match="cannot be written"):
            require_folder(place)
    require_folder(tmp_path / "new" / "cache")
    assert (tmp_path / "new" / "cache").is_dir()


@pytest.mark.usefixtures("without_models")
@pytest.mark.parametrize("command", ["score --model specimen --images gallery", "bench", f"lens {RUN}"])
def test_no_command_computes_for_a_cache_that_is_a_file(command: str, tmp_path: Path, capfd) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(capfd, [*command.split(), "--cache", str(tmp_path / "file")])


def test_a_delta_that_is_no_file_is_named(tmp_path: Path) -> None:
    for name in ("a.json", "no.safetensors", "."):
        with pytest.raises(ModelError, match="no delta"):
            with_delta("specimen", tmp_path / name)
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert with_delta("specimen", tmp_path / "a.safetensors").endswith("a.safetensors")


@pytest.mark.parametrize("spec", ["gallery:", "gallery: , "])
def test_a_gallery_of_no_noun_is_not_all_of_it(spec: str) -> None:
    with pytest.raises(SourceError, match="names no noun"):
        list_source(spec)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_noise_without_bounds_is_refused(sigma: float) -> None:
    plan = InterventionPlan(PERTURB, ("contribution",), (0, 5), ("top",), 1, (sigma,), SIGMA_UNITS[0])
    with pytest.raises(UsageError, match="sigmas above 0, up to 1000"):
        check_plan(plan)


def test_a_benchmark_of_pictures_without_masks_needs_no_model(tmp_path: Path) -> None:
    assert Material.of(Asked(n_nouns=1, n_judged=1, n_built=4), tmp_path).split.nouns
    with pytest.raises((UsageError, SourceError)):
        Material.of(Asked(images=str(RUN_PATH)), tmp_path)


def test_seeds_are_what_every_generator_takes() -> None:
    words = ["score", "--model", "m", "--images", "i", "--seed"]
    assert parse([*words, str(MOST_SEED)]).seed == MOST_SEED
    for wrong in ("-1", str(MOST_SEED + 1), "nan", "1.5"):
        with pytest.raises(UsageError, match="--seed"):
            parse([*words, wrong])
