"""Does a noun's top unit write that noun alone? P2 figure 5, and P1 figure S.2 for classes of pictures.

Scores are shares of the top unit's score for its own noun, those of its control too, so that both are on one scale:
the top unit's share for its own noun is 1. Where the top unit's own score is not above 0, there is no share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from mmn.bootstrap import draw_intervals
from mmn.errors import UsageError
from mmn.store.cells import NOUNS, by_picture, checked_layers, distinct, in_order, with_intervals
from mmn.store.reader import Reader

_METHODS: Final = "SELECT DISTINCT method FROM {table} WHERE run_id = $run_id"

_PICTURES: Final = f"""
    WITH {NOUNS}
    SELECT image_id, text, n_nouns
    FROM (
        SELECT image_id, count(DISTINCT unit_noun) AS n_nouns FROM specificity
        WHERE run_id = $run_id AND method = $method AND NOT is_control GROUP BY image_id
    ) JOIN (SELECT image_id, text FROM caption WHERE run_id = $run_id AND variant = 'original') USING (image_id)
    SEMI JOIN pictures USING (image_id)
    ORDER BY n_nouns DESC, image_id
"""  # noqa: S608 - no user's words

_PICTURE: Final = """
    WITH said AS (
        SELECT noun, position FROM concept WHERE run_id = $run_id AND image_id = $image_id AND variant = 'original'
    ),
    decoded AS (
        SELECT layer, unit, tokens FROM neuron WHERE model_fingerprint = $fingerprint
    )
    SELECT unit_noun, specificity.noun AS noun, layer::INTEGER AS layer, unit, score, share, is_control, tokens
    FROM specificity JOIN said ON said.noun = specificity.noun JOIN said AS unit_said ON unit_said.noun = unit_noun
    LEFT JOIN decoded USING (layer, unit)
    WHERE run_id = $run_id AND image_id = $image_id AND method = $method AND layer BETWEEN $first_layer AND $last_layer
    ORDER BY is_control, unit_said.position, said.position
"""

_SHARES: Final = f"""
    WITH {NOUNS},
    shares AS (
        SELECT place, image_id, method, lemma AS unit_lemma, unit_noun, specificity.noun AS noun,
            unit_noun = specificity.noun AS is_own, is_control, score, share
        FROM specificity JOIN pictures USING (image_id)
            JOIN nouns ON nouns.image_id = specificity.image_id AND nouns.noun = unit_noun
        WHERE run_id = $run_id AND method IN (SELECT unnest($methods)) AND layer BETWEEN $first AND $last
            AND share IS NOT NULL
    )
"""  # noqa: S608 - no user's words

_BY_CONCEPT: Final = f"""
    {_SHARES},
    named AS (
        SELECT place, is_control, unit_lemma, lemma, share FROM shares
        JOIN (SELECT image_id, noun, lemma FROM concept
            WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL) USING (image_id, noun)
    ),
    frequent AS (
        SELECT lemma, row_number() OVER (ORDER BY n DESC, lemma) AS number
        FROM (SELECT lemma, count(DISTINCT place) AS n FROM named GROUP BY ALL)
        QUALIFY number <= $most
    )
    SELECT is_control, unit_lemma, named.lemma AS lemma, avg(share) AS share, count(DISTINCT place) AS n_images
    FROM named JOIN frequent AS rows ON rows.lemma = unit_lemma JOIN frequent AS columns ON columns.lemma = named.lemma
    GROUP BY ALL ORDER BY is_control, any_value(rows.number), any_value(columns.number)
"""  # noqa: S608 - no user's words

_SUMMARY: Final = f"""
    {_SHARES}
    SELECT place, (list_position($methods, method) - 1) * 4 + is_control::INTEGER * 2 + (NOT is_own)::INTEGER AS cell,
        avg(share) AS share, count(DISTINCT unit_noun) AS n
    FROM shares GROUP BY ALL
