"""`mmn figure invariance|specificity|selectivity|sensitivity|…`: the charts of those pages as files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Final

import pandas as pd

from mmn.cli.figure_choices import one_method, one_of
from mmn.cli.options import at_least, layer_range, split
from mmn.errors import UsageError
from mmn.figures.wording import in_layers, led_concepts
from mmn.names import HELD_OUT, SAME_PICTURE
from mmn.store import Store

Drawn = tuple[Any, pd.DataFrame]
FOUND_ON: Final = {"another": HELD_OUT, "same": SAME_PICTURE}  # the picture that a specificity map's units are from
MOST: Final = 12  # concepts of a heat map, the most frequent; as on the page


def add_options(parser: argparse.ArgumentParser) -> None:
    """The filters of these figures that no other one has."""
    parser.add_argument("--metric", metavar="A,B", help="measures of sensitivity, or the similarity of captions")
    parser.add_argument("--most", type=at_least(1), metavar="N", help=f"concepts of a heat map; default {MOST}")
    parser.add_argument("--pictures", type=at_least(2), metavar="N", help="of each concept, of cross-image")
    parser.add_argument("--found-on", choices=FOUND_ON, help="of specificity: the picture that units were found on")


def invariance(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Shared units against k under shuffling, by one or several scores."""
    from mmn.studies.invariance.figures import region_invariance as chart

    measured = _measured(store, row, "region")
    methods = split(options.methods) or list(dict.fromkeys(measured["method"]))
    data = store.region_invariance(row["run_id"], methods, _ks(options, measured), *_nouns(options))
    return chart(data, row, _led(options)), data


