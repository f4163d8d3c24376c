"""Can a noun be rewritten into another word by changing a few units? P2's edit (arXiv 2311.07470), and its controls.

    pictures of a scored run, split (`pictures`)
      ─► the units with the highest score for the noun's token t0, mean over the edited pictures
      ─► a change of their columns of W_out, stopped on success or at the cap (`objective`)
      ─► its delta as a file, whole or not at all (`deltas`)
      ─► captions before and after, by role (`report`)      `edit`, `edited_caption`

t0 is what the unedited model says at p(c): the units are chosen for the source, not for the target. FiNE, the same
first author's later method, does so at each position of the target; here it is one position and one token.

One edit is one shard `edit-<edit_id>` of the run; the id is a hash of everything that can change a number, so the same
call again finds it done. The controls are edits of their own: the same on random units, on the top units of another
picture's noun (`pictures.another_noun`), and a rank-one update of one layer; all under the same stop rule and the same
cap. What an edit does to text that is read without a picture is a shard `text-edit-<edit_id>`, which is measured from
the delta's file, of edits that earlier versions made, too (`text`)      `edited_text`

The model is edited only inside `deltas.applied`; its checksum is taken before, during and after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor

from mmn import names
from mmn.core import Neuron
from mmn.counts import counted
from mmn.errors import ImageError, UsageError
from mmn.models import deltas
from mmn.models.deltas import Delta, Part
from mmn.models.model import Model
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.scores.batch import check_methods
from mmn.scores.equations import rank_units, uniform_draw
from mmn.scores.rows import Tables
from mmn.studies.degradation.told import Told
from mmn.studies.editing import objective, text
from mmn.studies.editing.objective import Adam, Aim, Solution
from mmn.studies.editing.pictures import (
    EDITED,
    STAGE,
    OtherNoun,
    Picture,
    Split,
    another_noun,
    open_pictures,
    probs_at_noun,
    split_pictures,
)
from mmn.studies.editing.report import EditedCaption, caption_again, report
from mmn.studies.editing.shares import MEASURES, edit_shares, perplexities
from mmn.studies.editing.sums import sum_up
from mmn.studies.tables import TABLES, failure_table
from mmn.units.matched import matched_units
from mmn.units.sets import UnitSet, fitting, require_awake

P2, RANK_ONE = "p2", "rank-one"  # algorithms
TOP, RANDOM, ANOTHER = "top", "random", names.ANOTHER  # selections of units
CLOSED, STEPPED = "closed", "stepped"  # solvers
PREFIX: Final = "edit"
LIKELIER, LIKELIEST = "likelier", "likeliest"
SUCCESSES: Final[dict[str, Callable[[Tensor, int, int], Tensor]]] = {
    LIKELIER: lambda probs, t0, t1: probs[:, t1] > probs[:, t0],  # P2's
    LIKELIEST: lambda probs, _t0, t1: probs.argmax(1) == t1,  # OURS: greedy decoding writes it there
}  # of each picture, from the probabilities of all tokens at p(c) under the caption's own prefix
EDITING_VERSION: Final = 1  # raise it when the same inputs would give other numbers


@dataclass(frozen=True)
class Wish:
    """What is to be edited into what, and how. Everything that can change a number, besides the run and the seed."""

    noun: str
    target: str
    algorithm: str = P2
    selection: str = TOP
    method: str = names.CONTRIBUTION_FOLDED
    n_units: int = 20
    solver: str = CLOSED
    until: str = LIKELIER  # when a picture is a success
    success: float = 0.9  # share of edited pictures that must be, for the edit to stop growing
    max_norm: float = 2.0  # cap on ‖Δ_i‖ / ‖w_i‖
    adam: Adam = field(default_factory=Adam)
    n_edited: int = 10
    n_unrelated: int = 200
    seed: int = 0
    given: UnitSet | None = None  # edited instead of the noun's own units; `n_units` are as many

    @property
    def plain(self) -> dict[str, Any]:
        """The same as plain values: of a wish without a set as versions without sets had it, so that its id stays."""
        values = asdict(replace(self, given=None))
        del values["given"]
        return values | ({} if self.given is None else {"units": self.given.label})


@dataclass(frozen=True)
class _Editing:
    """One edit under way."""

    scored: ScoredRun
    wish: Wish
    split: Split
    edit_id: str
    other: OtherNoun | None = None  # whose units are edited, of `another`

    @property
    def model(self) -> Model:
        return self.scored.model


def with_controls(wish: Wish) -> tuple[Wish, ...]:
    """The wish and its controls: the same on another picture's noun's units and on random ones, and a rank-one update
    of the top units' layer. Beside a set of units the random ones match it, rank for rank (`units.matched`).
    """
    another = replace(wish, algorithm=P2, selection=ANOTHER, given=None)
    random = replace(wish, algorithm=P2, selection=RANDOM)
    rank_one = replace(wish, algorithm=RANK_ONE, selection=TOP, solver=CLOSED)
    return tuple(dict.fromkeys([wish, another, random, rank_one]))


def edit(
    model: Model,
    run_path: Path,
    edits_path: Path,
    wishes: Sequence[Wish],
    progress: ProgressCallback = lambda _progress: None,
) -> list[str]:
    """Makes and judges edits of a run's model, as shards of the run; returns their ids, also of those there already.

    Args:
        model: the one that the run was scored with; it is unedited again afterwards, whatever happens.
        run_path: the run's folder.
        edits_path: where the deltas are written, `<edit_id>.safetensors`.
        wishes: of the same noun and target. One with another picture's units is left out where no other picture says
            another noun.
        progress: is called in stage `edit`, with the pictures judged over all wishes.

    Raises:
        UsageError: an edit that cannot be made: see `split_pictures`; an unknown method, more units than the model has
            (of experts: than are awake), `stepped` with a rank-one update.
        ImageError: none of the edited pictures opens any more.
        CacheError: no run there, or no space left; finished edits are kept.
    """
    scored = reopen.open_run(model, run_path)
    begun = [_begin(scored, wish) for wish in wishes]
    under_way = [one for one in begun if one.wish.selection != ANOTHER or one.other is not None]
    n_pictures = [sum(map(len, one.split.roles.values())) for one in under_way]
    for number, one in enumerate(under_way):
        done, total = sum(n_pictures[:number]), sum(n_pictures)
        if shard_name(one.edit_id) in shards.finished_shards(run_path) and file_of(edits_path, one.edit_id).exists():
            _read_text(one, edits_path)
            progress(Progress(STAGE, done + n_pictures[number], total, f"edit {one.edit_id} was done before"))
            continue
        progress(Progress(STAGE, done, total, f"{one.wish.algorithm}, {one.wish.selection} units"))
        tables = _carry_out(one, edits_path, _from(done, total, progress))
        shards.write_shard(run_path, shard_name(one.edit_id), tables)
        _read_text(one, edits_path)
    return [one.edit_id for one in under_way]


def shard_name(edit_id: str) -> str:
    """The name of an edit's shard."""
    return f"{PREFIX}-{edit_id}"


