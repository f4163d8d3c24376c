"""Is what a noun's units take away the noun's own, or damage to anything? Two controls of what was measured.

    another       the first units of another picture's noun (`told`), by the same score, the same k, σ and draws
                                                                                        `effect`, `noun_share`
    text          the perplexity of text that is read without a picture, under the same interventions
                                                                                        `perplexity`

Both are measured for the interventions that `measure` has written, from its shards: those of earlier versions, too,
which had neither, nor the noun's share among nouns, which is then added. Of a shard that has its controls nothing is
measured again. OURS; P1 and P2 have random units alone.

Text is read for a few pictures (`n_texts`), for the first noun of each and the first draw, since reading it takes
longer than the picture: plain English, and captions of the run that say neither the noun nor the one whose units are
`another`. What is done at image tokens alone leaves text as it is, and is not measured there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
from PIL import Image

from mmn import names
from mmn.core import Example
from mmn.errors import ImageError
from mmn.metrics import TextMetric
from mmn.models.model import Model
from mmn.reading.plain_text import Text, nats, plain_texts, prompt_without_picture
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import reread, stored_captions, stored_concepts
from mmn.scores.equations import rank_units
from mmn.scores.methods import Measured as Scores
from mmn.scores.methods import Scored
from mmn.scores.rows import Tables
from mmn.studies.degradation.given_sets import set_of
from mmn.studies.degradation.measure import STAGE, InterventionPlan, choices_of, rows_of
from mmn.studies.degradation.pictures import Measured, Measuring, effect_table, share_table
from mmn.studies.degradation.selections import Choice, Interpretable, Row
from mmn.studies.degradation.told import N_CAPTIONS, Told
from mmn.studies.tables import TABLES
from mmn.units.sets import UnitSet

CONTROLS_VERSION: Final = 1  # raise it when the same inputs would give other numbers
N_TEXTS: Final = 8  # pictures for whose units text is read, unless more are wanted
READ: Final = (names.TOP, names.ANOTHER, names.RANDOM, names.RANDOM_PICTURE)  # selections that text is read under


def measured_before(run_path: Path, kind: str) -> list[str]:
    """The shards of interventions of one kind that a run has, whatever was asked for."""
    finished = sorted(shards.finished_shards(run_path))
    return [name for name in finished if name.startswith(f"{STAGE}-{kind}-")]


def measure_controls(
    model: Model,
    run_path: Path,
    measured: Sequence[str],
    metric: TextMetric | None = None,
    progress: ProgressCallback = lambda _progress: None,
    n_texts: int = N_TEXTS,
) -> list[str]:
    """Measures the controls of interventions, as further shards of the run.

    Args:
        model: the one that the run was scored with.
        run_path: the run's folder.
        measured: shards that `measure.degrade` wrote, in its order.
        metric: compares captions, where those shards have captions; without it no captions are written.
        progress: is called with the number of pictures done.
        n_texts: of how many pictures, the first ones, text is read under their units; 0 for none.

    Returns:
        The names of the shards that hold the controls, those that earlier calls wrote included.

    Raises:
        UsageError: another model than the run's.
        CacheError: no run there, a broken shard, or no space left; what was finished is kept.
    """
    scored = reopen.open_run(model, run_path)
    controlling = _Controlling(scored, Told.of(scored), Interpretable.of(scored), metric)
    done: list[str] = []
    finished = shards.finished_shards(run_path)
    progress(Progress(STAGE, 0, len(measured), "controls"))
    with_text = _first_pictures(run_path, measured, n_texts)
    for number, name in enumerate(measured, start=1):
        for control, answer, asked in controlling.parts(name, with_text[name]):
            shard = reopen.shard_name(control, name, asked)
            if shard not in finished and (tables := answer()):
                shards.write_shard(run_path, shard, tables)
                done.append(shard)
            elif shard in finished:
                done.append(shard)
        progress(Progress(STAGE, number, len(measured), "controls"))
    return done


def plan_of(effects: pd.DataFrame, given: UnitSet | None = None) -> InterventionPlan:
    """What was measured in a shard, from its rows of `effect`, and the set of units that it was done to, if any."""
    (kind,), (positions,) = effects["kind"].unique(), effects["positions"].unique()
    units = list(effects["sigma_unit"].dropna().unique())
    return InterventionPlan(
        kind=kind,
        methods=tuple(effects["method"].unique()),
        ks=tuple(sorted(int(k) for k in effects["k"].unique())),
        selections=tuple(one for one in names.CHOSEN_SELECTIONS if one in set(effects["selection"])),
        n_draws=int(effects["draw"].max()) + 1,
        sigmas=tuple(sorted(float(one) for one in effects["sigma"].dropna().unique())),
        sigma_unit=units[0] if units else None,
        positions=positions,
        factors=tuple(sorted(float(one) for one in effects["factor"].dropna().unique())),
        given=given,
    )


@dataclass(frozen=True)
class _Controlling:
    """A run whose controls are measured."""

    scored: ScoredRun
    told: Told
    interpretable: Interpretable
    metric: TextMetric | None

    def parts(self, name: str, with_text: Sequence[str]) -> Iterator[tuple[str, Callable[[], Tables], list[object]]]:
        """The controls of one shard: what each is called, what measures it, and all that can change its numbers."""
        tables = shards.read_shard(self.scored.path / name)
        if "effect" not in tables or not len(tables["effect"]):
            return
        effects = tables["effect"].to_pandas()
        has_captions = bool(effects["caption"].notna().any()) and self.metric is not None
        given = set_of(tables["unit_set"]) if "unit_set" in tables else None
        plan = plan_of(effects, given)
        always = [CONTROLS_VERSION, self.told.digest]
        metric = self.metric.name if has_captions and self.metric is not None else None
        yield names.ANOTHER, lambda: self._another(effects, plan, "noun_share" in tables, metric), [*always, metric]
        if with_text and (effects["positions"] == names.EVERYWHERE).all():
            yield "text", lambda: self._text(plan, with_text), [*always, list(with_text), N_CAPTIONS]

    def _another(self, effects: pd.DataFrame, plan: InterventionPlan, has_shares: bool, metric: str | None) -> Tables:
        """Rows of another picture's units; of the own ones the noun's share, where the shard has none."""
        measuring = Measuring(self.scored, plan, self.metric if metric else None, self.told.token_ids)
        rows: list[Measured] = []
        shares: list[Measured] = []
        for picture in self._pictures(effects["image_id"].unique()):
            others = picture.others(plan)
            rows += measuring.measure(picture.image, picture.caption, list(rows_of(plan, others)))
            if not has_shares:
                own = list(rows_of(plan, picture.own(plan)))
                shares += replace(measuring, metric=None).measure(picture.image, picture.caption, own)
        found = {"noun_share": share_table([*shares, *rows], len(measuring.nouns))}
        return found | ({"effect": effect_table(rows)} if rows else {}) if len(found["noun_share"]) else {}

    def _text(self, plan: InterventionPlan, with_text: Sequence[str]) -> Tables:
        """Rows of `perplexity` for some of a shard's pictures."""
        plan = replace(plan, n_draws=1)
        plan = replace(plan, selections=tuple(one for one in plan.selections if one in READ))
        measuring = Measuring(self.scored, plan, None, self.told.token_ids)
        rows: list[dict[str, Any]] = []
        for picture in self._pictures(with_text):
            choices = [*picture.own(plan), *picture.others(plan)]
            first = min((one.said.concept.position for one in choices), default=None)
            choices = [one for one in choices if one.said.concept.position == first]
            texts = self._texts(choices)
            for text, some in texts.items():
                rows += _under(measuring, list(rows_of(plan, choices)), text, some)
        return {"perplexity": pa.Table.from_pylist(rows, schema=TABLES["perplexity"])} if rows else {}

    def _texts(self, choices: Sequence[Choice]) -> Mapping[str, Sequence[Text]]:
        """What is read: plain English, and captions that say none of the nouns whose units are changed."""
        model, run = self.scored.model, self.scored.run
        lemmas = {one.said.concept.lemma for one in choices} | {self._lemma(one) for one in choices if one.other}
        prefix = prompt_without_picture(model, run.prompt)
        captions = self.told.captions_without(lemmas, N_CAPTIONS, run.settings.seed, prefix)
        texts = {names.PLAIN_TEXT: plain_texts(model), names.CAPTIONS_TEXT: captions}
        return {name: some for name, some in texts.items() if some and choices}

    def _lemma(self, choice: Choice) -> str:
        assert choice.other is not None, choice
        image_id, noun = choice.other
        return next(one.lemma for one in self.told.nouns[image_id] if one.noun == noun)

    def _pictures(self, image_ids: Sequence[str]) -> Iterator[_Picture]:
        """Those that still open, in order; what does not is a failure of the shard that it is a control of."""
        tables = self.told.of_pictures(image_ids)
        there, images, _ = reopen.open_all(tables, STAGE)
        captions = stored_captions(self.scored.model, tables, there)
        for example, image, caption in zip(there, images, captions, strict=True):
            yield _Picture(self, example, image, caption, self.told.of_pictures([example.image_id]))


