"""A proof (`runs.proof`) in words, for those who only read runs: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping

TOLD = {
    "exact": "the terms of a logit miss {} of it",
    "head": "norm and unembedding miss {} of the logits",
    "ablation": "zeroing a unit misses {} of what was predicted",
    "attribution": "a derivative misses {} of the slope",
}


def told(errors: Mapping[str, float]) -> str:
    """A proof in one line, as the terminal and the Score page say it; "" for a run of before there were proofs."""
    parts = [sentence.format(f"{errors[name]:.1g}") for name, sentence in TOLD.items() if name in errors]
    return f"Proved on two pictures: {'; '.join(parts)}." if parts else ""
