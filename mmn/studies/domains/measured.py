"""What was measured, from the rows of its tables: the rates of every unit, and MINER's importance, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from mmn.studies.domains.groups import ByLayer, Group, Rates, groups
from mmn.studies.domains.words import EVERY
from mmn.units.parts import Parts

HALVES: Final = (0, 1)
_MEASURES: Final = ("prob", "mean", "maximum", "attn_k", "attn_q")


@dataclass(frozen=True)
class Measured:
    """A measurement, over both halves of its pictures or one.

    Attributes:
        rates: see there.
        n_images: pictures of each domain, of all under `EVERY`.
        n_tokens: of all pictures, by token set.
    """

    rates: Rates
    n_images: Mapping[str, int]
    n_tokens: Mapping[str, int]

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer."""
        (values, *_) = self.rates.sets.values()
        return tuple(map(int, np.isfinite(values).sum(axis=1)))

    @property
    def has_attention(self) -> bool:
        """Whether attention weights were to be had."""
        return any("attn_k" in measures for measures in self.rates.scores.values())


def half_of(image_id: str) -> int:
    """The half that a picture belongs to, in every run."""
    return hashlib.sha256(f"half {image_id}".encode()).digest()[0] % len(HALVES)


def of_rows(rates: pd.DataFrame, scores: pd.DataFrame) -> Measured:
    """The measurement that rows tell of, of one or both halves, by tag of several runs.

    Args:
        rates: of `domain_rate`: domain, token_set, layer, n_images, n_tokens, active.
        scores: of `modality_score`: token_set, layer, n_images and its measures.
    """
    active = {
        (str(domain), str(token_set)): _summed(rows["active"], rows["layer"])
        for (domain, token_set), rows in rates.groupby(["domain", "token_set"])
    }
    first = rates[rates["layer"] == 0]
    tokens = first.groupby(["domain", "token_set"])["n_tokens"].sum().to_dict()
    images = first[first["token_set"] == first["token_set"].iloc[0]].groupby("domain")["n_images"].sum()
    names = [str(name) for name in images.sort_values(ascending=False, kind="stable").index if name != EVERY]
    sets = sorted({token_set for _, token_set in active}, reverse=True)  # text, image
    found = Rates(
        {name: sum(active[name, one] for one in sets) / sum(tokens[name, one] for one in sets) for name in names},
        {one: active[EVERY, one] / tokens[EVERY, one] for one in sets},
        {one: _importance(scores[scores["token_set"] == one]) for one in sets if (scores["token_set"] == one).any()},
    )
    n_images = {str(name): int(n) for name, n in images.items()}
    return Measured(found, n_images, {one: int(tokens[EVERY, one]) for one in sets})


def _summed(values: pd.Series, layers: pd.Series) -> ByLayer:
    """What is said of each layer, summed over halves and runs; NaN behind the units of a layer that has fewer."""
    by_layer = [np.atleast_1d(np.sum(list(of), axis=0, dtype=np.float64)) for _, of in values.groupby(layers)]
    widest = max(map(len, by_layer))
    return np.stack([np.pad(of, (0, widest - len(of)), constant_values=np.nan) for of in by_layer])


def _importance(rows: pd.DataFrame) -> dict[str, ByLayer]:
    """The mean over pictures of each measure that all rows have; halves weigh by their pictures."""
    weights = rows["n_images"].astype(float)
    total = float(weights[rows["layer"] == rows["layer"].iloc[0]].sum())
    there = [name for name in _MEASURES if rows[name].notna().all()]
    scaled = {name: [w * np.asarray(v) for w, v in zip(weights, rows[name], strict=True)] for name in there}
    return {name: _summed(pd.Series(scaled[name], rows.index), rows["layer"]) / total for name in there}


@dataclass(frozen=True)
class Stability:
    """Whether a group is found again on other pictures.

    `again` is the share of the units of one half's group that are in the other's (of the mean of both sizes), `chance`
    what two such groups share that lie in the same layers, of experts in the same ones, and know nothing of each other;
    NaN where a half has none.
    """

    again: float
    chance: float


def stability(name: str, halves: Mapping[int, list[Group]], parts: Parts, d_mlp: int) -> Stability:
    """Of the group of a name, from the groups of each half; `parts` are of units numbered layer · d_mlp + i."""
    found = [next((set(one.units) for one in groups_of if one.name == name), set()) for groups_of in halves.values()]
    size = sum(map(len, found)) / len(found)
    if not all(found):
        return Stability(float("nan"), float("nan"))
    expected = parts.expected([np.array([unit.layer * d_mlp + unit.unit for unit in units]) for units in found]).sum()
    return Stability(len(set.intersection(*found)) / size, float(expected) / size)


def groups_of_halves(rule: str, halves: Mapping[int, Measured | None]) -> dict[int, list[Group]]:
    """The groups that each half of the pictures gives alone; none of a half without pictures, or with one domain."""
    found: dict[int, list[Group]] = {}
    for half, measured in halves.items():
        is_enough = measured is not None and (rule != "dape" or len(measured.rates.domains) > 1)
        found[half] = groups(rule, measured.rates) if measured is not None and is_enough else []
    return found
