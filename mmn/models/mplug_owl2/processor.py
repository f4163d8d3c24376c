"""Pictures and prompts as mPLUG-Owl2 reads them.

A picture is made square, resized to the encoder's side and normalised as CLIP's; the words on either side of
`<|image|>` are tokenised apart, as in the published code, and one placeholder for each image token goes between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer

from mmn.counts import counted
from mmn.models.mplug_owl2.config import MplugOwl2Config

PLACEHOLDER = "<|image|>"
STRETCH, PAD = "resize", "pad"  # names of config.json's `image_aspect_ratio`


class MplugOwl2Processor:
    """Pixels from CLIP's image processor, numbers of words from Llama's tokenizer.

    Args:
        image_processor: resizes, crops what is square already, and normalises.
        tokenizer: need not know the placeholder.
        image_token_id: the placeholder's number.
        n_image_tokens: of one picture.
        image_aspect_ratio: how a picture becomes square: `resize` stretches its shorter side, `pad` adds stripes of
            the mean colour.

    Raises:
        ValueError: the placeholder's number is a word's; a way to make pictures square that there is not.
    """

    chat_template = None
    image_token = PLACEHOLDER

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        image_token_id: int,
        n_image_tokens: int,
        image_aspect_ratio: str = STRETCH,
    ) -> None:
        if image_token_id < len(tokenizer):
            raise ValueError(
                f"the tokenizer has {counted(len(tokenizer), 'token')}, so that {image_token_id}, which "
                "stands for the picture, "
                "is a word's: set image_token_index in config.json"
            )
        if image_aspect_ratio not in (STRETCH, PAD):
            raise ValueError(f"image_aspect_ratio is {image_aspect_ratio!r}, expected {STRETCH} or {PAD}")
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.image_token_id, self.n_image_tokens = image_token_id, n_image_tokens
        self.image_aspect_ratio = image_aspect_ratio

    @classmethod
    def from_pretrained(cls, path: str | Path, **more: Any) -> MplugOwl2Processor:
        config = MplugOwl2Config.from_pretrained(path, **more)
        images = AutoImageProcessor.from_pretrained(path, **more)
        tokenizer = AutoTokenizer.from_pretrained(path, **more)
        ratio = getattr(config, "image_aspect_ratio", None) or STRETCH
        return cls(images, tokenizer, config.image_token_index, config.abstractor.n_image_tokens, ratio)

    def save_pretrained(self, path: str | Path) -> None:
        """What the model's own config.json does not hold."""
        self.image_processor.save_pretrained(path)
        self.tokenizer.save_pretrained(path)

    def __call__(
        self, images: Sequence[Image.Image], text: Sequence[str], add_special_tokens: bool = True, **_more: Any
    ) -> dict[str, Tensor]:
        """Model inputs of one prompt for each picture, padded on the left."""
        squares = [self.square(image.convert("RGB")) for image in images]
        rows = [self._token_ids(one, add_special_tokens) for one in text]
        pixels = self.image_processor(images=squares, return_tensors="pt")["pixel_values"]
        return {**_padded(rows, self.tokenizer.pad_token_id or 0), "pixel_values": pixels}

    def square(self, image: Image.Image) -> Image.Image:
        side = max(image.size)
        if self.image_aspect_ratio == STRETCH:
            return image.resize((side, side))
        mean = tuple(int(255 * value) for value in self.image_processor.image_mean)
        padded = Image.new("RGB", (side, side), mean)
        padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return padded

    def _token_ids(self, text: str, add_special_tokens: bool) -> list[int]:
        before, *after = text.split(PLACEHOLDER)
        ids = list(self.tokenizer(before, add_special_tokens=add_special_tokens).input_ids)
        for part in after:
            ids += [self.image_token_id] * self.n_image_tokens
            ids += self.tokenizer(part, add_special_tokens=False).input_ids if part else []
        return ids


def _padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Int[Tensor, "batch n"]]:
    width = max(len(row) for row in rows)
    return {
        "input_ids": torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
    }
