"""`mmn figure degradation|perturbation|ablated-layers|edit`: the charts of the Degradation and Edit pages as files."""

from __future__ import annotations

import argparse
from typing import Any, Final

import pandas as pd

from mmn.cli.options import layer_range, split
from mmn.errors import UsageError
from mmn.names import ABLATE, PERTURB
from mmn.store import Store
from mmn.store.effects import Which

MEASURES: Final = ("prob", "relative", "logit", "similarity", "lost")
Drawn = tuple[Any, pd.DataFrame]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The filters of these figures that no other one has."""
    parser.add_argument("--measure", choices=MEASURES, help="of degradation (prob) and perturbation (lost)")
    parser.add_argument("--against", choices=("sigma", "k"), default="sigma", help="horizontal axis of perturbation")
    parser.add_argument("--edit", metavar="ID", help="of the figure edit; its controls come along")


def degradation(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Curves of an ablation by one or several scores."""
    which, means = _measured(store, row, options, ABLATE)
    from mmn.curves import curves
    from mmn.figures.degradation import degradation as chart

    measure = options.measure or "prob"
    data = _known(curves(means, measure), measure)
    metric = which.metric or "" if measure == "similarity" else ""
    return chart(data, _counted(row, means), measure, _subset(which), metric), data


def perturbation(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Curves of a perturbation by one score."""
    which, means = _measured(store, row, options, PERTURB)
    if len(which.methods) > 1:
        raise UsageError(f"perturbation draws one score; give --methods with one of {', '.join(which.methods)}")
    from mmn.curves import curves
    from mmn.figures.degradation import perturbation as chart

    measure = options.measure or "lost"
    data = _known(curves(means, measure), measure)
    metric = which.metric or "" if measure == "similarity" else ""
    unit = which.sigma_unit or ""
    return chart(data, _counted(row, means), measure, options.against, unit, _subset(which), metric), data


def ablated_layers(store: Store, row: dict[str, Any], options: argparse.Namespace) -> Drawn:
    """Layers of the units that an ablation zeroed."""
    which, means = _measured(store, row, options, ABLATE)
    from mmn.figures.degradation import ablated_layers as chart

    stored = min(int(row["settings"]["top_k"]), int(row["n_layers"]) * int(row["d_mlp"]))
    ks = [int(k) for k in sorted(means["k"].unique()) if 0 < k <= stored]
    if options.ks is not None:
        ks = [int(options.ks)] if options.ks.isdigit() else []
    if len(which.methods) > 1 or not ks:
        raise UsageError("ablated-layers wants one score and one number of units, as --methods A --ks 43")
    data = store.ablated_layers(row["run_id"], which, ks[-1])
    return chart(data, row, ks[-1], which.methods[0], _subset(which)), data


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
    from mmn.figures.editing import editing, success

    data = success(rows, store.edited_captions(row["run_id"], *rows["edit_id"]))
    if data.empty:
        raise UsageError(f"edit {chosen['edit_id']} was not measured on any picture")
    return editing(data, row, f"“{chosen['noun']}” to “{chosen['target']}”"), data


def _measured(store: Store, row: dict[str, Any], options: argparse.Namespace, kind: str) -> tuple[Which, pd.DataFrame]:
    """What was measured of the asked scores and concepts, by picture.

    Raises:
        UsageError: nothing, with the command that measures it.
    """
    settings = store.effect_settings(row["run_id"])
    settings = settings[settings["kind"] == kind]
    there = list(dict.fromkeys(settings["method"]))
    asked = split(options.methods or "") or there
    if missing := [method for method in asked if method not in there] or not there:
        wanted = "" if missing is True else f" by {missing[0]}"
        raise UsageError(
            f"run {row['run_id']} has no measurements of kind {kind}{wanted}; there are: {', '.join(there) or 'none'}; "
            f"mmn degrade {row['run_id']} --kind {kind} makes them"
        )
    metrics, units = (list(settings[name].dropna().unique()) for name in ("metric", "sigma_unit"))
    which = Which(
        kind,
        tuple(asked),
        tuple(split(options.concepts)),
        layers=layer_range(options.layers),
        metric=metrics[0] if metrics else None,
        sigma_unit=units[0] if units else None,
    )
    means = store.effect_means(row["run_id"], which)
    if means.empty:
        raise UsageError(f"no noun of run {row['run_id']} fits {_subset(which)}")
    return which, means


def _known(data: pd.DataFrame, measure: str) -> pd.DataFrame:
    is_measured = (data["k"] > 0) & (data["sigma"] != 0) if len(data) else pd.Series(dtype=bool)
    if not is_measured.any():
        raise UsageError(f"{measure} was not measured: mmn degrade --captions lets the model write again")
    return data


def _counted(row: dict[str, Any], means: pd.DataFrame) -> dict[str, Any]:
    from mmn.curves import counted

    n_images, n_nouns = counted(means)
    return row | {"n_images": n_images, "n_concepts": n_nouns}


def _subset(which: Which) -> str:
    from mmn.figures.wording import led_concepts

    return led_concepts(which.lemmas, which.layers)


DRAW: Final = {
    "degradation": degradation,
    "perturbation": perturbation,
    "ablated-layers": ablated_layers,
    "edit": edit,
}
