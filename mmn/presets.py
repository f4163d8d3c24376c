"""The papers' settings. A preset fills what the command line leaves open; explicit options win."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmn.names import ATTRIBUTION, CONTRIBUTION


@dataclass(frozen=True)
class Preset:
    """What a paper used. Its model and pictures are the user's to give; `models` says which they were."""

    methods: tuple[str, ...]
    top_k: int
    prompt: str
    answer_prefix: str
    max_new_tokens: int
    models: str


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
        methods=(CONTRIBUTION,),
        top_k=10_000,
        prompt="Describe the image in few words.",
        answer_prefix="An image of",
        max_new_tokens=50,
        models="LLaVA, InstructBLIP, mPLUG-Owl2; 1000 SBU pictures",
    ),
}
