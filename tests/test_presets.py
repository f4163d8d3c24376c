"""The papers' settings, as their texts and their released code have them."""

from mmn import names
from mmn.runs.presets import PRESETS


def test_p2_scores_its_equation_and_what_its_code_computed_at_publication() -> None:
    assert PRESETS["p2"].methods == (names.CONTRIBUTION, names.CONTRIBUTION_ACTFN)
    assert "May 2024" in names.METHODS[names.CONTRIBUTION_ACTFN].source


def test_p2_s_noise_is_by_the_weight_and_its_control_is_drawn_by_picture() -> None:
    noise = PRESETS["p2"].noise
    assert noise is not None
    assert (noise.sigma_unit, noise.n_draws) == (names.WEIGHT, 1)
    assert noise.selections == (names.TOP, names.RANDOM_PICTURE)
    assert noise.methods == PRESETS["p2"].methods
