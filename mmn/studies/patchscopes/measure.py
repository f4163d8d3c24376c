"""What does a state say when the same decoder reads it in a text prompt? Layer by layer, beside the logit lens.

    pictures of a run ─► their states after every layer (`states`) ─► for each layer and state
      ─► `patch`    written into the prompt (`prompt.read_in`): what comes next      Patchscopes (2401.06102)
      ─► `lens`     softmax(W_U · norm(state)): the same state, read at once         nostalgebraist 2020
      ─► `other`    a state of another picture, of other nouns, in its place         control, OURS
      ─► `random`   a random direction of the state's length in its place            control, OURS

For each reading how surprising the noun's first token is (−log p, nats) and whether it is the most probable one: of a
state at p(c) its own noun, of an image token every noun of the caption. `find_neighbours` is the other question of the
page: whose words' states are nearest to an image token (`bank`).

Left out: attention and FFN outputs as sources, words that the user chose, models whose prompt an encoder reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from mmn.errors import ImageError, UsageError
from mmn.models.float64 import wide
from mmn.models.geometry import image_grid, serialise
from mmn.models.image_tokens import require_image_tokens
from mmn.models.model import Model
from mmn.reading.plain_text import require_text_prompts
from mmn.runs import reopen
from mmn.runs.plan import ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.scores.rows import Tables
from mmn.studies.lens.projection import Projected, project_to_words
from mmn.studies.patchscopes.bank import Bank, Nearest, chances, nearest, nouns_of, read_bank, texts_of_run
from mmn.studies.patchscopes.prompt import Prompt, continued, encoded, prompt_name, read_in
from mmn.studies.patchscopes.states import Said, States, all_said, partner_of, read_states
from mmn.studies.patchscopes.tables import IMAGE, LENS, NOUN, OTHER, PATCH, RANDOM
from mmn.studies.tables import TABLES
from mmn.units.decoding import Vocabulary, texts_of

PREFIX: Final = "patchscopes"
STAGE: Final = "patchscopes"
NEIGHBOURS: Final = "neighbours"
PICTURES_OF_A_SHARD: Final = 8
N_TOP: Final = 5
LEAST_PROBABILITY: Final = 1e-38  # below it float32 has no probability: 87.5 nats are the most that are told
WHAT: Final = "patchscopes"


@dataclass(frozen=True)
class Asked:
    """How states are read.

    Attributes:
        prompt: of text alone.
        into: the layer behind which a state is written, or None for the one that it is from.
        layers: that states are from; None for all.
        n_tokens: image tokens of a picture; None for all.
        n_next: tokens that are read on.
    """

    prompt: str
    into: int | None = None
    layers: tuple[int, ...] | None = None
    n_tokens: int | None = 16
    n_next: int = 1

    @property
    def setting(self) -> str:
        """How tables and figures call the prompt and the layer."""
        return f"{prompt_name(self.prompt)}, {'same layer' if self.into is None else f'layer {self.into}'}"


@dataclass(frozen=True)
class _Reader:
    """A run, its pictures, and how their states are read."""

    scored: ScoredRun
    asked: Asked
    said: tuple[Said, ...]
    prompt: Prompt
    layers: tuple[int, ...]

    @property
    def model(self) -> Model:
        return self.scored.model

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of_model(self.model)

    @cached_property
    def bank(self) -> Bank:
        return read_bank(self.model, texts_of_run(self.said))


def read_in_prompt(
    scored: ScoredRun, asked: Asked, limit: int | None = None, progress: ProgressCallback = lambda _progress: None
) -> list[str]:
    """Adds `patchscope` and `patchscope_word` of a run's pictures as shards; the same call again does what is missing.

    Raises:
        UsageError: a model without image tokens, or whose prompt an encoder reads; no such layer; a bad prompt.
    """
    reader = _reader(scored, asked)
    key = [asked.prompt, asked.into, reader.layers, asked.n_tokens, asked.n_next]
    return _each(reader, PREFIX, key, lambda one: _read(reader, one), limit, progress)


def find_neighbours(
    scored: ScoredRun, asked: Asked, limit: int | None = None, progress: ProgressCallback = lambda _progress: None
) -> list[str]:
    """Adds `neighbour` of a run's pictures as shards (raises as `read_in_prompt`)."""
    reader = _reader(scored, asked)
    key = [reader.layers, asked.n_tokens]
    return _each(reader, NEIGHBOURS, key, lambda one: _neighbours(reader, one), limit, progress)


