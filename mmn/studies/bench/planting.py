"""Plants units with known roles in a copy of a model's weights, in memory; the model itself stays as it is.

    pictures to build on ─► rows of W_gate and W_up by which a unit is active where its role says (`detectors`)
      ─► W_out[:, i] = c · the role's direction, c so that zeroing the unit takes from the noun's logit what the role
         says: measured, then scaled

A unit takes the place of the one of its layer that writes least on these pictures. Layers are gone through from the
first to the last, each built on what the ones before it changed. Whether roles hold on other pictures is for `verify`
to measure. OURS.
"""

from __future__ import annotations

import copy
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.core import Concept, Neuron
from mmn.models.adapters.anatomy import find_anatomy
from mmn.models.deltas import checksum
from mmn.models.float64 import wide
from mmn.models.gates import readers
from mmn.models.model import Model
from mmn.reading.hooks.streams import capture_streams, replay
from mmn.scores.equations import folded_rows
from mmn.studies.bench.detectors import At, Site, constant, detector, detector_of, where_active
from mmn.studies.bench.result import PLANTED
from mmn.studies.bench.roles import ERASED, ERASER, HELPER, ROLES, SEER, SILENT, SUPPRESSOR, WRITER, Planted, Role
from mmn.studies.bench.told import Told
from mmn.studies.bench.yardstick import effects, logits_of

N_SCALED: Final = 5  # pictures by which a unit's column is scaled
N_STEPS: Final = 4
FIRST: Final = 0.15  # of the layer's usual length of columns: what is tried first
LONGEST: Final = 3.0  # likewise: what it may not exceed
MARKED: Final = 0.05  # of the stream's length: how much the erased unit writes of what its eraser knows it by


def copy_of(model: Model) -> Model:
    """A model with weights of its own."""
    module = copy.deepcopy(model.module)
    return replace(model, module=module, anatomy=find_anatomy(module, model.family), lock=threading.RLock())


def plant(
    model: Model, built: Sequence[Told], nouns: Sequence[str], progress: Callable[[int, int], None]
) -> tuple[Model, tuple[Planted, ...]]:
    """A copy of the model with one unit of each role for each noun, under a name and fingerprint of its own.

    Args:
        model: with gated FFNs.
        built: pictures to build on, as the model tells them.
        nouns: the names of objects; for none nothing is planted.
        progress: told (layers done, layers in all).

    Raises:
        UnsupportedModelError: other FFNs.
        ModelError: captions of these pictures say a noun too rarely to build on.
    """
    readers(model)
    if not nouns:
        return copy_of(model), ()
    garden = Garden(copy_of(model), [])
    passes = {told.example.image_id: replay(garden.model, told.whole(garden.model)) for told in built}
    layers = sorted({role.layer(model.anatomy.n_layers) for role in ROLES})
    for done, layer in enumerate(layers):
        progress(done, len(layers))
        site = Site.read(garden.model, layer, built, passes)
        for noun in nouns:
            for role in ROLES:
                if role.layer(model.anatomy.n_layers) == layer:
                    garden.add(site, noun, role)
    facts = replace(model.facts, name=model.facts.name + PLANTED, fingerprint=checksum(garden.model))
    return replace(garden.model, facts=facts), tuple(garden.planted)


@dataclass(frozen=True)
class Garden:
    """The copy, and what was planted in it so far."""

    model: Model
    planted: list[Planted]

    def of(self, noun: str, role: Role) -> Neuron:
        """The unit of a role that was planted for a noun."""
        return next(one.unit for one in self.planted if (one.noun, one.role) == (noun, role.name))

    def add(self, site: Site, noun: str, role: Role) -> None:
        """Writes the three rows of one unit."""
        unit = weakest(site, {one.unit for one in self.planted})
        with torch.no_grad():
            if role == ERASER:
                self._add_eraser(site, noun, unit)
            else:
                _write_reads(site, unit, detector(site, noun, role))
                _write(site, unit, _DIRECTIONS[role.name](site, site.saying(noun)) * FIRST * _usual_length(site))
                _scale(site, noun, unit, role.effect or WRITER.effect) if role != SILENT else None
                if role == ERASED:
                    _mark(site, unit)
        self.planted.append(Planted(unit, noun, role.name))

    def _add_eraser(self, site: Site, noun: str, unit: Neuron) -> None:
        """What the erased unit wrote, taken back: so much that zeroing that one changes nothing any more."""
        erased = self.of(noun, ERASED)
        _write_reads(site, unit, detector_of(site, noun, erased, ERASER.loudness))
        column = -self.model.anatomy.w_out(erased.layer)[:, erased.unit].float()

        def left(size: float) -> float:
            _write(site, unit, size * column)
            return _measure(site, noun, erased)

        _write(site, unit, nearest_to_zero(left, N_STEPS) * column)


def nearest_to_zero(left: Callable[[float], float], n_steps: int) -> float:
    """Of the sizes that the secant method tries, from 0 and 1 on, the one at which least is left."""
    tried = {0.0: left(0.0), 1.0: left(1.0)}
    before, size = 0.0, 1.0
    for _ in range(n_steps):
        slope = (tried[size] - tried[before]) / (size - before)
        step = -tried[size] / slope if slope < 0 else 1.0
        before, size = size, max(0.0, size + min(max(step, -size / 2), 2.0))
        if size in tried:
            break
        tried[size] = left(size)
    return min(tried, key=lambda one: abs(tried[one]))


