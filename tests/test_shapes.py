"""Shapes that `mmn` declares are checked while tests run; what declares none and is made anew at each call is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from mmn.scores.equations import centred_rows
from tests.shapes import checked


def made_anew() -> tuple[Any, Any]:
    @jaxtyped(typechecker=checked)
    def with_shapes(rows: Float[Tensor, "n d"], mean: Float[Tensor, " d"]) -> Float[Tensor, "n d"]:
        return rows - mean

    def without(rows: Tensor) -> Tensor:
        return rows

    return with_shapes, without


def test_a_wrong_shape_is_an_error_in_a_function_of_a_module_and_in_one_made_inside_another():
    for function in (centred_rows, made_anew()[0]):
        function(torch.zeros(2, 3), torch.zeros(3))
        with pytest.raises(TypeCheckError):
            function(torch.zeros(2, 3), torch.zeros(1))


def test_an_inner_function_without_shapes_is_left_as_it_is():
    inner = made_anew()[1]
    assert checked(inner) is inner
    assert checked(made_anew) is not made_anew
