"""What did measured interventions do to the nouns? Reads `effect`: units zeroed (`ablate`), multiplied (`scale`) or
under noise (`perturb`).

A picture's value is the mean over its nouns, so that intervals can be taken by picture. The untouched model is the row
with k = 0 (or sigma = 0, or factor = 1) where one was measured, else the noun's own row of `concept`: the same pass,
the same token. It is repeated for every line as its first point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import duckdb
import pandas as pd

from mmn.errors import UsageError
from mmn.names import ABLATE, ALL_SELECTIONS, INTERVENTIONS, PERTURB, SCALE
from mmn.store.cells import distinct, led_by
from mmn.store.reader import Reader
from mmn.view import View


@dataclass(frozen=True)
class EffectFilter:
    """Which effects to look at.

    Attributes:
        kind: of `names.INTERVENTIONS`.
        methods: scores that selected the units.
        lemmas: only these nouns; all if empty.
        layers: only nouns whose first unit by the method lies in these, first and last.
        only_first: only the first noun of each caption (P1).
        metric: of the similarity; None for any.
        sigma_unit: of `perturb`; None for any.
    """

    kind: str
    methods: tuple[str, ...]
    lemmas: tuple[str, ...] = ()
    layers: tuple[int, int] | None = None
    only_first: bool = False
    metric: str | None = None
    sigma_unit: str | None = None

    def __post_init__(self) -> None:
        """Raises `UsageError` for another kind."""
        if self.kind not in INTERVENTIONS:
            raise UsageError(f"no effects of kind {self.kind!r}; the kinds are {', '.join(INTERVENTIONS)}")

    @classmethod
    def of(cls, view: View, kind: str) -> Self:
        """The effects of a kind that a view chooses."""
        return cls(
            kind,
            view.methods,
            view.concepts,
            view.layers,
            only_first=view.nouns == "first",
            metric=next(iter(view.metric), None),
            sigma_unit=view.sigma_unit or None,
        )


_SETTINGS: Final = """
    SELECT kind, method, selection, positions, k, sigma, sigma_unit, factor, metric, count(caption) AS n_captions
    FROM effect WHERE run_id = $run_id AND variant = 'original'
    GROUP BY ALL ORDER BY ALL
"""

_NOUNS: Final = """
    nouns AS (
        SELECT image_id, noun, lemma, position, prob, logit FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL AND (NOT $only_first OR is_first)
            AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))
    )
"""
_MEANT: Final = """
    SELECT * FROM {table} SEMI JOIN nouns USING (image_id, noun) {led}
    WHERE run_id = $run_id AND variant = 'original' AND kind = $kind AND method IN (SELECT unnest($methods))
        AND ($sigma_unit IS NULL OR sigma_unit = $sigma_unit)