def _reader(scored: ScoredRun, asked: Asked) -> _Reader:
    model = scored.model
    require_text_prompts(model, "a text prompt without a picture")
    require_image_tokens(model)
    layers = _known_layers(model, asked.layers)
    if asked.into is not None:
        model.facts.require_layers([asked.into])
    return _Reader(scored, asked, tuple(all_said(scored)), encoded(model, asked.prompt), layers)


def _known_layers(model: Model, layers: Sequence[int] | None) -> tuple[int, ...]:
    n_layers = model.anatomy.n_layers
    chosen = tuple(range(n_layers)) if layers is None else tuple(dict.fromkeys(layers))
    model.facts.require_layers(chosen)
    return chosen


def _each(
    reader: _Reader,
    prefix: str,
    key: object,
    answer: Callable[[Said], Tables],
    limit: int | None,
    progress: ProgressCallback,
) -> list[str]:
    """`answer` of every picture, a few to a shard; one that cannot be opened is a failure."""
    known = {one.example.image_id: one for one in reader.said}
    answers = reopen.each_alone(lambda example: answer(known[example.image_id]), STAGE)
    return reopen.for_each_part(reader.scored, prefix, key, answers, progress, STAGE, limit, PICTURES_OF_A_SHARD)


def _pair(reader: _Reader, said: Said) -> tuple[States, States | None]:
    """The states of a picture, and of the one that is its control, where there is one that opens."""
    own = read_states(reader.scored, said, reader.asked.n_tokens)
    partner = partner_of(reader.said, said.example.image_id)
    try:
        return own, None if partner is None else read_states(reader.scored, partner, reader.asked.n_tokens)
    except ImageError:
        return own, None


def _read(reader: _Reader, said: Said) -> Tables:
    """The rows of one picture."""
    own, other = _pair(reader, said)
    rows: list[dict[str, Any]] = []
    words: list[dict[str, Any]] = []
    for layer in reader.layers:
        for source in (NOUN, IMAGE):
            for reading, states in _readings(reader, own, other, source, layer):
                if len(states):
                    found = _projected(reader, reading, layer, states, said)
                    rows += _rows(reader, said, source, reading, layer, own.tokens, found)
                    if reading in (PATCH, LENS):
                        words += _words(reader, said, source, reading, layer, own.tokens, states, found)
    tables = {"patchscope": rows, "patchscope_word": words}
    written = {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in tables.items()}
    return written | _grid(reader, own)


def _readings(
    reader: _Reader, own: States, other: States | None, source: str, layer: int
) -> Iterator[tuple[str, Float[Tensor, "n d"]]]:
    """Each reading, and the states that it reads, as many as the picture's own; another picture's come round."""
    states = own.nouns[layer] if source == NOUN else own.image[layer]
    yield PATCH, states
    yield LENS, states
    if other is not None:
        theirs = other.nouns[layer] if source == NOUN else other.image[layer]
        yield OTHER, theirs[[number % len(theirs) for number in range(len(states))]]
    yield RANDOM, _random_like(states, reader.scored.run.settings.seed, own.said.example.image_id, source, layer)


def _random_like(states: Float[Tensor, "n d"], *seed: object) -> Float[Tensor, "n d"]:
    """A random direction for each state, of its length."""
    digest = hashlib.sha256(repr(seed).encode()).digest()
    draw = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "big"))).standard_normal(
        tuple(states.shape), dtype=np.float32
    )
    directions = torch.nn.functional.normalize(torch.from_numpy(draw), dim=-1).to(states.device)
    return (directions * states.float().norm(dim=-1, keepdim=True)).to(states.dtype)


def _projected(reader: _Reader, reading: str, layer: int, states: Float[Tensor, "n d"], said: Said) -> Projected:
    token_ids = [one.token_id for one in said.concepts]
    model, vocabulary = reader.model, reader.vocabulary
    if reading == LENS:
        with torch.inference_mode():
            return project_to_words(model, vocabulary, model.anatomy.final_norm(states), N_TOP, token_ids)
    return read_in(model, vocabulary, reader.prompt, _into(reader, layer), states, N_TOP, token_ids)


def _into(reader: _Reader, layer: int) -> int:
    return layer if reader.asked.into is None else reader.asked.into


