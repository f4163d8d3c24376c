"""Units zeroed or under noise: what theory says of it is what is measured, row by row, and nothing is left changed."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from mmn import names
from mmn.cli import main
from mmn.core import Concept, Example, Neuron
from mmn.errors import UsageError
from mmn.metrics import find_text_metric
from mmn.models.deltas import Columns, added
from mmn.models.model import Model
from mmn.reading.captions import write_captions
from mmn.reading.hooks import ACTIVATION, FINAL, ONCE, ablate, capture, capture_graph
from mmn.reading.rows import repeated
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress
from mmn.runs.teacher_forcing import reread
from mmn.scores.equations import contribution, folded_rows
from mmn.scores.rows import ConceptAt
from mmn.studies.degradation.curves import half_at
from mmn.studies.degradation.interventions import logits_at
from mmn.studies.degradation.measure import InterventionPlan, degrade
from mmn.studies.degradation.perturbation import column_sizes, perturb_rows, unit_noise
from mmn.studies.degradation.selections import Choice, Interpretable, Row, all_layers, choose, same_layers
from mmn.studies.degradation.summary import summarise
from mmn.units.decoding import decode_units
from tests.scored import run_path_of, tables_of
from tests.test_hooks import is_free, n_hooks
from tests.tiny import FAMILY_BUILDERS, FFN, N_LAYERS, build_family

# A gated FFN with RMS norms, a plain one (OPT) with layer norms, a plain one with an encoder (T5).
FAMILIES = ("llava", "blip-2", "blip-2 on t5")
TOKEN, CAPTION = 17, [11, 12, 13]
SCORING = ["--methods", "contribution,attribution", "--top-k", 12, "--max-new-tokens", 8, "--batch-size", 4]
KS = (0, 5, 40)


def logits(model: Model, inputs: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        return model.module(**inputs, use_cache=False).logits


def columns_changed(model: Model, deltas: dict[Neuron, Tensor]) -> AbstractContextManager[None]:
    """The weights themselves changed, column by column."""
    parts = []
    for layer in sorted({one.layer for one in deltas}):
        units = tuple(one.unit for one in deltas if one.layer == layer)
        parts.append(Columns(layer, units, torch.stack([deltas[Neuron(layer, unit)] for unit in units], dim=1)))
    return added(model, parts)


def some_masks(n_rows: int) -> Tensor:
    torch.manual_seed(3)
    mask = torch.rand(n_rows, N_LAYERS, FFN) < 0.3
    mask[0] = False
    return mask


# ---- zeroing


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_mask_gives_bit_equal_logits(family: str) -> None:
    model, inputs = build_family(family)
    plain = logits(model, repeated(inputs, 3))
    with ablate(model, torch.zeros(3, N_LAYERS, FFN, dtype=torch.bool)):
        assert torch.equal(logits(model, repeated(inputs, 3)), plain)
    with ablate(model, some_masks(3)):
        changed = logits(model, repeated(inputs, 3))
    assert torch.equal(changed[0], plain[0])
    assert not torch.allclose(changed[1], plain[1])


@pytest.mark.parametrize("family", FAMILY_BUILDERS)
def test_rows_do_not_touch_each_other(family: str) -> None:
    model, inputs = build_family(family)
    mask = some_masks(3)
    with ablate(model, mask):
        together = logits(model, repeated(inputs, 3))
    for row in range(3):
        with ablate(model, mask[row : row + 1]):
            assert torch.allclose(together[row], logits(model, inputs)[0], atol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_zeroing_is_taking_the_columns_away(family: str) -> None:
    """The weights changed for real are the truth that the hook is held against."""
    model, inputs = build_family(family)
    mask = some_masks(2)
    with ablate(model, mask):
        hooked = logits(model, repeated(inputs, 2))[1]
    units = [Neuron(*map(int, one)) for one in mask[1].nonzero().tolist()]
    with columns_changed(model, {one: -model.anatomy.w_out(one.layer)[:, one.unit] for one in units}):
        assert torch.allclose(logits(model, inputs)[0], hooked, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_last_layer_unit_takes_exactly_its_contribution_away(family: str) -> None:
    """Nothing follows the last FFN but the final norm: without it, or with it fixed, the effect is the score."""
    model, inputs = build_family(family)
    last, rows, anatomy = N_LAYERS - 1, torch.tensor([0]), model.anatomy
    with torch.inference_mode(), capture(model) as plain:
        model.module(**inputs)
    final = plain.read(FINAL, ONCE, rows, rows)
    row = anatomy.w_u(torch.tensor([TOKEN]))
    folded = folded_rows(anatomy, row, final)
    for row_of in (row, folded):
        score = contribution(anatomy, plain.read_layers(ACTIVATION, rows, rows), row_of)[0, last]
        for unit in score.abs().topk(3).indices.tolist():
            mask = torch.zeros(1, N_LAYERS, FFN, dtype=torch.bool)
            mask[0, last, unit] = True
            with torch.inference_mode(), ablate(model, mask), capture(model) as without:
                model.module(**inputs)
            change = (row_of @ (without.read(FINAL, ONCE, rows, rows) - final).T).item()
            assert change == pytest.approx(-score[unit].item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("family", "step", "tolerance"), [("llava", 1e-2, 5e-3), ("blip-2", 1e-4, 1e-5)])
def test_a_small_step_towards_zero_is_what_attribution_estimates(family: str, step: float, tolerance: float) -> None:
    """Σ a · ∂y/∂a over all positions, in float64. LLaVA's norms compute in float32, hence its longer step."""
    model, inputs = build_family(family)
    model.module.double()
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.enable_grad():
        with capture_graph(model) as graph:
            y = model.module(**inputs, use_cache=False).logits[0, -1, TOKEN]
        gradients = torch.autograd.grad(y, graph.a)
    estimate = torch.stack([(a * g).reshape(-1, FFN).sum(0) for a, g in zip(graph.a, gradients, strict=True)]).detach()
    for flat in estimate.flatten().abs().topk(4).indices.tolist():
        mask = torch.zeros(1, N_LAYERS, FFN, dtype=torch.bool)
        mask.view(-1)[flat] = True
        measured = []
        for factor in (1 + step, 1 - step):
            with ablate(model, mask, factor):
                measured.append(logits(model, inputs)[0, -1, TOKEN].item())
        assert (measured[0] - measured[1]) / (2 * step) == pytest.approx(estimate.view(-1)[flat].item(), rel=tolerance)


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2_vl"])
def test_captions_are_written_under_the_mask_token_by_token(family: str) -> None:
    """Each token of the cached generation is the one that a whole pass over its prefix predicts under the mask."""
    model, inputs = build_family(family)
    model.module.generation_config.eos_token_id = -1
    tokenizer = type("Tokenizer", (), {"decode": lambda *_args, **_more: "", "eos_token_id": -1})()
    speaking = replace(model, processor=type("Processor", (), {"tokenizer": tokenizer})())
    mask = some_masks(3)
    with ablate(model, mask):
        captions, _ = write_captions(speaking, repeated(inputs, 3), 4)
    plain, _ = write_captions(speaking, inputs, 4)
    assert captions[0].token_ids == plain[0].token_ids
    for row, caption in enumerate(captions):
        for position, token_id in enumerate(caption.token_ids):
            with torch.inference_mode(), ablate(model, mask[row : row + 1]):
                found = logits_at(speaking, inputs, caption.token_ids, [position])
            assert found.argmax().item() == token_id


