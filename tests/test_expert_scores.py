"""Scores of a mixture of experts that are read at p(c), against plain passes through all experts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from mmn import names
from mmn.core import Concept, Example, ScoreSettings
from mmn.errors import UsageError
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import read_encoded, with_captions
from mmn.reading.concepts import GeneratedCaption
from mmn.reading.hooks import AtTokens, capture_expert_graph, towards_mean
from mmn.reading.rows import some_of
from mmn.scores.batch import measure
from mmn.scores.gradients import Question, logits_of
from mmn.scores.methods import Measured, require_method, score_contribution_actfn, score_hones
from mmn.scores.rows import ConceptAt
from mmn.studies.domains.importance import importance
from mmn.studies.domains.tally import count_picture
from mmn.studies.modules.measure import read_alone, require_two_modules
from tests.test_expert_gradients import Plain, plainly
from tests.test_experts import TYPES, Inputs, tiny

STACKED_AND_LLAMA4 = ("qwen3_vl_moe", "llama4")
CAPTION = (11, 12, 13)
SAID = ((0, 1, 17), (1, 2, 30))  # row, position, token


def measured(model: Model, inputs: Inputs, with_act: bool = False) -> Measured:
    """Two pictures under one caption, each asked about another word."""
    caption = GeneratedCaption("abc", CAPTION, (1, 2, 3))
    batch = read_encoded(model, inputs, [caption, caption], with_act)
    said = [
        ConceptAt(row, Example(str(row), "i", ("i",), 1, 1), Concept("w", "w", 1, token, at, True, False, False, None))
        for row, at, token in SAID
    ]
    return measure(model, batch, names.ORIGINAL, said, ScoreSettings("p"))


def places(inputs: Inputs) -> list[tuple[int, int]]:
    """Row and position of each question in a pass over prompt and caption."""
    return [(row, inputs["input_ids"].shape[1] - 1 + at) for row, at, _ in SAID]


def plain_pass(model: Model, inputs: Inputs) -> Plain:
    with plainly(model) as plain:
        model.module(**with_captions(model, inputs, [CAPTION, CAPTION]), use_cache=False)
    return plain


def dense(units: Tensor, values: Tensor, d_mlp: int) -> Tensor:
    """Compact values as of all units of each layer, 0 where an expert sleeps."""
    wide = values.new_zeros(*values.shape[:2], d_mlp + 1)
    return wide.scatter_(2, units.where(units >= 0, d_mlp), values)[..., :d_mlp]


@pytest.mark.parametrize("model_type", [*STACKED_AND_LLAMA4, "qwen3_5_moe"])
def test_act_without_up_is_that_of_a_model_that_computes_every_expert(model_type: str) -> None:
    """The router's weight is in it; of Llama 4 it is in what the gate is given."""
    model, inputs = tiny(model_type)
    with torch.inference_mode():
        here = measured(model, inputs, with_act=True)
        found = score_contribution_actfn(here).score
    assert here.units is not None
    found = dense(here.units, found, model.anatomy.d_mlp)
    plain, n = plain_pass(model, inputs), inputs["input_ids"].shape[1] + len(CAPTION)
    for index, ((row, at), (_, _, token)) in enumerate(zip(places(inputs), SAID, strict=True)):
        for layer, one in enumerate(model.anatomy.mixtures):
            parts = []
            if one.routed is not None:
                parts.append(plain.act[layer][:, row * n + at].flatten())
            if one.plain is not None:
                gate = plain.gate[layer].view(2, n, 1)[row, at].sigmoid() if one.gate is not None else 1.0
                parts.append(silu(plain.own_z[layer].reshape(2, n, -1)[row, at]) * gate)
            act = torch.cat(parts).detach()
            expected = act * (model.anatomy.unembedding.weight[token] @ model.anatomy.w_out(layer))
            torch.testing.assert_close(found[index, layer, : one.n_units], expected, rtol=1e-4, atol=1e-6)
            assert one.routed is None or (expected == 0).any()
            assert expected.abs().max() > 1e-4


def test_a_gate_with_a_rule_of_its_own_is_read_by_what_up_brings() -> None:
    """MiniMax adds 1 to up; what is beside its experts has no module for act(gate), which is said."""
    model, _ = tiny("minimax_m3_vl")
    routed: Any = model.anatomy.mixtures[1].routed
    x = torch.randn(3, model.anatomy.unembedding.in_features)
    z = (x @ routed.module.gate_up_proj[2].T)[:, : routed.d_expert]
    torch.testing.assert_close(routed.gate_acts(x, 2), z * torch.sigmoid(z * routed.module.swiglu_alpha))
    with pytest.raises(UsageError, match=r"beside the experts of layer 0 has no module for act\(gate\)"):
        require_method(model, names.CONTRIBUTION_ACTFN)


