"""Noise on what units write: N(0, σ²) on their columns of W_out (P2, arXiv 2311.07470), each row of a batch its own.

    sigma_unit weight        w_i + σ · n             n ~ N(0, 1) for each of the d weights of the column
    sigma_unit column norm   w_i + σ · ‖w_i‖/√d · n  so that the noise is about σ times as long as the column (OURS)

W_out is linear, so the noise is added to what the FFN writes (`hooks.add_to_columns`); the weights are never touched.
A unit's noise comes from a hash of what it is for and from the unit's rank: it is the same for every k and σ, so that a
curve over them follows one draw, and it depends on no batch. Units that are drawn once for a picture have one
noise, too: all its nouns are measured under the same change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmn import names
from mmn.models.model import Model
from mmn.reading.hooks import AddedColumns, add_to_columns
from mmn.studies.degradation.selections import Choice, Row


def perturb_rows(
    model: Model, rows: Sequence[Row], seed: int, sigma_unit: str
) -> AbstractContextManager[None, bool | None]:
    """Runs each row of a batch under its own noise, inside the block."""
    by_choice: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        if row.k:
            by_choice.setdefault(id(row.choice), []).append(number)
    added = [one for numbers in by_choice.values() for one in _added(model, rows, numbers, seed, sigma_unit)]
    return add_to_columns(model, len(rows), added)


def unit_noise(choice: Choice, n_units: int, d: int, seed: int) -> Float[Tensor, "n_units d"]:
    """Standard normal noise of the first units of a choice; more units go on where fewer end."""
    of = ["", ""] if choice.selection == names.RANDOM_PICTURE else [choice.said.concept.lemma, choice.method]
    key = [str(seed), choice.said.example.image_id, names.ORIGINAL, *of, choice.selection, str(choice.draw)]
    digest = hashlib.sha256("\0".join(["noise", *key]).encode()).digest()
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "big")))
    return torch.from_numpy(generator.standard_normal((n_units, d), dtype=np.float32))


def column_sizes(model: Model, units: Sequence[int], sigma_unit: str) -> Float[Tensor, " n"]:
    """What σ is multiplied by for each unit (flat index): 1, or its column's norm over √d."""
    if sigma_unit == names.WEIGHT:
        return torch.ones(len(units), device=model.device)
    assert sigma_unit == names.COLUMN_NORM, sigma_unit
    placed = [divmod(one, model.facts.d_mlp) for one in units]
    columns = [model.anatomy.columns(layer, torch.tensor([unit]))[:, 0].float() for layer, unit in placed]
    return torch.stack(columns).norm(dim=1) / columns[0].numel() ** 0.5


def _added(
    model: Model, rows: Sequence[Row], numbers: Sequence[int], seed: int, sigma_unit: str
) -> Iterator[AddedColumns]:
    """The noise of the rows of one choice, one value for each layer."""
    choice = rows[numbers[0]].choice
    n_units = max(rows[number].k for number in numbers)
    units = choice.units[:n_units].cpu()
    noise = unit_noise(choice, n_units, model.anatomy.unembedding.in_features, seed).to(model.device)
    rank = torch.arange(n_units)
    scale = torch.stack([(rank < rows[number].k) * (rows[number].sigma or 0.0) for number in numbers])
    scale = scale.to(model.device) * column_sizes(model, units.tolist(), sigma_unit)
    layers, where = units // model.facts.d_mlp, torch.tensor(numbers, device=model.device)
    for layer in layers.unique().tolist():
        here = (layers == layer).nonzero()[:, 0].to(model.device)
        column = units.to(model.device)[here] % model.facts.d_mlp
        yield AddedColumns(layer, where, column, noise[here], scale[:, here])
