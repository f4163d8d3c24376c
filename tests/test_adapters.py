"""Adapters: the parts that scores are read from are found by structure, and what has none is refused by name."""

from typing import Any

import pytest
import torch
import transformers as hf

from mmn.errors import UnsupportedModelError
from mmn.models.adapters import FAMILIES, Norm, find_anatomy, find_family
from mmn.models.adapters.families import REFUSED
from tests.tiny import FAMILY_BUILDERS, FFN, IMAGE_ID, LLAMA, N_LAYERS, TOWER, VOCABULARY, WIDTH, build_family


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_the_anatomy_is_the_text_decoders(name):
    model, _ = build_family(name)
    anatomy = model.anatomy
    assert (anatomy.n_layers, anatomy.d_mlp, model.facts.n_units) == (N_LAYERS, FFN, N_LAYERS * FFN)
    assert len(anatomy.attentions) == len(anatomy.ffn_outs) == N_LAYERS
    tokens = torch.tensor([5, 0, 5])
    for layer in range(N_LAYERS):
        assert anatomy.w_out(layer).shape == (WIDTH, FFN)
        assert anatomy.ffn_outs[layer] in set(anatomy.layers[layer].modules())
        assert anatomy.attentions[layer] in set(anatomy.layers[layer].modules())
    assert anatomy.unembedding is model.module.get_output_embeddings()
    assert torch.equal(anatomy.w_u(tokens), anatomy.unembedding.weight[tokens])
    assert anatomy.unembedding.out_features >= VOCABULARY
    bias = anatomy.unembedding.bias
    assert anatomy.logit_bias(tokens).tolist() == ([0, 0, 0] if bias is None else bias[tokens].tolist())


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_a_gated_ffn_is_found_to_be_one_and_a_plain_one_is_not(name):
    model, _ = build_family(name)
    layer = model.anatomy.layers[0]
    assert model.anatomy.is_gated == any("gate_" in parameter for parameter, _ in layer.named_parameters())
    assert model.anatomy.activations[0] in set(layer.modules())


@pytest.mark.parametrize(
    ("name", "norm"),
    [("llava", Norm.RMS), ("qwen2_vl", Norm.RMS), ("paligemma", Norm.RMS_PLUS_ONE), ("blip-2", Norm.LAYER)],
)
def test_the_norm_is_of_the_form_that_is_found(name, norm):
    """Against the module itself: γ, the mean and the bias are used as the form says."""
    anatomy = build_family(name)[0].anatomy
    module: Any = anatomy.final_norm
    assert anatomy.norm is norm
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0)) + 3
    weight = module.weight
    if norm is Norm.LAYER:
        expected = (x - x.mean(-1, keepdim=True)) / x.std(-1, correction=0, keepdim=True) * weight + module.bias
    else:
        expected = x / x.square().mean(-1, keepdim=True).sqrt() * (weight + (norm is Norm.RMS_PLUS_ONE))
    assert torch.allclose(module(x), expected, atol=1e-4)


def test_rows_are_named_by_their_own_type():
    assert all(name == family.model_type for name, family in FAMILIES.items())
    assert all("{prompt}" in family.bare_prompt for family in FAMILIES.values())


@pytest.mark.parametrize(
    ("model_type", "told"),
    [
        ("gpt2", "is no vision-language model"),
        ("", "is no type of transformers"),
        ("LLAVA", "is no type of transformers"),
    ],
)
def test_what_is_no_vision_language_model_is_refused(model_type, told):
    with pytest.raises(UnsupportedModelError, match=f"'{model_type}' {told}.*mmn models"):
        find_family(model_type)


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_type_without_scores_is_refused_with_the_reason(model_type):
    with pytest.raises(UnsupportedModelError, match=f"{model_type}.*not supported: {REFUSED[model_type]}"):
        find_family(model_type)


def llava_on(text):
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, projection_dim=32), text_config=text, image_token_index=IMAGE_ID
    )
    return hf.LlavaForConditionalGeneration(config)


def test_a_model_without_an_unembedding_is_refused():
    module = llava_on(hf.LlamaConfig(**LLAMA)).model
    with pytest.raises(UnsupportedModelError, match="llava model cannot be read: the model has no unembedding"):
        find_anatomy(module, FAMILIES["llava"])


def test_a_decoder_whose_ffn_writes_to_another_width_is_refused():
    module = llava_on(hf.LlamaConfig(**LLAMA))
    module.lm_head = torch.nn.Linear(WIDTH - 1, VOCABULARY)
    with pytest.raises(UnsupportedModelError, match=f"no list of layers has an FFN that writes {WIDTH - 1} values"):
        find_anatomy(module, FAMILIES["llava"])


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_the_parts_are_found_without_weights_too(name):
    """As they are looked for in a checkpoint's config, before its weights are fetched."""
    model, _ = build_family(name)
    bare = find_anatomy(model.module.to("meta"), model.family)
    paths = {module: path for path, module in model.module.named_modules()}
    assert (bare.norm, bare.is_gated, bare.n_layers) == (model.anatomy.norm, model.anatomy.is_gated, N_LAYERS)
    for found, expected in ((bare.ffn_outs, model.anatomy.ffn_outs), (bare.attentions, model.anatomy.attentions)):
        assert [paths[module] for module in found] == [paths[module] for module in expected]
