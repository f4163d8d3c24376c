"""The rows of the benchmark's figure: of a result that ships, or that `mmn bench` left in the cache; of no run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.names import METHODS
from mmn.store import Store
from mmn.studies.bench.result import MEASURES, Result, model_of, newest, results
from mmn.studies.bench.words import some
from mmn.view import View

USUAL: Final = ("recall@1%", "agreement", "area zero", "iou")  # drawn where nobody chose


def usual(result: Result) -> list[str]:
    """What is drawn where nobody chose: of the usual measures those that something was judged by."""
    return [measure for measure in USUAL if result.best(measure)]


def result_of(store: Store, view: View) -> Result:
    """The newest result of the view's model; of the first there is, where it names none.

    Raises:
        UsageError: it was not judged.
    """
    found = newest(results(store.runs_path.parent))
    if view.model and view.model not in found:
        known = ", ".join(found) or "none"
        raise UsageError(f"--model {view.model}: judged were {known}; mmn bench --model {view.model} judges it")
    return found[view.model or next(iter(found))]


def subject(store: Store, view: View) -> dict[str, Any]:
    """What the figure is of, as a run's row says it; `run_id` is a hash of model, protocol, and how much was asked."""
    result = result_of(store, view)
    asked = json.dumps([result.model, result.protocol, dict(result.asked)], sort_keys=True)
    digest = hashlib.sha256(asked.encode()).hexdigest()[:16]
    return {
        "run_id": digest,
        "model_fingerprint": digest,
        "model": result.model,
        "images": result.images,
        "n_layers": result.n_layers,
        "d_mlp": result.d_mlp,
        "n_images": result.n_pictures,
        "n_concepts": result.n_questions,
        "settings": dict(result.asked),
    }


def bench(store: Store, asked: Asked) -> Rows:
    """Each score's mean by each measure; those without one are left out. Within a measure the best is first.

    Raises:
        UsageError: a model, measure or score that was not judged.
    """
    result = result_of(store, asked.view)
    asked.pinned["model"] = model_of(result)
    measures = _known(asked.view.metric or usual(result), list(MEASURES), "--metric")
    methods = _known(asked.view.methods or result.methods, result.methods, "--methods")
    parts = [_of_measure(result, measure, methods) for measure in measures]
    data = pd.concat(parts, ignore_index=True)
    if data.empty:
        raise UsageError(f"nothing was judged by {', '.join(measures)} in {model_of(result)}")
    nouns = result.nouns if result.planted else ()
    return Rows(data, asked.run, {"nouns": nouns, "left_out": some(result).strip()})


def _known(asked: Sequence[str], there: Sequence[str], flag: str) -> list[str]:
    if wrong := [one for one in asked if one not in there]:
        raise UsageError(f"{flag} {wrong[0]}: the benchmark has {', '.join(there)}")
    return list(asked)


def _of_measure(result: Result, measure: str, methods: Sequence[str]) -> pd.DataFrame:
    about = MEASURES[measure]
    own = result.rows[(result.rows["measure"] == measure) & result.rows["method"].isin(methods)].dropna(subset="mean")
    names = {method: place for place, method in enumerate(METHODS)}
    order = own.assign(name=own["method"].map(names)).sort_values("name", kind="stable")
    order = order.sort_values("mean", ascending=not about.is_high_better, kind="stable").drop(columns="name")
    order = order.rename(columns={"measure": "metric"})
    return order.assign(heading=f"{about.heading}: {about.words}", place=range(1, len(order) + 1))
