"""The rows of the modules' figure: VisEdit's contributions, its control, and the folded budget."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.wording import concepts_in_words
from mmn.statistics.intervals import ANYWHERE, interval_table
from mmn.store import Store
from mmn.studies.modules.queries import ModuleQueries

ALONE, ANOTHER, FOLDED = "VisEdit: alone", "VisEdit: another word", "budget: folded"
NOUN: Final = ["image_id", "noun", "is_control"]


def modules(store: Store, asked: Asked) -> Rows:
    """The mean of each module over pictures, read in the three ways, and how much each adds up to.

    Raises:
        UsageError: not measured, or no such noun was.
    """
    found = store.ask(ModuleQueries).modules(asked.run_id, asked.view.concepts)
    if found.empty:
        raise UsageError(
            f"run {asked.run_id} has no modules read alone of {concepts_in_words(asked.view.concepts) or 'any noun'}: "
            f"measure them with mmn modules {asked.run_id}, or choose other nouns"
        )
    own = found[~found["is_control"]]
    counts = {"n_images": own["image_id"].nunique(), "n_concepts": len(own.groupby(["image_id", "noun"]))}
    words: dict[str, Any] = {"sums": sums(found), "subset": concepts_in_words(asked.view.concepts)}
    return Rows(by_layer(found), dict(asked.run) | counts, words)


def by_layer(found: pd.DataFrame) -> pd.DataFrame:
    """Returns line, part, layer, mean, low, high, n (pictures) of `ModuleQueries.modules`.

    VisEdit's contribution is sign(v) |v|^.5 p^.5, v as a share of the noun's largest |v|; the budget's is a module's
    share of the noun's logit.
    """
    told = found.assign(contribution=contribution(found))
    own = told[~told["is_control"]]
    parts = [
        own.assign(line=ALONE, shown=own["contribution"]),
        told[told["is_control"]].assign(line=ANOTHER, shown=lambda rows: rows["contribution"]),
        own.assign(line=FOLDED, shown=own["share"] / own["logit"]),
    ]
    return interval_table(pd.concat(parts), ["line", "part", "layer"], "shown", within=ANYWHERE)


def contribution(found: pd.DataFrame) -> pd.Series:
    """VisEdit's sign(v) |v|^.5 p^.5, v as a share of the largest |v| of the noun's modules: −1 to 1."""
    largest = found["value"].abs().groupby([found[name] for name in NOUN]).transform("max")
    relative = found["value"] / largest.where(largest > 0, 1)
    return np.sign(relative) * np.sqrt(relative.abs() * found["prob"])


def sums(found: pd.DataFrame) -> pd.DataFrame:
    """Returns what, mean, low, high, n (pictures): what a noun's modules add up to, as a multiple of its logit, and
    how VisEdit's order of the modules and the budget's agree (Spearman's rank correlation).

    The budget's multiple is of attention and FFN alone: the embedding and biases are what is missing to 1.
    """
    own = found[~found["is_control"]].assign(contribution=lambda rows: contribution(rows))
    rows = []
    for (image_id, _noun), one in own.groupby(["image_id", "noun"]):
        logit = one["logit"].iloc[0]
        told = {
            ALONE: one["value"].sum() / logit,
            FOLDED: one["share"].sum(min_count=1) / logit,
            "rank correlation": one["contribution"].rank().corr(one["share"].rank()),
        }
        rows += [{"image_id": image_id, "what": what, "shown": value} for what, value in told.items()]
    return interval_table(pd.DataFrame(rows), ["what"], "shown", within=ANYWHERE)
