"""How sure are a picture's image tokens of an object, after any layer?

    c(o) = max over states of the residual stream, image tokens, and sub-tokens t of o, of softmax(W_U h)[t]

Jiang et al. 2025 (arXiv 2410.02762), as their code reads it: the states are those that transformers hands out, the
projected image tokens as they enter the decoder and the stream after every layer, of which only the last went through
the final norm (`raw`). `normed` puts it behind every other state, too, as the logit lens does (OURS). Their code keeps
the 50 most probable tokens of each place and shares the rest out among them; here softmax is over the whole vocabulary.
They caption by beams of 5, here captions are greedy.

An object is asked for by its lemma, as it stands after another word. Of an object of several tokens any will do, as in
theirs, so that a common part of a word makes for much confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.concepts import added_tokens
from mmn.studies.hallucination.tables import READOUTS
from mmn.studies.lens.projection import project_to_words
from mmn.studies.lens.stream import Stream, normed_stream
from mmn.units.decoding import Vocabulary

RAW, NORMED = READOUTS
ENTERING = -1  # the state before the first layer


@dataclass(frozen=True)
class Confidence:
    """Of each object: `by_token`, its highest probability at each image token, and after which layer that was."""

    objects: tuple[str, ...]
    by_token: Float[Tensor, "objects tokens"]
    layer: Int[Tensor, "objects tokens"]

    def best(self) -> list[tuple[float, int, int]]:
        """C of each object, the layer (`ENTERING` before the first) and the image token where it is so high."""
        values, tokens = self.by_token.max(1)
        layers = self.layer.gather(1, tokens[:, None])[:, 0]
        return list(zip(values.tolist(), layers.tolist(), tokens.tolist(), strict=True))


def object_tokens(model: Model, objects: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The sub-tokens of each object; those that have none of their own are left out."""

    def encode(text: str) -> list[int]:
        return list(model.tokenizer(text).input_ids)

    found = {}
    for name in objects:
        try:
            found[name] = tuple(added_tokens(name, encode))
        except UsageError:
            continue
    unknown = model.tokenizer.unk_token_id
    return {name: tokens for name, tokens in found.items() if tokens and unknown not in tokens}


@torch.inference_mode()
def confidences(
    model: Model, vocabulary: Vocabulary, stream: Stream, tokens: Mapping[str, Sequence[int]], readout: str
) -> Confidence:
    """The confidence of a picture's image tokens in objects.

    Args:
        model: as loaded.
        vocabulary: of its unembedding.
        stream: of its prompt with the picture.
        tokens: the sub-tokens of each object, at least one.
        readout: `raw` or `normed`.
    """
    token_ids = [one for each in tokens.values() for one in each]
    ends = torch.tensor([len(each) for each in tokens.values()])
    highest, where = None, None
    for layer, state in _states(model, stream, readout):
        asked = project_to_words(model, vocabulary, state[stream.is_image], 1, token_ids).asked
        here = torch.stack([part.amax(1) for part in asked.float().cpu().split(ends.tolist(), dim=1)])
        if highest is None or where is None:
            highest, where = here, torch.full(here.shape, layer)
            continue
        where = torch.where(here > highest, layer, where)
        highest = torch.maximum(here, highest)
    assert highest is not None, "a stream without states"
    assert where is not None, "likewise"
    return Confidence(tuple(tokens), highest, where)


def _states(model: Model, stream: Stream, readout: str) -> Iterator[tuple[int, Float[Tensor, "positions d"]]]:
    """The states of the stream, each as the unembedding is to read it, and after which layer they are."""
    norm = model.anatomy.final_norm if readout == NORMED else (lambda state: state)
    yield ENTERING, norm(stream.embeddings)
    for layer, after in enumerate(stream.after):
        is_last = layer == len(stream.after) - 1  # normed already
        yield layer, after if is_last or readout == RAW else normed_stream(model, stream, layer)
