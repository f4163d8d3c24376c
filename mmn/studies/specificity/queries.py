"""Does a noun's top unit write only that noun? P2 figure 5 (arXiv 2311.07470).

Scores are shares of the score of the noun's top unit on this picture, whatever unit is meant, so that all are on one
scale. Where that score is not above 0, there is no share. Units are found on another picture of the noun (`held-out`)
or on this one (`same`, P2); each has its own control (`mmn.studies.specificity.measure`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd

from mmn.errors import UsageError
from mmn.names import FOUND, HELD_OUT, SAME_PICTURE, SHUFFLED_UNITS
from mmn.statistics.intervals import draw_intervals
from mmn.statistics.many_tests import marked, sign_flip
from mmn.store.cells import (
    NOUNS,
    Chosen,
    by_picture,
    checked_layers,
    distinct,
    values_by_picture,
    with_intervals,
)
from mmn.store.reader import Reader

_METHODS: Final = "SELECT DISTINCT method FROM specificity WHERE run_id = $run_id"

_SELECTIONS: Final = "SELECT DISTINCT selection FROM specificity WHERE run_id = $run_id"

# The units of one selection and their control. Of earlier versions, `same` has random units for its control.
_UNITS_AND_CONTROL: Final = "((selection = $selection AND NOT is_control) OR (selection = $control AND is_control))"

_PICTURES: Final = f"""
    WITH {NOUNS}
    SELECT image_id, text, n_nouns
    FROM (
        SELECT image_id, count(DISTINCT unit_noun) AS n_nouns FROM specificity
        WHERE run_id = $run_id AND method = $method AND selection = $selection AND NOT is_control GROUP BY image_id
    ) JOIN (SELECT image_id, text FROM caption WHERE run_id = $run_id AND variant = 'original') USING (image_id)
    SEMI JOIN pictures USING (image_id)
    ORDER BY n_nouns DESC, image_id
"""  # noqa: S608 - no user's words

_PICTURE: Final = f"""
    WITH said AS (
        SELECT noun, position FROM concept WHERE run_id = $run_id AND image_id = $image_id AND variant = 'original'
    ),
    decoded AS (
        SELECT layer, unit, tokens FROM neuron WHERE model_fingerprint = $fingerprint
    )
    SELECT unit_noun, specificity.noun AS noun, layer::INTEGER AS layer, unit, score, share, is_control, selection,
        found_on, tokens
    FROM specificity JOIN said ON said.noun = specificity.noun JOIN said AS unit_said ON unit_said.noun = unit_noun
    LEFT JOIN decoded USING (layer, unit)
    WHERE run_id = $run_id AND image_id = $image_id AND method = $method AND layer BETWEEN $first_layer AND $last_layer
        AND {_UNITS_AND_CONTROL}
    ORDER BY is_control, unit_said.position, said.position
"""  # noqa: S608 - no user's words

_ROWS: Final = f"""
    WITH {NOUNS},
    judged AS (
        SELECT place, image_id, method, selection, lemma AS unit_lemma, unit_noun, specificity.noun AS noun,
            unit_noun = specificity.noun AS is_own, is_control, score, share
        FROM specificity JOIN pictures USING (image_id)
            JOIN nouns ON nouns.image_id = specificity.image_id AND nouns.noun = unit_noun
        WHERE run_id = $run_id AND method IN (SELECT unnest($methods)) AND layer BETWEEN $first AND $last
    )
"""  # noqa: S608 - no user's words

_BY_CONCEPT: Final = f"""
    {_ROWS},
    named AS (
        SELECT place, is_control, unit_lemma, lemma, share FROM judged
        JOIN (SELECT image_id, noun, lemma FROM concept
            WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL) USING (image_id, noun)
        WHERE {_UNITS_AND_CONTROL} AND share IS NOT NULL
    ),
    frequent AS (
        SELECT lemma, row_number() OVER (ORDER BY n DESC, lemma) AS number
        FROM (SELECT lemma, count(DISTINCT place) AS n FROM named GROUP BY ALL)
        QUALIFY number <= $most
    )
    SELECT place, is_control, unit_lemma, named.lemma AS lemma, avg(share) AS share,
        any_value(rows.number) AS row_number, any_value(columns.number) AS column_number
    FROM named JOIN frequent AS rows ON rows.lemma = unit_lemma JOIN frequent AS columns ON columns.lemma = named.lemma
    GROUP BY ALL ORDER BY is_control, row_number, column_number, place
"""  # noqa: S608 - no user's words

_SUMMARY: Final = f"""
    {_ROWS}
    SELECT place, ((list_position($methods, method) - 1) * len($selections) + list_position($selections, selection) - 1)
            * 4 + is_control::INTEGER * 2 + (NOT is_own)::INTEGER AS cell,
        avg(share) AS share, count(DISTINCT unit_noun) AS n
    FROM judged WHERE share IS NOT NULL GROUP BY ALL
