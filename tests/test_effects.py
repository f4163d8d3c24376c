"""Effects of single units against plain transformers whose W_out has a column of zeros, and against whole passes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmn import names
from mmn.core import Concept, Example, ScoreSettings
from mmn.errors import UsageError
from mmn.images import Listing, list_source, open_image
from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch, caption_batch, with_captions
from mmn.reading.concepts import GeneratedCaption, find_concepts
from mmn.reading.hooks import Captured, ablate
from mmn.reading.rows import some_of
from mmn.runs.plan import plan
from mmn.runs.prepare import settings_of
from mmn.scores import effects
from mmn.scores.batch import check_methods
from mmn.scores.effects import Effects, measure_effects
from mmn.scores.methods import require_method
from mmn.scores.rows import ConceptAt
from tests.scored import rows_of
from tests.test_experts import tiny as mixture
from tests.tiny import build_family

PROMPT, CAPTION = "A picture of", (11, 12, 13, 14)
TOLERANCE = 1e-5  # of a logit: the difference of two sums of float32
# Norms behind W_out, a soft cap, rotations in three, flattened rows, what is given by position.
FAMILIES = ("paligemma on gemma2", "qwen2_vl", "blip-2", "mplug_owl2")


def concept_at(row: int, position: int, token_id: int) -> ConceptAt:
    concept = Concept(f"w{token_id}", f"w{token_id}", 1, token_id, position, True, False, False, None)
    return ConceptAt(row, Example("i", "i", ("i",), 1, 1), concept)


def built(family: str) -> tuple[Model, CaptionBatch]:
    model, inputs = build_family(family)
    return model, CaptionBatch(inputs, (GeneratedCaption("abcd", CAPTION, (1, 2, 3, 4)),), Captured(0), ())


def plain_logits(model: Model, inputs: dict[str, Tensor], prefix: list[int], layer: int, unit: int) -> Tensor:
    """All logits at the last token of prompt and prefix, which alone meets a W_out without the unit's column."""
    module = model.module
    ids = torch.cat([inputs["input_ids"], torch.tensor([prefix], dtype=torch.long)], 1)
    whole = torch.ones_like(ids)
    before = module(input_ids=ids[:, :-1], attention_mask=whole[:, :-1], pixel_values=inputs["pixel_values"])
    edited = copy.deepcopy(module)
    edited.model.language_model.layers[layer].mlp.down_proj.weight[:, unit] = 0
    past: Any = before.past_key_values
    return edited(input_ids=ids[:, -1:], attention_mask=whole, past_key_values=past).logits[0, -1]


