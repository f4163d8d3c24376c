"""Is scoring in batches at least twice as fast as one picture at a time?

The engine's whole way into shards, over the same pictures, with the batch size that `--batch-size auto` takes and with
1, in pairs one after the other in turns; the ratio is taken within each pair.

    python benchmarks/batching.py [--model specimen] [--images gallery] [--pictures 200] [--runs 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import transformers

from mmn.core import ScoreSettings
from mmn.images import Listing, list_source
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.runs.engines.local import carry_out
from mmn.runs.plan import plan

GOAL: Final = 2.0


def main() -> None:
    """Prints the report."""
    options = parse_options()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = load_model(options.model, options.dtype, options.device)
    listing = list_source(options.images, limit=options.pictures)
    size = options.batch_size or model.usual_batch_size
    score(model, Listing(listing.examples[:size], ()), size)  # first calls load lazily
    seconds: dict[int, list[float]] = {size: [], 1: []}
    for pair in range(options.runs):
        for this in sorted(seconds, reverse=bool(pair % 2)):
            seconds[this].append(score(model, listing, this))
    for this, values in seconds.items():
        rate = len(listing.examples) / statistics.median(values)
        print(f"batch size {this}: {statistics.median(values):.2f} s, {rate:.1f} pictures/s")
    ratios = [alone / batched for alone, batched in zip(seconds[1], seconds[size], strict=True)]
    median = statistics.median(ratios)
    print(
        f"time alone / in batches of {size}, {len(listing.examples)} pictures: "
        f"median {median:.2f} of {len(ratios)} pairs "
        f"({min(ratios):.2f} to {max(ratios):.2f}); goal at least {GOAL:.1f}: {'holds' if median >= GOAL else 'missed'}"
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="specimen", metavar="M", help="as for mmn score; default: specimen")
    parser.add_argument("--images", default="gallery", metavar="SRC", help="as for mmn score; default: gallery")
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="at most; default: 200")
    parser.add_argument("--batch-size", type=int, metavar="N", help="against 1; default: what auto takes")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="pairs; default: 3")
    return parser.parse_args()


def score(model: Model, listing: Listing, batch_size: int) -> float:
    """Seconds that a new run over `listing` takes."""
    settings = ScoreSettings(prompt=model.default_prompt, top_k=min(1000, model.facts.n_units), batch_size=batch_size)
    planned = plan(model.facts, listing, "benchmark", model.exact_prompt(settings.prompt), settings)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        carry_out(planned, model, Path(folder), lambda _progress: None)
        return time.perf_counter() - started


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