@dataclass(frozen=True)
class _Picture:
    """One picture of a shard, opened again."""

    of: _Controlling
    example: Example
    image: Image.Image
    caption: Any
    tables: Tables

    def own(self, plan: InterventionPlan) -> list[Choice]:
        """The units that were changed."""
        scored, interpretable = self.of.scored, self.of.interpretable
        (found,) = choices_of(scored, plan, interpretable, self.tables, [self.example], [self.image])
        return found

    def others(self, plan: InterventionPlan) -> list[Choice]:
        """The first units of another picture's noun, for each noun and score; none where no picture says another."""
        told, seed = self.of.told, self.of.scored.run.settings.seed
        opened = self._open_another(seed)
        if opened is None:
            return []
        example, image = opened
        units = _top_units(self.of.scored, told, example, image, plan)
        n_draws = plan.n_draws if plan.kind == names.PERTURB else 1
        return [
            Choice(said, names.ANOTHER, method, draw, units[other.noun, method], (other.image_id, other.noun))
            for said in stored_concepts(self.tables, [self.example])
            for other in [told.another(self.example.image_id, example.image_id, said.concept.lemma, seed)]
            for method in plan.methods
            for draw in range(n_draws)
        ]

    def _open_another(self, seed: int) -> tuple[Example, Image.Image] | None:
        """The first of the drawn pictures that still opens."""
        for image_id in self.of.told.others(self.example.image_id, seed):
            (example,) = reopen.examples(self.of.told.of_pictures([image_id]))
            try:
                return example, reopen.open_again(example)
            except ImageError:  # its own row of `failure` is scoring's and measuring's to write
                continue
        return None


