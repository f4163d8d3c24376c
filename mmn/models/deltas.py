"""A small change of FFN output matrices: added for a while and taken back to the last bit, or saved and loaded again.

A `Delta` holds the changes alone: some columns of W_out (`Columns`), or a rank-one update of one layer's whole matrix
(`RankOne`; where experts share a layer it is written as the columns that are not left as they are). Two ways to use it:

    with applied(model, delta): ...     the model is edited inside the block, under its lock; outside nobody sees it
    load_model(name, delta=path)        a model of its own, with a fingerprint of its own

A checkpoint on disk is never written. A delta's file is a safetensors file, written beside its place and renamed, so it
is there whole or not at all; it names the fingerprint that it belongs to, and the fingerprint that it leads to, which
is a hash of the first and of the tensors: a damaged or exchanged tensor shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import safetensors
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save as to_bytes
from torch import Tensor

from mmn.counts import counted
from mmn.errors import CacheError, ModelError
from mmn.models.adapters import Anatomy
from mmn.models.model import Model
from mmn.safety.atomic_files import write_whole
from mmn.safety.roots import require_inside

FORMAT: Final = "mmn-delta-1"
SUFFIX: Final = ".safetensors"
_WORDS: Final = ("edit_id", "noun", "target", "algorithm", "fingerprint_before", "fingerprint_after")


@dataclass(frozen=True)
class Columns:
    """What is added to the columns `units` of a layer's W_out; float32."""

    layer: int
    units: tuple[int, ...]
    values: Float[Tensor, "d n"]

    def __post_init__(self) -> None:
        assert len(set(self.units)) == len(self.units) == self.values.shape[1], (self.units, self.values.shape)

    @property
    def change(self) -> Float[Tensor, "d n"]:
        """Δ of the columns that are changed."""
        return self.values

    def times(self, size: float) -> Columns:
        return replace(self, values=self.values * size)


@dataclass(frozen=True)
class RankOne:
    """What is added to a layer's W_out: u v^T; float32."""

    layer: int
    u: Float[Tensor, " d"]
    v: Float[Tensor, " m"]

    @property
    def change(self) -> Float[Tensor, "d m"]:
        """Δ of the columns that are changed, which are all."""
        return torch.outer(self.u, self.v)

    def times(self, size: float) -> RankOne:
        return replace(self, u=self.u * size)


Part = Columns | RankOne


@dataclass(frozen=True)
class Delta:
    """The parts of an edit, at most one of a layer, and what they are for."""

    parts: tuple[Part, ...]
    edit_id: str
    noun: str
    target: str
    algorithm: str
    fingerprint_before: str

    @property
    def fingerprint_after(self) -> str:
        """sha-256 over the fingerprint before and every tensor with its name, shape and bytes."""
        digest = hashlib.sha256(f"{FORMAT}\0{self.fingerprint_before}".encode())
        for name, tensor in sorted(_tensors(self.parts).items()):
            digest.update(f"\0{name}\0{tuple(tensor.shape)}\0".encode() + _bytes(tensor))
        return digest.hexdigest()


@contextmanager
def applied(model: Model, delta: Delta) -> Iterator[None]:
    """The model is edited inside the block, and afterwards what it was, to the last bit, whatever happened.

    Its lock is held meanwhile: another thread that captions or scores waits, and never sees the edit.

    Raises:
        ModelError: the delta was made for another model.
    """
    require_fit(model.anatomy, model.facts.fingerprint, delta, model.facts.name)
    with added(model, delta.parts):
        yield


@contextmanager
def added(model: Model, parts: Sequence[Part]) -> Iterator[None]:
    """`applied` for parts that are not yet a delta: W_out + Δ inside the block, restored from copies in `finally`."""
    assert len({part.layer for part in parts}) == len(parts), f"two parts of one layer: {[p.layer for p in parts]}"
    with model.lock:
        saved = [(part, _chosen(model.anatomy, part).clone()) for part in parts]
        try:
            for part in parts:
                _add(model.anatomy, part)
            yield
        finally:
            for part, values in saved:
                _put(model.anatomy, part, values)


