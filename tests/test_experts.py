"""Mixtures of experts: scores of the routed experts' units alone, exact, against plain computations over all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from mmn import names
from mmn.cli import main
from mmn.core import ModelFacts, Neuron, named_unit, parse_unit, unit_name
from mmn.errors import UsageError
from mmn.models.adapters import find_anatomy, find_family
from mmn.models.model import Model
from mmn.reading.hooks import (
    ACTIVATION,
    EXPERTS,
    FINAL,
    ONCE,
    AddedColumns,
    Captured,
    ablate,
    add_to_columns,
    capture,
    capture_units,
)
from mmn.scores.budget import Reading, ffn_outputs, logit_budget
from mmn.scores.equations import contribution, folded_rows, rank_units, written_rows
from mmn.scores.methods import Scored, brought
from tests.families.test_build import pictures
from tests.families.tiny import build
from tests.tiny import save_tiny_llava

ROUNDING = 1e-5  # of max(|logit|, 1) in float32; measured 1e-7 to 3e-7
TYPES = (
    *("aria", "deepseek_ocr2", "dots3_note", "ernie4_5_vl_moe", "glm4v_moe", "kimi_k25", "llama4", "minimax_m3_vl"),
    *("mistral_large4", "qwen3_5_moe", "qwen3_omni_moe_thinker", "qwen3_vl_moe", "step3p7", "unlimited_ocr"),
)
STYLES = ("qwen3_vl_moe", "llama4", "minimax_m3_vl", "qwen3_5_moe", "ernie4_5_vl_moe", "aria", "deepseek_ocr2")
Inputs = dict[str, Tensor]


@cache
def tiny(model_type: str) -> tuple[Model, Inputs]:
    vlm = build(model_type)
    return as_model(model_type, vlm.module), vlm.encode(pictures())


def as_model(model_type: str, module: Any) -> Model:
    family = find_family(model_type)
    anatomy = find_anatomy(module, family)
    facts = ModelFacts(model_type, "none", model_type, anatomy.n_layers, anatomy.d_mlp)
    return Model(module, None, family, anatomy, facts)


def captured_pass(model: Model, inputs: Inputs) -> tuple[Captured, Tensor]:
    with torch.inference_mode(), capture(model) as captured:
        logits = model.module(**inputs, use_cache=False).logits[:, -1].float()
    return captured, logits


def residual(model: Model, inputs: Inputs) -> float:
    """The largest |residual| / max(|logit|, 1) of the likeliest token of each picture."""
    captured, logits = captured_pass(model, inputs)
    tokens = logits.argmax(-1)
    reading = Reading(torch.arange(len(tokens)), torch.zeros_like(tokens), tokens)
    read = (reading.rows, reading.steps)
    folded = folded_rows(model.anatomy, model.anatomy.w_u(tokens), captured.read(FINAL, ONCE, *read))
    written = written_rows(model.anatomy, folded, ffn_outputs(model.anatomy, captured, reading))
    a, chosen = captured.read_layers(ACTIVATION, *read), captured.chosen(*read)
    scores = contribution(model.anatomy, a, written, chosen)
    budget = logit_budget(model.anatomy, captured, reading, folded, written, scores)
    logit = model.anatomy.uncapped(logits.gather(1, tokens[:, None])[:, 0].double())
    return ((logit - budget.total()).abs() / logit.abs().clamp(min=1)).max().item()


def dense(captured: Captured, values: Tensor, d_mlp: int) -> Tensor:
    """Compact values of all rows as of all units of a layer, 0 where an expert sleeps."""
    read = (torch.arange(len(values)), torch.zeros(len(values), dtype=torch.long))
    units = captured.flat_units(*read)
    assert units is not None
    wide = values.new_zeros(*values.shape[:2], d_mlp + 1)
    return wide.scatter_(2, units.where(units >= 0, d_mlp), values)[..., :d_mlp]


@pytest.mark.parametrize("model_type", TYPES)
def test_the_units_of_all_experts_and_the_other_terms_add_up_to_the_logit(model_type: str) -> None:
    assert residual(*tiny(model_type)) <= ROUNDING


@pytest.mark.parametrize("model_type", TYPES)
def test_swapped_experts_are_caught(model_type: str) -> None:
    model, inputs = tiny(model_type)
    mixtures = list(model.anatomy.mixtures)
    last = mixtures[-1]
    assert last.routed is not None
    swapped = SwappedExperts(**{name: getattr(last.routed, name) for name in last.routed.__dataclass_fields__})
    mixtures[-1] = replace(last, routed=swapped)
    wrong = replace(model, anatomy=replace(model.anatomy, mixtures=tuple(mixtures)))
    assert residual(wrong, inputs) > 1e-4


class SwappedExperts(type(tiny("qwen3_vl_moe")[0].anatomy.mixtures[0].routed)):  # type: ignore[misc]
    """Reads the next expert's output matrix."""

    def w_out(self, expert: int) -> Tensor:
        return super().w_out((expert + 1) % self.n_experts)


