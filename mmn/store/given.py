"""Applies masks and references that came after scoring to rows that are loaded once: in any order, one result.

Masks: an annotation says in `outline` which revision of a picture's masks its overlaps are held against (none: 0). Of a
picture only the rows of the latest revision are kept; those of an earlier one make room, or are passed over.
Units that an earlier version decoded lack the words by cosines; a shard that tells them fills them in.
References: a picture's latest row of `reference` is what `image.reference` and `concept.is_in_reference` hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

_OF_MASKS: Final = ("field", "outline")
_KNOWN_REVISIONS: Final = "SELECT image_id, max(revision) FROM outline WHERE run_id = ? GROUP BY image_id"
_LATEST: Final = """
    CREATE OR REPLACE TEMP TABLE latest_reference AS
    SELECT image_id, reference, lemmas FROM reference
    WHERE run_id = $run_id AND image_id IN (SELECT image_id FROM told_pictures)
    QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY number DESC) = 1
"""
_UPDATE_IMAGES: Final = """
    UPDATE image SET reference = latest.reference FROM latest_reference AS latest
    WHERE image.run_id = $run_id AND image.image_id = latest.image_id
"""
_UPDATE_CONCEPTS: Final = """
    UPDATE concept SET is_in_reference = list_contains(latest.lemmas, concept.lemma) FROM latest_reference AS latest
    WHERE concept.run_id = $run_id AND concept.image_id = latest.image_id
"""

_FILL_WORDS: Final = """
    UPDATE neuron SET mean_logit = told.mean_logit, cosine_tokens = told.cosine_tokens, cosines = told.cosines,
        is_cosine_interpretable = told.is_cosine_interpretable
    FROM shard_neuron AS told
    WHERE neuron.model_fingerprint = told.model_fingerprint AND neuron.layer = told.layer AND neuron.unit = told.unit
        AND neuron.cosine_tokens IS NULL AND told.cosine_tokens IS NOT NULL
"""


def of_latest_masks(
    cursor: duckdb.DuckDBPyConnection, run_id: str, tables: Mapping[str, pa.Table]
) -> dict[str, pa.Table]:
    """The tables of a shard without overlaps with masks that have changed since; older ones in the database go."""
    if not set(_OF_MASKS) & set(tables):
        return dict(tables)
    known = dict(cursor.execute(_KNOWN_REVISIONS, [run_id]).fetchall())
    told = {row["image_id"]: row["revision"] for row in tables["outline"].to_pylist()} if "outline" in tables else {}
    for table in _OF_MASKS:
        newer = [image_id for image_id, revision in told.items() if revision > known.get(image_id, 0)]
        cursor.execute(f"DELETE FROM {table} WHERE run_id = ? AND image_id IN (SELECT unnest(?))", [run_id, newer])  # noqa: S608 - names are our own
    older = pa.array([one for one, revision in known.items() if revision > told.get(one, 0)], pa.string())
    return {
        name: rows.filter(pc.invert(pc.is_in(rows["image_id"], older))) if name in _OF_MASKS else rows
        for name, rows in tables.items()
    }


def fill_words(cursor: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> None:
    """Gives units that an earlier version decoded by raw rows alone what a later shard tells of them by others."""
    if "neuron" in tables:
        cursor.execute(_FILL_WORDS)


def apply_references(cursor: duckdb.DuckDBPyConnection, run_id: str, tables: Mapping[str, pa.Table]) -> None:
    """Brings the references of the pictures that a loaded shard speaks of up to date."""
    ids = [tables[name]["image_id"] for name in ("reference", "image", "concept") if name in tables]
    if not ids or not cursor.execute("SELECT 1 FROM reference WHERE run_id = ? LIMIT 1", [run_id]).fetchall():
        return
    pictures = pa.chunked_array([chunk.cast(pa.string()) for column in ids for chunk in column.chunks], pa.string())
    cursor.register("told_pictures", pa.table({"image_id": pictures.unique()}))
    for statement in (_LATEST, _UPDATE_IMAGES, _UPDATE_CONCEPTS):
        cursor.execute(statement, {"run_id": run_id})
