"""What P2's authors run to score a picture's nouns by `contribution`, re-implemented from its description.

    once          W_U · W_out of every layer for the whole vocabulary and every unit, in half precision, kept on the CPU
    each picture  alone: a greedy caption with the cache off, so that every step reads the whole sequence again, while
                  hooks keep a, the input of W_out, of every layer and step on the CPU; the caption's nouns, each with
                  its token and the step that emits it; then noun by noun and layer by layer a times the prepared row
                  of the noun's token; at last the k highest units of all layers

P2 (arXiv 2311.07470v2, its equation; what is run: the description of the released code). Where the description leaves a
choice, what is faster or exacter is taken: products are made in float32 and only kept in half precision, a token's row
is contiguous, and a is multiplied in float32.

Left out, for it changes no score: decoding every unit from the same products, heat maps. Not as there: nouns and their
tokens are found by our reader, so that both score the same; of the released code's two activations it is the one that
P2's equation means (`contribution`, not `contribution-actfn`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from mmn.images import open_image
from mmn.models.model import Model
from mmn.reading.captions import caption_of, greedy
from mmn.reading.concepts import GeneratedCaption, find_concepts

STAGES: Final = ("open and encode", "write the caption", "find nouns", "look up and rank")
ROWS_AT_ONCE: Final = 4096  # of the vocabulary, while preparing


@dataclass(frozen=True)
class Noun:
    """A noun's `contribution`: of every unit, and of the k highest."""

    noun: str
    score: Float[Tensor, " L*m"]
    top_unit: Int[Tensor, " k"]
    top_score: Float[Tensor, " k"]


@dataclass(frozen=True)
class Picture:
    """What is found in one picture."""

    source: str
    caption: GeneratedCaption
    nouns: tuple[Noun, ...]


@dataclass
class Clock:
    """Seconds by stage, added up over pictures."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started


@torch.inference_mode()
def prepare(model: Model, dtype: torch.dtype) -> list[Float[Tensor, "V m"]]:
    """W_U · W_out by layer, for every token and unit, on the CPU.

    Raises:
        UsageError: a mixture of experts.
        OverflowError: a product is too large for `dtype`.
    """
    model.require_one_ffn("the published procedure")
    w_u = model.anatomy.unembedding.weight
    prepared = []
    for layer in range(model.anatomy.n_layers):
        products = torch.empty(len(w_u), model.anatomy.d_mlp, dtype=dtype)
        w_out = model.anatomy.w_out(layer).float()
        for first in range(0, len(w_u), ROWS_AT_ONCE):
            here = slice(first, first + ROWS_AT_ONCE)
            products[here] = (w_u[here].float() @ w_out).to("cpu", dtype)
        if not torch.isfinite(products).all():
            raise OverflowError(f"W_U · W_out of layer {layer} is too large for {dtype}: take --prepared float32")
        prepared.append(products)
    return prepared


@torch.inference_mode()
def score_picture(
    model: Model,
    prepared: Sequence[Float[Tensor, "V m"]],
    source: str,
    max_new_tokens: int,
    top_k: int,
    clock: Clock,
) -> Picture:
    """The published procedure on one picture; `clock` gains the seconds of its stages."""
    with clock.stage("open and encode"):
        image: Image.Image = open_image(Path(source))
        inputs = model.encode_and_close([image], model.exact_prompt(model.default_prompt))
    with clock.stage("write the caption"), _activations(model) as steps:
        caption = _caption_without_cache(model, inputs, max_new_tokens)
    with clock.stage("find nouns"):
        concepts = find_concepts(caption, ())
    with clock.stage("look up and rank"):
        nouns = tuple(_score(c.noun, c.token_id, steps[c.position], prepared, top_k) for c in concepts)
    return Picture(source, caption, nouns)


def _caption_without_cache(model: Model, inputs: dict[str, Tensor], max_new_tokens: int) -> GeneratedCaption:
    """As our scorer's, word for word: greedy, and one step beyond the limit to tell whether its last word is whole."""
    settings: Any = greedy(model, max_new_tokens + 1)
    settings.use_cache, settings.output_logits = False, False
    sequences = model.module.generate(**inputs, generation_config=settings).sequences
    new_tokens = sequences[0, inputs["input_ids"].shape[1] :]
    return caption_of(model, new_tokens.tolist(), max_new_tokens)


@contextmanager
def _activations(model: Model) -> Iterator[list[list[Float[Tensor, " m"]]]]:
    """Yields a at the last position, by step and layer, on the CPU, of the forward passes inside the block."""
    steps: list[list[Tensor]] = []

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if layer == 0:
                steps.append([])
            # OPT hands its FFN a list of positions without the batch, which is one picture
            steps[-1].append(args[0].reshape(-1, args[0].shape[-1])[-1].to("cpu", copy=True))

        return hook

    handles = [out.register_forward_pre_hook(keep(layer)) for layer, out in enumerate(model.anatomy.ffn_outs)]
    with model.lock:
        try:
            yield steps
        finally:
            for handle in handles:
                handle.remove()
    counts = {len(step) for step in steps}
    assert counts == {model.anatomy.n_layers}, f"hooks fired unevenly: {counts}"


def _score(
    noun: str, token_id: int, a: Sequence[Float[Tensor, " m"]], prepared: Sequence[Float[Tensor, "V m"]], top_k: int
) -> Noun:
    """a_i · (W_U[t] · W_out[:, i]) of every unit, layer by layer, looked up."""
    layers = [of_layer.float() * products[token_id].float() for of_layer, products in zip(a, prepared, strict=True)]
    score = torch.cat(layers)
    top = score.topk(min(top_k, len(score)))
    return Noun(noun, score, top.indices, top.values)
