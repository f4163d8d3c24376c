"""The rows of the sensitivity figure."""

from __future__ import annotations

from collections.abc import Sequence

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.figures.wording import concepts_in_words, metric_words
from mmn.store import Store
from mmn.studies.sensitivity.queries import SensitivityQueries


def sensitivity(store: Store, asked: Asked) -> Rows:
    """Each score by each measure, beside the shuffled pairing.

    Raises:
        UsageError: a measure was asked for that was not taken; nothing was.
    """
    view = asked.view
    data = store.ask(SensitivityQueries).summary(asked.run_id, *_chosen(store, asked), view.concepts, view.layers)
    return Rows(data, asked.run, {"subset": concepts_in_words(view.concepts, view.layers)})


def pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's value behind the figure (raises as `sensitivity`)."""
    view = asked.view
    data = store.ask(SensitivityQueries).by_picture(asked.run_id, *_chosen(store, asked), view.concepts, view.layers)
    return Pictures(data, ("metric", "method"), "method", "how well top units' words fit")


def _chosen(store: Store, asked: Asked) -> tuple[Sequence[str], Sequence[str]]:
    """The scores and the measures that are asked for, all that were taken where none are."""
    methods, there = store.ask(SensitivityQueries).measured(asked.run_id)
    return asked.view.methods or methods, [_metric(text, there) for text in asked.view.metric] or there


def _metric(text: str, there: list[str]) -> str:
    """The measure that is called `text`, or is said by it in words.

    Raises:
        UsageError: there is none such.
    """
    for metric in there:
        if text in (metric, metric_words(metric)):
            return metric
    raise UsageError(f"--metric {text}: measured were {', '.join(there) or 'none'}")
