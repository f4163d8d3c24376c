"""Adapters: every declared path leads to the module that it says, and what is not declared is refused by name."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as hf

from mmn.errors import UnsupportedModelError
from mmn.models.adapters import DECODERS, FAMILIES, Norm, find_anatomy, find_family
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
def test_a_gated_ffn_is_declared_as_one_and_a_plain_one_is_not(name):
    model, _ = build_family(name)
    layer = model.anatomy.layers[0]
    assert model.anatomy.is_gated == any("gate_" in parameter for parameter, _ in layer.named_parameters())
    assert model.anatomy.activations[0] in set(layer.modules())


@pytest.mark.parametrize(
    ("name", "norm"),
    [("llava", Norm.RMS), ("qwen2_vl", Norm.RMS), ("paligemma", Norm.RMS_PLUS_ONE), ("blip-2", Norm.LAYER)],
)
def test_the_norm_is_of_the_declared_form(name, norm):
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


@pytest.mark.parametrize("model_type", ["gemma3", "mllama", "gpt2", "", "LLAVA"])
def test_an_unknown_family_is_refused_with_the_list_of_known_ones(model_type):
    with pytest.raises(UnsupportedModelError, match=f"'{model_type}'.*llava, llava_next"):
        find_family(model_type)


@pytest.mark.parametrize("text", [hf.MixtralConfig(**LLAMA), hf.Olmo2Config(**LLAMA)])
def test_a_known_family_on_an_unknown_decoder_is_refused(text):
    """A mixture of experts has no single matrix of a layer: scores would be wrong and look right."""
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, projection_dim=32), text_config=text, image_token_index=IMAGE_ID
    )
    module = hf.LlavaForConditionalGeneration(config)
    with pytest.raises(UnsupportedModelError, match=f"'{text.model_type}' text decoder.*llama"):
        find_anatomy(module, FAMILIES["llava"])


@pytest.mark.parametrize("wrong", [{"decoder": "model.text"}, {"unembedding": "head"}])
def test_a_path_of_a_family_that_leads_nowhere_is_refused_with_its_name(wrong):
    model, _ = build_family("llava")
    (path,) = wrong.values()
    with pytest.raises(UnsupportedModelError, match=f"declared path '{path}'"):
        find_anatomy(model.module, replace(FAMILIES["llava"], **wrong))


@pytest.mark.parametrize("field", ["layers", "attention", "ffn_out", "activation", "final_norm"])
def test_a_path_of_a_decoder_that_leads_nowhere_is_refused_with_its_name(field, monkeypatch):
    model, _ = build_family("llava")
    wrong: dict[str, Any] = {field: "nowhere.at_all"}
    monkeypatch.setitem(DECODERS, "llama", replace(DECODERS["llama"], **wrong))
    with pytest.raises(UnsupportedModelError, match=r"declared path 'nowhere\.at_all'"):
        find_anatomy(model.module, FAMILIES["llava"])
