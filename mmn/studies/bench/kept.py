"""What the benchmark has found so far, in the cache: `bench/<hash>/`, each file whole or not there.

planted.safetensors     the rows of planted units, the means of all units, and which unit is what
<image_id>.npy          effects of single units
<image_id>.<method>.json  values and cost of a method
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from jaxtyping import Float
from safetensors.torch import save as to_bytes
from torch import Tensor

from mmn import __version__
from mmn.core import Neuron
from mmn.errors import CacheError
from mmn.models.deltas import checksum
from mmn.models.gates import readers
from mmn.models.model import Model
from mmn.safety.atomic_files import write_whole
from mmn.studies.bench.planting import copy_of
from mmn.studies.bench.ranked import Cost
from mmn.studies.bench.result import PLANTED
from mmn.studies.bench.roles import Planted


@dataclass(frozen=True)
class Soil:
    """Planted units, their rows, and each unit's mean activation."""

    planted: tuple[Planted, ...]
    gate: Float[Tensor, "n d"]
    up: Float[Tensor, "n d"]
    out: Float[Tensor, "n d"]
    means: Float[Tensor, "L m"]

    @classmethod
    def of(cls, model: Model, planted: Sequence[Planted], means: Float[Tensor, "L m"]) -> Soil:
        """The rows as they are in a model."""
        read, units = readers(model), [one.unit for one in planted]
        none = model.anatomy.w_out(0).new_zeros(0, model.anatomy.w_out(0).shape[0])
        gate = [read[one.layer].gate.weight[one.unit].detach() for one in units]
        up = [read[one.layer].up.weight[one.unit].detach() for one in units]
        out = [model.anatomy.w_out(one.layer)[:, one.unit].detach() for one in units]
        stacked = [torch.stack(rows) if rows else none for rows in (gate, up, out)]
        return cls(tuple(planted), stacked[0], stacked[1], stacked[2], means)

    def put_into(self, model: Model) -> Model:
        """A copy of the model with these units, under a name and fingerprint of its own where there are some."""
        copied = copy_of(model)
        read = readers(copied)
        with torch.no_grad():
            for place, one in enumerate(self.planted):
                layer, unit = one.unit.layer, one.unit.unit
                read[layer].gate.weight[unit] = self.gate[place].to(model.device)
                read[layer].up.weight[unit] = self.up[place].to(model.device)
                copied.anatomy.own_w_out(layer)[:, unit] = self.out[place].to(model.device)
        facts = replace(model.facts, name=model.facts.name + PLANTED * bool(self.planted), fingerprint=checksum(copied))
        return replace(copied, facts=facts)


@dataclass(frozen=True)
class Kept:
    """A folder of the cache."""

    path: Path

    @classmethod
    def of(cls, cache_path: Path, inputs: Sequence[Any]) -> Kept:
        """The folder of all that can change a number."""
        digest = hashlib.sha256(repr([__version__, *inputs]).encode()).hexdigest()
        path = cache_path / "bench" / digest[:16]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{path} cannot be made ({error.strerror or error}); give --cache a folder") from error
        return cls(path)

    def soil(self) -> Soil | None:
        """What was planted before."""
        path = self.path / "planted.safetensors"
        if not path.is_file():
            return None
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in ("gate", "up", "out", "means")}
        rows = json.loads(about["planted"])
        planted = tuple(Planted(Neuron(layer, unit), noun, role) for layer, unit, noun, role in rows)
        return Soil(planted, **tensors)

    def keep_soil(self, soil: Soil) -> None:
        rows = [[one.unit.layer, one.unit.unit, one.noun, one.role] for one in soil.planted]
        tensors = {name: getattr(soil, name).cpu().contiguous() for name in ("gate", "up", "out", "means")}
        self._write("planted.safetensors", to_bytes(tensors, {"planted": json.dumps(rows)}))

    def effects(self, image_id: str) -> Float[np.ndarray, "concepts units"] | None:
        path = self.path / f"{image_id}.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def keep_effects(self, image_id: str, values: Float[np.ndarray, "concepts units"]) -> None:
        data = io.BytesIO()
        np.save(data, values)
        self._write(f"{image_id}.npy", data.getvalue())

    def values(self, image_id: str, method: str) -> tuple[dict[str, float], Cost] | None:
        path = self.path / _name(image_id, method)
        if not path.is_file():
            return None
        found = json.loads(path.read_text())
        values = {name: float("nan") if value is None else value for name, value in found["values"].items()}
        return values, Cost(**found["cost"])

    def keep_values(self, image_id: str, method: str, values: dict[str, float], cost: Cost) -> None:
        plain = {name: None if np.isnan(value) else value for name, value in values.items()}
        self._write(_name(image_id, method), json.dumps({"values": plain, "cost": asdict(cost)}).encode())

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_whole(self.path / name, data)
        except OSError as error:
            raise CacheError(f"{self.path / name} cannot be written ({error.strerror or error}); make space") from error


def _name(image_id: str, method: str) -> str:
    return f"{image_id}.{method.replace(':', '-of-')}.json"
