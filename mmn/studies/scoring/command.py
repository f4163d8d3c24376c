"""`mmn score`: captions pictures and ranks the units behind each noun, into the cache."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from mmn import names
from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.options import add_loading_options, at_least, entries, layer_range, seed
from mmn.cli.running import load_into_database, load_quietly
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.no_nouns import why
from mmn.runs.presets import PRESETS
from mmn.runs.shards import RUN_FILE, read_run
from mmn.specimen import MODELS
from mmn.view import LAYERS

MOST_TOKENS = 4096


def _ray() -> Any:
    from mmn.runs.engines.ray import in_ray

    return in_ray


ENGINES = {"local": lambda: None, "ray": _ray}


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("score", help="caption pictures and rank units for each noun; prints the run id")
    parser.add_argument("--model", required=True, metavar="M", help=f"{', '.join(MODELS)}, a folder, a hub id")
    parser.add_argument("--delta", type=Path, metavar="FILE", help="with the edit that mmn edit wrote to FILE")
    parser.add_argument(
        "--images",
        required=True,
        metavar="SRC",
        help="gallery, gallery:beach,desert (its pictures of some nouns), a folder, coco:A.json:DIR, a list, …",
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), help="a paper's settings for what is not given here")
    parser.add_argument("--methods", metavar="A,B", help=", ".join(names.METHODS))
    parser.add_argument("--top-k", type=at_least(1), metavar="K", help="units kept for each concept; default 1000")
    parser.add_argument("--bottom-k", type=at_least(0), default=0, metavar="K", help="suppressors kept: most negative")
    parser.add_argument(
        "--effect-layers",
        type=layer_range,
        metavar=LAYERS.metavar,
        help="layers that effect and effect-prob are measured in; default all",
    )
    parser.add_argument("--target", action="append", default=[], metavar="WORD[@NOUN]", help="score this word, too")
    parser.add_argument("--blank", action="store_true", help="score the same caption over a grey picture, too")
    parser.add_argument("--prompt", help="your words; the adapter wraps them as the model expects")
    parser.add_argument("--answer-prefix", metavar="TEXT", help="words that the caption goes on from")
    parser.add_argument("--max-new-tokens", type=at_least(1, MOST_TOKENS), metavar="N", help="default 50")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N pictures")
    parser.add_argument(
        "--annotate",
        type=at_least(0),
        default=0,
        metavar="N",
        help="also decode units and store the activations of the top N of each noun",
    )
    parser.add_argument("--batch-size", type=_batch_size, default="auto", metavar="auto|N")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"))
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps")
    add_loading_options(parser)
    parser.add_argument("--engine", default="local", choices=tuple(ENGINES), help="ray needs pip install ray==2.60.0")
    parser.add_argument("--workers", type=at_least(1), default=1, metavar="N", help="processes side by side")
    parser.add_argument("--seed", type=seed(), default=0)
    parser.add_argument("--progress", default="auto", choices=("auto", "json", "none"))
    parser.set_defaults(may_be_empty=("--prompt", "--answer-prefix"))
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from mmn.cli.progress import reporter
    from mmn.images import list_source
    from mmn.models.loading import with_delta
    from mmn.runs.engines.local import carry_out
    from mmn.runs.plan import Progress, conservation, count, unscored
    from mmn.runs.prepare import prepare
    from mmn.safety.atomic_files import require_folder
    from mmn.scores.batch import check_methods
    from mmn.studies.annotate.command import annotate_stoppably

    if options.device_map and (options.workers > 1 or options.engine != "local"):
        raise UsageError("--device-map: one process has all devices; leave --workers and --engine out")
    _fill_from_preset(options)
    methods = entries(options.methods, "--methods")
    check_methods(methods)
    require_folder(options.cache)
    name = with_delta(options.model, options.delta) if options.delta else options.model
    progress = reporter(options.progress)
    progress(Progress("list"))
    listing = list_source(
        options.images,
        limit=options.limit,
        work_path=options.cache / "images",
        progress=lambda done, total: progress(Progress("list", done, total)),
    )
    if listing.note:
        progress(Progress("list", message=listing.note))
    progress(Progress("model", message=name))
    model = load_quietly(name, options.dtype, options.device, options.revision, options.device_map)
    for method in methods:
        if method in names.METHODS and names.METHODS[method].cost:
            progress(Progress("score", message=f"{method} takes long: {names.METHODS[method].cost}"))
    planned = prepare(model, listing, options.images, _settings(options, model, methods))
    if first := first_source(options.cache / "runs" / planned.run.run_id, options.images):
        progress(Progress("score", message=first))
    engine = ENGINES[options.engine]()
    run_path, outcome = carry_out(planned, model, options.cache / "runs", progress, options.workers, engine)
    if options.annotate and count(run_path).n_concepts:
        annotate_stoppably(model, run_path, options.annotate, None, progress)
    counts = count(run_path)
    progress(Progress("load"))
    note = load_into_database(options.cache)
    result = {
        "run_id": planned.run.run_id,
        "status": outcome.status,
        "n_images": counts.n_images,
        "n_failed": counts.n_failed,
        "n_concepts": counts.n_concepts,
        "n_scores": counts.n_scores,
        "seconds": round(outcome.seconds, 3),
        "images_per_s": round(counts.n_images / outcome.seconds, 3) if outcome.seconds else None,
        "max_residual": counts.max_residual,
        "database": note,
    }
    if missing := conservation(run_path):
        result["conservation"] = missing
    if nowhere := unscored(run_path, options.target):
        result["unscored_targets"] = list(nowhere)
    if first:
        result = {"note": first} | result  # first, as what to read before the numbers
    _print_result(result, as_json=options.json)
    return SOME_FAILED if counts.n_failed else DONE


def first_source(run_path: Path, images: str) -> str:
    """A note that the same pictures were scored before from another source, which the run keeps; else empty."""
    if not (run_path / RUN_FILE).is_file():
        return ""
    run, _ = read_run(run_path)
    if run.images == images:
        return ""
    masks = f"mmn annotate {run.run_id} --masks {images}"
    return f"these pictures were scored before, from {run.images}, which the run keeps; to use other masks: {masks}"


def _fill_from_preset(options: argparse.Namespace) -> None:
    """Gives every option that was left open its preset's value, else the usual one. A model knows its own prompt."""
    preset = PRESETS.get(options.preset)
    usual = {"methods": names.CONTRIBUTION, "top_k": 1000, "answer_prefix": "", "max_new_tokens": 50, "prompt": None}
    for name, value in usual.items():
        if getattr(options, name) is None:
            setattr(options, name, getattr(preset, name) if preset else value)
    if not isinstance(options.methods, str):
        options.methods = ",".join(options.methods)


