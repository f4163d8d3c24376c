"""Tiny checkpoints with their own processors, loaded as a user does: what `mmn doctor` and `score` check first."""

from __future__ import annotations

import pytest

from mmn.models.loading import load_model
from mmn.runs.doctor import check
from tests.families.processors import save_checkpoint
from tests.families.recipes import RECIPES
from tests.families.test_exact import EXACT, ROUNDING
from tests.families.test_processors import skip_without_packages


@pytest.mark.parametrize("name", [name for name in RECIPES if name in EXACT])
def test_checkpoint_with_its_processor_passes_the_doctor(name, tmp_path):
    skip_without_packages(name)
    save_checkpoint(name, tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    checked = check(model, model.exact_prompt(model.default_prompt))
    assert checked.proof.exact <= ROUNDING
    assert (checked.n_image_tokens is None) == (model.image_token_id is None)
