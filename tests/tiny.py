"""Tiny vision-language models with random weights, built from configs: nothing is downloaded.

`save_tiny_llava` writes a whole checkpoint as a user has it, with the specimen's tokenizer, so that its random
captions are made of nouns. `FAMILY_BUILDERS` makes one bare model for each supported family and decoder, with inputs
that need no processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers as hf

from mmn.core import ModelFacts
from mmn.models.adapters import find_anatomy, find_family
from mmn.models.encoders import Layout
from mmn.models.limber import put_together
from mmn.models.model import Model
from mmn.specimen.build import build_processor
from mmn.specimen.tokenizer import IMAGE, build_tokenizer
from tests.tiny_owl import N_QUERIES, SIDE, tiny_config

VOCABULARY, IMAGE_ID, VIDEO_ID = 128, 120, 121
WIDTH, FFN, N_LAYERS = 32, 48, 3  # FFN is no multiple of WIDTH, so that a mistaken matrix shows
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": FFN,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    **SPECIAL,
}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
Built = tuple[Any, dict[str, torch.Tensor]]


def save_tiny_llava(
    path: Path,
    seed: int = 0,
    scale: float = 6.0,
    text_type: Any = hf.LlamaConfig,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """A LLaVA of 3 × 48 units; weights are scaled up so that pictures differ in what is said of them.

    `text_type` is its decoder's config, made with `more`.
    """
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    vision = hf.CLIPVisionConfig(**TOWER | {"image_size": 112}, projection_dim=32)
    text = text_type(**LLAMA | {"vocab_size": len(tokenizer)} | _ids(tokenizer) | dict(more))
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=64,
        vision_feature_layer=-1,
        default_prompt="A picture of",
    )
    model = hf.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    model.save_pretrained(path)
    build_processor(tokenizer).save_pretrained(path)
    return path


def save_tiny_blip2(path: Path, seed: int = 0, scale: float = 6.0) -> Path:
    """A BLIP-2 of 3 × 48 units and 5 query tokens on an OPT, with a processor that knows their number."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    module, _ = _blip2(len(tokenizer), tokenizer.convert_tokens_to_ids(IMAGE), _ids(tokenizer))
    _save(path, module, scale)
    hf.Blip2Processor(_small_pictures(), tokenizer, num_query_tokens=5).save_pretrained(path)
    return path


def save_tiny_instructblip_on_t5(path: Path, seed: int = 0, scale: float = 6.0) -> Path:
    """An InstructBLIP of 3 × 48 units and 5 query tokens on a Flan-T5, with its processor."""
    tokenizer, words = build_tokenizer(), build_tokenizer()
    torch.manual_seed(seed)
    text = flan_t5(vocab_size=len(tokenizer), **_ids(tokenizer))
    module, _ = _instructblip(text, tokenizer.convert_tokens_to_ids(IMAGE), len(words))
    _save(path, module, scale)
    hf.InstructBlipProcessor(_small_pictures(), tokenizer, words, num_query_tokens=5).save_pretrained(path)
    return path


def _save(path: Path, module: Any, scale: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1).add_(torch.randn_like(parameter) * 0.05)
    module.save_pretrained(path)


def _small_pictures() -> Any:
    return hf.BlipImageProcessor(size={"height": TOWER["image_size"], "width": TOWER["image_size"]})


def build_family(name: str, seed: int = 0) -> tuple[Model, dict[str, torch.Tensor]]:
    """A bare tiny model of a family (no processor), in float32, and inputs for one picture."""
    torch.manual_seed(seed)
    module, inputs = (FAMILY_BUILDERS | ENCODER_DECODERS)[name]()
    module = module.eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # norms of exactly 1, biases of exactly 0 hide mistakes
    family = find_family(module.config.model_type)
    anatomy = find_anatomy(module, family)
    facts = ModelFacts(name, "none", family.model_type, anatomy.n_layers, anatomy.d_mlp)
    return Model(module, None, family, anatomy, facts), inputs


def _ids(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in SPECIAL}


def _text(n_image_tokens: int, prefix: tuple[int, ...] = (1, 5)) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[*prefix, *[IMAGE_ID] * n_image_tokens, 6, 7, 8, 9]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _llava(text: Any) -> Built:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, projection_dim=32),
        text_config=text,
        image_token_index=IMAGE_ID,
        vision_feature_layer=-2,
        image_seq_length=4,
    )
    return hf.LlavaForConditionalGeneration(config), _text(4) | {"pixel_values": torch.randn(1, 3, 28, 28)}