def test_each_row_is_read_at_its_own_position() -> None:
    model, inputs = build_family("llava")
    together = logits_at(model, inputs, CAPTION, [2, 0, 1])
    for row, position in enumerate([2, 0, 1]):
        assert torch.allclose(together[row], logits_at(model, inputs, CAPTION[:position], [position])[0], atol=1e-4)


def test_no_hook_survives_an_exception_and_other_rows_are_refused() -> None:
    model, inputs = build_family("llava")
    n_before = n_hooks(model)
    with pytest.raises(AssertionError, match="3 rows, but a pass of 1"), ablate(model, some_masks(3)):
        logits(model, inputs)
    with pytest.raises(AssertionError, match="no forward pass"), ablate(model, some_masks(3)):
        pass
    row = Row(choice_of([1, 2]), 2, 0.1)

    def interrupt() -> None:
        assert n_hooks(model) > n_before
        assert not is_free(model.lock)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), perturb_rows(model, [row], 0, names.WEIGHT):
        interrupt()
    assert n_hooks(model) == n_before
    assert is_free(model.lock)


# ---- noise


def choice_of(units: list[int], draw: int = 0) -> Choice:
    concept = Concept("dog", "dog", 1, TOKEN, 0, True, False, False, None)
    said = ConceptAt(0, Example("0" * 64, "a.png", ("a.png",), 8, 8), concept)
    return Choice(said, names.TOP, names.CONTRIBUTION, draw, torch.tensor(units))


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_of_a_row_is_what_changed_weights_compute(family: str) -> None:
    model, inputs = build_family(family)
    choice, other = choice_of([0, 50, 51, 140, 7]), choice_of([50, 3], draw=1)
    rows = [Row(choice, 0, 0.5), Row(choice, 2, 0.5), Row(choice, 5, 0.1), Row(other, 2, 2.0)]
    with perturb_rows(model, rows, 0, names.WEIGHT):
        together = logits(model, repeated(inputs, len(rows)))
    assert torch.equal(together[0], logits(model, repeated(inputs, len(rows)))[0])
    for number, row in enumerate(rows):
        noise = unit_noise(row.choice, row.k, model.anatomy.w_out(0).shape[0], 0)
        placed = [Neuron(*divmod(flat, FFN)) for flat in row.choice.units[: row.k].tolist()]
        deltas = {one: row.sigma * noise[rank] for rank, one in enumerate(placed)}  # type: ignore[operator]
        with columns_changed(model, deltas):
            assert torch.allclose(logits(model, inputs)[0], together[number], atol=1e-3)


