"""An edit of a scored run: what the objective promises, what is written, the controls, and how it is undone."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mmn import names
from mmn.cli import main
from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.images import open_image
from mmn.models import deltas
from mmn.models.checkpoints import fingerprint
from mmn.models.model import Model
from mmn.reading.captions import caption_batch, read_captions
from mmn.reading.hooks import FINAL, ONCE
from mmn.reading.nouns import lemma_of
from mmn.runs import reopen
from mmn.runs.plan import Progress
from mmn.scores.equations import folded_rows
from mmn.store import Store
from mmn.studies.editing import measure
from mmn.studies.editing import objective as objective
from mmn.studies.editing.measure import Wish, edit, read_edit, with_controls
from mmn.studies.editing.objective import Adam, Aim
from mmn.studies.editing.pictures import (
    EDITED,
    OTHER,
    UNRELATED,
    Split,
    open_pictures,
    probs_at_noun,
    says,
    split_pictures,
)
from mmn.studies.editing.report import entropy
from tests.scored import run_path_of

SCORING = ["--methods", "contribution-folded", "--top-k", 12, "--max-new-tokens", 8, "--batch-size", 8]
NOUN, TARGET = "bottle", "cow"  # what the tiny model's random captions often say
QUICK = Wish(NOUN, TARGET, n_units=6, max_norm=0.1, n_edited=3, n_unrelated=4)


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--progress", "none", "--device", "cpu"]


@pytest.fixture(scope="module")
def scored(pictures: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of 16 pictures. Read only."""
    cache = tmp_path_factory.mktemp("scored") / "cache"
    assert main(words("score", "--model", checkpoint, "--images", pictures, "--cache", cache, *SCORING)) == 0
    return cache


def split_of(cache: Path, model: Model, noun: str = NOUN, target: str = TARGET, seed: int = 0) -> Split:
    return split_pictures(reopen.open_run(model, run_path_of(cache)), noun, target, 3, 4, seed)


def table(cache: Path, name: str) -> pd.DataFrame:
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        return store.table("latest", name)


@pytest.fixture(scope="module")
def aim(tiny: Model) -> Aim:
    generator = torch.Generator().manual_seed(0)
    facts = tiny.facts
    a = torch.randn(4, facts.n_layers, facts.d_mlp, generator=generator)
    rows = tiny.anatomy.w_u(torch.tensor([7, 30]))
    return Aim(a, rows[1] - rows[0])


UNITS = (Neuron(2, 5), Neuron(0, 3), Neuron(2, 0), Neuron(1, 40))


# ---- the objective


