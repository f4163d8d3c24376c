"""What checks annotations while testing: beartype, but for functions that are given or give a value of the store.

beartype keeps every type that it has checked for, and torch keeps beartype until the interpreter is gone. Where such a
type reaches DuckDB, by itself or through its module, DuckDB's own types outlive their module, and its binding prints
pages of "leaked" after pytest's last line. These functions pass no tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from beartype import beartype

_OF_THE_STORE: Final = ("duckdb", "mmn.store")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checked at each call, unless one of its hints is a type of the store or of DuckDB."""
    hints = map(str, function.__annotations__.values())
    is_of_the_store = any(name in hint for hint in hints for name in _OF_THE_STORE)
    return function if is_of_the_store else beartype(function)
