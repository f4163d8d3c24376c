"""What does a run say of one picture? Its caption and nouns, their ranked units, and where those units look.

"Original" is the picture as it is; the `blank` variant is the same caption over a grey picture. A chosen word
(`target_at`) counts as a noun here, since it has scores; in counts of the caption's nouns it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.models.geometry import Grids, serialise
from mmn.names import BUDGET_TERMS, CONTRIBUTION_FOLDED, ORIGINAL, RAW
from mmn.reading.synonyms import Synonyms
from mmn.store.generality import GeneralityQueries, hide
from mmn.store.given import latest_synonyms
from mmn.store.neurons import WORD_COLUMNS
from mmn.store.reader import require_concept, require_k

TOP, BOTTOM = "top", "bottom"  # the highest scores (rank 1, 2, …), the suppressors (rank −1, −2, …)

_PICTURES: Final = """
    WITH nouns AS (
        SELECT image_id, count(*) AS n_concepts, count(*) FILTER (NOT is_in_reference) AS n_unreferenced,
            bool_or(len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas))) AS is_said,
            coalesce(bool_or(NOT is_in_reference AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))), false)
                AS is_unreferenced
        FROM concept WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL GROUP BY image_id
    )
    SELECT image_id, source, width, height, coalesce(text, '') AS text, coalesce(n_concepts, 0) AS n_concepts,
        coalesce(n_unreferenced, 0) AS n_unreferenced
    FROM image
    LEFT JOIN (SELECT image_id, text FROM caption WHERE run_id = $run_id AND variant = 'original') USING (image_id)
    LEFT JOIN nouns USING (image_id)
    WHERE run_id = $run_id AND (len($lemmas) = 0 OR coalesce(is_said, false))
        AND (NOT $only_unreferenced OR coalesce(is_unreferenced, false))
    ORDER BY source, image_id
"""

_CONCEPTS: Final = """
    SELECT original.*, blank.prob AS blank_prob, blank.logit AS blank_logit
    FROM concept AS original LEFT JOIN (
        SELECT noun, prob, logit FROM concept WHERE run_id = $run_id AND image_id = $image_id AND variant = 'blank'
    ) AS blank USING (noun)
    WHERE run_id = $run_id AND image_id = $image_id AND variant = 'original'
    ORDER BY target_at IS NOT NULL, position, noun
"""

_CONSERVED: Final = """
    SELECT expected, total FROM conservation
    WHERE run_id = $run_id AND image_id = $image_id AND noun = $noun AND method = $method AND variant = 'original'
"""

_CONSERVATION: Final = """
    SELECT method, max(abs(expected - total) / greatest(abs(expected), 1)) FROM conservation
    WHERE run_id = $run_id GROUP BY method ORDER BY method
"""

_RANKED: Final = """
    WITH here AS (
        SELECT variant, method, rank, layer, unit, score, activation, token_position FROM score
        WHERE run_id = $run_id AND image_id = $image_id AND noun = $noun
    ),
    chosen AS (
        SELECT rank, layer, unit, score, activation, token_position FROM here {hidden}
        WHERE variant = 'original' AND method = $method AND rank * $direction >= 1
        ORDER BY abs(rank) LIMIT $limit
    ),
    decoded AS (
        SELECT layer, unit, {tokens}::VARCHAR[] AS tokens, {flag} AS is_interpretable
        FROM neuron SEMI JOIN chosen USING (layer, unit)
        WHERE model_fingerprint = $fingerprint
    )
    SELECT chosen.rank, chosen.layer::INTEGER AS layer, chosen.unit, chosen.score, chosen.activation,
        chosen.token_position, blank.score AS blank_score, tokens, is_interpretable, iou, iou_other, iou_random
    FROM chosen
    LEFT JOIN (SELECT layer, unit, score FROM here WHERE variant = 'blank' AND method = $method) AS blank
        USING (layer, unit)
    LEFT JOIN decoded USING (layer, unit)
    LEFT JOIN (
        SELECT layer, unit, iou, iou_other, iou_random FROM field
        WHERE run_id = $run_id AND image_id = $image_id AND noun = $noun AND method = $method AND selection = 'same'
    ) USING (layer, unit)
    ORDER BY abs(chosen.rank)
