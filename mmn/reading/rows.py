"""Some rows of a batch of model inputs: most inputs have a row for each picture, the pixels of some families do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmn.models.model import Model
from mmn.reading.captions import decoder_ids

PATCHES_OF = "image_grid_thw"  # an input with a row for each picture: how many patches `pixel_values` has of it


def some_of(model: Model, inputs: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """The model inputs of some of the pictures, in that order.

    Where `pixel_values` lists the patches or the tiles of all pictures, the declared grid or each row's share of the
    image tokens tells which are whose: tiles of one family have as many tokens each.

    Raises:
        AssertionError: an input that cannot be told apart by rows.
    """
    n_rows = len(decoder_ids(inputs))
    if list(rows) == list(range(n_rows)):
        return inputs
    return {name: _of_rows(model, inputs, name, rows) for name in inputs}


def _of_rows(model: Model, inputs: dict[str, Tensor], name: str, rows: Sequence[int]) -> Tensor:
    value, n_rows = inputs[name], len(decoder_ids(inputs))
    if len(value) == n_rows:
        return value[list(rows)]
    parts = value.split(_shares(model, inputs, name))
    return torch.cat([parts[row] for row in rows])


def _shares(model: Model, inputs: dict[str, Tensor], name: str) -> list[int]:
    """How many of an input's rows belong to each picture."""
    n_all = len(inputs[name])
    if PATCHES_OF in inputs:
        return inputs[PATCHES_OF].prod(dim=1).tolist()
    tokens = decoder_ids(inputs).eq(model.image_token_id if model.image_token_id is not None else -1).sum(1).tolist()
    shares = [n * n_all // max(sum(tokens), 1) for n in tokens]
    is_known = any(tokens) and [share * sum(tokens) for share in shares] == [n * n_all for n in tokens]
    assert is_known, f"{name} has {n_all} rows for pictures of {tokens} image tokens: whose are they?"
    return shares
