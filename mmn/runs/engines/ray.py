"""Carries a run out on a Ray cluster: every worker is an actor with a model of its own, on whatever machine Ray finds.

Workers write their shards themselves, so all machines must see the run's folder, the pictures and the model under the
same paths. Which worker takes which batch is no part of the run: the shards are those of `--engine local`. Ray is an
extra: `pip install ray==2.60.0`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmn.core import Run
from mmn.errors import MmnError, UsageError
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.runs import shards
from mmn.runs.engines.local import open_batch, score_opened
from mmn.runs.plan import Batch

CPUS_EACH = 1


def in_ray(run: Run, model: Model, batches: Sequence[Batch], run_path: Path, n_workers: int) -> Iterator[Batch]:
    """Yields batches as their shards are written, in no particular order. Joins a running cluster, or starts one here.

    Raises:
        UsageError: Ray is not installed.
        MmnError: a worker died, or its machine cannot load the model or see the folder.
    """
    ray = _import_ray()
    was_running = ray.is_initialized()
    here = {"PYTHONPATH": os.pathsep.join(sys.path)}  # so that workers find this copy of mmn
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="error", runtime_env={"env_vars": here})
    try:
        n_gpus = 1 if model.device.type == "cuda" else 0
        actor = ray.remote(num_cpus=CPUS_EACH, num_gpus=n_gpus)(_Worker)
        handed = (run, model.facts.name, model.device.type, str(run_path.absolute()))
        idle = [actor.remote(*handed) for _ in range(min(n_workers, len(batches)))]
        yield from _hand_out(ray, idle, batches)
    finally:
        if not was_running:
            ray.shutdown()


def _hand_out(ray: Any, idle: list[Any], batches: Sequence[Batch]) -> Iterator[Batch]:
    """Gives each worker one batch at a time, the next as soon as it is done."""
    waiting = list(batches)
    working: dict[Any, tuple[Any, Batch]] = {}
    while waiting or working:
        while waiting and idle:
            worker, batch = idle.pop(), waiting.pop(0)
            working[worker.do.remote(batch)] = (worker, batch)
        (finished,), _ = ray.wait(list(working), num_returns=1)
        worker, batch = working.pop(finished)
        try:
            ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MmnError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise MmnError(
                f"a Ray worker died ({type(error).__name__}); the same command resumes, try fewer workers"
            ) from error
        idle.append(worker)
        yield batch


class _Worker:
    """One actor: a model in memory, and the folder that its shards go to."""

    def __init__(self, run: Run, model_name: str, device: str, run_path: str) -> None:
        self.run, self.run_path = run, Path(run_path)
        self.model = load_model(model_name, run.settings.dtype, device, revision=run.model.revision or None)

    def do(self, batch: Batch) -> None:
        shards.write_shard(self.run_path, batch.name, score_opened(self.run, self.model, open_batch(batch)))


def _import_ray() -> Any:
    try:
        import ray  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UsageError("--engine ray wants Ray, which is not installed: pip install ray==2.60.0") from None
    return ray