def test_the_closed_form_lowers_the_loss_by_what_it_promises_and_most_of_all(tiny: Model, aim: Aim) -> None:
    anatomy = tiny.anatomy
    direction = objective.p2_direction(anatomy, aim, UNITS)
    lengths = {one: float(anatomy.w_out(one.layer)[:, one.unit].norm()) for one in UNITS}
    assert all(torch.allclose(deltas.column_norms(anatomy, part), torch.ones(len(part.units))) for part in direction)

    def loss(parts: Any) -> float:
        return float(objective.p2_loss(anatomy, aim, parts, beta=0.0))

    at_zero = loss([part.times(0.0) for part in direction])
    promised = sum(abs(float(aim.strength(one.layer)[one.unit])) * lengths[one] for one in UNITS)
    promised *= 0.3 * float(aim.towards.norm())
    assert at_zero - loss([part.times(0.3) for part in direction]) == pytest.approx(promised, rel=1e-4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        other = [replace(part, values=torch.randn(part.values.shape, generator=generator)) for part in direction]
        same = [replace(part, values=part.values / deltas.column_norms(anatomy, part) * 0.3) for part in other]
        assert at_zero - loss(same) < promised


def test_the_penalty_is_the_norm_of_all_columns(tiny: Model, aim: Aim) -> None:
    parts = objective.p2_direction(tiny.anatomy, aim, UNITS)
    norm = math.sqrt(sum(float(part.values.square().sum()) for part in parts))
    plain, penalised = (float(objective.p2_loss(tiny.anatomy, aim, parts, beta)) for beta in (0.0, 2.5))
    assert penalised - plain == pytest.approx(2.5 * norm, rel=1e-4)


def test_a_unit_of_the_last_layer_moves_the_logits_by_exactly_what_is_predicted(tiny: Model, pictures: Path) -> None:
    """Before the final norm the change is a · Δ; behind it, W_U·γ of the new residual over its new rms."""
    image = open_image(sorted(pictures.iterdir())[0])
    prompt = tiny.exact_prompt(tiny.default_prompt)
    plain = caption_batch(tiny, [image], prompt, 4)
    step, row = torch.tensor([2]), torch.tensor([0])
    layer = tiny.anatomy.n_layers - 1
    a = plain.captured.read_layers("activation", row, step)
    unit = int(a[0, layer].abs().argmax())
    tokens = torch.tensor([7, 30])
    rows = tiny.anatomy.w_u(tokens)
    aim = Aim(a, rows[1] - rows[0])
    parts = [part.times(0.5) for part in objective.p2_direction(tiny.anatomy, aim, [Neuron(layer, unit)])]
    with deltas.added(tiny, parts):
        edited = read_captions(tiny, [image], prompt, plain.captions)
    before, after = (one.captured.read(FINAL, ONCE, row, step)[0] for one in (plain, edited))
    predicted = before + a[0, layer, unit] * parts[0].change[:, 0]
    assert torch.allclose(after, predicted, atol=1e-3 * float(before.abs().max()))
    folded = folded_rows(tiny.anatomy, rows, predicted.expand(2, -1))
    logits = edited.logits_at(row, step)[0, tokens]
    assert torch.allclose(folded @ predicted, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))
    gained = (logits[1] - logits[0]) - plain.logits_at(row, step)[0, tokens].diff()[0]
    assert gained > 0


def test_the_rank_one_control_writes_the_wished_vector_for_the_mean_activation(tiny: Model, aim: Aim) -> None:
    (part,) = objective.rank_one_direction(tiny.anatomy, aim, 1)
    assert isinstance(part, deltas.RankOne)
    written = part.change @ aim.a[:, 1].mean(0)
    cosine = torch.nn.functional.cosine_similarity(written, aim.towards, dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-5)
    assert deltas.relative_norm(tiny.anatomy, [part]) == pytest.approx(1.0)
    assert torch.linalg.matrix_rank(part.change) == 1
    along = torch.nn.functional.cosine_similarity(part.v, aim.a[:, 1].mean(0), dim=0)
    assert float(along) == pytest.approx(1.0, abs=1e-5)  # of all that write it, the smallest


def test_growing_stops_at_the_first_success_and_never_beyond_the_cap(tiny: Model, aim: Aim) -> None:
    direction = objective.p2_direction(tiny.anatomy, aim, UNITS)
    before, sizes = tiny.anatomy.w_out(2)[:, 5].clone(), list[float]()

    def is_success() -> bool:
        sizes.append(float((tiny.anatomy.w_out(2)[:, 5] - before).norm() / before.norm()))
        return sizes[-1] > 0.5

    found = objective.grow(tiny, direction, 3.0, is_success)
    assert found.stop == objective.SUCCESS
    assert sizes == sorted(sizes)
    assert 0.5 < sizes[-1] <= 0.5 * objective.GROWTH + 1e-6
    assert deltas.relative_norm(tiny.anatomy, found.parts) == pytest.approx(sizes[-1], rel=1e-4)
    capped = objective.grow(tiny, direction, 0.4, lambda: False)
    assert capped.stop == objective.CAP
    assert deltas.relative_norm(tiny.anatomy, capped.parts) == pytest.approx(0.4)


