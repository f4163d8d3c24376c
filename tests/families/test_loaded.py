"""Tiny checkpoints with their own processors, loaded, checked and scored as a user does."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmn import names
from mmn.core import ScoreSettings
from mmn.errors import UsageError
from mmn.images import list_source
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.rows import some_of
from mmn.runs.doctor import check
from mmn.scores import integrated
from mmn.scores.expert_gradients import own_experts_read_images
from mmn.scores.methods import require_method
from mmn.studies.circuits.find import find_circuit
from mmn.studies.circuits.passes import Shown
from mmn.studies.circuits.rules import RULES
from mmn.studies.circuits.tables import RAJARAM
from mmn.studies.degradation.interventions import logits_at
from tests.families.pictures import MIXES
from tests.families.processors import save_checkpoint
from tests.families.recipes import RECIPES
from tests.families.test_exact import EXACT, ROUNDING
from tests.families.test_places import WITH_GRID, a_planted_square_is_noticed_where_the_declared_grid_says
from tests.families.test_processors import (
    pictures,
    skip_without_packages,
    two_pictures_of_different_sizes_in_one_batch_are_read_as_each_alone,
)
from tests.scored import rows_of

PROMPTS = ("what is this ?", "describe this image .", "a picture of", "a photo of a", "the", "there is a", "on the")
LENGTHS = (6, 16)
SETTINGS = ScoreSettings(prompt=PROMPTS[0], top_k=20)


@pytest.mark.parametrize("name", [name for name in RECIPES if name in EXACT])
def test_checkpoint_with_its_processor_is_proved_and_scored_by_every_method(name, tmp_path, monkeypatch):
    """And two pictures of one batch, of different sizes, are read as each alone, each token where it is said to be."""
    skip_without_packages(name)
    monkeypatch.setattr(integrated, "STEPS", 3)  # its sums are tested elsewhere
    save_checkpoint(name, tmp_path / "model")
    model = load_model(str(tmp_path / "model"), device="cpu")
    checked = check(model, model.exact_prompt(model.default_prompt))
    assert checked.proof.exact <= ROUNDING
    assert (checked.n_image_tokens is None) == (model.image_token_id is None) or model.has_encoder
    settings = replace(SETTINGS, methods=methods_of(model))
    for length, prompt in itertools.product(LENGTHS, PROMPTS):  # a random model says a noun after one of them
        settings = replace(settings, prompt=prompt, max_new_tokens=length)
        together = scored(model, tmp_path / "pictures", settings, size=2)
        if "concept" in together:
            break
    assert max(abs(row["residual"]) / max(abs(row["logit"]), 1) for row in together["concept"]) <= ROUNDING
    assert {row["method"] for row in together["score"]} == set(settings.methods)
    if name not in MIXES:  # nothing but captions and logits is compared: one method is enough
        alone = replace(settings, methods=(names.CONTRIBUTION,))
        assert close(together, scored(model, tmp_path / "pictures", alone, size=1))
    two_pictures_of_different_sizes_in_one_batch_are_read_as_each_alone(name, model.processor, model.module)
    if name in WITH_GRID:
        a_planted_square_is_noticed_where_the_declared_grid_says(name, model.processor, model.module)
    if model.anatomy.mixtures:
        a_word_has_a_circuit(model)


def a_word_has_a_circuit(model: Model) -> None:
    """What the last layer's units pass on is their effect, and the logit is the plain model's."""
    inputs = some_of(model, model.encode(pictures(), model.exact_prompt(PROMPTS[0])), [0])
    shown, rule = Shown(inputs, ((5,),), (7,)), RULES[RAJARAM]
    if own_experts_read_images(model):
        with pytest.raises(UsageError, match="go through experts of their own"):
            find_circuit(model, shown, rule, 1)
        return
    circuit = find_circuit(model, shown, rule, 1)
    plain = model.anatomy.uncapped(logits_at(model, inputs, (5,), [1]))[0, 7]
    assert circuit.logit.item() == pytest.approx(plain.item(), rel=1e-4, abs=1e-5)
    assert circuit.into[-1][0].weight.item() == pytest.approx(circuit.effect[0, -1, 0].item(), rel=1e-4)


def methods_of(model: Model) -> tuple[str, ...]:
    """All but those that the type is refused with a reason for."""
    refused = set()
    for method in names.METHODS:
        try:
            require_method(model, method)
        except UsageError:
            refused.add(method)
    return tuple(method for method in names.METHODS if method not in refused)


def scored(model: Model, folder: Path, settings: ScoreSettings, size: int) -> dict[str, list[dict[str, Any]]]:
    """The rows of the tables of two pictures of different sizes, in batches of a size."""
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures()):
        picture.save(folder / f"{number}.png")
    return rows_of(model, list_source(str(folder)).examples, settings, size)


def close(one: dict[str, list[dict[str, Any]]], other: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether both say the same, with the same logits."""
    texts = [sorted((row["image_id"], row["text"]) for row in tables["caption"]) for tables in (one, other)]
    logits = [{(row["image_id"], row["noun"]): row["logit"] for row in tables["concept"]} for tables in (one, other)]
    same = texts[0] == texts[1] and logits[0].keys() == logits[1].keys()
    return same and all(abs(logits[0][key] - logits[1][key]) <= 1e-4 * max(abs(logits[0][key]), 1) for key in logits[0])
