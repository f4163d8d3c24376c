"""What did interventions do on the whole? The drop at the largest k, and the number of units that halves a probability.

Means are over the nouns of a picture, its draws, then pictures, and intervals by picture: of `curves`, from which
the page and its figures take theirs, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from mmn import names
from mmn.runs import shards
from mmn.studies.degradation.curves import curves, half_at
from mmn.studies.tables import TABLES

_LINE: Final = ["method", "selection", "sigma"]
_NOUN: Final = ["image_id", "noun"]
_NO_NOISE: Final = -1.0  # instead of a missing sigma, which groups and merges would drop


def read_effects(run_path: Path, shard_names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The rows of `effect` in some shards of a run, and how many pictures failed there."""
    tables = [shards.read_shard(run_path / name) for name in shard_names]
    effects = [found["effect"].to_pandas() for found in tables if "effect" in found]
    n_failed = sum(len(found["failure"]) for found in tables if "failure" in found)
    return pd.concat(effects) if effects else TABLES["effect"].empty_table().to_pandas(), n_failed


def summarise(effects: pd.DataFrame, n_units: int) -> list[dict[str, Any]]:
    """One entry for each method, selection and sigma.

    Returns:
        method, selection, sigma, sigma_unit; `k` (the largest) and its `share` of all units; `prob_baseline`, the
        probability of the same nouns in the untouched model, and `prob` at k, each with the ends of its 95 % interval
        (`prob_low`, `prob_high`); `drop`, 1 − prob / prob_baseline, with `drop_low` and `drop_high`; `k_half`, the
        number of units that halves the probability, linear between the measured k, None where none does; `lost`, the
        share of captions without the noun at k, None without captions, with `lost_low` and `lost_high`; n_concepts,
        n_images and n_draws. Ends are NaN where there is no interval (`mmn.statistics.intervals`).
    """
    if effects.empty:
        return []
    means = picture_means(effects)
    units = effects["sigma_unit"].dropna().unique()
    drawn = {name: curves(means, name) for name in ("prob", "baseline_prob", "relative", "lost")}
    return [
        _entry(means, drawn, line, n_units) | {"sigma_unit": units[0] if len(units) else None} for line in _lines(means)
    ]


def picture_means(effects: pd.DataFrame) -> pd.DataFrame:
    """Returns what `EffectQueries.means` returns, from rows of `effect` of one kind: the mean effect on each picture's
    nouns, and the untouched model's probability of these as the first point (k = 0) of every line.

    Columns: image_id, method, selection, draw, k, sigma, prob, baseline_prob, lost, n_nouns.
    """
    rows = effects.assign(sigma=effects["sigma"].astype(float).fillna(_NO_NOISE), lost=effects["is_lost"].astype(float))
    untouched = rows[rows["k"] == 0].groupby(_NOUN, as_index=False)["prob"].mean()
    untouched = untouched.rename(columns={"prob": "baseline_prob"})
    measured = rows[rows["k"] > 0].merge(untouched, on=_NOUN)
    lines = measured[[*_NOUN, *_LINE, "draw", "baseline_prob"]].drop_duplicates()
    first = lines.assign(k=0, prob=lines["baseline_prob"], lost=0.0)
    by = ["image_id", *_LINE, "draw", "k"]
    points = pd.concat([first, measured]).groupby(by, as_index=False)
    found = points.agg(
        prob=("prob", "mean"),
        baseline_prob=("baseline_prob", "mean"),
        lost=("lost", "mean"),
        n_nouns=("noun", "nunique"),
    )
    return found.assign(sigma=found["sigma"].where(found["sigma"] != _NO_NOISE))


def _lines(means: pd.DataFrame) -> list[tuple[str, str, float | None]]:
    found = means[_LINE].drop_duplicates().itertuples(index=False)
    lines = [(one.method, one.selection, None if pd.isna(one.sigma) else float(one.sigma)) for one in found]
    return sorted(lines, key=lambda line: (line[0], names.ALL_SELECTIONS.index(line[1]), line[2] or 0))


def _entry(
    means: pd.DataFrame, drawn: dict[str, pd.DataFrame], line: tuple[str, str, float | None], n_units: int
) -> dict[str, Any]:
    """The numbers of one line, at its largest k."""
    relative = _of(drawn["relative"], line)
    k = int(relative["k"].iloc[-1])
    here = {name: _of(rows, line).set_index("k").reindex([k]).iloc[0] for name, rows in drawn.items()}
    prob, share, lost = here["prob"], here["relative"], here["lost"]
    there = _of(means, line)
    n_nouns = there[there["k"] == k].groupby("image_id")["n_nouns"].max()
    return dict(zip(_LINE, line, strict=True)) | {
        "k": k,
        "share": float(k / n_units),
        "prob_baseline": float(here["baseline_prob"]["mean"]),
        "prob": float(prob["mean"]),
        "prob_low": float(prob["low"]),
        "prob_high": float(prob["high"]),
        "drop": 1 - float(share["mean"]),
        "drop_low": 1 - float(share["high"]),
        "drop_high": 1 - float(share["low"]),
        "k_half": half_at(relative["k"].tolist(), relative["mean"].tolist()),
        "lost": None if pd.isna(lost["mean"]) else float(lost["mean"]),
        "lost_low": float(lost["low"]),
        "lost_high": float(lost["high"]),
        "n_concepts": int(n_nouns.sum()),
        "n_images": int(prob["n"]),
        "n_draws": int(prob["n_draws"]),
    }


def _of(rows: pd.DataFrame, line: tuple[str, str, float | None]) -> pd.DataFrame:
    method, selection, sigma = line
    is_line = (rows["method"] == method) & (rows["selection"] == selection)
    return rows[is_line & (rows["sigma"].isna() if sigma is None else rows["sigma"] == sigma)].sort_values("k")
