"""The concepts of nouns, by `mmn dictionaries`: what they are, and how well their words fit held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from mmn.statistics.intervals import ANYWHERE, SHARE, interval_table
from mmn.store.reader import Reader

_DICTIONARIES: Final = """
    SELECT * EXCLUDE (run_id) FROM dictionary
    WHERE run_id = $run_id AND (len($nouns) = 0 OR noun IN (SELECT unnest($nouns)))
    ORDER BY n_fit + n_test DESC, noun, site = 'units', kind = 'simple', kind = 'pca', kind = 'k-means', dictionary
"""

_CONCEPTS: Final = """
    SELECT * EXCLUDE (run_id, direction) FROM dictionary_concept
    WHERE run_id = $run_id AND noun = $noun AND dictionary = $dictionary ORDER BY concept
"""

_STRONGEST: Final = """
    SELECT image_id, any_value(concept) AS concept FROM dictionary_test
    WHERE run_id = $run_id AND noun = $noun AND dictionary = $dictionary GROUP BY image_id ORDER BY image_id
"""

_TESTS: Final = """
    SELECT image_id, dictionary, kind, site, metric, top, avg(value) AS value, avg(any_concept) AS any_concept,
        avg(random) AS random
    FROM dictionary_test JOIN dictionary USING (run_id, noun, dictionary)
    WHERE run_id = $run_id AND (len($nouns) = 0 OR noun IN (SELECT unnest($nouns)))
    GROUP BY ALL
"""

_UNIT_WORDS: Final = """
    SELECT layer, unit, tokens FROM neuron WHERE model_fingerprint = $fingerprint
        AND list_contains($places, layer * 1000000 + unit)
"""

_CELL: Final = ["site", "kind", "dictionary", "metric", "top"]
_VALUES: Final = ("value", "any_concept", "random", "difference")


class DictionaryQueries(Reader):
    """Questions about concept dictionaries."""

    def dictionaries(self, run_id: str, nouns: Sequence[str] = ()) -> pd.DataFrame:
        """Returns the table `dictionary`: the noun with most pictures first, residuals before units.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_DICTIONARIES, params={"run_id": run["run_id"], "nouns": list(nouns)}).df()

    def concepts(self, run_id: str, noun: str, dictionary: str) -> pd.DataFrame:
        """Returns the table `dictionary_concept` of one dictionary, without its vectors.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_CONCEPTS, params=_of(run, noun, dictionary)).df()

    def strongest(self, run_id: str, noun: str, dictionary: str) -> pd.DataFrame:
        """Returns image_id and concept: the strongest one of each held-out picture.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_STRONGEST, params=_of(run, noun, dictionary)).df()

    def tests(self, run_id: str, nouns: Sequence[str] = ()) -> pd.DataFrame:
        """Returns for each dictionary, metric and number of strongest concepts how well their words fit held-out
        pictures: site, kind, dictionary, metric, top, n (pictures), then value, any_concept, random and difference
        (value − random), each with `_low` and `_high`. A picture's value is the mean over its nouns.

        Raises:
            RunNotFoundError: no such run.
        """
        rows = self.by_picture(run_id, nouns)
        if rows.empty:
            return pd.DataFrame(columns=[*_CELL, "n", *(f"{v}{end}" for v in _VALUES for end in ("", "_low", "_high"))])
        within = ANYWHERE if rows[["value", "random"]].to_numpy().max() > 1 else SHARE
        parts = []
        for name in _VALUES:
            table = interval_table(rows, _CELL, name, within=ANYWHERE if name == "difference" else within)
            columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
            table = table.set_index(_CELL).rename(columns=columns)
            parts.append(table[[*(["n"] if name == "value" else []), *columns.values()]])
        found = pd.concat(parts, axis=1).reset_index()
        return in_order(found)

    def by_picture(self, run_id: str, nouns: Sequence[str] = ()) -> pd.DataFrame:
        """Returns what `tests` is the mean of: a row for each picture.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            rows = cursor.sql(_TESTS, params={"run_id": run["run_id"], "nouns": list(nouns)}).df()
        return rows.assign(difference=rows["value"] - rows["random"])

    def unit_words(self, run_id: str, concepts: pd.DataFrame) -> dict[tuple[int, int], list[str]]:
        """Returns the tokens of the units that carry some concepts, as far as they are decoded, by layer and unit.

        Raises:
            RunNotFoundError: no such run.
        """
        pairs = {
            (int(layer), int(unit))
            for layers, units in zip(concepts["layers"], concepts["units"], strict=True)
            for layer, unit in zip(layers, units, strict=True)
        }
        places = [layer * 1_000_000 + unit for layer, unit in sorted(pairs)]
        with self._of_run(run_id) as (cursor, run):
            values = {"fingerprint": run["model_fingerprint"], "places": places}
            found = cursor.sql(_UNIT_WORDS, params=values).df()
        return {(row["layer"], row["unit"]): list(row["tokens"]) for row in found.to_dict("records")}


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """By metric and number of concepts, then as dictionaries are listed: residuals before units, semi-NMF first."""
    kinds = {"semi-nmf": 0, "k-means": 1, "pca": 2, "simple": 3}
    order = rows.assign(_units=rows["site"] == "units", _kind=rows["kind"].map(kinds).fillna(9))
    return order.sort_values(["metric", "top", "_units", "site", "_kind", "dictionary"], ignore_index=True).drop(
        columns=["_units", "_kind"]
    )


def _of(run: dict[str, Any], noun: str, dictionary: str) -> dict[str, str]:
    return {"run_id": run["run_id"], "noun": noun, "dictionary": dictionary}
