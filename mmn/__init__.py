"""Which neurons of a vision-language model turn what it sees into words?

The public names, which `docs/api.md` documents; each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmn.api import RunSummary, draw, open_cache, save, score
    from mmn.core import Neuron
    from mmn.errors import MmnError
    from mmn.models.loading import load_model
    from mmn.studies.registry import FIGURES, STUDIES
    from mmn.view import View

__version__ = "0.1.0"
__all__ = [
    "FIGURES",
    "STUDIES",
    "MmnError",
    "Neuron",
    "RunSummary",
    "View",
    "__version__",
    "draw",
    "load_model",
    "open_cache",
    "save",
    "score",
]

_HOMES = {
    "mmn.api": ("RunSummary", "draw", "open_cache", "save", "score"),
    "mmn.core": ("Neuron",),
    "mmn.errors": ("MmnError",),
    "mmn.models.loading": ("load_model",),
    "mmn.studies.registry": ("FIGURES", "STUDIES"),
    "mmn.view": ("View",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'mmn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
