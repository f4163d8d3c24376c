"""Does attribution of all n nouns of a caption cost at most 1.5 + 1.0 · n passes forward and backward?

    pass         the model's own forward pass over prompt and caption, and one backward pass from one logit to the
                 decoder's input: plain transformers and autograd
    attribution  `gradients.attribute` for n concepts of every picture of the batch: one forward pass, n backward

Runs in turns, ratios within a run, medians printed.

    python benchmarks/attribution.py [--model specimen] [--images gallery] [--pictures 16] [--runs 12]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmn.images import list_source
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.captions import caption_batch, with_captions
from mmn.runs.engines.local import open_batch
from mmn.runs.plan import Batch
from mmn.scores.gradients import Question, attribute

MOST_NOUNS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="specimen")
    parser.add_argument("--images", default="gallery")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--runs", type=int, default=12)
    options = parser.parse_args()
    model = load_model(options.model)
    images = open_batch(Batch("all", list_source(options.images, limit=options.pictures).examples)).images
    batch = caption_batch(model, images, model.exact_prompt(model.default_prompt), 30)
    captions = [caption.token_ids for caption in batch.captions]
    inputs = {name: value.clone() for name, value in batch.inputs.items()}
    ratios: dict[int, list[float]] = {n: [] for n in range(1, MOST_NOUNS + 1)}
    for _ in range(options.runs):
        one = timed(model, lambda: forward_and_backward(model, inputs, captions))
        for n, values in ratios.items():
            questions = [Question(row, p, ids[p]) for row, ids in enumerate(captions) for p in range(min(n, len(ids)))]
            values.append(timed(model, lambda q=questions: attribute(model, inputs, captions, q)) / one)  # type: ignore[misc]
    for n, values in ratios.items():
        ratio, goal = statistics.median(values), 1.5 + n
        verdict = "holds" if ratio <= goal else "missed"
        print(f"{n} nouns: {ratio:.2f} passes ({min(values):.2f} to {max(values):.2f}); goal {goal:.1f}: {verdict}")


def forward_and_backward(model: Model, inputs: dict[str, torch.Tensor], captions: list[tuple[int, ...]]) -> None:
    """One pass each way; the graph begins at the decoder's input, as parameters are frozen."""
    started: list[torch.Tensor] = []

    def begin(_module: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        started.append(args[0].detach().requires_grad_(True))
        return (started[0], *args[1:])

    handle = model.anatomy.layers[0].register_forward_pre_hook(begin)
    try:
        with torch.enable_grad():
            logits = model.module(**with_captions(model, inputs, captions), use_cache=False).logits
            torch.autograd.grad(logits[:, -1, 0].sum(), started)
    finally:
        handle.remove()


def timed(model: Model, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
