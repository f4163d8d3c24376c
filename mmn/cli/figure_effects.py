"""`mmn figure degradation|perturbation|ablated-layers|edit`: the charts of the Degradation and Edit pages as files."""

from __future__ import annotations

import argparse
from typing import Any, Final

import pandas as pd

from mmn.cli.figure_choices import one_of
from mmn.cli.options import layer_range, split
from mmn.errors import UsageError
from mmn.names import ABLATE, PERTURB, SIGMA_UNITS
from mmn.store import Store
from mmn.studies.degradation.queries import Which

MEASURES: Final = ("prob", "relative", "logit", "similarity", "lost")
Drawn = tuple[Any, pd.DataFrame]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The filters of these figures that no other one has."""
    parser.add_argument("--nouns", choices=("all", "first"), help="of each caption; default all")
    parser.add_argument("--measure", choices=MEASURES, help="of degradation (prob) and perturbation (lost)")
    parser.add_argument("--against", choices=("sigma", "k"), help="horizontal axis of perturbation; default sigma")
    parser.add_argument("--sigma-unit", choices=SIGMA_UNITS, help="of perturbation, where a run has both")
    parser.add_argument("--edit", metavar="ID", help="of the figure edit; its controls come along")


def degradation(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Curves of an ablation by one or several scores."""
    measure = options.measure or "prob"
    which, means = _measured(store, row, options, ABLATE, measure)
    from mmn.studies.degradation.curves import curves
    from mmn.studies.degradation.figures import degradation as chart

    data = _known(curves(means, measure), measure)
    return chart(data, _counted(row, means), measure, _subset(which), which.metric or ""), data


