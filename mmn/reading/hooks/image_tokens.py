"""What the decoder is given of a picture, read and replaced at its input; and what its positions may attend to.

    picture ─► projector ─► image tokens ─► `read_embeddings`, `embed` ─► layer 0 … L−1, each under `block_attention`

Each row of a batch has a change of its own. Attention is blocked by the mask that a layer is given (Geva et al. 2023,
arXiv 2304.14767): what is masked gets no weight, and the others' weights add up to 1 without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.hooks.entering import before_decoder
from mmn.reading.hooks.lending import lent

MASK: Final = "attention_mask"  # what the layers of every text decoder of transformers call it
SOFTMAX: Final = ("full_attention", "sliding_attention", "chunked_attention")  # of a config's `layer_types`


@contextmanager
def read_embeddings(model: Model) -> Iterator[list[Float[Tensor, "batch positions d"]]]:
    """Records what enters the decoder, after the projector and before any position is added, in each pass inside.

    Raises:
        UsageError: the decoder is given something else than embeddings.
        AssertionError: no pass ran inside the block.
    """
    seen: list[Tensor] = []

    def note(given: Tensor) -> None:
        seen.append(given.detach().clone())

    with before_decoder(model, note):
        yield seen
    assert seen, "no pass ran inside the block, or the decoder's hook never fired"


@contextmanager
def embed(
    model: Model, at: Bool[Tensor, "rows prompt"], values: Float[Tensor, "rows prompt d"], n_passes: int = 1
) -> Iterator[None]:
    """Puts `values` where `at` is true, in place of what enters the decoder there; differentiable in `values`.

    Args:
        model: Its lock is held inside the block.
        at: Positions of each row's prompt. A row without any computes what the plain model does.
        values: What is put there; other positions of it are not read.
        n_passes: That run inside the block, each over the whole prompt.

    Raises:
        UsageError: the decoder is given something else than embeddings.
        AssertionError: another number of passes or rows, or a part of the prompt.
    """
    n_prompt = at.shape[1]
    count = 0

    def put(given: Float[Tensor, "batch positions d"]) -> Float[Tensor, "batch positions d"]:
        nonlocal count
        assert len(given) == len(at), f"{len(given)} rows in a pass, {len(at)} to be changed"
        assert given.shape[1] >= n_prompt, f"a pass of {given.shape[1]} positions, of a prompt of {n_prompt}"
        prompt = torch.where(at.to(given.device)[..., None], values.to(given), given[:, :n_prompt])
        count += 1
        return torch.cat([prompt, given[:, n_prompt:]], dim=1)

    with before_decoder(model, put):
        yield
    assert count == n_passes, f"{count} passes through the decoder, of {n_passes}"


@dataclass(frozen=True)
class Blocked:
    """Attention that rows of a batch lack: in a row's `layers` none of its `targets` attends to one of its `sources`.

    Positions are those of the whole pass, prompt and caption. A position never loses itself.
    """

    targets: Bool[Tensor, "rows n"]
    sources: Bool[Tensor, "rows n"]
    layers: Bool[Tensor, "rows L"]

    def pairs(self, layer: int) -> Bool[Tensor, "rows n n"]:
        """By target and source, what is blocked in a layer."""
        pairs = self.targets[:, :, None] & self.sources[:, None, :] & self.layers[:, layer, None, None]
        return pairs & ~torch.eye(pairs.shape[1], dtype=torch.bool, device=pairs.device)


@contextmanager
def block_attention(model: Model, blocked: Blocked) -> Iterator[None]:
    """Runs each row of a batch without some of its attention; the passes inside are over `n` positions, uncached.

    A layer that is handed no mask attends causally, as the libraries' fast paths do. Whether blocking works in a model
    is not known here; `studies.image_tokens.proof` tries it.

    Raises:
        UsageError: layers that take no mask of the form (rows, heads, positions, positions).
        AssertionError: another number of rows, or a hook that never fired.
    """
    layers = blocked.layers.any(0).nonzero()[:, 0].tolist()
    fired = dict.fromkeys(layers, 0)

    def hook_of(layer: int) -> Callable[..., Any]:
        pairs = blocked.pairs(layer)[:, None]
        place = _place_of_mask(model, layer)

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            fired[layer] += 1
            changed = _without(model, args[place] if len(args) > place else kwargs.get(MASK), pairs)
            if len(args) > place:
                return (*args[:place], changed, *args[place + 1 :]), kwargs
            return args, kwargs | {MASK: changed}

        return hook

    with lent(model) as handles:
        for layer in layers:
            module = model.anatomy.layers[layer]
            handles.append(module.register_forward_pre_hook(hook_of(layer), with_kwargs=True))
        yield
    assert len(set(fired.values())) <= 1, f"hooks fired unevenly: {fired}"
    assert all(fired.values()), f"no pass ran inside the block, or a hook never fired: {fired}"


def _place_of_mask(model: Model, layer: int) -> int:
    """Which argument of a layer the mask is, where it is not given by name.

    Raises:
        UsageError: the layer takes none, or what it has is no attention over positions.
    """
    kinds = getattr(model.module.config.get_text_config(decoder=True), "layer_types", None)
    if kinds and not (kind := kinds[layer]).endswith(SOFTMAX):
        raise _refusal(model, f"layer {layer} is of the kind {kind}")
    names = list(inspect.signature(model.anatomy.layers[layer].forward).parameters)
    if MASK not in names:
        raise _refusal(model, f"layer {layer} takes no {MASK}")
    return names.index(MASK)


def _without(model: Model, mask: Tensor | None, pairs: Bool[Tensor, "rows 1 n n"]) -> Tensor:
    """A layer's mask, of truth or of what is added to scores, without the blocked pairs."""
    n = pairs.shape[-1]
    if mask is None:
        return torch.ones(n, n, dtype=torch.bool, device=pairs.device).tril() & ~pairs
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[-2:] != (n, n):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise _refusal(model, f"its layers are given {MASK} {shape} for {n} positions")
    pairs = pairs.to(mask.device)
    return mask & ~pairs if mask.dtype == torch.bool else mask.masked_fill(pairs, torch.finfo(mask.dtype).min)


def _refusal(model: Model, why: str) -> UsageError:
    return UsageError(f"attention of a {model.facts.family!r} model cannot be blocked: {why}")
