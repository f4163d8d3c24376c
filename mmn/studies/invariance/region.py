"""Do a noun's units depend on where things are in the picture? Its tokens shuffled before the decoder (P2, figure 3).

    picture ─► its tokens, after the projector ─► shuffled among their places, positions stay (`hooks.permuted`)
      ─► captioned and scored again, as the variant `shuffled-<draw>`
      ─► |A ∩ B| / k for each noun (lemma) that both captions say, each at its own p(c)      `invariance`

Two floors stand beside the ratio: the mean overlap of the noun with the picture's other nouns, before shuffling, and
chance, k over the units that the method ranks (attribution leaves out the last layer). Without the first the ratio says
nothing of the noun: any two nouns of a picture share units. In a mixture of experts chance is what random units share
that lie in the same experts, each as many as the two rankings have there, Σ_e k_e · k'_e / m_e / k (OURS): rankings
share units wherever both woke an expert, and that is routing. k's that one of two rankings does not reach are left out.

The permutation (OURS; P2, arXiv 2311.07470, does not say) is a hash of the run's seed, the picture and the number of
the draw, the same whatever the batches. Scores are by all of the run's methods, with its settings.

Each batch and draw has one shard of captions and scores, each batch and question (methods, k's, number of draws) one of
ratios: more draws add the missing ones alone, other k's need no pass of the model.

Left out: words that the user chose, and `-minus-blank` rankings, since there is no shuffled grey picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from mmn import names
from mmn.core import Example, Run, ScoreSettings
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import PassContext, caption_encoded
from mmn.reading.hooks import permuted
from mmn.runs import reopen, shards
from mmn.runs.plan import ProgressCallback
from mmn.runs.reopen import ScoredRun, shard_name
from mmn.scores.batch import score_captions
from mmn.scores.equations import uniform_draw
from mmn.scores.rows import Tables, joined
from mmn.studies.invariance import rankings
from mmn.studies.invariance.rankings import CaptionNoun, Rankings
from mmn.studies.tables import SCHEMAS, TABLES, failure_table
from mmn.units.parts import Parts, parts_of

PREFIX: Final = "invariance-region"
STAGE: Final = "invariance"
PERMUTATION: Final = "permutation"  # what a draw is for, in its seed


@dataclass(frozen=True)
class Region:
    """What was found: rows of `invariance`, the nouns of the shuffled pictures' own captions, how many of these their
    shuffled captions still say (mean over draws), and how many pictures failed.
    """

    rows: pa.Table
    n_concepts: int
    n_survived: float
    n_failed: int


@dataclass(frozen=True)
class _Asked:
    """What was asked of which run."""

    scored: ScoredRun
    n_draws: int
    methods: tuple[str, ...]
    ks: tuple[int, ...]

    def key(self) -> object:
        return {"draws": self.n_draws, "methods": sorted(self.methods), "ks": self.ks, "chance": "units ranked"}

    def draw_path(self, batch: str, draw: int) -> Path:
        """Where the shuffled captions of one batch and draw are."""
        return self.scored.path / shard_name(names.SHUFFLED + str(draw), batch, {"seed": self.settings.seed})

    @property
    def settings(self) -> ScoreSettings:
        return self.scored.run.settings


def measure_region(
    scored: ScoredRun,
    n_draws: int = 5,
    methods: Sequence[str] | None = None,
    ks: Sequence[int] | None = None,
    progress: ProgressCallback = lambda _progress: None,
    limit: int | None = None,
) -> Region:
    """Captions and scores the run's pictures with shuffled tokens, and counts the units that stay; as shards of it.

    A picture that no longer opens becomes a row of `failure`.

    Args:
        scored: the run and its model.
        n_draws: permutations of each picture.
        methods: rankings to compare; None for all of the run's, random ones as a control.
        ks: how many units are compared; None for the usual grid.
        progress: told in pictures.
        limit: only the first batches, until that many pictures are reached.

    Raises:
        UsageError: a method or k that the run does not have; a family without image tokens in its decoder.
        CacheError: a broken shard, or no space left; what was finished is kept.
    """
    run = scored.run
    checked = rankings.checked_methods(run, methods, run.settings.methods)
    asked = _Asked(scored, n_draws, checked, rankings.checked_ks(run, ks))
    reopen.for_each_batch(scored, PREFIX, asked.key(), lambda batch: _answer(asked, batch), progress, STAGE, limit)
    return _summary(asked)


def _answer(asked: _Asked, batch: str) -> Tables:
    """The ratios of one batch; shuffled captions that are not there yet are written first, a shard for each draw."""
    missing = [draw for draw in range(asked.n_draws) if not asked.draw_path(batch, draw).exists()]
    if missing:
        for draw, tables in _shuffle(asked, batch, missing):
            shards.write_shard(asked.scored.path, asked.draw_path(batch, draw).name, tables)
    after = {
        draw: _ranked(asked, asked.draw_path(batch, draw), names.SHUFFLED + str(draw)) for draw in range(asked.n_draws)
    }
    before = _ranked(asked, asked.scored.path / batch, names.ORIGINAL)
    anatomy = asked.scored.model.anatomy
    parts = parts_of(anatomy.widths, anatomy.d_experts) if anatomy.mixtures else None
    return {"invariance": compare(asked.scored.run, before, after, asked.methods, asked.ks, parts)}


def _ranked(asked: _Asked, path: Path, variant: str) -> tuple[list[CaptionNoun], dict[str, Rankings]]:
    ranked = rankings.stored_rankings(path, variant, asked.methods, asked.scored.run.model.d_mlp)
    return rankings.caption_nouns(path, variant), ranked


def compare(
    run: Run,
    original: tuple[Sequence[CaptionNoun], Mapping[str, Rankings]],
    shuffled: Mapping[int, tuple[Sequence[CaptionNoun], Mapping[str, Rankings]]],
    methods: Sequence[str],
    ks: Sequence[int],
    parts: Parts | None = None,
) -> pa.Table:
    """`invariance` of one batch: each noun that a picture's caption says before and after shuffling, by lemma.

    Args:
        run: for L and m.
        original: the nouns of the captions and their rankings, by method.
        shuffled: the same of each draw.
        methods: of the rankings.
        ks: how many units are compared.
        parts: of a mixture of experts.
    """
    tables = [TABLES["invariance"].empty_table()]
    said, before = original
    for method in [method for method in methods if method in before]:
        usable = [k for k in ks if k <= before[method].units.shape[1]]
        floors = _other_noun_floors(said, before[method], usable, run.model.n_units)
        for draw, (again, after) in sorted(shuffled.items()):
            pairs = _in_both(said, again)
            if pairs and usable:
                who = [(image_id, noun) for image_id, noun, _ in pairs]
                first = before[method].of(who)
                second = after[method].of([(image_id, noun) for image_id, _, noun in pairs])
                ratio = rankings.shares(first, second, usable, run.model.n_units)
                floor = np.stack([floors[one] for one in who])
                if parts is None:
                    shape = (run.model.n_layers, run.model.d_mlp)
                    floors_random = [
                        names.chance_overlap(k, [method], *shape, run.settings.effect_layers) for k in usable
                    ]
                    chance = np.broadcast_to(np.array(floors_random), ratio.shape)
                else:
                    chance = parts.expected_shares(first, second, usable)
                key = {"kind": names.REGION, "method": method, "draw": draw, "n": 1}
                tables.append(rankings.result_rows(key, who, usable, ratio, floor, chance))
    return pa.concat_tables(tables)


def _in_both(said: Sequence[CaptionNoun], again: Sequence[CaptionNoun]) -> list[tuple[str, str, str]]:
    """Picture, noun before and noun after of each lemma that is in both captions of a picture."""
    after = {(one.image_id, one.lemma): one.noun for one in again}
    both = [one for one in said if (one.image_id, one.lemma) in after]
    return [(one.image_id, one.noun, after[one.image_id, one.lemma]) for one in both]


def _other_noun_floors(
    said: Sequence[CaptionNoun], ranked: Rankings, ks: Sequence[int], n_units: int
) -> dict[tuple[str, str], np.ndarray]:
    """For each noun of a picture the mean over its other nouns of |A ∩ A'| / k; NaN where it has no other."""
    by_image: dict[str, list[tuple[str, str]]] = {}
    for one in said:
        by_image.setdefault(one.image_id, []).append((one.image_id, one.noun))
    pairs = [pair for keys in by_image.values() for pair in itertools.combinations(keys, 2)]
    found: dict[tuple[str, str], list[np.ndarray]] = {key: [] for keys in by_image.values() for key in keys}
    if pairs and ks:
        first, second = (ranked.of(list(side)) for side in zip(*pairs, strict=True))
        for pair, share in zip(pairs, rankings.shares(first, second, ks, n_units), strict=True):
            for key in pair:
                found[key].append(share)
    return {key: _mean_of_there(np.array(shares).reshape(-1, len(ks))) for key, shares in found.items()}