def _settings(options: argparse.Namespace, model: Any, methods: tuple[str, ...]) -> Any:
    from mmn.runs.prepare import settings_of

    return settings_of(
        model,
        prompt=options.prompt,
        methods=methods,
        top_k=options.top_k,
        bottom_k=options.bottom_k,
        targets=tuple(options.target),
        variants=(names.ORIGINAL, names.BLANK) if options.blank else (names.ORIGINAL,),
        answer_prefix=options.answer_prefix,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        seed=options.seed,
        effect_layers=options.effect_layers,
    )


def _print_result(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    failed = f", {result['n_failed']} failed (mmn show {result['run_id']} lists them)" if result["n_failed"] else ""
    print(
        f"{result['run_id']}: {result['status']}, {counted(result['n_images'], 'picture')}{failed}, "
        f"{counted(result['n_concepts'], 'concept')}, {counted(result['n_scores'], 'score')}, {result['seconds']:.1f} s"
    )
    if not result["n_concepts"]:
        where = "; mmn export --table caption shows what was said" if result["n_images"] else ""
        print(why(result["n_images"]) + where)
    if result["max_residual"] is not None:
        print(f"largest exactness residual {result['max_residual']:.1e} (of max(|logit|, 1))")
    for method, missing in result.get("conservation", {}).items():
        print(f"{method}: its terms miss at most {missing:.1e} of what they should add up to (of max(|logits|, 1))")
    for target in result.get("unscored_targets", ()):
        print(f"--target {target}: scored nowhere, since no caption says {target.partition('@')[2] or 'a noun'}")
    if "note" in result:
        print(result["note"])
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else at_least(1, 4096)(text)