def file_of(edits_path: Path, edit_id: str) -> Path:
    """Where an edit's delta lies."""
    return edits_path / f"{edit_id}{deltas.SUFFIX}"


def read_edit(run_path: Path, edit_id: str) -> dict[str, Any]:
    """The row of an edit's shard; `units` and `settings` as plain values, the ends and n of each share's interval
    (`efficacy_low`, `efficacy_high`, `efficacy_n`), and how many pictures did not open.
    """
    tables = shards.read_shard(run_path / shard_name(edit_id))
    (row,) = tables["edit"].to_pylist()
    row |= {name: json.loads(row[name]) for name in ("units", "settings")}
    for share in edit_shares(tables["edited_caption"].to_pandas()).to_dict("records"):
        row |= {f"{MEASURES[share['role']]}_{end}": share[end] for end in ("low", "high", "n")}
    row |= {"perplexity": perplexities(text.read_text_shard(run_path, edit_id))}
    return row | {"n_failed": len(tables["failure"]) if "failure" in tables else 0}


def read_captions_of(run_path: Path, edit_ids: Sequence[str]) -> pd.DataFrame:
    """The rows of `edited_caption` of some edits."""
    tables = (shards.read_shard(run_path / shard_name(one), ("edited_caption",)) for one in edit_ids)
    return pd.concat([one["edited_caption"].to_pandas() for one in tables])


def _from(done: int, total: int, progress: ProgressCallback) -> Callable[[int], None]:
    return lambda n: progress(Progress(STAGE, done + n, total))


