"""The libraries that every page needs, loaded as fast as they can be."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_libraries() -> Iterator[None]:
    """Without garbage collection for what is imported inside, neither now nor in any later collection.

    Python looks for garbage again and again while it creates the million objects of pandas and Altair, which all stay:
    a fifth of the time of importing them.
    """
    if "pandas" in sys.modules:  # not the first script of this server
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