def invariance_by_concept(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The same at one k, concept by concept."""
    from mmn.studies.invariance.figures import invariance_by_concept as chart

    measured = _measured(store, row, "region")
    method, k = _one_method(options, list(dict.fromkeys(measured["method"]))), _one_k(options, row, measured)
    data = store.invariance_by_concept(row["run_id"], method, k, *_nouns(options))
    return chart(data, row, method, k, _led(options)), data


def invariance_by_layer(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The same at one k, layer by layer."""
    from mmn.studies.invariance.figures import kept_by_layer as chart

    measured = _measured(store, row, "region")
    method, k = _one_method(options, list(dict.fromkeys(measured["method"]))), _one_k(options, row, measured)
    data = store.kept_by_layer(row["run_id"], method, k, *_nouns(options))
    return chart(data, row, method, k, _led(options)), data


def cross_image(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Units that several pictures of a concept share, concept by concept."""
    from mmn.studies.invariance.cross_image_figures import cross_image_invariance as chart

    method, k, n = _across(store, row, options)
    lemmas, layers = _nouns(options)
    data = store.cross_image_invariance(row["run_id"], method, k, n, lemmas, layers)
    return chart(data, row, method, k, layers), data


def cross_image_by_layer(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The layers in which these units lie."""
    from mmn.studies.invariance.cross_image_figures import shared_by_layer as chart

    method, k, n = _across(store, row, options)
    lemmas, layers = _nouns(options)
    data = store.shared_by_layer(row["run_id"], method, k, n, lemmas)
    return chart(data, row, method, k, n, led_concepts(lemmas), layers), data


def _across(store: Store, row: dict[str, Any], options: argparse.Namespace) -> tuple[str, int, int]:
    """The score, k and number of pictures to draw."""
    measured = _measured(store, row, "cross-image")
    method = _one_method(options, list(dict.fromkeys(measured["method"])))
    measured = measured[measured["method"] == method]
    sizes = sorted({int(n) for n in measured["n"]})
    n = one_of(options, "number of pictures", "--pictures", options.pictures, sizes)
    return method, _one_k(options, row, measured[measured["n"] == n]), n


def specificity(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The heat map of one picture (`--image`), or of the most frequent concepts; the control is a second panel."""
    from mmn.studies.specificity import figures as charts

    run_id = row["run_id"]
    lemmas, layers = _nouns(options)
    method = _one_method(options, store.specificity_methods(run_id))
    selection = _found_on(store, run_id, options)
    if options.image:
        if options.concepts or options.most:
            raise UsageError("specificity of one --image draws all its nouns: leave --concepts and --most out")
        picture = store.picture(run_id, options.image)
        data = store.specificity_of_picture(run_id, picture["image_id"], method, layers, selection)
        of = f"picture {picture['image_id'][:8]}, “{picture['text']}”{in_layers(layers)}"
        return charts.specificity_of_picture(data, row, method, of), data
    data = store.specificity_by_concept(run_id, method, options.most or MOST, lemmas, layers, selection)
    summary = store.specificity_summary(run_id, [method], lemmas, layers)
    enter = int(summary[summary["selection"] == selection]["n_images"].max())
    chart = charts.specificity_by_concept(data, row | {"n_images": enter}, method, _subset(options), selection)
    return chart, data


def specificity_summary(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The mean share for other nouns, by one or several scores, beside random units."""
    from mmn.studies.specificity.figures import specificity_summary as chart

    methods = split(options.methods) or store.specificity_methods(row["run_id"])
    data = store.specificity_summary(row["run_id"], methods, split(options.concepts), layer_range(options.layers))
    return chart(data, _with_alone(store, row, options), _subset(options)), data


def highest_for_own_noun(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """How often a unit scores highest for its own noun, beside random units and chance."""
    from mmn.studies.specificity.figures import highest_for_own_noun as chart

    methods = split(options.methods) or store.specificity_methods(row["run_id"])
    data = store.highest_for_own_noun(row["run_id"], methods, split(options.concepts), layer_range(options.layers))
    return chart(data, _with_alone(store, row, options), _subset(options)), data


def _found_on(store: Store, run_id: str, options: argparse.Namespace) -> str:
    """The selection asked for; without a wish held-out units, or those of the same picture where there are no others.

    Raises:
        UsageError: the run was measured before units were held out.
    """
    there = store.specificity_selections(run_id)
    if options.found_on is None:
        return HELD_OUT if HELD_OUT in there else SAME_PICTURE
    wanted = FOUND_ON[options.found_on]
    if wanted not in there:
        raise UsageError(
            f"run {run_id} has no units found on another picture: measure them with `mmn specificity {run_id}` (a noun "
            "of one picture alone has none)"
        )
    return wanted


def _with_alone(store: Store, row: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    return row | {"n_of_one_picture": store.nouns_of_one_picture(row["run_id"], split(options.concepts))}


def selectivity(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The heat map of classes; the control is a second panel."""
    from mmn.studies.specificity.figures import selectivity as chart

    method = _one_method(options, store.selectivity_methods(row["run_id"]))
    data = store.selectivity(row["run_id"], method, options.most or MOST, split(options.concepts))
    return chart(data, row, method), data


def sensitivity(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """A panel for each measure, beside the shuffled pairing."""
    from mmn.studies.sensitivity.figures import sensitivity as chart

    methods, there = store.sensitivity_measured(row["run_id"])
    metrics = split(options.metric) or there
    if unknown := [metric for metric in metrics if metric not in there]:
        raise UsageError(f"--metric {unknown[0]}: measured were {', '.join(there) or 'none'}")
    data = store.sensitivity(row["run_id"], split(options.methods) or methods, metrics, *_nouns(options))
    return chart(data, row, _led(options)), data


DRAW: Final[dict[str, Callable[[Store, dict[str, Any], argparse.Namespace], Drawn]]] = {
    "invariance": invariance,
    "invariance-concepts": invariance_by_concept,
    "invariance-layers": invariance_by_layer,
    "cross-image": cross_image,
    "cross-image-layers": cross_image_by_layer,
    "specificity": specificity,
    "specificity-summary": specificity_summary,
    "specificity-highest": highest_for_own_noun,
    "selectivity": selectivity,
    "sensitivity": sensitivity,
}

_AT_ONE_K: Final = ("methods", "ks", "concepts", "layers")
READS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("invariance", "invariance-concepts", "invariance-layers"), _AT_ONE_K),
    **dict.fromkeys(("cross-image", "cross-image-layers"), (*_AT_ONE_K, "pictures")),
    "specificity": ("methods", "image", "concepts", "layers", "most", "found_on"),
    **dict.fromkeys(("specificity-summary", "specificity-highest"), ("methods", "concepts", "layers")),
    "selectivity": ("methods", "concepts", "most"),
    "sensitivity": ("methods", "metric", "concepts", "layers"),
}


def _measured(store: Store, row: dict[str, Any], kind: str) -> pd.DataFrame:
    """What was measured of a kind of invariance.

    Raises:
        UsageError: nothing.
    """
    measured = store.invariance_measured(row["run_id"])
    measured = measured[measured["kind"] == kind]
    if measured.empty:
        raise UsageError(f"run {row['run_id']} has no {kind} invariance: mmn invariance {row['run_id']} --kind {kind}")
    return measured


def _one_method(options: argparse.Namespace, there: Sequence[str]) -> str:
    return one_method(options, split(options.methods), there)


def _ks(options: argparse.Namespace, measured: pd.DataFrame) -> list[int]:
    there = sorted({int(k) for k in measured["k"]})
    if options.ks is None:
        return there
    if not all(word.isdigit() and int(word) in there for word in split(options.ks)):
        raise UsageError(f"--ks {options.ks}: measured were {', '.join(map(str, there))}")
    return [int(word) for word in split(options.ks)]


def _one_k(options: argparse.Namespace, row: dict[str, Any], measured: pd.DataFrame) -> int:
    """The k asked for, or the measured one next to 1.4 % of all units, which is said.

    Raises:
        UsageError: several were asked for, or one that was not measured.
    """
    ks = _ks(options, measured)
    if options.ks is not None and len(ks) > 1:
        raise UsageError(f"{options.name} draws one k; --ks names {len(ks)}")
    usual = 0.014 * int(row["n_layers"]) * int(row["d_mlp"])
    return one_of(options, "k", "--ks", None, ks, min(ks, key=lambda k: abs(k - usual)))


def _nouns(options: argparse.Namespace) -> tuple[list[str], tuple[int, int] | None]:
    return split(options.concepts), layer_range(options.layers)


def _led(options: argparse.Namespace) -> str:
    return led_concepts(*_nouns(options))


def _subset(options: argparse.Namespace) -> str:
    lemmas, layers = _nouns(options)
    return led_concepts(lemmas) + in_layers(layers)