def _mean_of_there(shares: Float[np.ndarray, "n ks"]) -> Float[np.ndarray, " ks"]:
    """Means without what is NaN; NaN where nothing is there."""
    n = (~np.isnan(shares)).sum(axis=0)
    return np.divide(np.nansum(shares, axis=0), n, out=np.full(shares.shape[1], np.nan), where=n > 0)


def _shuffle(asked: _Asked, batch: str, draws: Sequence[int]) -> Iterator[tuple[int, Tables]]:
    """The shard of each draw. As many draws as fit go side by side, those of a single picture all at once.

    What is wrong with pictures is told once, with the first draw.
    """
    examples, images, failures = reopen.open_all(shards.read_shard(asked.scored.path / batch), STAGE)
    failed: Tables = {"failure": failure_table(failures)} if failures else {}
    n_rows = max(asked.settings.batch_size, len(draws))
    at_once = max(1, n_rows // max(1, len(examples)))
    for start in range(0, len(draws), at_once):
        some = draws[start : start + at_once]
        tables = _score_shuffled(asked, examples, images, some) if examples else {}
        failed = joined([failed, {"failure": tables.pop("failure")} if "failure" in tables else {}])
        for draw in some:
            yield draw, _of_variant(tables, names.SHUFFLED + str(draw)) | failed
            failed = {}


def _score_shuffled(
    asked: _Asked, examples: Sequence[Example], images: Sequence[Image.Image], draws: Sequence[int]
) -> Tables:
    """Captions and scores of every picture in every draw, in one batch."""
    model, settings = asked.scored.model, asked.settings
    rows = [(draw, example, image) for draw in draws for example, image in zip(examples, images, strict=True)]
    inputs = model.encode([image for _, _, image in rows], asked.scored.run.prompt)
    variants = [names.SHUFFLED + str(draw) for draw, _, _ in rows]
    shown = [example for _, example, _ in rows]
    seeds = [(settings.seed, example.image_id, variant) for example, variant in zip(shown, variants, strict=True)]
    around = shuffling(model, inputs, seeds)
    with_act = names.reads_act(settings.methods)
    captioned = caption_encoded(model, inputs, settings.max_new_tokens, with_act, around)
    return score_captions(model, captioned, shown, variants, settings)


def shuffling(model: Model, inputs: dict[str, Tensor], seeds: Sequence[tuple[int, str, str]]) -> PassContext:
    """Runs the model on rows of `inputs` with each row's image tokens in the order that its seed gives.

    Args:
        model: whose prompt it is.
        inputs: the prompt of all rows (`Model.encode`).
        seeds: for each row the run's seed, the picture and the variant.
    """
    places = image_positions(model, inputs)
    sources = torch.arange(places.shape[1], device=places.device).repeat(len(places), 1)
    for row, (seed, image_id, variant) in enumerate(seeds):
        at = places[row].nonzero()[:, 0]
        sources[row, at] = at[permutation(seed, image_id, variant, len(at)).to(at.device)]
    return lambda rows: permuted(model, sources[list(rows)])


def permutation(seed: int, image_id: str, variant: str, n_tokens: int) -> Int[Tensor, " n_tokens"]:
    """The order of a picture's tokens in a shuffled variant: place i gets token `permutation[i]`."""
    return uniform_draw(seed, image_id, variant, "", PERMUTATION, n_tokens).argsort(stable=True)


def _of_variant(tables: Tables, variant: str) -> Tables:
    """The rows of one variant; with no caption at all an empty table, so that the shard is there."""
    found = {name: table.filter(pc.equal(table["variant"], variant)) for name, table in tables.items()}
    return {"caption": SCHEMAS["caption"].empty_table()} | found


def _summary(asked: _Asked) -> Region:
    """What the shards of this question hold, of earlier calls, too."""
    run_path = asked.scored.path
    finished = shards.finished_shards(run_path)
    batches = sorted(batch for batch in finished if shard_name(PREFIX, batch, asked.key()) in finished)
    tables = [TABLES["invariance"].empty_table()]
    n_concepts = n_survived = 0
    failed: set[str] = set()
    for batch in batches:
        tables.append(shards.read_shard(run_path / shard_name(PREFIX, batch, asked.key()))["invariance"])
        original = {(one.image_id, one.lemma) for one in rankings.caption_nouns(run_path / batch, names.ORIGINAL)}
        shuffled: set[str] = set()
        for draw in range(asked.n_draws):
            path = asked.draw_path(batch, draw)
            said = rankings.caption_nouns(path, names.SHUFFLED + str(draw))
            n_survived += len(original & {(one.image_id, one.lemma) for one in said})
            shuffled |= set(shards.read_columns(path, "caption", ["image_id"])["image_id"].to_pylist())
            if "failure" in shards.row_counts(path):
                failed |= set(shards.read_columns(path, "failure", ["source"])["source"].to_pylist())
        n_concepts += sum(image_id in shuffled for image_id, _ in original)
    return Region(pa.concat_tables(tables), n_concepts, n_survived / asked.n_draws, len(failed))
