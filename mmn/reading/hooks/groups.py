"""What enters a decoder and its projector, and how active units are over groups of positions, during one plain pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.capture import first_given
from mmn.reading.hooks.entering import before_decoder
from mmn.reading.hooks.lending import lent

PROJECTOR: Final = re.compile(
    r"projector|projection|connector|merger|aligner|abstractor", re.IGNORECASE
)  # in the last part of a module's name
PARALLEL: Final = 1 - 1e-3  # cosine of what a projector made and what enters the decoder, in half precision


@dataclass
class Entering:
    """What the decoder was given at every position, and what each candidate for a projector was given and made."""

    embeddings: Float[Tensor, "batch positions d"] | None = None
    made: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def before(self, is_image: Bool[Tensor, " positions"]) -> Float[Tensor, "n d_before"] | None:
        """What the projector was given: the input of the outermost module that makes most of the image tokens.

        None where no module does, as they enter the decoder (something is added or mixed behind it).
        """
        assert self.embeddings is not None
        tokens = self.embeddings[0, is_image].float()
        for _name, (given, made) in sorted(self.made.items(), key=lambda one: one[0].count(".")):
            if _makes(made.float(), tokens):
                return given.reshape(-1, given.shape[-1])
        return None


def _makes(made: Float[Tensor, "*n width"], tokens: Float[Tensor, "tokens d"]) -> bool:
    """Whether at least half of the tokens are rows of what was made: tiles are put together with others between."""
    if made.shape[-1] != tokens.shape[-1]:
        return False
    normed = (torch.nn.functional.normalize(one.reshape(-1, one.shape[-1]), dim=1) for one in (tokens, made))
    of_tokens, of_made = normed
    return bool(((of_tokens @ of_made.T).amax(1) >= PARALLEL).float().mean() >= 0.5)


@contextmanager
def capture_entering(model: Model) -> Iterator[Entering]:
    """Records what enters the decoder and its projector during the one forward pass of one row inside the block.

    Raises:
        AssertionError: no pass ran, or the decoder was given no embeddings.
    """
    found = Entering()

    def note(given: Float[Tensor, "batch positions d"]) -> None:
        found.embeddings = given.detach()

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
            made = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", output)
            if given is not None and given.is_floating_point() and isinstance(made, Tensor):
                found.made[name] = (given.detach(), made.detach())

        return hook

    inside = {id(module) for layer in model.anatomy.layers for module in layer.modules()}
    with before_decoder(model, note), lent(model) as handles:
        for name, module in model.module.named_modules():
            if id(module) not in inside and PROJECTOR.search(name.rpartition(".")[2]):
                handles.append(module.register_forward_hook(keep(name), with_kwargs=True))
        yield found
    assert found.embeddings is not None, "no pass of the decoder ran inside the block"


@contextmanager
def capture_mean_activity(
    model: Model, groups: Bool[Tensor, "groups positions"]
) -> Iterator[list[Float[Tensor, "groups m"]]]:
    """Records the mean of |a| over groups of positions, layer by layer, during the one pass of one row in the block.

    Args:
        model: Its lock is held inside the block; no mixture of experts.
        groups: which positions each mean is over.

    Raises:
        UsageError: a mixture of experts.
        AssertionError: not exactly one pass ran, or a hook never fired.
    """
    model.require_one_ffn("the activity of units over groups of positions")
    share = groups.float() / groups.sum(1, keepdim=True)
    means: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        a = first_given(args, kwargs).detach()
        by_position = a.reshape(-1, a.shape[-1])  # OPT's are a list of positions already
        means.append((share.to(a.device) @ by_position.abs().float()).to(model.device))

    with lent(model) as handles:
        handles += [one.register_forward_pre_hook(keep, with_kwargs=True) for one in model.anatomy.ffn_outs]
        yield means
    assert len(means) == len(handles), f"{len(means)} layers were seen of {len(handles)}: not one pass, or a dead hook"