def perturbation(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Curves of a perturbation by one score."""
    measure = options.measure or "lost"
    which, means = _measured(store, row, options, PERTURB, measure)
    if len(which.methods) > 1:
        raise UsageError(f"perturbation draws one score; give --methods with one of {', '.join(which.methods)}")
    from mmn.studies.degradation.curves import curves
    from mmn.studies.degradation.figures import perturbation as chart

    data = _known(curves(means, measure), measure)
    against, unit = options.against or "sigma", which.sigma_unit or ""
    return chart(data, _counted(row, means), measure, against, unit, _subset(which), which.metric or ""), data


def ablated_layers(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Layers of the units that an ablation zeroed."""
    which, means = _measured(store, row, options, ABLATE)
    from mmn.studies.degradation.figures import ablated_layers as chart

    stored = min(int(row["settings"]["top_k"]), int(row["n_layers"]) * int(row["d_mlp"]))
    ks = [int(k) for k in sorted(means["k"].unique()) if 0 < k <= stored]
    if options.ks is not None:
        ks = [int(options.ks)] if options.ks.isdigit() else []
    if len(which.methods) > 1 or not ks:
        raise UsageError("ablated-layers wants one score and one number of units, as --methods A --ks 43")
    k = one_of(options, "k", "--ks", None, ks, ks[-1])
    data = store.ablated_layers(row["run_id"], which, k)
    return chart(data, row, k, which.methods[0], _subset(which)), data


def edit(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """An edit beside the others of the same noun and new word."""
    edits = store.edits(row["run_id"])
    found = edits[edits["edit_id"].str.startswith(options.edit or "")]
    if found.empty:
        there = ", ".join(edits["edit_id"]) or "none; mmn edit makes one"
        raise UsageError(f"no edit {options.edit or ''!r} of run {row['run_id']}; there are: {there}")
    chosen = found.iloc[0]
    of_pair = edits[(edits["noun"] == chosen["noun"]) & (edits["target"] == chosen["target"])]
    rows = pd.concat([of_pair[of_pair["edit_id"] == chosen["edit_id"]], of_pair]).drop_duplicates("edit_id")
    from mmn.studies.editing.figures import editing, success

    data = success(rows, store.edited_captions(row["run_id"], *rows["edit_id"]))
    if data.empty:
        raise UsageError(f"edit {chosen['edit_id']} was not measured on any picture")
    return editing(data, row, f"“{chosen['noun']}” to “{chosen['target']}”"), data


def _measured(
    store: Store, row: dict[str, Any], options: argparse.Namespace, kind: str, measure: str = ""
) -> tuple[Which, pd.DataFrame]:
    """What was measured of the asked scores and concepts, by picture.

    Raises:
        UsageError: nothing, with the command that measures it; several units of sigma, and none was chosen.
    """
    settings = store.effect_settings(row["run_id"])
    settings = settings[settings["kind"] == kind]
    there = list(dict.fromkeys(settings["method"]))
    asked = split(options.methods) or there
    if missing := [method for method in asked if method not in there] or not there:
        wanted = "" if missing is True else f" by {missing[0]}"
        raise UsageError(
            f"run {row['run_id']} has no measurements of kind {kind}{wanted}; there are: {', '.join(there) or 'none'}; "
            f"mmn degrade {row['run_id']} --kind {kind} makes them"
        )
    which = Which(
        kind,
        tuple(asked),
        tuple(split(options.concepts)),
        layers=layer_range(options.layers),
        only_first=options.nouns == "first",
        metric=_metric(options, settings, measure),
        sigma_unit=_sigma_unit(options, settings) if kind == PERTURB else None,
    )
    means = store.effect_means(row["run_id"], which)
    if means.empty:
        raise UsageError(f"no noun of run {row['run_id']} fits {_subset(which)}")
    return which, means


def _metric(options: argparse.Namespace, settings: pd.DataFrame, measure: str) -> str | None:
    """The similarity to draw; None where none is drawn, or none was measured.

    Raises:
        UsageError: one was asked for that was not measured, or by a figure of something else.
    """
    there = list(settings["metric"].dropna().unique())
    if measure != "similarity":
        if options.metric is not None:
            raise UsageError("--metric names the similarity of captions: give --measure similarity with it")
        return None
    if not there and options.metric is None:
        return None
    return one_of(options, "similarity", "--metric", options.metric, there)


def _sigma_unit(options: argparse.Namespace, settings: pd.DataFrame) -> str | None:
    """The unit of sigma to draw; noise relative to a unit's weights and noise in their own unit are not one curve.

    Raises:
        UsageError: both were measured and none was chosen; one was asked for that was not measured.
    """
    there = sorted(settings["sigma_unit"].dropna().unique())
    if options.sigma_unit is None and len(there) > 1:
        units = " or ".join(f"--sigma-unit '{unit}'" for unit in there)
        raise UsageError(f"sigma was measured in {len(there)} units, which are not one axis; give {units}")
    return one_of(options, "unit of sigma", "--sigma-unit", options.sigma_unit, there) if there else None


def _known(data: pd.DataFrame, measure: str) -> pd.DataFrame:
    is_measured = (data["k"] > 0) & (data["sigma"] != 0) if len(data) else pd.Series(dtype=bool)
    if not is_measured.any():
        raise UsageError(f"{measure} was not measured: mmn degrade --captions lets the model write again")
    return data


def _counted(row: dict[str, Any], means: pd.DataFrame) -> dict[str, Any]:
    from mmn.studies.degradation.curves import counted

    n_images, n_nouns = counted(means)
    return row | {"n_images": n_images, "n_concepts": n_nouns}


def _subset(which: Which) -> str:
    from mmn.figures.wording import led_concepts

    return led_concepts(which.lemmas, which.layers) + (", first nouns only" if which.only_first else "")


DRAW: Final = {
    "degradation": degradation,
    "perturbation": perturbation,
    "ablated-layers": ablated_layers,
    "edit": edit,
}

_OF_NOUNS: Final = ("methods", "concepts", "layers", "nouns")
READS: Final[dict[str, tuple[str, ...]]] = {
    "degradation": (*_OF_NOUNS, "measure", "metric"),
    "perturbation": (*_OF_NOUNS, "measure", "metric", "against", "sigma_unit"),
    "ablated-layers": (*_OF_NOUNS, "ks"),
    "edit": ("edit",),
}
