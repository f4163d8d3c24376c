"""What each type of transformers' vision-language models was found to give, by the tests: read from `tried.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("tried.json")


@dataclass(frozen=True)
class Tried:
    """One type. `reason` says why it is not supported; where it is, that is empty and the others are filled.

    Attributes:
        found: "structure" where that told all that a logit is made of, "declared" where a factor or cap behind the
            unembedding had to be.
        error: the largest error of the proof on a tiny random model.
        attribution: "yes", or why not; so `maps` (units on the picture) and `batch` (pictures together).
    """

    model_type: str
    example: str
    decoder: str = ""
    found: str = ""
    error: float = 0.0
    attribution: str = ""
    maps: str = ""
    batch: str = ""
    reason: str = ""


def all_tried() -> tuple[Tried, ...]:
    """Every type, in alphabetical order."""
    return tuple(Tried(**values) for values in json.loads(FILE.read_text(encoding="utf-8")))
