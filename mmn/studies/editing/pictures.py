"""Which pictures is an edit made on, and which is it judged by? Those of a scored run, split by their captions.

    edited      say the noun; the edit is made on them
    other       say the noun; the edit has not seen them (generalisation)
    unrelated   do not say it; their captions should stay as they are (locality)

The split depends on the seed and the pictures alone. Left out, and counted, are pictures that say the target already,
and those where the noun begins with another token than usual (a plural, say): the edit is of one token.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmn import names
from mmn.core import Concept, Example, Failure
from mmn.errors import ImageError, UsageError
from mmn.metrics import words
from mmn.models.model import Model
from mmn.reading.captions import read_captions
from mmn.reading.concepts import GeneratedCaption, target_concept
from mmn.reading.nouns import lemma_of
from mmn.runs import reopen, shards
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_captions, stored_concepts
from mmn.studies.degradation.told import Told

EDITED, OTHER, UNRELATED = "edited", "other", "unrelated"
STAGE: Final = "edit"
N_LISTED: Final = 12  # nouns that an error message names


@dataclass(frozen=True)
class Picture:
    """A picture with its caption as the run has it; `concept` is the noun there, None for an unrelated picture."""

    example: Example
    caption: GeneratedCaption
    concept: Concept | None


@dataclass(frozen=True)
class Split:
    """The pictures of an edit by role, and the two tokens. `tables` hold the run's rows of all of them."""

    roles: Mapping[str, tuple[Picture, ...]]
    source: Concept  # the noun as one of its pictures has it
    target: Concept  # the word to write, at the source's position
    n_left_out: int
    tables: Mapping[str, pa.Table]

    @property
    def token_ids(self) -> tuple[int, int]:
        """t0 and t1."""
        return self.source.token_id, self.target.token_id