def test_noise_is_the_same_for_every_k_and_another_for_every_draw() -> None:
    choice = choice_of(list(range(9)))
    assert torch.equal(unit_noise(choice, 3, 32, 0), unit_noise(choice, 9, 32, 0)[:3])
    assert not torch.equal(unit_noise(choice, 3, 32, 0), unit_noise(choice_of([0], draw=1), 3, 32, 0))
    many = unit_noise(choice, 400, 400, 0)
    assert many.mean().abs() < 0.02
    assert many.std().item() == pytest.approx(1, abs=0.02)


def test_noise_in_column_norms_is_as_long_as_the_column() -> None:
    model, _ = build_family("llava")
    size = column_sizes(model, [FFN + 4], names.COLUMN_NORM)
    column = model.anatomy.w_out(1)[:, 4]
    assert size.item() == pytest.approx((column.norm() / len(column) ** 0.5).item())
    assert column_sizes(model, [FFN + 4], names.WEIGHT).item() == 1


@pytest.mark.parametrize("fails", [False, True])
def test_weights_are_bit_identical_after_a_change(fails: bool) -> None:
    model, _ = build_family("llava")
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    deltas = {Neuron(0, 3): torch.full((32,), 1e6), Neuron(2, 5): torch.randn(32), Neuron(0, 1): torch.randn(32)}
    try:
        with columns_changed(model, deltas):
            assert torch.equal(
                model.anatomy.w_out(0)[:, 3], before["model.language_model.layers.0.mlp.down_proj.weight"][:, 3] + 1e6
            )
            assert not is_free(model.lock)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert is_free(model.lock)


# ---- a run