def _top_units(
    scored: ScoredRun, told: Told, example: Example, image: Image.Image, plan: InterventionPlan
) -> dict[tuple[str, str], Any]:
    """The first units of each noun of a picture by each score, best first, as flat indices; beside a set of units those
    by the run's usual score, as many as the set has.
    """
    tables = told.of_pictures([example.image_id])
    methods = plan.methods if plan.given is None else [names.default_method(scored.run.settings.methods)]
    found: dict[tuple[str, str], Any] = {}
    for measured, by_method in reread(scored, tables, [example], [image], methods):
        for one, of_method in by_method.items():
            method = one if plan.given is None else plan.given.label
            units = _ranked(measured, of_method, plan.ks[-1])
            found |= {(said.concept.noun, method): units[at] for at, said in enumerate(measured.said)}
    return found


def _ranked(measured: Scores, scored: Scored, n_most: int) -> Any:
    places = rank_units(scored.score, n_most, is_unit=scored.is_ranked).unit
    return scored.flat(places, measured.model.facts.d_mlp)[:, :n_most].clone()


def _under(measuring: Measuring, rows: Sequence[Row], text: str, texts: Sequence[Text]) -> list[dict[str, Any]]:
    """The nats of a text under each row; the untouched model reads it once."""
    n_tokens = sum(one.n_judged for one in texts)
    untouched: float | None = None
    found = []
    for row in rows:
        if row.k or untouched is None:
            surprise = nats(measuring.scored.model, texts, partial(_around, measuring, row))
            untouched = surprise if not row.k else untouched
        else:
            surprise = untouched
        key = {name: value for name, value in measuring.key(row).items() if not name.startswith("other_")}
        found.append(key | {"text": text, "n_tokens": n_tokens, "nats": surprise / n_tokens})
    return found


def _around(measuring: Measuring, row: Row, n_rows: int) -> AbstractContextManager[None, bool | None]:
    return measuring.intervene([row] * n_rows)


def _first_pictures(run_path: Path, measured: Sequence[str], n_texts: int) -> dict[str, list[str]]:
    """By shard, those of its pictures that are among the first `n_texts` of all."""
    found: dict[str, list[str]] = {}
    seen: list[str] = []
    for name in measured:
        tables = shards.read_shard(run_path / name, ("effect",))
        here = list(tables["effect"].to_pandas()["image_id"].unique()) if "effect" in tables else []
        seen += [one for one in here if one not in seen]
        found[name] = [one for one in here if one in seen[:n_texts]]
    return found
