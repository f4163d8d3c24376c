"""One SELECT of a stranger over the tables, and nothing else: read-only, without files, settings or other names.

    text ─► parsed, one SELECT ─► every table and function in it is known ─► a transaction that cannot write ─► rows

The tables are seen through views of the connection: of one run, or of all; for visitors of a server without the folders
that paths name. The limits are of time, of memory (looked at while it runs), and of rows. The database itself opens no
file but its own, and its settings are locked (`database._CONFIG`). OURS.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb
import pandas as pd

from mmn.errors import MmnError, UsageError
from mmn.store.database import DATABASE
from mmn.store.migrations import INTERNAL_TABLES, PUBLIC_TABLES
from mmn.store.reader import Reader

MOST_ROWS: Final = 1000
MOST_SECONDS: Final = 20.0
MOST_BYTES: Final = 2_000_000_000  # that a question adds to what the database holds in memory
MOST_LETTERS: Final = 20_000
EXAMPLES: Final = {
    "Frequent nouns": (
        "SELECT lemma, count(DISTINCT image_id) AS pictures, avg(prob) AS probability\n"
        "FROM concept WHERE variant = 'original'\nGROUP BY lemma ORDER BY pictures DESC"
    ),
    "Units that lead most nouns": (
        "SELECT layer, unit, count(DISTINCT noun) AS nouns, count(*) AS captions\n"
        "FROM score WHERE rank = 1 AND variant = 'original' AND method = 'contribution'\n"
        "GROUP BY layer, unit ORDER BY nouns DESC"
    ),
    "What they write": (
        "SELECT layer, unit, tokens, is_interpretable\nFROM neuron WHERE list_contains(tokens, 'dog')\n"
        "ORDER BY layer, unit"
    ),
    "Nouns that no reference says": (
        "SELECT noun, text, prob FROM concept JOIN caption USING (run_id, image_id, variant)\n"
        "WHERE variant = 'original' AND NOT is_in_reference ORDER BY prob DESC"
    ),
}  # to begin with
_LOOKS_EVERY_S: Final = 0.05
_CATALOG: Final = DATABASE.rpartition(".")[0]
_TABLE_FUNCTIONS: Final = {
    "unnest", "range", "generate_series", "generate_subscripts", "repeat", "json_each", "json_tree",
}  # fmt: skip
_REFUSED: Final = {"current_setting", "getvariable", "getenv", "write_log", "pg_get_viewdef", "add_parquet_key"}
_PATHS: Final = {
    "run": ("model", "images", "settings", "versions"),
    "image": ("source", "sources"),
    "failure": ("source", "message"),
    "edit": ("settings",),
    "sensitivity": ("metric",),
    "effect": ("metric",),
}  # columns whose text may name folders of the machine
_SYSTEM: Final = re.compile(r"(duckdb|pragma|pg|sqlite)_.*|information_schema.*")  # views of the database itself
_READING: Final = ("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE")  # not INSERT … RETURNING
_COLUMNS: Final = """
    SELECT table_name, column_name, data_type FROM duckdb_columns()
    WHERE schema_name = 'main' AND database_name = ? ORDER BY column_index
