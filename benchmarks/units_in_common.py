"""Are a noun's top units the same in two models? A table of two runs of the same pictures, as Markdown.

    python benchmarks/units_in_common.py CACHE RUN OTHER     # ids of the cache or of the runs that ship

For each ranking, the share of a noun's top k units that both models have, and of another noun of the same picture. A
number with brackets is a mean and its 95 % interval by picture. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas as pd

from benchmarks.findings import interval_cell, most_of, section
from mmn import names
from mmn.specimen import RUN_PATHS
from mmn.statistics.intervals import ANYWHERE, mean_intervals
from mmn.store import Store
from mmn.studies.degradation.own import Interval


def units_in_common(store: Store, run: dict[str, Any], other: dict[str, Any]) -> None:
    """How many of a noun's top units two models have in common, on the same picture, and with another noun's."""
    k = min(most_of(run), most_of(other))
    top = {one["run_id"]: top_units(store, one["run_id"], k) for one in (run, other)}
    rows = []
    of_both = set(store.score_methods(run["run_id"])) & set(store.score_methods(other["run_id"]))
    for method in sorted(of_both - {names.RANDOM, names.RANDOM_MATCHED}):  # drawn by picture and noun: the same in both
        here, there = (top[one["run_id"]][method] for one in (run, other))
        both = here.index.intersection(there.index)
        images = both.get_level_values("image_id")
        same = pd.Series([len(here[key] & there[key]) / k for key in both]).groupby(images).mean()
        nouns = [(key, [one for one in there[key[0]].index if one != key[1]]) for key in both]
        elsewhere = pd.Series([mean_share(here[key], there[key[0]], others, k) for key, others in nouns])
        cells = [mean_cell(column) for column in (same, elsewhere.groupby(images).mean())]
        rows.append((method, k, *cells, f"{len(same)}, {len(both)}"))
    section("Units in common", ["ranking", "k", "the same noun", "another of the picture", "pictures, nouns"], rows)


def top_units(store: Store, run_id: str, k: int) -> pd.Series:
    """The set of the top k units, by method, picture and lemma."""
    keys = ["image_id", "variant", "noun"]
    scores = store.table(run_id, "score").merge(store.table(run_id, "concept")[[*keys, "lemma"]], on=keys)
    scores = scores[(scores["variant"] == names.ORIGINAL) & (scores["rank"].between(1, k))]
    scores["place"] = list(zip(scores["layer"], scores["unit"], strict=True))
    return scores.groupby(["method", "image_id", "lemma"])["place"].agg(set)


def mean_share(units: set[int], of_nouns: pd.Series, others: list[str], k: int) -> float:
    """The share of units that other nouns of the picture have, too; NaN where there are none."""
    shares = [len(units & of_nouns[other]) / k for other in others]
    return sum(shares) / len(shares) if shares else float("nan")


def mean_cell(values: pd.Series) -> str:
    value, low, high = (float(one[0]) for one in mean_intervals(values.dropna().to_numpy()[:, None], ANYWHERE))
    return interval_cell(Interval(value, low, high, len(values)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("run")
    parser.add_argument("other")
    options = parser.parse_args()
    with Store.open(options.cache) as opened:
        opened.load_new_shards([opened.runs_path, *RUN_PATHS])
        units_in_common(opened, opened.run(options.run), opened.run(options.other))