def test_steps_lower_the_loss_stop_on_success_and_are_cut_at_the_cap(tiny: Model, aim: Aim) -> None:
    settings = Adam(lr=0.05, n_steps=60, beta=0.1)

    def descend(max_norm: float, answers: bool) -> objective.Solution:
        return objective.descend(tiny, aim, UNITS, settings, max_norm, lambda: answers)

    found = descend(10.0, True)
    assert (found.stop, found.n_tries) == (objective.SUCCESS, objective.CHECK_EVERY)
    zero = [part.times(0.0) for part in found.parts]
    assert objective.p2_loss(tiny.anatomy, aim, found.parts, 0.1) < objective.p2_loss(tiny.anatomy, aim, zero, 0.1)  # type: ignore[arg-type]
    capped = descend(0.05, False)
    assert capped.stop == objective.CAP
    assert deltas.relative_norm(tiny.anatomy, capped.parts) <= 0.05 + 1e-6
    assert descend(1e6, False).stop == objective.STEPS
    assert not any(parameter.requires_grad for parameter in tiny.module.parameters())


# ---- pictures and report


def test_pictures_are_split_by_what_their_captions_say(scored: Path, tiny: Model) -> None:
    split = split_of(scored, tiny)
    ids = [one.example.image_id for pictures in split.roles.values() for one in pictures]
    assert len(ids) == len(set(ids))
    for role, pictures in split.roles.items():
        assert all(says(one.caption.text, NOUN) == (role != UNRELATED) for one in pictures)
        assert all((one.concept is not None) == (role != UNRELATED) for one in pictures)
    of_noun = [*split.roles[EDITED], *split.roles[OTHER]]
    assert not any(says(one.caption.text, TARGET) for one in of_noun)
    assert {one.concept.token_id for one in of_noun if one.concept} == {split.token_ids[0]}
    told = table(scored, "concept")
    n_said = told[told["lemma"] == NOUN]["image_id"].nunique()
    assert len(of_noun) + split.n_left_out == n_said
    assert (len(split.roles[EDITED]), len(split.roles[UNRELATED])) == (3, 4)