@torch.inference_mode()
@pytest.mark.parametrize("model_type", STACKED_AND_LLAMA4)
def test_a_mixture_is_one_module_with_all_that_it_writes(model_type: str) -> None:
    model, inputs = tiny(model_type)
    layers: Any = model.anatomy.layers
    blocks = [(layer.self_attn, getattr(layer, "feed_forward", None) or layer.mlp) for layer in layers]
    written: list[Tensor] = []

    def note(_module: Any, _args: Any, output: Any) -> None:
        written.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(note) for pair in blocks for block in pair]
    model.module(**with_captions(model, inputs, [CAPTION, CAPTION]), use_cache=False)
    for handle in handles:
        handle.remove()
    here = measured(model, inputs)
    values, probs = read_alone(here, here.reading.token_ids)
    for index, ((row, at), (_, _, token)) in enumerate(zip(places(inputs), SAID, strict=True)):
        alone = torch.stack([one.reshape(2, -1, one.shape[-1])[row, at] for one in written])
        logits = model.anatomy.unembedding(model.anatomy.final_norm(alone))
        torch.testing.assert_close(values[index].flatten(), logits[:, token], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(probs[index].flatten(), logits.softmax(-1)[:, token], rtol=1e-4, atol=1e-6)


def test_layers_that_are_attention_or_an_ffn_have_no_two_modules() -> None:
    with pytest.raises(UsageError, match="have one of both alone"):
        require_two_modules(tiny("nemotron_h_omni")[0])


def plain_a(model: Model, inputs: Inputs, row: int, token_ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Returns a of all units at a row's last position, "L m", and its probabilities, in a pass through all experts."""
    whole = with_captions(model, inputs, [token_ids, token_ids])
    with plainly(model) as plain:
        logits = model.module(**whole, use_cache=False).logits
    n, found = whole["input_ids"].shape[1], torch.zeros(model.anatomy.n_layers, model.anatomy.d_mlp)
    for layer, one in enumerate(model.anatomy.mixtures):
        if one.routed is not None:
            found[layer, : one.start] = plain.a[layer][:, row * n + n - 1].flatten().detach()
        if one.plain is not None:
            found[layer, one.start : one.n_units] = plain.own_a[layer].reshape(2, n, -1)[row, -1].detach()
    return found, logits[row, -1].softmax(-1).detach()


@pytest.mark.parametrize("model_type", STACKED_AND_LLAMA4)
def test_hones_is_that_of_a_plain_loop_over_heads_through_all_experts(model_type: str) -> None:
    """A unit whose expert another head's output sends the token past has c(h) = 0."""
    model, inputs = tiny(model_type)
    here = measured(model, inputs)
    with torch.inference_mode():
        found = score_hones(here).score
    assert here.units is not None
    (row, position, token), layers = SAID[1], range(model.anatomy.n_layers)
    outputs: Any = [layer.self_attn.o_proj for layer in model.anatomy.layers]  # type: ignore[union-attr]
    n_heads = model.module.config.get_text_config().num_attention_heads
    u = model.anatomy.unembedding.weight[token]
    columns = torch.zeros(len(layers), model.anatomy.d_mlp)
    for layer in layers:
        columns[layer, : model.anatomy.widths[layer]] = u / u.norm() @ model.anatomy.w_out(layer)
    plain, before = plain_a(model, inputs, row, CAPTION[:position])
    needs: list[tuple[float, Tensor]] = []
    is_sent_elsewhere = False
    for output in outputs:
        for head in range(n_heads):
            with of_others(output, head, n_heads, row):
                a, after = plain_a(model, inputs, row, CAPTION[:position])
            needs.append((float(before[token] - after[token]), ((plain - a) * columns).clamp(min=0)))
            is_sent_elsewhere |= bool(((plain != 0) != (a != 0)).any())
    kept = sorted((one for one in needs if one[0] > 0), key=lambda one: -one[0])[:30]
    expected = torch.stack([need * lost for need, lost in kept]).sum(0) / sum(need for need, _ in kept)
    awake = here.units[1] >= 0
    at, _ = awake.nonzero(as_tuple=True)
    torch.testing.assert_close(found[1][awake], expected[at, here.units[1][awake]], rtol=1e-3, atol=1e-6)
    assert found[1].max() > 1e-4
    assert is_sent_elsewhere


@contextmanager
def of_others(output: Any, head: int, n_heads: int, row: int) -> Iterator[None]:
    """The mean of the other heads in the place of one, at a row's last position."""

    def replace(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        by_head = args[0].clone().view(*args[0].shape[:2], n_heads, -1)
        own = by_head[row, -1]
        by_head[row, -1, head] = (own.sum(0) - own[head]) / (n_heads - 1)
        return (by_head.view_as(args[0]),)

    handle = output.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
@pytest.mark.parametrize("model_type", [*STACKED_AND_LLAMA4, "qwen3_5_moe"])
def test_counts_over_tokens_are_those_of_a_pass_through_all_experts(model_type: str) -> None:
    """A unit whose expert a token does not go through is not active there, and its act is 0 in the measures."""
    model, inputs = tiny(model_type)
    one = {name: some_of(model, inputs, [1])[name] for name in inputs}
    is_image = image_positions(model, one)[0]
    found = count_picture(model, one, is_image, with_attention=False)
    plain, n = plain_pass_of(model, one), len(is_image)
    for layer, mixture in enumerate(model.anatomy.mixtures):
        parts = []
        if mixture.routed is not None:
            parts.append(plain.act[layer].detach().transpose(0, 1).flatten(1))
        if mixture.plain is not None:
            gate = plain.gate[layer].reshape(n, 1).sigmoid() if mixture.gate is not None else 1.0
            parts.append((silu(plain.own_z[layer].reshape(n, -1)) * gate).detach())
        act = torch.cat(parts, dim=1)
        for number, is_in in enumerate((~is_image, is_image)):
            some = act[is_in]
            active = (some > 0).sum(0)
            assert torch.equal(found.active[number, layer, : act.shape[1]].long(), active)
            three = [(some > 0).float().mean(0), some.mean(0), some.amax(0)]
            expected = torch.stack([(one - one.min()) / (one.max() - one.min()) for one in three])
            torch.testing.assert_close(found.importance[:, number, layer, : act.shape[1]], expected, atol=1e-4, rtol=0)
            assert not found.active[number, layer, act.shape[1] :].any()


def plain_pass_of(model: Model, inputs: Inputs) -> Plain:
    with plainly(model) as plain:
        model.module(**inputs, use_cache=False)
    return plain


def test_measures_with_attention_are_those_of_all_units_at_all_tokens() -> None:
    """Two experts of two units, of which the second is asleep at the third token."""
    torch.manual_seed(0)
    act, attention = torch.randn(3, 4), torch.rand(3, 3)
    act[2, 2:] = 0
    everywhere = torch.arange(3)
    acts = [
        AtTokens(0, torch.zeros(3, dtype=torch.long), everywhere, act[:, :2]),
        AtTokens(2, torch.zeros(2, dtype=torch.long), everywhere[:2], act[:2, 2:]),
    ]
    keys, queries = (attention.softmax(0).T @ act).sum(0), (attention.softmax(1) @ act).sum(0)
    five = [(act > 0).float().mean(0), act.mean(0), act.amax(0), keys, queries]
    expected = torch.stack([(one - one.min()) / (one.max() - one.min()) for one in five])
    torch.testing.assert_close(importance(acts, 3, 4, attention), expected)


@pytest.mark.parametrize(("model_type", "least"), [("qwen3_vl_moe", 0.4), ("llama4", 0.15)])
def test_integrals_along_a_path_on_which_routers_choose_anew_miss_what_the_picture_brings(
    model_type: str, least: float
) -> None:
    """With four times the steps as much is missing: why integrated gradients are refused. Measured .54 and .25."""
    model, inputs = tiny(model_type)
    mask, n_prompt = image_positions(model, inputs), inputs["input_ids"].shape[1]

    def at(alpha: float) -> tuple[float, float]:
        with torch.enable_grad(), towards_mean(model, mask, alpha) as image, capture_expert_graph(model) as graph:
            model.module(**inputs, use_cache=False)
        y = logits_of(model, graph.final, [Question(0, 0, 17)], n_prompt).sum()
        (gradient,) = torch.autograd.grad(y, [image.tokens])
        return y.item(), (gradient * image.spread).sum().item()

    missing = []
    for steps in (15, 60):
        ys, slopes = zip(*(at(step / steps) for step in range(steps + 1)), strict=True)
        integral = (sum(slopes) - (slopes[0] + slopes[-1]) / 2) / steps
        missing.append(abs(integral / (ys[-1] - ys[0]) - 1))
    assert min(missing) > least
    assert missing[1] == pytest.approx(missing[0], rel=0.1)
    with pytest.raises(UsageError, match="sent to other experts, where the logit jumps"):
        require_method(model, names.INTEGRATED_GRADIENTS)


NOT_THERE: dict[str, set[str]] = {  # by forms of attention that RelP has no rule for, or whose heads are not replaced
    "kimi_k25": {names.RELP},
    "unlimited_ocr": {names.HONES},
    **{name: {names.RELP, names.HONES} for name in ("dots3_note", "mistral_large4", "qwen3_5_moe")},
    "ernie4_5_vl_moe": {names.RELP, names.ATTRIBUTION, names.ATTRIBUTION_ACT},
    "minimax_m3_vl": {names.RELP, names.CONTRIBUTION_ACTFN},
}


@pytest.mark.parametrize("model_type", TYPES)
def test_only_what_is_told_is_refused_of_a_mixture(model_type: str) -> None:
    model, refused = tiny(model_type)[0], set()
    for method in names.METHODS:
        try:
            require_method(model, method)
        except UsageError:
            refused.add(method)
    assert refused == NOT_THERE.get(model_type, set()) | {names.INTEGRATED_GRADIENTS}
