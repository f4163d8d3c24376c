"""The words that people script against: scoring methods, caption variants, run states and the shape of a run id.

Every method names its definition: P1 is Schwettmann et al. 2023 (arXiv 2308.01544), P2 is Pan et al. 2024
(arXiv 2311.07470); OURS is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONTRIBUTION: Final = "contribution"
CONTRIBUTION_FOLDED: Final = "contribution-folded"
CONTRIBUTION_ACTFN: Final = "contribution-actfn"
ACTIVATION: Final = "activation"
RANDOM: Final = "random"


@dataclass(frozen=True)
class Method:
    """How a score is written, where it is read, and who defined it."""

    name: str
    equation: str
    position: str
    source: str


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method(CONTRIBUTION, "a · (W_U[t] · W_out[:, i])", "the pass that predicts the noun", "P2"),
        Method(
            CONTRIBUTION_FOLDED,
            "a · (W_U[t]·γ/rms · W_out[:, i]): the final norm folded in, so that all terms add up to the logit",
            "the pass that predicts the noun",
            "OURS",
        ),
        Method(
            CONTRIBUTION_ACTFN,
            "act(gate) · (W_U[t] · W_out[:, i]): the gated FFN's up factor left out",
            "the pass that predicts the noun",
            "P2's released code",
        ),
        Method(ACTIVATION, "a", "the pass that predicts the noun", "activation baseline"),
        Method(RANDOM, "a seeded uniform draw", "none", "P2's control"),
    )
}

ORIGINAL: Final = "original"  # caption variant: the picture as it is

RUNNING: Final = "running"
COMPLETE: Final = "complete"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
RUN_STATES: Final = (RUNNING, COMPLETE, CANCELLED, FAILED)

BUDGET_TERMS: Final = ("embedding", "attention", "ffn", "bias")
