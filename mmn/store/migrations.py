"""Which tables are there? Numbered steps, each in one transaction; `docs/schema.md` tells what the columns mean.

A step is never changed once it is released: add another one. No primary key on `score` (3.5 times the size, 5 times
slower to load) and no foreign keys: each shard is loaded once, which the key of `shard` guarantees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import duckdb

from mmn.errors import CacheNewerError

_CONCEPT_KEY: Final = "run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, variant VARCHAR NOT NULL"

PUBLIC_TABLES: Final[dict[str, str]] = {
    "run": """
        run_id VARCHAR PRIMARY KEY, status VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, finished_at TIMESTAMP,
        model VARCHAR NOT NULL, model_fingerprint VARCHAR NOT NULL, family VARCHAR NOT NULL,
        n_layers INTEGER NOT NULL, d_mlp INTEGER NOT NULL, images VARCHAR NOT NULL, prompt VARCHAR NOT NULL,
        settings JSON NOT NULL, versions JSON NOT NULL, device VARCHAR NOT NULL, dtype VARCHAR NOT NULL,
        seconds DOUBLE, seed BIGINT NOT NULL""",
    "image": """
        run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, source VARCHAR NOT NULL, sources VARCHAR[] NOT NULL,
        width INTEGER NOT NULL, height INTEGER NOT NULL, reference VARCHAR[] NOT NULL""",
    "caption": f"{_CONCEPT_KEY}, text VARCHAR NOT NULL, tokens INTEGER[] NOT NULL, is_cut BOOLEAN",
    "concept": f"""
        {_CONCEPT_KEY}, lemma VARCHAR NOT NULL, noun VARCHAR NOT NULL, n_mentions INTEGER NOT NULL,
        token_id INTEGER NOT NULL, position INTEGER NOT NULL, logit DOUBLE NOT NULL, prob DOUBLE NOT NULL,
        residual DOUBLE NOT NULL, is_first BOOLEAN NOT NULL, is_multi_token BOOLEAN NOT NULL,
        is_shared_token BOOLEAN NOT NULL, is_in_reference BOOLEAN, target_at VARCHAR,
        is_compound BOOLEAN, is_modifier BOOLEAN""",
    "score": f"""
        {_CONCEPT_KEY}, noun VARCHAR NOT NULL, method VARCHAR NOT NULL, rank INTEGER NOT NULL,
        layer SMALLINT NOT NULL, unit INTEGER NOT NULL, score FLOAT NOT NULL CHECK (isfinite(score)),
        activation FLOAT, token_position INTEGER""",
    "budget": f"""
        {_CONCEPT_KEY}, noun VARCHAR NOT NULL, term VARCHAR NOT NULL, layer SMALLINT, logit DOUBLE NOT NULL""",
    "neuron": """
        model_fingerprint VARCHAR NOT NULL, layer SMALLINT NOT NULL, unit INTEGER NOT NULL,
        tokens VARCHAR[10] NOT NULL, logits FLOAT[10] NOT NULL, is_interpretable BOOLEAN NOT NULL""",
    "field": """
        run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, noun VARCHAR NOT NULL, method VARCHAR NOT NULL,
        rank INTEGER NOT NULL, layer SMALLINT NOT NULL, unit INTEGER NOT NULL,
        iou DOUBLE, iou_other DOUBLE, iou_random DOUBLE, selection VARCHAR NOT NULL DEFAULT 'same', found_on VARCHAR,
        iou_best DOUBLE""",
    "look": """
        run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, layer SMALLINT NOT NULL, unit INTEGER NOT NULL,
        activations FLOAT[] NOT NULL""",
    "grid": "run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, grid JSON NOT NULL",
    "lens": """
        run_id VARCHAR NOT NULL, image_id VARCHAR, kind VARCHAR NOT NULL, layer SMALLINT,
        token_position INTEGER NOT NULL, tokens VARCHAR[] NOT NULL, scores FLOAT[] NOT NULL""",
    "invariance": """
        run_id VARCHAR NOT NULL, image_id VARCHAR, kind VARCHAR NOT NULL, noun VARCHAR NOT NULL,
        method VARCHAR NOT NULL, k INTEGER NOT NULL, draw INTEGER NOT NULL, ratio DOUBLE NOT NULL,
        floor_other_noun DOUBLE, floor_random DOUBLE NOT NULL, n INTEGER NOT NULL""",
    "shared_layer": """
        run_id VARCHAR NOT NULL, noun VARCHAR NOT NULL, method VARCHAR NOT NULL, k INTEGER NOT NULL,
        draw INTEGER NOT NULL, n INTEGER NOT NULL, layer SMALLINT NOT NULL, n_shared INTEGER NOT NULL,
        n_random DOUBLE NOT NULL""",
    "specificity": """
        run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, unit_noun VARCHAR NOT NULL, noun VARCHAR NOT NULL,
        method VARCHAR NOT NULL, layer SMALLINT NOT NULL, unit INTEGER NOT NULL, score FLOAT NOT NULL,
        share DOUBLE, is_control BOOLEAN NOT NULL, selection VARCHAR NOT NULL DEFAULT 'same',
        found_on VARCHAR""",
    "selectivity": """
        run_id VARCHAR NOT NULL, unit_noun VARCHAR NOT NULL, noun VARCHAR NOT NULL, method VARCHAR NOT NULL,
        is_control BOOLEAN NOT NULL, value DOUBLE NOT NULL, share DOUBLE, n_units INTEGER NOT NULL,
        n_images INTEGER NOT NULL, held_out INTEGER NOT NULL""",
    "class_activation": """
        run_id VARCHAR NOT NULL, unit_noun VARCHAR NOT NULL, method VARCHAR NOT NULL, is_control BOOLEAN NOT NULL,
        image_id VARCHAR NOT NULL, is_own BOOLEAN NOT NULL, value FLOAT NOT NULL, n_units INTEGER NOT NULL,
        held_out INTEGER NOT NULL""",
    "sensitivity": """
        run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, noun VARCHAR NOT NULL, method VARCHAR NOT NULL,
        metric VARCHAR NOT NULL, value DOUBLE NOT NULL, control DOUBLE NOT NULL, control_blank DOUBLE""",
    "effect": f"""
        {_CONCEPT_KEY}, noun VARCHAR NOT NULL, kind VARCHAR NOT NULL, selection VARCHAR NOT NULL,
        method VARCHAR NOT NULL, k INTEGER NOT NULL, sigma DOUBLE, sigma_unit VARCHAR, draw INTEGER NOT NULL,
        logit DOUBLE NOT NULL, prob DOUBLE NOT NULL, caption VARCHAR, similarity DOUBLE, metric VARCHAR,
        is_lost BOOLEAN""",
    "edit": """
        run_id VARCHAR NOT NULL, edit_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL,
        algorithm VARCHAR NOT NULL, selection VARCHAR NOT NULL, method VARCHAR, noun VARCHAR NOT NULL,
        target VARCHAR NOT NULL, units JSON NOT NULL, settings JSON NOT NULL, fingerprint_before VARCHAR NOT NULL,
        fingerprint_after VARCHAR NOT NULL, relative_norm DOUBLE NOT NULL, efficacy DOUBLE, generalisation DOUBLE,
        locality DOUBLE, fluency DOUBLE, fluency_before DOUBLE""",
    "edited_caption": """
        run_id VARCHAR NOT NULL, edit_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, role VARCHAR NOT NULL,
        text_before VARCHAR NOT NULL, text_after VARCHAR NOT NULL, prob_before DOUBLE, prob_after DOUBLE,
        is_as_wished BOOLEAN NOT NULL""",
    "outline": """
        run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, revision INTEGER NOT NULL, version VARCHAR NOT NULL,
        source VARCHAR, nouns VARCHAR[] NOT NULL""",
    "added_source": """
        run_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, number INTEGER NOT NULL, source VARCHAR NOT NULL,
        n_images INTEGER NOT NULL, added_at TIMESTAMP NOT NULL""",
    "reference": """
        run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, number INTEGER NOT NULL, source VARCHAR NOT NULL,
        added VARCHAR[] NOT NULL, reference VARCHAR[] NOT NULL, lemmas VARCHAR[] NOT NULL""",
    "failure": """
        run_id VARCHAR NOT NULL, source VARCHAR NOT NULL, stage VARCHAR NOT NULL, error VARCHAR NOT NULL,
        message VARCHAR NOT NULL""",
}

INTERNAL_TABLES: Final[dict[str, str]] = {
    "shard": """
        run_id VARCHAR, name VARCHAR, loaded_at TIMESTAMP NOT NULL, digest VARCHAR, PRIMARY KEY (run_id, name)""",
    "image_rank": f"""
        {_CONCEPT_KEY}, method VARCHAR NOT NULL, layer SMALLINT NOT NULL, unit INTEGER NOT NULL,
        score FLOAT NOT NULL, rank INTEGER NOT NULL""",
    "deleted_run": "run_id VARCHAR PRIMARY KEY, deleted_at TIMESTAMP NOT NULL",
}


_SINCE_2: Final = ("look", "grid")
_SINCE_3: Final = (
    "lens",
    "invariance",
    "specificity",
    "selectivity",
    "sensitivity",
    "effect",
    "edit",
    "edited_caption",
)
_SINCE_4: Final = ("shared_layer",)
_COLUMNS_SINCE_5: Final = (
    ("caption", "is_cut BOOLEAN"),
    ("concept", "is_compound BOOLEAN"),
    ("concept", "is_modifier BOOLEAN"),
)  # tables of version 1 that were there before these columns
_SINCE_5: Final = ("outline", "added_source", "reference", "class_activation")


def _create(cursor: duckdb.DuckDBPyConnection, names: Iterable[str]) -> None:
    tables = PUBLIC_TABLES | INTERNAL_TABLES
    for name in names:
        cursor.execute(f"CREATE TABLE {name} ({tables[name]})")


def _create_tables(cursor: duckdb.DuckDBPyConnection) -> None:
    later = {*_SINCE_2, *_SINCE_3, *_SINCE_4, *_SINCE_5}
    _create(cursor, [name for name in PUBLIC_TABLES | INTERNAL_TABLES if name not in later])


def _add_where_units_look(cursor: duckdb.DuckDBPyConnection) -> None:
    _create(cursor, _SINCE_2)


def _add_experiments(cursor: duckdb.DuckDBPyConnection) -> None:
    """Version 1 had some of these tables with fewer columns, but nothing that wrote them."""
    for name in _SINCE_3:
        cursor.execute(f"DROP TABLE IF EXISTS {name}")
    _create(cursor, _SINCE_3)


def _add_shared_layers(cursor: duckdb.DuckDBPyConnection) -> None:
    _create(cursor, _SINCE_4)


def _add_cut_captions_and_compounds(cursor: duckdb.DuckDBPyConnection) -> None:
    """A new database has the columns from its first step on."""
    for table, column in _COLUMNS_SINCE_5:
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")


def _add_what_is_given_or_measured_later(cursor: duckdb.DuckDBPyConnection) -> None:
    _create(cursor, _SINCE_5)


def _add_digests(cursor: duckdb.DuckDBPyConnection) -> None:
    """Of the shards that are loaded from now on; a database that is made new has the column already."""
    cursor.execute("ALTER TABLE shard ADD COLUMN IF NOT EXISTS digest VARCHAR")


def _add_where_units_were_found(cursor: duckdb.DuckDBPyConnection) -> None:
    """All that earlier versions measured was of units found on the same picture: the default fills their rows in."""
    for table in ("specificity", "field"):
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS selection VARCHAR DEFAULT 'same'")
        cursor.execute(f"ALTER TABLE {table} ALTER COLUMN selection SET NOT NULL")
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS found_on VARCHAR")
    cursor.execute("ALTER TABLE field ADD COLUMN IF NOT EXISTS iou_best DOUBLE")


def _add_words_of_units_over_grey(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute("ALTER TABLE sensitivity ADD COLUMN IF NOT EXISTS control_blank DOUBLE")


def _to_version_5(cursor: duckdb.DuckDBPyConnection) -> None:
    _add_cut_captions_and_compounds(cursor)
    _add_what_is_given_or_measured_later(cursor)
    _add_digests(cursor)
    _add_where_units_were_found(cursor)
    _add_words_of_units_over_grey(cursor)


MIGRATIONS: list[Callable[[duckdb.DuckDBPyConnection], None]] = [
    _create_tables,
    _add_where_units_look,
    _add_experiments,
    _add_shared_layers,
    _to_version_5,
]  # step n is number n + 1


def migrate(cursor: duckdb.DuckDBPyConnection) -> None:
    """Brings the database to the newest version; each step whole or not at all.

    Raises:
        CacheNewerError: a newer version of this program has been here.
    """
    cursor.execute("CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, applied_at TIMESTAMP NOT NULL)")
    row = cursor.execute("SELECT coalesce(max(version), 0) FROM migration").fetchone()
    assert row is not None
    if row[0] > len(MIGRATIONS):
        raise CacheNewerError(
            f"the cache is at version {row[0]}, this mmn knows versions up to {len(MIGRATIONS)}: "
            "update mmn, or choose another --cache"
        )
    for version in range(row[0] + 1, len(MIGRATIONS) + 1):
        cursor.begin()
        try:
            MIGRATIONS[version - 1](cursor)
            cursor.execute("INSERT INTO migration VALUES (?, now() AT TIME ZONE 'UTC')", [version])
            cursor.commit()
        except BaseException:
            cursor.rollback()
            raise
