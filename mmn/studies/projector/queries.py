"""What is known of images around the projector, and of the two modalities behind it?"""

from __future__ import annotations

from typing import Final

import pandas as pd

from mmn.store.reader import Reader

_VECTORS: Final = """
    SELECT image_id, stage, vector FROM projector_mean WHERE run_id = $run_id ORDER BY image_id, stage
"""

_SOURCES: Final = """
    SELECT image_id, source, reference FROM image WHERE run_id = $run_id ORDER BY image_id
"""

_SAID: Final = """
    SELECT DISTINCT image_id, lemma FROM concept
    WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL ORDER BY ALL
"""

_COSINES: Final = """
    SELECT image_id, layer::INTEGER AS layer, image_text, image_text_other, image_image, text_text, image_next,
        text_next
    FROM modality WHERE run_id = $run_id AND layer IS NOT NULL ORDER BY ALL
"""

_ENTERING: Final = """
    SELECT image_id, image_text, image_text_other, image_image, text_text
    FROM modality WHERE run_id = $run_id AND layer IS NULL ORDER BY ALL
"""

_UNITS: Final = """
    SELECT image_id, layer::INTEGER AS layer, round(share::DOUBLE, 6) AS share, n_units, iou, iou_other, chance
    FROM modality_unit WHERE run_id = $run_id ORDER BY ALL
"""


class ProjectorQueries(Reader):
    """Questions about the projector and the modalities. All raise `RunNotFoundError` where there is no such run."""

    def vectors(self, run_id: str) -> pd.DataFrame:
        """Returns image_id, stage (before, after), vector."""
        return self._asked(_VECTORS, run_id)

    def sources(self, run_id: str) -> pd.DataFrame:
        """Returns image_id, source, reference (a list) of every picture."""
        return self._asked(_SOURCES, run_id)

    def said(self, run_id: str) -> pd.DataFrame:
        """Returns the nouns of every caption: image_id, lemma."""
        return self._asked(_SAID, run_id)

    def cosines(self, run_id: str) -> pd.DataFrame:
        """Returns the cosines of states after every layer, with image_id and layer."""
        return self._asked(_COSINES, run_id)

    def entering(self, run_id: str) -> pd.DataFrame:
        """Returns those of what enters the decoder, with image_id."""
        return self._asked(_ENTERING, run_id)

    def units(self, run_id: str) -> pd.DataFrame:
        """Returns image_id, layer, share, n_units, iou, iou_other, chance; empty of mixtures of experts."""
        return self._asked(_UNITS, run_id)

    def _asked(self, query: str, run_id: str) -> pd.DataFrame:
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(query, params={"run_id": run["run_id"]}).df()
