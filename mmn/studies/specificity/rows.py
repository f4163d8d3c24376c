"""The rows of the three figures of specificity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures, Series
from mmn.figures.wording import clipped, concepts_in_words, in_layers
from mmn.names import HELD_OUT, SAME_PICTURE
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.studies.specificity.kinds import HIGHEST, SUMMARY
from mmn.studies.specificity.queries import SpecificityQueries

SELECTIONS: Final[Mapping[str, str]] = {"another": HELD_OUT, "same": SAME_PICTURE}  # `View.found_on` -> selection
MOST: Final = 12  # concepts of a heat map, the most frequent


def specificity(store: Store, asked: Asked) -> Rows:
    """The heat map of one picture, or of the most frequent concepts; units and their control.

    Raises:
        UsageError: filters that do not go together, or that leave nothing; nothing was measured.
    """
    queries = store.ask(SpecificityQueries)
    method = asked.one_method(queries.methods(asked.run_id))
    selection = _selection(queries, asked)
    draw = _of_picture if asked.view.image else _by_concept
    return draw(store, asked, method, selection)


def specificity_summary(store: Store, asked: Asked) -> Rows:
    """The mean share for a noun's own unit and for the others', by score, beside random units.

    Raises:
        UsageError: nothing of that kind was measured.
    """
    view, queries = asked.view, store.ask(SpecificityQueries)
    methods = view.methods or queries.methods(asked.run_id)
    data = queries.summary(asked.run_id, methods, view.concepts, view.layers)
    return Rows(data, _with_lone_nouns(queries, asked), {"subset": _subset(asked)})


def highest_for_own_noun(store: Store, asked: Asked) -> Rows:
    """How often a unit scores highest for its own noun, by score, beside random units and chance.

    Raises:
        UsageError: nothing of that kind was measured.
    """
    view, queries = asked.view, store.ask(SpecificityQueries)
    methods = view.methods or queries.methods(asked.run_id)
    data = queries.highest_for_own_noun(asked.run_id, methods, view.concepts, view.layers)
    return Rows(data, _with_lone_nouns(queries, asked), {"subset": _subset(asked)})


def summary_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's mean share behind the summary (raises as `specificity_summary`)."""
    series = _series(("selection", "is_control", "is_own"), SUMMARY)
    return _pictures(store, asked, store.ask(SpecificityQueries).shares_by_picture, series, "mean share", ".3f")


def highest_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's share of units that are highest for their own noun (raises as `highest_for_own_noun`)."""
    series = _series(("selection", "is_control"), HIGHEST)
    return _pictures(store, asked, store.ask(SpecificityQueries).highest_by_picture, series, "own noun highest", ".1%")


def _series(by: tuple[str, ...], kinds: Mapping[tuple[Any, ...], tuple[str, str]]) -> Series:
    return Series(by, {key: who for key, (who, _shape) in kinds.items()})


def _pictures(store: Store, asked: Asked, query: Callable[..., Any], series: Series, what: str, form: str) -> Pictures:
    view = asked.view
    methods = view.methods or store.ask(SpecificityQueries).methods(asked.run_id)
    data = query(asked.run_id, methods, view.concepts, view.layers)
    return Pictures(data, ("method", *series.by), "method", what, form, series)


def _of_picture(store: Store, asked: Asked, method: str, selection: str) -> Rows:
    view = asked.view
    if view.concepts or view.most:
        raise UsageError("specificity of one --image draws all its nouns: leave --concepts and --most out")
    picture = store.ask(PictureQueries).picture(asked.run_id, view.image)
    image_id = picture["image_id"]
    data = store.ask(SpecificityQueries).of_picture(asked.run_id, image_id, method, view.layers, selection)
    told = f"picture {image_id[:8]}, “{clipped(picture['text'], 60)}”{in_layers(view.layers)}"
    return Rows(data, asked.run, {"method": method, "selection": selection, "picture": told})


def _by_concept(store: Store, asked: Asked, method: str, selection: str) -> Rows:
    view, queries = asked.view, store.ask(SpecificityQueries)
    data = queries.by_concept(asked.run_id, method, view.most or MOST, view.concepts, view.layers, selection)
    summary = queries.summary(asked.run_id, [method], view.concepts, view.layers)
    n_images = int(summary[summary["selection"] == selection]["n_images"].max())
    words = {"method": method, "selection": selection, "subset": _subset(asked)}
    return Rows(data, asked.run | {"n_images": n_images}, words)


def _selection(queries: SpecificityQueries, asked: Asked) -> str:
    """The selection asked for, else held-out units, or those of the same picture where there are no others.

    Raises:
        UsageError: the run was measured before units were held out.
    """
    there = queries.selections(asked.run_id)
    wanted = SELECTIONS.get(asked.view.found_on)
    if wanted is None:
        return HELD_OUT if HELD_OUT in there else SAME_PICTURE
    if wanted not in there:
        raise UsageError(
            f"run {asked.run_id} has no units found on another picture: measure them with mmn specificity "
            f"{asked.run_id} (a noun of one picture alone has none)"
        )
    return wanted


def _with_lone_nouns(queries: SpecificityQueries, asked: Asked) -> dict[str, Any]:
    """The run's row with the number of nouns that have no held-out unit."""
    return asked.run | {"n_of_one_picture": queries.nouns_of_one_picture(asked.run_id, asked.view.concepts)}


def _subset(asked: Asked) -> str:
    return concepts_in_words(asked.view.concepts) + in_layers(asked.view.layers)