@torch.inference_mode()
def test_an_effect_is_what_a_column_of_zeros_takes_in_plain_transformers(tiny: Model, pictures: Path) -> None:
    """Two pictures of different captions: their rows, their prefixes and p(c) are not mixed up."""
    images = [open_image(Path(one.source)) for one in list_source(str(pictures)).examples[:2]]
    batch = caption_batch(tiny, images, tiny.exact_prompt(PROMPT), 8)
    example = Example("i", "i", ("i",), 1, 1)
    said = [ConceptAt(row, example, one) for row in (1, 0) for one in find_concepts(batch.captions[row], ())]
    said = [one for one in said if one.concept.position > 0][:3]
    found = measure_effects(tiny, batch, said)
    for number, one in enumerate(said):
        prefix = list(batch.captions[one.row].token_ids[: one.concept.position])
        token, inputs = one.concept.token_id, some_of(tiny, batch.inputs, [one.row])
        whole = batch.logits_at(torch.tensor([one.row]), torch.tensor([one.concept.position]))[0]
        for flat in found.logit[number].abs().flatten().topk(3).indices.tolist():
            layer, unit = divmod(flat, tiny.facts.d_mlp)
            without = plain_logits(tiny, inputs, prefix, layer, unit)
            lost = (whole - without)[token].item(), (whole.softmax(-1) - without.softmax(-1))[token].item()
            assert found.logit[number, layer, unit].item() == pytest.approx(lost[0], abs=1e-4)  # logits near 40
            assert found.prob[number, layer, unit].item() == pytest.approx(lost[1], abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_the_layers_gone_again_give_what_whole_passes_give(family: str) -> None:
    model, batch = built(family)
    found = measure_effects(model, batch, [concept_at(0, 2, 30)])
    for flat in found.logit[0].abs().flatten().topk(2).indices.tolist():
        layer, unit = divmod(flat, model.facts.d_mlp)
        assert found.logit[0, layer, unit].item() == pytest.approx(
            lost_by_ablation(model, batch, layer, unit), abs=1e-6
        )


def lost_by_ablation(model: Model, batch: CaptionBatch, layer: int, unit: int) -> float:
    """What token 30 loses in its second pass, over the whole prefix."""
    prompt = with_captions(model, batch.inputs, [CAPTION[:2]])
    mask = torch.zeros(1, model.facts.n_layers, model.facts.d_mlp, dtype=torch.bool)
    plain = model.module(**prompt, use_cache=False).logits[0, -1]
    mask[0, layer, unit] = True
    with ablate(model, mask, only_at=torch.arange(prompt["input_ids"].shape[1]) == prompt["input_ids"].shape[1] - 1):
        without = model.module(**prompt, use_cache=False).logits[0, -1]
    return float((model.anatomy.uncapped(plain) - model.anatomy.uncapped(without))[30])


def test_layers_gone_again_and_whole_passes_agree_at_the_first_pass_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit: at the prompt's own pass, and at one after it for two words."""
    model, batch = built("llava")
    said = [concept_at(0, 0, 17), concept_at(0, 2, 30), concept_at(0, 2, 13)]
    found = measure_effects(model, batch, said)
    last = range(model.facts.n_layers - 1, model.facts.n_layers)
    parts = [(found, measure_effects(model, batch, said, layers=last))]
    monkeypatch.setattr(effects, "is_as_read", lambda *_: False)  # nothing is near enough
    whole = measure_effects(model, batch, said)
    parts.append((whole, measure_effects(model, batch, said, layers=last)))
    for one in ("logit", "prob"):
        assert torch.allclose(getattr(found, one), getattr(whole, one), atol=1e-6)
        assert not any(map(torch.equal, getattr(found, one), getattr(whole, one))), "was not gone again at all"
        for every, of_last in parts:
            assert torch.equal(getattr(every, one)[:, -1], getattr(of_last, one)[:, -1])
            assert getattr(of_last, one)[:, :-1].isnan().all()


def test_hooks_are_gone_and_a_stop_in_the_middle_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = built("llava")

    def stop(*_: object) -> Effects:
        raise KeyboardInterrupt

    measure_effects(model, batch, [concept_at(0, 0, 30)])
    before = n_hooks(model)  # transformers' own among them
    monkeypatch.setattr(effects, "of_tokens", stop)
    with pytest.raises(KeyboardInterrupt):
        measure_effects(model, batch, [concept_at(0, 2, 30)])
    assert n_hooks(model) == before


def n_hooks(model: Model) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.module.modules())


def test_effects_are_ranked_beside_every_score_and_their_control_follows_them(tiny: Model, pictures: Path) -> None:
    methods = (names.EFFECT, names.EFFECT_PROB, names.ACTIVATION, f"{names.RANDOM_MATCHED}:{names.EFFECT}")
    settings = ScoreSettings(
        PROMPT, methods, top_k=5, bottom_k=5, max_new_tokens=8, variants=(names.ORIGINAL, names.BLANK)
    )
    rows = rows_of(tiny, list_source(str(pictures)).examples[:2], settings, 2)["score"]
    original = [row for row in rows if row["variant"] == names.ORIGINAL]
    assert {row["method"] for row in original} == {*methods, *(f"{one}-minus-blank" for one in methods[:3])}
    layers = {
        method: [row["layer"] for row in original if row["method"] == method and row["rank"] > 0]
        for method in (names.EFFECT, f"{names.RANDOM_MATCHED}:{names.EFFECT}")
    }
    assert len(set(map(tuple, layers.values()))) == 1
    (worst,) = {row["score"] < 0 for row in original if row["method"] == names.EFFECT and row["rank"] == -1}
    assert worst, "a suppressor's absence raises the logit"


