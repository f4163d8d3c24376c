"""Which tables are there? Those of the runs, and those that the studies declare; `docs/schema.md` says what they mean.

Older databases are brought up to date by numbered steps, each in one transaction.
A step is never changed once it is released: add another one. No primary key on `score` (3.5 times the size, 5 times
slower to load) and no foreign keys: each shard is loaded once, which the key of `shard` guarantees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import duckdb

from mmn.errors import CacheNewerError
from mmn.store.transactions import transaction
from mmn.studies.tables import DECLARED

_RUN: Final = """
        run_id VARCHAR PRIMARY KEY, status VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, finished_at TIMESTAMP,
        model VARCHAR NOT NULL, model_fingerprint VARCHAR NOT NULL, family VARCHAR NOT NULL,
        n_layers INTEGER NOT NULL, d_mlp INTEGER NOT NULL, images VARCHAR NOT NULL, prompt VARCHAR NOT NULL,
        settings JSON NOT NULL, versions JSON NOT NULL, device VARCHAR NOT NULL, dtype VARCHAR NOT NULL,
        seconds DOUBLE, seed BIGINT NOT NULL, proof JSON, d_experts INTEGER[]"""

PUBLIC_TABLES: Final[dict[str, str]] = {"run": _RUN} | {name: table.ddl for name, table in DECLARED.items()}

INTERNAL_TABLES: Final[dict[str, str]] = {
    "shard": """
        run_id VARCHAR, name VARCHAR, loaded_at TIMESTAMP NOT NULL, digest VARCHAR, PRIMARY KEY (run_id, name)""",
    "image_rank": """
        run_id VARCHAR NOT NULL, image_id VARCHAR NOT NULL, variant VARCHAR NOT NULL, method VARCHAR NOT NULL,
        layer SMALLINT NOT NULL, unit INTEGER NOT NULL, score FLOAT NOT NULL, rank INTEGER NOT NULL""",
    "deleted_run": "run_id VARCHAR PRIMARY KEY, deleted_at TIMESTAMP NOT NULL",
}


_OF_VERSION_3: Final = (
    *("lens", "invariance", "specificity", "selectivity", "sensitivity"),
    *("effect", "edit", "edited_caption"),
)  # version 1 had some of them with fewer columns, but nothing that wrote them
_COLUMNS_SINCE_5: Final = (
    ("caption", "is_cut BOOLEAN"),
    ("concept", "is_compound BOOLEAN"),
    ("concept", "is_modifier BOOLEAN"),
)  # tables of version 1 that were there before these columns


def _create_missing(cursor: duckdb.DuckDBPyConnection) -> None:
    """Every table that is declared and not there: a study that is added needs no step of its own."""
    for name, columns in (PUBLIC_TABLES | INTERNAL_TABLES).items():
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")


def _drop_tables_without_rows(cursor: duckdb.DuckDBPyConnection) -> None:
    for name in _OF_VERSION_3:
        cursor.execute(f"DROP TABLE IF EXISTS {name}")
    _create_missing(cursor)


def _add_cut_captions_and_compounds(cursor: duckdb.DuckDBPyConnection) -> None:
    """A new database has the columns from its first step on."""
    for table, column in _COLUMNS_SINCE_5:
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")


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
    _add_digests(cursor)
    _add_where_units_were_found(cursor)
    _add_words_of_units_over_grey(cursor)


def _add_proofs(cursor: duckdb.DuckDBPyConnection) -> None:
    """Of runs that are loaded from now on; a database that is made new has the column already."""
    cursor.execute("ALTER TABLE run ADD COLUMN IF NOT EXISTS proof JSON")


def _add_experts(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute("ALTER TABLE score ADD COLUMN IF NOT EXISTS expert SMALLINT")
    cursor.execute("ALTER TABLE run ADD COLUMN IF NOT EXISTS d_experts INTEGER[]")


def _to_version_6(cursor: duckdb.DuckDBPyConnection) -> None:
    _add_proofs(cursor)
    _add_experts(cursor)


def _add_words_by_cosines(cursor: duckdb.DuckDBPyConnection) -> None:
    """Of units that are decoded from now on, and of older ones once they are decoded again (`given.fill_words`)."""
    for column in (
        "mean_logit FLOAT",
        "cosine_tokens VARCHAR[10]",
        "cosines FLOAT[10]",
        "is_cosine_interpretable BOOLEAN",
    ):
        cursor.execute(f"ALTER TABLE neuron ADD COLUMN IF NOT EXISTS {column}")


def _add_positions_and_other_nouns(cursor: duckdb.DuckDBPyConnection) -> None:
    """All that earlier versions ablated was ablated everywhere, and no unit was another picture's."""
    cursor.execute("ALTER TABLE effect ADD COLUMN IF NOT EXISTS positions VARCHAR DEFAULT 'everywhere'")
    cursor.execute("ALTER TABLE effect ALTER COLUMN positions SET NOT NULL")
    for column in ("other_image_id", "other_noun"):
        cursor.execute(f"ALTER TABLE effect ADD COLUMN IF NOT EXISTS {column} VARCHAR")


def _add_factors(cursor: duckdb.DuckDBPyConnection) -> None:
    """No unit was multiplied by a factor before there was `scale`. Some tables may be newer than the database."""
    _create_missing(cursor)
    for table in ("effect", "noun_share", "perplexity"):
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS factor DOUBLE")


def _add_objects_that_masks_tell_of(cursor: duckdb.DuckDBPyConnection) -> None:
    """No earlier version judged objects by synonyms, or knew which ones a source of masks tells of."""
    _create_missing(cursor)
    for column in ("outlinable VARCHAR[]", "synonyms INTEGER"):
        cursor.execute(f"ALTER TABLE object_truth ADD COLUMN IF NOT EXISTS {column}")


def _add_revisions_of_what_was_projected_away(cursor: duckdb.DuckDBPyConnection) -> None:
    """Of earlier versions' rows it is not known by which masks, references and synonyms objects were chosen."""
    _create_missing(cursor)
    cursor.execute("ALTER TABLE projected_away ADD COLUMN IF NOT EXISTS revision INTEGER DEFAULT 1")
    cursor.execute("ALTER TABLE projected_away ALTER COLUMN revision SET NOT NULL")
    cursor.execute("ALTER TABLE projected_away ADD COLUMN IF NOT EXISTS version VARCHAR")


MIGRATIONS: list[Callable[[duckdb.DuckDBPyConnection], None]] = [
    _create_missing,
    _create_missing,
    _drop_tables_without_rows,
    _create_missing,
    _to_version_5,
    _to_version_6,
    _add_words_by_cosines,
    _add_positions_and_other_nouns,
    _add_factors,
    _add_objects_that_masks_tell_of,
    _add_revisions_of_what_was_projected_away,
]  # step n is number n + 1; a new table needs none, a new column of an old table does


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
        with transaction(cursor):
            MIGRATIONS[version - 1](cursor)
            cursor.execute("INSERT INTO migration VALUES (?, now() AT TIME ZONE 'UTC')", [version])
    _create_missing(cursor)