def add_for_good(model: Model, delta: Delta, name: str) -> Model:
    """The model with the delta in its weights, called `name` and with the delta's fingerprint; in memory alone.

    Raises:
        ModelError: the delta was made for another model.
    """
    require_fit(model.anatomy, model.facts.fingerprint, delta, model.facts.name)
    for part in delta.parts:
        _add(model.anatomy, part)
    return replace(model, facts=replace(model.facts, name=name, fingerprint=delta.fingerprint_after))


def relative_norm(anatomy: Anatomy, parts: Sequence[Part]) -> float:
    """The largest ‖Δ_i‖ / ‖w_i‖ over the changed columns i of W_out."""
    return max(float(column_norms(anatomy, part).max()) for part in parts)


def column_norms(anatomy: Anatomy, part: Part) -> Float[Tensor, " n"]:
    """‖Δ_i‖ / ‖w_i‖ of each changed column; a column of zeros has none, and counts as 1 long."""
    before = _chosen(anatomy, part).float().norm(dim=0)
    return part.change.to(before.device).norm(dim=0) / before.where(before > 0, 1.0)


def frobenius_norms(anatomy: Anatomy, parts: Sequence[Part]) -> tuple[float, float]:
    """‖Δ‖ over everything that is changed, and ‖w‖ of the same columns."""
    change = sum(float(part.change.square().sum()) for part in parts)
    before = sum(float(_chosen(anatomy, part).float().square().sum()) for part in parts)
    return change**0.5, before**0.5


def checksum(model: Model) -> str:
    """sha-256 over the bytes of all parameters and buffers, in the order of their names."""
    digest = hashlib.sha256()
    with model.lock:
        for name, tensor in sorted(model.module.state_dict().items()):
            digest.update(name.encode() + b"\0" + _bytes(tensor))
    return digest.hexdigest()


def save(delta: Delta, path: Path) -> None:
    """Writes the delta's file, whole or not at all: beside its place, flushed, and renamed.

    Raises:
        CacheError: the folder cannot be made or written.
    """
    about = {word: getattr(delta, word) for word in _WORDS} | {"format": FORMAT}
    data = to_bytes(_tensors(delta.parts), about)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror or error}); give a folder with space") from error


