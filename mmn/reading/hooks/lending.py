"""Hooks that are borrowed: taken off again whatever happens, while nobody else uses the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmn.models.model import Model


@contextmanager
def lent(model: Model) -> Iterator[list[Any]]:
    """A list for the handles of hooks, which are removed behind the block; the model's lock is held inside it."""
    handles: list[Any] = []
    with model.lock:
        try:
            yield handles
        finally:
            for handle in handles:
                handle.remove()
