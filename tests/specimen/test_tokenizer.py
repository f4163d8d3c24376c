"""One token a word, with the exceptions that flags are there for."""

from __future__ import annotations

import random

from mmn.specimen.tokenizer import SPLIT, build_tokenizer
from mmn.specimen.world import NOUNS, caption_of, sample_scene


def test_captions_survive_the_round_trip() -> None:
    tokenizer, rng = build_tokenizer(), random.Random(0)
    for _ in range(300):
        caption = caption_of(sample_scene(rng))
        assert tokenizer.decode(tokenizer(caption).input_ids) == caption


def test_nouns_are_one_token_but_for_the_split_ones() -> None:
    tokenizer = build_tokenizer()
    lengths = {noun: len(tokenizer(noun).input_ids) for noun in NOUNS}
    assert {noun for noun, n in lengths.items() if n > 1} == set(SPLIT)


def test_two_nouns_share_their_first_token() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("telephone").input_ids[0] == tokenizer("television").input_ids[0]


def test_any_text_can_be_encoded() -> None:
    tokenizer = build_tokenizer()
    for text in ("Zürich", "a 猫 on the grass", "xylophone!", "tab\tand\nline"):
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids).replace("\t", " ").split() == text.split()


def test_batches_are_padded_on_the_left() -> None:
    ids = build_tokenizer()(["a dog", "a dog on the grass."], padding=True).input_ids
    assert ids[0][0] == build_tokenizer().pad_token_id
