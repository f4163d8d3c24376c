"""What did interventions do on the whole? The drop at the largest k, and the number of units that halves a probability.

Means are over the nouns of a picture, then over pictures; several draws of one noun count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmn import names, shards
from mmn.bootstrap import interval_table
from mmn.tables import TABLES

_CURVE = ["method", "selection", "sigma"]


def read_effects(run_path: Path, shard_names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The rows of `effect` in some shards of a run, and how many pictures failed there."""
    tables = [shards.read_shard(run_path / name) for name in shard_names]
    effects = [found["effect"].to_pandas() for found in tables if "effect" in found]
    n_failed = sum(len(found["failure"]) for found in tables if "failure" in found)
    return pd.concat(effects) if effects else TABLES["effect"].empty_table().to_pandas(), n_failed


def summarise(effects: pd.DataFrame, n_units: int) -> list[dict[str, Any]]:
    """One entry for each method, selection and sigma.

    Returns:
        method, selection, sigma, sigma_unit; `k` (the largest) and its `share` of all units; `prob_baseline`, `prob`
        (at k) with the ends of its 95 % interval `prob_low` and `prob_high`; `drop`, 1 − prob / prob_baseline;
        `k_half`, the number of units that halves the probability, linear between the measured k, None where none does;
        `lost`, the share of captions without the noun at k, None without captions; n_concepts and n_images.
    """
    if effects.empty:
        return []
    units = effects["sigma_unit"].dropna().unique()
    rows = effects.assign(sigma=effects["sigma"].astype(float).fillna(-1.0), lost=effects["is_lost"].astype(float))
    per_noun = rows.groupby(["image_id", "noun", *_CURVE, "k"], as_index=False)[["prob", "lost"]].mean()
    means = interval_table(per_noun, [*_CURVE, "k"], "prob")
    found = []
    for (method, selection, sigma), curve in means.groupby(_CURVE, sort=False):
        curve = curve.sort_values("k")
        first, last = curve.iloc[0], curve.iloc[-1]
        here = per_noun[(per_noun[_CURVE] == [method, selection, sigma]).all(axis=1) & (per_noun["k"] == last["k"])]
        lost = here.groupby("image_id")["lost"].mean().mean()
        found.append(
            {
                "method": method,
                "selection": selection,
                "sigma": None if sigma < 0 else float(sigma),
                "sigma_unit": units[0] if len(units) else None,
                "k": int(last["k"]),
                "share": float(last["k"] / n_units),
                "prob_baseline": float(first["mean"]),
                "prob": float(last["mean"]),
                "prob_low": float(last["low"]),
                "prob_high": float(last["high"]),
                "drop": float(1 - last["mean"] / first["mean"]),
                "k_half": half_at(curve["k"].tolist(), curve["mean"].tolist()),
                "lost": None if pd.isna(lost) else float(lost),
                "n_concepts": len(here),
                "n_images": int(last["n"]),
            }
        )
    return sorted(
        found, key=lambda one: (one["method"], names.ALL_SELECTIONS.index(one["selection"]), one["sigma"] or 0)
    )


def half_at(ks: Sequence[int], probs: Sequence[float]) -> float | None:
    """The first k at which the probability is half of the first one, linear between measured k; None if it never is."""
    half = probs[0] / 2
    for index in range(1, len(ks)):
        if probs[index] <= half:
            share = (probs[index - 1] - half) / (probs[index - 1] - probs[index])
            return ks[index - 1] + share * (ks[index] - ks[index - 1])
    return None
