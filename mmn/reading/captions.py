"""Greedy captions in batches, with what scoring needs captured while they are generated.

`caption_batch`: one generation with the KV cache on; the forward pass that emits token j is step j of the capture (the
whole prompt is step 0). There is no second forward pass. `read_captions`: captions that are there already, read in one
pass over other pictures; step j predicts token j likewise.

A caption that the limit of tokens ends is looked at one token further: only then is it known whether the model would
have gone on (`is_cut`), and whether with the same word, which is then dropped. The step more changes none before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from mmn.errors import BatchError
from mmn.models.model import Model
from mmn.reading.concepts import GeneratedCaption, n_whole_tokens, token_ends_of
from mmn.reading.hooks import Captured, capture, first_not_finite, weight_not_finite

SEEN = "cross_attention_mask"  # an input of Mllama: which tiles each position of the text attends to
PassContext = Callable[[Sequence[int]], AbstractContextManager[None]]  # what a pass over these rows of a batch runs in


def no_context(_rows: Sequence[int]) -> AbstractContextManager[None]:
    """The model as it is."""
    return nullcontext()


@dataclass(frozen=True)
class CaptionBatch:
    """Captions of one batch; `logits[step]` are the raw logits that predict token `step`, before any processor.

    `inputs` are the prompt's model inputs, without the captions; whoever runs the model on rows of them again does so
    inside `around(rows)`, so that it sees what the captions were written from.
    """

    inputs: dict[str, Tensor]
    captions: tuple[GeneratedCaption, ...]
    captured: Captured
    logits: tuple[Float[Tensor, "batch V"], ...]
    around: PassContext = no_context

    def logits_at(self, rows: Int[Tensor, " n"], steps: Int[Tensor, " n"]) -> Float[Tensor, "n V"]:
        """Row `rows[i]` of forward pass `steps[i]`, in float32."""
        pairs = zip(rows.tolist(), steps.tolist(), strict=True)
        return torch.stack([self.logits[step][row] for row, step in pairs]).float()


def caption_batch(
    model: Model, images: Sequence[Image.Image], exact_prompt: str, max_new_tokens: int, with_act: bool = False
) -> CaptionBatch:
    """Captions `images` greedily (temperature 0) and captures every site of every step.

    Raises:
        AssertionError: a token is not the argmax of its raw logits, so something else than greedy decoding ran.
    """
    return caption_encoded(model, model.encode(list(images), exact_prompt), max_new_tokens, with_act)


@torch.inference_mode()
def caption_encoded(
    model: Model,
    inputs: dict[str, Tensor],
    max_new_tokens: int,
    with_act: bool = False,
    around: PassContext = no_context,
) -> CaptionBatch:
    """`caption_batch` of pictures that are model inputs already, and inside `around`, where that changes the model."""
    with around(range(len(decoder_ids(inputs)))), capture(model, with_act) as captured:
        captions, logits = write_captions(model, inputs, max_new_tokens)
    return CaptionBatch(inputs, captions, captured, logits, around)


@torch.inference_mode()
def write_captions(
    model: Model, inputs: dict[str, Tensor], max_new_tokens: int
) -> tuple[tuple[GeneratedCaption, ...], tuple[Float[Tensor, "batch V"], ...]]:
    """The greedy captions of encoded rows, under whatever hooks are on the model, and the raw logits of each step.

    There may be more steps than the longest caption has tokens: its end, and what a cut one would have gone on with.

    Raises:
        AssertionError: a token is not the argmax of its raw logits.
        BatchError: logits that are not finite.
    """
    output = model.module.generate(**inputs, generation_config=greedy(model, max_new_tokens + 1))
    n_steps = len(output.logits)
    new_tokens = output.sequences[:, -n_steps:]
    _require_finite(model, inputs, new_tokens.tolist(), output.logits)
    captions = tuple(caption_of(model, row.tolist(), max_new_tokens) for row in new_tokens)
    _assert_greedy(captions, output.logits)
    return captions, output.logits


def read_captions(
    model: Model,
    images: Sequence[Image.Image],
    exact_prompt: str,
    captions: Sequence[GeneratedCaption],
    with_act: bool = False,
    behind: Sequence[int] = (),
) -> CaptionBatch:
    """Reads given captions over `images` (teacher forcing, no cache) and captures every site of every step; `behind`
    some layers the residual stream, too.
    """
    return read_encoded(model, model.encode(list(images), exact_prompt), captions, with_act, behind)


@torch.inference_mode()
def read_encoded(
    model: Model,
    inputs: dict[str, Tensor],
    captions: Sequence[GeneratedCaption],
    with_act: bool = False,
    behind: Sequence[int] = (),
) -> CaptionBatch:
    """`read_captions` over pictures that are model inputs already."""
    token_ids = [caption.token_ids for caption in captions]
    n_steps = 1 + max(len(ids) for ids in token_ids)
    with capture(model, with_act, n_last=n_steps, behind=behind) as captured:
        logits = model.module(**with_captions(model, inputs, token_ids), use_cache=False).logits
    steps = logits[:, -n_steps:].unbind(1)
    _require_finite(model, inputs, token_ids, steps)
    return CaptionBatch(inputs, tuple(captions), captured, steps)


def decoder_ids(inputs: Mapping[str, Tensor]) -> Int[Tensor, "batch positions"]:
    """The tokens that the decoder reads: the prompt, or in an encoder-decoder what its text begins with."""
    return inputs["decoder_input_ids"] if "decoder_input_ids" in inputs else inputs["input_ids"]


def with_captions(model: Model, inputs: dict[str, Tensor], captions: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The prompt's inputs with each row's caption after it; shorter captions are filled up behind, unattended.

    In an encoder-decoder the caption follows what the decoder begins with, and what its encoder reads stays.
    """
    width = max(len(caption) for caption in captions)
    pad = model.pad_token_id
    ids = torch.tensor([[*caption, *[pad] * (width - len(caption))] for caption in captions], dtype=torch.long)
    real = torch.tensor([[1] * len(caption) + [0] * (width - len(caption)) for caption in captions])
    # Of PaliGemma's token types, 1 is what is read causally, as while it was generated; no other family has them here.
    added = {"input_ids": ids, "attention_mask": real, "token_type_ids": torch.ones_like(ids)}
    if "decoder_input_ids" in inputs:
        added = {"decoder_input_ids": ids, "decoder_attention_mask": real}
    shape, zeros = decoder_ids(inputs).shape, torch.zeros_like(ids)
    longer = {
        name: torch.cat([value, added.get(name, zeros).to(value)], dim=1)
        if getattr(value, "shape", None) == shape and ("decoder_input_ids" not in inputs or name in added)
        else value
        for name, value in inputs.items()
    }
    if SEEN in inputs:  # a caption sees of the pictures what the prompt's last token does
        last = inputs[SEEN][:, -1:].expand(-1, width, *inputs[SEEN].shape[2:])
        longer[SEEN] = torch.cat([inputs[SEEN], last], dim=1)
    return longer