def _llava_next() -> Built:
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, projection_dim=32),
        text_config=hf.LlamaConfig(**LLAMA),
        image_token_index=IMAGE_ID,
        vision_feature_layer=-2,
        image_grid_pinpoints=[[28, 28]],
        image_seq_length=4,
    )
    picture = {"pixel_values": torch.randn(1, 2, 3, 28, 28), "image_sizes": torch.tensor([[28, 28]])}
    return hf.LlavaNextForConditionalGeneration(config), _text(10) | picture


def _llava_onevision() -> Built:
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(vision_use_head=False, **TOWER),
        text_config=hf.Qwen2Config(**LLAMA),
        image_token_index=IMAGE_ID,
        video_token_index=VIDEO_ID,
        image_grid_pinpoints=[[28, 28]],
        vision_aspect_ratio="anyres_max_9",
    )
    picture = {"pixel_values": torch.randn(1, 2, 3, 28, 28), "image_sizes": torch.tensor([[28, 28]])}
    return hf.LlavaOnevisionForConditionalGeneration(config), _text(10) | picture


def _qwen(config_type: Any, model_type: Any, vision: dict[str, Any]) -> Built:
    config = config_type(
        text_config=LLAMA | MROPE,
        vision_config=vision,
        image_token_id=IMAGE_ID,
        video_token_id=VIDEO_ID,
        vision_start_token_id=122,
        vision_end_token_id=123,
    )
    text = _text(4)
    picture = {
        "mm_token_type_ids": (text["input_ids"] == IMAGE_ID).int(),
        "pixel_values": torch.randn(16, 3 * 2 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }
    return model_type(config), text | picture


def _qwen2_vl() -> Built:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 4, "patch_size": 14, "mlp_ratio": 2}
    return _qwen(hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration, vision)


def _qwen2_5_vl() -> Built:
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": WIDTH,
        "intermediate_size": 37,
        "num_heads": 4,
    }
    vision |= {"patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56}
    return _qwen(hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration, vision)


def _internvl() -> Built:
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**TOWER | {"image_size": [56, 56], "patch_size": [14, 14]}),
        text_config=hf.Qwen2Config(**LLAMA),
        image_token_id=IMAGE_ID,
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    return hf.InternVLForConditionalGeneration(config), _text(4) | {"pixel_values": torch.randn(1, 3, 56, 56)}


def _idefics(config_type: Any, vision_type: Any, model_type: Any) -> Built:
    config = config_type(
        vision_config=vision_type(**TOWER | {"image_size": 56}),
        text_config=hf.LlamaConfig(**LLAMA),
        image_token_id=IMAGE_ID,
        scale_factor=2,
        pad_token_id=0,
    )
    return model_type(config), _text(4) | {"pixel_values": torch.randn(1, 1, 3, 56, 56)}


def _paligemma(text: Any) -> Built:
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**TOWER),
        text_config=text,
        image_token_index=IMAGE_ID,
        vocab_size=VOCABULARY,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    text = _text(4, prefix=())
    picture = {"token_type_ids": torch.zeros_like(text["input_ids"]), "pixel_values": torch.randn(1, 3, 28, 28)}
    return hf.PaliGemmaForConditionalGeneration(config), text | picture


_QFORMER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "cross_attention_frequency": 2,
    "encoder_hidden_size": 32,
}


def flan_t5(**more: Any) -> Any:
    """The config of a Flan-T5: gated, its stream not scaled before the head."""
    return _t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False, **more)


def first_t5(**more: Any) -> Any:
    """The config of the first T5: a plain FFN, its stream scaled before the head, which is the embedding."""
    return _t5(feed_forward_proj="relu", tie_word_embeddings=True, **more)


def _t5(**more: Any) -> Any:
    sizes = {"d_model": WIDTH, "d_ff": FFN, "d_kv": 8, "num_heads": 4, "num_layers": N_LAYERS}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}
    words = {"vocab_size": VOCABULARY, "decoder_start_token_id": 0} | SPECIAL
    return hf.T5Config(**sizes | buckets | words | more)


def _instructblip(text: Any = None, image_id: int = IMAGE_ID, n_words: int = VOCABULARY) -> Built:
    config = hf.InstructBlipConfig(
        vision_config=hf.InstructBlipVisionConfig(**TOWER),
        qformer_config=hf.InstructBlipQFormerConfig(**_QFORMER | {"vocab_size": n_words}),
        text_config=text or hf.LlamaConfig(**LLAMA),
        num_query_tokens=5,
        image_token_index=image_id,
    )
    question = torch.tensor([[1, 5, 6, 7]])
    picture = {"pixel_values": torch.randn(1, 3, 28, 28)}
    query = {"qformer_input_ids": question, "qformer_attention_mask": torch.ones_like(question)}
    return hf.InstructBlipForConditionalGeneration(config), _text(5) | picture | query