def test_effects_of_chosen_layers_are_ranked_there_alone_with_the_values_of_all(tiny: Model, pictures: Path) -> None:
    """The same scores as a run of all layers has there, of the grey picture, too; a control in these layers; other
    scores of all layers.
    """
    methods = (names.EFFECT, f"{names.RANDOM_MATCHED}:{names.EFFECT}", names.ACTIVATION)
    variants = (names.ORIGINAL, names.BLANK)
    of_all = ScoreSettings(PROMPT, methods, top_k=10_000, bottom_k=10_000, max_new_tokens=8, variants=variants)
    chosen = range(1, tiny.facts.n_layers)
    examples = list_source(str(pictures)).examples[:1]
    every, found = (
        scores_of(tiny, examples, settings)
        for settings in (of_all, replace(of_all, effect_layers=(chosen[0], chosen[-1])))
    )
    control = f"{names.RANDOM_MATCHED}:{names.EFFECT}"
    assert {key[0] for key in found} == {*methods, "effect-minus-blank", "activation-minus-blank"}
    for method in {key[0] for key in found} - {control}:
        layers = chosen if names.EFFECT in method else range(tiny.facts.n_layers)
        wanted = {key: score for key, score in every.items() if key[0] == method and key[3] in layers}
        assert {key: score for key, score in found.items() if key[0] == method} == wanted
    drawn = [key for key in found if key[0] == control]
    assert {key[3] for key in drawn} == set(chosen)
    assert len(drawn) == len([key for key in found if key[0] == names.EFFECT])


def scores_of(model: Model, examples: Sequence[Example], settings: ScoreSettings) -> dict[tuple[Any, ...], float]:
    """By method, variant, noun, layer and unit; of the top ranks."""
    rows = rows_of(model, examples, settings, 1)["score"]
    keys = ("method", "variant", "noun", "layer", "unit")
    return {tuple(row[key] for key in keys): row["score"] for row in rows if row["rank"] > 0}


def test_layers_of_effects_are_checked_and_are_part_of_the_run(tiny: Model) -> None:
    settings = settings_of(tiny, methods=("effect",), effect_layers=(1, 1))
    last = tiny.facts.n_layers - 1
    assert settings.effect_layers == (1, 1)
    assert settings_of(tiny, methods=("effect",), effect_layers=(0, last)).effect_layers == ()
    assert settings_of(tiny, methods=("random-matched:effect-prob",), effect_layers=(0, 0)).effect_layers == (0, 0)
    with pytest.raises(UsageError, match=f"--effect-layers 1-{last + 1}: the layers of .* are 0-{last}"):
        settings_of(tiny, methods=("effect",), effect_layers=(1, last + 1))
    with pytest.raises(UsageError, match=r"--effect-layers 1-1 is of effect and effect-prob: name one"):
        settings_of(tiny, methods=("activation",), effect_layers=(1, 1))
    listing = Listing((), ())
    of_some, of_all = (
        plan(tiny.facts, listing, "gallery", "p", replace(settings, effect_layers=layers)).run
        for layers in ((1, 1), ())
    )
    assert of_some.run_id != of_all.run_id


def test_experts_and_what_cannot_be_read_are_refused_by_name() -> None:
    method = f"random-matched:{names.INTEGRATED_GRADIENTS}"
    with pytest.raises(UsageError, match=f"--methods {method} is not there for mixtures of experts"):
        require_method(mixture("qwen3_vl_moe")[0], method)
    with pytest.raises(UsageError, match=r"nam-text is refused: .* could not be read"):
        check_methods(["nam-text"])
