"""Attribution against finite differences, in float64: no one's code is the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmn.errors import UsageError
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.hooks import capture_graph
from mmn.scores.gradients import Question, attribute
from tests.tiny import FAMILY_BUILDERS, build_family

CAPTION = [11, 12, 13, 14]
QUESTIONS = [Question(0, 1, 17), Question(0, 2, 30)]
STEP = 1e-4
# Rotations, or the attention's softmax, that are computed in float32.
IN_FLOAT32 = ("qwen2_vl", "qwen2_5_vl", "limber", "gemma2", "cohere")
InFloat64 = Callable[[str], tuple[Model, dict[str, Tensor]]]
FAMILIES = [name for name in FAMILY_BUILDERS if not any(one in name for one in IN_FLOAT32)]


def norms_in_float64(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms that compute in float32 whatever they are given would drown a small difference in their rounding."""

    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        name, epsilon = type(self).__name__, getattr(self, "variance_epsilon", None) or self.eps
        centred = hidden_states - hidden_states.mean(-1, keepdim=True) if "Layer" in name else hidden_states
        scale = torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + epsilon)
        return (self.weight + 1 if "Gemma" in name else self.weight) * centred * scale

    for kind in {type(part) for part in module.modules() if type(part).__module__.startswith("transformers")}:
        if kind.__name__.endswith(("RMSNorm", "CohereLayerNorm", "Cohere2LayerNorm")):
            monkeypatch.setattr(kind, "forward", forward)


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> InFloat64:
    """Builds a tiny model that computes in float64 throughout."""

    def build(name: str) -> tuple[Model, dict[str, Tensor]]:
        model, inputs = build_family(name)
        norms_in_float64(model.module.double(), monkeypatch)
        return model, {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}

    return build


@pytest.mark.parametrize("of_activation", [False, True], ids=["attribution", "attribution-act"])
@pytest.mark.parametrize("name", FAMILIES)
def test_attribution_equals_a_finite_difference(in_float64: InFloat64, name: str, of_activation: bool) -> None:
    model, inputs = in_float64(name)
    found = attribute(model, inputs, [CAPTION], QUESTIONS, of_activation)
    modules = model.anatomy.ffn_outs if of_activation else model.anatomy.activations
    positions = image_positions(model, inputs)[0].nonzero()[:, 0]
    for flat in found.score[1].flatten().abs().topk(5).indices.tolist():
        layer, unit = divmod(flat, model.facts.d_mlp)
        position = int(positions[found.token_position[1, layer, unit]])
        up, down = (_logit(model, inputs, modules[layer], position, unit, 1 + sign * STEP) for sign in (1, -1))
        expected = (up - down) / (2 * STEP)
        assert found.score[1, layer, unit].item() == pytest.approx(expected, rel=1e-5)


def test_the_score_is_the_maximum_over_image_tokens_and_its_token_is_kept(in_float64: InFloat64) -> None:
    model, inputs = in_float64("llava")
    found = attribute(model, inputs, [CAPTION], QUESTIONS)
    with torch.enable_grad():
        with capture_graph(model) as graph:
            logits = model.module(**with_captions(model, inputs, [CAPTION]), use_cache=False).logits
        n_prompt = inputs["input_ids"].shape[1]
        gradient = torch.autograd.grad(logits[0, n_prompt - 1 + 2, 30], graph.z[1])[0]
    product = (graph.z[1] * gradient)[0, :n_prompt][image_positions(model, inputs)[0]].detach()
    assert torch.allclose(found.score[1, 1], product.max(0).values.float())
    assert torch.equal(found.token_position[1, 1], product.argmax(0))


def test_concepts_of_one_caption_do_not_disturb_each_other(in_float64: InFloat64) -> None:
    model, inputs = in_float64("llava")
    together = attribute(model, inputs, [CAPTION], QUESTIONS)
    for index, question in enumerate(QUESTIONS):
        alone = attribute(model, inputs, [CAPTION], [question])
        assert torch.allclose(together.score[index], alone.score[0])


def test_rows_of_a_batch_do_not_disturb_each_other(in_float64: InFloat64) -> None:
    model, inputs = in_float64("llava")
    other = {name: torch.cat([value, value.flip(-1) if value.ndim == 4 else value]) for name, value in inputs.items()}
    captions = [CAPTION, [21, 22]]
    both = attribute(model, other, captions, [Question(1, 1, 9), Question(0, 2, 30), Question(0, 0, 8)])
    alone = attribute(model, inputs, [CAPTION], [Question(0, 2, 30)])
    assert torch.allclose(both.score[1], alone.score[0])
    assert not torch.allclose(both.score[0], both.score[1])


def test_the_last_layer_is_left_out(in_float64: InFloat64) -> None:
    model, inputs = in_float64("llava")
    assert attribute(model, inputs, [CAPTION], QUESTIONS).score.shape[1] == model.facts.n_layers - 1


def test_a_family_without_image_tokens_is_refused(in_float64: InFloat64) -> None:
    model, inputs = in_float64("llava")
    text_only = inputs | {"input_ids": torch.full_like(inputs["input_ids"], 5)}
    with pytest.raises(UsageError, match="no image tokens"):
        attribute(model, text_only, [CAPTION], QUESTIONS)


def _logit(
    model: Model, inputs: dict[str, Tensor], module: nn.Module, position: int, unit: int, factor: float
) -> float:
    """The second question's logit with one input of `module` multiplied by `factor`."""
    handle = module.register_forward_pre_hook(_multiplied(position, unit, factor))
    try:
        with torch.inference_mode():
            logits = model.module(**with_captions(model, inputs, [CAPTION])).logits[0]
    finally:
        handle.remove()
    place = inputs["input_ids"].shape[1] - 1 + QUESTIONS[1].position
    return model.anatomy.uncapped(logits[place, QUESTIONS[1].token_id]).item()


def _multiplied(position: int, unit: int, factor: float) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        value = args[0].clone()
        value.view(-1, value.shape[-1])[position, unit] *= factor
        return (value, *args[1:])

    return hook
