"""How often is every unit active in pictures of a domain, at text and at image tokens, and how important is it there?

    pictures of a run ─► domains (`membership`) ─► halves, so that a choice made on one is seen again on the other
      ─► one pass over each picture's prompt and its own caption, act of every layer taken as it comes
      ─► at how many tokens act(gate) > 0, by domain and token set        `domain_rate`       MMNeuron (2406.11193)
      ─► MINER's five measures of importance for each token set           `modality_score`    MINER (2410.04819)

Nothing of a pass is kept but its counts: L · m whole numbers for each domain, token set and half. Text tokens are those
of the prompt and of the caption that the model wrote, special ones too. MMNeuron counts text and image alike, of
domains that ask questions of their own; MINER reads the prompt alone (CODE). That the caption counts is OURS: one
prompt for all pictures would have no text of its own. Which units are chosen is told by `groups`.

In a mixture of experts a unit is not active at a token that does not go through its expert (OURS): a rate says how
often the router chose the expert and the unit was active there.

Left out: the encoder's and the projector's units, which MMNeuron counts, too; models without image tokens in the
decoder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from torch import Tensor

from mmn import names
from mmn.core import Example, Failure
from mmn.errors import ImageError, UsageError
from mmn.models.image_tokens import require_image_tokens
from mmn.reading.captions import with_captions
from mmn.reading.concepts import GeneratedCaption
from mmn.reading.hooks import require_act
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_captions, stored_concepts
from mmn.scores.expert_gradients import require_units_at_image_tokens
from mmn.scores.rows import Tables
from mmn.studies.domains.measured import HALVES, half_of
from mmn.studies.domains.membership import Asked, find_domains, in_order
from mmn.studies.domains.tally import PictureCounts, Tally, count_picture, image_mask
from mmn.studies.tables import failure_table

STAGE: Final = "domains"


@dataclass(frozen=True)
class _Read:
    """The run's pictures, their captions, and the lemmas that these say."""

    examples: dict[str, Example]
    captions: dict[str, GeneratedCaption]
    said: dict[str, set[str]]


@dataclass(frozen=True)
class _Work:
    """What is measured: the run, its pictures by domain, and whether attention weights are to be had."""

    scored: ScoredRun
    read: _Read
    domains: Mapping[str, Sequence[str]]
    with_attention: bool

    @property
    def pictures(self) -> tuple[str, ...]:
        """All pictures of the domains, each once."""
        every = {one for pictures in self.domains.values() for one in pictures}
        return in_order(every, self.scored.run.settings.seed)


def measure_domains(
    scored: ScoredRun,
    asked: Asked,
    tags: Sequence[str] = (),
    with_attention: bool = True,
    progress: ProgressCallback = lambda _progress: None,
) -> list[str]:
    """Adds tables `domain_rate` and `modality_score` to a run, a shard for each half of the pictures.

    Args:
        scored: the run, with its model.
        asked: what pictures are grouped by, which domains, how many pictures of each.
        tags: of the run, where it is grouped by them.
        with_attention: whether to measure what takes attention weights; where there are none `progress` is told why.
        progress: told after each picture.

    Returns:
        The names of the shards, those of earlier calls included.

    Raises:
        UsageError: no such domain; a model without image tokens, or whose image tokens go through experts of their own,
            or without a module for act(gate); no picture that opens.
    """
    require_image_tokens(scored.model, "mmn domains")
    require_act(scored.model, "mmn domains")
    require_units_at_image_tokens(scored.model, "mmn domains")
    read = _read(scored)
    domains = find_domains(asked, list(read.examples.values()), read.said, tags, scored.run.settings.seed)
    why_not = _why_no_attention(scored, read) if with_attention else ""
    if why_not:
        progress(Progress(STAGE, message=why_not))
    work = _Work(scored, read, domains, with_attention and not why_not)
    plain = asdict(asked) | {"domains": domains, "attention": work.with_attention}
    key = {
        "measured": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8],
        "grouped_by": asked.by,
    }
    return _measure_halves(work, key, plain, progress)


def _measure_halves(work: _Work, key: Mapping[str, Any], plain: Any, progress: ProgressCallback) -> list[str]:
    path, finished = work.scored.path, shards.finished_shards(work.scored.path)
    done = 0

    def tell(n: int = 1) -> None:
        nonlocal done
        done += n
        progress(Progress(STAGE, done, len(work.pictures)))

    found = []
    for half in HALVES:
        pictures = [one for one in work.pictures if half_of(one) == half]
        name = reopen.shard_name(STAGE, f"half-{half}", plain)
        if not pictures:
            continue
        if name in finished:
            tell(len(pictures))
        else:
            shards.write_shard(path, name, _half(work, pictures, {**key, "half": half}, tell))
        found.append(name)
    return found


def _half(work: _Work, pictures: Sequence[str], key: Mapping[str, Any], tell: Callable[[], None]) -> Tables:
    """The shard of one half; `failure` where a picture does not open any more."""
    tally, failures = Tally(work.domains, work.scored.model.anatomy.widths), []
    for image_id in pictures:
        try:
            tally.add(image_id, _count(work, image_id))
        except ImageError as error:
            failures.append(Failure.of(work.read.examples[image_id].source, STAGE, error))
        tell()
    scores = {"modality_score": tally.scores({name: key[name] for name in ("measured", "half")})}
    return {"domain_rate": tally.rates(key), **scores} | ({"failure": failure_table(failures)} if failures else {})


def _count(work: _Work, image_id: str) -> PictureCounts:
    inputs = _inputs(work.scored, work.read, image_id)
    return count_picture(work.scored.model, inputs, image_mask(work.scored.model, inputs), work.with_attention)


def _inputs(scored: ScoredRun, read: _Read, image_id: str) -> dict[str, Tensor]:
    image = reopen.open_again(read.examples[image_id])
    inputs = scored.model.encode([image], scored.run.prompt)
    return with_captions(scored.model, inputs, [read.captions[image_id].token_ids])


def _why_no_attention(scored: ScoredRun, read: _Read) -> str:
    """Why the model has no attention weights, tried on the first picture that opens; "" if it has them."""
    for image_id in read.examples:
        try:
            inputs = _inputs(scored, read, image_id)
        except ImageError:
            continue
        try:
            count_picture(scored.model, inputs, image_mask(scored.model, inputs), with_attention=True)
        except UsageError as error:
            return f"MINER's attn_k and attn_q are not there for {scored.model.facts.name}: {error}"
        return ""
    raise UsageError(f"no picture of run {scored.run.run_id} opens any more; put them back where they were")


def _read(scored: ScoredRun) -> _Read:
    read = _Read({}, {}, {})
    for tables in _batches(scored):
        examples = list(reopen.examples(tables))
        captions = stored_captions(scored.model, tables, examples)
        for example, caption in zip(examples, captions, strict=True):
            read.examples[example.image_id] = example
            read.captions[example.image_id] = caption
        for one in stored_concepts(tables, examples, names.ORIGINAL):
            read.said.setdefault(one.example.image_id, set()).add(one.concept.lemma)
    return read


def _batches(scored: ScoredRun) -> Iterator[Tables]:
    wanted = ("image", "caption", "concept")
    return (shards.read_shard(scored.path / batch, wanted) for batch in reopen.batches(scored))
