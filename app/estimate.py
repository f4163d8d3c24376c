"""What will a scoring cost? Pictures, score rows, disk and time, from the pictures themselves and from earlier runs.

Only what is known is said: without an earlier run of the model there is no time, and the number of nouns is assumed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import pandas as pd

CONCEPTS_ASSUMED: Final = 3.0  # nouns in a short caption
BYTES_PER_ROW: Final = 27  # shards and database together, as the gallery scored by the specimen takes


@dataclass(frozen=True)
class Estimate:
    """`n_rows` is an upper bound while the model's number of units is unknown; `seconds` is None while no earlier run
    of the model tells its rate (pictures per second).
    """

    n_images: int
    n_failed: int
    concepts_per_image: float
    is_measured: bool
    n_rows: int
    n_bytes: int
    rate: float | None
    seconds: float | None


def estimate(
    runs: pd.DataFrame,
    model: str,
    n_images: int,
    n_failed: int,
    n_methods: int,
    top_k: int,
    bottom_k: int,
    elsewhere: Collection[str] = (),
) -> Estimate:
    """The cost of scoring `n_images` pictures, by what the newest complete run of `model` in `runs` took.

    Its time does not count where it is one of `elsewhere`, by id: another machine scored it.
    """
    earlier = runs[(runs["model"] == model) & (runs["n_images"] > 0) & (runs["seconds"] > 0)] if len(runs) else runs
    known = earlier.iloc[0] if len(earlier) else None
    per_image = CONCEPTS_ASSUMED if known is None else float(known["n_concepts"] / known["n_images"])
    most = top_k + bottom_k
    if known is not None:
        most = min(top_k, int(known["n_layers"] * known["d_mlp"])) + bottom_k
    n_rows = round(n_images * per_image * n_methods * most)
    here = earlier[~earlier["run_id"].isin(elsewhere)] if len(earlier) else earlier
    rate = float(here.iloc[0]["n_images"] / here.iloc[0]["seconds"]) if len(here) else None
    return Estimate(
        n_images,
        n_failed,
        per_image,
        known is not None,
        n_rows,
        n_rows * BYTES_PER_ROW,
        rate,
        None if rate is None else n_images / rate,
    )
