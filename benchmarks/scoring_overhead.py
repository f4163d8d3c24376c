"""Does scoring cost at most 1.10 times what captioning the same pictures costs, in time and in peak memory?

    plain    open the pictures, processor, `model.generate` with the same greedy settings, decode: transformers alone
    scored   the engine's own way: open, caption with hooks, nouns, `contribution` of every unit, top k, write the shard

Both see the same batches. Time: pairs of runs, one after the other in turns, so that a drifting machine hits both; the
ratio is taken within each pair and its median printed. Memory: each way in processes of its own, peak resident size
(on a GPU, peak allocated); libraries included, since a user pays for those, too.

    python benchmarks/scoring_overhead.py [--model specimen] [--images gallery] [--pictures 128] [--runs 12]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers

from mmn.core import Example, ScoreSettings
from mmn.images import list_source, open_image
from mmn.models.loading import load_model
from mmn.models.model import Model

GOAL: Final = 1.10
RUSAGE_UNIT: Final = 1 if platform.system() == "Darwin" else 1024  # bytes


def main() -> None:
    """Prints the report, or in a process of its own the peak of one way."""
    options = parse_options()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.peak_of:
        print(measure_peak(options))
        return
    time_ratios = measure_time(options)
    report("time", time_ratios)
    peaks = {way: [ask_for_peak(way) for _ in range(options.memory_runs)] for way in ("plain", "scored")}
    for way, values in peaks.items():
        print(f"peak memory, {way}: {statistics.median(values) / 1e6:.0f} MB")
    report("peak memory", [scored / plain for plain, scored in zip(peaks["plain"], peaks["scored"], strict=True)])


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="specimen", metavar="M", help="as for mmn score; default: specimen")
    parser.add_argument("--images", default="gallery", metavar="SRC", help="as for mmn score; default: gallery")
    parser.add_argument("--pictures", type=int, default=128, metavar="N", help="at most; default: 128")
    parser.add_argument("--batch-size", type=int, metavar="N", help="of both ways; default: what auto takes")
    parser.add_argument("--max-new-tokens", type=int, default=50, metavar="N")
    parser.add_argument("--top-k", type=int, default=1000, metavar="K")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--runs", type=int, default=12, metavar="N", help="pairs that are timed; default: 12")
    parser.add_argument("--memory-runs", type=int, default=3, metavar="N", help="processes for each way; default: 3")
    parser.add_argument("--peak-of", choices=("plain", "scored"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_time(options: argparse.Namespace) -> list[float]:
    """The ratio scored / plain of each pair; which way goes first changes from pair to pair."""
    model, batches = prepare(options)
    ways = {"plain": caption_plainly, "scored": score}
    for way in ways.values():
        way(model, batches[:1], options)  # first calls load lazily: the tagger's tables, kernels
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for pair in range(options.runs):
        for name in sorted(ways, reverse=bool(pair % 2)):
            seconds[name].append(timed(ways[name], model, batches, options))
    for name, values in seconds.items():
        print(f"time, {name}: {statistics.median(values):.3f} s for {sum(map(len, batches))} pictures")
    return [scored / plain for plain, scored in zip(seconds["plain"], seconds["scored"], strict=True)]


def measure_peak(options: argparse.Namespace) -> int:
    """Peak bytes of this process (of the GPU's memory, where there is one) after one way over all batches."""
    model, batches = prepare(options)
    {"plain": caption_plainly, "scored": score}[options.peak_of](model, batches, options)
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    return peak_rss()


def peak_rss() -> int:
    """Peak resident bytes. Linux lets a new process inherit its parent's `ru_maxrss`, so there it is read elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RUSAGE_UNIT
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def ask_for_peak(way: str) -> int:
    """`measure_peak` in a fresh process with our own arguments."""
    words = [sys.executable, __file__, *sys.argv[1:], "--peak-of", way]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def prepare(options: argparse.Namespace) -> tuple[Model, list[list[Example]]]:
    model = load_model(options.model, options.dtype, options.device)
    examples = list_source(options.images, limit=options.pictures).examples
    size = options.batch_size or model.usual_batch_size
    return model, [list(examples[start : start + size]) for start in range(0, len(examples), size)]


def caption_plainly(model: Model, batches: Sequence[Sequence[Example]], options: argparse.Namespace) -> None:
    """What anyone would write with transformers alone."""
    prompt = model.exact_prompt(model.default_prompt)
    for batch in batches:
        images = [open_image(example.source) for example in batch]
        inputs = model.encode(images, prompt)
        with torch.inference_mode():
            sequences = model.module.generate(**inputs, do_sample=False, max_new_tokens=options.max_new_tokens)
        model.tokenizer.batch_decode(sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def score(model: Model, batches: Sequence[Sequence[Example]], options: argparse.Namespace) -> None:
    """Imports here: the plain way must not pay for them."""
    from mmn.images import Listing
    from mmn.reading.nouns import tag_nouns
    from mmn.runs.engines.local import carry_out
    from mmn.runs.plan import plan

    settings = ScoreSettings(
        prompt=model.default_prompt,
        top_k=min(options.top_k, model.facts.n_units),
        max_new_tokens=options.max_new_tokens,
        batch_size=len(batches[0]),
    )
    listing = Listing(tuple(example for batch in batches for example in batch), ())
    planned = plan(model.facts, listing, options.images, model.exact_prompt(settings.prompt), settings)
    tag_nouns.cache_clear()  # captions of an earlier run, which no user has
    with tempfile.TemporaryDirectory() as folder:
        carry_out(planned, model, Path(folder), lambda _progress: None)


def timed(way: Callable[..., None], *arguments: Any) -> float:
    started = time.perf_counter()
    way(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def report(quantity: str, ratios: Sequence[float]) -> None:
    median = statistics.median(ratios)
    verdict = "holds" if median <= GOAL else "missed"
    print(
        f"{quantity}, scored / plain: median {median:.3f} of {len(ratios)} pairs "
        f"({min(ratios):.3f} to {max(ratios):.3f}); goal at most {GOAL:.2f}: {verdict}"
    )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
