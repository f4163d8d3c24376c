"""Each concept's own pass, stopped at: what was read there, and the layers' calls to go again (`hooks.replay`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch
from mmn.reading.hooks import Recorded, record_layers
from mmn.reading.rows import some_of
from mmn.reading.steps import read_in_steps, without_last
from mmn.scores.exactness import limit_of
from mmn.scores.rows import ConceptAt

Look = Callable[[list[int], Recorded, Float[Tensor, " V"]], None]


def at_each_concept(model: Model, batch: CaptionBatch, said: Sequence[ConceptAt], look: Look) -> None:
    """Reads the captions again, token by token, and calls `look` behind each pass that predicts some concept.

    Args:
        model: Its lock is held meanwhile.
        batch: of the captions.
        said: the concepts.
        look: is given the numbers in `said` of those of one pass, the pass, and its logits before a soft cap. It is not
            called where the pass cannot be gone again: its past is more than keys and values, or an encoder's.
    """
    if model.has_encoder:
        return
    places: dict[tuple[int, bool], dict[int, list[int]]] = {}
    for number, one in enumerate(said):
        position = one.concept.position
        places.setdefault((one.row, position == 0), {}).setdefault(position, []).append(number)
    for (row, is_first), asked in places.items():
        with batch.around([row]):
            _read(
                model,
                some_of(model, batch.inputs, [row]),
                batch.captions[row].token_ids,
                asked,
                look,
                is_first=is_first,
            )


def _read(
    model: Model,
    inputs: dict[str, Tensor],
    token_ids: Sequence[int],
    asked: dict[int, list[int]],
    look: Look,
    *,
    is_first: bool,
) -> None:
    """Reads one caption as far as it is asked for; its first pass without the prompt's last token before it."""
    inputs, begun = without_last(inputs) if is_first else (inputs, [])
    places = {position + len(begun): numbers for position, numbers in asked.items()}

    def visit(step: int, logits: Float[Tensor, " V"]) -> None:
        if step in places and recorded.is_repeatable:
            look(places[step], recorded, model.anatomy.uncapped(logits.float()))

    with record_layers(model) as recorded:
        read_in_steps(model, inputs, [*begun, *token_ids, model.pad_token_id], 1 + max(places), visit)


def of_tokens(
    model: Model, final: Float[Tensor, "rows d"], tokens: Int[Tensor, " t"]
) -> tuple[Float[Tensor, "rows t"], Float[Tensor, "rows t"]]:
    """The tokens' logits before a soft cap, and their probabilities, from the stream before the final norm."""
    anatomy = model.anatomy
    logits = anatomy.logits(anatomy.unembedding(anatomy.final_norm(final)).float())
    return anatomy.uncapped(logits[:, tokens]), logits.softmax(-1)[:, tokens]


def is_as_read(model: Model, logit: Float[Tensor, " t"], read: Float[Tensor, " t"]) -> bool:
    """Whether logits of layers gone again are those of the pass, up to rounding."""
    return bool(((logit - read).abs() <= limit_of(model.dtype) * read.abs().clamp(min=1)).all())
