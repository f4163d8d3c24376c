"""The words that people script against: scoring methods, caption variants, run states and the shape of a run id.

Every method names its definition: P1 is Schwettmann et al. 2023 (arXiv 2308.01544), P2 is Pan et al. 2024
(arXiv 2311.07470); OURS is our own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

CONTRIBUTION: Final = "contribution"
CONTRIBUTION_FOLDED: Final = "contribution-folded"
CONTRIBUTION_CENTRED: Final = "contribution-centred"
CONTRIBUTION_ACTFN: Final = "contribution-actfn"
ACTIVATION: Final = "activation"
ATTRIBUTION: Final = "attribution"
ATTRIBUTION_ACT: Final = "attribution-act"
RELP: Final = "relp"
INTEGRATED_GRADIENTS: Final = "integrated-gradients"
HONES: Final = "hones"
EFFECT: Final = "effect"
EFFECT_PROB: Final = "effect-prob"
RANDOM: Final = "random"
RANDOM_MATCHED: Final = "random-matched"
EFFECTS: Final = (EFFECT, EFFECT_PROB)  # measured unit by unit: of chosen layers, where a run says so


@dataclass(frozen=True)
class Method:
    """A score: how it is written, where it is read, who defined it, and what computes it.

    Attributes:
        name: that people script against.
        equation: in plain text.
        position: that it is read at.
        source: the paper, or OURS.
        score: `module:function` of (scores.methods.Measured) -> Scored; "" for a draw that follows another ranking.
        colour: on every chart.
        reads_act: needs act(gate) captured, too.
        ranks_last_layer: nothing follows the last layer at an image token, so scores read there leave it out.
        cost: what it takes for each noun, in words, of a score that takes much longer than the others; else "".
    """

    name: str
    equation: str
    position: str
    source: str
    score: str
    colour: str
    reads_act: bool = False
    ranks_last_layer: bool = True
    cost: str = ""


_NOUN: Final = "the pass that predicts the noun"
_IMAGE: Final = "image tokens"
_BEFORE: Final = "all positions before the noun"
_SCORES: Final = "mmn.scores.methods"
_OF_EFFECT: Final = "m · L · (L + 1) / 2 passes of a token through a layer for each noun"

# Colours: six of Okabe and Ito's eight (2008), told apart by every kind of colour vision; draws in greys. Their yellow
# drowns in white and their black in the dark: the seventh score has a violet (OURS), farther from the others than they
# are from each other. Those behind it were searched for (OURS): each as far as can be from all before it.
METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method(CONTRIBUTION, "a · (W_U[t] · W_out[:, i])", _NOUN, "P2", f"{_SCORES}:score_contribution", "#0072B2"),
        Method(
            CONTRIBUTION_FOLDED,
            "a · (W_U[t]·γ/rms · W_out[:, i]): the final norm folded in, so that all terms add up to the logit",
            _NOUN,
            "OURS",
            f"{_SCORES}:score_contribution_folded",
            "#56B4E9",
        ),
        Method(
            CONTRIBUTION_ACTFN,
            "act(gate) · (W_U[t] · W_out[:, i]): the gated FFN's up factor left out",
            _NOUN,
            "P2's released code, May 2024 to May 2025 and since August 2025",
            f"{_SCORES}:score_contribution_actfn",
            "#009E73",
            reads_act=True,
        ),
        Method(
            CONTRIBUTION_CENTRED,
            "a · ((W_U[t] − mean over tokens of W_U) · W_out[:, i])",
            _NOUN,
            "OURS",
            f"{_SCORES}:score_contribution_centred",
            "#6600ee",
        ),
        Method(ACTIVATION, "a", _NOUN, "activation baseline", f"{_SCORES}:score_activation", "#E69F00"),
        Method(
            ATTRIBUTION,
            "z · ∂y/∂z, its signed maximum over image tokens",
            _IMAGE,
            "P1 (maximum: OURS)",
            f"{_SCORES}:score_attribution",
            "#D55E00",
            ranks_last_layer=False,
        ),
        Method(
            ATTRIBUTION_ACT,
            "a · ∂y/∂a, its signed maximum over image tokens",
            _IMAGE,
            "OURS",
            f"{_SCORES}:score_attribution_act",
            "#CC79A7",
            ranks_last_layer=False,
        ),
        Method(
            RELP,
            "Σ a · ∂̃y/∂a over all positions, ∂̃ by RelP's rules: norms' scales and attention weights constant, act(z)/z "
            "constant, a gated product's gradient halved",
            _BEFORE,
            "RelP (Jafari et al. 2025), rules of Transluce's code; the sum: OURS",
            f"{_SCORES}:score_relp",
            "#557733",
        ),
        Method(
            INTEGRATED_GRADIENTS,
            "Σ ∫ ∂y/∂a · da over image tokens, which go from their mean in the picture to themselves",
            _IMAGE,
            "Sundararajan et al. 2017, Dhamdhere et al. 2019; the mean of one picture: OURS",
            f"{_SCORES}:score_integrated_gradients",
            "#bb9955",
            ranks_last_layer=False,
            cost="21 passes with a gradient for each noun",
        ),
        Method(
            HONES,
            "Σ_h w_h [c − c(h)]₊ / Σ_h w_h, c = a · (W_out[:, i] · W_U[t]/‖W_U[t]‖), h: a head replaced by the mean of "
            "its layer's others, w_h: the probability lost by that",
            _NOUN,
            "HONES's code; one noun for a data set: OURS",
            f"{_SCORES}:score_hones",
            "#bb55ff",
        ),
        Method(
            EFFECT,
            "y − y(a := 0): the logit that is lost when the unit alone is zeroed there, measured",
            _NOUN,
            "OURS (the causal baseline of NAM, NeurIPS 2024)",
            f"{_SCORES}:score_effect",
            "#dd00bb",
            cost=_OF_EFFECT,
        ),
        Method(
            EFFECT_PROB,
            "p − p(a := 0): the probability that is lost when the unit alone is zeroed there, measured",
            _NOUN,
            "OURS (the causal baseline of NAM, NeurIPS 2024)",
            f"{_SCORES}:score_effect_prob",
            "#9999ff",
            cost=_OF_EFFECT,
        ),
        Method(RANDOM, "a seeded uniform draw", "none", "P2's control", f"{_SCORES}:score_random", "#8c8c8c"),
        Method(
            RANDOM_MATCHED,
            "a seeded uniform draw whose units lie, rank for rank, in the layers of another ranking's",
            "none",
            "P1's control",
            "",
            "#6b6054",
        ),
    )
}

# Scores that somebody published and that are none of ours, with the reason.
REFUSED: Final = {
    "nam-text": "NAM (NeurIPS 2024) combines a · (W_U[t] · W_out[:, i]) with a normalised largest activation, in a "
    "form that could not be read, and there is no code; what could be read of it is contribution"
}

PREFERRED: Final = (CONTRIBUTION_FOLDED, CONTRIBUTION)  # first the one that adds up to the logit


def default_method(there: Sequence[str]) -> str:
    """The score that every page and figure takes where nobody chose one: the first of `PREFERRED` that is there."""
    return next((method for method in PREFERRED if method in there), there[0])


ORIGINAL: Final = "original"  # caption variant: the picture as it is
BLANK: Final = "blank"  # the same prefix over a uniform grey picture
SHUFFLED: Final = "shuffled-"  # and a number: the picture's tokens permuted before the decoder, captioned again
SET: Final = "set:"  # begins the name of a set of units that stands for a score: `set:NAME@DIGEST`
MINUS_BLANK: Final = "-minus-blank"  # ends a method's name: each unit's score minus its score over the grey picture


def definition(method: str) -> Method:
    """The definition of a method's exact string.

    `random-matched:METHOD` follows METHOD's layers; `METHOD-minus-blank` is what a picture brings to METHOD's score.

    Raises:
        KeyError: There is no such method.
    """
    if method.endswith(MINUS_BLANK):
        return _minus_blank(METHODS[method.removesuffix(MINUS_BLANK)])
    base, _, reference = method.partition(":")
    if reference and (base != RANDOM_MATCHED or reference.startswith(RANDOM) or reference not in METHODS):
        raise KeyError(method)
    return METHODS[base]


def meaning(method: str) -> Method:
    """`definition`, or what `set:NAME@DIGEST` means: units that somebody saved, the same for all nouns.

    Raises:
        KeyError: There is no such method.
    """
    if method.startswith(SET):
        return Method(method, "a saved set of units, in its own order", "none", "whoever saved it", "", "")
    return definition(method)


def _minus_blank(method: Method) -> Method:
    if method.name.startswith(RANDOM):
        raise KeyError(method.name + MINUS_BLANK)
    equation = f"{method.equation}, minus the same over a uniform grey picture"
    return replace(method, name=method.name + MINUS_BLANK, equation=equation, source="OURS")


def reads_act(methods: Collection[str]) -> bool:
    """Whether any of the methods needs act(gate) captured."""
    return any(method in METHODS and METHODS[method].reads_act for method in methods)


def reference_of(method: str) -> str:
    """The ranking whose layers a `random-matched` method follows."""
    return method.partition(":")[2] or CONTRIBUTION


def followed(method: str) -> str:
    """The ranking that a `random-matched` method follows, or the method itself."""
    return reference_of(method) if method.startswith(RANDOM_MATCHED) else method


def ranked_layers(method: str, n_layers: int, effect_layers: Sequence[int] = ()) -> range:
    """The layers whose units a method ranks; chance is over these.

    Nothing follows the last layer at an image token, so attribution there leaves it out, and a control with its layers.

    Args:
        method: or a control that follows it.
        n_layers: of the model.
        effect_layers: first and last of those whose effects were measured (`ScoreSettings`), () for all.
    """
    stem = followed(method).removesuffix(MINUS_BLANK)
    if stem in EFFECTS and effect_layers:
        return range(effect_layers[0], effect_layers[1] + 1)
    is_whole = stem not in METHODS or METHODS[stem].ranks_last_layer
    return range(n_layers if is_whole else n_layers - 1)


def chosen_layers(method: str, settings: Mapping[str, Any]) -> range | None:
    """The layers that a score was measured in alone, in a run with these settings; None of any other score."""
    chosen: Sequence[int] = settings.get("effect_layers") or []
    is_of_some = len(chosen) > 0 and followed(method).removesuffix(MINUS_BLANK) in EFFECTS
    return range(chosen[0], chosen[1] + 1) if is_of_some else None


def chance_overlap(
    k: int, methods: Sequence[str], n_layers: int, d_mlp: int, effect_layers: Sequence[int] = ()
) -> float:
    """What rankings that know nothing of each other share of their top k, of one method or of two: 1 is all.

    Draws of k from a and from b units, c of which are the same ones, share k²·c/(a·b) units on average; where there are
    fewer than k units to draw from, all of them are drawn.
    """
    of = [ranked_layers(method, n_layers, effect_layers) for method in methods]
    one, other = of[0], of[-1]
    both = range(max(one.start, other.start), min(one.stop, other.stop))
    drawn = min(k, len(one) * d_mlp) * min(k, len(other) * d_mlp)
    return drawn * len(both) / (len(one) * len(other) * d_mlp * k)


ABLATE: Final = "ablate"  # an intervention: units set to 0 (P1)
PERTURB: Final = "perturb"  # an intervention: noise on what units write (P2)
SCALE: Final = "scale"  # an intervention: units multiplied by a factor (OURS)
INTERVENTIONS: Final = (ABLATE, PERTURB, SCALE)
REGION: Final = "region"  # an invariance: one picture before and after its tokens are shuffled (P2, figure 3)
CROSS_IMAGE: Final = "cross-image"  # an invariance: several pictures whose captions share a noun (P2, figure 4)
TOP: Final = "top"  # a selection of units: the first of a ranking
INTERPRETABLE: Final = "interpretable"  # the first interpretable units of a ranking
SELECTIONS: Final = (TOP, INTERPRETABLE, RANDOM)  # the last one is the control
RANDOM_PICTURE: Final = "random-picture"  # P2's control as its code draws it: once for a picture, for all of its nouns
ANOTHER: Final = "another"  # a control: the first units of another picture's noun, by the same method
CHOSEN_SELECTIONS: Final = (*SELECTIONS, RANDOM_PICTURE)  # what is asked for; `another` is measured beside each
ALL_SELECTIONS: Final = (TOP, INTERPRETABLE, ANOTHER, RANDOM, RANDOM_PICTURE)
EVERYWHERE: Final = "everywhere"  # where units are ablated: at every position, prompt and caption included
IMAGE_TOKENS: Final = "image-tokens"  # at the picture's tokens alone
POSITIONS: Final = (EVERYWHERE, IMAGE_TOKENS)
PLAIN_TEXT: Final = "plain"  # a text for perplexity: the English sentences that come with the package
CAPTIONS_TEXT: Final = "captions"  # captions of the run's other pictures, after its prompt and without a picture
COLUMN_NORM: Final = "column norm"  # noise relative to each unit's own column of W_out
WEIGHT: Final = "weight"  # noise in the weights' own unit
SIGMA_UNITS: Final = (COLUMN_NORM, WEIGHT)

HELD_OUT: Final = "held-out"  # units chosen on another picture of the noun than the one that they are judged on
SAME_PICTURE: Final = "same"  # chosen and judged on one picture (P1, P2)
SHUFFLED_UNITS: Final = "shuffled"  # the null of that: unit identities shuffled within layers, then chosen likewise
GIVEN: Final = "set"  # a saved set of units: chosen by somebody, and judged on every picture
FOUND: Final = (HELD_OUT, SAME_PICTURE, SHUFFLED_UNITS)

GROUPED_BY: Final = ("noun", "folder", "tag")  # what a domain of pictures is (`mmn domains`)
UNIT_RULES: Final = ("dape", "la-mu", "adaptive", "tokens")  # how units are told apart by where they are active
TOKEN_SETS: Final = ("text", "image")  # the tokens that the decoder reads: of words, and of the picture

RUNNING: Final = "running"
COMPLETE: Final = "complete"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
RUN_STATES: Final = (RUNNING, COMPLETE, CANCELLED, FAILED)

RAW: Final = "raw"  # a unit's words by the rows of W_U as they are (P1, P2)
CENTRED: Final = "centred"  # by these less their mean: the same words, and what each gets above the mean token
COSINE: Final = "cosine"  # by these at length 1: the directions nearest to the unit's own
WORD_ROWS: Final = (RAW, CENTRED, COSINE)

CROSS_ATTENTION: Final = "cross-attention"  # a budget's term: in an encoder-decoder, to what its encoder read
PER_LAYER_INPUT: Final = "per-layer input"  # likewise, in Gemma 4: of an embedding that each layer has of its own
BUDGET_TERMS: Final = ("embedding", "attention", CROSS_ATTENTION, PER_LAYER_INPUT, "ffn", "bias")
