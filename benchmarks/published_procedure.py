"""Is our scorer at least 20 times as fast as the published procedure, with equal scores and nothing prepared?

    published        `published_steps.py`: one picture at a time, no cache, W_U · W_out of all tokens and units prepared
    mmn              the engine's own way in batches: cache, W_U[t] · W_out of the nouns' tokens alone, shards written
    mmn, one by one  the same with batches of one picture: what of the ratio is the batches'

Each way runs in a process of its own over the same pictures, after a picture of two tokens that loads what loads late;
`--runs` rounds, the ways one after the other in turns. Then the captions are compared token by token and the scores of
our top units with the published ones of the same units; a difference ends the program with exit status 1. transformers,
without the cache, encodes the picture again at every step, which the published procedure need not do: the seconds that
this takes are printed, too.

    python benchmarks/published_procedure.py [--model specimen] [--images gallery] [--pictures 16] [--runs 3]
    python benchmarks/published_procedure.py --model specimen-smollm --pictures 4 --runs 1   # 4.5 GB prepared
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import transformers
from torch import Tensor

from benchmarks import published_costs
from benchmarks.published_steps import Clock, Picture, prepare, score_picture
from benchmarks.scoring_overhead import peak_rss
from mmn.core import ScoreSettings
from mmn.images import Listing, list_source, open_image
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.names import ORIGINAL
from mmn.reading.nouns import tag_nouns
from mmn.runs import shards
from mmn.runs.engines.local import carry_out
from mmn.runs.plan import plan

GOAL: Final = 20.0
PUBLISHED, OURS, ALONE = "published", "mmn", "mmn, one by one"
WAYS: Final = (PUBLISHED, OURS, ALONE)
PREPARED: Final = {"float16": torch.float16, "float32": torch.float32}
# Of a concept's largest score. A cache, a batch and another order of sums move the last digits of float32; a product
# kept in float16 is off by at most 2⁻¹¹ of itself.
REORDERED: Final = 1e-4
ROUNDED: Final = {"float16": 2**-11, "float32": 0.0}
Key = tuple[str, str]  # source and noun


@dataclass(frozen=True)
class Scores:
    """What a way found: captions by source; units (flat, layer · m + i) and scores by picture and noun, best first.

    `every` are the scores of all units, which only the published procedure keeps.
    """

    captions: dict[str, list[int]]
    tops: dict[Key, tuple[Tensor, Tensor]]
    every: dict[Key, Tensor]


@dataclass(frozen=True)
class Measured:
    """One process of one way, from the loaded model on: bytes and seconds.

    `encoder_s` is one encoding of a picture, `stages` are the seconds of each.
    """

    seconds: float
    processor_s: float
    loaded_bytes: int
    peak_bytes: int
    prepared_bytes: int
    prepare_s: float
    encoder_s: float
    stages: dict[str, float]
    shape: dict[str, int]


def main() -> None:
    """Prints the report, or in a process of its own measures one way."""
    options = parse_options()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.way:
        print(json.dumps(asdict(measure(options))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rounds = [_ask_round(Path(folder), number) for number in range(options.runs)]
        found = {way: load_scores(_file(Path(folder), way)) for way in WAYS}
    report(options, rounds, found)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="specimen", metavar="M", help="as for mmn score; default: specimen")
    parser.add_argument("--images", default="gallery", metavar="SRC", help="as for mmn score; default: gallery")
    parser.add_argument("--pictures", type=int, default=16, metavar="N", help="at most; default: 16")
    parser.add_argument("--batch-size", type=int, metavar="N", help="of mmn; default: what auto takes")
    parser.add_argument("--max-new-tokens", type=int, default=50, metavar="N")
    parser.add_argument("--top-k", type=int, default=1000, metavar="K")
    parser.add_argument("--prepared", choices=PREPARED, default="float16", help="kept as; default: float16, as P2's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="processes of each way; default: 3")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _ask_round(folder: Path, number: int) -> dict[str, Measured]:
    order = WAYS if number % 2 == 0 else WAYS[::-1]
    return {way: _ask(way, _file(folder, way)) for way in order}


def _ask(way: str, file: Path) -> Measured:
    """`measure` in a fresh process with our own arguments; its scores are in `file` afterwards."""
    words = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--save", str(file)]
    printed = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    return Measured(**json.loads(printed.splitlines()[-1]))


def _file(folder: Path, way: str) -> Path:
    return folder / f"{WAYS.index(way)}.pt"


def measure(options: argparse.Namespace) -> Measured:
    """One way over all pictures, its scores written to `--save`."""
    torch.set_num_threads(options.threads)
    model = load_model(options.model, "float32", "cpu")
    listing = list_source(options.images, limit=options.pictures)
    forget_peak()
    loaded = peak_rss()
    started = time.perf_counter()
    prepared = prepare(model, PREPARED[options.prepared]) if options.way == PUBLISHED else []
    prepare_s, clock = time.perf_counter() - started, Clock()
    ways: dict[str, Callable[[Listing, int], Scores]] = {
        PUBLISHED: lambda some, n: score_as_published(model, prepared, some, n, options.top_k, clock),
        OURS: lambda some, n: score_ours(model, some, n, options.top_k, options.batch_size or model.usual_batch_size),
        ALONE: lambda some, n: score_ours(model, some, n, options.top_k, 1),
    }
    ways[options.way](Listing(listing.examples[:1], ()), 2)
    tag_nouns.cache_clear()
    clock.seconds.update(Clock().seconds)
    started, processor = time.perf_counter(), time.process_time()
    scores = ways[options.way](listing, options.max_new_tokens)
    seconds, processor_s, peak = time.perf_counter() - started, time.process_time() - processor, peak_rss()
    save_scores(options.save, scores)
    return Measured(
        seconds,
        processor_s,
        loaded,
        peak,
        sum(products.nbytes for products in prepared),
        prepare_s,
        _seconds_to_encode(model, str(listing.examples[0].source)),
        clock.seconds,
        _shape(model, str(listing.examples[0].source)),
    )


def forget_peak() -> None:
    """Starts the peak anew where the system can: loading takes more than the loaded model, in either way alike."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def score_as_published(
    model: Model, prepared: Sequence[torch.Tensor], listing: Listing, max_new_tokens: int, top_k: int, clock: Clock
) -> Scores:
    pictures = [
        score_picture(model, prepared, str(example.source), max_new_tokens, top_k, clock)
        for example in listing.examples
    ]
    return of_pictures(pictures)


