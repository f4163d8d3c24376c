"""Models whose encoder reads picture and prompt: units are the decoder's, which writes the caption."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from mmn import names
from mmn.cli import main
from mmn.errors import UnsupportedModelError, UsageError
from mmn.models.geometry import image_grid
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch, caption_encoded, read_encoded
from mmn.reading.hooks import ACTIVATION, ATTENTION, FINAL, first_not_finite
from mmn.reading.plain_text import Text, nats, plain_texts, prompt_without_picture
from mmn.runs.doctor import check
from mmn.runs.proof import prove
from mmn.specimen.tokenizer import build_tokenizer
from mmn.studies.invariance.region import shuffling
from tests.scored import tables_of
from tests.tiny import ENCODER_DECODERS, FFN, N_LAYERS, WIDTH, build_family, save_tiny_instructblip_on_t5

N_TOKENS = 4
ROUNDING = 1e-5  # measured at most 4e-7
SCALED = {"blip-2 on t5": WIDTH**-0.5, "blip-2 on umt5": WIDTH**-0.5}
PROMPT = "the"


def load(name: str) -> tuple[Model, dict[str, Tensor]]:
    """The model, and two pictures with prompts of different lengths, the shorter one padded on the left."""
    model, one = build_family(name)
    inputs = {key: torch.cat([value, value]) for key, value in one.items()}
    inputs["pixel_values"] = torch.randn(inputs["pixel_values"].shape, generator=torch.Generator().manual_seed(1))
    inputs = padded(inputs, row=1)
    return replace(model, processor=SimpleNamespace(tokenizer=build_tokenizer())), inputs


def padded(inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One more position on the left, unattended; in the other row it is attended, a word."""
    n_rows = len(inputs["input_ids"])
    mask = torch.ones(n_rows, 1, dtype=torch.long)
    mask[row] = 0
    return inputs | {
        "input_ids": torch.cat([mask * 7, inputs["input_ids"]], dim=1),
        "attention_mask": torch.cat([mask, inputs["attention_mask"]], dim=1),
    }


