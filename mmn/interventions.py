"""Weights changed for a while: columns of W_out with something added, put back bit for bit whatever happens.

Measuring many changes of one picture does not need this: `hooks.add_to_columns` runs each row of a batch as if its own
columns were changed. This is for one change that many passes are to see (an edit), and the truth that the other is
tested against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.core import Neuron
from mmn.models import Model


@contextmanager
def changed_columns(model: Model, deltas: Mapping[Neuron, Float[Tensor, " d"]]) -> Iterator[None]:
    """Adds `deltas` to the units' columns of W_out inside the block; afterwards the saved columns are put back.

    Restoring copies, it does not subtract: floating-point numbers would not come back exactly.

    Args:
        model: Its lock is held inside the block, so that no other session sees the change.
        deltas: What is added to each unit's column, in the weights' own unit; any dtype.

    Raises:
        AssertionError: a unit that the model does not have.
    """
    anatomy = model.anatomy
    for one in deltas:
        assert one.layer < anatomy.n_layers, f"{one} of a model of {anatomy.n_layers} layers"
        assert one.unit < anatomy.d_mlp, f"{one} of a model of {anatomy.d_mlp} units a layer"
    units = {layer: [one.unit for one in deltas if one.layer == layer] for layer in {one.layer for one in deltas}}
    with model.lock:
        saved = {layer: anatomy.w_out(layer)[:, columns].clone() for layer, columns in units.items()}
        try:
            with torch.no_grad():
                for layer, columns in units.items():
                    added = torch.stack([deltas[Neuron(layer, unit)] for unit in columns], dim=1)
                    weights = anatomy.w_out(layer)
                    weights[:, columns] = saved[layer] + added.to(weights)
            yield
        finally:
            with torch.no_grad():
                for layer, columns in units.items():
                    anatomy.w_out(layer)[:, columns] = saved[layer]
