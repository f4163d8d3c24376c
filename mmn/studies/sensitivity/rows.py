"""The rows of the sensitivity figure."""

from __future__ import annotations

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.wording import concepts_in_words, metric_words
from mmn.store import Store
from mmn.studies.sensitivity.queries import SensitivityQueries


def sensitivity(store: Store, asked: Asked) -> Rows:
    """Each score by each measure, beside the shuffled pairing.

    Raises:
        UsageError: a measure was asked for that was not taken; nothing was.
    """
    view, queries = asked.view, store.ask(SensitivityQueries)
    methods, there = queries.measured(asked.run_id)
    metrics = [_metric(text, there) for text in view.metric] or there
    data = queries.summary(asked.run_id, view.methods or methods, metrics, view.concepts, view.layers)
    return Rows(data, asked.run, {"subset": concepts_in_words(view.concepts, view.layers)})


def _metric(text: str, there: list[str]) -> str:
    """The measure that is called `text`, or is said by it in words.

    Raises:
        UsageError: there is none such.
    """
    for metric in there:
        if text in (metric, metric_words(metric)):
            return metric
    raise UsageError(f"--metric {text}: measured were {', '.join(there) or 'none'}")
