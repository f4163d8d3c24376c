"""What came out of a call of `mmn circuits`, from the shards that it wrote: plain values for JSON and a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmn.core import ModelFacts
from mmn.runs import shards
from mmn.studies.circuits.curves import LINE, WORDS, curves, half_at, judged
from mmn.studies.circuits.tables import CIRCUIT, KEPT
from mmn.studies.tables import TABLES

_READ = ("circuit", "circuit_unit", "circuit_edge", "circuit_layer", "circuit_effect", "neuron")


@dataclass(frozen=True)
class Found:
    """The tables of some circuits."""

    tables: dict[str, pd.DataFrame]
    n_failed: int

    @classmethod
    def of(cls, run_path: Path, circuits: Sequence[str]) -> Found:
        """Reads the shards of the circuits of these names."""
        read = [shards.read_shard(run_path / f"circuits-{name}") for name in circuits]
        failed = {source for one in read if "failure" in one for source in one["failure"]["source"].to_pylist()}
        empty = {name: TABLES[name].empty_table() for name in _READ}
        tables = {name: pd.concat([(empty | one)[name].to_pandas() for one in read]) for name in _READ}
        return cls(tables, len(failed))

    def graph(self, circuit: str) -> dict[str, Any]:
        """What the graph of one circuit is written of (`tracer.graph_json`)."""
        (about,) = self._of("circuit", circuit).to_dict("records")
        words = {(row.layer, row.unit): list(row.tokens) for row in self.tables["neuron"].itertuples()}
        units, edges = (self._of(name, circuit).to_dict("records") for name in ("circuit_unit", "circuit_edge"))
        return {"circuit": about, "units": units, "edges": edges, "words": words}

    def told(self, facts: ModelFacts) -> list[dict[str, Any]]:
        """One entry for each circuit."""
        n_units = sum(facts.widths) or facts.n_units
        return [self._told(row, n_units) for row in self.tables["circuit"].to_dict("records")]

    def _told(self, about: dict[str, Any], n_units: int) -> dict[str, Any]:
        name = about["circuit"]
        layers, effects = self._of("circuit_layer", name), judged(self._of("circuit_effect", name))
        points = curves(effects, "prob")
        kept = ("circuit", "noun", "rule", "k", "n_found", "n_judged", "other_noun", "logit", "prob")
        return {name: about[name] for name in kept} | {
            "image_id": about["image_id"] if isinstance(about["image_id"], str) else None,
            "share": about["k"] * len(layers) / n_units,
            "n": int(effects["image_id"].nunique()),
            "is_held_out": bool(effects["is_held_out"].any()),
            "through_attention": float(layers["through_attention"].mean()),
            "carried": float(layers["carried"].mean()),
            "curves": [_line(points, line, int(about["k"])) for line in WORDS if _has(points, line)],
        }

    def _of(self, table: str, circuit: str) -> pd.DataFrame:
        rows = self.tables[table]
        return rows[rows["circuit"] == circuit]


def _has(points: pd.DataFrame, line: tuple[str, str]) -> bool:
    return not _rows(points, line).empty


def _rows(points: pd.DataFrame, line: tuple[str, str]) -> pd.DataFrame:
    return points[(points[LINE[0]] == line[0]) & (points[LINE[1]] == line[1])]


def _line(points: pd.DataFrame, line: tuple[str, str], k: int) -> dict[str, Any]:
    """A curve at the circuit's own size, and where it crosses half of the untouched probability."""
    rows, whole = _rows(points, line), _rows(points, (KEPT, CIRCUIT))["mean"].iloc[-1]
    here = rows[rows["size"] == k].iloc[0]
    half = half_at(rows["size"].tolist(), rows["mean"].tolist(), float(whole))
    return {
        "direction": line[0],
        "selection": line[1],
        "words": f"{WORDS[line]}, {k} a layer",
        "mean": float(here["mean"]),
        "low": float(here["low"]),
        "high": float(here["high"]),
        "half": half,
        "half_words": "no size" if half is None else f"{half:z.1f} units a layer",
    }
