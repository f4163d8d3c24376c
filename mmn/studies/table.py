"""A table of a study: its columns as a shard of Parquet files and the database hold them, declared once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

_TYPES: Final = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "bool": pa.bool_(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "ints": pa.list_(pa.int32()),
    "float": pa.float32(),
    "double": pa.float64(),
    "floats": pa.list_(pa.float32()),
    "texts10": pa.list_(pa.string(), 10),
    "floats10": pa.list_(pa.float32(), 10),
    "time": pa.timestamp("us"),
    "json": pa.string(),
}
_JSON: Final = {b"holds": b"JSON"}  # metadata of the fields of such text
_SQL: Final = {
    "text": "VARCHAR",
    "texts": "VARCHAR[]",
    "bool": "BOOLEAN",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "ints": "INTEGER[]",
    "float": "FLOAT",
    "double": "DOUBLE",
    "floats": "FLOAT[]",
    "texts10": "VARCHAR[10]",
    "floats10": "FLOAT[10]",
    "time": "TIMESTAMP",
    "json": "JSON",
}


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: of the Parquet file and of the database's table.
        columns: `name type, …`; a type with a question mark may be empty. The database adds run_id, unless
            `is_of_model`.
        key: what tells two rows of one run apart; () where the same may be said twice.
        is_added: tells more of a run that is scored already; a row that a later shard tells again is not added.
        later: columns that shards of earlier versions lack, and what all their rows were.
        is_of_model: its rows belong to a model, not to a run.
        shares: columns from 0 to 1; other floats are finite, other whole numbers count from 0.
        check: a condition that the database holds rows to.
        among: the words that a column may hold, where figures have words of their own for each.
    """

    name: str
    columns: str
    key: tuple[str, ...] = ()
    is_added: bool = True
    later: Mapping[str, str | int | None] = field(default_factory=dict)
    is_of_model: bool = False
    shares: tuple[str, ...] = ()
    check: Mapping[str, str] = field(default_factory=dict)
    among: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a shard's file."""
        return pa.schema([_field(name, kind.rstrip("?"), nullable=kind.endswith("?")) for name, kind in self._pairs()])

    @property
    def ddl(self) -> str:
        """The columns as SQL, for CREATE TABLE."""
        of_run = [] if self.is_of_model else ["run_id VARCHAR NOT NULL"]
        return ", ".join([*of_run, *(self._column(name, kind) for name, kind in self._pairs())])

    def _pairs(self) -> list[list[str]]:
        return [column.split() for column in self.columns.split(",")]

    def _column(self, name: str, kind: str) -> str:
        null = "" if kind.endswith("?") else " NOT NULL"
        usual = self.later.get(name)
        default = f" DEFAULT '{usual}'" if usual is not None else ""
        check = f" CHECK ({self.check[name]})" if name in self.check else ""
        return f"{name} {_SQL[kind.rstrip('?')]}{null}{default}{check}"


def _field(name: str, kind: str, *, nullable: bool) -> pa.Field:
    return pa.field(name, _TYPES[kind], nullable, _JSON if kind == "json" else None)


def is_json(field: pa.Field) -> bool:
    """Whether the text of a column is JSON."""
    return field.metadata == _JSON
