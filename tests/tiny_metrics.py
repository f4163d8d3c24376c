"""Tiny text encoders and a tiny CLIP, whose weights are the same on every machine: numpy's, not torch's, randomness."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from torch import nn

WORDS = ("a", "dog", "cat", "on", "the", "beach", "grass", "two", "camel", "umbrella", "rocket", "next", "run", "bar")
PIECES = ("##ning", "##s", "un", "##believ", "##able", ",", ".")
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
}


def save_tiny_bert(path: Path, seed: int = 0) -> Path:
    """A BERT of three layers with a WordPiece vocabulary; texts are cut at 24 tokens."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES]
    tokenizer = hf.BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=24)
    model = hf.BertModel(hf.BertConfig(vocab_size=len(vocabulary), **SMALL))
    _fill(model, seed)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def save_tiny_clip(path: Path, seed: int = 0) -> Path:
    """A CLIP that reads letters, 77 of them, and pictures of 28 × 28."""
    letters = "abcdefghijklmnopqrstuvwxyz,."
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = hf.CLIPTokenizer(vocab=vocabulary, merges=[])
    ids = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    text = SMALL | {"max_position_embeddings": 77, "vocab_size": len(vocabulary), "pad_token_id": 0} | ids
    vision = {name: size for name, size in SMALL.items() if name != "max_position_embeddings"}
    config = hf.CLIPConfig(
        text_config=text, vision_config=vision | {"image_size": 28, "patch_size": 14}, projection_dim=8
    )
    model = hf.CLIPModel(config)
    _fill(model, seed)
    model.save_pretrained(path)
    size = {"height": 28, "width": 28}
    pictures = hf.CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    hf.CLIPProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(path)
    return path


@torch.no_grad()
def _fill(model: nn.Module, seed: int) -> None:
    for name, parameter in model.named_parameters():
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        values = np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(0, 0.5, tuple(parameter.shape))
        parameter.copy_(torch.from_numpy(values) + (1.0 if "norm" in name.lower() and "weight" in name else 0.0))