"""

_OTHER_RANKS: Final = """
    SELECT method, layer::INTEGER AS layer, unit, rank FROM score
    WHERE run_id = $run_id AND image_id = $image_id AND noun = $noun AND variant = 'original' AND method != $method
"""

_BUDGET: Final = """
    SELECT term, layer::INTEGER AS layer, logit FROM budget
    WHERE run_id = $run_id AND image_id = $image_id AND noun = $noun AND variant = $variant
    ORDER BY list_position($terms, term), layer NULLS LAST
"""

_TOP_SCORES: Final = """
    SELECT rank, score FROM (
        SELECT method, layer, unit, rank, score FROM score
        WHERE run_id = $run_id AND image_id = $image_id AND noun = $noun AND variant = 'original'
            AND method = $method AND rank BETWEEN 1 AND $k
    ) {hidden}
    ORDER BY rank
"""

_LOOKS: Final = """
    SELECT layer::INTEGER AS layer, unit, activations
    FROM (SELECT unnest($layers)::SMALLINT AS layer, unnest($units)::INTEGER AS unit, unnest($places) AS place)
    JOIN (SELECT layer, unit, activations FROM look WHERE run_id = $run_id AND image_id = $image_id)
        USING (layer, unit)
    ORDER BY place
"""

_MOST_ACTIVE: Final = """
    WITH here AS (
        SELECT layer, unit, activations[$token + 1] AS activation, list_max(activations) AS highest FROM look
        WHERE run_id = $run_id AND image_id = $image_id AND len(activations) > $token
        ORDER BY activation DESC, layer, unit LIMIT $limit
    ),
    decoded AS (
        SELECT layer, unit, {tokens}::VARCHAR[] AS tokens FROM neuron SEMI JOIN here USING (layer, unit)
        WHERE model_fingerprint = $fingerprint
    )
    SELECT layer::INTEGER AS layer, unit, activation, highest, tokens
    FROM here LEFT JOIN decoded USING (layer, unit) ORDER BY activation DESC, layer, unit
