"""Whose company does a state keep? The states of words in plain sentences that are nearest to it, layer by layer.

    sentences: ours (`reading.plain_text`), and the run's own references and captions
      ─► each read by itself, without a picture ─► after layer l the state of every word, at its last token
    image token after layer l ─► highest cosines among them ─► the words that they are of, and their sentences

LatentLens (its README, and notes at second hand): states in context, not rows of the vocabulary. Its bank is 117,000
sentences, ours a few hundred (`N_TEXTS`), since a run brings its own. OURS: a word is one entry, not each of its
tokens; a text of the same picture does not count; chance is the share of the bank that would match.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmn.models.model import Model
from mmn.reading.concepts import token_ends_of
from mmn.reading.hooks import capture_residual
from mmn.reading.nouns import lemma_of, tag_nouns
from mmn.reading.plain_text import Text, plain_sentences, text_states
from mmn.studies.patchscopes.states import Said
from mmn.units.top_tokens import top_tokens

N_TEXTS: Final = 320  # sentences of a bank at most, ours included
N_NEAREST: Final = 5
ROWS_AT_ONCE: Final = 32
_WORD: Final = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass(frozen=True)
class Bank:
    """States of words in sentences: entry n is of `words[n]` in `contexts[n]`, which are of pictures `owners[n]`.

    `states[l]` are of length 1, after layer l; `lemmas` are the words as nouns.
    """

    words: tuple[str, ...]
    lemmas: np.ndarray
    contexts: tuple[str, ...]
    owners: tuple[frozenset[str], ...]
    states: tuple[Float[Tensor, "n d"], ...]

    def without(self, *image_ids: str) -> Bool[np.ndarray, " n"]:
        """Which entries are of no text of these pictures."""
        return np.array([not one.intersection(image_ids) for one in self.owners], bool)


@dataclass(frozen=True)
class Nearest:
    """The nearest entries of one state, and their cosines, best first."""

    entries: tuple[int, ...]
    cosines: tuple[float, ...]


def texts_of_run(said: Sequence[Said]) -> dict[str, frozenset[str]]:
    """The bank's sentences, each with the pictures that it is of: ours, then of each picture its references, else its
    caption, until there are `N_TEXTS`.
    """
    found: dict[str, set[str]] = {text: set() for text in plain_sentences()}
    for one in said:
        for text in one.example.references or (one.caption.text,):
            if text in found or len(found) < N_TEXTS:
                found.setdefault(text, set()).add(one.example.image_id)
    return {text: frozenset(owners) for text, owners in found.items() if text.strip()}


def read_bank(model: Model, texts: dict[str, frozenset[str]]) -> Bank:
    """The states of the words of some texts after every layer.

    Raises:
        UsageError: an encoder reads this model's prompts.
    """
    entries: list[tuple[str, str]] = []
    states: list[list[Tensor]] = [[] for _ in range(model.anatomy.n_layers)]
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), ROWS_AT_ONCE):
        some = ordered[start : start + ROWS_AT_ONCE]
        rows = [_encoded(model, text) for text in some]
        after = _states_of(model, [text for text, _ in rows])
        for context, (text, words), of_row in zip(some, rows, after, strict=True):
            entries += [(word, context) for _, word in words]
            at = [len(text.prefix) + place for place, _ in words]
            for layer, of_layer in enumerate(of_row):
                states[layer].append(torch.nn.functional.normalize(of_layer[at].float(), dim=-1))
    said = tuple(word for word, _ in entries)
    contexts = tuple(context for _, context in entries)
    return Bank(
        said,
        np.array([lemma_of(word.lower()) for word in said]),
        contexts,
        tuple(texts[context] for context in contexts),
        tuple(torch.cat(of_layer) for of_layer in states),
    )


def nearest(
    bank: Bank, layer: int, states: Float[Tensor, "n d"], may_be: Bool[np.ndarray, " entries"]
) -> list[Nearest]:
    """The entries of highest cosine with each state after `layer`, among those that may be."""
    cosines = torch.nn.functional.normalize(states.float(), dim=-1) @ bank.states[layer].T
    cosines[:, torch.from_numpy(~may_be).to(cosines.device)] = -torch.inf
    top = top_tokens(cosines, N_NEAREST)
    pairs = zip(top.token_ids.tolist(), top.scores.tolist(), strict=True)
    return [Nearest(tuple(entries), tuple(scores)) for entries, scores in pairs]


def nouns_of(said: Said) -> frozenset[str]:
    """The lemmas of the nouns that a picture's caption says, and those of its references."""
    of_references = {span.lemma for text in said.example.references for span in tag_nouns(text)}
    return frozenset({one.lemma for one in said.concepts} | of_references)


def chances(bank: Bank, may_be: Bool[np.ndarray, " entries"], nouns: frozenset[str]) -> tuple[float, float]:
    """How probable it is that an entry, drawn of those that may be, is of `nouns`, and that one of `N_NEAREST` is."""
    is_noun = np.isin(bank.lemmas, sorted(nouns)) & may_be
    n, n_noun = int(may_be.sum()), int(is_noun.sum())
    missed = np.prod([max(n - n_noun - i, 0) / (n - i) for i in range(N_NEAREST)])
    return n_noun / n, float(1 - missed)


def _encoded(model: Model, text: str) -> tuple[Text, tuple[tuple[int, str], ...]]:
    """A text as tokens, and each of its words with the place of the token that ends it."""
    start = model.tokenizer.bos_token_id
    token_ids = model.tokenizer(text, add_special_tokens=False).input_ids

    def decode(some: list[int]) -> str:
        return model.tokenizer.decode(some, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    whole, ends = token_ends_of(token_ids, decode)
    words = tuple((bisect_left(ends, match.end()), match[0]) for match in _WORD.finditer(whole))
    return Text(() if start is None else (start,), tuple(token_ids)), words


@torch.inference_mode()
def _states_of(model: Model, texts: Sequence[Text]) -> Iterator[list[Float[Tensor, "positions d"]]]:
    """For each text its states after every layer."""
    with capture_residual(model) as after:
        text_states(model, texts)
    for row in range(len(texts)):
        yield [of_layer[row] for of_layer in after]
