"""Units multiplied by a factor: 1 changes nothing, 0 is zeroing, and what 2 adds is what was predicted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mmn import names
from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.hooks import ACTIVATION, FINAL, ONCE, ablate, capture
from mmn.reading.rows import repeated
from mmn.runs import shards
from mmn.store import Store
from mmn.studies.degradation.controls import measure_controls
from mmn.studies.degradation.curves import curves
from mmn.studies.degradation.measure import InterventionPlan, degrade
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.studies.degradation.summary import read_effects, summarise
from tests.scored import run_path_of, tables_of
from tests.test_degradation import FAMILIES, logits, scored, some_masks  # noqa: F401 - a fixture
from tests.test_hooks import n_hooks
from tests.tiny import FFN, N_LAYERS, build_family

FACTORS = (0.0, 0.5, 2.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_changes_nothing_and_zero_is_zeroing_bit_for_bit_each_row_its_own(family: str) -> None:
    model, inputs = build_family(family)
    mask, n_before = some_masks(3), n_hooks(model)
    mask[0] = mask[1]
    plain = logits(model, repeated(inputs, 3))
    with ablate(model, mask, torch.tensor([1.0, 0.0, 2.0])):
        scaled = logits(model, repeated(inputs, 3))
    with ablate(model, mask):
        zeroed = logits(model, repeated(inputs, 3))
    assert torch.equal(scaled[0], plain[0])
    assert torch.equal(scaled[1], zeroed[1])
    assert not torch.allclose(scaled[2], plain[2])
    assert n_hooks(model) == n_before


@pytest.mark.parametrize("family", FAMILIES)
def test_doubling_units_of_the_last_layer_adds_what_they_wrote_to_the_residual(family: str) -> None:
    model, inputs = build_family(family)
    last, rows = N_LAYERS - 1, torch.tensor([0])
    mask = torch.zeros(1, N_LAYERS, FFN, dtype=torch.bool)
    mask[0, last, [3, 7, 20]] = True
    with torch.inference_mode(), capture(model) as plain:
        model.module(**inputs)
    a = plain.read_layers(ACTIVATION, rows, rows)[0, last]
    wrote = (model.anatomy.w_out(last)[:, [3, 7, 20]] * a[[3, 7, 20]]).sum(1)
    for factor in (2.0, 0.5):
        with torch.inference_mode(), ablate(model, mask, factor), capture(model) as scaled:
            model.module(**inputs)
        change = scaled.read(FINAL, ONCE, rows, rows)[0] - plain.read(FINAL, ONCE, rows, rows)[0]
        assert wrote.abs().max() > 1e-6
        torch.testing.assert_close(change, (factor - 1) * wrote, rtol=1e-3, atol=1e-5)


def test_a_run_is_scaled_beside_its_controls_and_zero_is_what_ablation_measures(
    scored: Path,  # noqa: F811
    tiny: Model,
    tmp_path: Path,
) -> None:
    cache = Path(shutil.copytree(scored, tmp_path / "cache"))
    run_path, selections = run_path_of(cache), (names.TOP, names.RANDOM)
    zeroing = InterventionPlan(names.ABLATE, (names.CONTRIBUTION,), (5, 20), selections, 1)
    scaling = InterventionPlan(names.SCALE, (names.CONTRIBUTION,), (5, 20), selections, 1, factors=(*FACTORS, 1.0))
    degrade(tiny, run_path, zeroing, limit=2)
    done = degrade(tiny, run_path, scaling, limit=2)
    done += measure_controls(tiny, run_path, done, n_texts=1)
    effect = tables_of(cache, ["effect"])["effect"]
    key = ["image_id", "noun", "selection", "k", "draw"]
    prob = {kind: rows.set_index([*key, "factor"])["prob"] for kind, rows in effect.groupby("kind")}
    zero = prob[names.SCALE].xs(0.0, level="factor").drop(names.ANOTHER, level="selection")
    ablated = prob[names.ABLATE].droplevel("factor")
    assert len(zero) > 4
    assert ablated.reindex(zero.index).to_numpy() == pytest.approx(zero.to_numpy(), abs=1e-6)  # other batches
    one = prob[names.SCALE].xs(1.0, level="factor")
    untouched = effect[(effect["kind"] == names.SCALE) & (effect["k"] == 0)].groupby(["image_id", "noun"])["prob"]
    assert all(abs(value - untouched.first()[at[0], at[1]]) < 1e-6 for at, value in one.items())
    lines = summarise(read_effects(run_path, done).effect, tiny.facts.n_units)
    assert {line["factor"] for line in lines} == set(FACTORS), "1 is the untouched model and no line"
    assert {line["selection"] for line in lines} == {names.TOP, names.RANDOM, names.ANOTHER}
    with Store.open(cache) as store:
        means = store.ask(EffectQueries).means("latest", EffectFilter(names.SCALE, (names.CONTRIBUTION,)))
    drawn = curves(means, "prob").query("selection == 'top' and k == 20").set_index("factor")["mean"]
    assert sorted(drawn.index) == [0.0, 0.5, 1.0, 2.0]
    assert drawn[1.0] == pytest.approx(untouched.first().groupby("image_id").mean().mean(), abs=1e-6)


def test_factors_that_are_none_are_refused(scored: Path, tiny: Model) -> None:  # noqa: F811
    for factors in ((), (-1.0,), (float("nan"),), (2000.0,)):
        plan = InterventionPlan(names.SCALE, (names.CONTRIBUTION,), (5,), factors=factors)
        with pytest.raises(UsageError, match="factors from 0 to 1000"):
            degrade(tiny, run_path_of(scored), plan)
    assert not [name for name in shards.finished_shards(run_path_of(scored)) if name.startswith("degrade")]
