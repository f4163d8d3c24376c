"""The rows of the selectivity figure."""

from __future__ import annotations

from mmn.figures.figure import Asked, Rows
from mmn.store import Store
from mmn.studies.selectivity.queries import SelectivityQueries
from mmn.studies.specificity.rows import MOST


def selectivity(store: Store, asked: Asked) -> Rows:
    """The heat map of the most frequent classes; units and their control.

    Raises:
        UsageError: nothing of that kind was measured.
    """
    view, queries = asked.view, store.ask(SelectivityQueries)
    method = asked.one_method(queries.methods(asked.run_id))
    data = queries.by_class(asked.run_id, method, view.most or MOST, view.concepts)
    return Rows(data, asked.run, {"method": method})
