"""What config.json of an mPLUG-Owl2 says: a Llama's settings, and those of the encoder and the abstractor below them.

A setting that is not there has the published checkpoint's value.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from transformers import LlamaConfig

T = TypeVar("T", "VisionSettings", "AbstractorSettings")


@dataclass(frozen=True)
class VisionSettings:
    """The image encoder; a ViT-L/14."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-6

    @property
    def n_states(self) -> int:
        """Of one picture: its patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class AbstractorSettings:
    """The visual abstractor; `grid_size` is the encoder's number of patches along one side."""

    hidden_size: int = 1024
    encoder_hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_learnable_queries: int = 64
    grid_size: int = 32
    layer_norm_eps: float = 1e-6

    @property
    def n_image_tokens(self) -> int:
        """Of one picture: the queries, and the end token behind them."""
        return self.num_learnable_queries + 1


class MplugOwl2Config(LlamaConfig):  # type: ignore[misc]
    """Llama's config with `visual_config` ({"visual_model": …, "visual_abstractor": …}).

    `image_token_index` stands in `input_ids` for an image token: the first number that is no word's, unless the file
    says another.
    """

    model_type = "mplug_owl2"

    visual_config: dict | None = None
    image_token_index: int | None = None

    def __post_init__(self, **more: Any) -> None:
        super().__post_init__(**more)
        if self.image_token_index is None:
            self.image_token_index = self.vocab_size
        vision, abstractor = self.vision, self.abstractor
        if abstractor.grid_size**2 + 1 != vision.n_states:
            raise ValueError(
                f"the abstractor's grid_size {abstractor.grid_size} is not image_size / patch_size of the encoder "
                f"({vision.image_size} / {vision.patch_size})"
            )
        if abstractor.hidden_size != abstractor.encoder_hidden_size or vision.hidden_size != abstractor.hidden_size:
            raise ValueError(
                f"the encoder is {vision.hidden_size} wide, the abstractor {abstractor.hidden_size} "
                f"(encoder_hidden_size {abstractor.encoder_hidden_size}); expected one width"
            )

    @property
    def vision(self) -> VisionSettings:
        return _settings(VisionSettings, self.visual_config, "visual_model")

    @property
    def abstractor(self) -> AbstractorSettings:
        return _settings(AbstractorSettings, self.visual_config, "visual_abstractor")

    @property
    def text_config(self) -> LlamaConfig:
        """The text decoder's part, as a Llama's; to read: what is changed in it changes nothing here."""
        names = {field.name for field in fields(LlamaConfig)}
        return LlamaConfig(**{name: getattr(self, name) for name in names if hasattr(self, name)})

    def get_text_config(self, *_given: Any, **_more: Any) -> MplugOwl2Config:
        """Itself: the decoder's settings are on the top level."""
        return self


def _settings(kind: type[T], visual_config: dict | None, part: str) -> T:
    """The settings of `kind` that are given; others (of training, of older code) are left where they are."""
    given = (visual_config or {}).get(part) or {}
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in given.items() if name in known and value is not None})
