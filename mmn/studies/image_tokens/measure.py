"""Which image tokens does a noun of a caption need, and by which attention do they reach it? (Neo et al. 2025)

    a scored run ─► each picture's caption again, under its own tokens
      ─► `token_loss`  sets of its image tokens replaced by the mean image token          (`replacing`)
      ─► `knockout`    attention blocked from sets of them, in windows of layers           (`blocking`)
      both beside random tokens of the picture, as many

Neo et al. (arXiv 2410.07149) ask a question whose answer is one small object; here every noun of the model's own
caption is asked about, and its object is what the masks of the run's pictures say (`mmn annotate --masks`). A noun
without an outline has no rows that need one.

Every few pictures become one shard. Rows bear the number of the question that they answer (`revision`): other settings,
or other masks, are asked anew, and what is shown of a picture is its newest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmn.core import Example, Failure
from mmn.errors import ImageError, MmnError, SourceError, UsageError
from mmn.models.geometry import image_grid
from mmn.models.image_tokens import require_image_tokens
from mmn.runs import reopen, shards
from mmn.runs.added_later import mask_specs, open_run_masks, run_examples, run_synonyms
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_captions, stored_concepts
from mmn.scores.rows import Tables
from mmn.studies.image_tokens.blocking import cut_attention
from mmn.studies.image_tokens.pictures import N_MEAN, STAGE, Picture, mean_image_token, open_picture
from mmn.studies.image_tokens.proof import require_blockable, require_replaceable
from mmn.studies.image_tokens.replacing import replace_tokens
from mmn.studies.tables import TABLES, failure_table
from mmn.units.masks import MaskSource, first_of

REPLACE, KNOCKOUT = "replace", "knockout"
KINDS: Final = {REPLACE: "token_loss", KNOCKOUT: "knockout"}  # the table of each
PICTURES_OF_A_SHARD: Final = 4
GREY: Final = (128, 128, 128)

Measure = Callable[[Picture], list[dict[str, Any]]]


@dataclass(frozen=True)
class Abilities:
    """What this run can be asked: whether image tokens have places and objects have outlines, and why not."""

    masks: MaskSource
    why_no_grid: str
    why_no_masks: str

    @property
    def why_no_objects(self) -> str:
        return self.why_no_grid or self.why_no_masks


def measure_image_tokens(
    scored: ScoredRun,
    kinds: Sequence[str] = tuple(KINDS),
    n_draws: int = 3,
    n_steps: int = 50,
    progress: ProgressCallback = lambda _progress: None,
    limit: int | None = None,
) -> list[str]:
    """Adds `token_loss` and `knockout` of a run's pictures as shards of the run; the same call does what is missing.

    Args:
        scored: the run and its model.
        kinds: of `KINDS`.
        n_draws: random sets beside every set that is replaced; a knockout has one.
        n_steps: of integrated gradients.
        progress: told after each picture, and of what cannot be asked.
        limit: exactly the first so many pictures.

    Returns:
        The names of the shards, those of earlier calls included.

    Raises:
        UsageError: a family without image tokens in its prompt, or one in which replacing them or blocking attention
            would not do what is said of it.
    """
    require_image_tokens(scored.model)
    image = _first_picture(scored)
    able = _abilities(scored, image)
    if able.why_no_objects:
        progress(Progress(STAGE, message=f"without the object's tokens: {able.why_no_objects}"))
    progress(Progress(STAGE, message=f"the mean image token of up to {N_MEAN} pictures"))
    mean = mean_image_token(scored)
    measures = _measures(scored, kinds, image, mean, n_draws, n_steps)
    return [
        name
        for kind, measure in measures.items()
        for name in _measure(scored, kind, _asked(scored, able, kind, n_draws, n_steps), able, measure, progress, limit)
    ]


def _first_picture(scored: ScoredRun) -> Image.Image:
    for batch in reopen.batches(scored):
        _, images, _ = reopen.open_all(shards.read_shard(scored.path / batch, ("image",)), STAGE)
        if images:
            return images[0]
    raise UsageError(f"no picture of run {scored.run.run_id} opens any more; put them back where they were")


def _abilities(scored: ScoredRun, image: Image.Image) -> Abilities:
    examples, synonyms = run_examples(scored.path), run_synonyms(scored.path)
    sources, why_no_masks = open_run_masks(mask_specs(scored.path), scored.run, examples, synonyms)
    masks = first_of(sources)
    if not why_no_masks and not masks.known:
        why_no_masks = f"{masks.spec} outlines nothing in the run's pictures"
    try:
        image_grid(scored.model, scored.model.encode([image], scored.run.prompt), image.size)
    except UsageError as error:
        return Abilities(masks, str(error), why_no_masks)
    return Abilities(masks, "", why_no_masks)


def _measures(
    scored: ScoredRun,
    kinds: Sequence[str],
    image: Image.Image,
    mean: Float[Tensor, " d"],
    n_draws: int,
    n_steps: int,
) -> dict[str, Measure]:
    """What measures a picture, by kind; each kind proved on the run's first picture (raises `UsageError`)."""
    model, prompt = scored.model, scored.run.prompt
    found: dict[str, Measure] = {}
    inputs = model.encode([image], prompt)
    require_replaceable(model, inputs, model.encode([Image.new("RGB", image.size, GREY)], prompt), mean)
    if REPLACE in kinds:
        found[REPLACE] = lambda picture: replace_tokens(scored, picture, mean, n_draws, n_steps)
    if KNOCKOUT in kinds:
        require_blockable(model, inputs, mean)
        found[KNOCKOUT] = lambda picture: cut_attention(scored, picture)
    return found


