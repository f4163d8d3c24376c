"""Every type of transformers' image-text-to-text mapping: proved to be scored exactly, or refused with the reason."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import silu

from mmn import names
from mmn.errors import UnsupportedModelError
from mmn.models.adapters import families, find_anatomy, find_family
from mmn.models.deltas import Columns, added
from mmn.models.model import Model
from mmn.models.tried import all_tried
from mmn.reading.captions import CaptionBatch, caption_encoded
from mmn.reading.hooks import ACT, ACTIVATION, ablate, capture, capture_graph
from mmn.reading.plain_text import Text, nats
from mmn.runs.proof import n_hooks, prove
from mmn.scores.expert_gradients import own_experts_read_images
from tests.families import tiny
from tests.families.bare import N_TOKENS, bare_model
from tests.families.inputs import encode_bare
from tests.families.models_page import PAGE, page, tried
from tests.families.test_build import pictures, reads_pictures_and_says_finite_logits

ROUNDING = 1e-5  # measured at most 4e-7
POST_NORM = "norms the residual stream itself"
REFUSED: dict[str, str] = {
    **dict.fromkeys(("blip", "florence2", "git", "vision-encoder-decoder"), POST_NORM),
}
BY_NAME = families.REFUSED
NOT_TRIED = {name for name, reason in tiny.REFUSED.items() if reason == tiny.TIMM and name not in BY_NAME}
EXACT = [name for name in tiny.TYPES if name not in REFUSED and name not in BY_NAME and name not in NOT_TRIED]


def load(name: str) -> tuple[Model, dict[str, torch.Tensor]]:
    """The tiny model of a type, and two pictures for it."""
    return as_model(vlm := tiny.build(name)), vlm.encode(pictures())


def as_model(vlm: tiny.TinyVLM) -> Model:
    return bare_model(vlm.model_type, vlm.module, find_anatomy(vlm.module, find_family(vlm.model_type)))


@pytest.mark.parametrize("name", EXACT)
def test_type_is_scored_exactly(name):
    vlm = tiny.build(name)
    reads_pictures_and_says_finite_logits(vlm)
    model = as_model(vlm)
    batch = caption_encoded(model, vlm.encode(pictures()), N_TOKENS)
    proof = prove(model, batch)
    assert max(proof.head, proof.exact, proof.ablation) <= ROUNDING
    assert (proof.attribution is None) == (model.image_token_id is None or own_experts_read_images(model))
    an_edit_does_what_it_says_and_is_taken_back(model, batch)
    text_is_read_from_its_beginning_on(model)
    assert n_hooks(model) == 0


def text_is_read_from_its_beginning_on(model: Model) -> None:
    """Without a picture, as before and after an edit: log p of two words is that of the first, and of the second."""

    def surprise(prefix: tuple[int, ...], *token_ids: int) -> float:
        return nats(model, [Text(prefix, token_ids)], lambda _n: nullcontext())

    assert surprise((1,), 7, 9) == pytest.approx(surprise((1,), 7) + surprise((1, 7), 9), rel=1e-4)


@torch.inference_mode()
def an_edit_does_what_it_says_and_is_taken_back(model: Model, batch: CaptionBatch) -> None:
    """Less its own column, the last FFN's most active unit writes what a zeroed one does; then all is as it was."""
    anatomy = model.anatomy
    layer = max(layer for layer, width in enumerate(anatomy.widths) if width)
    first = torch.tensor([0]), torch.tensor([0])
    place = int(batch.captured.read(ACTIVATION, layer, *first).abs().argmax())
    units = batch.captured.flat_units(*first)
    unit = place if units is None else int(units[0, layer, place])
    mask = torch.zeros(len(batch.captions), anatomy.n_layers, anatomy.d_mlp, dtype=torch.bool)
    mask[:, layer, unit] = True
    whole = -anatomy.columns(layer, torch.tensor([unit])).float()
    before = {key: value.clone() for key, value in model.module.state_dict().items()}

    def logits() -> torch.Tensor:
        return model.module(**batch.inputs, use_cache=False).logits[:, -1].clone()

    plain = logits()
    with ablate(model, mask):
        zeroed = logits()
    with added(model, [Columns(layer, (unit,), whole)]):
        edited = logits()
    torch.testing.assert_close(edited, zeroed, rtol=ROUNDING, atol=ROUNDING * max(1.0, float(plain.abs().max())))
    assert not torch.equal(edited[0], plain[0])
    assert torch.equal(logits(), plain)
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


