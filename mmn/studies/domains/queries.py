"""How often were units active in which domain, how important were they, and whose tops do they share?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from mmn.errors import UsageError
from mmn.store.reader import Reader
from mmn.studies.domains.measured import Measured, of_rows
from mmn.studies.domains.words import BYS

# Of several measurements the one of most pictures; by tag one of each run of the same weights.
_CHOSEN: Final = """
    WITH size AS (
        SELECT run_id, grouped_by, measured, sum(n_images) AS n FROM domain_rate JOIN run USING (run_id)
        WHERE (run_id = $run_id OR (grouped_by = 'tag' AND model_fingerprint = $fingerprint)) AND domain = ''
            AND layer = 0 AND token_set = 'text'
        GROUP BY ALL
    ),
    chosen AS (
        SELECT run_id, grouped_by, measured FROM size
        QUALIFY row_number() OVER (PARTITION BY run_id, grouped_by ORDER BY n DESC, measured) = 1
    )
"""

_BYS: Final = f"""
    {_CHOSEN}
    SELECT DISTINCT grouped_by FROM chosen WHERE run_id = $run_id
"""  # noqa: S608 - no user's words

_RATES: Final = f"""
    {_CHOSEN}
    SELECT domain, token_set, layer::INTEGER AS layer, half, n_images, n_tokens, active
    FROM domain_rate JOIN chosen USING (run_id, grouped_by, measured)
    WHERE grouped_by = $by AND ($half IS NULL OR half = $half)
    ORDER BY run_id, domain, token_set, layer, half
"""  # noqa: S608

_SCORES: Final = f"""
    {_CHOSEN}
    SELECT token_set, layer::INTEGER AS layer, half, n_images, prob, mean, maximum, attn_k, attn_q
    FROM modality_score JOIN chosen USING (run_id, measured)
    WHERE grouped_by = $by AND run_id = $run_id AND ($half IS NULL OR half = $half)
    ORDER BY token_set DESC, layer, half
"""  # noqa: S608

_OWN: Final = """
    SELECT DISTINCT domain FROM domain_rate WHERE run_id = $run_id AND grouped_by = $by AND domain <> ''
"""

_OVERLAP: Final = """
    WITH top AS (
        SELECT image_id, noun, method, layer, unit, coalesce(expert, -1) AS expert FROM score
        WHERE run_id = $run_id AND variant = 'original' AND rank BETWEEN 1 AND $k
    ),
    concepts AS (
        SELECT image_id, noun FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
    ),
    shared AS (
        SELECT group_name, image_id, noun, method,
            count(members.unit) / $k AS share, sum(parts.part) / $k AS matched
        FROM (SELECT DISTINCT group_name FROM parts) CROSS JOIN top SEMI JOIN concepts USING (image_id, noun)
        LEFT JOIN members USING (group_name, layer, unit) LEFT JOIN parts USING (group_name, layer, expert)
        GROUP BY ALL
    )
    SELECT group_name, method, image_id, avg(share) AS share, avg(matched) AS matched, count(*) AS n_nouns
    FROM shared GROUP BY ALL ORDER BY ALL
"""

_SAID: Final = """
    SELECT DISTINCT image_id, lemma FROM concept
    WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
"""


class DomainQueries(Reader):
    """Questions about domains and modalities of units."""

    def grouped_by(self, run_id: str) -> list[str]:
        """Returns what the run's pictures were grouped by, where they were measured: of `words.BYS`.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            found = cursor.execute(_BYS, _key(run)).fetchall()
        return [by for by in BYS if (by,) in found]

    def measured(self, run_id: str, by: str, half: int | None = None) -> Measured:
        """Returns the rates of a run's units, and their importance; of one half of the pictures alone on request.

        Grouped by tag, of all runs of the same weights that were measured by tag, a tag's runs together.

        Raises:
            RunNotFoundError: no such run.
            UsageError: it was not measured by that.
        """
        with self._of_run(run_id) as (cursor, run):
            values = _key(run) | {"by": by, "half": half}
            question = (f"domains by {by} of half {half}", run["run_id"])
            found: Measured | None = self._database.remember(question, lambda: _measured(cursor, values))
        if found is None:
            raise UsageError(
                f"run {run['run_id']} was not measured by {by}: mmn domains {run['run_id'][:8]} --by {by} does that"
            )
        return found

    def half(self, run_id: str, by: str, half: int) -> Measured | None:
        """Returns what one half of the pictures says alone; None where it has no picture."""
        try:
            return self.measured(run_id, by, half)
        except UsageError:
            return None

    def own(self, run_id: str, by: str) -> set[str]:
        """Returns the domains that pictures of the run itself belong to.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            found = cursor.execute(_OWN, {"run_id": run["run_id"], "by": by}).fetchall()
        return {str(domain) for (domain,) in found}

    def said(self, run_id: str) -> pd.DataFrame:
        """Returns image_id, lemma: which nouns each caption says.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_SAID, params={"run_id": run["run_id"]}).df()

    def shared_tops(self, run_id: str, k: int, members: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
        """Returns which share of the top k of a picture's nouns lies in each group, by each of the run's scores.

        Args:
            run_id: of one run.
            k: of the rankings.
            members: group_name, layer, unit.
            parts: group_name, layer, expert (-1 in a layer without), part: which share of the units of each layer, or
                of each expert, is in the group.

        Returns:
            group_name, method, image_id, share (mean over the picture's nouns), matched (what random units of the same
            layers, of experts the same ones, as the top k share, on average), n_nouns.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            cursor.register("members", members)
            cursor.register("parts", parts)
            return cursor.sql(_OVERLAP, params={"run_id": run["run_id"], "k": k}).df()


def _key(run: Mapping[str, Any]) -> dict[str, Any]:
    return {"run_id": run["run_id"], "fingerprint": run["model_fingerprint"]}


def _measured(cursor: Any, values: dict[str, Any]) -> Measured | None:
    rates = cursor.sql(_RATES, params=values).df()
    return None if rates.empty else of_rows(rates, cursor.sql(_SCORES, params=values).df())
