"""Which columns does each table of a shard have? What the studies declare, gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from mmn.columns import texts
from mmn.core import Failure
from mmn.lazily import load
from mmn.studies.registry import STUDIES
from mmn.studies.table import Table

DECLARED: Final[Mapping[str, Table]] = {
    table.name: table for study in STUDIES if study.tables for table in load(study.tables)
}
TABLES: Final[Mapping[str, pa.Schema]] = {name: table.schema for name, table in DECLARED.items()}
SCHEMAS: Final = {name: TABLES[name] for name, table in DECLARED.items() if not table.is_added}  # what scoring writes
ADDED: Final = {name: TABLES[name] for name, table in DECLARED.items() if table.is_added}  # what is told afterwards
KEYS: Final = {name: table.key for name, table in DECLARED.items() if table.key}  # distinct in a shard
ADDED_KEYS: Final = {name: key for name, key in KEYS.items() if name in ADDED}  # of rows that may be told again
SHARES: Final = {f"{table.name}.{share}" for table in DECLARED.values() for share in table.shares}  # from 0 to 1
AMONG: Final = {name: table.among for name, table in DECLARED.items() if table.among}
LATER: Final = {name: table.later for name, table in DECLARED.items() if table.later}


def failure_table(failures: Sequence[Failure]) -> pa.Table:
    """The table `failure` of a shard."""
    schema = TABLES["failure"]
    return pa.table([texts([getattr(one, name) for one in failures]) for name in schema.names], schema=schema)
