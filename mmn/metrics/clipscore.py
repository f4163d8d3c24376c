"""CLIPScore: how well does a text fit a picture, by CLIP? (Hessel et al. 2021, arXiv 2104.08718.)

    100 · max(cos(text, picture), 0)

of the two projected CLIP vectors: the scale of torchmetrics, on which P1's table 1 reads 21 to 24. The paper itself
writes CLIP-S = 2.5 · max(cos, 0): divide by 40 for that. Texts beyond CLIP's 77 tokens are cut. No `A photo depicts`
is put before the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmn.errors import ModelError
from mmn.metrics.encoders import Checkpoint, Encoded, equally_long

VERSION: Final = "v1"
IMAGES_AT_ONCE: Final = 16


@dataclass(frozen=True)
class ClipScore:
    """CLIPScore of one CLIP, 0 to 100."""

    label: str
    module: Any = field(repr=False)
    processor: Any = field(repr=False)
    encoded: Encoded[Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoded", Encoded(self._encode_texts))

    @classmethod
    def load(cls, name: str, device: str = "auto") -> ClipScore:
        """The metric on a CLIP, from a folder in Hugging Face format or a hub id.

        Raises:
            ModelError: it cannot be loaded, or is no CLIP.
        """
        from transformers import AutoProcessor, CLIPModel

        checkpoint = Checkpoint.find(name)
        module = checkpoint.load(device)
        if not isinstance(module, CLIPModel):
            raise ModelError(f"{name} is no CLIP ({type(module).__name__}); CLIPScore needs one")
        return cls(checkpoint.label, module, checkpoint.open(AutoProcessor))

    @property
    def name(self) -> str:
        return f"clipscore:{self.label}:{VERSION}"

    def compare_images(self, texts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        if not texts:
            return []
        distinct = {id(image): image for image in images}
        vectors = dict(zip(distinct, self._encode_images(list(distinct.values())), strict=True))
        ours = self.encoded.of(texts)
        pairs = zip(texts, images, strict=True)
        cosines = torch.stack([ours[text] @ vectors[id(image)] for text, image in pairs])
        return (100 * cosines.clamp(min=0)).tolist()

    @torch.inference_mode()
    def _encode_texts(self, texts: list[str]) -> list[Float[Tensor, " d"]]:
        most = self.module.config.text_config.max_position_embeddings
        ids = [self.processor.tokenizer(text, truncation=True, max_length=most)["input_ids"] for text in texts]
        found: dict[int, Tensor] = {}
        for indices in equally_long(ids):
            input_ids = torch.tensor([ids[index] for index in indices], device=self.module.device)
            features = self.module.get_text_features(input_ids=input_ids).pooler_output
            found |= dict(zip(indices, torch.nn.functional.normalize(features, dim=-1).cpu(), strict=True))
        return [found[index] for index in range(len(texts))]

    @torch.inference_mode()
    def _encode_images(self, images: list[Image.Image]) -> list[Float[Tensor, " d"]]:
        found: list[Tensor] = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            some = [image.convert("RGB") for image in images[start : start + IMAGES_AT_ONCE]]
            pixels = self.processor.image_processor(some, return_tensors="pt")["pixel_values"]
            features = self.module.get_image_features(pixel_values=pixels.to(self.module.device)).pooler_output
            found += torch.nn.functional.normalize(features, dim=-1).cpu()
        return found
