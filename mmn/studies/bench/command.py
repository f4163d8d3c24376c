"""`mmn bench`: judges every score of a model, or a ranking of your own, by planted units and measured effects."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmn.cli import DONE, add_common, print_json
from mmn.cli.options import add_loading_options, at_least, entries, layer_range
from mmn.cli.running import load_quietly
from mmn.errors import UsageError
from mmn.runs.plan import Progress
from mmn.view import LAYERS


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("bench", help="judge all methods, or your own: which finds the units that matter?")
    parser.add_argument("--model", default="specimen", metavar="M", help="default: specimen")
    parser.add_argument(
        "--images", default="gallery", metavar="SRC", help="pictures with object masks; default: gallery"
    )
    parser.add_argument("--methods", metavar="A,B", help="scores to judge; default: all that the model has")
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="F.parquet",
        help="Parquet of your own ranking: image_id, noun, layer, unit, score",
    )
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write the model whose units are to be ranked, and the questions"
    )
    parser.add_argument("--nouns", type=at_least(1, 20), metavar="N", help="nouns to plant units for; default 4")
    parser.add_argument(
        "--pictures", type=at_least(1, 1000), metavar="N", help="pictures that judge each noun; default 4"
    )
    parser.add_argument(
        "--build", type=at_least(4, 1000), metavar="N", help="pictures to build each noun's units on; default 18"
    )
    parser.add_argument("--units", type=at_least(8), metavar="N", help="units with a measured effect; default 384")
    parser.add_argument("--without", metavar="ROLE,ROLE", help="roles to leave out, as seer, or all")
    parser.add_argument(
        "--effect-layers",
        type=layer_range,
        metavar=LAYERS.metavar,
        help="layers that effect and effect-prob are measured in; default all",
    )
    parser.add_argument("--markdown", action="store_true", help="print the page's section")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps")
    add_loading_options(parser)
    parser.add_argument("--progress", default="auto", choices=("auto", "json", "none"))
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    if options.submission is not None:
        from mmn.studies.bench.submission import read_rows

        read_rows(options.submission)  # a file that cannot be read is told before the minutes of planting
    asked = _asked(options)
    named = entries(options.methods, "--methods") if options.methods is not None else None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from mmn.cli.progress import reporter
    from mmn.runs.engines.local import stoppable
    from mmn.runs.prepare import effect_layers_of
    from mmn.safety.atomic_files import require_folder
    from mmn.scores.batch import check_methods
    from mmn.studies.bench.export import export, make_new
    from mmn.studies.bench.measure import Bench, Material, checked_methods

    check_methods(named or ())
    require_folder(options.cache)
    if options.export is not None:
        make_new(options.export)

    started = time.monotonic()
    progress = reporter(options.progress)
    material = Material.of(asked, options.cache)  # too few pictures are told before the model is loaded, too
    if note := planted_elsewhere(options.model, asked):
        print(f"mmn: note: {note}", file=sys.stderr)
    progress(Progress("model", message=options.model))
    model = load_quietly(options.model, "float32", options.device, options.revision, options.device_map)
    methods = checked_methods(model, named)
    asked = replace(asked, effect_layers=effect_layers_of(model, methods, options.effect_layers or ()))
    with stoppable():
        bench = Bench.prepare(model, asked, options.cache, progress, material)
        if options.export is not None:
            export(bench, options.export)
            print_json({"export": str(options.export)}) if options.json else print(_exported(options.export, bench))
            return DONE
        judged = bench.judge(methods, _submission(options, bench))
    from mmn.studies.bench.pictures import PROTOCOL
    from mmn.studies.bench.result import FILE, keep, summarise

    result = summarise(judged, PROTOCOL)
    if options.submission is None:
        keep(result, bench.kept.path / FILE)
    _print_result(result, options, round(time.monotonic() - started, 3))
    return DONE


def planted_elsewhere(model: str, asked: Any) -> str:
    """That the result which ships of a model had to do without planted units; else empty."""
    from mmn.studies.bench.result import model_of, shipped

    has_planted = [bool(one.planted) for one in shipped() if model_of(one) == model]
    if not asked.plants or not has_planted or any(has_planted):
        return ""
    return (
        f"in the result of {model} that ships nothing is planted: there planted units did not do what they should, and "
        "that is found out again only after they are planted, which takes minutes; --without all judges by measured "
        "effects alone"
    )


def _asked(options: argparse.Namespace) -> Any:
    from mmn.studies.bench.measure import Asked

    given = {
        "n_nouns": options.nouns,
        "n_judged": options.pictures,
        "n_built": options.build,
        "n_sampled": options.units,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return Asked(images=options.images, without=_without(options.without), **chosen)


def _without(text: str | None) -> tuple[str, ...]:
    """The roles of `--without`, in their order."""
    from mmn.studies.bench.result import ROLE_WORDS
    from mmn.studies.bench.words import ALL

    given = tuple(ROLE_WORDS) if text == ALL else entries(text, "--without", "seer") if text is not None else ()
    if unknown := [role for role in given if role not in ROLE_WORDS]:
        raise UsageError(f"--without {unknown[0]}: the roles are {', '.join(ROLE_WORDS)}, or {ALL}")
    return tuple(role for role in ROLE_WORDS if role in given)


def _submission(options: argparse.Namespace, bench: Any) -> Any:
    if options.submission is None:
        return None
    from mmn.studies.bench.submission import read_submission

    anatomy = bench.model.anatomy
    return read_submission(options.submission, bench.questions, anatomy.n_layers, anatomy.d_mlp)


def _exported(path: Path, bench: Any) -> str:
    with_units = " with planted units" if bench.soil.planted else ", in which nothing is planted"
    return (
        f"{path}: the model{with_units}, and questions.csv; rank its units for each, write image_id, noun, layer, "
        "unit, score to a Parquet file, and give it to the same call with --submission FILE instead of --export"
    )


def _print_result(result: Any, options: argparse.Namespace, seconds: float) -> None:
    from mmn.studies.bench import words

    if options.json:
        rows = {"rows": result.rows.to_dict("records"), "planted": list(result.planted)}
        about = {"model": result.model, "protocol": result.protocol, "n_pictures": result.n_pictures}
        print_json(about | rows | {"passes": result.passes, "seconds_each": result.seconds, "seconds": seconds})
    elif options.markdown:
        print(words.markdown(result))
    else:
        print(words.told(result))
        print(words.table(result, with_intervals=False).to_string(index=False))
        if result.planted:
            print("\nwhere planted units stand: the share of units before them")
            print(words.places(result).to_string(index=False))
        print("\n".join(f"first by {one}" for one in words.headline(result)))
        if standing := words.standing(result):
            print(standing)
