"""Does region invariance with five permutations cost at most 5.5 times one scoring run?

    scoring      `mmn score`'s way into shards, over some pictures
    invariance   `mmn invariance --kind region`'s over the run that it made: captions and scores of each picture under
                 five permutations, by the same methods, into shards, and the ratios

Both with the same model in this process, the pictures opened by each; in pairs, one after the other, and the ratio is
taken within each pair.

    python benchmarks/invariance.py [--model specimen] [--images gallery] [--pictures 128] [--runs 3]
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
from mmn.runs.plan import Plan, plan
from mmn.runs.reopen import open_run
from mmn.studies.invariance.region import measure_region

GOAL: Final = 5.5
N_DRAWS: Final = 5


def main() -> None:
    """Prints the report."""
    options = parse_options()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = load_model(options.model, options.dtype, options.device)
    listing = list_source(options.images, limit=options.pictures)
    methods = tuple(options.methods.split(","))
    measure_pair(model, planned(model, Listing(listing.examples[:4], ()), methods))  # first calls load lazily
    pairs = [measure_pair(model, planned(model, listing, methods)) for _ in range(options.runs)]
    for what, seconds in zip(("scoring", "invariance"), zip(*pairs, strict=True), strict=True):
        print(f"{what}: median {statistics.median(seconds):.2f} s")
    ratios = [invariance / scoring for scoring, invariance in pairs]
    median = statistics.median(ratios)
    print(
        f"region invariance of {N_DRAWS} permutations / scoring, {len(listing.examples)} pictures, {options.methods}: "
        f"median {median:.2f} of {len(ratios)} pairs ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"goal at most {GOAL:.1f}: {'holds' if median <= GOAL else 'missed'}"
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="specimen", metavar="M", help="as for mmn score; default: specimen")
    parser.add_argument("--images", default="gallery", metavar="SRC", help="as for mmn score; default: gallery")
    parser.add_argument("--pictures", type=int, default=128, metavar="N", help="at most; default: 128")
    parser.add_argument("--methods", default="contribution", metavar="A,B", help="of both; default: contribution")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="pairs; default: 3")
    return parser.parse_args()


def planned(model: Model, listing: Listing, methods: tuple[str, ...]) -> Plan:
    settings = ScoreSettings(
        prompt=model.default_prompt,
        methods=methods,
        top_k=min(1000, model.facts.n_units),
        batch_size=model.usual_batch_size,
    )
    return plan(model.facts, listing, "benchmark", model.exact_prompt(settings.prompt), settings)


def measure_pair(model: Model, wanted: Plan) -> tuple[float, float]:
    """Seconds of a new run and of its region invariance."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run_path, _ = carry_out(wanted, model, Path(folder), lambda _progress: None)
        scored = time.perf_counter()
        measure_region(open_run(model, run_path), N_DRAWS)
        return scored - started, time.perf_counter() - scored


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
