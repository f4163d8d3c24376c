"""Circuits of mixtures of experts, against plain passes through all experts with routing as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from mmn.core import Neuron, unit_name
from mmn.errors import UsageError
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.hooks import ablate, hold
from mmn.reading.rows import some_of
from mmn.scores.gradients import Question
from mmn.scores.relevance import relevance
from mmn.studies.circuits.faithfulness import (
    MeanActivations,
    Row,
    experts_of,
    groups_of,
    measure_rows,
    orders,
    rows_of,
)
from mmn.studies.circuits.find import Circuit, Flows, find_circuit, most_kept
from mmn.studies.circuits.measure import _edge_rows
from mmn.studies.circuits.passes import Shown, Target
from mmn.studies.circuits.rules import RULES
from mmn.studies.circuits.tables import ABLATED, KEPT
from mmn.studies.degradation.interventions import logits_at
from tests.families.test_build import pictures
from tests.families.test_exact import load
from tests.simulated_devices import SimulatedDevices
from tests.test_expert_gradients import plainly
from tests.test_expert_relevance import with_rules
from tests.test_experts import Inputs, tiny
from tests.test_placement import over_two_gpus
from tests.tiny import save_tiny_llava

CAPTIONS, TOKENS = ((11, 12), (13,)), (17, 30)
K = 3


@cache
def found(model_type: str, rule: str) -> Circuit:
    model, inputs = tiny(model_type)
    return find_circuit(model, Shown(inputs, CAPTIONS, TOKENS), RULES[rule], K)


def questions_asked(model: Model, inputs: Inputs) -> Tensor:
    """The logits of both pictures' tokens."""
    logits = model.module(**with_captions(model, inputs, CAPTIONS), use_cache=False).logits
    n = inputs["input_ids"].shape[1] - 1
    asked = enumerate(zip(CAPTIONS, TOKENS, strict=True))
    return torch.stack([model.anatomy.uncapped(logits[row, n + len(before), token]) for row, (before, token) in asked])


# ---- edges and scores


@dataclass
class Part:
    """a of one expert, or of what is beside them; and the same again, with the gate on what it writes, over itself."""

    a: Tensor
    gated: Tensor


@dataclass
class Reference:
    """A plain pass with its graph; the parts of all layers."""

    layers: list[list[Part]]
    embedding: Tensor
    y: Tensor

    def place(self, of: Target) -> tuple[Part, int]:
        unit = of.unit
        for part in self.layers[of.layer]:
            if unit < part.a.shape[-1]:
                return part, unit
            unit -= part.a.shape[-1]
        raise AssertionError(of)

    def taken(self, of: Target) -> Tensor:
        """W of a unit."""
        part, unit = self.place(of)
        return torch.autograd.grad(self.y.sum(), part.a, retain_graph=True)[0][..., unit]

    def flows(self, of: Target, w: Tensor, sources: list[Tensor]) -> Tensor:
        """`passing` into Σ w · a of a unit."""
        part, unit = self.place(of)
        return self.passing((w * part.gated[..., unit]).sum(), sources)

    @staticmethod
    def passing(y: Tensor, sources: list[Tensor]) -> Tensor:
        """Returns source · ∂y/∂source, "rows positions n", the sources side by side."""
        gradients = torch.autograd.grad(y, sources, retain_graph=True, materialize_grads=True)
        products = [(source * of).detach() for source, of in zip(sources, gradients, strict=True)]
        return torch.cat([one.reshape(len(CAPTIONS), -1, one.shape[-1]) for one in products], dim=-1)

    def units(self, layer: int) -> list[Tensor]:
        return [part.a for part in self.layers[layer]]


