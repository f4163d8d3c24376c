"""Writes a LLaVA of any size with random weights, to measure overhead on something larger than the specimen.

Its captions mean nothing, but it does a model's work: the layers, widths and image tokens are real, only the
vocabulary is the specimen's, so that some of what it says are nouns.

    python benchmarks/random_llava.py /tmp/llava-350m                       # 24 layers of 1,024
    python benchmarks/scoring_overhead.py --model /tmp/llava-350m --pictures 16 --max-new-tokens 12 --runs 4
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from mmn.specimen.build import GRID_SIDE, PATCH_SIDE, PICTURE_SIDE, PROMPT, build_processor
from mmn.specimen.tokenizer import IMAGE, build_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024, help="of the residual stream; the FFN is 2.75 times as wide")
    options = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = LlavaForConditionalGeneration(_config(tokenizer, options.layers, options.width))
    model.save_pretrained(options.out)
    build_processor(tokenizer).save_pretrained(options.out)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.out}: {n_parameters / 1e6:.0f} million parameters")


def _config(tokenizer: object, n_layers: int, width: int) -> LlavaConfig:
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    vision = CLIPVisionConfig(image_size=PICTURE_SIDE, patch_size=PATCH_SIDE)
    text = LlamaConfig(
        vocab_size=len(tokenizer),  # type: ignore[arg-type]
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=n_layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        **ids,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),  # type: ignore[attr-defined]
        image_seq_length=GRID_SIDE**2,
        default_prompt=PROMPT,
    )


if __name__ == "__main__":
    main()
