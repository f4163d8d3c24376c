"""In which layers do the units lie that write the caption's nouns, and which units are they?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import duckdb
import pandas as pd

from mmn.errors import UsageError
from mmn.names import ORIGINAL, RAW, chosen_layers
from mmn.store.cells import checked_layers
from mmn.store.generality import GeneralityQueries, hide
from mmn.store.neurons import WORD_COLUMNS

MAX_UNIT_ROWS: Final = 500
INTERPRETABLE: Final = {"interpretable": True, "not-interpretable": False}  # View.units -> is_interpretable

# Ranks to count by: of the whole image, or of the caption nouns with the lemmas asked for.
_IMAGE_RANKS = """
    SELECT image_id, method, layer, unit, rank, score, 1::DOUBLE AS weight FROM image_rank
    WHERE run_id = $run_id AND variant = $variant AND method IN (SELECT unnest($methods)) AND rank <= $max_k
"""
_LEMMA_RANKS = """
    SELECT image_id, method, layer, unit, rank, score, weight FROM score
    JOIN (
        SELECT image_id, noun, 1.0 / count(*) OVER (PARTITION BY image_id) AS weight FROM concept
        WHERE run_id = $run_id AND variant = $variant AND target_at IS NULL AND lemma IN (SELECT unnest($lemmas))
    ) USING (image_id, noun)
    WHERE run_id = $run_id AND variant = $variant AND method IN (SELECT unnest($methods)) AND rank BETWEEN 1 AND $max_k
"""

# A unit is among the top k of some image exactly when its best rank over the images is at most k. The mean over images
# needs no unit's name, only how many of each rank lie in a layer; every image weighs 1, by all its rankings together.
_LAYER_DISTRIBUTION = """
    WITH ranks AS ({ranks}),
    meant AS (SELECT * FROM ranks {decoded} {hidden}),
    best AS (SELECT method, layer, unit, min(rank) AS rank FROM meant GROUP BY method, layer, unit),
    sizes AS (SELECT unnest($ks)::INTEGER AS k),
    counted AS (
        SELECT method, k, layer, count(*) AS n_units FROM best JOIN sizes ON rank <= k GROUP BY method, k, layer
    ),
    placed AS (SELECT method, layer, rank, sum(weight) AS n FROM meant GROUP BY method, layer, rank),
    summed AS (
        SELECT method, k, layer, sum(n) AS n_places FROM placed JOIN sizes ON rank <= k GROUP BY method, k, layer
    ),
    pictures AS (SELECT method, sum(weight) AS n_images FROM ranks WHERE rank = 1 GROUP BY method),
    grid AS (
        SELECT method, k, layer FROM (SELECT unnest($methods)::VARCHAR AS method),
            sizes, (SELECT unnest(range($n_layers))::INTEGER AS layer)
    ),
    shared AS (
        SELECT method, k, layer, coalesce(n_units, 0) AS n_units,
            coalesce(n_units, 0) / sum(n_units) OVER (PARTITION BY method, k) AS share,
            coalesce(n_places, 0) / n_images AS mean_units, round(n_images)::INTEGER AS n_images
        FROM grid LEFT JOIN counted USING (method, k, layer) LEFT JOIN summed USING (method, k, layer)
            LEFT JOIN pictures USING (method)
    )
    SELECT method, k, layer, n_units, share, mean_units, n_images FROM shared
    ORDER BY list_position($methods, method), list_position($ks, k), layer
"""

# The same of each picture: how many of its top k lie in each layer, none too. Their mean is `mean_units`.
_LAYER_PICTURES = """
    WITH ranks AS ({ranks}),
    meant AS (SELECT * FROM ranks {decoded} {hidden}),
    sizes AS (SELECT unnest($ks)::INTEGER AS k),
    placed AS (
        SELECT image_id, method, k, layer, sum(weight) AS n FROM meant JOIN sizes ON rank <= k GROUP BY ALL
    ),
    grid AS (
        SELECT image_id, method, k, layer FROM (SELECT DISTINCT image_id, method FROM ranks),
            sizes, (SELECT unnest(range($n_layers))::INTEGER AS layer)
    )
    SELECT image_id, method, k, layer, coalesce(n, 0)::DOUBLE AS value
    FROM grid LEFT JOIN placed USING (image_id, method, k, layer)
