"""The charts of the Degradation and Edit pages from a terminal, or in one line why not."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmn.cli import BAD_INPUT, DONE, main
from mmn.names import COLUMN_NORM, WEIGHT
from mmn.runs.shards import write_shard
from mmn.store import Store
from tests.pages.filled import fill_whole
from tests.pages.filled_effects import EDIT_IDS, METRIC

RUN_ID = "5e6f000000000000"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache")
    fill_whole(path)
    with Store.open(path) as store:
        store.load_new_shards([path / "runs"])
    return path


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("degradation", "Probability of the noun after ablation, top units"),
        ("degradation --methods contribution --measure similarity", "Similarity of the new caption after ablation"),
        ("perturbation --methods contribution --against k", "Captions that lose the noun under noise"),
        ("scaling --methods contribution", "Probability of the noun with units multiplied"),
        ("ablated-layers --methods contribution --ks 26 --concepts dog", "Layers of the zeroed units"),
        (f"edit --edit {EDIT_IDS[1]}", "Edits of “"),
    ],
)
def test_figure(line: str, title: str, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "figure.json"
    assert main(f"figure {line} --run {RUN_ID} --out {out} --cache {cache} --width double".split()) == DONE
    spec = json.loads(out.read_text())
    assert " ".join(spec["title"]["text"]).startswith(title)
    assert any(len(rows) > 1 for rows in spec["datasets"].values())


def test_of_several_edits_it_is_said_which_one_is_drawn(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"figure edit --run {RUN_ID} --out {tmp_path / 'f.json'} --cache {cache}"
    assert main(line.split()) == DONE
    assert f"edit {EDIT_IDS[0]}; there are also {EDIT_IDS[1]}, {EDIT_IDS[2]} (--edit)" in capsys.readouterr().err
    assert main([*line.split(), "--edit", EDIT_IDS[1][:2]]) == DONE
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("degradation --methods activation", "no measurements of kind ablate by activation"),
        ("degradation --methods contribution --concepts unicorn", "concepts: unicorn"),
        ("degradation --layers two", "for example 2-5"),
        ("perturbation", "draws one score"),
        ("ablated-layers", "--methods A --ks 43"),
        ("ablated-layers --methods contribution --ks 64", "1 … 40"),
        ("edit --edit zz", "there are: aa0000000001"),
    ],
)
def test_what_is_missing_is_said(
    line: str, why: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"figure {line} --run {RUN_ID} --out {tmp_path / 'f.svg'} --cache {cache}".split()) == BAD_INPUT
    assert why in capsys.readouterr().err


@pytest.fixture(scope="module")
def twofold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose noise was measured in both units of sigma, and its captions by two similarities."""
    path = tmp_path_factory.mktemp("twofold")
    fill_whole(path)
    run_path = path / "runs" / RUN_ID
    rows = pq.read_table(run_path / "effects" / "effect.parquet").to_pylist()
    absolute = [row | {"sigma_unit": WEIGHT, "sigma": row["sigma"] / 100} for row in rows if row["sigma"]]
    again = [row | {"metric": "other-v1", "similarity": 0.25} for row in rows]
    schema = pq.read_schema(run_path / "effects" / "effect.parquet")
    write_shard(run_path, "twofold", {"effect": pa.Table.from_pylist(absolute + again, schema=schema)})
    return path


def figure_of(line: str, cache: Path, tmp_path: Path) -> str:
    out = tmp_path / "figure.json"
    assert main(["figure", *line.split("|"), "--run", RUN_ID, "--out", str(out), "--cache", str(cache)]) == DONE
    return out.read_text()


def test_one_of_two_units_of_sigma_is_not_drawn_in_silence(
    twofold: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "perturbation|--methods|contribution"
    out = ["--run", RUN_ID, "--out", str(tmp_path / "f.svg"), "--cache", str(twofold)]
    assert main(["figure", *line.split("|"), *out]) == BAD_INPUT
    told = capsys.readouterr().err
    assert f"--sigma-unit '{COLUMN_NORM}' or --sigma-unit '{WEIGHT}'" in told
    relative = figure_of(f"{line}|--sigma-unit|{COLUMN_NORM}", twofold, tmp_path)
    absolute = figure_of(f"{line}|--sigma-unit|{WEIGHT}", twofold, tmp_path)
    assert "relative to each unit's column norm" in relative
    assert '"sigma": 0.005' not in relative
    assert "in the unit of the weights" in absolute
    assert '"sigma": 0.005' in absolute


def test_the_similarity_that_is_drawn_is_chosen_or_said(
    twofold: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "degradation|--methods|contribution|--measure|similarity"
    usual = figure_of(line, twofold, tmp_path)
    first, other = sorted((METRIC, "other-v1"))
    told = capsys.readouterr().err
    assert f"similarity {first}; there are also {other} (--metric)" in told or f"similarity {other}; " in told
    chosen = figure_of(f"{line}|--metric|other-v1", twofold, tmp_path)
    assert capsys.readouterr().err == ""
    assert "similarity, other-v1" in chosen
    assert figure_of(f"{line}|--metric|{METRIC}", twofold, tmp_path) != chosen
    assert usual


def test_first_nouns_only(cache: Path, tmp_path: Path) -> None:
    line = "degradation|--methods|contribution"
    every = json.loads(figure_of(line, cache, tmp_path))
    first = json.loads(figure_of(f"{line}|--nouns|first", cache, tmp_path))
    assert "first nouns only" in " ".join(first["title"]["subtitle"])
    counts = [" ".join(one["title"]["subtitle"]).partition(" concepts")[0].split()[-1] for one in (every, first)]
    assert int(counts[0]) == 2 * int(counts[1]), "every caption of this run has two nouns"