def weakest(site: Site, taken: set[Neuron]) -> Neuron:
    """The unit that writes least at its most: the smallest max |a| · ‖W_out[:, i]‖ on the pictures to build on."""
    x = torch.cat(site.reads).to(site.model.dtype)
    with torch.inference_mode():
        a = site.model.anatomy.activations[site.layer](site.readers.gate(x)) * site.readers.up(x)
        most = a.float().abs().amax(0) * site.model.anatomy.w_out(site.layer).float().norm(dim=0)
    order = [Neuron(site.layer, int(unit)) for unit in most.argsort(stable=True)]
    return next(one for one in order if one not in taken)


def _write_reads(site: Site, unit: Neuron, row: Float[Tensor, " d"]) -> None:
    site.readers.gate.weight[unit.unit] = row.to(site.model.dtype)
    site.readers.up.weight[unit.unit] = constant(site).to(site.model.dtype)


def _write(site: Site, unit: Neuron, column: Float[Tensor, " d"]) -> None:
    whole = site.model.anatomy.own_w_out(site.layer)
    whole[:, unit.unit] = column.to(whole)


def _scale(site: Site, noun: str, unit: Neuron, wanted: float) -> None:
    """Multiplies what a unit writes until zeroing it takes `wanted` from the noun's logit, or it is as long as others'.

    Of the sizes tried the one that comes nearest is kept: a unit that writes ever more takes the stream elsewhere.
    """
    column, longest = site.model.anatomy.w_out(site.layer)[:, unit.unit].float(), LONGEST * _usual_length(site)
    tried: list[tuple[float, Tensor]] = []
    for _ in range(N_STEPS):
        _write(site, unit, column)
        found = _measure(site, noun, unit) / wanted
        tried.append((abs(found - 1), column))
        column = column * (min(max(1 / found, 1 / 3), 3.0) if found > 0 else 1 / 3)
        column = column * min(1.0, longest / float(column.norm()))
    _write(site, unit, min(tried, key=lambda one: one[0])[1])


def _measure(site: Site, noun: str, unit: Neuron) -> float:
    """The median effect of zeroing a unit on the noun, over some pictures to build on."""
    said = site.saying(noun)[:N_SCALED]
    return statistics.median(
        float(effects(site.replayed(told), told, [concept], [unit])[0, 0]) for told, concept in said
    )


def _usual_length(site: Site) -> float:
    """The median length of the layer's columns of W_out."""
    return float(site.model.anatomy.w_out(site.layer).float().norm(dim=0).median())


def _mark(site: Site, unit: Neuron) -> None:
    """Adds to what a unit writes a direction in which streams hardly differ, by which its eraser can know it."""
    streams = wide(torch.cat(site.streams))
    direction = torch.linalg.eigh(torch.cov(streams.T)).eigenvectors[:, 0].float().to(site.model.device)
    size = MARKED * float(streams.norm(dim=1).median()) / ERASED.loudness
    _write(site, unit, site.model.anatomy.w_out(site.layer)[:, unit.unit].float() + size * direction)


def _of_length_one(direction: Tensor) -> Float[Tensor, " d"]:
    return direction.float() / direction.float().norm()


def _noun_row(site: Site, said: Sequence[At]) -> Float[Tensor, " d"]:
    """The mean over pictures of the noun's row of W_U."""
    ids = torch.tensor([concept.token_id for _, concept in said], device=site.model.device)
    return _of_length_one(site.model.anatomy.w_u(ids).mean(0))


def _away(site: Site, said: Sequence[At]) -> Float[Tensor, " d"]:
    return -_noun_row(site, said)


def _indirect(site: Site, said: Sequence[At]) -> Float[Tensor, " d"]:
    """What the logit gains by at p(c), less its part along the noun's row of W_U, plain and behind the norm's gain."""
    gradient = _gradient(site, said, WRITER)
    row = _noun_row(site, said)
    folded = _of_length_one(folded_rows(site.model.anatomy, row[None], torch.ones_like(row)[None])[0])
    basis = torch.linalg.qr(torch.stack([row, folded], dim=1)).Q
    return _of_length_one(gradient - basis @ (basis.T @ gradient))


def _from_the_picture(site: Site, said: Sequence[At]) -> Float[Tensor, " d"]:
    """What the logit gains by at the object's image tokens."""
    return _of_length_one(_gradient(site, said, SEER))


def _unread(site: Site, _said: Sequence[At]) -> Float[Tensor, " d"]:
    """The direction that the unembedding, behind the final norm's gain, reads least."""
    anatomy = site.model.anatomy
    rows = anatomy.unembedding.weight.detach().float()
    folded = wide(folded_rows(anatomy, rows, torch.ones_like(rows)))
    return _of_length_one(torch.linalg.svd(folded, full_matrices=False).Vh[-1])  # or U is V × V: 19 GB of 49,152 tokens


def _gradient(site: Site, said: Sequence[At], role: Role) -> Float[Tensor, " d"]:
    """The mean over pictures of ∂y/∂(residual stream behind the layer), summed over where the role is active."""
    return torch.stack([_gradient_of(site, told, concept, role) for told, concept in said]).mean(0)


def _gradient_of(site: Site, told: Told, concept: Concept, role: Role) -> Float[Tensor, " d"]:
    model = site.model
    with torch.enable_grad():
        with capture_streams(model, {site.layer: site.readers.gate}) as found:
            final = site.passes[told.example.image_id].again(1)
        y = logits_of(model, final[:, told.at(concept)])[0, concept.token_id]
        (gradient,) = torch.autograd.grad(y, found.streams[site.layer])
    return gradient[0, where_active(told, told.named[concept.lemma], role)].float().sum(0)


_DIRECTIONS: Final[dict[str, Callable[[Site, Sequence[At]], Tensor]]] = {
    SEER.name: _from_the_picture,
    HELPER.name: _indirect,
    WRITER.name: _noun_row,
    SUPPRESSOR.name: _away,
    ERASED.name: _noun_row,
    SILENT.name: _unread,
}