"""  # noqa: S608 - no user's words

# A unit that is silent here counts, too, as one that fails: its score needs no share. Ties count for the noun.
_HIGHEST: Final = f"""
    {_ROWS},
    compared AS (
        SELECT place, method, selection, is_control, unit_noun, max(score) FILTER (is_own) >= max(score) AS is_highest,
            1 / count(*) AS chance
        FROM judged GROUP BY ALL HAVING count(*) >= 2
    )
    SELECT place, ((list_position($methods, method) - 1) * len($selections) + list_position($selections, selection) - 1)
            * 2 + is_control::INTEGER AS cell,
        avg(is_highest::INTEGER) AS share, avg(chance) AS chance, count(*) AS n
    FROM compared GROUP BY ALL
"""  # noqa: S608 - no user's words

# Nouns of one picture's captions alone: there is no other picture to find a unit on.
_ALONE: Final = f"""
    WITH {NOUNS}, said AS (
        SELECT lemma FROM concept WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
        GROUP BY lemma HAVING count(DISTINCT image_id) = 1
    )
    SELECT count(*) FROM nouns SEMI JOIN said USING (lemma)
"""  # noqa: S608 - no user's words

_Kinds = Mapping[str, Sequence[Any]]  # of rows of a method, as `_cells` numbers them

_OF_HIGHEST: Final[_Kinds] = {"selection": FOUND, "is_control": (False, True)}
_OF_SHARES: Final[_Kinds] = {**_OF_HIGHEST, "is_own": (True, False)}


class SpecificityQueries(Reader):
    """Questions about what a noun's units do for other nouns."""

    def methods(self, run_id: str) -> list[str]:
        """Returns the rankings whose top units were measured; empty without any.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._methods(_METHODS, run_id)

    def selections(self, run_id: str) -> list[str]:
        """Returns where the measured units were found: `held-out`, `same`, and `shuffled`, the null of that.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            there = {name for (name,) in cursor.execute(_SELECTIONS, {"run_id": run["run_id"]}).fetchall()}
        return [one for one in FOUND if one in there]

    def nouns_of_one_picture(self, run_id: str, lemmas: Sequence[str] = ()) -> int:
        """Returns how many nouns one picture's caption alone says, so that none of them has a held-out unit.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            [(n,)] = cursor.execute(_ALONE, {"run_id": run["run_id"], "lemmas": distinct(lemmas)}).fetchall()
        return int(n)

    def pictures(self, run_id: str, method: str, lemmas: Sequence[str] = (), selection: str = HELD_OUT) -> pd.DataFrame:
        """Returns the pictures that were measured, those of the most nouns first: image_id, text, n_nouns.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            asked = {"run_id": run["run_id"], "method": method, "lemmas": distinct(lemmas), "selection": selection}
            return cursor.sql(_PICTURES, params=asked).df()

    def of_picture(
        self,
        run_id: str,
        image_id: str,
        method: str,
        layers: tuple[int, int] | None = None,
        selection: str = HELD_OUT,
    ) -> pd.DataFrame:
        """Returns what each noun's unit does for every noun of one picture, in the order of the caption.

        Columns: unit_noun, noun, layer, unit, score, is_control, selection, found_on (the picture, if it is another
        one), share (of the score of the noun's top unit on this picture), tokens (None where it is not decoded); of
        units in `layers`, first and last, alone where they are given. The control is that of the selection.

        Raises:
            RunNotFoundError: no such run.
            UsageError: the picture was not measured, or none of its units lies there; layers that the model lacks.
        """
        with self._of_run(run_id) as (cursor, run):
            first, last = checked_layers(run, layers)
            asked = {"run_id": run["run_id"], "image_id": image_id, "method": method}
            asked |= {"fingerprint": run["model_fingerprint"], "first_layer": first, "last_layer": last}
            asked |= _with_control(cursor, run, selection)
            found = cursor.sql(_PICTURE, params=asked).df()
        if found.empty:
            raise _nothing(run, method, f"picture {image_id[:12]}" + (f", layers {first} to {last}" if layers else ""))
        return found

    def by_concept(
        self,
        run_id: str,
        method: str,
        most: int = 12,
        lemmas: Sequence[str] = (),
        layers: tuple[int, int] | None = None,
        selection: str = HELD_OUT,
    ) -> pd.DataFrame:
        """Returns the mean share of each lemma's units for each lemma, over the pictures that say both.

        Columns: is_control, unit_lemma, lemma, share, n_images; the `most` frequent lemmas, most frequent first. `p` is
        of the difference to the control on the same pictures (`many_tests.sign_flip`; empty for the control, and where
        it has no such picture), `is_discovery` whether it survives among all pairs of lemmas that are shown.

        Args:
            run_id: of one run.
            method: the ranking whose top unit it is.
            most: how many lemmas.
            lemmas: only pictures' nouns of these; all if empty.
            layers: only units of these layers, first and last.
            selection: where the units were found.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        with self._of_run(run_id) as (cursor, run):
            asked = (
                _asked(run, Chosen([method], lemmas, layers)) | {"most": most} | _with_control(cursor, run, selection)
            )
            found = cursor.sql(_BY_CONCEPT, params=asked | {"most": most}).df()
        if found.empty:
            raise _nothing(run, method, "the chosen nouns and layers")
        return _by_concept(found)

    def summary(
        self, run_id: str, methods: Sequence[str], lemmas: Sequence[str] = (), layers: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """Returns the mean share over concepts, then pictures, with 95 % intervals by picture; a row per method and
        selection, for the own noun or the others, of the units or their control.

        Columns: method, selection, is_control, is_own, share, share_low, share_high, n_images, n (concepts).

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        return self._summarised(run_id, _SUMMARY, Chosen(methods, lemmas, layers), _OF_SHARES)

    def highest_for_own_noun(
        self, run_id: str, methods: Sequence[str], lemmas: Sequence[str] = (), layers: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """Returns how often a unit's score is highest for the noun that it was found for, among the nouns of the
        picture; pictures of at least two nouns. A unit that is silent there counts as well as any other.

        Columns: method, selection, is_control, share, share_low, share_high, n_images, n (concepts), chance (1 in so
        many nouns).

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        return self._summarised(run_id, _HIGHEST, Chosen(methods, lemmas, layers), _OF_HIGHEST)

    def shares_by_picture(
        self, run_id: str, methods: Sequence[str], lemmas: Sequence[str] = (), layers: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """Returns each picture's share behind `summary`: image_id, method, selection, is_control, is_own, value."""
        return self._by_picture(run_id, _SUMMARY, Chosen(methods, lemmas, layers), _OF_SHARES)

    def highest_by_picture(
        self, run_id: str, methods: Sequence[str], lemmas: Sequence[str] = (), layers: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """Returns each picture's share behind `highest_for_own_noun`: as `shares_by_picture`, without is_own."""
        return self._by_picture(run_id, _HIGHEST, Chosen(methods, lemmas, layers), _OF_HIGHEST)

    def _by_picture(self, run_id: str, question: str, chosen: Chosen, kinds: _Kinds) -> pd.DataFrame:
        with self._of_run(run_id) as (cursor, run):
            rows = _rows(cursor, run, question, chosen)
            return values_by_picture(cursor, rows, _cells(chosen.methods, kinds), "share", _asked(run, chosen))

    def _summarised(self, run_id: str, question: str, chosen: Chosen, kinds: _Kinds) -> pd.DataFrame:
        with self._of_run(run_id) as (cursor, run):
            rows = _rows(cursor, run, question, chosen)
        cells = _cells(chosen.methods, kinds)
        found = with_intervals(cells, ["share"], by_picture(rows, ["share"], len(cells)), draw_intervals)
        by_cell = rows.groupby("cell")
        found["n"] = by_cell["n"].sum().reindex(range(len(cells)), fill_value=0).to_numpy()
        if "chance" in rows:
            found["chance"] = by_cell["chance"].mean().reindex(range(len(cells))).to_numpy()
        return found[found["n_images"] > 0].reset_index(drop=True)


def _rows(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], question: str, chosen: Chosen) -> pd.DataFrame:
    """The shares of numbered pictures and cells."""
    rows = cursor.sql(question, params=_asked(run, chosen) | {"selections": list(FOUND)}).df()
    if rows.empty:
        raise _nothing(run, " or ".join(chosen.methods), "the chosen nouns and layers")
    return rows


def _cells(methods: Sequence[str], kinds: _Kinds) -> pd.DataFrame:
    """A row for each method and each combination of `kinds`, the last varying first, as the questions number them."""
    return pd.DataFrame(itertools.product(distinct(methods), *kinds.values()), columns=["method", *kinds])


def _with_control(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], selection: str) -> dict[str, str]:
    """The selection, and whose rows are its control."""
    there = {name for (name,) in cursor.execute(_SELECTIONS, {"run_id": run["run_id"]}).fetchall()}
    is_nulled = selection == SAME_PICTURE and SHUFFLED_UNITS in there
    return {"selection": selection, "control": SHUFFLED_UNITS if is_nulled else selection}


