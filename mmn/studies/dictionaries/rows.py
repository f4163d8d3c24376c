"""The rows of the figures of concept dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.figures.wording import clipped, concepts_in_words
from mmn.reading.nouns import lemma_of
from mmn.statistics.intervals import interval_table
from mmn.store import Store
from mmn.studies.dictionaries.queries import DictionaryQueries

TOP: Final = 1  # strongest concept whose words are drawn
_TARGETS: Final = {"caption": "the caption", "reference": "the references", "image": "the picture"}
_METRICS: Final = {"lexical-v1": "same word", "word-f1-v1": "shared words"}


def dictionaries(store: Store, asked: Asked) -> Rows:
    """How well the words of a picture's strongest concept fit it, by dictionary; held-out pictures.

    Raises:
        UsageError: nothing was measured; a measure or noun was asked for that was not.
    """
    found = labelled(store.ask(DictionaryQueries).tests(asked.run_id, asked.view.concepts))
    return Rows(_wanted(found, asked), asked.run, {"subset": concepts_in_words(asked.view.concepts)})


def pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's value behind the figure (raises as `dictionaries`)."""
    found = labelled(store.ask(DictionaryQueries).by_picture(asked.run_id, asked.view.concepts))
    return Pictures(_wanted(found, asked), ("metric", "label"), "label", "how well a concept's words fit")


def concepts(store: Store, asked: Asked) -> Rows:
    """The concepts of one noun in one dictionary: their first words, and the share of pictures that each leads.

    Raises:
        UsageError: nothing was measured; a noun or dictionary was asked for that was not.
    """
    queries = store.ask(DictionaryQueries)
    about = one_dictionary(queries.dictionaries(asked.run_id), asked)
    found = queries.concepts(asked.run_id, about["noun"], about["dictionary"])
    strongest = queries.strongest(asked.run_id, about["noun"], about["dictionary"])
    ends = _intervals(strongest, found["concept"].tolist())
    data = found.merge(ends, on="concept", how="left")
    pairs = zip(data["concept"], data["words"], strict=True)
    data["label"] = [f"{number + 1}  {said(words, about['noun'])}" for number, words in pairs]
    told = {"noun": about["noun"], "dictionary": f"{about['kind']} of {site_words(about['site'])}"}
    counts = {"n_fit": int(about["n_fit"]), "n_test": int(about["n_test"])}
    return Rows(data[["concept", "label", "led", "led_test", "low", "high", "n"]], asked.run, told | counts)


def one_dictionary(known: pd.DataFrame, asked: Asked) -> pd.Series:
    """The row of `DictionaryQueries.dictionaries` that a view names, or the usual one, which is told."""
    if known.empty:
        raise UsageError(f"run {asked.run_id} has no dictionaries: mmn dictionaries {asked.run_id} makes them")
    noun = asked.one("noun", "noun", list(dict.fromkeys(known["noun"])), asked.view.noun)
    of_noun = known[known["noun"] == noun]
    name = asked.one("dictionary", "dictionary", of_noun["dictionary"].tolist(), asked.view.dictionary)
    return of_noun[of_noun["dictionary"] == name].iloc[0]


def said(words: Sequence[str], noun: str, most: int = 26) -> str:
    """The first words of a concept but for the noun's own forms, as a label."""
    others = [word for word in words if noun not in (word, lemma_of(word))]
    return clipped(", ".join(others), most) if others else "no other word"


def site_words(site: str) -> str:
    """Of what a dictionary is, in words."""
    return {"final": "final norm", "units": "units"}.get(site, site.replace("layer-", "layer "))


def measure_words(metric: str) -> str:
    """`the caption: same word (lexical-v1)`."""
    name, _, target = metric.rpartition(":")
    if target not in _TARGETS:
        return metric
    return f"{_TARGETS[target]}: {_METRICS[name]} ({name})" if name in _METRICS else f"{_TARGETS[target]}: {name}"


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` of the strongest concept, with `label`: kind and site, and what was asked where that differs."""
    rows = rows[rows["top"] == TOP]
    asked = rows["dictionary"].str.extract(r":(k\d+):(n\d+)$")
    more = (" " + asked[0] + " " + asked[1]) if len(asked.drop_duplicates()) > 1 else ""
    sites = rows["site"].map(site_words)
    return rows.assign(label=rows["kind"] + ", " + sites + more, site_words=sites).reset_index(drop=True)


def _wanted(found: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """The rows of the measures that are asked for, all where none are."""
    if found.empty:
        of = f" of {', '.join(asked.view.concepts)}" if asked.view.concepts else ""
        raise UsageError(f"run {asked.run_id} has no dictionaries{of}: mmn dictionaries {asked.run_id} makes them")
    there = sorted(set(found["metric"]))
    wanted = [next((one for one in there if text in (one, measure_words(one))), text) for text in asked.view.metric]
    if missing := [one for one in wanted if one not in there]:
        raise UsageError(f"--metric {missing[0]}: measured were {', '.join(there)}")
    return found[found["metric"].isin(wanted or there)].reset_index(drop=True)


def _intervals(strongest: pd.DataFrame, concepts: Sequence[int]) -> pd.DataFrame:
    """concept, low, high, n: the interval of the share of held-out pictures that each concept leads."""
    if strongest.empty:
        return pd.DataFrame({"concept": concepts, "low": float("nan"), "high": float("nan"), "n": 0})
    rows = strongest[["image_id"]].merge(pd.DataFrame({"one": list(concepts)}), how="cross")
    leads = dict(zip(strongest["image_id"], strongest["concept"], strict=True))
    rows["value"] = [float(leads[image] == one) for image, one in zip(rows["image_id"], rows["one"], strict=True)]
    found = interval_table(rows, ["one"], "value").rename(columns={"one": "concept"})
    return found[["concept", "low", "high", "n"]]
