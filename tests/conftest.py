"""Set before anything is imported: one thread (tiny models are far slower on two), no network, shapes checked.

Every `mmn` module that declares tensor shapes has them checked at run time; the others are left alone, since beartype
refuses some of their annotations (`Self`) and they hold no tensors. So are those that import the store: beartype keeps
every type that it has checked for, torch keeps beartype until the interpreter is gone, and with a type whose module
reaches DuckDB, its own types outlive their module, and its binding prints pages of "leaked" after pytest's last line.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import numpy as np
import pytest
from PIL import Image

import tests.shapes  # noqa: F401 - what the hook below names

if TYPE_CHECKING:
    from mmn.models.model import Model

ROOT = Path(__file__).parents[1]
_REACHES_DUCKDB = re.compile(r"^(from|import) (mmn\.store|duckdb)\b", re.MULTILINE)


def _modules_with_shapes() -> list[str]:
    texts = {file: file.read_text() for file in (ROOT / "mmn").rglob("*.py")}
    files = [
        file for file, text in texts.items() if "from jaxtyping import" in text and not _REACHES_DUCKDB.search(text)
    ]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


jaxtyping.install_import_hook(_modules_with_shapes(), "tests.shapes.checked")


# Files of a few long tests: begun last, one of them would keep one worker busy long after the others are done.
_FIRST = ("test_smollm.py", "test_paper_journey.py", "test_server_access.py", "test_untrusted.py", "test_ray_engine.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, all else in its order; workers take whole files from the front."""
    items.sort(key=lambda item: item.path.name not in _FIRST)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny LLaVA on disk, as a user has one. Read only: copy it to break it."""
    from tests.tiny import save_tiny_llava

    return save_tiny_llava(tmp_path_factory.mktemp("model") / "tiny-llava")


@pytest.fixture(scope="session")
def tiny(checkpoint: Path) -> Model:
    """The tiny LLaVA, loaded once."""
    import torch

    from mmn.models.loading import load_model

    torch.set_num_threads(1)
    return load_model(str(checkpoint), device="cpu")


@pytest.fixture(scope="session")
def paint() -> Callable[[Path, int], Path]:
    """Writes `n` different pictures of coarse noise into a folder."""

    def write(folder: Path, n: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for number in range(n):
            coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            coarse.resize((120, 100)).save(folder / f"{number:03d}.png")
        return folder

    return write


@pytest.fixture(scope="session")
def pictures(paint: Callable[[Path, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 pictures. Read only."""
    return paint(tmp_path_factory.mktemp("pictures"), 16)


@pytest.fixture
def cache(scored: Path, tmp_path: Path) -> Path:
    """A copy of the cache that a test file's own fixture `scored` made, to write to."""
    return Path(shutil.copytree(scored, tmp_path / "cache"))