DENSE = {"text_config.enable_moe_block": False}
FORMS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {  # of a type: its settings, and units by layer
    "gemma4 E4B": ("gemma4", DENSE, (96, 96, 96)),
    "gemma4 31B": ("gemma4", DENSE | {"text_config.hidden_size_per_layer_input": 0}, (96, 96, 96)),
    "gemma4 E2B": (
        "gemma4",
        DENSE
        | {
            "text_config.num_hidden_layers": 4,
            "text_config.layer_types": ["sliding_attention", "full_attention"] * 2,
            "text_config.num_kv_shared_layers": 2,
            "text_config.use_double_wide_mlp": True,
        },
        (96, 96, 192, 192),
    ),
    "nemotron_h without experts": (
        "nemotron_h_omni",
        {
            "text_config.num_hidden_layers": 5,
            "text_config.layers_block_type": [
                *["linear_attention", "mlp", "full_attention", "mlp"],
                "linear_attention",
            ],
        },
        (0, 96, 0, 96, 0),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_other_forms_of_a_type_are_scored_exactly(name):
    """The last layers of Nemotron-H may have no FFN: then the last unit's effect is seen behind attention."""
    model_type, more, widths = FORMS[name]
    module = tiny.new_model(model_type, more=more).eval().requires_grad_(False)
    model = bare_model(model_type, module, find_anatomy(module, find_family(model_type)))
    assert model.anatomy.widths == widths
    assert (names.PER_LAYER_INPUT in model.anatomy.others) == (name in ("gemma4 E4B", "gemma4 E2B"))
    proof = prove(model, caption_encoded(model, encode_bare(module, pictures()), N_TOKENS))
    assert max(proof.head, proof.exact, proof.ablation) <= ROUNDING
    assert proof.attribution is not None


@pytest.mark.parametrize("name", REFUSED)
def test_type_is_refused_with_its_reason(name):
    family = find_family(name)
    with pytest.raises(UnsupportedModelError, match=REFUSED[name]):
        find_anatomy(tiny.build(name).module, family)


def test_most_types_are_exact_and_all_others_have_their_reason():
    assert len(EXACT) == 77
    assert set(EXACT) | set(REFUSED) | set(BY_NAME) | NOT_TRIED == set(tiny.TYPES)


WRONG: dict[str, Any] = {
    "gemma3": lambda _: {"post_ffns": ()},
    "mllama": lambda a: {"gains": replace(a.gains, ffn=(1.0,) * 3, attention=(1.0,) * 3)},
    "granite4_vision": lambda a: {"gains": replace(a.gains, ffn=(1.0,) * 3)},
    "muse_glimmer": lambda _: {"head_factor": 1.0},
    "gemma4": lambda a: {"mixtures": tuple(replace(one, inner_norms=one.inner_norms[::-1]) for one in a.mixtures)},
    "t5gemma2": lambda _: {"post_ffns": ()},
    "udop": lambda _: {"others": {}},
}


@pytest.mark.parametrize("name", WRONG)
def test_an_anatomy_that_leaves_out_a_norm_gate_or_factor_is_caught(name):
    model, inputs = load(name)
    wrong = replace(model, anatomy=replace(model.anatomy, **WRONG[name](model.anatomy)))
    batch = caption_encoded(wrong, inputs, N_TOKENS)
    with pytest.raises(UnsupportedModelError, match="not understand"):
        prove(wrong, batch)


def test_the_page_of_models_says_what_mmn_models_prints():
    assert PAGE.read_text() == page(all_tried())
    assert [row.model_type for row in all_tried()] == list(tiny.TYPES)
    assert {row.model_type for row in all_tried() if not row.reason} == set(EXACT)


@pytest.mark.parametrize("name", ["llava", "mllama", "qwen3_vl", "florence2", "kimi_k25", "gemma4", "pi0", "evolla"])
def test_the_page_of_models_is_not_stale(name):
    """All but the error, whose size depends on the machine; it is small."""
    (row,) = [row for row in all_tried() if row.model_type == name]
    assert replace(tried(name), error=0.0) == replace(row, error=0.0)
    assert row.error < ROUNDING


@pytest.mark.parametrize("name", ["lfm2_vl", "llava", "glm4v"])
def test_act_times_up_is_the_activation(name):
    """LFM2 has no module for its SiLU, GLM-4V one matrix for gate and up."""
    model, inputs = load(name)
    with torch.no_grad(), capture(model, with_act=True) as captured:
        model.module(**inputs, use_cache=False)
    with capture_graph(model) as graph, torch.enable_grad():
        model.module(**inputs, use_cache=False)
    rows, steps = torch.arange(2), torch.zeros(2, dtype=torch.long)
    act, a = captured.read(ACT, 1, rows, steps), captured.read(ACTIVATION, 1, rows, steps)
    assert torch.allclose(act, silu(graph.z[1][:, -1]), atol=1e-6)
    assert torch.allclose(graph.a[1][:, -1], a, atol=1e-6)
    assert torch.allclose(act * up_of(model, inputs), a, atol=1e-6)


def up_of(model: Model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The up factor of layer 1 at the last position, from the matrix that makes it."""
    found = []
    layer: Any = model.anatomy.layers[1]
    ffn = layer.feed_forward if hasattr(layer, "feed_forward") else layer.mlp
    module = next(getattr(ffn, part) for part in ("w3", "up_proj", "gate_up_proj") if hasattr(ffn, part))
    handle = module.register_forward_hook(lambda _module, _args, output: found.append(output[:, -1]))
    with torch.no_grad():
        model.module(**inputs, use_cache=False)
    handle.remove()
    return found[0][:, -model.anatomy.d_mlp :]
