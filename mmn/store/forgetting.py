"""Removes the rows of a run, which is remembered as deleted, or of an edit. Their folders are the store's work."""

from __future__ import annotations

import duckdb

from mmn.store.migrations import INTERNAL_TABLES, PUBLIC_TABLES
from mmn.store.transactions import transaction


def forget_run(cursor: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Removes every row of a run, and marks it as deleted; decoded units of its model stay."""
    with transaction(cursor):
        for table, columns in (PUBLIC_TABLES | INTERNAL_TABLES).items():
            if "run_id" in columns:
                cursor.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])  # noqa: S608 - names are our own
        cursor.execute("INSERT INTO deleted_run VALUES (?, now() AT TIME ZONE 'UTC')", [run_id])


def edits_of_this_run_only(cursor: duckdb.DuckDBPyConnection, run_id: str) -> list[str]:
    """The edits whose deltas go with a run: those that no other run names, too."""
    rows = cursor.execute(
        "SELECT edit_id FROM edit WHERE run_id = $run_id "
        "AND edit_id NOT IN (SELECT edit_id FROM edit WHERE run_id != $run_id)",
        {"run_id": run_id},
    )
    return [edit_id for (edit_id,) in rows.fetchall()]


def forget_edit(cursor: duckdb.DuckDBPyConnection, run_id: str, edit_id: str) -> None:
    """Removes every row of an edit, its failures and the marks that its shards are in."""
    with transaction(cursor):
        for table in ("edit", "edited_caption", "edited_text"):
            cursor.execute(f"DELETE FROM {table} WHERE run_id = ? AND edit_id = ?", [run_id, edit_id])  # noqa: S608
        cursor.execute("DELETE FROM failure WHERE run_id = ? AND stage = ?", [run_id, f"edit {edit_id}"])
        for name in shards_of_edit(edit_id):
            cursor.execute("DELETE FROM shard WHERE run_id = ? AND name = ?", [run_id, name])


def shards_of_edit(edit_id: str) -> tuple[str, str]:
    """The shards that speak of an edit: of what it is and writes, and of what it does to text."""
    return f"edit-{edit_id}", f"text-edit-{edit_id}"


def restore(cursor: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Takes the mark of deletion away."""
    cursor.execute("DELETE FROM deleted_run WHERE run_id = ?", [run_id])
