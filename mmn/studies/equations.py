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
    "bench": (
        Equation(
            "detector",
            "W_gate[i] = s·w, w = (XᵀDX + λI)⁻¹ XᵀD(±1)",
            "mmn.studies.bench.detectors:separate",
            "OURS",
        ),
        Equation(
            "effect everywhere",
            "y − y(a_i := 0 at every position)",
            "mmn.studies.bench.yardstick:effects",
            "OURS",
        ),
        Equation(
            "area",
            "mean over k of (p/p0 with k random units at 0) − (p/p0 with the first k)",
            "mmn.studies.bench.yardstick:curves",
            "OURS; the curves: P1, figure 6",
        ),
        Equation("agreement", "Spearman's ρ", "mmn.studies.bench.rankings:correlation", "OURS"),
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
    "domains": (
        Equation(
            "P_d",
            "tokens of domain d with act > 0 / all its tokens",
            "mmn.studies.domains.measured:of_rows",
            "MMNeuron",
        ),
        Equation("H", "−Σ_d q_d log q_d, q_d = P_d / Σ P_d", "mmn.studies.domains.groups:entropies", "MMNeuron"),
        Equation(
            "importance",
            "Σ weight · min-max within the layer of prob, mean, max, attn_k, attn_q",
            "mmn.studies.domains.importance:importance",
            "MINER",
        ),
        Equation(
            "visual, text, multi-modal",
            "rate at image tokens, at text tokens, at both above that of 95 % of units",
            "mmn.studies.domains.groups:by_tokens",
            "after Xu et al.; the rule is OURS",
        ),
        Equation(
            "found again", "|A ∩ B| / mean size, of both halves", "mmn.studies.domains.measured:stability", "OURS"
        ),
    ),
    "image-tokens": (
        Equation(
            "replaced",
            "p(t | x) − p(t | x with the mean image token at a set of places)",
            "mmn.studies.image_tokens.replacing:replace_tokens",
            "Neo et al. 2025",
        ),
        Equation(
            "integrated gradients",
            "(x − x̄) · 1/S Σ_s ∂y/∂x at x̄ + (s − ½)/S · (x − x̄); a token's value is Σ_j |IG_j|",
            "mmn.studies.image_tokens.gradients:integrated_gradients",
            "Sundararajan et al. 2017; the middle of each step: OURS",
        ),
        Equation(
            "knockout",
            "attention weights from a set of tokens to a target are 0 in a window of layers",
            "mmn.reading.hooks.image_tokens:block_attention",
            "Geva et al. 2023",
        ),
    ),
    "hallucination": (
        Equation(
            "internal confidence",
            "c(o) = max over layers, image tokens and sub-tokens t of o of softmax(W_U h)[t]",
            "mmn.studies.hallucination.confidence:confidences",
            "Jiang et al. 2025, as their code reads it",
        ),
        Equation(
            "ProjectAway",
            "h − α · max(h·v, 0) / (v·v) · v at every image token",
            "mmn.reading.hooks.projection:without",
            "Jiang et al. 2025",
        ),
        Equation(
            "CHAIR_i, CHAIR_s",
            "hallucinated / named objects; captions with one / captions",
            "mmn.studies.hallucination.rows:edited_rows",
            "Rohrbach et al. 2018; the list of synonyms: OURS",
        ),
        Equation(
            "AUROC",
            "P(c of an object that is there > c of one that is not), ties half",
            "mmn.statistics.detection:detection",
            "textbook; intervals by picture: OURS",
        ),
    ),
    "patchscopes": (
        Equation(
            "patchscope",
            "h[source, i, l] over [prompt, last, l*], then the next token",
            "mmn.studies.patchscopes.prompt:read_in",
            "arXiv 2401.06102 and its code; of image tokens: OURS",
        ),
        Equation("surprisal", "−log p(t), nats", "mmn.studies.patchscopes.measure:read_in_prompt", "arXiv 2401.06102"),
        Equation(
            "neighbours",
            "highest cos(h of an image token, h of a word in a sentence), layer by layer",
            "mmn.studies.patchscopes.bank:nearest",
            "LatentLens, from its README",
        ),
        Equation("by chance", "m / n; 1 − Π (n − m − i) / (n − i)", "mmn.studies.patchscopes.bank:chances", "OURS"),
    ),
    "projector": (
        Equation(
            "probe",
            "w = (XᵀX + λI)⁻¹ Xᵀ y of the mean image token, five folds by picture",
            "mmn.studies.projector.probe:predictions",
            "Verma et al. 2024; ridge: OURS",
        ),
        Equation(
            "macro F1",
            "mean over classes of 2 TP / (2 TP + FP + FN)",
            "mmn.studies.projector.probe:f1_parts",
            "Verma et al. 2024",
        ),
        Equation(
            "cosines",
            "cos(mean image state, mean caption state), layer by layer",
            "mmn.studies.projector.measure:modality_rows",
            "Shukor & Cord 2024, second-hand",
        ),
        Equation("units of both", "|A ∩ B| / |A ∪ B|", "mmn.studies.projector.measure:unit_rows", "OURS"),
        Equation(
            "by chance",
            "Σ_j C(k, j) C(m − k, k − j) / C(m, k) · j / (2k − j)",
            "mmn.studies.projector.measure:expected_iou",
            "OURS",
        ),
    ),
    "dictionaries": (
        Equation(
            "semi-NMF",
            "min ½‖Z − VU‖² + ΣV, V ≥ 0, ‖u_k‖ ≤ 1",
            "mmn.studies.dictionaries.solvers:semi_nmf",
            "CoX-LMM",
        ),
        Equation("words", "the highest of W_U u_k", "mmn.studies.dictionaries.grounding:words_of", "CoX-LMM"),
        Equation(
            "overlap",
            "mean over k ≠ j of |words_k ∩ words_j| / |words_k|",
            "mmn.studies.dictionaries.grounding:overlap",
            "CoX-LMM",
        ),
    ),
    "shift": (
        Equation(
            "gain",
            "cos(z + α δ, z′) − cos(z, z′), δ of the concept's other pictures",
            "mmn.studies.shift.deltas:left_out",
            "after Khayatan et al.; left out: OURS",
        ),
    ),
}