"""  # noqa: S608 - no user's words

# Ties count for the noun: a unit that writes nothing at all is no proof of the contrary, and they hardly occur.
_HIGHEST: Final = f"""
    {_SHARES},
    judged AS (
        SELECT place, method, is_control, unit_noun, max(score) FILTER (is_own) >= max(score) AS is_highest,
            1 / count(*) AS chance
        FROM shares GROUP BY ALL HAVING count(*) >= 2
    )
    SELECT place, (list_position($methods, method) - 1) * 2 + is_control::INTEGER AS cell,
        avg(is_highest::INTEGER) AS share, avg(chance) AS chance, count(*) AS n
    FROM judged GROUP BY ALL
"""  # noqa: S608 - no user's words

_SELECTIVITY: Final = """
    WITH found AS (
        SELECT * FROM selectivity WHERE run_id = $run_id AND method = $method
        QUALIFY (n_units, held_out) = max((n_units, held_out)) OVER ()
    ),
    said AS (
        SELECT lemma, count(DISTINCT image_id) AS n FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL GROUP BY lemma
    ),
    classes AS (
        SELECT lemma, row_number() OVER (ORDER BY lemma IN (SELECT unnest($lemmas)) DESC, n DESC, lemma) AS number
        FROM said SEMI JOIN found ON found.unit_noun = lemma QUALIFY number <= $most
    )
    SELECT unit_noun, noun, is_control, value, share, n_units, n_images
    FROM found JOIN classes AS units ON units.lemma = unit_noun JOIN classes AS images ON images.lemma = noun
    WHERE len($lemmas) = 0 OR unit_noun IN (SELECT unnest($lemmas))
    ORDER BY is_control, units.number, images.number
