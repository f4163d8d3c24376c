"""The rows of the figure fields."""

from __future__ import annotations

from typing import Final

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.store import Store
from mmn.studies.annotate.queries import FieldQueries

TOP: Final = 10  # units of each noun that enter, as far as they were annotated


def fields(store: Store, asked: Asked) -> Rows:
    """How well the top units of each ranking look at their noun's object, beside the controls.

    Raises:
        UsageError: nothing was compared with an object.
    """
    data = store.ask(FieldQueries).summary(asked.run_id, TOP)
    if data.empty:
        raise UsageError(
            f"no unit of {asked.run_id} was compared with an object; mmn annotate {asked.run_id} --masks SRC compares "
            "those of nouns whose object has an outline"
        )
    return Rows(data, asked.run, {"top": TOP})


def pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's mean overlap behind the figure."""
    data = store.ask(FieldQueries).by_picture(asked.run_id, TOP).rename(columns={"iou": "value"})
    return Pictures(data, ("method", "selection"), "method", "IoU with the object")