"""

# One row for each noun and setting: another metric, or captions asked for later, repeat the same probability. What
# else was measured under a setting lies in tables of its own: empty cells do not count in a mean.
# Nouns and settings are counted as numbers, four times as fast as by their words.
_MEANS: Final = """
    WITH {nouns}, numbered AS (SELECT *, row_number() OVER () AS concept FROM nouns),
    methods AS (SELECT unnest($methods)::VARCHAR AS method, unnest(range(len($methods))) AS method_place),
    meant AS (
        SELECT image_id, noun, method, selection, positions, draw, k, sigma, factor, prob, logit, is_lost,
            CASE WHEN $metric IS NULL OR metric = $metric THEN similarity END AS similarity,
            NULL::DOUBLE AS noun_share, NULL::DOUBLE AS nats, NULL::DOUBLE AS nats_captions
        FROM ({meant})
        UNION ALL BY NAME
        SELECT image_id, noun, method, selection, positions, draw, k, sigma, factor, noun_share FROM ({shares})
        UNION ALL BY NAME
        SELECT image_id, noun, method, selection, positions, draw, k, sigma, factor,
            CASE WHEN text = 'plain' THEN nats END AS nats, CASE WHEN text = 'captions' THEN nats END AS nats_captions
        FROM ({texts})
    ),
    coded AS (
        SELECT concept, method_place, meant.* EXCLUDE (image_id, noun, method)
        FROM meant JOIN (SELECT concept, image_id, noun FROM numbered) USING (image_id, noun)
        JOIN methods USING (method)
    ),
    measured AS (
        SELECT concept, method_place, selection, positions, draw, k, sigma, factor, avg(prob) AS prob,
            avg(logit) AS logit, avg(similarity) AS similarity, avg(is_lost::INTEGER) AS lost,
            avg(noun_share) AS noun_share, avg(nats) AS nats, avg(nats_captions) AS nats_captions
        FROM coded WHERE k > 0 AND sigma IS DISTINCT FROM 0 AND factor IS DISTINCT FROM 1 GROUP BY ALL
    ),
    untouched AS (
        SELECT concept, avg(prob) AS prob, avg(logit) AS logit, avg(similarity) AS similarity,
            avg(noun_share) AS noun_share, avg(nats) AS nats, avg(nats_captions) AS nats_captions
        FROM coded WHERE k = 0 OR sigma = 0 OR factor = 1 GROUP BY concept
    ),
    baseline AS (
        SELECT concept, coalesce(untouched.prob, numbered.prob) AS baseline_prob,
            coalesce(untouched.logit, numbered.logit) AS baseline_logit, untouched.similarity AS baseline_similarity,
            noun_share, nats, nats_captions
        FROM numbered LEFT JOIN untouched USING (concept)
    ),
    lines AS (
        SELECT concept, method_place, selection, positions, draw, {start}, count(noun_share) AS n_shares,
            count(nats) AS n_texts, count(nats_captions) AS n_captions
        FROM measured GROUP BY ALL
    ),
    points AS (
        SELECT measured.*, baseline_prob FROM measured JOIN baseline USING (concept)
        UNION ALL BY NAME
        SELECT lines.* EXCLUDE (n_shares, n_texts, n_captions), baseline_prob AS prob, baseline_logit AS logit,
            baseline_similarity AS similarity, 0 AS lost, CASE WHEN n_shares > 0 THEN noun_share END AS noun_share,
            CASE WHEN n_texts > 0 THEN nats END AS nats,
            CASE WHEN n_captions > 0 THEN nats_captions END AS nats_captions, baseline_prob
        FROM lines JOIN baseline USING (concept)
    ),
    places AS (SELECT concept, {of}, dense_rank() OVER (ORDER BY {of}) AS place FROM numbered),
    means AS (
        SELECT place, method_place, selection, positions, draw, k, sigma, factor, avg(prob) AS prob,
            avg(logit) AS logit, avg(baseline_prob) AS baseline_prob, avg(similarity) AS similarity, avg(lost) AS lost,
            avg(noun_share) AS noun_share, avg(nats) AS nats, avg(nats_captions) AS nats_captions, count(*) AS n_nouns
        FROM points JOIN places USING (concept) GROUP BY ALL
    )
    SELECT {of}, method, selection, means.* EXCLUDE (place, method_place, selection)
    FROM means JOIN (SELECT DISTINCT place, {of} FROM places) USING (place) JOIN methods USING (method_place)
    ORDER BY method_place, selection, positions, draw, k, sigma, factor, place
"""
_START: Final = {  # where each line begins, at the untouched model
    ABLATE: "0 AS k, NULL::DOUBLE AS sigma, NULL::DOUBLE AS factor",
    PERTURB: "k, 0.0 AS sigma, NULL::DOUBLE AS factor",
    SCALE: "k, NULL::DOUBLE AS sigma, 1.0 AS factor",
}

_PICTURES: Final = """
    WITH {nouns}, meant AS ({meant}),
    measured AS (SELECT image_id, noun, count(caption) AS n_captions FROM meant GROUP BY ALL)
    SELECT image_id, noun, lemma, source, text, prob, n_captions
    FROM measured JOIN nouns USING (image_id, noun)
    JOIN (SELECT image_id, source FROM image WHERE run_id = $run_id) USING (image_id)
    JOIN (SELECT image_id, text FROM caption WHERE run_id = $run_id AND variant = 'original') USING (image_id)
    ORDER BY source, image_id, position