def load(path: Path) -> Delta:
    """Reads a delta's file.

    Raises:
        ModelError: nothing there, no delta, another format, or damaged.
    """
    require_inside(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise ModelError(f"no delta at {path}: give the file that mmn edit wrote") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged or no safetensors file ({error}); make it again with mmn edit") from error
    if about.get("format") != FORMAT or not set(_WORDS) <= set(about):
        found = about.get("format", "no format named")
        raise ModelError(f"{path} is no delta of this version of mmn ({found}, expected {FORMAT})")
    delta = Delta(_parts(path, tensors), **{word: about[word] for word in _WORDS if word != "fingerprint_after"})
    if delta.fingerprint_after != about["fingerprint_after"]:
        raise ModelError(f"{path} is damaged: its tensors are not those that were saved; make it again with mmn edit")
    return delta


def require_fit(anatomy: Anatomy, fingerprint: str, delta: Delta, name: str) -> None:
    """Raises `ModelError` unless the delta was made for this very model."""
    if delta.fingerprint_before != fingerprint:
        raise ModelError(
            f"the delta {delta.noun} -> {delta.target} was made for a model with fingerprint "
            f"{delta.fingerprint_before[:12]}, and {name} has {fingerprint[:12]}: load it onto the model of its run"
        )
    if anatomy.mixtures and any(isinstance(part, RankOne) for part in delta.parts):
        raise ModelError(
            f"the delta {delta.noun} -> {delta.target} changes a layer's whole matrix, and {name} is a mixture of "
            "experts, or its layers differ in width: columns alone can be changed there"
        )
    d_model = anatomy.unembedding.in_features
    for part in delta.parts:
        width = anatomy.widths[part.layer] if part.layer < anatomy.n_layers else 0
        highest = max(part.units) if isinstance(part, Columns) else len(part.v) - 1
        if len(part.change) != d_model or not 0 <= highest < width:
            raise ModelError(
                f"the delta {delta.noun} -> {delta.target} changes unit {highest} of layer {part.layer} by columns of "
                f"{len(part.change)}, and {name} has {counted(anatomy.n_layers, 'layer')} of {(d_model, anatomy.d_mlp)}"
            )


def _chosen(anatomy: Anatomy, part: Part) -> Tensor:
    """The values of W_out that a part changes: columns as a copy, a whole matrix as a view."""
    if isinstance(part, Columns):
        return anatomy.columns(part.layer, torch.tensor(part.units)).detach()
    return anatomy.w_out(part.layer).detach()


@torch.no_grad()
def _add(anatomy: Anatomy, part: Part) -> None:
    """Adds in float32 and rounds to the weights' type once."""
    before = _chosen(anatomy, part)
    _put(anatomy, part, (before.float() + part.change.to(before.device)).to(before.dtype))


@torch.no_grad()
def _put(anatomy: Anatomy, part: Part, values: Tensor) -> None:
    if isinstance(part, RankOne):
        anatomy.own_w_out(part.layer).copy_(values)
    elif anatomy.mixtures:
        for unit, value in zip(part.units, values.unbind(1), strict=True):
            anatomy.own_column(part.layer, unit).copy_(value)
    else:
        whole = anatomy.own_w_out(part.layer)
        whole[:, list(part.units)] = values.to(whole.device)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _tensors(parts: Sequence[Part]) -> dict[str, Tensor]:
    """The tensors of a delta's file by name: `L7.units` and `L7.columns`, or `L7.u` and `L7.v`."""
    tensors: dict[str, Tensor] = {}
    for part in parts:
        if isinstance(part, Columns):
            tensors[f"L{part.layer}.units"] = torch.tensor(part.units, dtype=torch.int32)
            tensors[f"L{part.layer}.columns"] = part.values
        else:
            tensors |= {f"L{part.layer}.u": part.u, f"L{part.layer}.v": part.v}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _parts(path: Path, tensors: dict[str, Tensor]) -> tuple[Part, ...]:
    parts: list[Part] = []
    try:
        for layer in sorted({int(name.partition(".")[0].removeprefix("L")) for name in tensors}):
            if f"L{layer}.units" in tensors:
                parts.append(_columns(layer, tensors[f"L{layer}.units"], tensors[f"L{layer}.columns"]))
            else:
                parts.append(_rank_one(layer, tensors[f"L{layer}.u"], tensors[f"L{layer}.v"]))
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path} is no delta of this version of mmn: its tensors are {', '.join(tensors)}") from error
    return tuple(parts)


def _columns(layer: int, units: Tensor, values: Tensor) -> Columns:
    """A part as its file says it; raises `ValueError` for one that no edit could have made."""
    chosen = units.tolist() if units.ndim == 1 and not units.is_floating_point() else []
    is_sound = values.ndim == 2 and values.shape[1] == len(chosen) == len(set(chosen)) > 0 and min(chosen) >= 0
    if layer < 0 or not is_sound or not _is_finite(values):
        raise ValueError(f"L{layer}: columns of {tuple(values.shape)} {values.dtype} for units {tuple(units.shape)}")
    return Columns(layer, tuple(chosen), values.float())


def _rank_one(layer: int, u: Tensor, v: Tensor) -> RankOne:
    if layer < 0 or u.ndim != 1 or v.ndim != 1 or not (_is_finite(u) and _is_finite(v)):
        raise ValueError(f"L{layer}: u of {tuple(u.shape)} {u.dtype}, v of {tuple(v.shape)} {v.dtype}")
    return RankOne(layer, u.float(), v.float())


def _is_finite(values: Tensor) -> bool:
    return values.is_floating_point() and bool(torch.isfinite(values).all())
