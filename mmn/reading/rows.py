"""Some rows of a batch of model inputs: most inputs have a row for each picture, the pixels of some families do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.captions import decoder_ids

PIXELS: Final = ("pixel_values", "image_patches", "pixel_attention_mask")  # by tile or patch of all pictures
PATCHES_OF: Final = "image_grid_thw"  # an input with a row for each picture: how many patches `pixel_values` has of it
SIZES: Final = "target_sizes"  # MiniCPM-V's rows and columns of each picture, whose patches lie side by side
LOCAL, N_LOCAL = "pixel_values_local", "num_local_patches"  # crops of all pictures beside the whole ones; of each
POOLED: Final = "image_token_pooling"  # Molmo's image tokens, each with the patches of the batch that it is made of
N_CROPS, GRIDS = "image_num_crops", "image_grids"  # Molmo's crops of each picture; its tokens, whole and in crops


Inputs = dict[str, Tensor]  # of one picture, or of several


def repeated(inputs: Inputs, n_rows: int) -> dict[str, Tensor]:
    """The model inputs of one picture for several rows of it; whatever a picture has several of stays together."""
    return {name: _joined([value] * n_rows, _cut_along(inputs, name)) for name, value in inputs.items()}


def _joined(parts: Sequence[Any], along: int) -> Any:
    """Of pictures, one after the other; a few families give lists of counts."""
    return torch.cat(list(parts), along) if isinstance(parts[0], Tensor) else [one for part in parts for one in part]


def _cut_along(inputs: Inputs, name: str) -> int:
    """The dimension that pictures lie along."""
    return -1 if name in PIXELS and SIZES in inputs else 0


def some_of(model: Model, inputs: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """The model inputs of some of the pictures, in that order.

    Where `pixel_values` lists the patches or the tiles of all pictures, declared sizes or each row's share of the image
    tokens tell which are whose: tiles of one family have as many tokens each.

    Raises:
        UsageError: an input that cannot be told apart by pictures.
    """
    n_rows = len(decoder_ids(inputs))
    if list(rows) == list(range(n_rows)):
        return inputs
    parts = {name: _split(model, inputs, name) for name in inputs}
    if POOLED in parts:
        parts[POOLED] = _from_own_patches(parts[POOLED], parts["pixel_values"])
    found = {name: _joined([part[row] for row in rows], _cut_along(inputs, name)) for name, part in parts.items()}
    if LOCAL in found and not len(found[LOCAL]):
        del found[LOCAL]  # as the processor does for pictures without crops
    return found


def _split(model: Model, inputs: Inputs, name: str) -> Sequence[Any]:
    """One input by picture."""
    value, along = inputs[name], _cut_along(inputs, name)
    if not isinstance(value, Tensor):
        return [[one] for one in value]
    if name == LOCAL and N_LOCAL in inputs:
        return value.split([int(n) for n in inputs[N_LOCAL]])
    if along == 0 and len(value) == len(decoder_ids(inputs)):
        return value.split(1)
    if name in PIXELS or name == POOLED:
        return value.split(_shares(model, inputs, name), along)
    raise _refusal(model, name, value)


def _shares(model: Model, inputs: Inputs, name: str) -> list[int]:
    """How much of an input, along the dimension that pictures lie along, belongs to each."""
    n_all = inputs[name].shape[_cut_along(inputs, name)]
    if len(sizes := inputs.get(SIZES, ())) == len(decoder_ids(inputs)):
        n_patches = torch.as_tensor(sizes).prod(dim=1)
        return (n_patches * (n_all // n_patches.sum())).tolist()
    if name == POOLED and GRIDS in inputs:
        return inputs[GRIDS].unflatten(1, (-1, 2)).prod(2).sum(1).tolist()
    if N_CROPS in inputs:
        return inputs[N_CROPS].tolist()
    if PATCHES_OF in inputs:
        return inputs[PATCHES_OF].prod(dim=1).tolist()
    tokens = decoder_ids(inputs).eq(model.image_token_id if model.image_token_id is not None else -1).sum(1).tolist()
    shares = [n * n_all // max(sum(tokens), 1) for n in tokens]
    if not any(tokens) or [share * sum(tokens) for share in shares] != [n * n_all for n in tokens]:
        raise _refusal(model, name, inputs[name])
    return shares


def _from_own_patches(pooled: Sequence[Tensor], pixels: Sequence[Tensor]) -> list[Tensor]:
    """Numbers of patches counted from each picture's own first; below 0 they stand for none."""
    begins = [0]
    for tiles in pixels:
        begins.append(begins[-1] + tiles.shape[:2].numel())
    return [torch.where(part < 0, part, part - begin) for part, begin in zip(pooled, begins, strict=False)]


def _refusal(model: Model, name: str, value: Tensor) -> UsageError:
    return UsageError(
        f"{model.facts.name}: its input {name} of {tuple(value.shape)} cannot be told apart by pictures; "
        "score with --batch-size 1"
    )