"""
_WITHOUT_FOLDERS: Final = r"regexp_replace({}::VARCHAR, '(/[^/\s\"'',:]+)+/', '…/', 'g')"


class SqlError(UsageError):
    """A statement that is not answered: not one SELECT, of what is not there, or beyond a limit."""


@dataclass(frozen=True)
class Answer:
    """The first rows of an answer, whether there are more, and how long it took."""

    rows: pd.DataFrame
    has_more: bool
    seconds: float


class SqlQueries(Reader):
    """The tables, and what is asked of them in SQL."""

    def columns(self) -> dict[str, list[tuple[str, str]]]:
        """The columns of every table: name and type."""
        with self._cursor() as cursor:
            rows = cursor.execute(_COLUMNS, [_CATALOG]).fetchall()
        return {table: [(name, kind) for of, name, kind in rows if of == table] for table in PUBLIC_TABLES}

    def begin(self, text: str, run_id: str = "", *, without_folders: bool = False) -> Asking:
        """Begins to answer a statement, in a thread of its own.

        Args:
            text: one SELECT.
            run_id: whose rows the tables hold; "" for all runs'.
            without_folders: what is a path is shown without its folders.

        Raises:
            SqlError: it is not one SELECT of known tables and functions.
            RunNotFoundError: no such run.
        """
        with self._cursor() as cursor:
            tables = check(cursor, text)
        key = {}
        if run_id:
            with self._of_run(run_id) as (_, run):
                key = {"run_id": run["run_id"], "model_fingerprint": run["model_fingerprint"]}
        views = [_view(table, key, without_folders=without_folders) for table in sorted(tables)]
        return Asking(self, text, views)

    def answer(self, asking: Asking) -> Answer:
        """The rows of a statement; ends early where it takes too long, too much memory, or is cancelled.

        Raises:
            SqlError: it means nothing, or ended early; the message says why.
        """
        with self._cursor() as cursor:
            for view in asking.views:
                cursor.execute(view)
            with asking.watched(cursor, self._database.connection.cursor()), _reading(cursor):
                try:
                    rows = cursor.sql(asking.text).limit(MOST_ROWS + 1).df()
                except duckdb.InterruptException as error:
                    raise SqlError(asking.why or "the statement was cancelled") from error
                except duckdb.OutOfMemoryException as error:
                    raise SqlError("it needs more memory than there is: ask for less at once") from error
                except duckdb.Error as error:
                    raise SqlError(_said(error)) from error
        return Answer(rows.head(MOST_ROWS), len(rows) > MOST_ROWS, asking.seconds)


@dataclass
class Asking:
    """A statement on its way: `done` once there is an `answer` or an `error`. It begins when it is made."""

    queries: SqlQueries
    text: str
    views: list[str]
    answer: Answer | None = None
    error: MmnError | None = None
    why: str = ""
    begun: float = field(default_factory=time.monotonic)
    _ended: threading.Event = field(default_factory=threading.Event)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return self._ended.is_set()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.begun

    def cancel(self) -> None:
        """Ends it soon."""
        self._cancelled.set()

    def wait(self, seconds: float) -> bool:
        """Waits that long at most; whether it is done."""
        return self._ended.wait(seconds)

    def _run(self) -> None:
        try:
            self.answer = self.queries.answer(self)
        except MmnError as error:
            self.error = error
        except Exception as error:  # of a thread nobody else would hear
            self.error = SqlError(f"it failed: {type(error).__name__}: {error}")
        finally:
            self._ended.set()

    def watched(self, cursor: duckdb.DuckDBPyConnection, beside: duckdb.DuckDBPyConnection) -> _Watch:
        """A watch over the limits while `cursor` works; `beside` looks at the memory."""
        return _Watch(self, cursor, beside)

    def over(self, grown: int) -> str:
        """Why it has to end now, "" while it need not; `grown`: bytes of memory more than at first."""
        if self._cancelled.is_set():
            return "the statement was cancelled"
        if self.seconds > MOST_SECONDS:
            return f"it took longer than {MOST_SECONDS:.0f} s: ask for less at once"
        if grown > MOST_BYTES:
            return f"it took more than {MOST_BYTES / 1e9:.0f} GB of memory: ask for less at once"
        return ""


class _Watch:
    """Looks at the limits again and again while a statement runs, and interrupts it."""

    def __init__(self, asking: Asking, cursor: duckdb.DuckDBPyConnection, beside: duckdb.DuckDBPyConnection) -> None:
        self._asking, self._cursor, self._beside = asking, cursor, beside
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._beside.close()

    def _look(self) -> None:
        first = _memory(self._beside)
        while not self._ended.wait(_LOOKS_EVERY_S):
            why = self._asking.over(_memory(self._beside) - first)
            if why:
                self._asking.why = why
                self._cursor.interrupt()


class _reading:  # noqa: N801 - used as a function
    """A transaction that cannot write, whatever the statement hides."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor

    def __enter__(self) -> None:
        self._cursor.execute("BEGIN TRANSACTION READ ONLY")

    def __exit__(self, *_: object) -> None:
        self._cursor.execute("ROLLBACK")