"""


class SpecificityReader(Reader):
    """Questions about what a noun's units do for other nouns."""

    def specificity_methods(self, run_id: str) -> list[str]:
        """Returns the rankings whose top units were measured; empty without any.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._methods(run_id, "specificity")

    def selectivity_methods(self, run_id: str) -> list[str]:
        """Returns the rankings whose classes of units were measured; empty without any.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._methods(run_id, "selectivity")

    def specificity_pictures(self, run_id: str, method: str, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns the pictures that were measured, those of the most nouns first: image_id, text, n_nouns.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (own, run):
            asked = {"run_id": run["run_id"], "method": method, "lemmas": distinct(lemmas)}
            return own.sql(_PICTURES, params=asked).df()

    def specificity_of_picture(
        self, run_id: str, image_id: str, method: str, layers: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """Returns what each noun's top unit does for every noun of one picture, in the order of the caption.

        Columns: unit_noun, noun, layer, unit, score, is_control, share (of the top unit's score for its own noun),
        tokens (None where it is not decoded); of units in `layers`, first and last, alone where they are given.

        Raises:
            RunNotFoundError: no such run.
            UsageError: the picture was not measured, or none of its units lies there; layers that the model lacks.
        """
        with self._of_run(run_id) as (own, run):
            first, last = checked_layers(run, layers)
            asked = {"run_id": run["run_id"], "image_id": image_id, "method": method}
            asked |= {"fingerprint": run["model_fingerprint"], "first_layer": first, "last_layer": last}
            found = own.sql(_PICTURE, params=asked).df()
        if found.empty:
            raise _nothing(run, method, f"picture {image_id[:12]}" + (f", layers {first} to {last}" if layers else ""))
        return found

    def specificity_by_concept(
        self,
        run_id: str,
        method: str,
        most: int = 12,
        lemmas: Sequence[str] = (),
        layers: tuple[int, int] | None = None,
    ) -> pd.DataFrame:
        """Returns the mean share of each lemma's top units for each lemma, over the pictures that say both.

        Columns: is_control, unit_lemma, lemma, share, n_images; the `most` frequent lemmas, most frequent first.

        Args:
            run_id: of one run.
            method: the ranking whose top unit it is.
            most: how many lemmas.
            lemmas: only pictures' nouns of these; all if empty.
            layers: only top units of these layers, first and last.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        with self._of_run(run_id) as (own, run):
            found = own.sql(_BY_CONCEPT, params=_asked(run, [method], lemmas, layers) | {"most": most}).df()
        if found.empty:
            raise _nothing(run, method, "the chosen nouns and layers")
        return found

    def specificity_summary(
        self, run_id: str, methods: Sequence[str], lemmas: Sequence[str] = (), layers: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """Returns the mean share over concepts, then pictures, with 95 % intervals by picture; a row per method, for
        the own noun or the others, of the top unit or its control.

        Columns: method, is_control, is_own, share, share_low, share_high, n_images, n (concepts).

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        cells = [
            (m, is_control, is_own)
            for m in distinct(methods)
            for is_control in (False, True)
            for is_own in (True, False)
        ]
        return self._summarised(
            run_id, _SUMMARY, methods, lemmas, layers, pd.DataFrame(cells, columns=["method", "is_control", "is_own"])
        )

    def highest_for_own_noun(
        self, run_id: str, methods: Sequence[str], lemmas: Sequence[str] = (), layers: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """Returns how often a unit's score is highest for the noun that it is the top unit of, among the nouns of the
        picture; pictures of at least two nouns.

        Columns: method, is_control, share, share_low, share_high, n_images, n (concepts), chance (1 in so
        many nouns).

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        cells = [(m, is_control) for m in distinct(methods) for is_control in (False, True)]
        return self._summarised(
            run_id, _HIGHEST, methods, lemmas, layers, pd.DataFrame(cells, columns=["method", "is_control"])
        )

    def selectivity(self, run_id: str, method: str, most: int = 20, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns how active each class's units are in held-out pictures of every class, with the control's rows.

        Columns: unit_noun, noun, is_control, value, share, n_units, n_images; the classes of the `most` frequent
        lemmas, most frequent first. Of several settings the one with the most units, then the most held-out pictures.

        Args:
            run_id: of one run.
            method: the ranking that found the units.
            most: how many classes.
            lemmas: only these classes' units; all if empty.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        with self._of_run(run_id) as (own, run):
            asked = {"run_id": run["run_id"], "method": method, "lemmas": distinct(lemmas), "most": most}
            found = own.sql(_SELECTIVITY, params=asked).df()
        if found.empty:
            raise _nothing(run, method, "classes of pictures" + (f" of {', '.join(lemmas)}" if lemmas else ""))
        return found

    def _methods(self, run_id: str, table: str) -> list[str]:
        with self._of_run(run_id) as (own, run):
            found = own.execute(_METHODS.format(table=table), {"run_id": run["run_id"]}).fetchall()
        return in_order(method for (method,) in found)

    def _summarised(
        self,
        run_id: str,
        question: str,
        methods: Sequence[str],
        lemmas: Sequence[str],
        layers: tuple[int, int] | None,
        cells: pd.DataFrame,
    ) -> pd.DataFrame:
        with self._of_run(run_id) as (own, run):
            rows = own.sql(question, params=_asked(run, methods, lemmas, layers)).df()
        if rows.empty:
            raise _nothing(run, " or ".join(methods), "the chosen nouns and layers")
        found = with_intervals(cells, ["share"], by_picture(rows, ["share"], len(cells)), draw_intervals)
        by_cell = rows.groupby("cell")
        found["n"] = by_cell["n"].sum().reindex(range(len(cells)), fill_value=0).to_numpy()
        if "chance" in rows:
            found["chance"] = by_cell["chance"].mean().reindex(range(len(cells))).to_numpy()
        return found[found["n_images"] > 0].reset_index(drop=True)


def _asked(
    run: dict[str, Any], methods: Sequence[str], lemmas: Sequence[str], layers: tuple[int, int] | None
) -> dict[str, Any]:
    first, last = checked_layers(run, layers)
    asked = {"run_id": run["run_id"], "methods": distinct(methods), "lemmas": distinct(lemmas)}
    return asked | {"first": first, "last": last}


def _nothing(run: dict[str, Any], method: str, of: str) -> UsageError:
    return UsageError(
        f"run {run['run_id']} has no specificity by {method} of {of}: "
        f"measure it with `mmn specificity {run['run_id']}`, or choose other filters"
    )
