"""`mmn figure invariance|specificity|selectivity|sensitivity|…`: the charts of those pages as files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Final

import pandas as pd

from mmn.cli.options import layer_range, split
from mmn.errors import UsageError
from mmn.figures.wording import in_layers, led_concepts
from mmn.store import Store

Drawn = tuple[Any, pd.DataFrame]
MOST: Final = 12  # concepts of a heat map


def invariance(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Shared units against k under shuffling, by one or several scores."""
    from mmn.figures.invariance import region_invariance as chart

    measured = _measured(store, row, "region")
    methods = split(options.methods) or list(dict.fromkeys(measured["method"]))
    data = store.region_invariance(row["run_id"], methods, _ks(options, measured), *_nouns(options))
    return chart(data, row, _led(options)), data


def invariance_by_concept(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The same at one k, concept by concept."""
    from mmn.figures.invariance import invariance_by_concept as chart

    measured = _measured(store, row, "region")
    method, k = _one_method(options, list(dict.fromkeys(measured["method"]))), _one_k(options, row, measured)
    data = store.invariance_by_concept(row["run_id"], method, k, *_nouns(options))
    return chart(data, row, method, k, _led(options)), data


def invariance_by_layer(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The same at one k, layer by layer."""
    from mmn.figures.invariance import kept_by_layer as chart

    measured = _measured(store, row, "region")
    method, k = _one_method(options, list(dict.fromkeys(measured["method"]))), _one_k(options, row, measured)
    data = store.kept_by_layer(row["run_id"], method, k, *_nouns(options))
    return chart(data, row, method, k, _led(options)), data


def cross_image(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Units that several pictures of a concept share, concept by concept."""
    from mmn.figures.cross_image import cross_image_invariance as chart

    method, k, n = _across(store, row, options)
    lemmas, layers = _nouns(options)
    data = store.cross_image_invariance(row["run_id"], method, k, n, lemmas, layers)
    return chart(data, row, method, k, layers), data


def cross_image_by_layer(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The layers in which these units lie."""
    from mmn.figures.cross_image import shared_by_layer as chart

    method, k, n = _across(store, row, options)
    lemmas, layers = _nouns(options)
    data = store.shared_by_layer(row["run_id"], method, k, n, lemmas)
    return chart(data, row, method, k, n, led_concepts(lemmas), layers), data


def _across(store: Store, row: dict[str, Any], options: argparse.Namespace) -> tuple[str, int, int]:
    """The score, k and number of pictures to draw."""
    measured = _measured(store, row, "cross-image")
    method = _one_method(options, list(dict.fromkeys(measured["method"])))
    return method, _one_k(options, row, measured), int(measured["n"].min())


def specificity(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The heat map of one picture (`--image`), or of the most frequent concepts; the control is a second panel."""
    from mmn.figures import specificity as charts

    run_id = row["run_id"]
    lemmas, layers = _nouns(options)
    method = _one_method(options, store.specificity_methods(run_id))
    if options.image:
        picture = store.picture(run_id, options.image)
        data = store.specificity_of_picture(run_id, picture["image_id"], method, layers)
        of = f"picture {picture['image_id'][:8]}, “{picture['text']}”{in_layers(layers)}"
        return charts.specificity_of_picture(data, row, method, of), data
    data = store.specificity_by_concept(run_id, method, MOST, lemmas, layers)
    enter = int(store.specificity_summary(run_id, [method], lemmas, layers)["n_images"].max())
    return charts.specificity_by_concept(data, row | {"n_images": enter}, method, _subset(options)), data


def specificity_summary(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The mean share for other nouns, by one or several scores, beside random units."""
    from mmn.figures.specificity import specificity_summary as chart

    methods = split(options.methods) or store.specificity_methods(row["run_id"])
    data = store.specificity_summary(row["run_id"], methods, split(options.concepts), layer_range(options.layers))
    return chart(data, row, _subset(options)), data


def highest_for_own_noun(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """How often a unit scores highest for its own noun, beside random units and chance."""
    from mmn.figures.specificity import highest_for_own_noun as chart

    methods = split(options.methods) or store.specificity_methods(row["run_id"])
    data = store.highest_for_own_noun(row["run_id"], methods, split(options.concepts), layer_range(options.layers))
    return chart(data, row, _subset(options)), data


def selectivity(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """The heat map of classes; the control is a second panel."""
    from mmn.figures.specificity import selectivity as chart

    method = _one_method(options, store.selectivity_methods(row["run_id"]))
    data = store.selectivity(row["run_id"], method, MOST, split(options.concepts))
    return chart(data, row, method), data


def sensitivity(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """A panel for each measure, beside the shuffled pairing."""
    from mmn.figures.sensitivity import sensitivity as chart

    methods, metrics = store.sensitivity_measured(row["run_id"])
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
    """The score asked for, or the first that was measured.

    Raises:
        UsageError: several were asked for, or none was measured.
    """
    asked = split(options.methods)
    if len(asked) > 1 or not there:
        known = ", ".join(there) or "none (run the experiment first)"
        raise UsageError(f"{options.name} draws one score; give --methods with one of those measured: {known}")
    return asked[0] if asked else there[0]


def _ks(options: argparse.Namespace, measured: pd.DataFrame) -> list[int]:
    there = sorted({int(k) for k in measured["k"]})
    if options.ks is None:
        return there
    if not all(word.isdigit() and int(word) in there for word in split(options.ks)):
        raise UsageError(f"--ks {options.ks}: measured were {', '.join(map(str, there))}")
    return [int(word) for word in split(options.ks)]


def _one_k(options: argparse.Namespace, row: dict[str, Any], measured: pd.DataFrame) -> int:
    """The k asked for, or the measured one next to 1.4 % of all units."""
    ks = _ks(options, measured)
    usual = 0.014 * int(row["n_layers"]) * int(row["d_mlp"])
    return min(ks, key=lambda k: abs(k - usual))


def _nouns(options: argparse.Namespace) -> tuple[list[str], tuple[int, int] | None]:
    return split(options.concepts), layer_range(options.layers)


def _led(options: argparse.Namespace) -> str:
    return led_concepts(*_nouns(options))


def _subset(options: argparse.Namespace) -> str:
    lemmas, layers = _nouns(options)
    return led_concepts(lemmas) + in_layers(layers)
