"""Values of a layer's units at the tokens that they are awake at: all in a plain FFN, an expert's own in a mixture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn.reading.hooks.experts import Call, OfExpert


@dataclass(frozen=True)
class AtTokens:
    """Values of neighbouring units of a layer, from `first` on, at some tokens; they are 0 at all others.

    `row` and `position` are where in the batch each token stands.
    """

    first: int
    row: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    values: Float[Tensor, "n m"]

    @classmethod
    def everywhere(cls, first: int, values: Float[Tensor, "*n m"], n_rows: int) -> AtTokens:
        """Of units that are awake at every token; some families hand their FFN all rows' positions as one list."""
        values = values.reshape(-1, values.shape[-1])
        token, n = torch.arange(len(values), device=values.device), len(values) // n_rows
        return cls(first, token // n, token % n, values)

    @classmethod
    def of_expert(cls, call: Call, one: OfExpert, home: torch.device) -> AtTokens:
        """Of an expert's units, where tokens went through it."""
        row, position = (where[one.token].to(home) for where in (call.row, call.position))
        return cls(one.expert * call.routed.d_expert, row, position, one.a.to(home))

    @property
    def units(self) -> slice:
        return slice(self.first, self.first + self.values.shape[1])

    def among(self, is_in: Bool[Tensor, " positions"]) -> AtTokens:
        """Those of the first row at some of its positions, which are counted from 0."""
        is_in = is_in.to(self.position.device)
        kept = is_in[self.position] & (self.row == 0)
        number = is_in.cumsum(0) - 1
        return AtTokens(self.first, self.row[kept], number[self.position[kept]], self.values[kept])
