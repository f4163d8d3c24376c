"""Captions that the limit of new tokens ends: no noun is made of half a word, and it is known that they were cut."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmn.models.model import Model
from mmn.reading.captions import write_captions
from mmn.reading.concepts import GeneratedCaption, find_concepts, n_whole_tokens
from tests.test_concepts import TOKENIZERS


class Scripted(torch.nn.Module):
    """Says given tokens, whatever it is shown; shorter rows are padded as generation pads them."""

    def __init__(self, model: Model, rows: list[list[int]]) -> None:
        super().__init__()
        self.config, self.generation_config = model.module.config, model.module.generation_config
        self.rows, self.pad, self.n_vocabulary = rows, model.pad_token_id, len(model.tokenizer)
        self.ends = model.end_token_ids

    def generate(self, generation_config: Any, **_inputs: torch.Tensor) -> SimpleNamespace:
        limit = generation_config.max_new_tokens
        rows = [self.until_end(row)[:limit] for row in self.rows]
        width = max(map(len, rows))
        ids = torch.tensor([row + [self.pad] * (width - len(row)) for row in rows])
        logits = torch.nn.functional.one_hot(ids, self.n_vocabulary).float()
        return SimpleNamespace(sequences=ids, logits=logits.unbind(1))

    def until_end(self, row: list[int]) -> list[int]:
        return next((row[: at + 1] for at, token in enumerate(row) if token in self.ends), row)


def say(model: Model, texts: list[str], max_new_tokens: int) -> tuple[GeneratedCaption, ...]:
    """What is left of captions under a limit; the model would say each text and then an end."""
    rows = [
        [*model.tokenizer(text, add_special_tokens=False).input_ids, model.tokenizer.eos_token_id] for text in texts
    ]
    scripted = replace(model, module=Scripted(model, rows))
    return write_captions(scripted, {"input_ids": torch.zeros(len(rows), 1, dtype=torch.long)}, max_new_tokens)[0]


def lemmas(caption: GeneratedCaption) -> list[str]:
    return [concept.lemma for concept in find_concepts(caption, ())]


def test_straw_of_strawberry_is_no_concept(tiny: Model) -> None:
    (caption,) = say(tiny, ["a dog, a strawberry on the grass."], 5)
    assert (caption.text, caption.is_cut, lemmas(caption)) == ("a dog, a", True, ["dog"])


@pytest.mark.parametrize(
    ("limit", "text", "is_cut"),
    [
        (1, "a", True),
        (2, "a", True),  # water|melon
        (3, "a watermelon", True),
        (4, "a watermelon on", True),
        (6, "a watermelon on the beach", True),
        (7, "a watermelon on the beach.", False),  # what it would say next is its end
        (8, "a watermelon on the beach.", False),
        (50, "a watermelon on the beach.", False),
    ],
)
def test_a_caption_is_cut_where_the_model_would_have_gone_on(tiny: Model, limit: int, text: str, is_cut: bool) -> None:
    (caption,) = say(tiny, ["a watermelon on the beach."], limit)
    assert (caption.text, caption.is_cut) == (text, is_cut)
    assert len(caption.token_ids) <= limit


def test_a_caption_is_cut_alike_in_every_batch(tiny: Model) -> None:
    texts = ["a strawberry", "a dog", "two televisions and a cat on the road.", "a watermelon."]
    alone = [say(tiny, [text], 2)[0] for text in texts]
    assert list(say(tiny, texts, 2)) == alone
    assert [one.text for one in alone] == ["a", "a dog", "two", "a"]
    assert [one.is_cut for one in alone] == [True, False, True, True]


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        (["a", " straw", "berry"], "a"),
        (["a", " straw", " hat"], "a straw"),
        (["a", " straw", "."], "a straw"),
        (["a", " dog", "'s"], "a dog"),
        (["a", " fire", "-"], "a"),
        (["a", " fire", "-", "engine"], "a"),
        (["a", " fire", "-", " or"], "a fire-"),
        (["a", " tele", "vi", "sion"], "a"),
        (["foo", "bar d", "og", "gy"], ""),  # no token ends where a word does
        (["a", " ", "straw", "berry"], "a "),
        (["一", "只", "狗", "和"], "一只狗"),
        (["straw", "berry"], ""),
    ],
)
def test_the_word_that_the_next_token_goes_on_with_is_dropped_whole(pieces: list[str], kept: str) -> None:
    def decode(ids: list[int]) -> str:
        return "".join(pieces[index] for index in ids)

    n = n_whole_tokens(range(len(pieces)), decode)
    assert "".join(pieces[:n]) == kept


@pytest.mark.parametrize("kind", ["metaspace", "byte-level"])
def test_a_word_cut_in_a_character_is_dropped(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode("dog café", add_special_tokens=False).ids
    first_byte = next(n for n in range(len(ids)) if tokenizer.decode(ids[: n + 1]).endswith("\ufffd"))
    for n_tokens in (first_byte, first_byte + 1):  # before the é, and within it
        kept = ids[: n_whole_tokens(ids[: n_tokens + 1], tokenizer.decode)]
        assert tokenizer.decode(kept).strip() == "dog"


def test_bytes_that_never_become_a_character_are_no_word() -> None:
    tokenizer = TOKENIZERS["metaspace"]
    broken = tokenizer.get_vocab()["<0xC3>"]
    dog = tokenizer.encode("dog", add_special_tokens=False).ids
    ids = [*dog, *[broken] * 9]
    assert n_whole_tokens(ids, tokenizer.decode) == len(ids) - 1