def _blip2(
    n_words: int = VOCABULARY, image_id: int = IMAGE_ID, special: dict[str, int] = SPECIAL, text: Any = None
) -> Built:
    text = text or hf.OPTConfig(
        hidden_size=WIDTH,
        ffn_dim=FFN,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        vocab_size=n_words,
        word_embed_proj_dim=WIDTH,
        max_position_embeddings=128,
        **special,
    )
    config = hf.Blip2Config(
        vision_config=hf.Blip2VisionConfig(**TOWER),
        qformer_config=hf.Blip2QFormerConfig(**_QFORMER),
        text_config=text,
        num_query_tokens=5,
        image_token_index=image_id,
    )
    return hf.Blip2ForConditionalGeneration(config), _text(5) | {"pixel_values": torch.randn(1, 3, 28, 28)}


def _mplug_owl2() -> Built:
    config = tiny_config(vocab_size=VOCABULARY, image_token_index=IMAGE_ID, **SPECIAL)
    picture = {"pixel_values": torch.randn(1, 3, SIDE, SIDE)}
    return hf.AutoModelForImageTextToText.from_config(config), _text(N_QUERIES + 1) | picture


def _limber() -> Built:
    text = hf.GPTJConfig(
        n_embd=WIDTH,
        n_inner=FFN,
        n_layer=N_LAYERS,
        n_head=4,
        rotary_dim=4,
        n_positions=128,
        vocab_size=VOCABULARY,
        **SPECIAL,
    )
    vision = hf.BeitConfig(**TOWER, vocab_size=16)
    encoder, language_model = hf.BeitModel(vision, add_pooling_layer=False), hf.GPTJForCausalLM(text)
    module = put_together(language_model, encoder, Layout(2, 2, 1, TOWER["hidden_size"], "the test"), IMAGE_ID)
    return module, _text(4, prefix=()) | {"pixel_values": torch.randn(1, 3, 28, 28)}


FAMILY_BUILDERS: dict[str, Callable[[], Built]] = {
    "llava": lambda: _llava(hf.LlamaConfig(**LLAMA)),
    "llava on mistral": lambda: _llava(hf.MistralConfig(head_dim=8, sliding_window=None, **LLAMA)),
    "llava on qwen3": lambda: _llava(hf.Qwen3Config(head_dim=8, **LLAMA)),
    "llava on phi3": lambda: _llava(hf.Phi3Config(**LLAMA)),
    "llava on gemma2": lambda: _llava(hf.Gemma2Config(head_dim=8, **LLAMA)),
    "llava on gemma3": lambda: _llava(hf.Gemma3TextConfig(head_dim=8, **LLAMA)),
    "llava on granite": lambda: _llava(hf.GraniteConfig(residual_multiplier=0.22, embedding_multiplier=12.0, **LLAMA)),
    "llava on cohere": lambda: _llava(hf.CohereConfig(**LLAMA)),
    "llava on cohere2": lambda: _llava(hf.Cohere2Config(**LLAMA)),
    "llava on glm4": lambda: _llava(hf.Glm4Config(head_dim=8, **LLAMA)),
    "llava on ministral3": lambda: _llava(hf.Ministral3Config(head_dim=8, **LLAMA)),
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "internvl": _internvl,
    "idefics3": lambda: _idefics(hf.Idefics3Config, hf.Idefics3VisionConfig, hf.Idefics3ForConditionalGeneration),
    "smolvlm": lambda: _idefics(hf.SmolVLMConfig, hf.SmolVLMVisionConfig, hf.SmolVLMForConditionalGeneration),
    "paligemma": lambda: _paligemma(hf.GemmaConfig(head_dim=8, **LLAMA)),
    "paligemma on gemma2": lambda: _paligemma(hf.Gemma2Config(head_dim=8, final_logit_softcapping=2.0, **LLAMA)),
    "instructblip": _instructblip,
    "blip-2": _blip2,
    "mplug_owl2": _mplug_owl2,
    "limber": _limber,
}

# One of each way in which a picture enters, attention is masked or a layer is built: where all would take too long.
UNLIKE: tuple[str, ...] = (
    *("llava on gemma2", "llava on phi3", "llava on glm4", "llava_next", "qwen2_vl", "idefics3", "paligemma"),
    *("blip-2", "mplug_owl2", "limber"),
)


def _begun(built: Built) -> Built:
    """With the token that a decoder begins with."""
    module, inputs = built
    return module, inputs | {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)}


ENCODER_DECODERS: dict[str, Callable[[], Built]] = {
    "instructblip on flan-t5": lambda: _begun(_instructblip(flan_t5())),
    "blip-2 on t5": lambda: _begun(_blip2(text=first_t5())),
    "blip-2 on flan-t5": lambda: _begun(_blip2(text=flan_t5())),
    "blip-2 on umt5": lambda: _begun(_blip2(text=hf.UMT5Config(**first_t5().to_diff_dict()))),
}
