"""What the test suite itself promises: shapes are checked, and nothing is printed after pytest's last line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from mmn.scores.equations import rank_units

ROOT = Path(__file__).parents[1]
USE_ALL = """
import tests.conftest, mmn.scores.batch, mmn.studies.lens.rows
from mmn.store import Store
with Store.open(__import__("pathlib").Path(r"{cache}")) as store:
    store.runs()
"""


def test_no_pages_of_leaks_follow_the_last_line(tmp_path: Path) -> None:
    """With shapes checked, as here, types of DuckDB outlived their module: hundreds of lines of "nanobind: leaked"."""
    code = USE_ALL.format(cache=tmp_path)
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout + ended.stderr == ""


def test_shapes_are_checked_while_testing() -> None:
    with pytest.raises(TypeCheckError):
        rank_units(torch.zeros(3), 2)
