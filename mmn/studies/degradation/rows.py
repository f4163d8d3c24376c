"""The rows of the figures of changed units: curves after ablation, of scaled units or under noise; the layers of zeroed
units.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pandas as pd

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures, Series
from mmn.figures.wording import concepts_in_words
from mmn.names import ABLATE, EVERYWHERE, PERTURB, SCALE, SET
from mmn.store import Store
from mmn.studies.degradation.curves import (
    MEASURES,
    OF_TEXT,
    POSITION_WORDS,
    SELECTION_COLOURS,
    SELECTION_WORDS,
    count_sample,
    curves,
    is_untouched,
)
from mmn.studies.degradation.own import controls_command
from mmn.studies.degradation.queries import EffectFilter, EffectQueries

_PAIRED_WORDS: Final = {
    "prob": "probability of the noun",
    "logit": "logit of the noun",
    "similarity": "similarity of captions",
    "lost": "captions that lose the noun",
    "share": "share among nouns",
}


def degradation(store: Store, asked: Asked) -> Rows:
    """Curves of an ablation by one or several scores.

    Raises:
        UsageError: nothing such was measured; the message says what makes it.
    """
    measure = asked.view.measure or "prob"
    effects = _chosen(asked, _settings(store, asked, ABLATE), ABLATE, measure)
    return _curves(store, asked, effects, measure)


def perturbation(store: Store, asked: Asked) -> Rows:
    """Curves of a perturbation by one score.

    Raises:
        UsageError: nothing such was measured; several scores or units of sigma were, and none was chosen.
    """
    measure = asked.view.measure or "lost"
    effects = _chosen(asked, _settings(store, asked, PERTURB), PERTURB, measure)
    against = _axis(asked, effects, "sigma")
    return _curves(store, asked, effects, measure, against=against, unit=effects.sigma_unit or "")


def scaling(store: Store, asked: Asked) -> Rows:
    """Curves of units multiplied by factors, by one score.

    Raises:
        UsageError: nothing such was measured; several scores were, and none was chosen.
    """
    measure = asked.view.measure or "prob"
    effects = _chosen(asked, _settings(store, asked, SCALE), SCALE, measure)
    found = _curves(store, asked, effects, measure, against=_axis(asked, effects, "factor"))
    return _at_one_place(found)


def _at_one_place(found: Rows) -> Rows:
    """The curves of units changed everywhere, where there are any; else of those at image tokens, which is said."""
    there = set(found.data["positions"])
    place = EVERYWHERE if EVERYWHERE in there else min(there)
    subset = found.words["subset"] + ("" if place == EVERYWHERE else f", {POSITION_WORDS[place]}")
    data = found.data[found.data["positions"] == place]
    return replace(found, data=data, words=dict(found.words) | {"subset": subset})


def _axis(asked: Asked, effects: EffectFilter, size: str) -> str:
    """`k`, or the size of the change, of a figure that draws one score.

    Raises:
        UsageError: several scores; the size of another kind of change.
    """
    if len(effects.methods) > 1:
        raise UsageError(f"{asked.figure} draws one score; give --methods with one of {', '.join(effects.methods)}")
    against = asked.view.against or size
    if against not in (size, "k"):
        raise UsageError(f"{asked.figure} has no axis {against}; give --against {size} or --against k")
    return against


def degradation_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's value behind the curves (raises as `degradation`, and for a ratio of means)."""
    return _pictures(store, asked, ABLATE, asked.view.measure or "prob", "k")


def perturbation_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's value behind the curves (raises as `perturbation`, and for a ratio of means)."""
    return _pictures(store, asked, PERTURB, asked.view.measure or "lost", asked.view.against or "sigma")


def _pictures(store: Store, asked: Asked, kind: str, measure: str, along: str) -> Pictures:
    if measure == "relative":
        raise UsageError("a ratio of means is no mean of pictures' values: give --measure prob")
    effects = _chosen(asked, _settings(store, asked, kind), kind, measure)
    by = ["method", "selection", "positions", "k", *(["sigma"] if kind == PERTURB else [])]
    rows = store.ask(EffectQueries).means(asked.run_id, effects)
    column = MEASURES[measure][0]
    data = rows.dropna(subset=[column]).groupby(["image_id", *by], as_index=False, dropna=False)[column].mean()
    what = "nats per token" if measure in OF_TEXT else _PAIRED_WORDS.get(measure, measure)
    return Pictures(data.rename(columns={column: "value"}), tuple(by), along, what, series=_series())


def _series() -> Series:
    """Whose units were changed, and where, as the curves call it."""
    words = {
        (selection, place): name if place == EVERYWHERE else f"{name}, {at}"
        for place, at in POSITION_WORDS.items()
        for selection, name in SELECTION_WORDS.items()
    }
    colours = {name: SELECTION_COLOURS[selection] for selection, name in SELECTION_WORDS.items()}
    return Series(("selection", "positions"), words, colours)