def _asked(scored: ScoredRun, able: Abilities, kind: str, n_draws: int, n_steps: int) -> dict[str, Any]:
    """All that can change an answer."""
    known: list[Any] = [able.masks.version(one) for one in run_examples(scored.path)] if able.masks.known else []
    known += able.masks.by_synonyms(_nouns(scored)) if known else []
    of_kind = {"draws": n_draws, "steps": n_steps, "mean": N_MEAN} if kind == REPLACE else {"draws": 1}
    return {"masks": _digest(known), "grid": not able.why_no_grid} | of_kind


def _nouns(scored: ScoredRun) -> set[str]:
    """All nouns of a run."""
    found = (shards.read_columns(scored.path / batch, "concept", ["noun"]) for batch in reopen.batches(scored))
    return {noun for rows in found for noun in rows["noun"].to_pylist()}


def _measure(
    scored: ScoredRun,
    kind: str,
    asked: dict[str, Any],
    able: Abilities,
    measure: Measure,
    progress: ProgressCallback,
    limit: int | None,
) -> list[str]:
    """The shards of one kind."""
    prefix = f"{STAGE}-{kind}"
    question = _digest(asked)
    key = {"question": question, "revision": _revision(scored, prefix, KINDS[kind], question)}

    def answer(tables: Tables, tell: Callable[[], None]) -> Tables:
        rows, failures = _answer(scored, able, measure, tables, tell)
        table = pa.Table.from_pylist([key | row for row in rows], schema=TABLES[KINDS[kind]])
        return {KINDS[kind]: table} | ({"failure": failure_table(failures)} if failures else {})

    return reopen.for_each_part(scored, prefix, asked, answer, progress, STAGE, limit, PICTURES_OF_A_SHARD)


def _revision(scored: ScoredRun, prefix: str, table: str, question: str) -> int:
    """The number of this question among those of earlier calls, from 0; a new one has the next."""
    known: dict[str, int] = {}
    for name in shards.finished_shards(scored.path):
        if name.startswith(prefix):
            rows = shards.read_columns(scored.path / name, table, ["question", "revision"])
            known |= dict(zip(rows["question"].to_pylist(), rows["revision"].to_pylist(), strict=True))
    return known.get(question, 1 + max(known.values(), default=-1))


def _answer(
    scored: ScoredRun, able: Abilities, measure: Measure, tables: Tables, tell: Callable[[], None]
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """The rows of a few pictures, and what is wrong with those that have none."""
    examples, images, told = reopen.open_all(tables, STAGE)
    failures = list(told)
    for _ in told:
        tell()
    captions = stored_captions(scored.model, tables, examples)
    said = stored_concepts(tables, examples)
    rows: list[dict[str, Any]] = []
    for number, (example, image) in enumerate(zip(examples, images, strict=True)):
        concepts = [one.concept for one in said if one.row == number]
        try:
            if concepts:
                outlines = able.masks.outlines(example).masks if not able.why_no_objects else {}
                for one in concepts:
                    outlines |= able.masks.masks_for(one.noun, outlines)
                has_grid = not able.why_no_grid
                rows += measure(
                    open_picture(scored, example, image, captions[number].token_ids, concepts, outlines, has_grid)
                )
        except (ImageError, SourceError, UsageError) as error:
            failures.append(_failure(example, error))
        tell()
    return rows, failures


def _failure(example: Example, error: MmnError) -> Failure:
    return Failure.of(example.source, STAGE, error)


def _digest(plain: object) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def count_failed(scored: ScoredRun, names: Sequence[str]) -> int:
    """How many pictures failed in some shards."""
    failed: set[str] = set()
    for name in names:
        if "failure" in shards.row_counts(scored.path / name):
            failed |= set(shards.read_columns(scored.path / name, "failure", ["source"])["source"].to_pylist())
    return len(failed)