def test_the_split_follows_the_seed(scored: Path, tiny: Model) -> None:
    first, again, other = (split_of(scored, tiny, seed=seed).roles for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_at_most_half_of_the_pictures_of_a_noun_are_edited_on(scored: Path, tiny: Model) -> None:
    split = split_pictures(reopen.open_run(tiny, run_path_of(scored)), NOUN, TARGET, 100, 100, 0)
    assert 0 <= len(split.roles[OTHER]) - len(split.roles[EDITED]) <= 1


@pytest.mark.parametrize(
    ("noun", "target", "message"),
    [
        ("unicorn", "cow", "no caption of run .* says 'unicorn'; often said are bottle"),
        ("bottle", "bottles", "is the noun 'bottle' itself"),
        ("bottle", "fire engine", "is not one word"),
        ("bottle", "", "is not one word"),
    ],
)
def test_wishes_that_cannot_be_are_named(scored: Path, tiny: Model, noun: str, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_of(scored, tiny, noun, target)


def test_two_words_that_begin_with_one_token_are_refused(scored: Path, tiny: Model) -> None:
    split = split_of(scored, tiny)
    begins_alike = tiny.tokenizer.decode([split.token_ids[0]]).strip() + "zzq"
    with pytest.raises(UsageError, match="begins with the same token as 'bottle'"):
        split_of(scored, tiny, target=begins_alike)


def test_the_entropy_of_n_grams() -> None:
    """5 words: 4 distinct bigrams (2 bits) and 3 distinct trigrams (log2 3)."""
    assert entropy("a cat on the grass") == pytest.approx(2 / 3 + math.log2(3) * 2 / 3)
    assert entropy("cat cat cat cat cat") == 0.0
    assert entropy("") == 0.0


# ---- the whole


def test_an_edit_and_its_controls_are_written_and_the_weights_are_what_they_were(
    cache: Path, tiny: Model, checkpoint: Path
) -> None:
    before, on_disk = deltas.checksum(tiny), fingerprint(checkpoint)
    told: list[Progress] = []
    edit_ids = edit(tiny, run_path_of(cache), cache / "edits", with_controls(QUICK), told.append)
    assert deltas.checksum(tiny) == before
    assert fingerprint(checkpoint) == on_disk
    edits = table(cache, "edit").set_index("edit_id").loc[edit_ids]
    assert edits[["algorithm", "selection"]].to_numpy().tolist() == [
        ["p2", "top"],
        ["p2", "another"],
        ["p2", "random"],
        ["rank-one", "top"],
    ]
    assert edits["method"].tolist()[:3] == [names.CONTRIBUTION_FOLDED, names.CONTRIBUTION_FOLDED, names.RANDOM]
    assert [len(json.loads(units)) for units in edits["units"]] == [6, 6, 6, tiny.facts.d_mlp]
    for edit_id, row in edits.iterrows():
        settings = json.loads(row["settings"])
        assert settings["checksum_before"] == settings["checksum_after_undo"] == before
        delta = deltas.load(cache / "edits" / f"{edit_id}.safetensors")
        assert delta.fingerprint_after == row["fingerprint_after"] != row["fingerprint_before"]
        with deltas.applied(tiny, delta):
            assert deltas.checksum(tiny) == settings["checksum_edited"] != before
        assert row["relative_norm"] <= QUICK.max_norm + 1e-5
        assert settings["stopped_by"] in ("success", "cap")
    assert (told[-1].done, told[-1].total) == (told[-1].total, len(table(cache, "edited_caption")))


def test_the_report_is_what_the_captions_say(cache: Path, tiny: Model) -> None:
    (edit_id,) = edit(tiny, run_path_of(cache), cache / "edits", [replace(QUICK, n_units=100, max_norm=1.0)])
    (row,) = table(cache, "edit").to_dict("records")
    captions = table(cache, "edited_caption")
    before = table(cache, "caption").set_index("image_id")["text"]
    assert captions["text_before"].tolist() == before.loc[captions["image_id"]].tolist()
    as_wished = captions.groupby("role")["is_as_wished"].mean()
    assert (row["efficacy"], row["generalisation"], row["locality"]) == tuple(as_wished[[EDITED, OTHER, UNRELATED]])
    is_unrelated = captions["role"] == UNRELATED
    of_noun = captions[~is_unrelated]
    is_same = captions["text_before"] == captions["text_after"]
    says_target = captions["text_after"].map(lambda text: says(text, TARGET))
    assert captions["is_as_wished"].tolist() == is_same.where(is_unrelated, says_target).tolist()
    assert not is_same[is_unrelated].all()  # else nothing would be told apart
    assert row["fluency"] == pytest.approx(of_noun["text_after"].map(entropy).mean())
    assert row["fluency_before"] == pytest.approx(of_noun["text_before"].map(entropy).mean())
    assert of_noun["prob_before"].notna().all()
    assert captions[is_unrelated]["prob_before"].isna().all()
    delta = deltas.load(cache / "edits" / f"{edit_id}.safetensors")
    split = split_of(cache, tiny)
    pictures, images, _ = open_pictures(split.roles[EDITED], edit_id)
    with deltas.applied(tiny, delta):
        batch = caption_batch(tiny, images, tiny.exact_prompt(tiny.default_prompt), 8)
    after = captions.set_index("image_id")["text_after"]
    assert [one.text for one in batch.captions] == [after[one.example.image_id] for one in pictures]


def test_the_top_units_have_the_highest_mean_score(scored: Path, tiny: Model) -> None:
    under_way = measure._begin(reopen.open_run(tiny, run_path_of(scored)), QUICK)
    pictures, images, _ = open_pictures(under_way.split.roles[EDITED], "")
    aim, units = measure._aim(under_way, pictures, images)
    scores = table(scored, "score")
    ids = [one.example.image_id for one in pictures]
    of_noun = scores[scores["image_id"].isin(ids) & (scores["noun"].map(lemma_of) == NOUN)]
    means = of_noun.groupby(["layer", "unit"])["score"].sum() / len(ids)  # stored top 12 of each: a lower bound
    best = means.idxmax()
    assert (units[0].layer, units[0].unit) == best
    assert aim.a.shape[0] == len(ids)
    random, other = (
        measure._aim(replace(under_way, wish=replace(QUICK, selection="random", seed=seed)), pictures, images)[1]
        for seed in (0, 1)
    )
    assert len(set(random)) == QUICK.n_units
    assert random not in (units, other)


def test_units_are_chosen_for_what_the_unedited_model_says_not_for_the_target(scored: Path, tiny: Model) -> None:
    """The source is the argmax at p(c) of every edited picture, as in FiNE; the target's own units are others."""
    under_way = measure._begin(reopen.open_run(tiny, run_path_of(scored)), replace(QUICK, method="contribution"))
    pictures, images, _ = open_pictures(under_way.split.roles[EDITED], "")
    aim, units = measure._aim(under_way, pictures, images)
    said = probs_at_noun(tiny, under_way.scored.run.prompt, pictures, images).argmax(1)
    assert set(said.tolist()) == {under_way.split.token_ids[0]}
    source, target = tiny.anatomy.w_u(torch.tensor(under_way.split.token_ids))

    def best(row: torch.Tensor) -> set[tuple[int, int]]:
        writes = torch.stack([row @ tiny.anatomy.w_out(layer) for layer in range(tiny.facts.n_layers)])
        flat = (aim.a.sum(0) * writes).flatten().topk(QUICK.n_units).indices.tolist()
        return {divmod(one, tiny.facts.d_mlp) for one in flat}

    assert {(one.layer, one.unit) for one in units} == best(source) != best(target)


def test_units_chosen_by_attribution_are_not_of_the_last_layer(scored: Path, tiny: Model) -> None:
    """What its units do at image tokens reaches no logit: they have no such score."""
    under_way = measure._begin(reopen.open_run(tiny, run_path_of(scored)), replace(QUICK, method=names.ATTRIBUTION))
    pictures, images, _ = open_pictures(under_way.split.roles[EDITED], "")
    _, units = measure._aim(under_way, pictures, images)
    assert len(units) == QUICK.n_units
    assert max(one.layer for one in units) < tiny.facts.n_layers - 1


def test_the_same_call_again_finds_it_done(cache: Path, tiny: Model) -> None:
    first = edit(tiny, run_path_of(cache), cache / "edits", [QUICK])
    told: list[Progress] = []
    assert edit(tiny, run_path_of(cache), cache / "edits", [QUICK], told.append) == first
    assert "was done before" in told[-1].message
    (cache / "edits" / f"{first[0]}.safetensors").unlink()  # a lost file is made again, the same
    assert edit(tiny, run_path_of(cache), cache / "edits", [QUICK]) == first
    row = read_edit(run_path_of(cache), first[0])
    assert deltas.load(cache / "edits" / f"{first[0]}.safetensors").fingerprint_after == row["fingerprint_after"]
    assert edit(tiny, run_path_of(cache), cache / "edits", [replace(QUICK, seed=1)]) != first


def test_an_exception_while_editing_leaves_the_weights_and_no_row(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = deltas.checksum(tiny)
    n_shards = len(list(run_path_of(cache).iterdir()))

    def break_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmn.studies.editing.report.caption_batch", break_off)
    with pytest.raises(KeyboardInterrupt):
        edit(tiny, run_path_of(cache), cache / "edits", [QUICK])
    assert deltas.checksum(tiny) == before
    assert len(list(run_path_of(cache).iterdir())) == n_shards


def test_a_picture_that_is_gone_is_a_failure_of_the_edit(
    pictures: Path, checkpoint: Path, tiny: Model, tmp_path: Path
) -> None:
    mine, cache = Path(shutil.copytree(pictures, tmp_path / "mine")), tmp_path / "cache"
    assert main(words("score", "--model", checkpoint, "--images", mine, "--cache", cache, *SCORING)) == 0
    Path(split_of(cache, tiny).roles[EDITED][0].example.source).unlink()
    (edit_id,) = edit(tiny, run_path_of(cache), cache / "edits", [QUICK])
    row = read_edit(run_path_of(cache), edit_id)
    assert (row["n_failed"], row["settings"]["n_edited"]) == (1, 2)
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        assert store.table("latest", "failure")["stage"].tolist() == [f"edit {edit_id}"]
        store.delete_edit("latest", edit_id)
        assert store.table("latest", "failure").empty


def test_a_run_takes_its_edits_with_it(cache: Path, tiny: Model) -> None:
    (edit_id,) = edit(tiny, run_path_of(cache), cache / "edits", [QUICK])
    other = cache / "edits" / "0123.safetensors"
    other.touch()
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        assert store.edit_path(edit_id).is_file()
        store.delete_run("latest")
    assert list((cache / "edits").iterdir()) == [other]


# ---- command line


EDITING = ["--noun", NOUN, "--to", TARGET, "--units", 6, "--max-norm", 0.1, "--edited", 3, "--unrelated", 4]


def test_the_command_edits_reports_exports_and_undoes(
    cache: Path, checkpoint: Path, pictures: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "edit.safetensors"
    capfd.readouterr()
    command = words("edit", "latest", "--cache", cache, *EDITING, "--no-controls", "--out", out)
    assert main([*command, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    (told,) = said["edits"]
    assert said["database"] == "loaded"
    assert {"efficacy", "generalisation", "locality", "fluency", "relative_norm", "units"} <= set(told)
    assert told["settings"]["checksum_before"] == told["settings"]["checksum_after_undo"]
    assert out.read_bytes() == Path(told["file"]).read_bytes()
    assert main(command) == 0
    assert f"{told['edit_id']} bottle -> cow, p2, 6 top units: efficacy" in capfd.readouterr().out
    plain = table(cache, "score")
    edited_cache = tmp_path / "edited"
    score = words("score", "--model", checkpoint, "--delta", out, "--images", pictures, *SCORING)
    assert main([*score, "--cache", str(edited_cache), "--json"]) == 0
    edited = json.loads(capfd.readouterr().out)
    assert edited["run_id"] != run_path_of(cache).name
    assert table(edited_cache, "score")["score"].tolist() != plain["score"].tolist()
    assert main(words("annotate", "latest", "--top", 1, "--cache", edited_cache)) == 0  # finds its model again
    capfd.readouterr()
    assert main(words("edit", "latest", "--cache", cache, "--undo", told["edit_id"][:6], "--json")) == 0
    assert json.loads(capfd.readouterr().out) == {"run_id": said["run_id"], "edit_id": told["edit_id"], "undone": True}
    assert table(cache, "edit").empty
    assert table(cache, "edited_caption").empty
    assert not Path(told["file"]).exists()
    assert not list(run_path_of(cache).glob("*edit-*"))
    assert table(cache, "score")["score"].tolist() == plain["score"].tolist()


def test_the_command_names_what_it_cannot_use(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong: dict[str, list[Any]] = {
        "needs --noun A and --to B": [],
        "often said are bottle": ["--noun", "unicorn", "--to", "cow"],
        "is the noun 'bottle' itself": ["--noun", "bottle", "--to", "bottle"],
        "no method 'nothing'": [*EDITING, "--method", "nothing"],
        "--selection random": [*EDITING, "--method", "random"],
        "--units 100000": [*EDITING, "--units", 100000],
        "a closed form only": [*EDITING, "--algorithm", "rank-one", "--solver", "stepped"],
        "must be above 0": [*EDITING, "--max-norm", 0],
        "is not a number": [*EDITING, "--max-norm", "wide"],
        "must end in .safetensors": [*EDITING, "--out", "edit.pt"],
        "no edit 'abc' in run": ["--undo", "abc"],
    }
    for message, more in wrong.items():
        capfd.readouterr()
        assert main(words("edit", "latest", "--cache", cache, *more)) == 2
        err = capfd.readouterr().err
        assert message in err, err
        assert err.count("\n") == 1