def last_experts(model_type: str) -> tuple[Model, Inputs, Captured]:
    model, inputs = tiny(model_type)
    return model, inputs, captured_pass(model, inputs)[0]


@pytest.mark.parametrize("model_type", STYLES)
def test_zeroing_a_unit_of_the_last_layer_takes_exactly_what_it_writes_away(model_type: str) -> None:
    """One routed and one shared unit, of the second picture alone."""
    model, inputs, plain = last_experts(model_type)
    anatomy, last = model.anatomy, model.anatomy.n_layers - 1
    mixture, both = anatomy.mixtures[last], torch.arange(2)
    before = plain.read(FINAL, ONCE, both, torch.zeros(2, dtype=torch.long))
    a = dense(plain, plain.read_layers(ACTIVATION, both, torch.zeros(2, dtype=torch.long)), anatomy.d_mlp)[1, last]
    routed = int(a[: mixture.start].abs().argmax())
    shared = [mixture.start + 3] if mixture.plain is not None else []
    for unit in [routed, *shared]:
        mask = torch.zeros(2, anatomy.n_layers, anatomy.d_mlp, dtype=torch.bool)
        mask[1, last, unit] = True
        found = []
        for factor in (0.0, 1.0, 2.0):
            with ablate(model, mask, factor):
                found.append(captured_pass(model, inputs)[0].read(FINAL, ONCE, both, torch.zeros(2, dtype=torch.long)))
        after, same, doubled = found
        written = a[unit] * anatomy.columns(last, torch.tensor([unit]))[:, 0]
        assert torch.equal(same, before), "a factor of 1 changes nothing, bit for bit"
        torch.testing.assert_close(doubled[1] - before[1], written, rtol=1e-4, atol=2e-6)
        assert torch.equal(after[0], before[0])
        assert written.abs().max() > 1e-5
        torch.testing.assert_close(after[1] - before[1], -written, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("model_type", STYLES)
def test_zeroing_units_of_all_layers_is_taking_their_columns_away(model_type: str) -> None:
    model, inputs = tiny(model_type)
    torch.manual_seed(1)
    mask = torch.rand(2, model.anatomy.n_layers, model.anatomy.d_mlp) < 0.3
    for layer, width in enumerate(model.anatomy.widths):
        mask[:, layer, width:] = False
    mask[0] = False
    with torch.inference_mode(), ablate(model, mask):
        hooked = model.module(**inputs, use_cache=False).logits[1, -1]
    with without_columns(model, mask[1]), torch.inference_mode():
        changed = model.module(**inputs, use_cache=False).logits[1, -1]
    assert not torch.allclose(hooked, captured_pass(model, inputs)[1][1], atol=1e-3)
    torch.testing.assert_close(hooked, changed, rtol=1e-4, atol=1e-4)


@contextmanager
def without_columns(model: Model, mask: Tensor) -> Iterator[None]:
    """The weights changed for real."""
    kept = {name: value.clone() for name, value in model.module.state_dict().items()}
    for layer, mixture in enumerate(model.anatomy.mixtures):
        for unit in mask[layer].nonzero()[:, 0].tolist():
            mixture.column(unit).zero_()
    try:
        yield
    finally:
        model.module.load_state_dict(kept)


@pytest.mark.parametrize("model_type", STYLES)
def test_noise_on_columns_is_the_same_as_other_weights(model_type: str) -> None:
    """Routed and shared units of one layer, for the second picture alone."""
    model, inputs, plain = last_experts(model_type)
    layer = model.anatomy.n_layers - 1
    mixture = model.anatomy.mixtures[layer]
    chosen = plain.chosen(torch.tensor([1]), torch.tensor([0]))[layer][0]
    assert mixture.routed is not None
    units = torch.tensor([int(chosen[0]) * mixture.routed.d_expert + 2, mixture.n_units - 1])
    delta = torch.randn(2, model.anatomy.unembedding.in_features)
    added = AddedColumns(layer, torch.tensor([1]), units, delta, torch.tensor([[0.5, 2.0]]))
    with torch.inference_mode(), add_to_columns(model, 2, [added]):
        hooked = model.module(**inputs, use_cache=False).logits[:, -1]
    columns = [mixture.column(int(unit)) for unit in units]
    kept = [column.clone() for column in columns]
    for column, change, scale in zip(columns, delta, (0.5, 2.0), strict=True):
        column += scale * change
    with torch.inference_mode():
        changed = model.module(**inputs, use_cache=False).logits[:, -1]
    for column, value in zip(columns, kept, strict=True):
        column.copy_(value)
    plain_logits = captured_pass(model, inputs)[1]
    torch.testing.assert_close(hooked[1], changed[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hooked[0], plain_logits[0], rtol=0, atol=0)
    assert not torch.allclose(hooked[1], plain_logits[1], atol=1e-3)


@pytest.mark.parametrize("model_type", STYLES)
def test_chosen_units_at_every_position_are_those_of_the_last_one_and_of_no_other_expert(model_type: str) -> None:
    model, inputs, plain = last_experts(model_type)
    anatomy, both, zero = model.anatomy, torch.arange(2), torch.zeros(2, dtype=torch.long)
    a = dense(plain, plain.read_layers(ACTIVATION, both, zero), anatomy.d_mlp)
    units = [Neuron(layer, unit) for layer in range(anatomy.n_layers) for unit in range(0, anatomy.widths[layer], 5)]
    with torch.inference_mode(), capture_units(model, units) as found:
        model.module(**inputs, use_cache=False)
    read = found.read()
    expected = torch.stack([a[:, one.layer, one.unit] for one in units], dim=1)
    assert read.shape[:2] == inputs["input_ids"].shape
    torch.testing.assert_close(read[:, -1], expected, rtol=1e-5, atol=1e-6)
    assert (expected == 0).any()
    assert (read[:, :-1] != 0).any()


@pytest.mark.parametrize("model_type", STYLES)
def test_a_ranking_is_that_of_all_units_where_sleeping_experts_are_zeros(model_type: str) -> None:
    """Sleeping units have no rank: what is awake keeps its order, and suppressors are the very same."""
    model, _, plain = last_experts(model_type)
    anatomy, both, zero = model.anatomy, torch.arange(2), torch.zeros(2, dtype=torch.long)
    a, units = plain.read_layers(ACTIVATION, both, zero), plain.flat_units(both, zero)
    rows = anatomy.w_u(torch.tensor([7, 11]))
    scored = Scored(contribution(anatomy, a, rows, plain.chosen(both, zero)), a, units=units)
    ranked = rank_units(scored.score, 10_000, 20, scored.is_unit)
    flat, n_awake = scored.flat(ranked.unit, anatomy.d_mlp), anatomy.n_awake
    w_out = torch.zeros(anatomy.n_layers, rows.shape[1], anatomy.d_mlp)
    for layer, width in enumerate(anatomy.widths):
        w_out[layer, :, :width] = anatomy.w_out(layer)
    reference = torch.einsum("nd,ldm->nlm", rows, w_out) * dense(plain, a, anatomy.d_mlp)
    wide = rank_units(reference, reference[0].numel(), 20)
    for row in range(2):
        awake = flat[row, :n_awake]
        assert len(set(awake.tolist())) == n_awake
        in_order = [unit for unit in wide.unit[row, :-20].tolist() if unit in set(awake.tolist())]
        n_same = sum(x == y for x, y in zip(awake.tolist(), in_order, strict=True))
        assert n_same >= n_awake - 4  # two that differ by rounding may change places
        assert flat[row, n_awake:].tolist() == wide.unit[row, -20:].tolist()
        torch.testing.assert_close(ranked.score[row, n_awake:], wide.score[row, -20:], rtol=1e-4, atol=1e-6)


def test_what_is_kept_does_not_grow_with_experts_that_sleep() -> None:
    model, _, plain = last_experts("qwen3_vl_moe")
    routed = model.anatomy.mixtures[0].routed
    assert routed is not None
    assert plain.steps[ACTIVATION, 0][0].shape == (2, routed.n_chosen * routed.d_expert)
    assert plain.steps[EXPERTS, 0][0].shape == (2, routed.n_chosen)
    assert routed.n_chosen < routed.n_experts


def test_what_the_picture_brought_counts_experts_that_are_awake_in_one_of_the_two_alone() -> None:
    units, blank_units = torch.tensor([[[0, 1, 4, 5]]]), torch.tensor([[[0, 1, 2, 3]]])
    original = Scored(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.ones(1, 1, 4), units=units)
    blank = Scored(torch.tensor([[[0.5, 0.5, 7.0, -9.0]]]), torch.ones(1, 1, 4), units=blank_units)
    wider, difference = brought(original, blank)
    assert wider.units is not None
    assert wider.is_unit is not None
    found = dict(zip(wider.units[wider.is_unit].tolist(), difference[wider.is_unit].tolist(), strict=True))
    assert found == {0: 0.5, 1: 1.5, 2: -7.0, 3: 9.0, 4: 3.0, 5: 4.0}
    assert wider.activation[0, 0, 6] == 0


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_the_way_that_the_model_computes_its_experts_changes_nothing(implementation: str) -> None:
    vlm = build("qwen3_vl_moe")
    module: Any = vlm.module
    module.set_experts_implementation(implementation)
    assert residual(as_model("qwen3_vl_moe", module), vlm.encode(pictures())) <= ROUNDING


def test_layers_without_an_ffn_have_no_units() -> None:
    module = build("nemotron_h_omni").module
    anatomy = find_anatomy(module, find_family("nemotron_h_omni"))
    kinds = [
        (attention is not None, width > 0) for attention, width in zip(anatomy.attentions, anatomy.widths, strict=True)
    ]
    assert set(kinds) == {(True, False), (False, True)}, "each layer is either attention or an FFN"
    assert anatomy.w_out(kinds.index((True, False))).shape[1] == 0


def test_experts_with_norms_of_their_own_are_read_through_them() -> None:
    module = build("gemma4").module
    anatomy = find_anatomy(module, find_family("gemma4"))
    for mixture, layer in zip(anatomy.mixtures, anatomy.layers, strict=True):
        assert mixture.inner_norms == (layer.post_feedforward_layernorm_2, layer.post_feedforward_layernorm_1)
        assert mixture.routed is not None
        assert mixture.routed.n_chosen == 2


# ---- a run


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA on a Mixtral of 3 × 5 × 48 units, of which a token goes through 2 × 48 a layer."""
    more = {"num_local_experts": 5, "num_experts_per_tok": 2}
    return save_tiny_llava(tmp_path_factory.mktemp("mixtral"), text_type=hf.MixtralConfig, more=more)


@pytest.mark.parametrize("method", [names.INTEGRATED_GRADIENTS, "random-matched:integrated-gradients"])
def test_methods_that_are_not_there_for_experts_are_refused_before_anything_runs(
    mixtral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    words = ["score", "--model", str(mixtral), "--images", "gallery", "--limit", "1", "--methods", method]
    assert main([*words, "--cache", str(tmp_path), "--progress", "none"]) != 0
    assert f"--methods {method} is not there for mixtures of experts" in capsys.readouterr().err


def test_units_are_named_by_their_expert() -> None:
    widths = (0, 48, 48)
    assert unit_name(Neuron(1, 3 * 48 + 20), widths) == "L1.e3.u20"
    assert unit_name(Neuron(0, 164), widths) == "L0.u164"
    assert named_unit("L1.e3.u20", widths) == Neuron(1, 164)
    assert named_unit("L1.u164", widths) == Neuron(1, 164)
    with pytest.raises(UsageError, match="experts of layer 0 have 0 units"):
        named_unit("L0.e1.u3", widths)
    assert str(parse_unit("L1.e3.u20")) == "L1.e3.u20"
    assert parse_unit("L1.u164") == Neuron(1, 164)
    with pytest.raises(UsageError, match="is not a unit"):
        parse_unit("L1.e3")
