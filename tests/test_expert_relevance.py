"""RelP in mixtures of experts, against a plain pass through all experts that has its rules written into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.scores.gradients import Question
from mmn.scores.methods import require_method
from mmn.scores.relevance import relevance
from tests.test_experts import Inputs, tiny

CAPTIONS = [(11, 12, 13), (21, 22)]
QUESTIONS = [Question(0, 1, 17), Question(1, 0, 30), Question(0, 2, 9)]


class WithRules:
    """Plain forward functions of parts, by RelP's rules; by layer a of all units, one tensor for each expert."""

    def __init__(self) -> None:
        self.routed: dict[int, list[Tensor]] = {}
        self.own: dict[int, list[Tensor]] = {}

    def norm(self, module: Any, x: Tensor) -> Tensor:
        eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt().detach() * module.weight

    def product(self, gate: Tensor, up: Tensor) -> Tensor:
        act = gate * gate.sigmoid().detach()
        return (act * up.detach() + act.detach() * up) / 2

    def ffn(self, layer: int, module: Any, x: Tensor) -> Tensor:
        a = self.product(module.gate_proj(x), module.up_proj(x))
        self.own[layer] = [a]
        return module.down_proj(a)

    def experts(self, layer: int, module: Any, turned: bool, x: Tensor, *chosen: Tensor) -> Tensor:
        """`chosen`: the experts of each token and their weights; without, x has a weighed copy for each expert."""
        n = len(module.down_proj)
        each = x.expand(n, *x.shape) if chosen else x.view(n, -1, x.shape[-1])
        w_in, w_out = (w if turned else w.transpose(1, 2) for w in (module.gate_up_proj, module.down_proj))
        a = self.product(*(each @ w_in).chunk(2, dim=-1))
        if chosen:
            a = a * torch.zeros(len(x), n).scatter(1, *chosen).T[..., None].detach()
        self.routed[layer] = list(a)
        written = torch.stack([one @ w for one, w in zip(self.routed[layer], w_out, strict=True)])
        return written.sum(0) if chosen else written.flatten(0, 1)


@contextmanager
def with_rules(model: Model) -> Iterator[WithRules]:
    """The model's own classes with other forward functions inside the block."""
    rules = WithRules()
    with ExitStack() as stack:

        def put(module: Any, forward: Callable[..., Any]) -> None:
            module.forward = forward
            stack.callback(delattr, module, "forward")

        def cut(module: nn.Module) -> None:
            plain = module.forward
            put(module, lambda *given: detached(plain(*given)))

        put(model.anatomy.final_norm, lambda x: rules.norm(model.anatomy.final_norm, x))
        for number, (layer, one) in enumerate(zip(model.anatomy.layers, model.anatomy.mixtures, strict=True)):
            parts: Any = layer
            for norm in (parts.input_layernorm, parts.post_attention_layernorm):
                put(norm, lambda x, norm=norm: rules.norm(norm, x))
            cut(parts.self_attn.q_proj)
            cut(parts.self_attn.k_proj)
            if one.routed is not None:
                experts, turned = one.routed.module, one.routed.layout == "e m d"
                put(experts, lambda *given, of=(number, experts, turned): rules.experts(*of, *given))
                block = parts.feed_forward if hasattr(parts, "feed_forward") else parts.mlp
                cut(block.router if hasattr(block, "router") else block.gate)
            for part in layer.modules():
                if one.plain is not None and any(child is one.plain for child in part.children()):
                    put(part, lambda x, number=number, part=part: rules.ffn(number, part, x))
        yield rules


def detached(output: Any) -> Any:
    return tuple(map(detached, output)) if isinstance(output, tuple) else output.detach()


def every_unit(model: Model, inputs: Inputs, asked: Question) -> Tensor:
    """Σ_p a · gradient of all units of all layers, "L m"."""
    whole = with_captions(model, inputs, CAPTIONS)
    beginning: Any = model.anatomy.layers[0]
    handle = beginning.register_forward_pre_hook(
        lambda _module, args, kwargs: ((args[0].requires_grad_(), *args[1:]), kwargs), with_kwargs=True
    )
    try:
        with with_rules(model) as rules, torch.enable_grad():
            logits = model.module(**whole, use_cache=False).logits
    finally:
        handle.remove()
    n = whole["input_ids"].shape[1]
    y = logits[asked.row, inputs["input_ids"].shape[1] - 1 + asked.position, asked.token_id]
    found = torch.zeros(model.anatomy.n_layers, model.anatomy.d_mlp)
    for layer in range(model.anatomy.n_layers):
        parts = [*rules.routed.get(layer, []), *rules.own.get(layer, [])]
        gradients = torch.autograd.grad(y, parts, retain_graph=True)
        sums = [(a * g).detach().reshape(2, n, -1)[asked.row].sum(0) for a, g in zip(parts, gradients, strict=True)]
        found[layer, : sum(map(len, sums))] = torch.cat(sums)
    return found


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "llama4", "glm4v_moe"])
def test_relp_is_that_of_a_model_that_computes_every_expert(model_type: str) -> None:
    """Of units that no token up to the noun woke it is 0, and they have no score."""
    model, inputs = tiny(model_type)
    found = relevance(model, inputs, CAPTIONS, QUESTIONS)
    assert found.units is not None
    for index, asked in enumerate(QUESTIONS):
        expected = every_unit(model, inputs, asked)
        is_unit = found.units[index] >= 0
        layer, _ = is_unit.nonzero(as_tuple=True)
        unit = found.units[index][is_unit]
        atol = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(found.score[index][is_unit], expected[layer, unit], rtol=1e-3, atol=atol)
        without = expected.index_put((layer, unit), torch.zeros(len(unit)))
        assert without.abs().max() == 0
        assert expected.abs().max() > 1e-3
        assert (found.units[index].diff(dim=1)[is_unit[:, 1:]] > 0).all(), "ascending"


@pytest.mark.parametrize("model_type", ["aria", "deepseek_ocr2", "qwen3_vl_moe", "llama4", "step3p7"])
def test_what_enters_the_decoder_is_the_logit_with_the_routers_weights_constant(model_type: str) -> None:
    model, inputs = tiny(model_type)
    found = relevance(model, inputs, CAPTIONS, QUESTIONS)
    with torch.inference_mode():
        logits = model.anatomy.uncapped(model.module(**with_captions(model, inputs, CAPTIONS)).logits)
    for asked, logit, total in zip(QUESTIONS, found.logit.tolist(), found.total.tolist(), strict=True):
        said = logits[asked.row, inputs["input_ids"].shape[1] - 1 + asked.position, asked.token_id].item()
        assert logit == pytest.approx(said, abs=2e-6 * max(1, abs(said)))
        assert total == pytest.approx(logit, abs=2e-6 * max(1, abs(said)))


def test_a_router_that_is_not_constant_is_missed_from_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 4's is on what its experts read, so that its own gradient would be handed on, too."""
    model, inputs = tiny("llama4")
    monkeypatch.setattr("mmn.reading.hooks.relevance._weighing", lambda _mixture: [])
    monkeypatch.setattr("mmn.reading.hooks.relevance._constant", lambda _module, _args, _output: None)
    found = relevance(model, inputs, CAPTIONS, QUESTIONS)
    assert (found.logit - found.total).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("ernie4_5_vl_moe", "its image tokens go through experts that are no units"),
        ("minimax_m3_vl", "no rule is known for the experts of layer 0"),
        ("qwen3_5_moe", r"no rule is known for linear_attn"),
    ],
)
def test_relp_of_parts_without_a_rule_is_refused(model_type: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        require_method(tiny(model_type)[0], "relp")