def _begin(scored: ScoredRun, wish: Wish) -> _Editing:
    _check(scored.model, wish)
    split = split_pictures(scored, wish.noun, wish.target, wish.n_edited, wish.n_unrelated, wish.seed)
    inputs = {
        "version": EDITING_VERSION,
        "run": scored.run.run_id,
        "wish": wish.plain,
        "pictures": {role: [one.example.image_id for one in pictures] for role, pictures in split.roles.items()},
    }
    other = None
    if wish.selection == ANOTHER:
        other = another_noun(Told.of(scored), split, wish.seed)
        inputs["other"] = asdict(other) if other else None
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return _Editing(scored, wish, split, digest[:12], other)


def _read_text(one: _Editing, edits_path: Path) -> None:
    """The shard of what an edit does to text, unless it is there."""
    delta = deltas.load(file_of(edits_path, one.edit_id))
    text.write_text_shard(one.scored, delta, {one.split.source.lemma, one.split.target.lemma})


def _check(model: Model, wish: Wish) -> None:
    assert wish.algorithm in (P2, RANK_ONE), wish
    assert wish.selection in (TOP, RANDOM, ANOTHER), wish
    assert wish.selection != ANOTHER or wish.algorithm == P2, wish
    assert wish.solver in (CLOSED, STEPPED), wish
    assert wish.until in SUCCESSES, wish
    check_methods([wish.method])
    if wish.method.startswith(names.RANDOM):
        raise UsageError(f"--method {wish.method} selects no units: --selection random edits random ones")
    if wish.algorithm == RANK_ONE and wish.solver == STEPPED:
        raise UsageError("--solver stepped is of --algorithm p2: a rank-one update has a closed form only")
    if wish.given is not None:
        assert wish.n_units == len(wish.given.units), wish
        fitting(wish.given, model.facts)
        require_awake(wish.given, model.anatomy.widths, model.facts)
    if not 1 <= wish.n_units <= model.anatomy.n_awake:
        awake = " awake at a noun" if model.anatomy.mixtures else ""
        raise UsageError(
            f"--units {wish.n_units}: {model.facts.name} has {counted(model.anatomy.n_awake, 'unit')}{awake}"
        )
    if wish.max_norm <= 0 or not 0 < wish.success <= 1:
        raise UsageError(f"--max-norm {wish.max_norm} must be above 0, and --success {wish.success} in (0, 1]")


def _carry_out(one: _Editing, edits_path: Path, progress: Callable[[int], None]) -> Tables:
    """The shard of one edit. Its delta's file is written first: a row never names a file that is not there."""
    model, wish = one.model, one.wish
    before = deltas.checksum(model)
    pictures, images, failures = open_pictures(one.split.roles[EDITED], one.edit_id)
    if not pictures:
        raise ImageError(f"none of the pictures to edit on opens any more ({failures[0].message})")
    aim, selected = _aim(one, pictures, images)
    solution = _solve(one, aim, selected, pictures, images)
    delta = Delta(solution.parts, one.edit_id, wish.noun, wish.target, wish.algorithm, model.facts.fingerprint)
    deltas.save(delta, file_of(edits_path, one.edit_id))
    with deltas.applied(model, delta):
        edited = deltas.checksum(model)
    captions, failures = caption_again(one.scored, one.split, delta, progress)
    after = deltas.checksum(model)
    assert before == after, f"the weights are not what they were: {before} before, {after} after the edit"
    checksums = {"checksum_before": before, "checksum_edited": edited, "checksum_after_undo": after}
    row = _row(one, delta, _settings(one, solution, selected, captions) | checksums) | report(captions)
    tables = {
        "edit": pa.Table.from_pylist([row], schema=TABLES["edit"]),
        "edited_caption": pa.Table.from_pylist(list(map(asdict, captions)), schema=TABLES["edited_caption"]),
    }
    return tables | ({"failure": failure_table(failures)} if failures else {})


def _aim(one: _Editing, pictures: Sequence[Picture], images: Sequence[Image.Image]) -> tuple[Aim, tuple[Neuron, ...]]:
    """The activations at p(c) of the edited pictures, the direction between the two words, and the selected units."""
    model, wish = one.model, one.wish
    examples = [picture.example for picture in pictures]
    summed = sum_up(one.scored, wish.method, one.split.tables, examples, images)
    source, target = model.anatomy.w_u(torch.tensor(one.split.token_ids, device=model.device))
    total = summed.score
    if one.other is not None:
        total = _total_of_another(one, one.other)
    if wish.selection == RANDOM:
        draw = uniform_draw(wish.seed, "", names.ORIGINAL, one.split.source.lemma, names.RANDOM, total.numel())
        total = draw.to(total).view_as(total).where(summed.is_awake, -torch.inf)
    flat = rank_units(total[None], wish.n_units).unit[0].tolist()
    units = tuple(Neuron(*divmod(unit, model.facts.d_mlp)) for unit in flat)
    return Aim(summed.a, target - source), units if wish.given is None else _of_set(one, wish.given)


