"""RelP and integrated gradients against plain computations that are written out here, in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmn.errors import UsageError
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.scores.gradients import Question
from mmn.scores.integrated import STEPS, integrated_gradients
from mmn.scores.methods import require_method
from mmn.scores.relevance import Relevant, relevance, require_conserved
from tests.test_gradients import norms_in_float64
from tests.tiny import build_family

CAPTION = [11, 12, 13, 14]
QUESTIONS = [Question(0, 1, 17), Question(0, 2, 30)]
# Norms behind blocks, a LayerNorm and biases with flattened rows, queries in one matrix with values.
FAMILIES = ("llava on gemma2", "blip-2", "llava on phi3")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_relevance_of_what_enters_the_decoder_and_of_its_biases_is_the_logit(family: str) -> None:
    model, inputs = build_family(family)
    found = relevance(model, inputs, [CAPTION], QUESTIONS)
    with torch.inference_mode():
        logits = model.anatomy.uncapped(model.module(**with_captions(model, inputs, [CAPTION])).logits[0])
    n_prompt = inputs["input_ids"].shape[1]
    for question, logit, total in zip(QUESTIONS, found.logit.tolist(), found.total.tolist(), strict=True):
        said = logits[n_prompt - 1 + question.position, question.token_id].item()
        assert logit == pytest.approx(said, abs=1e-5)
        assert total == pytest.approx(logit, abs=1e-5)


def llama_relevance(model: Model, inputs: dict[str, Tensor], question: Question) -> list[Tensor]:
    """A · gradient of every unit, summed over positions: a Llama's decoder written out with RelP's rules in it."""
    decoder, config = model.module.model.language_model, model.module.config.text_config
    stream = embeddings(model, inputs).requires_grad_(True)
    n = stream.shape[1]
    cos, sin = decoder.rotary_emb(stream, torch.arange(n)[None])
    causal = torch.full((n, n), -torch.inf, dtype=stream.dtype).triu(1)
    seen = []

    def norm(module: Any, x: Tensor) -> Tensor:
        rms = (x.square().mean(-1, keepdim=True) + module.variance_epsilon).sqrt()
        return x / rms.detach() * module.weight

    def heads(x: Tensor, n_heads: int) -> Tensor:
        return x.view(n, n_heads, -1).transpose(0, 1)

    def turned(x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return x * cos[0] + torch.cat([-x[..., half:], x[..., :half]], -1) * sin[0]

    for layer in decoder.layers:
        one = layer.self_attn
        x = norm(layer.input_layernorm, stream)[0]
        n_heads, n_keys = config.num_attention_heads, config.num_key_value_heads
        keys, values = (
            heads(part(x), n_keys).repeat_interleave(n_heads // n_keys, 0) for part in (one.k_proj, one.v_proj)
        )
        scores = turned(heads(one.q_proj(x), n_heads)) @ turned(keys).transpose(1, 2) / one.head_dim**0.5 + causal
        mixed = scores.softmax(-1).detach() @ values
        stream = stream + one.o_proj(mixed.transpose(0, 1).reshape(n, -1))
        x = norm(layer.post_attention_layernorm, stream)
        gate, up = layer.mlp.gate_proj(x), layer.mlp.up_proj(x)
        act = gate * gate.sigmoid().detach()
        a = (act * up.detach() + act.detach() * up) / 2
        seen.append(a)
        stream = stream + layer.mlp.down_proj(a)
    place = inputs["input_ids"].shape[1] - 1 + question.position
    logit = model.module.lm_head(norm(decoder.norm, stream))[0, place, question.token_id]
    return [(a * gradient).sum((0, 1)) for a, gradient in zip(seen, torch.autograd.grad(logit, seen), strict=True)]


def embeddings(model: Model, inputs: dict[str, Tensor]) -> Tensor:
    """What the decoder is given for prompt and caption."""
    found = []
    handle = model.anatomy.decoder.register_forward_pre_hook(
        lambda _module, _args, kwargs: found.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model.module(**with_captions(model, inputs, [CAPTION]))
    handle.remove()
    return found[0].clone()


def in_float64(monkeypatch: pytest.MonkeyPatch) -> tuple[Model, dict[str, Tensor]]:
    model, inputs = build_family("llava")
    norms_in_float64(model.module.double(), monkeypatch)
    return model, {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}


def test_relp_is_that_of_a_llama_written_out_with_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = in_float64(monkeypatch)
    found = relevance(model, inputs, [CAPTION], QUESTIONS)
    for number, question in enumerate(QUESTIONS):
        expected = torch.stack(llama_relevance(model, inputs, question))
        assert torch.allclose(found.score[number].double(), expected, atol=1e-7)
        assert expected.abs().max() > 1e-3


def test_the_rules_are_gone_afterwards_and_rows_do_not_disturb_each_other() -> None:
    model, inputs = build_family("llava")
    alone = relevance(model, inputs, [CAPTION], QUESTIONS[1:])
    n_hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules())
    other = {name: torch.cat([value.flip(-1) if value.ndim == 4 else value, value]) for name, value in inputs.items()}
    both = relevance(model, other, [[21, 22], CAPTION], [Question(1, 2, 30), Question(0, 1, 9), Question(1, 1, 17)])
    assert torch.allclose(both.score[0], alone.score[0], atol=1e-6)
    assert both.total[0].item() == pytest.approx(alone.total[0].item(), abs=1e-6)
    assert n_hooks == sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules())


def test_a_part_without_a_rule_is_refused_by_name() -> None:
    model, _ = build_family("llava")
    loses = Relevant(torch.zeros(1, 1, 1), torch.tensor([2.0]), torch.tensor([1.0]))
    with pytest.raises(UsageError, match=r"relp misses 0\.5 of the logit of 'cat'"):
        require_conserved(model, loses, ["cat"])
    with pytest.raises(UsageError, match="relp is not there for encoder-decoders"):
        require_method(build_family("blip-2 on t5")[0], "relp")
    layer: Any = model.anatomy.layers[1]
    layer.mlp.extra = nn.Softplus()
    with pytest.raises(UsageError, match=r"no rule is known for mlp.extra \(Softplus\)"):
        require_method(model, "relp")
    del layer.mlp.extra
    layer.self_attn.w_pack = layer.self_attn.q_proj
    del layer.self_attn.q_proj
    with pytest.raises(UsageError, match="its attention has no q_proj"):
        require_method(model, "relp")


def plain_path(model: Model, inputs: dict[str, Tensor], question: Question) -> tuple[list[Tensor], float, float]:
    """Conductances by layer, what the inputs add up to, and y(1) − y(0): one α after the other, plain transformers."""
    whole = embeddings(model, inputs)
    at = image_positions(model, inputs)[0].nonzero()[:, 0]
    place = inputs["input_ids"].shape[1] - 1 + question.position
    mean, points = whole[0, at].mean(0), []
    for step in range(STEPS + 1):
        image = (mean + step / STEPS * (whole[0, at] - mean)).requires_grad_(True)
        given = whole.clone()
        seen: list[Tensor] = []
        given[0, at] = image
        handles = [
            out.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(args[0]))
            for out in model.anatomy.ffn_outs
        ]
        logit = model.module.lm_head(model.anatomy.decoder(inputs_embeds=given).last_hidden_state)
        logit = logit[0, place, question.token_id]
        gradients = torch.autograd.grad(logit, [image, *seen[:-1]])
        points.append((image.detach(), [a[0, at].detach() for a in seen[:-1]], gradients, logit.item()))
        for handle in handles:
            handle.remove()
    conductance, total = [torch.zeros_like(a[0]) for a in points[0][1]], 0.0
    for before, here in itertools.pairwise(points):
        total += ((before[2][0] + here[2][0]) / 2 * (here[0] - before[0])).sum().item()
        for layer, one in enumerate(conductance):
            mean_gradient = (before[2][1 + layer][0, at] + here[2][1 + layer][0, at]) / 2
            one += (mean_gradient * (here[1][layer] - before[1][layer])).sum(0)
    return conductance, total, points[-1][3] - points[0][3]


def test_integrated_gradients_are_those_of_a_plain_loop_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = in_float64(monkeypatch)
    found = integrated_gradients(model, inputs, [CAPTION], QUESTIONS)
    assert found.score.shape[1] == model.facts.n_layers - 1
    for number, question in enumerate(QUESTIONS):
        conductance, total, difference = plain_path(model, inputs, question)
        assert torch.allclose(found.score[number].double(), torch.stack(conductance).double(), atol=1e-7)
        assert found.total[number].item() == pytest.approx(total, abs=1e-7)
        assert found.expected[number].item() == pytest.approx(difference, abs=1e-6)
        assert abs(total - difference) < 0.01 * abs(difference), "the steps are too few"
