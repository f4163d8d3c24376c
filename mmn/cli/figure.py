"""`mmn figure NAME`: any chart of the dashboard as a file, by the same filters.

layers       top units per layer                       --methods --ks|--shares --concepts --layers --quantity --units
                                                       [--no-control]
comparison   common units of two scores against k      --methods A,B --ks|--shares --concepts
budget       what a noun's logit is made of            --image --noun [--rival NOUN | --grey]
top-share    how much of it the top units make up      --image --noun [--rival NOUN] --ks|--shares
tokens       what a unit writes                        --neuron
fields       do top units look at their noun's object?
lens         nearest words of image tokens and random vectors
lens-layers  image tokens that say a noun, after each layer
invariance   top units that stay under shuffling        --methods --ks --concepts --layers
invariance-concepts, invariance-layers                  --methods A --ks K --concepts --layers
cross-image  top units that pictures of a noun share    --methods A --ks K --pictures N --concepts --layers
cross-image-layers  where they lie                      --methods A --ks K --pictures N --concepts --layers
specificity  a noun's top unit, for other nouns         --methods A [--image | --concepts --most N] --layers
                                                       --found-on
specificity-summary, specificity-highest                --methods --concepts --layers
selectivity  units of classes, in other classes         --methods A --concepts --most N
sensitivity  how well top units' words fit              --methods --metric --concepts --layers
degradation  a noun's probability as units are zeroed   --methods --concepts --layers --nouns --measure --metric
perturbation the same under noise on the units          --methods A --concepts --layers --nouns --measure --metric
                                                       --against --sigma-unit
ablated-layers  layers of the zeroed units              --methods A --ks K --concepts --layers --nouns
edit         efficacy, generalisation and locality      --edit

A filter that a figure does not read is refused. Where a run has several of what a figure draws one of, the line on
standard error says which was taken and what takes another.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from mmn.cli import DONE, add_common, figure_effects, figure_experiments, figure_looks, print_json
from mmn.cli.figure_choices import refuse_unread
from mmn.cli.files import writing
from mmn.cli.options import layer_range, number, sizes, split
from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.names import BLANK, CONTRIBUTION_FOLDED, ORIGINAL, RANDOM
from mmn.runs.nounless import require_nouns
from mmn.specimen import RUN_PATH
from mmn.store import Store

DEFAULT_SHARES = (0.001, 0.003, 0.01, 0.014, 0.03, 0.05, 0.1, 0.25)  # of all units (METHODS: k)
LAYERS_SHARE = 0.014  # P1's 6,400 units of GPT-J's
QUANTITIES = {"per-picture": "mean_units", "distinct": "n_units", "count": "n_units", "share": "share"}
UNITS = {"all": None, "interpretable": True, "not-interpretable": False}
Drawn = tuple[Any, pd.DataFrame]  # a chart and the rows behind it


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "figure",
        help="a chart of the dashboard as a file",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(DRAW))
    parser.add_argument("--run", required=True, help="a run id, a beginning of it, or latest")
    parser.add_argument("--out", required=True, type=Path, metavar="F.svg|pdf|png|json|csv")
    parser.add_argument("--width", default="single", metavar="single|double|INCHES")
    parser.add_argument("--methods", metavar="A,B", help="default: all of the run")
    parser.add_argument("--ks", metavar="K,K", help="units per picture")
    parser.add_argument("--shares", metavar="S,S", help="the same as shares of all units, 0.014 for 1.4 %%")
    parser.add_argument("--concepts", metavar="A,B", help="only these nouns")
    parser.add_argument("--layers", metavar="FIRST-LAST")
    parser.add_argument("--quantity", choices=QUANTITIES, help="of layers; default per-picture; count is distinct")
    parser.add_argument("--units", choices=UNITS, help="of layers: those whose tokens are words, or not; default all")
    parser.add_argument("--no-control", action="store_true", help="layers without its random units")
    parser.add_argument("--image", metavar="ID", help="a picture's id or a beginning of it")
    parser.add_argument("--noun", help="a noun of that picture's caption")
    parser.add_argument("--rival", metavar="NOUN", help="another noun of it, side by side")
    parser.add_argument("--grey", action="store_true", help="the same noun over the grey picture, side by side")
    parser.add_argument("--neuron", metavar="L14.u2019")
    figure_experiments.add_options(parser)
    figure_effects.add_options(parser)
    add_common(parser, "figure")


def run(options: argparse.Namespace) -> int:
    from mmn.figures.export import export_chart, unshown
    from mmn.figures.glyphs import remedy

    if options.name not in DRAW:
        raise UsageError(f"no figure {options.name!r}; there are {', '.join(DRAW)}")
    refuse_unread(options, READS[options.name], options.name)
    options.taken, options.told = {}, []  # what is drawn of several that there are: see figure_choices
    with Store.open(options.cache) as store:
        store.load_new_shards([store.runs_path, RUN_PATH])
        row = store.run(options.run)
        row |= store.summary(row["run_id"])
        require_nouns(row["run_id"], row["n_images"], row["n_concepts"])
        chart, data = DRAW[options.name](store, row, options)
    with writing(options.out):
        export_chart(chart, data, options.out, _width(options.width))
    form = options.out.suffix.lstrip(".").lower()
    for line in (*options.told, remedy(unshown(chart, form, _width(options.width)), form)):
        if line:
            print(f"mmn figure {options.name}: {line}", file=sys.stderr)
    if options.json:
        told = {"figure": options.name, "run_id": row["run_id"], "out": str(options.out), "taken": options.taken}
        print_json(told)
    else:
        print(options.out)
    return DONE


def _layer_distribution(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    stored = store.score_methods(row["run_id"])
    methods = split(options.methods) or stored
    if RANDOM in stored and not options.no_control:
        methods = [*methods, *([] if RANDOM in methods else [RANDOM])]
    elif options.no_control:
        methods = [method for method in methods if method != RANDOM] or methods
    lemmas, ks = split(options.concepts), _ks(options, row, (LAYERS_SHARE,))
    units = UNITS[options.units or "all"]
    data = store.layer_distribution(
        row["run_id"], methods, ks, lemmas, layer_range(options.layers), interpretable=units
    )
    told = _subset(lemmas) + ("" if units is None else f", {options.units.replace('-', ' ')} units only")
    return _draw("layers", data, row, told, QUANTITIES[options.quantity or "per-picture"]), data


def _comparison(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    pair = split(options.methods or "")
    if len(pair) != 2:
        raise UsageError(f"comparison wants two scores, as --methods A,B; the run has {_methods(store, row)}")
    lemmas, ks = split(options.concepts), _ks(options, row, DEFAULT_SHARES)
    data = store.ranking_overlap(row["run_id"], pair[0], pair[1], ks, lemmas)
    return _draw("comparison", data, _counted(store, row, lemmas), " and ".join(pair), _subset(lemmas)), data


def _budget(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    picture, logits = _picture(store, row, options)
    sides = {noun: (noun, ORIGINAL) for noun in logits}
    if options.grey:
        concepts = store.picture_concepts(row["run_id"], picture["image_id"]).set_index("noun")
        grey = concepts.loc[options.noun, "blank_logit"]
        if options.rival or pd.isna(grey):
            why = "stands beside --noun in place of --rival" if options.rival else "needs a run scored with --blank"
            raise UsageError(f"--grey {why}")
        label = f"{options.noun}, grey picture"
        sides, logits = sides | {label: (options.noun, BLANK)}, logits | {label: float(grey)}
    run_id, image_id = row["run_id"], picture["image_id"]
    terms = [store.logit_budget(run_id, image_id, *side).assign(noun=label) for label, side in sides.items()]
    data = pd.concat(terms)
    return _draw("budget", data, row, logits, _of(picture)), data


def _top_share(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    picture, logits = _picture(store, row, options)
    run_id, image_id, ks = row["run_id"], picture["image_id"], _ks(options, row, DEFAULT_SHARES)
    if CONTRIBUTION_FOLDED not in store.score_methods(run_id):
        raise UsageError(f"top-share needs the score {CONTRIBUTION_FOLDED}, which adds up to the logit; score with it")
    if low := [noun for noun, logit in logits.items() if logit <= 0]:
        raise UsageError(f"the logit of {low[0]!r} is not above zero, so a share of it means nothing")
    data = pd.concat([_shares(store, (run_id, image_id, noun), logit, ks) for noun, logit in logits.items()])
    return _draw("top-share", data, row, _of(picture)), data


def _shares(store: Store, key: tuple[str, str, str], logit: float, ks: list[int]) -> pd.DataFrame:
    rows = store.top_share(*key, CONTRIBUTION_FOLDED, ks)
    return rows.assign(noun=key[-1], share=rows["logit"] / logit)


def _tokens(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    if not options.neuron:
        raise UsageError("tokens wants a unit, as --neuron L14.u2019")
    neuron = Neuron.parse(options.neuron)
    known = store.neuron(row["run_id"], neuron)
    if known["tokens"] is None:
        raise UsageError(f"{neuron} is not decoded yet; mmn annotate {row['run_id']} does that")
    data = pd.DataFrame({"token": known["tokens"], "logit": known["logits"]})
    return _draw("tokens", data, row, str(neuron)), data


def _draw(name: str, *values: Any) -> Any:
    from mmn.figures import FIGURES  # Altair is slow to import, and other commands do without

    return FIGURES[name](*values)


DRAW: dict[str, Callable[[Store, dict[str, Any], argparse.Namespace], Drawn]] = {
    "layers": _layer_distribution,
    "comparison": _comparison,
    "budget": _budget,
    "top-share": _top_share,
    "tokens": _tokens,
    **figure_looks.DRAW,
    **figure_experiments.DRAW,
    **figure_effects.DRAW,
}


READS: dict[str, tuple[str, ...]] = {  # the filters of each figure; any other is refused
    "layers": ("methods", "ks", "shares", "concepts", "layers", "quantity", "units", "no_control"),
    "comparison": ("methods", "ks", "shares", "concepts"),
    "budget": ("image", "noun", "rival", "grey"),
    "top-share": ("image", "noun", "rival", "ks", "shares"),
    "tokens": ("neuron",),
    **dict.fromkeys(figure_looks.DRAW, ()),
    **figure_experiments.READS,
    **figure_effects.READS,
}


def _picture(store: Store, row: dict[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, float]]:
    """The picture that was asked for, and the logits of its noun and the rival."""
    if not options.image or not options.noun:
        raise UsageError(f"{options.name} wants --image ID and --noun NOUN (mmn export --table concept lists them)")
    picture = store.picture(row["run_id"], options.image)
    concepts = store.picture_concepts(row["run_id"], picture["image_id"]).set_index("noun")["logit"]
    nouns = [options.noun, *([options.rival] if options.rival else [])]
    if unknown := [noun for noun in nouns if noun not in concepts]:
        raise UsageError(f"no noun {unknown[0]!r} in that picture; it has {', '.join(concepts.index)}")
    return picture, {noun: float(concepts[noun]) for noun in nouns}


def _of(picture: dict[str, Any]) -> str:
    return f"picture {picture['image_id'][:8]}, “{picture['text']}”"


def _counted(store: Store, row: dict[str, Any], lemmas: list[str]) -> dict[str, Any]:
    """The run's row with the number of pictures that enter: those with one of the concepts, where some are chosen."""
    pictures = store.pictures(row["run_id"], lemmas)
    return row | {"n_images": int((pictures["n_concepts"] > 0).sum())}


def _subset(lemmas: list[str]) -> str:
    return f"concepts: {', '.join(lemmas)}" if lemmas else "all concepts"


def _methods(store: Store, row: dict[str, Any]) -> str:
    return ", ".join(store.score_methods(row["run_id"]))


def _ks(options: argparse.Namespace, row: dict[str, Any], shares: tuple[float, ...]) -> list[int]:
    """The k's asked for, else the usual shares of all units as far as the run keeps them."""
    n_units = int(row["n_layers"]) * int(row["d_mlp"])
    asked = sizes(options.ks, options.shares, n_units)
    if asked is not None:
        return list(asked)
    most = min(int(row["settings"]["top_k"]), n_units)
    usual = sorted({max(1, round(share * n_units)) for share in shares})
    return [k for k in usual if k <= most] or [most]


def _width(text: str) -> str | float:
    return text if text in ("single", "double") else number(text, "--width")