def split_pictures(scored: ScoredRun, noun: str, target: str, n_edited: int, n_unrelated: int, seed: int) -> Split:
    """Splits a run's pictures for the edit `noun` -> `target`.

    Args:
        scored: the run.
        noun: what the edited pictures say, any form of it.
        target: one word.
        n_edited: at most half of the pictures of the noun, at least one.
        n_unrelated: at most.
        seed: of the split.

    Raises:
        UsageError: no caption says the noun, or all that do say the target, too; the target is the noun, no word, or
            begins with the same token.
    """
    lemma = lemma_of(noun.strip())
    _check_words(lemma, noun, target)
    tables = _stored(scored)
    examples = tuple(reopen.examples(tables))
    said = {
        one.example.image_id: one.concept for one in stored_concepts(tables, examples) if one.concept.lemma == lemma
    }
    if not said:
        raise UsageError(f"no caption of run {scored.run.run_id} says {noun!r}; often said are {_often(tables)}")
    token_id = Counter(concept.token_id for concept in said.values()).most_common(1)[0][0]
    captions = dict(
        zip((one.image_id for one in examples), stored_captions(scored.model, tables, examples), strict=True)
    )

    def drawn(chosen: Iterator[Example]) -> list[Picture]:
        ordered = sorted(chosen, key=lambda one: _draw(seed, lemma, one.image_id))
        return [Picture(one, captions[one.image_id], said.get(one.image_id)) for one in ordered]

    wanted = {
        image_id
        for image_id, concept in said.items()
        if concept.token_id == token_id and not says(captions[image_id].text, target)
    }
    of_noun = drawn(one for one in examples if one.image_id in wanted)
    if not of_noun:
        raise UsageError(f"every caption of run {scored.run.run_id} that says {noun!r} says {target!r}, too")
    n_made_on = max(1, min(n_edited, len(of_noun) // 2))
    unrelated = drawn(one for one in examples if one.image_id not in said)[:n_unrelated]
    source = of_noun[0].concept
    assert source is not None, of_noun[0]
    wish = target_concept(target, source, _encoder(scored.model))
    if wish.token_id == token_id:
        raise UsageError(
            f"{target!r} begins with the same token as {noun!r} in this model, and an edit is of that token alone: "
            "choose another target"
        )
    roles = {EDITED: tuple(of_noun[:n_made_on]), OTHER: tuple(of_noun[n_made_on:]), UNRELATED: tuple(unrelated)}
    of_lemma = pc.equal(tables["concept"]["lemma"], lemma)
    kept = {**tables, "concept": tables["concept"].filter(of_lemma)}
    return Split(roles, source, wish, len(said) - len(of_noun), kept)


@dataclass(frozen=True)
class OtherNoun:
    """Another picture's noun, whose units are edited as a control, and pictures that say it: as many as are edited."""

    lemma: str
    image_ids: tuple[str, ...]


def another_noun(told: Told, split: Split, seed: int) -> OtherNoun | None:
    """The noun of another picture: of the first one in drawn order that says a noun which no edited picture does, and
    that is not the target; None where there is none. Its pictures are drawn likewise, and none says the source.
    """
    edited = {picture.example.image_id for picture in split.roles[EDITED]}
    taken = {one.lemma for image_id in edited for one in told.nouns.get(image_id, ())} | {split.target.lemma}
    lemma = split.source.lemma
    without = [one for one, said in told.nouns.items() if lemma not in {noun.lemma for noun in said}]
    without.sort(key=lambda one: _draw(seed, f"{lemma} another", one))
    free = [
        (image_id, noun)
        for image_id in without
        for noun in sorted(told.nouns[image_id], key=lambda one: _draw(seed, lemma, one.lemma))
        if noun.lemma not in taken and noun.token_id not in split.token_ids
    ]
    if not free:
        return None
    other = free[0][1]
    same = [image_id for image_id, noun in free if (noun.lemma, noun.token_id) == (other.lemma, other.token_id)]
    return OtherNoun(other.lemma, tuple(dict.fromkeys(same))[: len(edited)])


def says(text: str, target: str) -> bool:
    """Whether a caption has the word, in any form of it (METHODS: efficacy, t1 emitted)."""
    return lemma_of(target) in {lemma_of(word) for word in words(text)}


def open_pictures(pictures: Sequence[Picture], edit_id: str) -> tuple[list[Picture], list[Image.Image], list[Failure]]:
    """The pictures that still open, and a failure for each other one; it names the edit, and is undone with it."""
    there, images, failures = [], [], []
    for one in pictures:
        try:
            images.append(reopen.open_again(one.example))
            there.append(one)
        except ImageError as error:
            failures.append(Failure.of(one.example.source, f"{STAGE} {edit_id}", error))
    return there, images, failures


def probs_at_noun(
    model: Model, prompt: str, pictures: Sequence[Picture], images: Sequence[Image.Image]
) -> Float[Tensor, "n V"]:
    """The probabilities of all tokens at p(c) of each picture, under its caption as the run has it."""
    found = []
    for start in range(0, len(pictures), model.usual_batch_size):
        chosen = pictures[start : start + model.usual_batch_size]
        batch = read_captions(
            model, images[start : start + model.usual_batch_size], prompt, [one.caption for one in chosen]
        )
        steps = torch.tensor([one.concept.position for one in chosen if one.concept is not None])
        logits = batch.logits_at(torch.arange(len(chosen)), steps)
        found.append(logits.softmax(-1).cpu())
    return torch.cat(found)


def _check_words(lemma: str, noun: str, target: str) -> None:
    if sum(words(target).values()) != 1 or " " in target.strip():
        raise UsageError(f"the target {target!r} is not one word: an edit writes one, for example --to boat")
    if lemma == lemma_of(target.strip()):
        raise UsageError(f"the target {target!r} is the noun {noun!r} itself: choose another word")


def _stored(scored: ScoredRun) -> dict[str, pa.Table]:
    """The pictures, captions and nouns of the whole run (variant `original`)."""
    found: dict[str, list[pa.Table]] = {"image": [], "caption": [], "concept": []}
    for name in sorted(shards.finished_shards(scored.path)):
        tables = shards.read_shard(scored.path / name)
        if "image" in tables:
            for table, parts in found.items():
                if table in tables:
                    parts.append(tables[table])
    if not found["concept"]:
        raise UsageError(f"run {scored.run.run_id} has no nouns yet: let it finish, then edit")
    whole = {table: pa.concat_tables(parts) for table, parts in found.items()}
    for table in ("caption", "concept"):
        whole[table] = whole[table].filter(pc.equal(whole[table]["variant"], names.ORIGINAL))
    return whole


def _often(tables: Mapping[str, pa.Table]) -> str:
    counts = Counter(tables["concept"].filter(pc.is_null(tables["concept"]["target_at"]))["lemma"].to_pylist())
    return ", ".join(lemma for lemma, _ in counts.most_common(N_LISTED)) or "none"


def _encoder(model: Model) -> Any:
    def encode(text: str) -> list[int]:
        return model.tokenizer(text, add_special_tokens=False).input_ids

    return encode


def _draw(seed: int, lemma: str, image_id: str) -> str:
    return hashlib.sha256(f"{seed}\0{lemma}\0{image_id}".encode()).hexdigest()
