"""What a declaration names as `module:name`, loaded when it is used: declarations import nothing heavy."""

from __future__ import annotations

import importlib
from typing import Any


def load(place: str) -> Any:
    """The object that `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
