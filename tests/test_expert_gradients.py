"""Attribution in mixtures of experts against autograd through plain sums over all experts, those that sleep too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.scores.gradients import Question, attribute
from tests.test_experts import Inputs, tiny

QUESTIONS = (Question(1, 0, 17), Question(0, 0, 30))


@dataclass
class Plain:
    """One pass that computes every expert at every token: by layer z, a (router's weight in it) and what a is read by.

    Of routed experts they are "E t m", with a weight of 0 where a token does not go through one; beside them as made.
    """

    z: dict[int, Tensor] = field(default_factory=dict)
    a: dict[int, Tensor] = field(default_factory=dict)
    own_z: dict[int, Tensor] = field(default_factory=dict)
    own_a: dict[int, Tensor] = field(default_factory=dict)
    gate: dict[int, Tensor] = field(default_factory=dict)
    act: dict[int, Tensor] = field(default_factory=dict)  # act(gate) of routed experts with the router's weight
    kept: dict[int, Tensor] = field(default_factory=dict)  # what a is multiplied by
    held: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # where a is at a value instead, and at which
    experts: dict[int, list[Tensor]] = field(default_factory=dict)  # a, one expert's after the other's

    def routed(self, layer: int, experts: Any, turned: bool, x: Tensor, *given: Tensor) -> Tensor:
        """`given` are the experts of each token and their weights; without, x has a weighed copy for each expert."""
        n = len(experts.down_proj)
        each = x.expand(n, *x.shape) if given else x.view(n, -1, x.shape[-1])
        weight = torch.zeros(len(x), n).scatter(1, *given).T[..., None] if given else 1.0
        w_in, w_out = (w if turned else w.transpose(1, 2) for w in (experts.gate_up_proj, experts.down_proj))
        self.z[layer], up = (each @ w_in).chunk(2, dim=-1)
        rule = getattr(experts, "_apply_gate", None)
        h = rule(torch.cat([self.z[layer], up], -1)) if rule else experts.act_fn(self.z[layer]) * up
        self.act[layer] = experts.act_fn(self.z[layer]) * weight if hasattr(experts, "act_fn") else self.z[layer]
        self.a[layer] = h * weight * self.kept.get(layer, 1.0)
        if layer in self.held:
            is_held, value = self.held[layer]
            self.a[layer] = torch.where(is_held, value, self.a[layer])
        self.experts[layer] = list(self.a[layer])
        written = torch.stack([a @ w for a, w in zip(self.experts[layer], w_out, strict=True)])
        return written.sum(0) if given else written.flatten(0, 1)


@contextmanager
def plainly(model: Model) -> Iterator[Plain]:
    """Runs the model inside the block so; its first layer's parameters begin the graph."""
    plain, beginning = Plain(), next(model.anatomy.layers[0].parameters())
    with ExitStack() as stack:
        stack.callback(beginning.requires_grad_, False)
        beginning.requires_grad_()
        for layer, one in enumerate(model.anatomy.mixtures):
            if one.routed is not None:
                experts, turned = one.routed.module, one.routed.layout == "e m d"
                experts.forward = lambda *given, of=(layer, experts, turned): plain.routed(*of, *given)
                stack.callback(delattr, experts, "forward")
            parts: Any = list(model.anatomy.layers[layer].modules())
            for holder in [part for part in parts if any(child is one.plain for child in part.children())]:
                reads = getattr(holder, "gate_proj", None) or holder.gate_up_proj
                stack.callback(keep(reads, plain.own_z, layer).remove)
                stack.callback(keep(holder.down_proj, plain.own_a, layer, of_input=True).remove)
            if one.gate is not None:
                stack.callback(keep(one.gate, plain.gate, layer).remove)
        with torch.enable_grad():
            yield plain


def keep(module: Any, values: dict[int, Tensor], layer: int, of_input: bool = False) -> Any:
    def hook(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        values[layer] = given[0] if of_input else output

    return module.register_forward_hook(hook)


def every_unit(model: Model, inputs: Inputs, asked: Question) -> dict[str, Tensor]:
    """Of all units of the layers but the last, at each image token of a row: a, a · ∂y/∂a and z · ∂y/∂z, "p L1 m"."""
    with plainly(model) as plain:
        logits = model.module(**inputs, use_cache=False).logits
    n = inputs["input_ids"].shape[1]
    y = model.anatomy.uncapped(logits[asked.row, n - 1 + asked.position, asked.token_id])
    places = image_positions(model, inputs)[asked.row].nonzero()[:, 0]
    found = {
        name: torch.zeros(len(places), model.anatomy.n_layers - 1, model.anatomy.d_mlp)
        for name in ("a", "attribution-act", "attribution")
    }

    def product(value: Tensor) -> Tensor:
        return (value * torch.autograd.grad(y, value, retain_graph=True)[0]).detach()

    for layer, one in enumerate(model.anatomy.mixtures[:-1]):
        if one.routed is not None:
            a, z = plain.a[layer], plain.z[layer]
            values = (a.detach() * one.routed.factor, product(a), product(z))
            for into, value in zip(found.values(), values, strict=True):
                into[:, layer, : one.start] = value[:, asked.row * n + places].transpose(0, 1).flatten(1)
        if one.plain is not None:
            a, z = plain.own_a[layer], plain.own_z[layer]
            weighed = a.detach() * plain.gate[layer].sigmoid() if one.gate is not None else a.detach()
            for into, value in zip(found.values(), (weighed, product(a), product(z)), strict=True):
                own = value.reshape(2, n, -1)[asked.row, places, : one.plain.in_features]
                into[:, layer, one.start : one.n_units] = own
    return found


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "llama4", "minimax_m3_vl", "qwen3_5_moe"])
def test_attribution_is_that_of_a_model_that_computes_every_expert(model_type: str) -> None:
    """Of two pictures, each asked about another word; what sleeps at all image tokens has 0 there and no score here."""
    model, inputs = tiny(model_type)
    plain = [every_unit(model, inputs, asked) for asked in QUESTIONS]
    for method in ("attribution", "attribution-act"):
        found = attribute(model, inputs, [[], []], QUESTIONS, of_activation=method == "attribution-act")
        assert found.units is not None
        for index, of_all in enumerate(plain):
            product, best = of_all[method], of_all[method].max(0).values
            is_unit = found.units[index] >= 0
            layer, _ = is_unit.nonzero(as_tuple=True)
            unit, token = found.units[index][is_unit], found.token_position[index][is_unit]
            score, atol = found.score[index][is_unit], 1e-5 * float(best.max())
            torch.testing.assert_close(score, best[layer, unit], rtol=1e-3, atol=atol)
            torch.testing.assert_close(score, product[token, layer, unit], rtol=1e-3, atol=atol)
            a = found.activation[index][is_unit]
            torch.testing.assert_close(a, of_all["a"][token, layer, unit], rtol=1e-3, atol=1e-6)
            is_scored = torch.zeros(best.shape, dtype=torch.bool)
            is_scored[layer, unit] = True
            assert torch.equal(is_scored, (of_all["a"] != 0).any(0))
            assert score.max() > 0
