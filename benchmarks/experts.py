"""Does scoring a mixture of experts cost no more with 64 experts than with 8, of which a token goes through as many?

Both are random models of one shape but for the number of experts. Scoring: one pass over the prompt with all sites
captured, `contribution` of every unit that is awake for some concepts, the top k. Time: in turns, the median of the
ratios; the model's own pass reads more weights with more experts, so what we add is told as a share of it. Memory: the
peak of what is allocated beyond the weights, as torch's profiler sees it.

    python benchmarks/experts.py [--few 8] [--many 64] [--runs 7]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers as hf
from torch.profiler import ProfilerActivity, profile

from mmn.core import ModelFacts
from mmn.models.adapters import find_anatomy, find_family
from mmn.models.model import Model
from mmn.reading.hooks import ACTIVATION, capture
from mmn.scores.equations import contribution, rank_units
from mmn.scores.methods import Scored

GOAL: Final = 1.1
N_ROWS, N_CONCEPTS, N_CHOSEN = 8, 64, 4
SIZES: Final = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 1000,
    "num_experts_per_tok": N_CHOSEN,
}
TOWER: Final = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def main() -> None:
    """Prints both ratios, and whether the goal holds."""
    options = parse_options()
    few, many = (build(n) for n in (options.few, options.many))
    for model in (few, many):
        score(model)
    own = statistics.median(timed(run_plain, many) / timed(run_plain, few) for _ in range(options.runs))
    print(f"the model's own pass, many over few experts: {own:.2f} (more weights are read; not ours)")
    ratios = [
        timed(score, many) / timed(run_plain, many) / (timed(score, few) / timed(run_plain, few))
        for _ in range(options.runs)
    ]
    _report("time of pass and scoring, as a multiple of the pass alone", statistics.median(ratios))
    _report("time of scores and ranking", statistics.median(score(many) / score(few) for _ in range(options.runs)))
    _report("peak memory beyond the weights", peak_bytes(many) / peak_bytes(few))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=8, metavar="N", help="experts; default: 8")
    parser.add_argument("--many", type=int, default=64, metavar="N", help="experts; default: 64")
    parser.add_argument("--runs", type=int, default=7, metavar="N", help="pairs that are timed; default: 7")
    return parser.parse_args()


def build(n_experts: int) -> Model:
    """A random LLaVA on a Mixtral."""
    torch.manual_seed(0)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, projection_dim=32),
        text_config=hf.MixtralConfig(**SIZES, num_local_experts=n_experts),
        image_token_index=3,
        image_seq_length=4,
        vision_feature_layer=-1,
    )
    module: Any = hf.LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    family = find_family("llava")
    anatomy = find_anatomy(module, family)
    facts = ModelFacts("random", "none", "llava", anatomy.n_layers, anatomy.d_mlp)
    return Model(module, None, family, anatomy, facts)


@torch.inference_mode()
def score(model: Model) -> float:
    """Captures, scores and ranks; returns the seconds of the last two."""
    with capture(model) as captured:
        run_plain(model)
    started = time.perf_counter()
    rows = torch.arange(N_CONCEPTS) % N_ROWS
    read = (rows, torch.zeros_like(rows))
    a = captured.read_layers(ACTIVATION, *read)
    scores = contribution(model.anatomy, a, model.anatomy.w_u(torch.arange(N_CONCEPTS)), captured.chosen(*read))
    scored = Scored(scores, a, units=captured.flat_units(*read))
    ranked = rank_units(scored.score, 1000, 100, scored.is_unit)
    scored.flat(ranked.unit, model.anatomy.d_mlp)
    return time.perf_counter() - started


@torch.inference_mode()
def run_plain(model: Model) -> None:
    """One pass over prompts with pictures."""
    ids = torch.tensor([[1, 5, 3, 3, 3, 3, *range(10, 30)]]).expand(N_ROWS, -1)
    pixels = torch.rand(N_ROWS, 3, 28, 28)
    model.module(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, use_cache=False)


def timed(way: Callable[[Model], object], model: Model) -> float:
    started = time.perf_counter()
    way(model)
    return time.perf_counter() - started


def peak_bytes(model: Model) -> int:
    """The most bytes that were allocated at one time while scoring; the weights are there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        score(model)
    events = [one for one in profiled.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for one in sorted(events, key=lambda event: event.start_ns()):
        now += one.nbytes()
        most = max(most, now)
    return most


def _report(quantity: str, ratio: float) -> None:
    print(f"{quantity}, many over few experts: {ratio:.2f} (goal ≤ {GOAL}: {'holds' if ratio <= GOAL else 'missed'})")


if __name__ == "__main__":
    main()
