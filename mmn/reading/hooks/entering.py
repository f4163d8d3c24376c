"""What enters the decoder: the embeddings of the text and of the picture, before any position is added to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from jaxtyping import Float
from torch import Tensor, nn

from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.hooks.capture import first_given
from mmn.reading.hooks.lending import lent

EMBEDDINGS: Final = "inputs_embeds"
ROTATION: Final = re.compile(r"rot|rope", re.IGNORECASE)  # in a class's name: positions that nothing is added for

Change = Callable[[Float[Tensor, "batch positions d"]], Float[Tensor, "batch positions d"] | None]


@contextmanager
def before_decoder(model: Model, change: Change) -> Iterator[None]:
    """Calls `change` with what enters the decoder in each pass inside the block; what it returns goes in instead.

    None leaves it as it is. A decoder that embeds its tokens itself (Chameleon) is met before its first layer: nothing
    was added until there if its positions are rotations.

    Args:
        model: Its lock is held inside the block.
        change: Is given the embeddings of all rows and positions of the pass.

    Raises:
        UsageError: the decoder is not given embeddings, and adds something for positions to what it makes itself.
    """
    is_given = False

    def at_decoder(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal is_given
        given = kwargs.get(EMBEDDINGS)
        is_given = given is not None
        if given is None:
            return None
        changed = change(given)
        return None if changed is None else (args, kwargs | {EMBEDDINGS: changed})

    def at_first_layer(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_given:
            return None
        embeddings = first_given(args, kwargs)
        if embeddings.shape[1] > 1:  # a pass of one token is a generation's, and no prompt
            _require_rotations(model)
        changed = change(embeddings)
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": changed})

    with lent(model) as handles:
        handles.append(model.anatomy.decoder.register_forward_pre_hook(at_decoder, with_kwargs=True))
        handles.append(model.anatomy.layers[0].register_forward_pre_hook(at_first_layer, with_kwargs=True))
        yield


def _require_rotations(model: Model) -> None:
    if not any(ROTATION.search(type(part).__name__) for part in model.anatomy.decoder.modules()):
        raise UsageError(f"the decoder of a {model.facts.family!r} model is given no embeddings that could be replaced")