def row_of(inputs: dict[str, Tensor], row: int, start: int = 0) -> dict[str, Tensor]:
    """A row by itself, without its padding."""
    alone = {name: value[row : row + 1] for name, value in inputs.items()}
    return alone | {name: alone[name][:, start:] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_the_anatomy_is_the_decoders(name):
    model, _ = load(name)
    anatomy = model.anatomy
    decoder: Any = model.module.language_model.decoder
    assert anatomy.decoder is decoder
    assert (anatomy.n_layers, anatomy.d_mlp) == (N_LAYERS, FFN)
    assert list(anatomy.others) == [names.CROSS_ATTENTION]
    for layer, block in enumerate(model.module.language_model.decoder.block):
        assert anatomy.attentions[layer] is block.layer[0].SelfAttention
        assert anatomy.others[names.CROSS_ATTENTION][layer] is block.layer[1].EncDecAttention
    assert anatomy.head_factor == pytest.approx(SCALED.get(name, 1.0))
    assert model.has_encoder
    assert model.image_token_id is None


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_logits_are_explained_exactly_and_zeroed_units_take_away_what_they_wrote(name):
    model, inputs = load(name)
    proof = prove(model, caption_encoded(model, inputs, N_TOKENS))
    assert max(proof.head, proof.exact, proof.ablation) <= ROUNDING
    assert proof.attribution is None


WRONG: dict[str, Any] = {
    "without cross-attention": lambda _: {"others": {}},
    "without the head's scale": lambda _: {"head_factor": 1.0},
}


@pytest.mark.parametrize("what", WRONG)
def test_a_term_or_factor_left_out_is_caught(what):
    model, inputs = load("blip-2 on t5")
    wrong = replace(model, anatomy=replace(model.anatomy, **WRONG[what](model.anatomy)))
    batch = caption_encoded(wrong, inputs, N_TOKENS)
    with pytest.raises(UnsupportedModelError, match="not understand"):
        prove(wrong, batch)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_a_caption_read_in_one_pass_is_captured_as_it_was_while_it_was_written(name):
    model, inputs = load(name)
    written = caption_encoded(model, inputs, N_TOKENS)
    read = read_encoded(model, inputs, written.captions)
    rows, steps = torch.tensor([0, 1, 0]), torch.tensor([0, 0, 2])
    assert len(written.captions[0].token_ids) >= 2
    for site, layers in ((ACTIVATION, N_LAYERS), (ATTENTION, N_LAYERS), (names.CROSS_ATTENTION, N_LAYERS), (FINAL, 1)):
        for layer in range(layers):
            one, other = (batch.captured.read(site, layer, rows, steps) for batch in (written, read))
            assert torch.allclose(one, other, atol=1e-4), (site, layer)
    assert torch.allclose(written.logits_at(rows, steps), read.logits_at(rows, steps), atol=1e-4)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_each_row_of_a_batch_is_read_as_it_is_alone(name):
    """The second row's prompt is padded on the left, in the encoder."""
    model, inputs = load(name)
    together = caption_encoded(model, inputs, N_TOKENS)
    for row, start in ((0, 0), (1, 1)):
        alone = caption_encoded(model, row_of(inputs, row, start), N_TOKENS)
        assert alone.captions[0].token_ids == together.captions[row].token_ids
        assert torch.allclose(activations(alone, 0), activations(together, row), atol=1e-4)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_text_without_a_picture_is_read_beside_an_encoder_that_says_nothing(name):
    model, _ = load(name)
    start = prompt_without_picture(model, "what is this ?")
    silence = BaseModelOutput(torch.zeros(1, 1, WIDTH))
    ids = torch.tensor([[*start, 5, 6]])
    with torch.no_grad():
        logits = model.module.language_model(encoder_outputs=silence, decoder_input_ids=ids).logits
    expected = -logits[0].double().log_softmax(-1)[torch.arange(3), torch.tensor([5, 6, 7])].sum()
    assert nats(model, [Text(start, (5, 6, 7))], lambda _n: nullcontext()) == pytest.approx(float(expected), rel=1e-5)
    assert {text.prefix for text in plain_texts(model)} == {start}


def activations(batch: CaptionBatch, row: int) -> Tensor:
    return batch.captured.read_layers(ACTIVATION, torch.tensor([row]), torch.tensor([0]))


def test_what_is_about_image_tokens_is_refused_with_the_reason():
    model, inputs = load("instructblip on flan-t5")
    with pytest.raises(UsageError, match="no image tokens in their prompt; an encoder reads them"):
        shuffling(model, inputs, [(0, "a", "b")] * 2)
    with pytest.raises(UsageError, match="an encoder reads its picture"):
        image_grid(model, inputs, (28, 28))


def test_where_numbers_stop_being_finite_is_found_in_the_decoder():
    model, inputs = load("blip-2 on t5")
    with torch.no_grad():
        model.anatomy.ffn_outs[1].weight[0, 0] = torch.inf
    assert first_not_finite(model, inputs) == "the output of layer 1"


# ---- a checkpoint, from the terminal


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_instructblip_on_t5(tmp_path_factory.mktemp("model") / "instructblip-t5")


def say(*words: object) -> int:
    return main([*map(str, words)])


@pytest.fixture(scope="module")
def scored(saved: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of three pictures."""
    cache = tmp_path_factory.mktemp("scored") / "cache"
    methods = "contribution,contribution-folded,contribution-actfn,activation,random-matched"
    words = ["score", "--model", saved, "--images", pictures, "--methods", methods, "--prompt", PROMPT]
    assert say(*words, "--limit", 3, "--max-new-tokens", 8, "--cache", cache, "--device", "cpu") == 0
    return cache


def test_a_checkpoint_is_proved_and_its_processors_image_tokens_are_counted(saved: Path) -> None:
    model = load_model(str(saved), device="cpu")
    checked = check(model, model.exact_prompt(model.default_prompt))
    assert (checked.n_image_tokens, checked.n_image_features) == (5, 5)
    assert max(checked.proof.exact, checked.proof.head, checked.proof.ablation) <= ROUNDING


def test_the_budget_of_a_run_has_a_term_for_cross_attention(scored: Path) -> None:
    tables = tables_of(scored, ["budget", "concept"])
    terms = tables["budget"].groupby(["image_id", "noun", "term"])["logit"].sum().unstack()
    assert {"embedding", "attention", "cross-attention", "ffn"} <= set(terms.columns)
    assert (terms["cross-attention"].abs() > 1e-3).all()
    logits = tables["concept"].set_index(["image_id", "noun"])["logit"]
    assert ((terms.sum(axis=1) - logits).abs() / logits.abs().clip(lower=1)).max() <= ROUNDING


def test_the_budgets_figure_draws_cross_attention(scored: Path, tmp_path: Path) -> None:
    concept = tables_of(scored, ["concept"])["concept"].iloc[0]
    of = ["--run", "latest", "--image", concept["image_id"], "--noun", concept["noun"], "--cache", scored]
    assert say("figure", "budget", *of, "--out", tmp_path / "budget.json") == 0
    assert '"cross-attention"' in (tmp_path / "budget.json").read_text()


def test_zeroing_all_units_of_the_decoder_and_none(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["degrade", "latest", "--kind", "ablate", "--shares", "0,1", "--selections", "top", "--no-captions"]
    assert say(*words, "--device", "cpu", "--cache", scored, "--json") == 0
    capsys.readouterr()
    tables = tables_of(scored, ["effect", "concept"])
    effects = tables["effect"].set_index(["image_id", "noun"])
    plain = effects[effects["k"] == 0]["prob"]
    said = tables["concept"].set_index(["image_id", "noun"]).loc[plain.index]
    slope = said["prob"] * (1 - said["prob"])  # of a probability by its logit: logits are near 100 here, and rounded
    assert ((plain - said["prob"]).abs() <= ROUNDING * (said["logit"].abs() * slope + 1)).all()
    assert (effects[effects["k"] > 0]["prob"] < plain.min()).all()


@pytest.mark.parametrize("method", ["attribution", "attribution-act", "random-matched:attribution"])
def test_attribution_is_refused_before_anything_is_scored(method, saved, pictures, tmp_path, capsys):
    words = ["score", "--model", saved, "--images", pictures, "--methods", method, "--device", "cpu"]
    assert say(*words, "--cache", tmp_path) == 2
    assert "an encoder reads them, and scores are of the decoder's units" in capsys.readouterr().err
