"""Applies masks and references that came after scoring to rows that are loaded once: in any order, one result.

Masks: an annotation says in `outline` which revision of a picture's masks its overlaps are held against (none: 0). Of a
picture only the rows of the latest revision are kept; those of an earlier one make room, or are passed over.
Units that an earlier version decoded lack the words by cosines; a shard that tells them fills them in.
References: a picture's latest row of `reference` is what `image.reference` and `concept.is_in_reference` hold, the
latter by the run's latest synonyms: a reference says a noun by any word for what it means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mmn.reading.concepts import read_references
from mmn.reading.synonyms import Synonyms, shipped_synonyms

_OF_MASKS: Final = ("field", "outline")
_KNOWN_REVISIONS: Final = "SELECT image_id, max(revision) FROM outline WHERE run_id = ? GROUP BY image_id"
_OF_PICTURES: Final = ("reference", "image", "concept")
_WITH_REFERENCES: Final = "SELECT DISTINCT image_id FROM reference WHERE run_id = ?"
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
_SAID: Final = """
    SELECT image_id, variant, CASE WHEN target_at IS NULL THEN text ELSE noun END AS text, list(lemma) AS nouns,
        list(noun) AS names, any_value(latest.reference) AS texts, any_value(latest.lemmas) AS lemmas
    FROM concept JOIN latest_reference AS latest USING (image_id) LEFT JOIN caption USING (run_id, image_id, variant)
    WHERE run_id = $run_id GROUP BY ALL
"""
_UPDATE_CONCEPTS: Final = """
    UPDATE concept SET is_in_reference = told.is_in_reference FROM told_concepts AS told
    WHERE concept.run_id = $run_id AND concept.image_id = told.image_id AND concept.variant = told.variant
        AND concept.noun = told.noun
"""
_TOLD: Final = pa.schema(
    [(name, pa.string()) for name in ("image_id", "variant", "noun")] + [("is_in_reference", pa.bool_())]
)

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
    """Brings the references of the pictures that a loaded shard speaks of up to date: new synonyms speak of all."""
    known = {one for (one,) in cursor.execute(_WITH_REFERENCES, [run_id]).fetchall()}
    named = {one for name in _OF_PICTURES if name in tables for one in tables[name]["image_id"].to_pylist()}
    pictures = known if _gives_synonyms(tables) else known & named
    if not pictures:
        return
    cursor.register("told_pictures", pa.table({"image_id": pa.array(sorted(pictures), pa.string())}))
    cursor.execute(_LATEST, {"run_id": run_id})
    cursor.execute(_UPDATE_IMAGES, {"run_id": run_id})
    cursor.register("told_concepts", _told_concepts(cursor, run_id))
    cursor.execute(_UPDATE_CONCEPTS, {"run_id": run_id})


def latest_synonyms(cursor: duckdb.DuckDBPyConnection, run_id: str) -> Synonyms:
    """Which word means which object for a run: the latest list that it holds, or the one that ships."""
    (number,) = cursor.execute(
        "SELECT max(number) FROM added_source WHERE run_id = ? AND kind = 'synonyms'", [run_id]
    ).fetchall()[0]
    rows = cursor.execute("SELECT word, object FROM synonym WHERE run_id = ? AND number = ?", [run_id, number])
    return shipped_synonyms() if number is None else Synonyms(dict(rows.fetchall()))


def _gives_synonyms(tables: Mapping[str, pa.Table]) -> bool:
    return "added_source" in tables and "synonyms" in tables["added_source"]["kind"].to_pylist()


def _told_concepts(cursor: duckdb.DuckDBPyConnection, run_id: str) -> pa.Table:
    """Whether references say each noun of the pictures of `latest_reference`; empty where none of them is English."""
    synonyms, found = latest_synonyms(cursor, run_id), []
    for row in cursor.sql(_SAID, params={"run_id": run_id}).to_arrow_table().to_pylist():
        texts = read_references(row["texts"])
        mentioned = synonyms.mentioned_in(texts, row["lemmas"])
        are_said = synonyms.are_mentioned(row["text"] or "", row["nouns"], mentioned) if texts else {}
        key = {"image_id": row["image_id"], "variant": row["variant"]}
        found += [
            key | {"noun": noun, "is_in_reference": are_said.get(lemma)}
            for lemma, noun in zip(row["nouns"], row["names"], strict=True)
        ]
    return pa.Table.from_pylist(found, schema=_TOLD)
