"""Does the whole ablation grid of one picture cost at most 1.3 times its rows through the plain model?

    plain      one pass of the model alone over as many rows of the prompt and its caption as the grid has
    ablation   the same rows, each without units of its own: 9 k × 3 selections, masks made and hooks on, the
               probability of the noun read in every row

Random units stand in for the three selections: what a mask costs does not depend on which units it holds. Runs in
turns, ratios within a run, the median printed.

    python benchmarks/ablation.py [--model specimen] [--images gallery] [--device cpu] [--runs 20]
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

from mmn import names
from mmn.core import Concept
from mmn.images import list_source
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.captions import caption_batch, with_captions
from mmn.reading.concepts import find_concepts
from mmn.reading.hooks import ablate
from mmn.reading.rows import Inputs, repeated
from mmn.runs.engines.local import open_batch
from mmn.runs.plan import Batch
from mmn.scores.rows import ConceptAt
from mmn.studies.degradation.command import SHARES
from mmn.studies.degradation.interventions import predict, unit_mask
from mmn.studies.degradation.selections import Choice, Row

GOAL = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="specimen")
    parser.add_argument("--images", default="gallery")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    model = load_model(options.model, device=options.device)
    opened = open_batch(Batch("all", list_source(options.images, limit=1).examples))
    batch = caption_batch(model, opened.images, model.exact_prompt(model.default_prompt), 30)
    inputs = {name: value.clone() for name, value in batch.inputs.items()}
    caption = batch.captions[0]
    concept = find_concepts(caption, ())[-1]
    ks = [round(float(share) * model.facts.n_units) for share in SHARES.split(",")]
    said = ConceptAt(0, opened.examples[0], concept)
    chosen = [
        Choice(said, selection, names.CONTRIBUTION, 0, torch.randperm(model.facts.n_units)[: ks[-1]])
        for selection in names.SELECTIONS
    ]
    rows = [Row(choice, k) for choice in chosen for k in ks]
    whole, masked, ratios = [], [], []
    for _ in range(options.runs):
        whole.append(timed(model, lambda: plain(model, inputs, caption.token_ids, concept, len(rows))))
        masked.append(timed(model, lambda: ablated(model, inputs, caption.token_ids, rows)))
        ratios.append(masked[-1] / whole[-1])
    ratio = statistics.median(ratios)
    print(f"plain model, {len(rows)} rows: {statistics.median(whole) * 1e3:.0f} ms")
    print(f"the grid: {statistics.median(masked) * 1e3:.0f} ms")
    print(f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); {'holds' if ratio <= GOAL else 'missed'}")


@torch.inference_mode()
def plain(model: Model, inputs: Inputs, token_ids: tuple[int, ...], concept: Concept, n_rows: int) -> None:
    read = with_captions(model, inputs, [token_ids[: concept.position]])
    model.module(**repeated(read, n_rows), use_cache=False, logits_to_keep=1)


def ablated(model: Model, inputs: Inputs, token_ids: tuple[int, ...], rows: list[Row]) -> None:
    with ablate(model, unit_mask(model, rows)):
        concepts = [row.choice.said.concept for row in rows]
        predict(model, inputs, token_ids, concepts, torch.tensor([one.token_id for one in concepts]))


def timed(model: Model, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
