"""Scores of a mixture of experts that are read at p(c), against plain passes through all experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from mmn import names
from mmn.core import Concept, Example, ScoreSettings
from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.captions import read_encoded, with_captions
from mmn.reading.concepts import GeneratedCaption
from mmn.scores.batch import measure
from mmn.scores.methods import Measured, require_method, score_contribution_actfn
from mmn.scores.rows import ConceptAt
from mmn.studies.modules.measure import read_alone, require_two_modules
from tests.test_expert_gradients import Plain, plainly
from tests.test_experts import Inputs, tiny

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
