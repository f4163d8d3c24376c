"""Exactness: the terms add up to the logit for every supported family, and stop doing so when anything is misread."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from mmn.models.adapters import Anatomy, Norm
from mmn.reading.hooks import ACT, ACTIVATION, FINAL, ONCE, capture
from mmn.scores.budget import Budget, Reading, ffn_outputs, logit_budget
from mmn.scores.equations import contribution, folded_rows, written_rows
from tests.tiny import FAMILY_BUILDERS, build_family

N_STEPS = 4
ROUNDING = 1e-5  # of max(|logit|, 1) in float32; measured about 1e-7, and 0.05 or more for any misreading below


def measure(model, inputs, anatomy=None, shift=0, site=ACTIVATION):
    """Largest |residual| / max(|logit|, 1) over the tokens of a caption, with a budget to look into.

    `anatomy` is what is read (the model's own unless given), `shift` how many passes too late, `site` where a is read.
    """
    model = replace(model, anatomy=anatomy or model.anatomy)
    with torch.inference_mode(), capture(model, with_act=site == ACT) as captured:
        output = model.module.generate(
            **inputs,
            do_sample=False,
            min_new_tokens=N_STEPS,
            max_new_tokens=N_STEPS,
            output_logits=True,
            return_dict_in_generate=True,
        )
    steps = torch.arange(N_STEPS - shift)
    logits = torch.stack([output.logits[step][0] for step in steps]).float()
    tokens = logits.argmax(-1)
    reading = Reading(torch.zeros_like(steps), steps + shift, tokens)
    read = (reading.rows, reading.steps)
    folded = folded_rows(model.anatomy, model.anatomy.w_u(tokens), captured.read(FINAL, ONCE, *read))
    written = written_rows(model.anatomy, folded, ffn_outputs(model.anatomy, captured, reading))
    scores = contribution(model.anatomy, captured.read_layers(site, *read), written)
    budget = logit_budget(model.anatomy, captured, reading, folded, written, scores)
    logit = model.anatomy.uncapped(logits.gather(1, tokens[:, None])[:, 0].double())
    return ((logit - budget.total()).abs() / logit.abs().clamp(min=1)).max().item(), budget


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_terms_add_up_to_the_logit(name, seed):
    residual, _ = measure(*build_family(name, seed))
    assert residual <= ROUNDING


def swapped(modules):
    return (modules[1], modules[0], *modules[2:])


def other_rows(anatomy):
    """An unembedding whose rows are one token off."""
    moved = torch.nn.Linear(anatomy.unembedding.in_features, anatomy.unembedding.out_features, bias=False)
    moved.weight = torch.nn.Parameter(anatomy.unembedding.weight.roll(1, 0), requires_grad=False)
    return moved


MISREADINGS: dict[str, Any] = {
    "site: the FFN of layer 0 twice": lambda a: {"ffn_outs": (a.ffn_outs[0], *a.ffn_outs[:-1])},
    "site: attention of layer 0 twice": lambda a: {"attentions": (a.attentions[0], *a.attentions[:-1])},
    "site: a norm for the attention": lambda a: {
        "attentions": tuple(layer.input_layernorm for layer in a.layers),
    },
    "norm: γ + 1": lambda _: {"norm": Norm.RMS_PLUS_ONE},
    "norm: a layer's for the final one": lambda a: {"final_norm": a.layers[-1].post_attention_layernorm},
    "unembedding: another row": lambda a: {"unembedding": other_rows(a)},
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_a_misread_llava_does_not_add_up(misreading):
    model, inputs = build_family("llava")
    wrong = replace(model.anatomy, **MISREADINGS[misreading](model.anatomy))
    assert measure(model, inputs, wrong)[0] > 1e-3


class Crossed(Anatomy):
    """Reads W_out of layers 0 and 1 the wrong way round; the activations are right."""

    def _w_out(self, layer):
        return swapped(self.ffn_outs)[layer].weight


def test_activations_of_one_layer_with_the_matrix_of_another_do_not_add_up():
    model, inputs = build_family("llava")
    wrong = Crossed(**{field.name: getattr(model.anatomy, field.name) for field in fields(Anatomy)})
    assert measure(model, inputs, wrong)[0] > 1e-3


def test_layers_in_the_wrong_order_are_an_error():
    """A mere renaming of whole layers would add up; that the first one listed runs first is checked by itself."""
    model, inputs = build_family("llava")
    with pytest.raises(AssertionError, match="before the first decoder layer"):
        measure(model, inputs, replace(model.anatomy, layers=swapped(model.anatomy.layers)))


def test_act_without_the_up_factor_does_not_add_up():
    assert measure(*build_family("llava"), site=ACT)[0] > 1e-3


def test_the_pass_after_does_not_add_up():
    assert measure(*build_family("llava"), shift=1)[0] > 1e-3


@pytest.mark.parametrize(
    ("name", "wrong"), [("paligemma", Norm.RMS), ("blip-2", Norm.RMS), ("llava", Norm.RMS_PLUS_ONE)]
)
def test_the_wrong_kind_of_norm_does_not_add_up(name, wrong):
    model, inputs = build_family(name)
    assert measure(model, inputs, replace(model.anatomy, norm=wrong))[0] > 1e-3


@pytest.mark.parametrize("term", ["embedding", "attention", "ffn", "bias", "last_bias"])
def test_no_term_is_idle(term):
    """OPT has them all; leaving out any one shows."""
    residual, budget = measure(*build_family("blip-2"))
    assert residual <= ROUNDING
    assert getattr(budget, term).abs().max() > 1e-3
    less = replace(budget, **{term: torch.zeros_like(getattr(budget, term))})
    assert (less.total() - budget.total()).abs().max() > 1e-3


def test_total_by_hand():
    one = torch.tensor([1.0, 2.0], dtype=torch.float64)
    by_layer = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.25, 0.25]], dtype=torch.float64)
    assert Budget(one, by_layer, by_layer * 2, by_layer * 3, one * 10).total().tolist() == [47.0, 28.0]