"""

_CAPTIONS: Final = """
    SELECT effect.selection, effect.positions, effect.k, sigma, factor, effect.draw, caption, similarity, metric,
        is_lost, prob, logit, noun_share, other_noun
    FROM effect LEFT JOIN (
        SELECT selection, positions, k, sigma AS share_sigma, sigma_unit AS share_unit, factor AS share_factor, draw,
            noun_share FROM noun_share
        WHERE run_id = $run_id AND variant = 'original' AND kind = $kind AND method = $method AND image_id = $image_id
            AND noun = $noun
    ) AS shares ON effect.selection = shares.selection AND effect.positions = shares.positions
        AND effect.k = shares.k AND effect.draw = shares.draw AND effect.sigma IS NOT DISTINCT FROM share_sigma
        AND effect.sigma_unit IS NOT DISTINCT FROM share_unit AND effect.factor IS NOT DISTINCT FROM share_factor
    WHERE run_id = $run_id AND variant = 'original' AND kind = $kind AND method = $method AND image_id = $image_id
        AND noun = $noun AND ($metric IS NULL OR metric IS NULL OR metric = $metric)
        AND ($sigma_unit IS NULL OR sigma_unit = $sigma_unit)
    ORDER BY effect.k, sigma, factor, effect.positions, list_position($selections, effect.selection), effect.draw,
        metric
"""

_LAYERS: Final = """
    WITH {nouns}, meant AS ({meant}),
    ablated AS (
        SELECT DISTINCT 'top' AS selection, image_id, noun, method FROM meant
        UNION ALL
        SELECT selection, other_image_id, other_noun, method
        FROM (SELECT DISTINCT selection, image_id, noun, other_image_id, other_noun, method FROM meant)
        WHERE selection = 'another'
    ),
    counted AS (
        SELECT selection, layer, count(*) AS n FROM ablated JOIN score USING (image_id, noun, method)
        WHERE run_id = $run_id AND variant = 'original' AND method IN (SELECT unnest($methods))
            AND rank BETWEEN 1 AND $k
        GROUP BY ALL
    ),
    nouns_of AS (SELECT selection, count(*) AS n_nouns FROM ablated GROUP BY ALL)
    SELECT selection, layer::INTEGER AS layer, coalesce(n, 0) / n_nouns AS n_units,
        coalesce(n, 0) / sum(n) OVER (PARTITION BY selection) AS share
    FROM nouns_of CROSS JOIN (SELECT unnest(range($n_layers)) AS layer) LEFT JOIN counted USING (selection, layer)
    ORDER BY selection DESC, layer