"""

_DECODED = """SEMI JOIN (
    SELECT layer, unit FROM neuron WHERE model_fingerprint = $fingerprint AND {flag} = $interpretable
) USING (layer, unit)"""

_LAYER_COUNTS_PER_IMAGE = """
    WITH ranks AS ({ranks})
    SELECT image_id, layer::INTEGER AS layer, count(DISTINCT unit) AS n_units FROM ranks
    GROUP BY image_id, layer ORDER BY image_id, layer
"""

_UNIT_ROWS = """
    WITH all_ranks AS ({ranks}),
    ranks AS (SELECT * FROM all_ranks {hidden}),
    per_image AS (
        SELECT image_id, layer, unit, max(score) AS score, min(rank) AS rank
        FROM ranks WHERE $layer IS NULL OR layer = $layer GROUP BY image_id, layer, unit
    ),
    best AS (
        SELECT layer, unit, count(*) AS n_images, avg(score) AS mean_score, max(score)::DOUBLE AS max_score,
            min(rank) AS best_rank
        FROM per_image GROUP BY layer, unit
        ORDER BY best_rank, n_images DESC, max_score DESC, layer, unit LIMIT $limit
    ),
    their_scores AS (
        SELECT image_id, noun, layer, unit FROM score
        SEMI JOIN best USING (layer, unit)
        WHERE run_id = $run_id AND variant = $variant AND method IN (SELECT unnest($methods))
            AND rank BETWEEN 1 AND $max_k
    ),
    named AS (
        SELECT layer, unit, count(DISTINCT lemma) AS n_concepts
        FROM their_scores JOIN (
            SELECT image_id, noun, lemma FROM concept
            WHERE run_id = $run_id AND variant = $variant AND target_at IS NULL
                AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))
        ) USING (image_id, noun)
        GROUP BY layer, unit
    )
    SELECT layer::INTEGER AS layer, unit, n_images, n_concepts, mean_score, max_score, best_rank
    FROM best JOIN named USING (layer, unit)
    ORDER BY best_rank, n_images DESC, max_score DESC, layer, unit