"""


class PictureQueries(GeneralityQueries):
    """Questions about one picture of a run."""

    def pictures(self, run_id: str, lemmas: Sequence[str] = (), *, only_unreferenced: bool = False) -> pd.DataFrame:
        """Returns one row per picture of a run, by source.

        Columns: image_id, source, width, height, text (the caption), n_concepts (its nouns), n_unreferenced (those
        that no reference caption says; 0 for a picture without references).

        Args:
            run_id: of one run.
            lemmas: only pictures whose caption says one of these nouns; all if empty.
            only_unreferenced: only pictures with a noun (one of `lemmas`, if given) that no reference says.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            values = {"run_id": run["run_id"], "lemmas": list(lemmas), "only_unreferenced": only_unreferenced}
            return cursor.sql(_PICTURES, params=values).df()

    def picture(self, run_id: str, image_id: str) -> dict[str, Any]:
        """Returns the `image` row of a picture, its caption's `text` and `is_cut`; `sources`, `reference` are lists.

        Args:
            run_id: of one run.
            image_id: the id, or a beginning of it that no other picture of the run has.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such picture, or more than one.
        """
        with self._of_run(run_id) as (cursor, run):
            rows = cursor.sql(
                "SELECT image.*, caption.text, caption.is_cut FROM image LEFT JOIN caption "
                "ON caption.run_id = image.run_id AND caption.image_id = image.image_id AND variant = 'original' "
                "WHERE image.run_id = $run_id AND starts_with(image.image_id, $image_id) LIMIT 2",
                params={"run_id": run["run_id"], "image_id": image_id},
            )
            found = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
        if len(found) != 1 or not image_id:
            wrong = "more than one picture" if found else "no picture"
            raise UsageError(f"run {run['run_id']} has {wrong} whose id begins with {image_id!r}")
        return found[0]

    def concepts(self, run_id: str, image_id: str) -> pd.DataFrame:
        """Returns the `concept` rows of a picture's own caption by position, chosen words last.

        Further columns: blank_prob and blank_logit of the same token over a grey picture, NaN where that was not
        scored.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_CONCEPTS, params={"run_id": run["run_id"], "image_id": image_id}).df()

    def conserved(self, run_id: str, image_id: str, noun: str, method: str) -> tuple[float, float] | None:
        """Returns what a score's terms should add up to and what they do, in logits; None of a score without such."""
        with self._of_run(run_id) as (cursor, run):
            values = {"run_id": run["run_id"], "image_id": image_id, "noun": noun, "method": method}
            return cursor.execute(_CONSERVED, values).fetchone()

    def conservation(self, run_id: str) -> dict[str, float]:
        """Returns by score the largest share of max(|logits|, 1) that its terms miss of what they should add up to."""
        with self._of_run(run_id) as (cursor, run):
            return dict(cursor.execute(_CONSERVATION, {"run_id": run["run_id"]}).fetchall())

    def ranked_units(
        self,
        run_id: str,
        image_id: str,
        noun: str,
        method: str,
        limit: int = 50,
        sign: str = TOP,
        words_by: str = RAW,
        most_general: float | None = None,
    ) -> pd.DataFrame:
        """Returns a noun's units by rank: what they score, what they write, where they look, where others rank them.

        Args:
            run_id: of one run.
            image_id: of one picture.
            noun: `concept.noun`.
            method: that ranks.
            limit: number of units.
            sign: `top`, or `bottom` for suppressors, the most negative first.
            words_by: the rows of W_U that tokens and is_interpretable are by (`names.WORD_ROWS`).
            most_general: leaves out units more general than that (`store.generality`); ranks stay as they are.

        Returns:
            rank, layer, unit, score, activation, token_position; blank_score, of the same unit, method and noun over
            a grey picture; tokens (a list, None if not decoded), is_interpretable (None if not); iou, iou_other,
            iou_random; generality, by the method; and for every other method of the run `rank:METHOD`. Numbers that
            are not stored are NaN.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such noun of that picture, no scores of that method, another sign.
        """
        if sign not in (TOP, BOTTOM):
            raise UsageError(f"sign {sign!r} is neither {TOP!r} nor {BOTTOM!r}")
        with self._of_run(run_id) as (cursor, run):
            require_concept(cursor, run, image_id, noun)
            methods = self._require_methods(cursor, run, method)
            key = {"run_id": run["run_id"], "image_id": image_id, "noun": noun, "method": method}
            more = {"direction": 1 if sign == TOP else -1, "limit": limit, "fingerprint": run["model_fingerprint"]}
            words, hidden = WORD_COLUMNS[words_by], hide(cursor, self.hidden(run_id, [method], most_general))
            sql = _RANKED.format(tokens=words.tokens, flag=words.flag, hidden=hidden)
            ranked = cursor.sql(sql, params=key | more).df()
            others = cursor.sql(_OTHER_RANKS, params=key).df()
        tokens = [list(cell) if isinstance(cell, np.ndarray | list) else None for cell in ranked["tokens"]]
        decoded = [None if pd.isna(cell) else bool(cell) for cell in ranked["is_interpretable"]]
        ranked["tokens"] = pd.Series(tokens, index=ranked.index, dtype=object)
        ranked["is_interpretable"] = pd.Series(decoded, index=ranked.index, dtype=object)
        ranked = self.with_generality(run_id, ranked, method)
        return _with_other_ranks(ranked, others, [other for other in methods if other != method])

    def budget(self, run_id: str, image_id: str, noun: str, variant: str = ORIGINAL) -> pd.DataFrame:
        """Returns the terms that add up to a noun's logit: term, layer (NaN for terms of no layer), logit.

        Embedding first, then attention, what else is added to the stream, FFN and biases, each by layer.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such noun of that picture.
        """
        with self._of_run(run_id) as (cursor, run):
            require_concept(cursor, run, image_id, noun)
            key = {"run_id": run["run_id"], "image_id": image_id, "noun": noun, "variant": variant}
            return cursor.sql(_BUDGET, params=key | {"terms": list(BUDGET_TERMS)}).df()

    def top_share(
        self,
        run_id: str,
        image_id: str,
        noun: str,
        method: str = CONTRIBUTION_FOLDED,
        ks: Sequence[int] = (1, 10, 100),
        most_general: float | None = None,
    ) -> pd.DataFrame:
        """Returns the sum of the k highest scores of a noun: k, logit. In logits exactly for `contribution-folded`.

        Units more general than `most_general` are left out of the k (`store.generality`).

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such noun, no scores of that method, a k that is not stored.
        """
        with self._of_run(run_id) as (cursor, run):
            require_concept(cursor, run, image_id, noun)
            self._require_methods(cursor, run, method)
            for k in ks:
                require_k(run, k)
            key = {"run_id": run["run_id"], "image_id": image_id, "noun": noun, "method": method}
            sql = _TOP_SCORES.format(hidden=hide(cursor, self.hidden(run_id, [method], most_general)))
            found = cursor.sql(sql, params=key | {"k": max(ks)}).df()
        scores, rank = found["score"].to_numpy(dtype=np.float64), found["rank"].to_numpy()
        return pd.DataFrame({"k": list(ks), "logit": [float(scores[rank <= k].sum()) for k in ks]})

    def looks(self, run_id: str, image_id: str, units: Sequence[Neuron]) -> pd.DataFrame:
        """Returns layer, unit, activations (an array, one for each image token) of those of `units` that are annotated.

        In the order of `units`; one that `mmn annotate` was not asked for has no row.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            chosen = {
                "layers": [int(one.layer) for one in units],  # numpy's numbers, from a data frame, are not taken
                "units": [int(one.unit) for one in units],
                "places": list(range(len(units))),
            }
            return cursor.sql(_LOOKS, params={"run_id": run["run_id"], "image_id": image_id} | chosen).df()

    def most_active(self, run_id: str, image_id: str, token: int, limit: int = 15, words_by: str = RAW) -> pd.DataFrame:
        """Returns the annotated units that are most active at one image token of a picture, and what they write.

        Args:
            run_id: of one run.
            image_id: of one picture.
            token: number of the image token, from 0.
            limit: number of units.
            words_by: the rows of W_U that tokens are by (`names.WORD_ROWS`).

        Returns:
            layer, unit, activation (there), highest (at any image token of the picture), tokens (a list, None if not
            decoded); without rows where the picture is not annotated, or has no such image token.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            key = {"run_id": run["run_id"], "image_id": image_id, "token": token, "limit": limit}
            sql = _MOST_ACTIVE.format(tokens=WORD_COLUMNS[words_by].tokens)
            found = cursor.sql(sql, params=key | {"fingerprint": run["model_fingerprint"]}).df()
        tokens = [list(cell) if isinstance(cell, np.ndarray | list) else None for cell in found["tokens"]]
        return found.assign(tokens=pd.Series(tokens, index=found.index, dtype=object))

    def mask_specs(self, run_id: str) -> list[str]:
        """Returns the sources of masks of a run's pictures, the latest that was added first, the pictures' own last.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            rows = cursor.execute(
                "SELECT source FROM added_source WHERE run_id = ? AND kind = 'masks' ORDER BY number DESC",
                [run["run_id"]],
            ).fetchall()
        return list(dict.fromkeys([*(source for (source,) in rows), run["images"]]))

    def synonyms(self, run_id: str) -> Synonyms:
        """Returns which word means which object for a run: the latest list that it holds, or the one that ships.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return latest_synonyms(cursor, run["run_id"])

    def grid(self, run_id: str, image_id: str) -> Grids | None:
        """Returns where the picture's image tokens lie; None where it is not annotated or they have no place.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            rows = cursor.execute(
                "SELECT grid FROM grid WHERE run_id = ? AND image_id = ?", [run["run_id"], image_id]
            ).fetchall()
        return serialise.from_json(rows[0][0]) if rows else None


def _with_other_ranks(ranked: pd.DataFrame, others: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Adds `rank:METHOD`, NaN where that ranking did not store the unit.

    A small model's unit can be among the kept supporters and the kept suppressors at once: then it is the supporter's.
    """
    units = pd.MultiIndex.from_frame(ranked[["layer", "unit"]])
    for method in methods:
        theirs = others[others["method"] == method].sort_values("rank", ascending=False)
        rank_of = theirs.drop_duplicates(["layer", "unit"]).set_index(["layer", "unit"])["rank"]
        ranked[f"rank:{method}"] = rank_of.reindex(units).to_numpy(dtype=np.float64)
    return ranked