def of_pictures(pictures: Sequence[Picture]) -> Scores:
    said = {(picture.source, noun.noun): noun for picture in pictures for noun in picture.nouns}
    return Scores(
        {picture.source: list(picture.caption.token_ids) for picture in pictures},
        {key: (noun.top_unit, noun.top_score) for key, noun in said.items()},
        {key: noun.score for key, noun in said.items()},
    )


def score_ours(model: Model, listing: Listing, max_new_tokens: int, top_k: int, batch_size: int) -> Scores:
    """A run as `mmn score` does it, shards written, and what the shards say."""
    settings = ScoreSettings(
        prompt=model.default_prompt,
        top_k=min(top_k, model.facts.n_units),
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    planned = plan(model.facts, listing, "benchmark", model.exact_prompt(settings.prompt), settings)
    with tempfile.TemporaryDirectory() as folder:
        run_path, _ = carry_out(planned, model, Path(folder), lambda _progress: None)
        return read_scores(run_path, model.facts.d_mlp)


def read_scores(run_path: Path, d_mlp: int) -> Scores:
    """What a run's shards say.

    Raises:
        ValueError: a failure among them: what was not scored cannot be compared.
    """
    captions: dict[str, list[int]] = {}
    tops: dict[Key, tuple[Tensor, Tensor]] = {}
    for name in shards.finished_shards(run_path):
        tables = {table: rows.to_pandas() for table, rows in shards.read_shard(run_path / name).items()}
        if "failure" in tables and len(tables["failure"]):
            raise ValueError(f"not every picture was scored: {tables['failure'].iloc[0].to_dict()}")
        source_of = dict(zip(tables["image"]["image_id"], tables["image"]["source"], strict=True))
        said = tables["caption"][tables["caption"]["variant"] == ORIGINAL]
        captions |= {source_of[row.image_id]: [int(token) for token in row.tokens] for row in said.itertuples()}
        scored = tables["score"].sort_values("rank") if "score" in tables else None
        for key, rows in scored.groupby(["image_id", "noun"]) if scored is not None else ():
            units = rows["layer"].to_numpy(np.int64) * d_mlp + rows["unit"].to_numpy(np.int64)
            tops[source_of[key[0]], key[1]] = torch.from_numpy(units), torch.tensor(rows["score"].to_numpy())
    return Scores(captions, tops, {})


def save_scores(file: Path, scores: Scores) -> None:
    torch.save(asdict(scores), file)


def load_scores(file: Path) -> Scores:
    return Scores(**torch.load(file, weights_only=True))


def largest_difference(published: Scores, ours: Scores) -> float:
    """Of a score, as a share of its concept's largest: our top units' own, and rank by rank of the two top lists.

    Raises:
        ValueError: captions or nouns differ, or there is nothing to compare.
    """
    for source, tokens in published.captions.items():
        if tokens != ours.captions.get(source):
            raise ValueError(f"another caption of {source}: published {tokens}, ours {ours.captions.get(source)}")
    if published.captions.keys() != ours.captions.keys() or published.tops.keys() != ours.tops.keys():
        raise ValueError(f"other pictures or nouns: {published.tops.keys() ^ ours.tops.keys()}")
    if not ours.tops:
        raise ValueError("no caption has a noun: nothing is compared, take more --pictures")
    return max(_difference(published, key, *top) for key, top in ours.tops.items())


def _difference(published: Scores, key: Key, unit: Tensor, score: Tensor) -> float:
    of_same_units, of_same_ranks = published.every[key][unit], published.tops[key][1]
    if len(of_same_ranks) != len(score):
        raise ValueError(f"{key}: {len(of_same_ranks)} units are published, {len(score)} ours")
    worst = torch.stack([(of_same_units - score).abs().max(), (of_same_ranks - score).abs().max()]).max()
    return float(worst / published.every[key].abs().max())


def report(options: argparse.Namespace, rounds: list[dict[str, Measured]], found: dict[str, Scores]) -> None:
    """Everything that the claim is about; ends the program where scores differ."""
    _report_equal(options, found)
    n = len(found[PUBLISHED].captions)
    print(f"{'':18}{'pictures/s':>11}{'peak MB':>9}{'loaded MB':>11}{'prepared MB':>13}{'preparing s':>13}")
    for way in WAYS:
        of = {name: statistics.median(getattr(one[way], name) for one in rounds) for name in _FIGURES}
        print(
            f"{way:18}{n / of['seconds']:11.3f}{of['peak_bytes'] / 1e6:9.0f}{of['loaded_bytes'] / 1e6:11.0f}"
            f"{of['prepared_bytes'] / 1e6:13.1f}{of['prepare_s']:13.1f}"
        )
    _report_ratios(rounds)
    _report_stages(rounds, found)
    _report_counted(options, rounds[0][PUBLISHED].shape, found)


_FIGURES: Final = ("seconds", "peak_bytes", "loaded_bytes", "prepared_bytes", "prepare_s")


def _report_equal(options: argparse.Namespace, found: dict[str, Scores]) -> None:
    tolerance = REORDERED + ROUNDED[options.prepared]
    for way in (OURS, ALONE):
        difference = largest_difference(found[PUBLISHED], found[way])
        print(
            f"equal scores, {way}: {len(found[way].captions)} captions and {len(found[way].tops)} nouns the same, "
            f"largest difference {difference:.1e} of a noun's largest score, allowed {tolerance:.1e}"
        )
        if difference > tolerance:
            sys.exit(f"SCORES DIFFER: {way} by {difference:.1e} from the published procedure's")


def _report_ratios(rounds: list[dict[str, Measured]]) -> None:
    def ratio(slow: str, fast: str, figure: str = "seconds") -> float:
        return statistics.median(getattr(one[slow], figure) / getattr(one[fast], figure) for one in rounds)

    whole = ratio(PUBLISHED, OURS)
    memory, processor = (ratio(PUBLISHED, OURS, figure) for figure in ("peak_bytes", "processor_s"))
    of_parts = f"one by one {ratio(PUBLISHED, ALONE):.1f}, batches {ratio(ALONE, OURS):.1f}; preparing left out"
    print(
        f"published / mmn: median {whole:.1f} times as fast of {len(rounds)} rounds ({of_parts}), "
        f"goal at least {GOAL:.0f}: {'holds' if whole >= GOAL else 'missed'}; peak memory {memory:.2f} times as large, "
        f"processor's seconds {processor:.1f} times as many (what a busy machine distorts least)"
    )


def _report_stages(rounds: list[dict[str, Measured]], found: dict[str, Scores]) -> None:
    """Where the published procedure's time goes; of the captions, the picture's repeated encoding."""
    last = rounds[-1][PUBLISHED]
    shares = ", ".join(f"{name} {seconds / last.seconds:.1%}" for name, seconds in last.stages.items())
    again = last.encoder_s * sum(len(tokens) for tokens in found[PUBLISHED].captions.values())
    print(f"published, {last.seconds:.1f} s: {shares}; of it encoding pictures again {again / last.seconds:.1%}")


def _report_counted(options: argparse.Namespace, shape: dict[str, int], found: dict[str, Scores]) -> None:
    captions, nouns = found[OURS].captions, found[OURS].tops
    n_tokens = round(statistics.mean(len(tokens) for tokens in captions.values()))
    n_nouns = max(1, round(len(nouns) / len(captions)))
    print(f"counted ({Path(published_costs.__file__).name} has the formulas), published and ours:")
    own = published_costs.Shape(options.model, **shape)
    print(published_costs.explain(own, published_costs.Asked(n_tokens + 1, n_nouns, len(captions))))
    for llava in published_costs.LLAVA:
        for n_passes in (n_tokens + 1, options.max_new_tokens):
            print(published_costs.explain(llava, published_costs.Asked(n_passes, n_nouns, 8)))


@torch.inference_mode()
def _seconds_to_encode(model: Model, source: str) -> float:
    """What the picture's encoder takes: a pass over the prompt less one over as many tokens of text."""
    inputs = _inputs(model, source)
    is_picture = torch.isin(inputs["input_ids"], torch.tensor([model.image_token_id or -1]))
    text = {"input_ids": inputs["input_ids"].masked_fill(is_picture, 0)}
    text["attention_mask"] = inputs["attention_mask"]

    def seconds(given: dict[str, Tensor]) -> float:
        started = time.perf_counter()
        model.module(**given, use_cache=False)
        return time.perf_counter() - started

    return max(0.0, statistics.median(seconds(inputs) - seconds(text) for _ in range(3)))


def _shape(model: Model, source: str) -> dict[str, int]:
    d, m = model.anatomy.w_out(0).shape
    n_prompt = _inputs(model, source)["input_ids"].shape[1]
    return {"L": model.anatomy.n_layers, "d": d, "m": m, "V": len(model.anatomy.unembedding.weight), "P": n_prompt}


def _inputs(model: Model, source: str) -> dict[str, Tensor]:
    return model.encode([open_image(Path(source))], model.exact_prompt(model.default_prompt))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