def _of_set(one: _Editing, given: UnitSet) -> tuple[Neuron, ...]:
    """The set's units, or of the random control others that match them."""
    if one.wish.selection != RANDOM:
        return given.units
    key = [str(one.wish.seed), one.split.source.lemma, given.label]
    return matched_units(one.model.anatomy, given.units, key)


def _total_of_another(one: _Editing, other: OtherNoun) -> Tensor:
    """Every unit's score for another picture's noun, summed over as many of its pictures as are edited."""
    told = Told.of(one.scored).of_pictures(other.image_ids)
    tables = told | {"concept": told["concept"].filter(pc.equal(told["concept"]["lemma"], other.lemma))}
    there, images, _ = reopen.open_all(tables, STAGE)
    if not there:
        raise ImageError(f"none of the pictures of {other.lemma!r}, whose units are the control, opens any more")
    return sum_up(one.scored, one.wish.method, tables, there, images).score


def _solve(
    one: _Editing, aim: Aim, units: Sequence[Neuron], pictures: Sequence[Picture], images: Sequence[Image.Image]
) -> Solution:
    model, wish = one.model, one.wish

    def is_success() -> bool:
        probs = probs_at_noun(model, one.scored.run.prompt, pictures, images)
        return float(SUCCESSES[wish.until](probs, *one.split.token_ids).float().mean()) >= wish.success

    if wish.algorithm == RANK_ONE:
        direction: Sequence[Part] = objective.rank_one_direction(model.anatomy, aim, objective.usual_layer(units))
        return objective.grow(model, direction, wish.max_norm, is_success)
    if wish.solver == STEPPED:
        return objective.descend(model, aim, units, wish.adam, wish.max_norm, is_success)
    direction = objective.p2_direction(model.anatomy, aim, units)
    return objective.grow(model, direction, wish.max_norm, is_success)


def _settings(
    one: _Editing, solution: Solution, units: Sequence[Neuron], captions: Sequence[EditedCaption]
) -> dict[str, Any]:
    """What else shaped the edit, and what it came to."""
    anatomy, split = one.model.anatomy, one.split
    delta_norm, weight_norm = deltas.frobenius_norms(anatomy, solution.parts)
    counts = {f"n_{role}": sum(row.role == role for row in captions) for role in split.roles}
    of_another = {"other_noun": one.other.lemma, "other_image_ids": list(one.other.image_ids)} if one.other else {}
    return one.wish.plain | {
        **counts,
        **of_another,
        "n_left_out": split.n_left_out,
        "tokens": list(split.token_ids),
        "is_multi_token": [split.source.is_multi_token, split.target.is_multi_token],
        "stopped_by": solution.stop,
        "n_tries": solution.n_tries,
        "delta_norm": delta_norm,
        "weight_norm": weight_norm,
        "layer": objective.usual_layer(units),
    }


def _row(one: _Editing, delta: Delta, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The row of `edit`, without what the captions say."""
    wish, d_mlp = one.wish, one.model.facts.d_mlp
    touched = [
        [part.layer, unit]
        for part in delta.parts
        for unit in (part.units if isinstance(part, deltas.Columns) else range(d_mlp))
    ]
    method = wish.method if wish.given is None else wish.given.label
    method = names.RANDOM if wish.selection == RANDOM else method
    return {
        "edit_id": one.edit_id,
        "created_at": datetime.now(UTC).replace(tzinfo=None),
        "algorithm": wish.algorithm,
        "selection": wish.selection,
        "method": None if wish.algorithm == RANK_ONE else method,
        "noun": wish.noun,
        "target": wish.target,
        "units": json.dumps(touched),
        "settings": json.dumps(settings, ensure_ascii=False),
        "fingerprint_before": delta.fingerprint_before,
        "fingerprint_after": delta.fingerprint_after,
        "relative_norm": deltas.relative_norm(one.model.anatomy, delta.parts),
    }
