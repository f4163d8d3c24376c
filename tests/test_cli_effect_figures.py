"""The charts of the Degradation and Edit pages from a terminal, or in one line why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmn.cli import BAD_INPUT, DONE, main
from mmn.store import Store
from tests.pages.filled import fill_whole
from tests.pages.filled_effects import EDIT_IDS

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