def greedy(model: Model, max_new_tokens: int) -> object:
    """Plain greedy decoding: whatever a checkpoint's own generation settings add (penalties, sampling) is off."""
    from transformers import GenerationConfig

    own = model.module.generation_config
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        max_length=None,
        max_new_tokens=max_new_tokens,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=model.decoder_start_id if model.has_encoder else own.decoder_start_token_id,
        eos_token_id=sorted(_ends(model)),
        pad_token_id=model.pad_token_id,
        output_logits=True,
        return_dict_in_generate=True,
        use_cache=True,
    )


def _ends(model: Model) -> frozenset[int]:
    """The tokens that end a caption; and a picture's placeholder: read again, it would call for one more picture."""
    placeholder = model.image_token_id
    return model.end_token_ids if placeholder is None else model.end_token_ids | {placeholder}


def caption_of(model: Model, new_tokens: list[int], max_new_tokens: int) -> GeneratedCaption:
    """Everything up to the first end token, what follows it is padding; or up to the limit, but no part of a word."""
    ends = _ends(model)
    n = next((index for index, token in enumerate(new_tokens) if token in ends), len(new_tokens))
    is_cut = n > max_new_tokens

    def decode(token_ids: list[int]) -> str:
        return model.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    kept = new_tokens[: n_whole_tokens(new_tokens, decode) if is_cut else n]
    text, token_ends = token_ends_of(kept, decode)
    return GeneratedCaption(text, tuple(kept), tuple(token_ends), is_cut)


def _assert_greedy(captions: Sequence[GeneratedCaption], logits: Sequence[Float[Tensor, "batch V"]]) -> None:
    best = torch.stack([step.argmax(-1) for step in logits], dim=1).tolist()
    for row, caption in enumerate(captions):
        n = len(caption.token_ids)
        assert best[row][:n] == list(caption.token_ids), f"not greedy: {caption.token_ids} against {best[row][:n]}"


def _require_finite(
    model: Model,
    inputs: dict[str, Tensor],
    captions: Sequence[Sequence[int]],
    logits: Sequence[Float[Tensor, "batch V"]],
) -> None:
    """Raises `BatchError` with the rows whose logits are not finite: what is greatest among them means nothing.

    A NaN anywhere in a step makes its largest magnitude one.
    """
    largest = torch.stack([step.abs().amax(-1) for step in logits]).float().amax(0)
    if torch.isfinite(largest).all():
        return
    rows = (~torch.isfinite(largest)).nonzero()[:, 0].tolist()
    place = first_not_finite(model, with_captions(model, inputs, captions))
    broken = weight_not_finite(model.module)
    remedy = f"the weight {broken} is not finite: is the checkpoint whole?" if broken else _wider(model.dtype)
    reason = f"the logits are not finite, and first of all {place} is not: {remedy}"
    raise BatchError("caption", dict.fromkeys(rows, reason))


def _wider(dtype: torch.dtype) -> str:
    """What to do where numbers grow too large for a format."""
    name, wider = str(dtype).removeprefix("torch."), "--dtype bfloat16 or float32"
    wide = dtype != torch.float16
    return f"too large for {name}; " + ("is this the checkpoint that it should be?" if wide else f"try {wider}")
