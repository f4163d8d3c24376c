"""What do the image tokens of a run's pictures say, by `mmn lens`: their nearest words, and the logit lens."""

from __future__ import annotations

from typing import Final

import pandas as pd

from mmn.store.reader import Reader

_PICTURES: Final = """
    SELECT image_id, list_sort(list(DISTINCT layer::INTEGER) FILTER (kind = 'logit-lens')) AS layers,
        bool_or(kind = 'nearest') AS has_nearest
    FROM lens WHERE run_id = $run_id AND image_id IS NOT NULL GROUP BY image_id ORDER BY image_id
"""

_NEAREST: Final = """
    SELECT kind, image_id, token_position, tokens[1] AS token, scores[1] AS cosine
    FROM lens WHERE run_id = $run_id AND kind IN ('nearest', 'random') ORDER BY kind, image_id, token_position
"""

_WORDS: Final = """
    SELECT token_position, tokens, scores FROM lens
    WHERE run_id = $run_id AND image_id = $image_id AND kind = $kind AND layer IS NOT DISTINCT FROM $layer
    ORDER BY token_position
"""

_BY_LAYER: Final = """
    SELECT layer::INTEGER AS layer, tokens, scores FROM lens
    WHERE run_id = $run_id AND image_id = $image_id AND kind = 'logit-lens' AND token_position = $token
    ORDER BY layer
"""

_NOUNS: Final = """
    SELECT layer, token_position, noun, prob FROM (
        SELECT layer::INTEGER AS layer, token_position, unnest(tokens) AS noun, unnest(scores) AS prob,
            unnest(range(len(tokens))) AS place
        FROM lens WHERE run_id = $run_id AND image_id = $image_id AND kind = 'nouns'
    )
    ORDER BY layer, token_position, place
"""

# The noun's token is the most probable one where its probability is the highest there is, up to rounding.
_SAID: Final = """
    WITH noun AS (
        SELECT image_id, layer, token_position, unnest(tokens) AS noun, unnest(scores) AS prob
        FROM lens WHERE run_id = $run_id AND kind = 'nouns'
    ),
    said AS (
        SELECT image_id, layer, token_position, noun, prob >= 0.999999 * scores[1] AS is_top
        FROM noun JOIN (
            SELECT image_id, layer, token_position, scores FROM lens WHERE run_id = $run_id AND kind = 'logit-lens'
        ) USING (image_id, layer, token_position)
    )
"""

_SHARES: Final = f"""
    {_SAID},
    token AS (SELECT image_id, layer, token_position, bool_or(is_top) AS is_top FROM said GROUP BY ALL)
    SELECT image_id, layer::INTEGER AS layer, avg(is_top::INTEGER) AS share
    FROM token GROUP BY image_id, layer ORDER BY image_id, layer
"""  # noqa: S608 - no user's words

_OBJECT_SHARES: Final = f"""
    {_SAID}
    SELECT image_id, layer::INTEGER AS layer, is_on, avg(is_top::INTEGER) AS share
    FROM said JOIN places USING (image_id, noun, token_position)
    GROUP BY image_id, layer, is_on ORDER BY image_id, layer, is_on
"""  # noqa: S608 - no user's words


class LensQueries(Reader):
    """Questions about the image tokens of a run."""

    def pictures(self, run_id: str) -> pd.DataFrame:
        """Returns the pictures that `mmn lens` has read: image_id, layers (a list), has_nearest.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_PICTURES, params={"run_id": run["run_id"]}).df()

    def nearest_tokens(self, run_id: str) -> pd.DataFrame:
        """Returns the token nearest to each image token (`nearest`) and random vector (`random`), and their cosine.

        Columns: kind, image_id (empty for `random`), token_position, token, cosine.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_NEAREST, params={"run_id": run["run_id"]}).df()

    def image_words(self, run_id: str, image_id: str, layer: int | None) -> pd.DataFrame:
        """Returns what each image token of a picture says: token_position, tokens, scores, best first.

        After a layer (scores are probabilities), or with None as it enters the decoder (scores are cosines).

        Raises:
            RunNotFoundError: no such run.
        """
        kind = "nearest" if layer is None else "logit-lens"
        with self._of_run(run_id) as (cursor, run):
            values = {"run_id": run["run_id"], "image_id": image_id, "kind": kind, "layer": layer}
            return cursor.sql(_WORDS, params=values).df()

    def token_words(self, run_id: str, image_id: str, token: int) -> pd.DataFrame:
        """Returns what one image token says after every layer that was read: layer, tokens, scores, best first.

        Scores are probabilities; without rows where the picture was not read, or has no such image token.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            values = {"run_id": run["run_id"], "image_id": image_id, "token": token}
            found = cursor.sql(_BY_LAYER, params=values).df()
        return found.assign(tokens=list(map(list, found["tokens"])), scores=list(map(list, found["scores"])))

    def noun_probabilities(self, run_id: str, image_id: str) -> pd.DataFrame:
        """Returns how probable each noun's token is at each image token: layer, token_position, noun, prob.

        Nouns in the order of the caption.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_NOUNS, params={"run_id": run["run_id"], "image_id": image_id}).df()

    def noun_shares(self, run_id: str) -> pd.DataFrame:
        """Returns the share of a picture's image tokens whose most probable token is a noun's of its caption.

        Columns: image_id, layer, share.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(_SHARES, params={"run_id": run["run_id"]}).df()

    def object_shares(self, run_id: str, places: pd.DataFrame) -> pd.DataFrame:
        """Returns the share of image tokens whose most probable token is a noun's, on its object and elsewhere.

        Args:
            run_id: of one run.
            places: image_id, noun, token_position, and is_on: whether that image token lies on the noun's object.

        Returns:
            image_id, layer, is_on, share: over the picture's nouns that `places` knows, and their image tokens.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            cursor.register("places", places)
            return cursor.sql(_OBJECT_SHARES, params={"run_id": run["run_id"]}).df()
