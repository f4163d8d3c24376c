"""The Ray engine: each batch once, whoever takes it; what goes wrong in a worker; and no Ray, said plainly.

A stand-in runs actors in this process, one call at a time, which is enough for how batches are handed out and shows
what goes wrong at will; the last test uses Ray itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mmn.errors import MmnError, UsageError
from mmn.models.model import Model
from mmn.runs.engines.local import carry_out
from mmn.runs.engines.ray import in_ray
from mmn.runs.plan import Progress
from mmn.runs.shards import finished_shards
from tests.test_engine import planned, rows_of, whole  # noqa: F401 - a fixture


def quiet(_progress: Progress) -> None:
    pass


class TaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class Died(Exception):
    pass


def stand_in(fail: Exception | None = None) -> ModuleType:
    """A module that does what `engines.ray` asks of Ray, in this process; `fail` is what every call ends in."""

    class Handle:
        def __init__(self, one: Any) -> None:
            self.do = SimpleNamespace(remote=lambda batch: (one, batch))

    def get(reference: tuple[Any, Any]) -> None:
        if fail is not None:
            raise fail
        one, batch = reference
        one.do(batch)

    def wait(references: Sequence[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        assert num_returns == 1
        return [references[-1]], list(references[:-1])  # the last one first: order must not matter

    fake: Any = ModuleType("ray")
    fake.is_initialized = lambda: False
    fake.init = fake.shutdown = lambda **_options: None
    fake.remote = lambda **_options: lambda kind: SimpleNamespace(remote=lambda *given: Handle(kind(*given)))
    fake.get, fake.wait = get, wait
    fake.exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=Died)
    return fake


@pytest.mark.parametrize("n_workers", [1, 3, 50])
def test_every_batch_is_done_once(
    n_workers: int,
    tiny: Model,
    pictures: Path,
    tmp_path: Path,
    whole: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", stand_in())
    this, seen = planned(tiny, pictures), list[Progress]()
    run_path, outcome = carry_out(this, tiny, tmp_path, seen.append, n_workers, in_ray)
    assert outcome.status == "complete"
    assert finished_shards(run_path) == {batch.name for batch in this.batches}
    assert [progress.done for progress in seen] == list(range(0, 17, 2))
    assert rows_of(run_path) == whole


@pytest.mark.parametrize(
    ("fail", "message"),
    [(TaskError(UsageError("no such device")), "no such device"), (Died(), "worker died .Died.")],
)
def test_what_goes_wrong_in_a_worker_is_said(
    fail: Exception, message: str, tiny: Model, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", stand_in(fail))
    with pytest.raises(MmnError, match=message):
        carry_out(planned(tiny, pictures), tiny, tmp_path, quiet, 2, in_ray)


def test_without_ray_the_remedy_is_said(
    tiny: Model, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="pip install ray"):
        carry_out(planned(tiny, pictures), tiny, tmp_path, quiet, 2, in_ray)


def test_ray_itself_writes_the_same_rows(
    tiny: Model,
    pictures: Path,
    tmp_path: Path,
    whole: Any,  # noqa: F811
) -> None:
    run_path, _ = carry_out(planned(tiny, pictures), tiny, tmp_path, quiet, 2, in_ray)
    assert rows_of(run_path) == whole
