"""How do rows leave? Whole runs, which are remembered as deleted, and single edits. Folders are the store's work."""

from __future__ import annotations

import duckdb

from mmn.store.database import transaction
from mmn.store.migrations import INTERNAL_TABLES, PUBLIC_TABLES


def forget_run(own: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Removes every row of a run, and marks it as deleted; decoded units of its model stay."""
    with transaction(own):
        for table, columns in (PUBLIC_TABLES | INTERNAL_TABLES).items():
            if "run_id" in columns:
                own.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])  # noqa: S608 - names are our own
        own.execute("INSERT INTO deleted_run VALUES (?, now() AT TIME ZONE 'UTC')", [run_id])


def edits_of_this_run_only(own: duckdb.DuckDBPyConnection, run_id: str) -> list[str]:
    """The edits whose deltas go with a run: those that no other run names, too."""
    rows = own.execute(
        "SELECT edit_id FROM edit WHERE run_id = $run_id "
        "AND edit_id NOT IN (SELECT edit_id FROM edit WHERE run_id != $run_id)",
        {"run_id": run_id},
    )
    return [edit_id for (edit_id,) in rows.fetchall()]


def forget_edit(own: duckdb.DuckDBPyConnection, run_id: str, edit_id: str) -> None:
    """Removes every row of an edit, its failures and the mark that its shard is in."""
    with transaction(own):
        for table in ("edit", "edited_caption"):
            own.execute(f"DELETE FROM {table} WHERE run_id = ? AND edit_id = ?", [run_id, edit_id])  # noqa: S608
        own.execute("DELETE FROM failure WHERE run_id = ? AND stage = ?", [run_id, f"edit {edit_id}"])
        own.execute("DELETE FROM shard WHERE run_id = ? AND name = ?", [run_id, f"edit-{edit_id}"])


def restore(own: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Takes the mark of deletion away."""
    own.execute("DELETE FROM deleted_run WHERE run_id = ?", [run_id])