@contextmanager
def plain_parts(model: Model, rule: str) -> Iterator[Callable[[int], list[Part]]]:
    """What tells a layer's parts once the pass in the block has run."""
    if rule == "relp":
        with with_rules(model) as rules:
            yield lambda layer: [Part(a, a) for a in (*rules.routed.get(layer, []), *rules.own.get(layer, []))]
        return
    with plainly(model) as plain:

        def of_layer(layer: int) -> list[Part]:
            own = plain.own_a.get(layer)
            gate = plain.gate[layer].sigmoid() if layer in plain.gate else torch.ones(1)
            beside = [] if own is None else [Part(own, own * gate / gate.detach())]
            if layer not in plain.a:
                return beside
            return [*(Part(a, a) for a in plain.experts[layer]), *beside]

        yield of_layer


def reference(model: Model, inputs: Inputs, rule: str, with_attention: bool) -> Reference:
    """`with_attention`: whether a gradient goes through what attention adds."""
    embedding: list[Tensor] = []

    def begin(_module: Any, args: Any, kwargs: Any) -> Any:
        embedding.append((args[0] if args else kwargs["hidden_states"]).detach().requires_grad_())
        return ((embedding[0], *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": embedding[0]})

    def cut(_module: Any, _args: Any, output: Any) -> Any:
        return (output[0].detach(), *output[1:]) if isinstance(output, tuple) else output.detach()

    with ExitStack() as stack:
        first: Any = model.anatomy.layers[0]
        stack.callback(first.register_forward_pre_hook(begin, with_kwargs=True).remove)
        for attention in () if with_attention else model.anatomy.attentions:
            assert attention is not None
            stack.callback(attention.register_forward_hook(cut).remove)
        parts = stack.enter_context(plain_parts(model, rule))
        with torch.enable_grad():
            y = questions_asked(model, inputs)
    return Reference([parts(layer) for layer in range(model.anatomy.n_layers)], embedding[0], y)


@pytest.mark.parametrize(
    ("model_type", "rule"),
    [("llama4", "rajaram"), ("qwen3_5_moe", "rajaram"), ("minimax_m3_vl", "rajaram"), ("llama4", "relp")],
)
def test_edges_and_scores_are_those_of_a_model_that_computes_every_expert(model_type: str, rule: str) -> None:
    """Weights with the router's on what experts read, behind a gate, or multiplied once more; each by layer."""
    model, inputs = tiny(model_type)
    circuit = found(model_type, rule)
    whole, around = (reference(model, inputs, rule, with_attention) for with_attention in (True, False))
    torch.testing.assert_close(circuit.logit, whole.y.detach(), rtol=1e-5, atol=1e-6)
    for number, layer in enumerate(circuit.layers):
        targets = [Target(layer, unit) for unit in circuit.kept[number].tolist()]
        sizes = []
        for target, flows in zip(targets, circuit.into[number], strict=True):
            w = whole.taken(target)
            both = (whole, around)
            if number:
                flow, near = (one.flows(target, w, one.units(layer - 1)) for one in both)
                sizes.append(flow.abs().sum(1).mean(0))
                kept = circuit.kept[number - 1]
                as_expected(flows, flow[..., kept], near[..., kept])
            else:
                flow, near = (one.flows(target, w, [one.embedding]).sum(-1, keepdim=True) for one in both)
                assert model.image_token_id is not None
                is_image = with_captions(model, inputs, CAPTIONS)["input_ids"].eq(model.image_token_id)
                kinds = torch.stack([is_image, ~is_image], dim=-1)
                as_expected(flows, flow * kinds, near * kinds)
        if number:
            score = torch.stack(sizes).sum(0)
            torch.testing.assert_close(circuit.score[layer - 1][: len(score)], score, rtol=1e-3, atol=1e-6)
            assert score[circuit.kept[number - 1]].min() >= score.topk(K).values.min() * (1 - 1e-4)
        effect = [(whole.taken(one) * whole.place(one)[0].a[..., whole.place(one)[1]]) for one in targets]
        by_row = torch.stack([one.reshape(len(CAPTIONS), -1).sum(1) for one in effect], dim=1).detach()
        torch.testing.assert_close(circuit.effect[:, number], by_row, rtol=1e-3, atol=1e-6)
    score = whole.passing(whole.y.sum(), whole.units(model.anatomy.n_layers - 1)).abs().sum(1).mean(0)
    torch.testing.assert_close(circuit.score[-1], score, rtol=1e-3, atol=1e-6)
    assert (score == 0).any(), "experts that neither noun's token goes through"
    (into_noun,) = circuit.into[-1]
    torch.testing.assert_close(into_noun.weight, circuit.effect[:, -1], rtol=1e-4, atol=1e-7)
    assert into_noun.far.sum() == 0, "nothing follows the last layer but the noun"


def as_expected(flows: Flows, flow: Tensor, near: Tensor) -> None:
    """Σ over positions; the margins are of what passes at all."""
    far = flow - near
    assert far.abs().sum() > 0
    for name, expected in (("weight", flow), ("size", flow.abs()), ("far", far.abs()), ("near", near.abs())):
        margin = 1e-4 * float(flow.abs().sum(1).max())
        torch.testing.assert_close(getattr(flows, name), expected.sum(1), rtol=1e-3, atol=margin)


def test_by_relp_nothing_is_lost_on_the_way_and_effects_are_its_scores() -> None:
    """No bias in this decoder, and routers' weights are constant."""
    model, inputs = tiny("qwen3_vl_moe")
    circuit, plain = found("qwen3_vl_moe", "relp"), found("qwen3_vl_moe", "rajaram")
    questions = [
        Question(row, len(before), token) for row, (before, token) in enumerate(zip(CAPTIONS, TOKENS, strict=True))
    ]
    scores = relevance(model, inputs, CAPTIONS, questions)
    assert scores.units is not None
    for row in range(len(CAPTIONS)):
        for layer, units in enumerate(circuit.kept.tolist()):
            own = dict(zip(scores.units[row, layer].tolist(), scores.score[row, layer].tolist(), strict=True))
            assert circuit.effect[row, layer].tolist() == pytest.approx(
                [own.get(unit, 0.0) for unit in units], rel=1e-3, abs=1e-7
            )
    entered, lost = (torch.stack([flows.weight.sum(1) for flows in one.into[0]], dim=1) for one in (circuit, plain))
    torch.testing.assert_close(entered, circuit.effect[:, 0], rtol=1e-4, atol=1e-7)
    assert (lost - plain.effect[:, 0]).abs().max() > 1e-3


def test_an_edge_goes_over_layers_that_have_no_units() -> None:
    """Effects against units that are a little more and a little less active at every position."""
    model, inputs = load("nemotron_h_omni")
    circuit = find_circuit(model, Shown(inputs, CAPTIONS, TOKENS), RULES["rajaram"], 2)
    with_units = [layer for layer, width in enumerate(model.anatomy.widths) if width]
    assert list(circuit.layers) == with_units != list(range(model.anatomy.n_layers))
    names = [
        [unit_name(Neuron(layer, unit), model.anatomy.d_experts) for unit in units]
        for layer, units in zip(circuit.layers, circuit.kept.tolist(), strict=True)
    ]
    edges = {(row["source"], row["target"]) for row in _edge_rows(circuit, model.anatomy.d_experts)}
    assert {(source, target) for source in names[0] for target in names[1]} <= edges
    mask = torch.zeros(2, model.anatomy.n_layers, model.anatomy.d_mlp, dtype=torch.bool)
    mask[:, circuit.layers[0], circuit.kept[0, 0]] = True
    found = []
    for factor in (1.05, 0.95):
        with torch.inference_mode(), ablate(model, mask, factor):
            found.append(questions_asked(model, inputs))
    torch.testing.assert_close((found[0] - found[1]) / 0.1, circuit.effect[:, 0, 0], rtol=0.02, atol=1e-5)


def test_what_has_no_rule_is_refused_and_a_token_goes_through_so_many_units() -> None:
    model, inputs = tiny("ernie4_5_vl_moe")
    with pytest.raises(UsageError, match="its image tokens go through experts of their own"):
        find_circuit(model, Shown(inputs, CAPTIONS, TOKENS), RULES["rajaram"], 1)
    model, inputs = tiny("minimax_m3_vl")
    with pytest.raises(UsageError, match="no rule is known for the experts of layer 0"):
        find_circuit(model, Shown(inputs, CAPTIONS, TOKENS), RULES["relp"], 1)
    assert most_kept(tiny("glm4v_moe")[0]) == 72


# ---- what is kept, and what is held


def held_plainly(model: Model, inputs: Inputs, mask: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Logits with masked units at their mean over both rows' positions of a group; and these means, by group."""
    is_group = torch.nn.functional.one_hot(groups).float()
    with plainly(model) as plain:
        model.module(**inputs, use_cache=False)
    n = len(groups)
    means = torch.zeros(is_group.shape[1], model.anatomy.n_layers, model.anatomy.d_mlp)

    def mean_of(values: Tensor) -> Tensor:
        return (is_group / is_group.sum(0)).T @ values.detach().reshape(2, n, -1).mean(0)

    with ExitStack() as stack:
        again = stack.enter_context(plainly(model))
        for layer, one in enumerate(model.anatomy.mixtures):
            if one.routed is not None:
                each = torch.stack([mean_of(a) for a in plain.experts[layer]])  # experts x groups x m
                means[:, layer, : one.start] = each.transpose(0, 1).flatten(1) * one.routed.factor
                at = each[:, groups].repeat(1, 2, 1)
                is_held = mask[:, layer, : one.start].unflatten(1, (one.routed.n_experts, -1)).transpose(0, 1)
                again.held[layer] = is_held.repeat_interleave(n, dim=1), at
            if one.plain is not None:
                own = plain.own_a[layer]
                gate = plain.gate[layer].sigmoid() if one.gate is not None else torch.ones(1)
                mean = mean_of(own * gate)
                means[:, layer, one.start : one.n_units] = mean
                is_held = mask[:, layer, one.start : one.n_units]
                stack.enter_context(holding_beside(model, layer, is_held, mean[groups]))
        return model.module(**inputs, use_cache=False).logits.detach(), means


@contextmanager
def holding_beside(model: Model, layer: int, is_held: Tensor, at: Tensor) -> Iterator[None]:
    """Puts a value in the place of units beside experts, divided by the gate that it will be multiplied by."""
    one = model.anatomy.mixtures[layer]
    (holder,) = (
        part for part in model.anatomy.layers[layer].modules() if any(child is one.plain for child in part.children())
    )
    given: list[Tensor] = []

    def note(_module: Any, args: Any) -> None:
        given[:] = [args[0]]

    def change(_module: Any, args: Any) -> Any:
        gate = torch.ones(1) if one.gate is None else one.gate.forward(given[0]).sigmoid()
        rows = at / gate.reshape(*([2, -1, 1] if one.gate is not None else [1]))
        changed = torch.where(is_held[:, None], rows, args[0].reshape(2, len(at), -1))
        return (changed.reshape(args[0].shape), *args[1:])

    assert one.plain is not None
    handles = [holder.register_forward_pre_hook(note), one.plain.register_forward_pre_hook(change)]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("model_type", ["llama4", "qwen3_5_moe", "minimax_m3_vl"])
def test_units_are_held_at_their_mean_whatever_experts_tokens_go_through(model_type: str) -> None:
    """Seven of ten units of the second picture; the first computes what it did, bit for bit."""
    model, inputs = tiny(model_type)
    (groups, other), _ = groups_of(model, inputs, [(), ()])
    assert torch.equal(groups, other)
    torch.manual_seed(0)
    mask = torch.rand(2, model.anatomy.n_layers, model.anatomy.d_mlp) < 0.7
    for layer, width in enumerate(model.anatomy.widths):
        mask[:, layer, width:] = False
    mask[0] = False
    expected, means = held_plainly(model, inputs, mask, groups)
    adding = MeanActivations(model)
    adding.add(inputs, [(), ()])
    for group, values in enumerate(adding.means().values):
        if (groups == group).any():  # there is no caption
            torch.testing.assert_close(values, means[group], rtol=1e-4, atol=1e-6)
    with torch.inference_mode():
        untouched = model.module(**inputs, use_cache=False).logits
        with hold(model, mask, adding.means().values, groups):
            found = model.module(**inputs, use_cache=False).logits
    assert torch.equal(found[0], untouched[0])
    assert (found[1] - untouched[1]).abs().max() > 1e-2
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["gemma4", "nemotron_h_omni", "deepseek_ocr2"])
def test_with_every_unit_kept_the_noun_is_the_plain_model_s_bit_for_bit(model_type: str) -> None:
    """Behind norms of experts' own, over layers without units, and beside layers without experts."""
    model, both = load(model_type)
    inputs = some_of(model, both, [0])
    circuit = find_circuit(model, Shown(inputs, CAPTIONS[:1], TOKENS[:1]), RULES["rajaram"], 2)
    adding = MeanActivations(model)
    adding.add(inputs, CAPTIONS[:1])
    sizes = (0, 2, model.anatomy.d_mlp)
    rows = [Row(direction, "circuit", 0, size, circuit.order) for direction in (KEPT, ABLATED) for size in sizes]
    found = measure_rows(model, inputs, CAPTIONS[0], TOKENS[0], rows, adding.means(), 4)
    logits = [row["logit"] for row in found]
    plain = float(logits_at(model, inputs, CAPTIONS[0], [len(CAPTIONS[0])] * 4)[0, TOKENS[0]])
    assert logits[2] == logits[3] == plain
    assert logits[0] == logits[5]
    assert len(set(logits)) == 4
    assert circuit.logit.item() == pytest.approx(model.anatomy.uncapped(torch.tensor(plain)).item(), abs=1e-5)


def test_random_units_are_of_the_same_expert_as_the_circuit_s_own_and_missing_ones_come_last() -> None:
    model, _ = tiny("llama4")
    order, experts, widths = found("llama4", "rajaram").order, experts_of(model), model.anatomy.widths
    assert widths[0] < model.anatomy.d_mlp
    drawn = list(orders(order, None, experts, 0, "i", "dog", 2))
    assert [(selection, draw) for selection, draw, _ in drawn] == [("circuit", 0), ("random", 0), ("random", 1)]
    for _, _, one in drawn:
        assert torch.equal(experts.gather(1, one), experts.gather(1, order))
        assert torch.equal(one.sort(dim=1).values, order.sort(dim=1).values), "each unit once"
        assert (one[0, : widths[0]] < widths[0]).all()
    assert (drawn[1][2] == drawn[2][2]).float().mean() < 0.1
    assert len(set(experts[1].tolist())) == 5


def test_a_mixture_over_two_gpus_has_the_circuit_that_it_has_on_one(tmp_path: Path) -> None:
    more = {"num_local_experts": 6, "num_experts_per_tok": 1, "intermediate_size": 12}
    path = str(save_tiny_llava(tmp_path, text_type=hf.MixtralConfig, more=more))

    def read(model: Model) -> tuple[list[Any], list[float]]:
        model.module.set_experts_implementation("eager")
        inputs = model.encode([pictures()[0]], model.exact_prompt("A picture of"))
        circuit = find_circuit(model, Shown(inputs, CAPTIONS[:1], TOKENS[:1]), RULES["rajaram"], K)
        adding = MeanActivations(model)
        adding.add(inputs, CAPTIONS[:1])
        drawn = orders(circuit.order, None, experts_of(model), 0, "i", "dog", 1)
        rows = measure_rows(model, inputs, CAPTIONS[0], TOKENS[0], rows_of(drawn, [K]), adding.means(), 4)
        return circuit.kept.tolist(), [row["logit"] for row in rows]

    expected = read(load_model(path, dtype="float32", device="cpu"))
    with SimulatedDevices():
        model = load_model(path, dtype="float32", device="cuda")
        assert read(over_two_gpus(model, model.anatomy.layers[1:])) == expected
