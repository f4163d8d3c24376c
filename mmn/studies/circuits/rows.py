"""The rows of the figures of circuits: a graph with a place for each node, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from mmn.core import Neuron, unit_name
from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.store import Store
from mmn.store.rankings import d_experts
from mmn.studies.circuits.curves import LINE, MEASURES, WORDS, curves, judged
from mmn.studies.circuits.queries import CircuitQueries
from mmn.studies.circuits.tables import IMAGE, NOUN, TEXT

EDGE, UNIT, END = "edge", "unit", "end"  # what a row of the graph is: an edge, a unit, or one of the graph's two ends
_COLUMNS: Final = ("what", "x", "y", "x2", "y2", "name", "layer", "unit", "weight", "through_attention", "words")


def circuit(store: Store, asked: Asked) -> Rows:
    """The graph of a noun: a row for each edge and each node, with their places.

    Raises:
        UsageError: no circuit was measured, or none of this noun or picture.
    """
    about = chosen(store, asked)
    queries, name = store.ask(CircuitQueries), about["circuit"]
    units, edges = queries.units(asked.run_id, name), queries.edges(asked.run_id, name)
    units = units.assign(name=_names(units, d_experts(asked.run)))
    places = _places(units, int(asked.run["n_layers"]))
    nodes = pd.concat([_unit_rows(units, places), _end_rows(about, places)])
    data = pd.concat([_edge_rows(edges, places), nodes], ignore_index=True)
    run = asked.run | {"n_images": about["n_found"], "n_concepts": about["n_found"]}
    words = {"about": _told(about), "through": _through(queries.layers(asked.run_id, name))}
    return Rows(data, run, words)


def circuit_curve(store: Store, asked: Asked) -> Rows:
    """What is left of a noun at each size of its circuit.

    Raises:
        UsageError: as `circuit`; a measure that there is none of.
    """
    about = chosen(store, asked)
    measure = _measure(asked)
    effects = judged(store.ask(CircuitQueries).effects(asked.run_id, about["circuit"]))
    data = curves(effects, measure)
    data = data.assign(line=[WORDS[line] for line in zip(data["direction"], data["selection"], strict=True)])
    run = asked.run | {"n_images": effects["image_id"].nunique(), "n_concepts": effects["image_id"].nunique()}
    words = {"about": _told(about), "measure": measure, "is_held_out": bool(effects["is_held_out"].any())}
    return Rows(data, run, words)


def curve_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's value behind the curves (raises as `circuit_curve`, and for a ratio of means)."""
    measure = _measure(asked)
    if measure == "relative":
        raise UsageError("a ratio of means is no mean of pictures' values: give --measure prob")
    about = chosen(store, asked)
    effects = judged(store.ask(CircuitQueries).effects(asked.run_id, about["circuit"]))
    by = (*LINE, "size")
    data = effects.groupby(["image_id", *by], as_index=False)[measure].mean().rename(columns={measure: "value"})
    return Pictures(data, by, "size", {"prob": "probability of the noun", "logit": "logit of the noun"}[measure])


def chosen(store: Store, asked: Asked) -> dict[str, Any]:
    """The row of `circuit` that a view means: of one picture, or the noun's own.

    Raises:
        UsageError: there is none; the message says what was measured.
    """
    found = store.ask(CircuitQueries).circuits(asked.run_id)
    if found.empty:
        raise UsageError(f"run {asked.run_id} has no circuits; mmn circuits {asked.run_id} finds some")
    image = asked.view.image
    of_picture = found["image_id"].fillna("")
    found = found[of_picture.str.startswith(image) & (of_picture != "")] if image else found
    if not image and (of_picture == "").any():
        found = found[of_picture == ""]
    if found.empty:
        raise UsageError(
            f"no circuit of picture {image[:12]}; mmn circuits {asked.run_id} --image {image[:12]} finds it"
        )
    noun = asked.one("noun", "noun", list(dict.fromkeys(found["noun"])), asked.view.noun or None)
    found = found[found["noun"] == noun]
    rule = asked.one("derivative", "derivative", list(dict.fromkeys(found["rule"])), asked.view.derivative or None)
    found = found[found["rule"] == rule]
    k = asked.one("ks", "number of units a layer", list(dict.fromkeys(found["k"].astype(int))), _one_k(asked))
    return dict(found[found["k"] == k].iloc[0].to_dict())


def _one_k(asked: Asked) -> int | None:
    if len(asked.view.ks) > 1:
        raise UsageError(f"{asked.figure} draws one circuit; --ks names {len(asked.view.ks)} sizes")
    return asked.view.ks[0] if asked.view.ks else None


def _measure(asked: Asked) -> str:
    measure = asked.view.measure or "prob"
    if measure not in MEASURES:
        raise UsageError(f"{asked.figure} has no measure {measure}; give --measure {', '.join(MEASURES)}")
    return measure


def _told(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a chart says of a circuit."""
    picture = about["image_id"] if isinstance(about["image_id"], str) else ""
    kept = {name: about[name] for name in ("noun", "rule", "other_noun")}
    return kept | {"k": int(about["k"]), "n_found": int(about["n_found"]), "picture": picture}


def _places(units: pd.DataFrame, n_layers: int) -> dict[str, tuple[float, float]]:
    """Where each node is: inputs below (y = 0), a line for each layer, the noun above; best units on the left."""
    k = int(units["place"].max())
    middle = (k + 1) / 2
    places = {IMAGE: (middle - k / 4, 0.0), TEXT: (middle + k / 4, 0.0), NOUN: (middle, n_layers + 1.0)}
    for row in units.itertuples():
        places[row.name] = (float(row.place), row.layer + 1.0)
    return places


def _edge_rows(edges: pd.DataFrame, places: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Edges between nodes that have a place; of a circuit of one picture its tokens have none of their own."""
    drawn = edges[edges["source"].isin(places)]
    sources, targets = ([places[name] for name in drawn[end]] for end in ("source", "target"))
    return drawn.assign(
        what=EDGE,
        x=[x for x, _ in sources],
        y=[y for _, y in sources],
        x2=[x for x, _ in targets],
        y2=[y for _, y in targets],
        name=drawn["source"] + " → " + drawn["target"],
    )


def _names(units: pd.DataFrame, d_experts: Sequence[int]) -> list[str]:
    return [unit_name(Neuron(int(row.layer), int(row.unit)), d_experts) for row in units.itertuples()]


def _unit_rows(units: pd.DataFrame, places: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    return units.drop(columns="tokens").assign(
        what=UNIT,
        x=[places[name][0] for name in units["name"]],
        y=[places[name][1] for name in units["name"]],
        words=[" · ".join(str(token).strip() for token in tokens[:5]) for tokens in units["tokens"]],
    )


def _end_rows(about: Mapping[str, Any], places: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    names = {IMAGE: "image tokens", TEXT: "text", NOUN: str(about["noun"])}
    rows = [{"what": END, "name": said, "x": places[end][0], "y": places[end][1]} for end, said in names.items()]
    return pd.DataFrame(rows)


def _through(layers: pd.DataFrame) -> dict[int, float]:
    return {int(row.layer): float(row.through_attention) for row in layers.itertuples()}