@pytest.fixture(scope="module")
def scored(pictures: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of five pictures in two batches. Read only."""
    folder = tmp_path_factory.mktemp("some")
    for picture in sorted(pictures.glob("*.png"))[:5]:
        shutil.copy(picture, folder)
    cache = tmp_path_factory.mktemp("scored") / "cache"
    command = ["score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING, "--progress", "none"]
    assert main(list(map(str, command))) == 0
    return cache


def tables(cache: Path) -> dict[str, pd.DataFrame]:
    return tables_of(cache, ("effect", "concept", "caption", "image", "failure"))


ABLATION = InterventionPlan(names.ABLATE, (names.CONTRIBUTION, names.ATTRIBUTION), KS, names.SELECTIONS, n_draws=2)


@pytest.fixture(scope="module")
def ablated(scored: Path, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its units zeroed, captions included. Read only."""
    cache = Path(shutil.copytree(scored, tmp_path_factory.mktemp("ablated") / "cache"))
    degrade(tiny, run_path_of(cache), ABLATION, find_text_metric("word-f1", "cpu"))
    return cache


def test_a_run_is_ablated_whole(ablated: Path) -> None:
    found = tables(ablated)
    effect, concept = found["effect"], found["concept"]
    assert set(effect["image_id"]) == set(concept["image_id"])
    keys = effect.groupby(["image_id", "noun"])
    assert len(keys) == len(concept)
    per_noun = effect.groupby(["image_id", "noun", "method", "selection", "k"]).size().unstack()
    assert per_noun.xs("top", level="selection").to_numpy().tolist() == [[1, 1, 1]] * (2 * len(concept))
    assert per_noun.xs("random", level="selection").to_numpy().tolist() == [[1, 2, 2]] * (2 * len(concept))
    assert effect["sigma"].isna().all()
    assert effect["prob"].between(0, 1).all()


def test_the_untouched_model_is_where_curves_begin(ablated: Path) -> None:
    found = tables(ablated)
    start = found["effect"].query("k == 0").merge(found["concept"], on=["image_id", "noun"], suffixes=("", "_scored"))
    assert len(start) == 6 * len(found["concept"])
    assert start["logit"].to_numpy() == pytest.approx(start["logit_scored"].to_numpy(), abs=1e-3)
    assert start["prob"].to_numpy() == pytest.approx(start["prob_scored"].to_numpy(), abs=1e-4)
    said = start.merge(found["caption"], on="image_id")
    assert (said["caption"] == said["text"]).all()
    assert (start["similarity"] == 1).all()
    assert not start["is_lost"].any()


def test_what_is_stored_is_what_weights_without_the_units_compute(ablated: Path, tiny: Model) -> None:
    """Ranks beyond the stored top 12 included; the columns are taken away for real, one noun at a time."""
    scored = reopen.open_run(tiny, run_path_of(ablated))
    effect = tables(ablated)["effect"].set_index(["image_id", "noun", "method", "selection", "k", "draw"])["prob"]
    batch = shards.read_shard(scored.path / "batch-00000")
    there, images, _ = reopen.open_all(batch, "test")
    for measured, by_method in reread(scored, batch, there, images, ABLATION.methods):
        choices = choose(
            measured,
            by_method,
            names.SELECTIONS,
            40,
            Interpretable(tiny),
            same_layers,
            dict.fromkeys(names.SELECTIONS, 2),
        )
        for choice in list(choices)[::3]:
            concept, image_id = choice.said.concept, choice.said.example.image_id
            inputs = tiny.encode([images[choice.said.row]], scored.run.prompt)
            caption = measured.batch.captions[choice.said.row].token_ids
            for k in (k for k in (5, 40) if choice.draw == 0 and k <= len(choice.units)):
                units = [Neuron(*divmod(flat, tiny.facts.d_mlp)) for flat in choice.units[:k].tolist()]
                deltas = {one: -tiny.anatomy.w_out(one.layer)[:, one.unit] for one in units}
                with columns_changed(tiny, deltas):
                    prob = logits_at(tiny, inputs, caption, [concept.position]).softmax(-1)[0, concept.token_id].item()
                stored = effect[image_id, concept.noun, choice.method, choice.selection, k, 0]
                assert stored == pytest.approx(prob, abs=2e-4)


def test_selections_are_what_they_are_called(scored: Path, tiny: Model) -> None:
    run = reopen.open_run(tiny, run_path_of(scored))
    batch = shards.read_shard(run.path / "batch-00000")
    there, images, _ = reopen.open_all(batch, "test")
    (one,) = reread(run, batch, there, images, (names.CONTRIBUTION, names.ATTRIBUTION))
    draws = dict.fromkeys(names.SELECTIONS, 1) | {names.RANDOM: 2}
    given = (*one, names.SELECTIONS, 60, Interpretable(tiny))
    found = list(choose(*given, same_layers, draws))
    stored = batch["score"].to_pandas().query("variant == 'original'")
    words = dict(zip(range(tiny.facts.n_units), decode_units(tiny)["is_interpretable"].to_pylist(), strict=True))
    by_key = {(c.said.example.image_id, c.said.concept.noun, c.method, c.selection, c.draw): c.units for c in found}
    assert len(by_key) == len(found)
    for (image_id, noun, method, selection, draw), units in by_key.items():
        top = by_key[image_id, noun, method, names.TOP, 0].tolist()
        if selection == names.TOP:
            rows = stored.query("image_id == @image_id and noun == @noun and method == @method").sort_values("rank")
            assert top[:12] == (rows["layer"].astype(int) * tiny.facts.d_mlp + rows["unit"]).tolist()
        elif selection == names.INTERPRETABLE:
            assert all(words[unit] for unit in units.tolist())
            assert units.tolist()[: sum(words[unit] for unit in top)] == [unit for unit in top if words[unit]]
        else:
            assert (units // FFN).tolist() == [unit // FFN for unit in top]
            assert units.tolist() != by_key[image_id, noun, method, selection, 1 - draw].tolist()
    p2 = [c.units for c in choose(*given, all_layers, draws) if c.selection == names.RANDOM]
    assert max(len(set((units // FFN).tolist())) for units in p2) == N_LAYERS


def test_interpretable_units_are_decoded_only_as_far_as_needed(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmn.studies.degradation import selections

    asked: list[int] = []

    def count(model: Model, units: list[Neuron]) -> object:
        asked.append(len(units))
        return decode_units(model, units)

    monkeypatch.setattr(selections, "MANY_UNITS", 10)
    monkeypatch.setattr(selections, "BLOCK", 20)
    monkeypatch.setattr(selections, "decode_units", count)
    ranking = torch.arange(tiny.facts.n_units).flip(0)
    whole = Interpretable(tiny, [decode_units(tiny)])
    expected = whole.first(ranking, 5)
    assert asked == []
    lazy = Interpretable(tiny)
    assert torch.equal(lazy.first(ranking, 5), expected)
    assert sum(asked) < tiny.facts.n_units
    n_asked = len(asked)
    assert torch.equal(lazy.first(ranking, 5), expected)
    assert len(asked) == n_asked


def test_the_same_call_again_and_a_limit(cache: Path, tiny: Model) -> None:
    asked = replace(ABLATION, selections=(names.TOP,), methods=(names.CONTRIBUTION,))
    told: list[Progress] = []
    degrade(tiny, run_path_of(cache), asked, None, told.append, limit=3)
    assert [(one.done, one.total) for one in told] == [(n, 3) for n in range(4)]
    found = tables(cache)
    some = found["image"].sort_values("source")["image_id"].iloc[:3]
    assert set(found["effect"]["image_id"]) == set(found["concept"]["image_id"]) & set(some)
    assert found["effect"][["caption", "similarity", "metric", "is_lost"]].isna().all(axis=None)
    told.clear()
    first = degrade(tiny, run_path_of(cache), asked, None, told.append, limit=3)
    assert [(one.done, one.message) for one in told] == [(3, "3 were done before")]
    everything = degrade(tiny, run_path_of(cache), asked, None, told.append)
    assert told[-1].done == told[-1].total == 5
    assert len(first) == 1
    assert len(everything) == 2
    found = tables(cache)
    assert set(found["effect"]["image_id"]) == set(found["concept"]["image_id"])
    assert not found["effect"].duplicated(["image_id", "noun", "k"]).any()


def test_noise_on_a_run(cache: Path, tiny: Model) -> None:
    asked = InterventionPlan(
        names.PERTURB, (names.CONTRIBUTION,), KS, (names.TOP, names.RANDOM), 2, (0.1, 5.0), names.COLUMN_NORM
    )
    before = {name: value.clone() for name, value in tiny.module.state_dict().items()}
    degrade(tiny, run_path_of(cache), asked, None, limit=2)
    effect = tables(cache)["effect"]
    assert (effect.groupby(["image_id", "noun", "selection", "sigma"]).size() == 5).all()
    assert set(effect["sigma_unit"]) == {names.COLUMN_NORM}
    baseline = effect.query("k == 0").groupby(["image_id", "noun"])["prob"].mean()
    moved = effect.query("k == 40").merge(baseline, on=["image_id", "noun"], suffixes=("", "_before"))
    change = (moved["prob"] - moved["prob_before"]).abs().groupby(moved["sigma"]).mean()
    assert change[5.0] > change[0.1] > 0
    assert all(torch.equal(value, before[name]) for name, value in tiny.module.state_dict().items())


def test_what_cannot_be_asked(scored: Path, tiny: Model) -> None:
    wrong = {
        "no 'best'": replace(ABLATION, selections=("best",)),
        "no ranking by 'random-matched'": replace(ABLATION, methods=(names.RANDOM_MATCHED,)),
        "145 units cannot be taken": replace(ABLATION, ks=(145,)),
        "sigmas above 0": replace(ABLATION, kind=names.PERTURB, sigmas=(0.0,), sigma_unit=names.WEIGHT),
    }
    for message, asked in wrong.items():
        with pytest.raises(UsageError, match=message):
            degrade(tiny, run_path_of(scored), asked)


# ---- P2's own settings


def test_p2_draws_random_units_once_for_a_picture_and_not_for_each_noun(scored: Path, tiny: Model) -> None:
    run = reopen.open_run(tiny, run_path_of(scored))
    batch = shards.read_shard(run.path / "batch-00000")
    there, images, _ = reopen.open_all(batch, "test")
    (one,) = reread(run, batch, there, images, (names.CONTRIBUTION, names.CONTRIBUTION_ACTFN))
    draws = dict.fromkeys(names.ALL_SELECTIONS, 2)
    found = list(choose(*one, (names.RANDOM_PICTURE,), 144, Interpretable(tiny), same_layers, draws))
    by_picture: dict[tuple[str, int], set[tuple[int, ...]]] = {}
    for choice in found:
        key = (choice.said.example.image_id, choice.draw)
        by_picture.setdefault(key, set()).add(tuple(choice.units.tolist()))
    assert max(map(len, by_picture.values())) == 1  # whatever the noun and the score
    assert len({units for told in by_picture.values() for units in told}) == len(by_picture)  # pictures, draws differ
    assert all(set(units) == set(range(144)) for told in by_picture.values() for units in told)  # the top ones, too
    noises = {choice.said.example.image_id: unit_noise(choice, 3, 4, 0) for choice in found if choice.draw == 0}
    for choice in found:
        is_same = torch.equal(unit_noise(choice, 3, 4, 0), noises[choice.said.example.image_id])
        assert is_same == (choice.draw == 0)


def test_p2_s_noise_is_absolute_and_its_options_can_be_overridden(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = ["--ks", "9", "--no-captions", "--limit", "2", "--cache", str(cache), "--progress", "none", "--json"]
    preset = ["degrade", "latest", "--kind", "perturb", "--preset", "p2", *short]
    assert main(preset) == 0
    told = json.loads(capfd.readouterr().out)["effects"]
    assert {one["sigma_unit"] for one in told} == {names.WEIGHT}
    assert {(one["method"], one["selection"]) for one in told} == {
        (method, selection)
        for method in (names.CONTRIBUTION, names.CONTRIBUTION_ACTFN)
        for selection in (names.TOP, names.ANOTHER, names.RANDOM_PICTURE)
    }
    effect = tables(cache)["effect"]
    assert set(effect["draw"]) == {0}
    random = effect.query("selection == 'random-picture' and k == 9")
    assert random.groupby(["image_id", "noun"])["prob"].nunique().eq(1).all()  # the same change for both scores
    more = ["--method", "activation", "--selections", "top,random", "--sigma-unit", "column norm", "--draws", "2"]
    assert main([*preset, *more]) == 0
    told = json.loads(capfd.readouterr().out)["effects"]
    assert {one["sigma_unit"] for one in told} == {names.COLUMN_NORM}
    assert {(one["method"], one["selection"]) for one in told} == {
        ("activation", selection) for selection in (names.TOP, names.ANOTHER, names.RANDOM)
    }


def test_p2_s_settings_of_noise_are_not_for_zeroing(scored: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["degrade", "latest", "--kind", "ablate", "--preset", "p2", "--cache", str(scored)]) == 2
    assert "--preset p2 is for --kind perturb" in capfd.readouterr().err


# ---- command line


def test_the_command_measures_and_says_what(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = Path(tables(cache)["image"].sort_values("source")["source"].iloc[0])
    moved = source.rename(source.with_suffix(".gone"))
    try:
        capfd.readouterr()
        command = ["degrade", "latest", "--kind", "ablate", "--ks", "4,20", "--draws", "2", "--limit", "3", "--json"]
        assert main([*command, "--method", "contribution", "--cache", str(cache), "--progress", "none"]) == 1
    finally:
        moved.rename(source)
    said = json.loads(capfd.readouterr().out)
    assert said == said | {"kind": "ablate", "n_failed": 1, "database": "loaded", "metric": "word-f1-v1"}
    assert [one["selection"] for one in said["effects"]] == ["top", "interpretable", "another", "random"]
    assert {one["n_images"] for one in said["effects"]} == {2}
    found = tables(cache)
    assert found["failure"]["stage"].tolist() == ["degrade"]
    effect = found["effect"]
    top = effect.query("selection == 'top' and k == 20").groupby("image_id")["prob"].mean().mean()
    assert said["effects"][0]["prob"] == pytest.approx(top)
    assert effect["caption"].notna().all()
    noise = ["degrade", "latest", "--kind", "perturb", "--sigma", "1,2", "--ks", "9", "--no-captions", "--limit", "2"]
    assert main([*noise, "--cache", str(cache), "--progress", "none"]) == 0
    out = capfd.readouterr().out
    assert "contribution, top, sigma 2 of the column norm" in out


def test_the_command_names_what_it_cannot_use(scored: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "--kind": ["latest"],
        "--ks 2.5": ["latest", "--kind", "ablate", "--ks", "2.5"],
        "--ks 145": ["latest", "--kind", "ablate", "--ks", "145"],
        "--shares 3": ["latest", "--kind", "ablate", "--shares", "3"],
        "not allowed with": ["latest", "--kind", "ablate", "--shares", ".1", "--ks", "3"],
        "--sigma: 'x'": ["latest", "--kind", "perturb", "--sigma", "x"],
        "no run 'nothing'": ["nothing", "--kind", "ablate"],
    }
    for message, more in wrong.items():
        capfd.readouterr()
        assert main(["degrade", *more, "--cache", str(scored), "--progress", "none"]) == 2
        err = capfd.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_summaries_are_by_picture_and_the_half_is_between_two_k() -> None:
    assert half_at([0, 10, 20], [0.8, 0.6, 0.2]) == pytest.approx(15)
    assert half_at([0, 10, 20], [0.8, 0.6, 0.5]) is None
    rows = [("a", "x", 1.0, 0.0), ("a", "y", 1.0, 0.4), ("b", "x", 0.5, 0.1)]
    effect = pd.DataFrame(
        {"image_id": image, "noun": noun, "k": k, "prob": prob, "is_lost": k > 0 and image == "a", "draw": draw}
        for image, noun, *probs in rows
        for k, prob in zip((0, 30), probs, strict=True)
        for draw in range(1 + (k > 0))
    ).assign(method="contribution", selection="top", positions="everywhere", sigma=None, sigma_unit=None)
    (found,) = summarise(effect, 300)
    assert (found["prob_baseline"], found["prob"]) == (pytest.approx(0.75), pytest.approx(0.15))
    assert found["drop"] == pytest.approx(0.8)
    assert found["k_half"] == pytest.approx(30 * 0.375 / 0.6)
    assert (found["lost"], found["n_concepts"], found["n_images"], found["share"]) == (0.5, 3, 2, 0.1)
