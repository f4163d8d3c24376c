"""The rows of the five figures of invariance: three of shuffled pictures, two across pictures of a concept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.figures.wording import concepts_in_words
from mmn.names import CROSS_IMAGE, REGION
from mmn.store import Store
from mmn.studies.invariance.cross_image_queries import CrossImageQueries
from mmn.studies.invariance.queries import InvarianceQueries


def curves(store: Store, asked: Asked) -> Rows:
    """Shared units against k under shuffling, by one or several scores.

    Raises:
        UsageError: nothing was measured, or not of these; a k that was not.
    """
    view, measured = asked.view, _measured(store, asked, REGION)
    ks = asked.measured_ks(measured["k"].tolist())
    methods = view.methods or _methods(measured)
    data = store.ask(InvarianceQueries).curves(asked.run_id, methods, ks, view.concepts, view.layers)
    return Rows(data, asked.run, {"subset": concepts_in_words(view.concepts, view.layers)})


def pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's share behind the curves (raises as `curves`)."""
    view, measured = asked.view, _measured(store, asked, REGION)
    ks, methods = asked.measured_ks(measured["k"].tolist()), view.methods or _methods(measured)
    data = store.ask(InvarianceQueries).ratios_by_picture(asked.run_id, methods, ks, view.concepts, view.layers)
    return Pictures(data, ("method", "k"), "k", "share of a noun's top units that stay", ".1%")


def by_concept(store: Store, asked: Asked) -> Rows:
    """The same at one k, concept by concept (raises as `curves`)."""
    return _at_one_k(store, asked, store.ask(InvarianceQueries).by_concept)


def by_layer(store: Store, asked: Asked) -> Rows:
    """The same at one k, layer by layer (raises as `curves`)."""
    return _at_one_k(store, asked, store.ask(InvarianceQueries).by_layer)


def cross_image(store: Store, asked: Asked) -> Rows:
    """Units that several pictures of a concept share, concept by concept (raises as `curves`)."""
    view, words = asked.view, _across(store, asked)
    data = store.ask(CrossImageQueries).by_concept(asked.run_id, **words, lemmas=view.concepts, layers=view.layers)
    return Rows(data, asked.run, {"method": words["method"], "k": words["k"], "layers": view.layers})


def cross_image_by_layer(store: Store, asked: Asked) -> Rows:
    """The layers in which these units lie (raises as `curves`; or they were counted without their layers)."""
    view, words = asked.view, _across(store, asked)
    data = store.ask(CrossImageQueries).by_layer(asked.run_id, **words, lemmas=view.concepts)
    return Rows(data, asked.run, words | {"subset": concepts_in_words(view.concepts), "layers": view.layers})


def _at_one_k(store: Store, asked: Asked, query: Callable[..., pd.DataFrame]) -> Rows:
    view, measured = asked.view, _measured(store, asked, REGION)
    method, k = asked.one_method(_methods(measured)), asked.one_k(measured["k"].tolist())
    data = query(asked.run_id, method, k, view.concepts, view.layers)
    return Rows(data, asked.run, {"method": method, "k": k, "subset": concepts_in_words(view.concepts, view.layers)})


def _across(store: Store, asked: Asked) -> dict[str, Any]:
    """The score, the number of pictures and the k to draw."""
    measured = _measured(store, asked, CROSS_IMAGE)
    method = asked.one_method(_methods(measured))
    measured = measured[measured["method"] == method]
    n = asked.one("pictures", "number of pictures", sorted(set(measured["n"].tolist())), asked.view.pictures)
    return {"method": method, "k": asked.one_k(measured.loc[measured["n"] == n, "k"].tolist()), "n": n}


def _methods(measured: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(measured["method"]))


def _measured(store: Store, asked: Asked, kind: str) -> pd.DataFrame:
    """What was measured of a kind of invariance.

    Raises:
        UsageError: nothing.
    """
    measured = store.ask(InvarianceQueries).measured(asked.run_id, kind)
    if measured.empty:
        raise UsageError(f"run {asked.run_id} has no {kind} invariance: mmn invariance {asked.run_id} --kind {kind}")
    return measured
