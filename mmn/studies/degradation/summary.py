"""What did interventions do on the whole? The drop at the largest k, and the number of units that halves a probability.

Means are over the nouns of a picture, its draws, then pictures, and intervals by picture: of `curves`, from which
the page and its figures take theirs, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from mmn import names
from mmn.runs import shards
from mmn.studies.degradation.curves import curves, emptied, filled, half_at, is_untouched
from mmn.studies.degradation.own import OwnPart, own_parts
from mmn.studies.tables import TABLES

_LINE: Final = ["method", "selection", "positions", "sigma", "factor"]
_FURTHER: Final = ("noun_share", "nats", "nats_captions")
_Line = tuple[str, str, str, float | None, float | None]
_NOUN: Final = ["image_id", "noun"]


@dataclass(frozen=True)
class Effects:
    """What some shards of a run hold: rows of `effect`, those of `noun_share` and `perplexity`, and failed pictures."""

    effect: pd.DataFrame
    further: pd.DataFrame
    n_failed: int


def read_effects(run_path: Path, shard_names: Sequence[str]) -> Effects:
    """Reads the shards that `degrade` and `measure_controls` wrote."""
    tables = [shards.read_shard(run_path / name) for name in shard_names]
    n_failed = sum(len(found["failure"]) for found in tables if "failure" in found)
    effect, shares, texts = (_rows(tables, name) for name in ("effect", "noun_share", "perplexity"))
    return Effects(effect, further_rows(shares, texts), n_failed)


def further_rows(shares: pd.DataFrame, texts: pd.DataFrame) -> pd.DataFrame:
    """Rows of `noun_share` and `perplexity` beside each other, as `picture_means` takes them."""
    is_plain = texts["text"] == names.PLAIN_TEXT
    by_text = texts.assign(nats=texts["nats"].where(is_plain), nats_captions=texts["nats"].where(~is_plain))
    return pd.concat([shares, by_text.drop(columns="text")])


def _rows(tables: Sequence[Mapping[str, pa.Table]], name: str) -> pd.DataFrame:
    found = [one[name].to_pandas() for one in tables if name in one]
    return pd.concat(found) if found else TABLES[name].empty_table().to_pandas()


def summarise(effects: pd.DataFrame, n_units: int, further: pd.DataFrame | None = None) -> list[dict[str, Any]]:
    """One entry for each method, selection, place and sigma or factor.

    Args:
        effects: rows of `effect` of one kind.
        n_units: of the model.
        further: `further_rows` of the same.

    Returns:
        method, selection, positions, sigma, sigma_unit, factor; `k` (the largest) and its `share` of all units;
        `prob_baseline`, the probability of the same nouns in the untouched model, and `prob` at k, each with the ends
        of its 95 % interval (`prob_low`, `prob_high`); `drop`, 1 − prob / prob_baseline, with `drop_low` and
        `drop_high`; `k_half`, the number of units that halves the probability, linear between the measured k, None
        where none does; `lost`, the share of captions without the noun at k, None without captions, with `lost_low`
        and `lost_high`; n_concepts, n_images and n_draws; `own`, of `top` alone: how much is the noun's own, at some k
        (`own.OwnPart.plain`). Ends are NaN where there is no interval (`mmn.statistics.intervals`).
    """
    if effects.empty:
        return []
    means = picture_means(effects, further)
    units = effects["sigma_unit"].dropna().unique()
    drawn = {name: curves(means, name) for name in ("prob", "baseline_prob", "relative", "lost")}
    parts = own_parts(means, n_units)
    unit = {"sigma_unit": units[0] if len(units) else None}
    return [_entry(means, drawn, line, n_units) | unit | {"own": _own(parts, line)} for line in _lines(means)]


def _own(parts: Sequence[OwnPart], line: _Line) -> list[dict[str, Any]]:
    method, selection, positions, sigma, factor = line
    if selection != names.TOP:
        return []
    wanted = (method, positions, sigma, factor)
    return [one.plain() for one in parts if (one.method, one.positions, one.sigma, one.factor) == wanted]


def picture_means(effects: pd.DataFrame, further: pd.DataFrame | None = None) -> pd.DataFrame:
    """Returns what `EffectQueries.means` returns, from rows of `effect` of one kind: the mean effect on each picture's
    nouns, and the untouched model's probability of these as the first point (k = 0) of every line.

    Columns: image_id, method, selection, positions, draw, k, sigma, factor, prob, baseline_prob, lost, noun_share,
    nats, nats_captions, n_nouns.
    """
    rows = effects if further is None else pd.concat([effects, further])
    rows = rows.reindex(columns=[*_NOUN, *_LINE, "draw", "k", "prob", "is_lost", *_FURTHER])
    rows = filled(rows).assign(lost=rows["is_lost"].astype(float))
    key = [*_NOUN, *_LINE, "draw"]
    rows = rows.groupby([*key, "k"], as_index=False)[["prob", "lost", *_FURTHER]].mean()
    is_plain = is_untouched(rows)
    untouched = rows[is_plain].groupby(_NOUN, as_index=False)[["prob", *_FURTHER]].mean()
    untouched = untouched.rename(columns={name: f"baseline_{name}" for name in ("prob", *_FURTHER)})
    measured = rows[~is_plain].merge(untouched, on=_NOUN)
    points = pd.concat([_first_points(measured, key), measured]).groupby(["image_id", *_LINE, "draw", "k"])
    found = points[["prob", "baseline_prob", "lost", *_FURTHER]].mean().assign(n_nouns=points["noun"].nunique())
    return emptied(found.reset_index())


def _first_points(measured: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The untouched model as the first point of every line; empty where the line was not measured that way."""
    lines = measured.groupby(key, as_index=False).agg(
        **{f"baseline_{name}": (f"baseline_{name}", "first") for name in ("prob", *_FURTHER)},
        **{f"n_{name}": (name, "count") for name in _FURTHER},
    )
    first = {name: lines[f"baseline_{name}"].where(lines[f"n_{name}"] > 0) for name in _FURTHER}
    return lines[[*key, "baseline_prob"]].assign(k=0, prob=lines["baseline_prob"], lost=0.0, **first)


def _lines(means: pd.DataFrame) -> list[_Line]:
    found = means[_LINE].drop_duplicates().itertuples(index=False)
    lines = [
        (one.method, one.selection, one.positions, *(None if pd.isna(size) else float(size) for size in one[3:]))
        for one in found
    ]
    order = names.ALL_SELECTIONS.index
    return sorted(lines, key=lambda line: (line[0], line[2], order(line[1]), line[3] or 0, line[4] or 0))


def _entry(means: pd.DataFrame, drawn: dict[str, pd.DataFrame], line: _Line, n_units: int) -> dict[str, Any]:
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


def _of(rows: pd.DataFrame, line: _Line) -> pd.DataFrame:
    method, selection, positions, *sizes = line
    is_line = (rows["method"] == method) & (rows["selection"] == selection) & (rows["positions"] == positions)
    for name, size in zip(("sigma", "factor"), sizes, strict=True):
        is_line &= rows[name].isna() if size is None else rows[name] == size
    return rows[is_line].sort_values("k")
