"""The rows of the figures of a scored run: layers, comparison, budget, top-share, tokens."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from mmn.core import named_unit, unit_name
from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.figures.wording import clipped, concepts_in_words, in_measured_layers, without_general
from mmn.names import BLANK, CONTRIBUTION_FOLDED, ORIGINAL, RANDOM, RAW
from mmn.store import Store
from mmn.store.neurons import NeuronQueries, words_of
from mmn.store.pictures import PictureQueries
from mmn.store.rankings import RankingQueries, d_experts
from mmn.studies.scoring.budget_figures import stacked_range
from mmn.studies.scoring.layer_figures import highest
from mmn.studies.scoring.layer_queries import INTERPRETABLE, LayerQueries
from mmn.view import View

USUAL_SHARES: Final = (0.001, 0.003, 0.01, 0.014, 0.03, 0.05, 0.1, 0.25)  # of all units (METHODS: k)
LAYERS_SHARE: Final = 0.014  # P1's 6,400 units of GPT-J's
QUANTITIES: Final = {"per-picture": "mean_units", "distinct": "n_units", "share": "share"}  # View.quantity -> column


def layers(store: Store, asked: Asked) -> Rows:
    """Top units per layer of each score, and of the random rankings as their control.

    Raises:
        UsageError: scores, nouns or k that the run did not store; units of a kind, and none is decoded.
    """
    view, methods = asked.view, _with_random(store, asked)
    data = store.ask(LayerQueries).distribution(
        asked.run_id, methods, asked.ks((LAYERS_SHARE,)), view.concepts, view.layers, **_of_units(view)
    )
    by = f" by {view.words_by} rows" if view.words_by else ""
    kind = f", {view.units.replace('-', ' ')} units only{by}" if view.units in INTERPRETABLE else ""
    subset = concepts_in_words(view.concepts) + kind + without_general(view.generality)
    of_some = {one: in_measured_layers(one, asked.run).removeprefix(",") for one in methods}
    subset += "".join(f"; {one}{where} alone" for one, where in of_some.items() if where)
    words: dict[str, Any] = {"subset": subset}
    words["quantity"] = QUANTITIES[view.quantity or "per-picture"]
    if len({*methods} - {RANDOM}) > 1:
        words["y_max"] = highest(data, asked.run["d_mlp"], words["quantity"])
    return Rows(data, asked.run, words)


def layers_pictures(store: Store, asked: Asked) -> Pictures:
    """How many of each picture's top units every layer holds, whatever the chart counts.

    Raises:
        UsageError: as `layers`; the chart counts distinct units of all pictures, which no picture has a part of.
    """
    view = asked.view
    if (view.quantity or "per-picture") != "per-picture":
        raise UsageError("distinct units are of all pictures together: give --quantity per-picture")
    data = store.ask(LayerQueries).distribution_by_picture(
        asked.run_id,
        _with_random(store, asked),
        asked.ks((LAYERS_SHARE,)),
        view.concepts,
        view.layers,
        **_of_units(view),
    )
    return Pictures(data, ("method", "k", "layer"), "layer", "units of a picture's top k", ".2f")


def _with_random(store: Store, asked: Asked) -> list[str]:
    """The scores asked for, all where none are; the random ones as their control, unless that is not wanted."""
    view, stored = asked.view, store.score_methods(asked.run_id)
    methods = list(view.methods or stored)
    if not view.control:
        return [method for method in methods if method != RANDOM] or methods
    return [*methods, RANDOM] if RANDOM in stored and RANDOM not in methods else methods


def _of_units(view: View) -> dict[str, Any]:
    """Which units are counted."""
    kind = INTERPRETABLE.get(view.units)
    return {"interpretable": kind, "words_by": view.words_by or RAW, "most_general": view.generality}


def comparison(store: Store, asked: Asked) -> Rows:
    """The top units that two scores share, by k.

    Raises:
        UsageError: not two scores; scores, nouns or k that the run did not store.
    """
    pair, lemmas = asked.view.methods, asked.view.concepts
    if len(pair) != 2:
        known = ", ".join(store.score_methods(asked.run_id))
        raise UsageError(f"comparison wants two scores, as --methods A,B; the run has {known}")
    data = store.ask(RankingQueries).overlap(asked.run_id, *pair, asked.ks(USUAL_SHARES), lemmas)
    pictures = store.ask(PictureQueries).pictures(asked.run_id, lemmas)
    run = asked.run | {"n_images": int((pictures["n_concepts"] > 0).sum())}
    return Rows(data, run, {"pair": " and ".join(pair), "subset": concepts_in_words(lemmas)})


def budget(store: Store, asked: Asked) -> Rows:
    """The terms of a noun's logit; beside them those of another noun, or of the same one over the grey picture.

    Raises:
        UsageError: no such picture or noun; the run kept no budgets, or scored no grey picture.
    """
    view = asked.view
    picture, nouns = _nouns(store, asked)
    sides = {noun: (noun, ORIGINAL) for noun in nouns.index}
    logits = nouns["logit"].to_dict()
    if view.grey:
        grey = nouns.loc[view.noun, "blank_logit"]
        if view.rival or pd.isna(grey):
            why = "stands beside --noun in place of --rival" if view.rival else "needs a run scored with --blank"
            raise UsageError(f"--grey {why}")
        label = f"{view.noun}, grey picture"
        sides[label], logits[label] = (view.noun, BLANK), float(grey)
    ask = store.ask(PictureQueries).budget
    terms = [ask(asked.run_id, picture["image_id"], *side).assign(noun=label) for label, side in sides.items()]
    data = pd.concat(terms)
    if data.empty:
        raise UsageError("this run kept no budgets; score it again to have them")
    words: dict[str, Any] = {"logits": logits, "of": _caption(picture)}
    if len(sides) > 1:
        words["y_range"] = stacked_range(data)
    return Rows(data, asked.run, words)


def top_share(store: Store, asked: Asked) -> Rows:
    """The share of a noun's logit that its top units make up, against k; beside it that of another noun.

    Raises:
        UsageError: no such picture or noun; the score that adds up to the logit is missing; the logit is not above 0.
    """
    picture, nouns = _nouns(store, asked)
    ks = asked.ks(USUAL_SHARES)
    if CONTRIBUTION_FOLDED not in store.score_methods(asked.run_id):
        raise UsageError(f"top-share needs the score {CONTRIBUTION_FOLDED}, which adds up to the logit; score with it")
    if low := [noun for noun, logit in nouns["logit"].items() if logit <= 0]:
        raise UsageError(f"the logit of {low[0]!r} is not above zero, so a share of it means nothing")
    ask = store.ask(PictureQueries).top_share
    sums = [
        ask(asked.run_id, picture["image_id"], noun, CONTRIBUTION_FOLDED, ks, asked.view.generality).assign(noun=noun)
        for noun in nouns.index
    ]
    data = pd.concat(sums)
    return Rows(
        data.assign(share=data["logit"] / data["noun"].map(nouns["logit"])),
        asked.run,
        {"of": _caption(picture) + without_general(asked.view.generality)},
    )


def tokens(store: Store, asked: Asked) -> Rows:
    """The tokens that a unit raises most.

    Raises:
        UsageError: no unit was asked for, the model does not have it, or it is not decoded (by these rows).
    """
    if asked.view.neuron is None:
        raise UsageError("tokens wants a unit, as --neuron L14.u2019")
    neuron = named_unit(str(asked.view.neuron), d_experts(asked.run))
    rows = asked.view.words_by or RAW
    words = words_of(store.ask(NeuronQueries).neuron(asked.run_id, neuron), rows)
    if words is None:
        by = f" by {rows} rows" if rows != RAW else ""
        raise UsageError(f"{neuron} is not decoded{by} yet; mmn annotate {asked.run_id} does that")
    data = pd.DataFrame({"token": words.tokens, words.value: words.values})
    return Rows(data, asked.run, {"neuron": unit_name(neuron, d_experts(asked.run)), "words_by": rows})


def _nouns(store: Store, asked: Asked) -> tuple[dict[str, Any], pd.DataFrame]:
    """The picture that was asked for, and the rows of its noun and of the rival, by noun.

    Raises:
        UsageError: no picture or noun was asked for, or it is not there.
    """
    view, pictures = asked.view, store.ask(PictureQueries)
    if not view.image or not view.noun:
        raise UsageError(f"{asked.figure} wants --image ID and --noun NOUN (mmn export --table concept lists them)")
    picture = pictures.picture(asked.run_id, view.image)
    concepts = pictures.concepts(asked.run_id, picture["image_id"]).set_index("noun")
    nouns = [noun for noun in dict.fromkeys((view.noun, view.rival)) if noun]
    if unknown := [noun for noun in nouns if noun not in concepts.index]:
        raise UsageError(f"no noun {unknown[0]!r} in that picture; it has {', '.join(concepts.index)}")
    return picture, concepts.loc[nouns]


def _caption(picture: dict[str, Any]) -> str:
    return f"picture {picture['image_id'][:8]}, “{clipped(picture['text'], 60)}”"
