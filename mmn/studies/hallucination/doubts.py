"""Which nouns does a model name and not believe? Its image tokens are no surer of them than of what it never names.

    confidence (`raw`) in every object of every picture ─► of those that the caption does not name, the 95th percentile
      ─► a noun at or below that is doubted

A caption names an object by any word for it (`judging`, `reading.synonyms`), so that "dog" is no unnamed object of a
caption that says "puppy", and a puppy is doubted only where the dog is, too: of the words for one object that were
asked for, the surest counts. OURS; it needs no references.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from mmn.store import Store
from mmn.studies.hallucination.queries import HallucinationQueries

DOUBTED: Final = 0.95  # of the objects that captions do not name
_COLUMNS: Final = ["image_id", "noun", "confidence", "threshold"]


def doubted(store: Store, run_id: str) -> pd.DataFrame:
    """Returns image_id, noun, confidence, threshold of all nouns of a run that are doubted; empty where nothing was
    read.
    """
    found: pd.DataFrame = store.recent(("doubted", run_id), lambda: _doubted(store, run_id))
    return found.copy(deep=False)


def threshold(rows: pd.DataFrame) -> float:
    """The confidence that `DOUBTED` of the objects stay below that captions do not name; NaN without such.

    Args:
        rows: `raw` and `is_named`, a row for each object of each picture.
    """
    return float(rows.loc[~rows["is_named"], "raw"].quantile(DOUBTED))


def _doubted(store: Store, run_id: str) -> pd.DataFrame:
    ask = store.ask(HallucinationQueries)
    read, judge = ask.confidences(run_id), ask.judge(run_id)
    read = read[read["readout"] == "raw"].rename(columns={"confidence": "raw"})
    if read.empty:
        return pd.DataFrame(columns=_COLUMNS)
    named = {
        row["image_id"]: judge.named(row["image_id"], row["nouns"], row["text"])
        for row in ask.nouns_before(run_id).to_dict("records")
    }
    meant = [judge.meaning(image_id, name) for image_id, name in zip(read["image_id"], read["object"], strict=True)]
    are_named = [name in named.get(image_id, ()) for image_id, name in zip(read["image_id"], meant, strict=True)]
    read = read.assign(meant=meant, is_named=read["is_said"] | np.array(are_named, bool))
    read["confidence"] = read.groupby(["image_id", "meant"])["raw"].transform("max")
    said = read[read["is_said"]].assign(threshold=threshold(read))
    return said.loc[said["confidence"] <= said["threshold"], _COLUMNS].sort_values(["image_id", "noun"])
