"""What does a run have of that name? Nouns and pictures for the search of the app."""

from __future__ import annotations

from typing import Final

import pandas as pd

from mmn.store.reader import Reader

_NOUNS: Final = """
    SELECT lemma, count(DISTINCT image_id) AS n_images FROM concept
    WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
        AND (contains(lemma, lower($text)) OR contains(noun, lower($text)))
    GROUP BY lemma ORDER BY lemma != lower($text), NOT starts_with(lemma, lower($text)), n_images DESC, lemma
    LIMIT $most
"""
_PICTURES: Final = """
    SELECT image_id, any_value(text) AS text FROM image
    LEFT JOIN (SELECT image_id, text FROM caption WHERE run_id = $run_id AND variant = 'original') USING (image_id)
    WHERE run_id = $run_id AND (
        (len($text) >= 4 AND starts_with(image_id, lower($text))) OR contains(lower(text), lower($text))
        OR contains(lower(parse_filename(source)), lower($text)))
    GROUP BY image_id ORDER BY NOT starts_with(image_id, lower($text)), image_id LIMIT $most
"""


class SearchQueries(Reader):
    """What in a run has a text in its name."""

    def nouns(self, run_id: str, text: str, most: int) -> pd.DataFrame:
        """Returns lemma and n_images of nouns with `text` in them, the word itself first.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._like(run_id, _NOUNS, text, most)

    def pictures(self, run_id: str, text: str, most: int) -> pd.DataFrame:
        """Returns image_id and text (the caption, or None) of pictures whose id begins with `text`, or whose caption or
        file name holds it.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._like(run_id, _PICTURES, text, most)

    def _like(self, run_id: str, question: str, text: str, most: int) -> pd.DataFrame:
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(question, params={"run_id": run["run_id"], "text": text, "most": most}).df()
