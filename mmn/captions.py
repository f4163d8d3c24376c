"""Greedy captions in batches, with what scoring needs captured while they are generated.

One generation with the KV cache on: the forward pass that emits token j is step j of the capture (the whole prompt
is step 0). There is no second forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from mmn.concepts import GeneratedCaption, token_ends_of
from mmn.hooks import Captured, capture
from mmn.models import Model


@dataclass(frozen=True)
class CaptionBatch:
    """Captions of one batch; `logits[step]` are the raw logits of forward pass `step`, before any processor."""

    captions: tuple[GeneratedCaption, ...]
    captured: Captured
    logits: tuple[Float[Tensor, "batch V"], ...]

    def logits_at(self, rows: Int[Tensor, " n"], steps: Int[Tensor, " n"]) -> Float[Tensor, "n V"]:
        """Row `rows[i]` of forward pass `steps[i]`, in float32."""
        pairs = zip(rows.tolist(), steps.tolist(), strict=True)
        return torch.stack([self.logits[step][row] for row, step in pairs]).float()


@torch.inference_mode()
def caption_batch(
    model: Model, images: Sequence[Image.Image], exact_prompt: str, max_new_tokens: int, with_act: bool = False
) -> CaptionBatch:
    """Captions `images` greedily (temperature 0) and captures every site of every step.

    Raises:
        AssertionError: a token is not the argmax of its raw logits, so something else than greedy decoding ran.
    """
    inputs = model.encode(list(images), exact_prompt)
    with capture(model, with_act) as captured:
        output = model.module.generate(**inputs, generation_config=greedy(model, max_new_tokens))
    n_steps = len(output.logits)
    new_tokens = output.sequences[:, -n_steps:]
    captions = tuple(_caption(model, row.tolist()) for row in new_tokens)
    _assert_greedy(captions, output.logits)
    return CaptionBatch(captions, captured, output.logits)


def greedy(model: Model, max_new_tokens: int) -> object:
    """Plain greedy decoding: whatever a checkpoint's own generation settings add (penalties, sampling) is off."""
    from transformers import GenerationConfig

    own = model.module.generation_config
    eos = own.eos_token_id if own.eos_token_id is not None else model.tokenizer.eos_token_id
    pad = model.tokenizer.pad_token_id if model.tokenizer.pad_token_id is not None else own.pad_token_id
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        max_length=None,
        max_new_tokens=max_new_tokens,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        eos_token_id=eos,
        pad_token_id=pad if pad is not None else _ids(eos)[0],
        output_logits=True,
        return_dict_in_generate=True,
        use_cache=True,
    )


def end_tokens(model: Model) -> frozenset[int]:
    return frozenset(_ids(greedy(model, 1).eos_token_id))  # type: ignore[attr-defined]


def _caption(model: Model, new_tokens: list[int]) -> GeneratedCaption:
    """Everything up to the first end token; what follows it is padding."""
    ends = end_tokens(model)
    n = next((index for index, token in enumerate(new_tokens) if token in ends), len(new_tokens))
    kept = new_tokens[:n]

    def decode(token_ids: list[int]) -> str:
        return model.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    text, token_ends = token_ends_of(kept, decode)
    return GeneratedCaption(text, tuple(kept), tuple(token_ends))


def _assert_greedy(captions: Sequence[GeneratedCaption], logits: Sequence[Float[Tensor, "batch V"]]) -> None:
    best = torch.stack([step.argmax(-1) for step in logits], dim=1).tolist()
    for row, caption in enumerate(captions):
        n = len(caption.token_ids)
        assert best[row][:n] == list(caption.token_ids), f"not greedy: {caption.token_ids} against {best[row][:n]}"


def _ids(token_id: int | list[int]) -> list[int]:
    return [token_id] if isinstance(token_id, int) else list(token_id)
