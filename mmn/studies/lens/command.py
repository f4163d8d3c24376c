"""`mmn lens`: what the image tokens of a run's pictures say, read as words, added to the run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from mmn.cli import add_common
from mmn.cli.finishing import finish, is_loaded, tell_failed
from mmn.cli.options import at_least, entries
from mmn.cli.running import add_run_options, open_scored_run
from mmn.counts import counted
from mmn.errors import UsageError


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("lens", help="read a run's image tokens as words: nearest embeddings, logit lens")
    add_run_options(parser)
    parser.add_argument(
        "--limit", type=at_least(1), default=50, metavar="N", help="pictures, rounded up to whole batches; default 50"
    )
    parser.add_argument("--top", type=at_least(1, 100), default=5, metavar="N", help="words of each; default 5")
    parser.add_argument("--layers", default="all", metavar="all|0,3,7", help="layers after which the logit lens reads")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    layers = _layers(options.layers)
    scored = open_scored_run(options)
    scored.run.model.require_layers(layers or ())
    read_stoppably(scored.load(), scored.path, options.limit, options.top, layers, scored.progress)
    return finish(options, scored, {}, lambda: summary(options.cache, scored.run.run_id), _print_result)


def read_stoppably(
    model: Any, run_path: Path, limit: int, top: int, layers: Sequence[int] | None, progress: Any
) -> None:
    """`read_image_tokens`, ended by SIGINT or SIGTERM as scoring is: with what was finished kept."""
    from mmn.runs.engines.local import stoppable
    from mmn.studies.lens.measure import read_image_tokens

    with stoppable():
        read_image_tokens(model, run_path, limit, top, layers, progress)


def summary(cache_path: Path, run_id: str) -> dict[str, Any]:
    """What the run's lens found so far, by name; of a model whose tokens have no nearest words, the layers only."""
    from mmn.store import Store
    from mmn.studies.lens.queries import LensQueries
    from mmn.studies.lens.rows import layer_shares, nearest_result

    with Store.open(cache_path) as store:
        tokens, failed = store.ask(LensQueries).nearest_tokens(run_id), store.table(run_id, "failure")
        result = {
            "n_images": len(store.ask(LensQueries).pictures(run_id)),
            "n_image_tokens": int((tokens["kind"] == "nearest").sum()),
            "n_random": int((tokens["kind"] == "random").sum()),
            "n_failed": int((failed["stage"] == "lens").sum()),
            "layers": layer_shares(store, run_id).to_dict("records"),
        }
    found = nearest_result(tokens)
    if found is not None:
        result |= asdict(found.test) | {"p_text": found.test.p_text}
        result |= {"word_share": found.word_share, "word_share_random": found.word_share_random}
    return result


def _layers(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    chosen = entries(text, "--layers", "0,3,7")
    if wrong := [word for word in chosen if not word.isdecimal()]:
        raise UsageError(f"--layers: {wrong[0]!r} is not a layer's number; give all, or numbers as in 0,3,7")
    return tuple(map(int, chosen))


def _print_result(result: dict[str, Any]) -> None:
    if not is_loaded(result):
        print(f"{result['run_id']}: read; the database is {result['database']}, and its Lens page shows what was found")
        return
    from mmn.statistics.interval_words import bracket, few_note, percent  # pandas is slow to import

    print(
        f"{result['run_id']}: {counted(result['n_images'], 'picture')}, "
        f"{counted(result['n_image_tokens'], 'image token')}"
    )
    if "statistic" in result:
        share, random = percent(result["word_share"]), percent(result["word_share_random"])
        print(
            f"nearest word: D = {result['statistic']:z.3f}, p {result['p_text']} against "
            f"{counted(result['n_random'], 'random vector')}; {share} are English words (random: {random})"
        )
    for layer, rows in groupby(result["layers"], key=itemgetter("layer")):
        shares = [f"{percent(row['mean'], 1)}{bracket(row['low'], row['high'], '.1%')} {row['line']}" for row in rows]
        print(f"after layer {layer}: {'; '.join(shares)}")
    if note := few_note(row["n"] for row in result["layers"]):
        print(note)
    tell_failed(result)
