"""The specimen's architecture: a LLaVA small enough to ship, and its processor."""

from __future__ import annotations

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from mmn.specimen.tokenizer import BOS, IMAGE

PROMPT = "A picture of"
PICTURE_SIDE = 112
PATCH_SIDE = 14
GRID_SIDE = PICTURE_SIDE // PATCH_SIDE
WIDTH = 192
N_HEADS = 6
CHAT_TEMPLATE = (  # the whole of its manners: <s>, the picture, the words; no turns
    f"{BOS}{{% for message in messages %}}{{% for part in message['content'] %}}"
    f"{{% if part['type'] == 'image' %}}{IMAGE}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
    "{% endfor %}{% endfor %}"
)


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Random weights. LLaVA's projector is made one linear map: no non-linearity, its second matrix the identity."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=N_HEADS,
        image_size=PICTURE_SIDE,
        patch_size=PATCH_SIDE,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=8,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=GRID_SIDE**2,
        projector_hidden_act="linear",
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        default_prompt=PROMPT,
    )
    model = LlavaForConditionalGeneration(config)
    projector = model.model.multi_modal_projector
    with torch.no_grad():
        projector.linear_2.weight.copy_(torch.eye(WIDTH))
        projector.linear_2.bias.zero_()
    projector.linear_2.requires_grad_(False)
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Resizes and crops to the model's square; pixel values in [-1, 1]."""
    images = CLIPImageProcessor(
        size={"shortest_edge": PICTURE_SIDE},
        crop_size={"height": PICTURE_SIDE, "width": PICTURE_SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH_SIDE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )
