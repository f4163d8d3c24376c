"""The rows of the figures of shift."""

from __future__ import annotations

from typing import Final

import pandas as pd

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.figures.wording import concepts_in_words
from mmn.statistics.intervals import ANYWHERE, interval_table
from mmn.store import Store
from mmn.studies.dictionaries.rows import said
from mmn.studies.shift.queries import ShiftQueries

LINES: Final = {"change": "the other model, same picture", "change_control": "another picture, same model"}


def shift(store: Store, asked: Asked) -> Rows:
    """By noun how much nearer its concepts' deltas bring states to the other model's.

    Raises:
        UsageError: nothing was measured; another run or noun was asked for.
    """
    other = chosen_other(store, asked)
    data = store.ask(ShiftQueries).gains(asked.run_id, other, asked.view.concepts)
    _require(data, asked, other)
    return Rows(data, asked.run, {"other": model_of(store, other), "subset": concepts_in_words(asked.view.concepts)})


def pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's gain behind the figure (raises as `shift`)."""
    other = chosen_other(store, asked)
    data = store.ask(ShiftQueries).pictures(asked.run_id, other, asked.view.concepts)
    data = data.rename(columns={"gain": "value"})
    return Pictures(data, ("noun",), "noun", "gain in cosine")


def concepts(store: Store, asked: Asked) -> Rows:
    """Each concept of a noun: its cosine with the other model's concept, as it is, with its delta, with a random one.

    Raises:
        UsageError: nothing was measured; another run or noun was asked for.
    """
    other = chosen_other(store, asked)
    queries = store.ask(ShiftQueries)
    nouns = list(dict.fromkeys(queries.about(asked.run_id, other)["noun"]))
    noun = asked.one("noun", "noun", nouns, asked.view.noun)
    data = queries.concepts(asked.run_id, other, noun)
    pairs = zip(data["concept"], data["words"], strict=True)
    data["label"] = [f"{number + 1}  {said(words, noun)}" for number, words in pairs]
    columns = ["concept", "label", "n_images", "cosine", "cosine_shifted", "cosine_random", "cosine_other"]
    return Rows(data[columns], asked.run, {"other": model_of(store, other), "noun": noun})


def layers(store: Store, asked: Asked) -> Rows:
    """By layer how much of what its units write is another, beside two pictures of the noun.

    Raises:
        UsageError: nothing was measured; another run or noun was asked for.
    """
    other = chosen_other(store, asked)
    rows = store.ask(ShiftQueries).layers(asked.run_id, other, asked.view.concepts)
    _require(rows, asked, other)
    long = rows.melt(["image_id", "layer"], list(LINES), "line")
    data = interval_table(long.assign(line=long["line"].map(LINES)), ["layer", "line"], "value", within=ANYWHERE)
    return Rows(data, asked.run, {"other": model_of(store, other), "subset": concepts_in_words(asked.view.concepts)})


def layer_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's change behind the figure of layers (raises as `layers`)."""
    other = chosen_other(store, asked)
    rows = store.ask(ShiftQueries).layers(asked.run_id, other, asked.view.concepts)
    data = rows.rename(columns={"change": "value"}).assign(line=LINES["change"])
    return Pictures(
        data[["image_id", "layer", "line", "value"]], ("line", "layer"), "layer", "change of what is written"
    )


def chosen_other(store: Store, asked: Asked) -> str:
    """The second run that is asked for, by its id or a beginning of it."""
    there = store.ask(ShiftQueries).others(asked.run_id)
    if not there:
        raise UsageError(f"run {asked.run_id} was not compared with another: mmn shift {asked.run_id} OTHER does that")
    known = {one[:8]: one for one in there}
    wanted = next((short for short, one in known.items() if asked.view.other and one.startswith(asked.view.other)), "")
    return known[asked.one("other", "other run", list(known), wanted or asked.view.other)]


def model_of(store: Store, other: str) -> str:
    """The second run's model, or its id where it is not here any more."""
    runs = store.runs()
    found = runs[runs["run_id"] == other]
    return str(found.iloc[0]["model"]) if len(found) else f"run {other[:8]}"


def _require(data: pd.DataFrame, asked: Asked, other: str) -> None:
    if data.empty:
        raise UsageError(
            f"{', '.join(asked.view.concepts)}: not measured; mmn shift {asked.run_id} {other} --noun does"
        )