def check(cursor: duckdb.DuckDBPyConnection, text: str) -> set[str]:
    """The tables that one SELECT reads.

    Raises:
        SqlError: it is none, or reads or calls what it may not.
    """
    tree = _parsed(cursor, text)
    named = {name for node in _nodes(tree) for name in _named(node)}
    tables = set()
    for node in _nodes(tree):
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in _READING:
            raise SqlError("only SELECT is answered: nothing can be changed here")
        if kind == "BASE_TABLE":
            tables.add(_table(node, named))
        elif kind in ("SHOW_REF", "DELIM_GET", "COLUMN_DATA"):
            raise SqlError("only SELECT is answered; the tables and their columns are listed beside")
        elif node.get("class") == "FUNCTION":
            _check_function(node["function_name"], is_table=False)
        if kind == "TABLE_FUNCTION":
            _check_function(node["function"].get("function_name", ""), is_table=True)
    return tables - named


def _parsed(cursor: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    if len(text) > MOST_LETTERS:
        raise SqlError(f"a statement has at most {MOST_LETTERS:,} letters")
    try:
        statements = cursor.extract_statements(text)
    except duckdb.Error as error:
        raise SqlError(_said(error)) from error
    if len(statements) != 1:
        raise SqlError(f"give one SELECT at a time, not {len(statements)} statements")
    row = cursor.execute("SELECT json_serialize_sql(?)", [text]).fetchone()
    assert row is not None
    tree: dict[str, Any] = json.loads(row[0])
    if tree["error"] or len(tree["statements"]) != 1:
        kind = str(statements[0].type).rpartition(".")[2]
        raise SqlError(f"only SELECT is answered, and this is {kind}: nothing can be changed here")
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a parsed statement."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
        waiting += list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []


def _named(node: dict[str, Any]) -> list[str]:
    """What a WITH names its parts."""
    parts = node.get("cte_map")
    names = [str(part["key"]).lower() for part in parts.get("map", ())] if isinstance(parts, dict) else []
    for name in names:
        if _SYSTEM.fullmatch(name) or name in INTERNAL_TABLES or name == "migration":
            raise SqlError(f"give the part {name} of WITH another name: the database has one of that name")
    return names


def _table(node: dict[str, Any], named: set[str]) -> str:
    name = str(node["table_name"]).lower()
    if node.get("schema_name") or node.get("catalog_name"):
        raise SqlError(f"tables are named alone: {name}")
    if name in named or name in PUBLIC_TABLES:
        return name
    raise SqlError(f"no table {name!r}; there are {', '.join(PUBLIC_TABLES)}")


def _check_function(name: str, *, is_table: bool) -> None:
    if is_table and name.lower() not in _TABLE_FUNCTIONS:
        raise SqlError(f"{name}(…) cannot be read from here; of functions these can: {', '.join(_TABLE_FUNCTIONS)}")
    if name.lower() in _REFUSED:
        raise SqlError(f"{name}(…) is not answered here: it tells of the machine, not of the tables")


def _view(table: str, key: dict[str, str], *, without_folders: bool) -> str:
    """A view of the connection that stands before the table of its name."""
    hidden = _PATHS.get(table, ()) if without_folders else ()
    replaced = ", ".join(f"{_shortened(column)} AS {column}" for column in hidden)
    rows = f"SELECT *{f' REPLACE ({replaced})' if replaced else ''} FROM {_CATALOG}.main.{table}"  # noqa: S608 - names are our own
    column = "model_fingerprint" if table == "neuron" else "run_id"
    if key:
        rows += f" WHERE {column} = '{key[column].replace(chr(39), 2 * chr(39))}'"
    return f"CREATE TEMP VIEW {table} AS {rows}"


def _shortened(column: str) -> str:
    if column == "sources":
        return "list_transform(sources, lambda one: parse_filename(one))"
    if column == "source":
        return "parse_filename(source)"
    return _WITHOUT_FOLDERS.format(column)


def _memory(cursor: duckdb.DuckDBPyConnection) -> int:
    row = cursor.execute("SELECT sum(memory_usage_bytes)::BIGINT FROM duckdb_memory()").fetchone()
    return int(row[0] or 0) if row else 0


def _said(error: duckdb.Error) -> str:
    """DuckDB's own words, without what only its programmers need."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(line.strip() for line in lines if not set(line.strip()) <= set("^~"))[:600]
