"""What do states say in a text prompt, and whose words are near to them?"""

from __future__ import annotations

from typing import Final

import pandas as pd

from mmn.store.reader import Reader

_SETTINGS: Final = """
    SELECT setting FROM patchscope WHERE run_id = $run_id AND reading = 'patch'
    GROUP BY setting ORDER BY setting <> 'identity, same layer', NOT ends_with(setting, ', same layer'), setting
"""

_PICTURES: Final = "SELECT DISTINCT image_id FROM patchscope_word WHERE run_id = $run_id"

_NOUNS: Final = """
    SELECT image_id, layer::INTEGER AS layer, reading, avg(is_top::INTEGER) AS is_top, avg(surprisal) AS surprisal
    FROM patchscope SEMI JOIN (
        SELECT image_id, noun FROM concept WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
            AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))
    ) USING (image_id, noun)
    WHERE run_id = $run_id AND source = 'noun' AND setting IN ('', $setting)
    GROUP BY ALL ORDER BY ALL
"""

_IMAGE: Final = """
    WITH token AS (
        SELECT image_id, layer, reading, token_position, bool_or(is_top) AS is_top FROM patchscope
        WHERE run_id = $run_id AND source = 'image' AND setting IN ('', $setting) GROUP BY ALL
    )
    SELECT image_id, layer::INTEGER AS layer, reading, avg(is_top::INTEGER) AS share
    FROM token GROUP BY ALL ORDER BY ALL
"""

_OBJECTS: Final = """
    SELECT image_id, layer::INTEGER AS layer, is_on, avg(is_top::INTEGER) AS share, avg(surprisal) AS surprisal
    FROM patchscope JOIN places USING (image_id, noun, token_position)
    WHERE run_id = $run_id AND source = 'image' AND reading = 'patch' AND setting = $setting
    GROUP BY ALL ORDER BY ALL
"""

_WORDS: Final = """
    SELECT source, reading, layer::INTEGER AS layer, token_position, tokens, scores, said FROM patchscope_word
    WHERE run_id = $run_id AND image_id = $image_id AND setting IN ('', $setting)
    ORDER BY source, token_position, layer, reading
"""

_MATCHES: Final = """
    SELECT image_id, layer::INTEGER AS layer, reading, avg(is_match::INTEGER) AS is_match,
        avg(is_any_match::INTEGER) AS is_any_match, avg(chance) AS chance, avg(chance_any) AS chance_any
    FROM neighbour WHERE run_id = $run_id GROUP BY ALL ORDER BY ALL
"""

_COMPANY: Final = """
    SELECT layer::INTEGER AS layer, token_position, words, contexts, scores, is_match FROM neighbour
    WHERE run_id = $run_id AND image_id = $image_id AND reading = 'image' ORDER BY token_position, layer
"""


class PatchscopeQueries(Reader):
    """Questions about states read in a prompt of text. All raise `RunNotFoundError` where there is no such run."""

    def settings(self, run_id: str) -> list[str]:
        """Returns the prompts and layers that states were written into, the usual one first."""
        return list(self._asked(_SETTINGS, run_id)["setting"])

    def pictures(self, run_id: str) -> list[str]:
        """Returns the ids of the pictures whose states were read."""
        return list(self._asked(_PICTURES, run_id)["image_id"])

    def noun_readings(self, run_id: str, setting: str, lemmas: tuple[str, ...] = ()) -> pd.DataFrame:
        """Returns of each picture's nouns, by layer and reading, the share that is said, and the mean surprisal.

        Columns: image_id, layer, reading, is_top, surprisal (nats).
        """
        return self._asked(_NOUNS, run_id, setting=setting, lemmas=list(lemmas))

    def image_readings(self, run_id: str, setting: str) -> pd.DataFrame:
        """Returns the share of a picture's image tokens that say a noun: image_id, layer, reading, share."""
        return self._asked(_IMAGE, run_id, setting=setting)

    def object_readings(self, run_id: str, setting: str, places: pd.DataFrame) -> pd.DataFrame:
        """Returns the share of image tokens that say a noun, on its object and elsewhere, and the mean surprisal.

        Args:
            run_id: of one run.
            setting: of `settings`.
            places: image_id, noun, token_position, is_on (`studies.lens.rows.object_places`).
        """
        with self._of_run(run_id) as (cursor, run):
            cursor.register("places", places)
            return cursor.sql(_OBJECTS, params={"run_id": run["run_id"], "setting": setting}).df()

    def words(self, run_id: str, image_id: str, setting: str) -> pd.DataFrame:
        """Returns what each state of a picture says: source, reading, layer, token_position, tokens, scores, said."""
        return self._asked(_WORDS, run_id, setting=setting, image_id=image_id)

    def matches(self, run_id: str) -> pd.DataFrame:
        """Returns the share of a picture's image tokens that have a word of it nearest, and what chance would give.

        Columns: image_id, layer, reading (image, other), is_match, is_any_match, chance, chance_any.
        """
        return self._asked(_MATCHES, run_id)

    def company(self, run_id: str, image_id: str) -> pd.DataFrame:
        """Returns the nearest words of a picture's image tokens: layer, token_position, words, contexts, scores,
        is_match.
        """
        return self._asked(_COMPANY, run_id, image_id=image_id)

    def _asked(self, query: str, run_id: str, **values: object) -> pd.DataFrame:
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(query, params={"run_id": run["run_id"]} | values).df()
