"""A loaded model: its weights, its processor, its anatomy; what it is told, and how it encodes pictures.

`loading` makes one from a checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmn.core import ModelFacts
from mmn.errors import EncodingError, ModelError, UsageError
from mmn.models.adapters import Anatomy, Family, has_encoder
from mmn.models.placement import device_of
from mmn.models.token_rows import TokenRows, known_ids, token_rows
from mmn.safety.boundary import Translated
from mmn.safety.limits import Limits, apart
from mmn.specimen import MODEL_PATHS as BUNDLED_PATHS

SMALL_MODEL = 50_000_000  # parameters; below it one thread beats several on a CPU
DEFAULT_PROMPT = "Describe the image in few words."  # P2's; a checkpoint's config may name its own `default_prompt`
TEMPLATE = Limits(seconds=2)  # processor time; filling a chat template in takes milliseconds


@dataclass(frozen=True)
class Model:
    """A loaded model. Hold `lock` while hooks are on it: two sessions hooking one model both get wrong numbers.

    `filled` are the sentences that tell what an older processor or config lacked, and where it was taken from.
    """

    module: Any
    processor: Any
    family: Family
    anatomy: Anatomy
    facts: ModelFacts
    filled: tuple[str, ...] = ()
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def device(self) -> torch.device:
        return device_of(self.module)

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @cached_property
    def token_rows(self) -> TokenRows:
        """The mean and the lengths of the unembedding's rows, read once."""
        return token_rows(self.anatomy.unembedding.weight, known_ids(self.tokenizer))

    def require_one_ffn(self, what: str) -> None:
        """Raises `UsageError` for a mixture of experts, or for layers of several widths: what is not there for them."""
        if self.anatomy.mixtures:
            kind = "mixtures of experts" if self.anatomy.d_expert else "models whose layers differ in number of units"
            raise UsageError(f"{what} is not there for {kind}, and {self.facts.name} is one")

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens that end a caption."""
        ends = self.module.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        return frozenset([ends] if isinstance(ends, int) else ends or [])

    @property
    def pad_token_id(self) -> int:
        """What fills rows up; it is never attended, so any token would do."""
        pad = self.module.generation_config.pad_token_id
        if pad is None and self.processor is not None:
            pad = self.tokenizer.pad_token_id
        return pad if pad is not None else min(self.end_token_ids, default=0)

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder reads picture and prompt; then scores are of the units of the decoder, which writes."""
        return has_encoder(self.module.config)

    @property
    def image_token_id(self) -> int | None:
        """The placeholder that stands in the decoder's prompt for each token of a picture; None where there is none.

        Mllama has one for the whole picture, which its decoder sees by cross-attention: that is no image token; nor
        are those that an encoder reads.
        """
        placeholder = self.placeholder_id
        is_elsewhere = placeholder is None or self.family.grid == "cross-attention" or self.has_encoder
        return None if is_elsewhere else placeholder

    @property
    def placeholder_id(self) -> int | None:
        """What stands for each token of a picture, or for the whole of it, in what is read first."""
        config = self.module.config
        named = [getattr(config, name, None) for name in ("image_token_id", "image_token_index", "image_patch_id")]
        return next((token_id for token_id in named if token_id is not None), None)

    @property
    def default_prompt(self) -> str:
        return getattr(self.module.config, "default_prompt", DEFAULT_PROMPT)

    @property
    def usual_batch_size(self) -> int:
        """What `--batch-size auto` means: a fixed function of the model, since batches can move the last digits."""
        return 64 if is_small(self.module) else 8

    def exact_prompt(self, prompt: str, answer_prefix: str = "") -> str:
        """The user's words as this model expects them: in its chat template if it has one, image placeholder included.

        `answer_prefix` begins the answer; the caption goes on from there.
        """
        wrapped = self._wrapped(prompt)
        gap = "" if not answer_prefix or wrapped[-1:].isspace() else " "
        return wrapped + gap + answer_prefix

    def _wrapped(self, prompt: str) -> str:
        if self.processor.chat_template:
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            messages = [{"role": "user", "content": content}]
            return _filled_in(self.facts.name, self.processor, messages)
        placeholder = getattr(self.processor, "image_token", None) or "<image>"
        return self.family.bare_prompt.format(image=placeholder, prompt=prompt)

    def encode(self, images: list[Image.Image], exact_prompt: str) -> dict[str, torch.Tensor]:
        """Model inputs for one exact prompt over several pictures, padded on the left, on the model's device.

        Raises:
            EncodingError: the processor fails, for all pictures or for one of them.
        """
        bos = self.tokenizer.bos_token
        sizes = ", ".join(sorted({"×".join(map(str, image.size)) for image in images})[:3])
        with Translated(f"{self.facts.name}: its processor cannot encode pictures of {sizes} pixels", EncodingError):
            inputs = self.processor(
                images=[[image] for image in images] if self.family.nests_images else images,
                text=[exact_prompt] * len(images),
                return_tensors="pt",
                padding=True,
                add_special_tokens=not (bos and exact_prompt.startswith(bos)),
                **dict.fromkeys(self.family.asks_for, True),
            )
        inputs.pop("labels", None)
        inputs = {name: self._placed(value) for name, value in inputs.items()}
        return self._begun(inputs, len(images)) if self.has_encoder else inputs

    def _begun(self, inputs: dict[str, Any], n_rows: int) -> dict[str, Any]:
        """Inputs of an encoder-decoder with what its decoder begins with: its start token, then the prompt it is given.

        Few are given one (Pix2Struct); the others' encoder reads the prompt.
        """
        start = torch.full((n_rows, 1), self.decoder_start_id, device=self.device)
        given = inputs.get("decoder_input_ids", start)
        if (given[:, :1] == start).all():
            return inputs | {"decoder_input_ids": given}
        mask = inputs.get("decoder_attention_mask", torch.ones_like(given))
        return inputs | {
            "decoder_input_ids": torch.cat([start, given], dim=1),
            "decoder_attention_mask": torch.cat([torch.ones_like(start), mask], dim=1),
        }

    @property
    def decoder_start_id(self) -> int:
        """The token that the decoder of an encoder-decoder begins every text with; padding where none is named (T5)."""
        config = self.module.config
        holders = (getattr(self.module, "generation_config", None), config, config.get_text_config(decoder=True))
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            for holder in holders:
                if isinstance(found := getattr(holder, name, None), int):
                    return found
        raise ModelError(f"{self.facts.name}: its config names no decoder_start_token_id; generation_config.json may")

    def _placed(self, value: Any) -> Any:
        """An input where the model is, in its number format; a list of counts, which a few families take, as it is."""
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(self.device, self.dtype if value.is_floating_point() else None)

    def encode_and_close(self, images: Sequence[Image.Image], exact_prompt: str) -> dict[str, torch.Tensor]:
        """`encode` of pictures that nobody needs afterwards: their pixels, gigabytes of photographs, are freed."""
        inputs = self.encode(list(images), exact_prompt)
        for image in images:
            image.close()
        return inputs


def _filled_in(name: str, processor: Any, messages: list[dict[str, Any]]) -> str:
    """A chat template, which is a program, filled in with messages, in a process of its own."""

    def fill() -> str:
        with Translated(f"{name}: its chat template cannot be filled in", EncodingError):
            return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    if name in BUNDLED_PATHS:
        return fill()
    return apart(f"{name}: its chat template cannot be filled in", fill, TEMPLATE)


def is_small(module: nn.Module) -> bool:
    return sum(p.numel() for p in module.parameters()) < SMALL_MODEL
