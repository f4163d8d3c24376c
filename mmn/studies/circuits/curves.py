"""How much of a noun is left with so many units of each layer kept, or without them: curves, with intervals by picture.

    prob, logit   mean over pictures of each picture's mean over draws
    relative      mean probability / mean probability of the same pictures with every unit kept: 1 there, exactly

Where half of the probability is back, or gone, is linear between the sizes that were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from mmn.statistics.intervals import ANYWHERE, SHARE, interval_table, ratio_intervals
from mmn.studies.circuits.tables import ABLATED, ANOTHER, CIRCUIT, KEPT, RANDOM

MEASURES: Final = ("prob", "relative", "logit")
LINE: Final = ["direction", "selection"]
COLUMNS: Final = (*LINE, "size", "mean", "low", "high", "n")
WORDS: Final = {
    (KEPT, CIRCUIT): "the circuit kept",
    (ABLATED, CIRCUIT): "the circuit ablated",
    (KEPT, ANOTHER): "another noun's kept",
    (ABLATED, ANOTHER): "another noun's ablated",
    (KEPT, RANDOM): "random units kept",
    (ABLATED, RANDOM): "random units ablated",
}


def curves(effects: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Returns the points of all curves: direction, selection, size, mean, low, high, n (pictures).

    Args:
        effects: rows of `circuit_effect` of one circuit, of the pictures that are to count.
        measure: of `MEASURES`.
    """
    by = [*LINE, "size"]
    if measure == "relative":
        found = _relative(effects, by)
    else:
        found = interval_table(effects, by, measure, within=SHARE if measure == "prob" else ANYWHERE)
    order = {line: place for place, line in enumerate(WORDS)}
    place = [order[line] for line in zip(found["direction"], found["selection"], strict=True)]
    return found.assign(place=place).sort_values(["place", "size"], ignore_index=True)[list(COLUMNS)]


def _relative(effects: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    probs = effects.groupby(["image_id", *by])["prob"].mean().unstack(by)
    whole = probs[KEPT, CIRCUIT, int(effects["size"].max())]
    untouched = np.repeat(whole.to_numpy()[:, None], probs.shape[1], axis=1)
    ratio, low, high = ratio_intervals(probs.to_numpy(), untouched, ANYWHERE)
    return pd.DataFrame({"mean": ratio, "low": low, "high": high, "n": len(probs)}, probs.columns).reset_index()


def half_at(sizes: Sequence[int], probs: Sequence[float], whole: float) -> float | None:
    """The first size at which the probability crosses half of the whole model's; None where it never does.

    Args:
        sizes: in ascending order, from 0.
        probs: there; rising where units are kept, falling where they are ablated.
        whole: the probability with every unit.
    """
    is_rising = probs[0] < whole / 2
    for index in range(1, len(sizes)):
        before, here = probs[index - 1], probs[index]
        if (here >= whole / 2) if is_rising else (here <= whole / 2):
            share = (whole / 2 - before) / (here - before) if here != before else 1.0
            return float(sizes[index - 1] + share * (sizes[index] - sizes[index - 1]))
    return None


def judged(effects: pd.DataFrame) -> pd.DataFrame:
    """The rows that a circuit is judged by: of pictures that it was not found on, where there are any."""
    held_out = effects[effects["is_held_out"].astype(bool)]
    return effects if held_out.empty else held_out
