"""What the tests of second passes share: the run of a scored cache, its tables, and a pass that is interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from mmn.core import Example, ScoreSettings
from mmn.models.model import Model
from mmn.runs.engines.local import open_batch
from mmn.runs.plan import Batch
from mmn.scores.batch import score_batch
from mmn.store import Store


def run_path_of(cache: Path) -> Path:
    """The folder of the cache's only run."""
    (path,) = (path for path in (cache / "runs").iterdir() if not path.name.startswith("."))
    return path


def tables_of(cache: Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Tables of the cache's newest run, after loading what is new."""
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        return {name: store.table("latest", name) for name in names}


def rows_of(
    model: Model, examples: Sequence[Example], settings: ScoreSettings, size: int
) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table of a run of these pictures, in batches of a size."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for start in range(0, len(examples), size):
        opened = open_batch(Batch("b", tuple(examples[start : start + size])))
        prompt = model.exact_prompt(settings.prompt)
        for table, values in score_batch(model, opened.examples, opened.images, prompt, settings).items():
            rows.setdefault(table, []).extend(values.to_pylist())
    return rows


@contextmanager
def interrupted_at_the_second(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> Iterator[None]:
    """Inside, the second call of `module.name` ends like Ctrl-C; leaving asserts that it came to that."""
    whole = getattr(module, name)
    calls: list[object] = []

    def call(*arguments: Any) -> Any:
        if calls:
            raise KeyboardInterrupt
        calls.append(arguments)
        return whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, call)
        with pytest.raises(KeyboardInterrupt):
            yield