"""


class LayerQueries(GeneralityQueries):
    """Counts of top units by layer."""

    def distribution(
        self,
        run_id: str,
        methods: Sequence[str],
        ks: Sequence[int],
        lemmas: Sequence[str] = (),
        layers: tuple[int, int] | None = None,
        variant: str = ORIGINAL,
        interpretable: bool | None = None,
        words_by: str = RAW,
        most_general: float | None = None,
    ) -> pd.DataFrame:
        """Returns how many units of each layer are among the top k: of at least one image, and of an image on average.

        An image's ranking is by each unit's maximum over the nouns of its caption; with `lemmas`, the rankings of
        those nouns are used instead, together (METHODS: image-level ranking).

        Args:
            run_id: of one run.
            methods: scores to count by.
            ks: units per image; at most what the run stored, beyond which the ranking would be wrong.
            lemmas: nouns of the caption to count for, all if empty.
            layers: first and last layer to show; shares stay shares of all layers.
            variant: of the captions.
            interpretable: only those of the top k that are decoded and interpretable (P1's filter), or with False
                decoded and not; None for all.
            words_by: the rows of W_U that they are decoded by.
            most_general: leaves out units that are more general than that, by the method itself (`store.generality`).

        Returns:
            method, k, layer, n_units, share, mean_units, n_images: one row for each, in the order given, layers
            without units too. `n_units` are distinct units; `share` is of all those of that method and k, so it adds up
            to 1 over all layers. `mean_units` is how many of a picture's top k lie in the layer, the mean over
            `n_images` pictures (with `lemmas`, first over the chosen nouns of a picture): it adds up to k over all
            layers, to less with `interpretable` or `most_general`, and does not saturate as distinct units do in many
            pictures.
            Of a score that was measured in some layers alone, the counts of the others are NaN, and in all its rows
            `control_scale` is what a control's counts over all layers are to be multiplied by. Else there is no such
            column.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing is stored for a method, lemma or variant; a k or layer out of range; no decoded units.
        """
        with self._of_run(run_id) as (cursor, run):
            first, last = checked_layers(run, layers)
            values = _selection(run, methods, ks, lemmas, variant) | _kind(cursor, run, ks, interpretable, words_by)
            hidden = self.hidden(run["run_id"], methods, most_general)
            counted = _ask(cursor, _LAYER_DISTRIBUTION, values, words_by, hidden)
            is_filtered = interpretable is not None or most_general is not None
            if is_filtered and counted["share"].isna().any():
                self.distribution(run_id, methods, ks, lemmas, layers, variant)  # raises if there is nothing to filter
                counted["share"] = counted["share"].fillna(0.0)
            for method in counted.loc[counted["share"].isna(), "method"]:
                raise self._nothing(cursor, run, method, values)
            counted = _where_measured(run, counted)
            return counted[counted["layer"].between(first, last)].reset_index(drop=True)

    def distribution_by_picture(
        self,
        run_id: str,
        methods: Sequence[str],
        ks: Sequence[int],
        lemmas: Sequence[str] = (),
        layers: tuple[int, int] | None = None,
        interpretable: bool | None = None,
        words_by: str = RAW,
        most_general: float | None = None,
    ) -> pd.DataFrame:
        """Returns what `mean_units` of `distribution` is the mean of: image_id, method, k, layer, value (units of the
        picture's top k in the layer); the same arguments and errors.
        """
        with self._of_run(run_id) as (cursor, run):
            first, last = checked_layers(run, layers)
            values = _selection(run, methods, ks, lemmas, ORIGINAL) | _kind(cursor, run, ks, interpretable, words_by)
            hidden = self.hidden(run["run_id"], methods, most_general)
            counted = _ask(cursor, _LAYER_PICTURES, values, words_by, hidden)
            is_shown = counted["layer"].between(first, last) & _is_measured(run, counted)
            return counted[is_shown].reset_index(drop=True)

    def counts_per_image(
        self, run_id: str, method: str, k: int, lemmas: Sequence[str] = (), variant: str = ORIGINAL
    ) -> pd.DataFrame:
        """Returns how many of each image's top k lie in each layer: image_id, layer, n_units (layers without: no row).

        Raises:
            RunNotFoundError: no such run.
            UsageError: as `distribution`.
        """
        with self._of_run(run_id) as (cursor, run):
            values = _selection(run, [method], [k], lemmas, variant)
            counted = _ask(cursor, _LAYER_COUNTS_PER_IMAGE, values)
            if not len(counted):
                raise self._nothing(cursor, run, method, values)
            return counted

    def unit_rows(
        self,
        run_id: str,
        method: str,
        k: int,
        layer: int | None = None,
        lemmas: Sequence[str] = (),
        variant: str = ORIGINAL,
        most_general: float | None = None,
    ) -> pd.DataFrame:
        """Returns the units behind a bar of `distribution`, best rank first, at most 500.

        Columns: layer, unit, n_images (with the unit in their top k), n_concepts (lemmas whose own top k has it),
        mean_score and max_score over those images, best_rank. Units more general than `most_general` are left out.

        Raises:
            RunNotFoundError: no such run.
            UsageError: as `distribution`.
        """
        with self._of_run(run_id) as (cursor, run):
            checked_layers(run, None if layer is None else (layer, layer))
            values = _selection(run, [method], [k], lemmas, variant) | {"layer": layer, "limit": MAX_UNIT_ROWS}
            rows = _ask(cursor, _UNIT_ROWS, values, hidden=self.hidden(run["run_id"], [method], most_general))
            if not len(rows) and not len(_ask(cursor, _LAYER_COUNTS_PER_IMAGE, values)):
                raise self._nothing(cursor, run, method, values)
            return rows

    def _nothing(
        self, cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], method: str, values: dict[str, Any]
    ) -> UsageError:
        wanted = f"variant {values['variant']!r}" + (f" and the nouns {values['lemmas']}" if values["lemmas"] else "")
        there = ", ".join(self._score_methods(cursor, run)) or "none"
        return UsageError(f"run {run['run_id']} has no {method!r} scores for {wanted}; its methods are: {there}")


def _selection(
    run: dict[str, Any], methods: Sequence[str], ks: Sequence[int], lemmas: Sequence[str], variant: str
) -> dict[str, Any]:
    stored = min(run["settings"]["top_k"], run["n_layers"] * run["d_mlp"])
    for k in ks:
        if not 1 <= k <= stored:
            raise UsageError(f"k = {k} is not in 1 … {stored}, the units per noun that this run stored (its --top-k)")
    if not methods or not ks:
        raise UsageError("choose at least one method and one k")
    return {
        "run_id": run["run_id"],
        "variant": variant,
        "methods": list(dict.fromkeys(methods)),
        "lemmas": list(dict.fromkeys(lemmas)),
        "max_k": max(ks),
    }


def _is_measured(run: dict[str, Any], counted: pd.DataFrame) -> pd.Series:
    """Whether each row's score was measured in its layer."""
    every = range(run["n_layers"])
    of = {method: chosen_layers(method, run["settings"]) or every for method in counted["method"].unique()}
    pairs = zip(counted["method"], counted["layer"], strict=True)
    return pd.Series([layer in of[method] for method, layer in pairs], index=counted.index)


def _where_measured(run: dict[str, Any], counted: pd.DataFrame) -> pd.DataFrame:
    """The counts of layers that were measured, in which a score's k units all lie."""
    is_measured = _is_measured(run, counted)
    if is_measured.all():
        return counted
    counts = ["n_units", "share", "mean_units"]
    part = is_measured.groupby([counted["method"], counted["k"]]).transform("mean")
    return counted.assign(**{name: counted[name].where(is_measured) for name in counts}, control_scale=1 / part)


def _kind(
    cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], ks: Sequence[int], interpretable: bool | None, words_by: str
) -> dict[str, Any]:
    """What questions about layers are told besides: sizes, layers, and which kind of units."""
    values: dict[str, Any] = {"ks": list(dict.fromkeys(ks)), "n_layers": run["n_layers"]}
    if interpretable is None:
        return values
    _require_decoded(cursor, run, words_by)
    return values | {"fingerprint": run["model_fingerprint"], "interpretable": interpretable}


def _ask(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    values: dict[str, Any],
    words_by: str = RAW,
    hidden: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Returns the answer to a question about ranks, giving it those of `values` that it names."""
    decoded = _DECODED.format(flag=WORD_COLUMNS[words_by].flag) if "interpretable" in values else ""
    ranks = _LEMMA_RANKS if values["lemmas"] else _IMAGE_RANKS
    sql = sql.format(ranks=ranks, decoded=decoded, hidden=hide(cursor, hidden))
    named = set(re.findall(r"\$(\w+)", sql))
    return cursor.sql(sql, params={name: value for name, value in values.items() if name in named}).df()


def _require_decoded(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], words_by: str) -> None:
    flag = WORD_COLUMNS[words_by].flag
    question = f"SELECT 1 FROM neuron WHERE model_fingerprint = ? AND {flag} IS NOT NULL LIMIT 1"  # noqa: S608 - ours
    if not cursor.execute(question, [run["model_fingerprint"]]).fetchall():
        raise UsageError(
            f"no unit of {run['model']} is decoded by {words_by} rows, so none is known to be interpretable: "
            f"run mmn annotate {run['run_id']}"
        )