def ablated_layers(store: Store, asked: Asked) -> Rows:
    """Layers of the units that an ablation zeroed, for one score and one number of units.

    Raises:
        UsageError: nothing such was measured; several scores or numbers of units.
    """
    settings = _settings(store, asked, ABLATE)
    settings = settings[~settings["method"].str.startswith(SET)]  # the same units for all nouns: mmn units show
    effects = _chosen(asked, settings, ABLATE)
    ks = list(asked.view.ks) or _measured_ks(settings[settings["method"].isin(effects.methods)], asked)
    if len(effects.methods) > 1 or not ks or len(asked.view.ks) > 1:
        raise UsageError("ablated-layers wants one score and one number of units, as --methods A --ks 43")
    k = asked.one("ks", "k", ks, None, ks[-1])
    data = store.ask(EffectQueries).ablated_layers(asked.run_id, effects, k)
    if data["n_units"].isna().all():
        raise _nothing_fits(asked, effects)
    return Rows(data, asked.run, {"k": k, "method": effects.methods[0], "subset": _subset(effects)})


def _settings(store: Store, asked: Asked, kind: str) -> pd.DataFrame:
    settings = store.ask(EffectQueries).settings(asked.run_id)
    return settings[settings["kind"] == kind]


def _chosen(asked: Asked, settings: pd.DataFrame, kind: str, measure: str = "") -> EffectFilter:
    """The effects of the scores asked for, of all that were measured where none were.

    Raises:
        UsageError: not measured, with the command that measures it; several units of sigma, and none was chosen.
    """
    there = list(dict.fromkeys(settings["method"]))
    methods = asked.view.methods or tuple(there)
    missing = [method for method in methods if method not in there]
    if missing or not there:
        wanted = f" by {missing[0]}" if missing else ""
        raise UsageError(
            f"run {asked.run_id} has no measurements of kind {kind}{wanted}; there are: {', '.join(there) or 'none'}; "
            f"mmn degrade {asked.run_id} --kind {kind} makes them"
        )
    return replace(
        EffectFilter.of(asked.view, kind),
        methods=methods,
        metric=_metric(asked, list(settings["metric"].dropna().unique()), measure),
        sigma_unit=_sigma_unit(asked, sorted(settings["sigma_unit"].dropna().unique())) if kind == PERTURB else None,
    )


def _metric(asked: Asked, there: list[str], measure: str) -> str | None:
    """The similarity of captions; None if none was measured.

    Raises:
        UsageError: one was asked for that was not measured, several were, or one for a figure of something else.
    """
    metrics = asked.view.metric
    if measure != "similarity":
        if metrics:
            raise UsageError("--metric names the similarity of captions: give --measure similarity with it")
        return there[0] if there else None
    if len(metrics) > 1:
        raise UsageError(f"{asked.figure} draws one similarity; --metric names {len(metrics)}")
    if not there and not metrics:
        return None
    return asked.one("metric", "similarity", there, metrics[0] if metrics else None)


def _sigma_unit(asked: Asked, there: list[str]) -> str | None:
    """The unit of sigma; noise relative to a unit's weights and noise in their own unit are not one curve.

    Raises:
        UsageError: both were measured and none was chosen; one was asked for that was not measured.
    """
    if not asked.view.sigma_unit and len(there) > 1:
        units = " or ".join(f"--sigma-unit '{unit}'" for unit in there)
        raise UsageError(f"sigma was measured in {counted(len(there), 'unit')}, which are not one axis; give {units}")
    return asked.one("sigma_unit", "unit of sigma", there, asked.view.sigma_unit) if there else None


def _curves(store: Store, asked: Asked, effects: EffectFilter, measure: str, **words: Any) -> Rows:
    """The points of all curves, and what the chart says of them.

    Raises:
        UsageError: no noun fits the filters; the measure was not taken.
    """
    means = store.ask(EffectQueries).means(asked.run_id, effects)
    if means.empty:
        raise _nothing_fits(asked, effects)
    data = curves(means, measure)
    if is_untouched(data).all():
        raise UsageError(f"{measure} was not measured: {_remedy(asked, effects, measure)}")
    n_images, n_concepts = count_sample(means.dropna(subset=[MEASURES[measure][0]]))
    n_concepts = n_images if measure in OF_TEXT else n_concepts  # read under the units of one noun of each
    metric = effects.metric or "" if measure == "similarity" else ""
    run = asked.run | {"n_images": n_images, "n_concepts": n_concepts}
    return Rows(data, run, words | {"measure": measure, "subset": _subset(effects), "metric": metric})


def _remedy(asked: Asked, effects: EffectFilter, measure: str) -> str:
    if measure == "share" or measure in OF_TEXT:
        return f"mmn {controls_command(asked.run_id, effects.kind)} measures it"
    return "mmn degrade --captions lets the model write again"


def _measured_ks(settings: pd.DataFrame, asked: Asked) -> list[int]:
    """Numbers of units that were zeroed and whose layers the run kept."""
    return [int(k) for k in sorted(settings["k"].unique()) if 0 < k <= asked.stored_k]


def _nothing_fits(asked: Asked, effects: EffectFilter) -> UsageError:
    return UsageError(f"no noun of run {asked.run_id} fits {_subset(effects)}")


def _subset(effects: EffectFilter) -> str:
    return concepts_in_words(effects.lemmas, effects.layers) + (", first nouns only" if effects.only_first else "")