def _rows(
    reader: _Reader, said: Said, source: str, reading: str, layer: int, tokens: tuple[int, ...], found: Projected
) -> Iterator[dict[str, Any]]:
    """Of a noun's state its own noun; of an image token's every noun."""
    key = _key(reader, said, source, reading, layer)
    surprisal = -wide(found.asked).clamp_min(LEAST_PROBABILITY).log()
    best = found.top.token_ids[:, 0].tolist()
    for row, token_id in enumerate(best):
        for column, concept in enumerate(said.concepts):
            if source == IMAGE or row == column:
                at = tokens[row] if source == IMAGE else concept.position
                told = {"noun": concept.noun, "surprisal": surprisal[row, column].item()}
                yield key | {"token_position": at, "is_top": token_id == concept.token_id} | told


def _words(
    reader: _Reader,
    said: Said,
    source: str,
    reading: str,
    layer: int,
    tokens: tuple[int, ...],
    states: Float[Tensor, "n d"],
    found: Projected,
) -> Iterator[dict[str, Any]]:
    """What each state says; two nouns that begin with one token are one row."""
    key = _key(reader, said, source, reading, layer)
    texts, _ = texts_of(reader.model.tokenizer).read(found.top.token_ids.cpu().numpy())
    said_on = _continuations(reader, layer, states) if reading == PATCH else [None] * len(states)
    places = tokens if source == IMAGE else tuple(one.position for one in said.concepts)
    for row, place in enumerate(places):
        if places.index(place) == row:
            here = slice(row * N_TOP, (row + 1) * N_TOP)
            told = {"tokens": texts[here].to_pylist(), "scores": found.top.scores[row].tolist()}
            yield key | {"token_position": place, "said": said_on[row]} | told


def _continuations(reader: _Reader, layer: int, states: Float[Tensor, "n d"]) -> list[str | None]:
    """The tokens that are read on, as one text; None where one alone is read."""
    n_next = reader.asked.n_next
    if n_next == 1:
        return [None] * len(states)
    rows = continued(reader.model, reader.vocabulary, reader.prompt, _into(reader, layer), states, n_next)
    return [reader.model.tokenizer.decode(row) for row in rows]


def _key(reader: _Reader, said: Said, source: str, reading: str, layer: int) -> dict[str, Any]:
    """What tells rows apart; the lens has no prompt."""
    setting = "" if reading == LENS else reader.asked.setting
    return {
        "image_id": said.example.image_id,
        "source": source,
        "reading": reading,
        "setting": setting,
        "layer": layer,
    }


def _grid(reader: _Reader, own: States) -> Tables:
    """Where the picture's image tokens lie, if they have a place."""
    example = own.said.example
    try:
        seen = image_grid(reader.model, own.inputs, own.opened_size)
    except UsageError:
        return {}
    placed = seen.resized(own.opened_size, (example.width, example.height))
    row = {"image_id": example.image_id, "grid": serialise.to_json(placed)}
    return {"grid": pa.Table.from_pylist([row], schema=TABLES["grid"])}


def _neighbours(reader: _Reader, said: Said) -> Tables:
    """The nearest words of one picture's image tokens, and of another's, judged by this one's nouns."""
    own, other = _pair(reader, said)
    nouns, bank = nouns_of(said), reader.bank
    rows: list[dict[str, Any]] = []
    for reading, states in ((IMAGE, own), (OTHER, other)):
        if states is None:
            continue
        may_be = bank.without(said.example.image_id, states.said.example.image_id)
        chance, chance_any = chances(bank, may_be, nouns)
        key = {"image_id": said.example.image_id, "reading": reading, "chance": chance, "chance_any": chance_any}
        for layer in reader.layers:
            found = nearest(bank, layer, states.image[layer], may_be)
            for token, one in zip(states.tokens, found, strict=True):
                rows.append(key | {"layer": layer, "token_position": token} | _company(bank, one, nouns))
    return {"neighbour": pa.Table.from_pylist(rows, schema=TABLES["neighbour"])} | _grid(reader, own)


def _company(bank: Bank, found: Nearest, nouns: frozenset[str]) -> dict[str, Any]:
    are_nouns = [bank.lemmas[entry] in nouns for entry in found.entries]
    return {
        "words": [bank.words[entry] for entry in found.entries],
        "contexts": [bank.contexts[entry] for entry in found.entries],
        "scores": list(found.cosines),
        "is_match": are_nouns[0],
        "is_any_match": any(are_nouns),
    }