def _by_concept(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean of each pair of lemmas over its pictures, and the test of its difference to the control, by picture."""
    pair = ["unit_lemma", "lemma"]
    sides = rows.set_index([*pair, "place"])
    difference = (sides[~sides["is_control"]]["share"] - sides[sides["is_control"]]["share"]).dropna()
    p = {key: sign_flip(one.to_numpy(dtype=float)) for key, one in difference.groupby(level=pair)}
    by = ["is_control", *pair]
    found = rows.groupby(by, sort=False).agg(share=("share", "mean"), n_images=("place", "size")).reset_index()
    keys = zip(found["is_control"], found["unit_lemma"], found["lemma"], strict=True)
    return marked(found, np.array([np.nan if is_control else p.get((of, at), np.nan) for is_control, of, at in keys]))


def _asked(run: dict[str, Any], chosen: Chosen) -> dict[str, Any]:
    first, last = checked_layers(run, chosen.layers)
    asked = {"run_id": run["run_id"], "methods": distinct(chosen.methods), "lemmas": distinct(chosen.lemmas)}
    return asked | {"first": first, "last": last}


def _nothing(run: dict[str, Any], method: str, of: str) -> UsageError:
    return UsageError(
        f"run {run['run_id']} has no specificity by {method} of {of}: "
        f"measure it with mmn specificity {run['run_id']}, or choose other filters"
    )
