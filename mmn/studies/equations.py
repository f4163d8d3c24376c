"""The equations of every study, each with the function that computes it: what the pages of the docs link.

Text alone: functions are named as `module:function`, and a test finds each of them in its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mmn.names import METHODS


@dataclass(frozen=True)
class Equation:
    """A quantity in plain text: what it is called, how it is computed, by what function, and who defined it."""

    name: str
    text: str
    function: str
    source: str


_SCORES: Final = tuple(
    Equation(one.name, one.equation, one.score or "mmn.scores.equations:rank_matched", one.source)
    for one in METHODS.values()
)

EQUATIONS: Final[Mapping[str, tuple[Equation, ...]]] = {
    "scoring": (
        *_SCORES,
        Equation(
            "budget",
            "y = embedding + Σ_l attention_l + Σ_l Σ_i contribution-folded_li + biases + residual",
            "mmn.scores.budget:logit_budget",
            "OURS",
        ),
    ),
    "modules": (
        Equation(
            "module contribution",
            "sign(v) · |v|^½ · p^½, v = (W_U · norm(output))[t] as a share of the largest |v|, p its softmax",
            "mmn.studies.modules.rows:contribution",
            "VisEdit",
        ),
    ),
    "lens": (
        Equation(
            "logit lens", "softmax(W_U · norm(residual_l))", "mmn.studies.lens.stream:normed_stream", "logit lens"
        ),
        Equation("D", "max_x |F(x) − G(x)|", "mmn.statistics.kolmogorov_smirnov:kolmogorov_smirnov", "P1, Table 2"),
    ),
    "annotate": (
        Equation("ten tokens", "the highest of W_U · W_out[:, i]", "mmn.units.decoding:decode_units", "P1, P2"),
        Equation(
            "heat map",
            "a at the image tokens, bilinear between their centres",
            "mmn.units.heat_maps:heat_map",
            "P1, P2",
        ),
        Equation("mask", "the map above its 95th percentile", "mmn.units.heat_maps:mask_at", "P1, P2"),
        Equation("IoU", "|A ∩ B| / |A ∪ B|", "mmn.units.heat_maps:iou", "P1, P2"),
        Equation("IoU at best", "the smaller area / the larger", "mmn.units.heat_maps:best_iou", "OURS"),
    ),
    "invariance": (
        Equation("region ratio", "|A ∩ B| / k", "mmn.studies.invariance.region:compare", "P2, figure 3"),
        Equation(
            "permutation", "a hash of seed, picture and draw", "mmn.studies.invariance.region:permutation", "OURS"
        ),
        Equation(
            "cross-image, by chance",
            "Σ_l m · Π_i (k_il / m) / k",
            "mmn.studies.invariance.cross_image:expected_by_layer",
            "OURS",
        ),
    ),
    "specificity": (
        Equation(
            "share",
            "a unit's score for a noun / the score of this picture's own top unit for it",
            "mmn.studies.specificity.measure:measure_specificity",
            "P2, figure 5; held out: OURS",
        ),
        Equation(
            "shuffled",
            "unit identities permuted in each layer",
            "mmn.studies.specificity.measure:shuffled_units",
            "OURS",
        ),
    ),
    "selectivity": (
        Equation(
            "selectivity",
            "mean |a| over image tokens of held-out pictures of a class / its highest class",
            "mmn.studies.selectivity.measure:selectivity_rows",
            "P1, figure S.2",
        ),
    ),
    "sensitivity": (
        Equation(
            "sensitivity",
            "how alike are a unit's words and the noun, minus another picture's",
            "mmn.studies.sensitivity.measure:summarize_sensitivity",
            "P1, Table 1",
        ),
    ),
    "degradation": (
        Equation(
            "ablation", "a_i = 0 at every position", "mmn.studies.degradation.interventions:predict", "P1, figure 6"
        ),
        Equation(
            "perturbation",
            "w_i + σ · ‖w_i‖/√d · N(0, 1)",
            "mmn.studies.degradation.perturbation:unit_noise",
            "P2; relative to the column: OURS",
        ),
        Equation("drop", "1 − p(t | k units) / p(t)", "mmn.studies.degradation.curves:probability_drop", "P1"),
    ),
    "editing": (
        Equation(
            "loss",
            "Σ_i [a_i (w_i+Δ_i)·W_U[t0] − a_i (w_i+Δ_i)·W_U[t1]] + β‖Δ‖₂",
            "mmn.studies.editing.objective:p2_loss",
            "P2",
        ),
        Equation(
            "closed form",
            "Δ_i = r·‖w_i‖·sign(Σ a_i)·(W_U[t1]−W_U[t0])/‖…‖",
            "mmn.studies.editing.objective:p2_direction",
            "direction P2, sizes OURS",
        ),
        Equation(
            "rank-one control",
            "W + s (W_U[t1]−W_U[t0]) kᵀ/kᵀk",
            "mmn.studies.editing.objective:rank_one_direction",
            "ROME without its covariance",
        ),
    ),
    "circuits": (
        Equation(
            "edge",
            "Σ_p a_m^p · ∂A_n/∂a_m^p, with A_n = Σ_q w_n^q · a_n^q and w_n^q = ∂y/∂a_n^q held constant",
            "mmn.studies.circuits.find:find_circuit",
            "Rajaram et al. 2024 (second-hand); w: OURS",
        ),
        Equation(
            "through attention",
            "Σ_p |flow − flow around attention| / (that + Σ_p |flow around attention|)",
            "mmn.reading.hooks.paths:capture_paths",
            "OURS",
        ),
        Equation(
            "kept, ablated",
            "a_i held at its mean over the run's pictures, in each group of positions",
            "mmn.studies.circuits.faithfulness:measure_rows",
            "mean ablation as Wang et al. 2023; groups: OURS",
        ),
    ),
}
