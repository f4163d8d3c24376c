"""The papers' settings. A preset fills what the command line leaves open; explicit options win."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmn.names import ATTRIBUTION, CONTRIBUTION, CONTRIBUTION_ACTFN, RANDOM_PICTURE, TOP, WEIGHT


@dataclass(frozen=True)
class Noise:
    """How a paper put units under noise; its sizes (sigma, k) could not be verified, and are the user's to give."""

    methods: tuple[str, ...]
    selections: tuple[str, ...]
    sigma_unit: str
    n_draws: int


@dataclass(frozen=True)
class Preset:
    """What a paper used. Its model and pictures are the user's to give; `models` says which they were."""

    methods: tuple[str, ...]
    top_k: int
    prompt: str
    answer_prefix: str
    max_new_tokens: int
    models: str
    noise: Noise | None = None


# The paper's equation, and what its code computed when it was published, of all three models alike (act(gate) without
# the up factor, 22 May 2024 to 25 May 2025 and again since 28 August 2025; in between the equation).
P2_METHODS: Final = (CONTRIBUTION, CONTRIBUTION_ACTFN)

PRESETS: Final[dict[str, Preset]] = {
    "p1": Preset(
        methods=(ATTRIBUTION,),
        top_k=100,
        prompt="A picture of",
        answer_prefix="",
        max_new_tokens=50,
        models="GPT-J 6B behind BEiT and one linear layer; COCO val 2017",
    ),
    "p2": Preset(
        methods=P2_METHODS,
        top_k=10_000,
        prompt="Describe the image in few words.",
        answer_prefix="An image of",
        max_new_tokens=50,
        models="LLaVA, InstructBLIP, mPLUG-Owl2; 1000 SBU pictures",
        noise=Noise(methods=P2_METHODS, selections=(TOP, RANDOM_PICTURE), sigma_unit=WEIGHT, n_draws=1),
    ),
}
