"""HONES against a plain loop: one whole pass for each head, another head's output in its place at the last position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.scores import head_mediated as measured
from mmn.scores.head_mediated import head_mediated
from mmn.scores.methods import require_method
from tests.test_effects import CAPTION, built, concept_at
from tests.tiny import build_family

TOKEN, POSITION, MOST = 30, 2, 5


def plain_pass(model: Model, inputs: dict[str, Tensor], layer: int = 0, head: int = -1) -> tuple[Tensor, list[Tensor]]:
    """The probabilities at the last position, and a there by layer, with one head replaced by the others' mean."""
    seen: list[Tensor] = []

    def replace(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        by_head = args[0].clone().view(*args[0].shape[:2], 4, -1)
        others = [other for other in range(4) if other != head]
        by_head[0, -1, head] = sum(by_head[0, -1, other] for other in others) / 3
        return (by_head.view_as(args[0]),)

    layers: Any = model.module.model.language_model.layers
    handles = [
        one.mlp.down_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0][0, -1])) for one in layers
    ]
    if head >= 0:
        handles.append(layers[layer].self_attn.o_proj.register_forward_pre_hook(replace))
    prompt = with_captions(model, inputs, [CAPTION[:POSITION]])
    probs = model.module(**prompt, use_cache=False).logits[0, -1].softmax(-1)
    for handle in handles:
        handle.remove()
    return probs, seen


def plain_hones(model: Model, inputs: dict[str, Tensor]) -> Tensor:
    row = model.module.lm_head.weight[TOKEN]
    columns = [row / row.norm() @ one.mlp.down_proj.weight for one in model.module.model.language_model.layers]
    probs, plain = plain_pass(model, inputs)
    needs = {}
    for layer in range(3):
        for head in range(4):
            without, a = plain_pass(model, inputs, layer, head)
            lost = [(p - q) * column for p, q, column in zip(plain, a, columns, strict=True)]
            needs[layer, head] = ((probs - without)[TOKEN].item(), torch.stack(lost).clamp(min=0))
    best = sorted((one for one in needs.values() if one[0] > 0), key=lambda one: -one[0])[:MOST]
    return sum(need * lost for need, lost in best) / sum(need for need, _ in best)  # type: ignore[return-value]


@torch.inference_mode()
def test_the_score_is_that_of_a_plain_loop_over_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "MOST_HEADS", MOST)  # of the twelve heads more than five help
    model, batch = built("llava")
    found = head_mediated(model, batch, [concept_at(0, 1, 17), concept_at(0, POSITION, TOKEN)])[1]
    expected = plain_hones(model, batch.inputs)
    assert torch.allclose(found, expected, atol=1e-6)
    assert expected.max() > 1e-4


def test_heads_that_are_not_known_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="hones is not there for encoder-decoders"):
        require_method(build_family("blip-2 on flan-t5")[0], "hones")
    model, batch = built("llava")
    monkeypatch.setattr(measured, "is_as_read", lambda *_: False)
    with pytest.raises(UsageError, match="its layers cannot be gone again at one position"):
        head_mediated(model, batch, [concept_at(0, 1, 17)])
    attention: Any = model.anatomy.layers[1].self_attn
    attention.mix = attention.o_proj
    del attention.o_proj
    with pytest.raises(UsageError, match="the heads of layer 1 are not known"):
        require_method(model, "random-matched:hones")