"""


class EffectQueries(Reader):
    """Questions about ablated, scaled and perturbed units."""

    def settings(self, run_id: str) -> pd.DataFrame:
        """Returns what was measured, one row per setting; empty if nothing was.

        Columns: kind, method, selection, positions, k, sigma, sigma_unit, factor, metric, n_captions.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_SETTINGS, params={"run_id": run["run_id"]}).df()

    def means(self, run_id: str, effects: EffectFilter) -> pd.DataFrame:
        """Returns the mean effect on each picture's nouns, one row per picture and setting.

        Columns: image_id, method, selection, positions, draw, k, sigma, factor, prob, logit, baseline_prob (of the same
        nouns in the untouched model), similarity, lost (share of captions without the noun), noun_share (among all
        nouns), nats and nats_captions (per token of plain text, and of captions), n_nouns. NaN where not measured.

        Raises:
            RunNotFoundError: no such run.
            UsageError: layers that the model does not have.
        """
        return self._means(run_id, effects, "image_id")

    def by_concept(self, run_id: str, effects: EffectFilter) -> pd.DataFrame:
        """Returns the same for each lemma instead of each picture: the mean over the captions that say it.

        Columns: lemma, then as `means`; n_nouns is the number of its captions.

        Raises:
            RunNotFoundError: no such run.
            UsageError: as `means`.
        """
        return self._means(run_id, effects, "lemma")

    def pictures(self, run_id: str, effects: EffectFilter) -> pd.DataFrame:
        """Returns the nouns with effects, by source and position.

        Columns: image_id, noun, lemma, source, text (the caption), prob (untouched), n_captions (new ones kept).

        Raises:
            RunNotFoundError: no such run.
            UsageError: as `means`.
        """
        with self._of_run(run_id) as (cursor, run):
            return _ask(cursor, run, effects, _PICTURES, {})

    def captions(self, run_id: str, effects: EffectFilter, image_id: str, noun: str) -> pd.DataFrame:
        """Returns all that was measured of one noun of one picture, by the first of `effects.methods`.

        Columns: selection, positions, k, sigma, factor, draw, caption, similarity, metric, is_lost, prob, logit,
        noun_share, other_noun; by k, then sigma or factor.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            key = {"run_id": run["run_id"], "kind": effects.kind, "image_id": image_id, "noun": noun}
            more = {"method": effects.methods[0], "metric": effects.metric, "sigma_unit": effects.sigma_unit}
            return cursor.sql(_CAPTIONS, params=key | more | {"selections": list(ALL_SELECTIONS)}).df()

    def ablated_layers(self, run_id: str, effects: EffectFilter, k: int) -> pd.DataFrame:
        """Returns in which layers a noun's top k units lie, and those of the other picture's noun where measured.

        Columns: selection (`top`, `another`), layer, n_units (mean over nouns with effects), share (of the k).

        Raises:
            RunNotFoundError: no such run.
            UsageError: as `means`; a k beyond what the run stored, where the ranking is not known.
        """
        with self._of_run(run_id) as (cursor, run):
            stored = min(run["settings"]["top_k"], run["n_layers"] * run["d_mlp"])
            if not 1 <= k <= stored:
                raise UsageError(f"k = {k} is not in 1 … {stored}, the units per noun that this run stored")
            return _ask(cursor, run, effects, _LAYERS, {"k": k, "n_layers": run["n_layers"]})

    def _means(self, run_id: str, effects: EffectFilter, of: str) -> pd.DataFrame:
        def ask() -> pd.DataFrame:
            with self._of_run(run_id) as (cursor, run):
                values = {"metric": effects.metric}
                return _ask(cursor, run, effects, _MEANS, values, start=_START[effects.kind], of=of)

        return self._asked_once(("effects", of, run_id, effects), ask)


def _ask(
    cursor: duckdb.DuckDBPyConnection,
    run: dict[str, Any],
    effects: EffectFilter,
    sql: str,
    values: dict[str, Any],
    **parts: str,
) -> pd.DataFrame:
    """The rows that answer a question about some effects.

    Raises:
        UsageError: layers that the model does not have.
    """
    led, layers = led_by(run, effects.layers)
    meant = {
        "run_id": run["run_id"],
        "kind": effects.kind,
        "methods": distinct(effects.methods),
        "lemmas": distinct(effects.lemmas),
        "only_first": effects.only_first,
        "sigma_unit": effects.sigma_unit,
    }
    tables = {"meant": "effect", "shares": "noun_share", "texts": "perplexity"}
    told = {name: _MEANT.format(led=led, table=table) for name, table in tables.items()}
    question = sql.format(nouns=_NOUNS, **told, **parts)
    return cursor.sql(question, params=meant | layers | values).df()
