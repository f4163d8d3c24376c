"""What checks the shapes that `mmn` declares, while tests run: beartype, through jaxtyping's import hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks arguments and result at every call, but of a function made anew in another one that declares no shape.

    Hooks are such functions: a check would be compiled each time that a model is watched, a fifth of the time of tests
    with tiny models, and would find nothing that mypy does not.
    """
    is_inner = "<locals>" in function.__qualname__
    has_shapes = any("jaxtyping." in repr(one) for one in function.__annotations__.values())
    return function if is_inner and not has_shapes else beartype(function)
