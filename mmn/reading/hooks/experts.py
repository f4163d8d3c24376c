"""One call of a layer's routed experts: which tokens went through which, and their units' activations.

Only the experts that a token went through are computed, again, from what their module was given: whatever way the
model itself takes (one expert after the other, batched, grouped) nothing of it is seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmn.models.adapters.experts import Routed

IS_IMAGE = "moe_mm_token_type_ids"  # of a block, its second argument: which tokens are an image's (not 0)


class OfExpert(NamedTuple):
    """An expert, the tokens that went through it, and a of its units there, without the factor of what they write."""

    expert: int
    token: Int[Tensor, " n"]
    a: Float[Tensor, "n m"]


@dataclass(frozen=True)
class Call:
    """One call, for t tokens; `row` and `position` are where in the batch each stands.

    `x` and `weight` have the graph that they were given with.

    Attributes:
        x: what the experts read; of experts with the router's weight on the input one copy for each expert.
        chosen: the experts of each token, in ascending order.
        weight: the router's of them; None where it is on the input.
    """

    routed: Routed
    x: Float[Tensor, "t d"] | Float[Tensor, "e t d"]
    chosen: Int[Tensor, "t k"]
    weight: Float[Tensor, "t k"] | None
    row: Int[Tensor, " t"]
    position: Int[Tensor, " t"]

    def detached(self) -> Call:
        """The same without a graph."""
        return replace(self, x=self.x.detach(), weight=None if self.weight is None else self.weight.detach())

    def of(self, expert: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, "n m"]]:
        """The tokens that went through an expert, in which slot, and a of its units there, without the factor."""
        return self._of(expert, self.routed.units)

    def slopes_of(self, expert: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, "n m"]]:
        """As `of`, with z · ∂a/∂z for a."""
        return self._of(expert, self.routed.slopes)

    def _of(
        self, expert: int, read: Callable[[Tensor, int], Tensor]
    ) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, "n m"]]:
        token, slot = (self.chosen == expert).nonzero(as_tuple=True)
        if self.weight is None:
            return token, slot, read(self.x[expert, token], expert)
        return token, slot, read(self.x[token], expert) * self.weight[token, slot, None]

    def experts(self, read: Callable[[Tensor, int], Tensor]) -> list[OfExpert]:
        """Each expert that a token went through, in ascending order.

        Args:
            read: what makes its units of what it reads: `Routed.units`, or by other rules for its gradient.
        """
        found = []
        for expert in self.chosen.unique().tolist():
            token, _, a = self._of(expert, read)
            found.append(OfExpert(expert, token, a))
        return found

    def written(self, experts: Sequence[OfExpert], like: Tensor) -> Tensor:
        """What the module writes of these activations, with their graph; of the shape and type of `like`."""
        rows = torch.cat([self.in_output(expert, token) for expert, token, _ in experts])
        columns = torch.cat([a @ self.routed.w_out(expert).to(a).T for expert, _, a in experts])
        flat = torch.zeros_like(like).flatten(0, -2)
        return flat.index_add(0, rows, columns.to(flat.dtype)).view_as(like)

    def at(self, token: Int[Tensor, " n"]) -> Call:
        """Some tokens alone."""
        weight = None if self.weight is None else self.weight[token]
        x = self.x[token] if self.weight is not None else self.x[:, token]
        return Call(self.routed, x, self.chosen[token], weight, self.row[token], self.position[token])

    def at_last(self, n_rows: int, n_last: int) -> Call:
        """The last positions of each row alone."""
        ends = torch.bincount(self.row, minlength=n_rows).cumsum(0)
        return self.at((ends[:, None] - n_last + torch.arange(n_last, device=ends.device)).flatten())

    def activations(self) -> Float[Tensor, "t w"]:
        """Returns a of the units of each token's own experts, the factor of what they write in it."""
        return self._side_by_side(self.routed.units)

    def gate_acts(self) -> Float[Tensor, "t w"]:
        """As `activations`, with act(gate) for act(gate) · up."""
        return self._side_by_side(self.routed.gate_acts)

    def _side_by_side(self, read: Callable[[Tensor, int], Tensor]) -> Float[Tensor, "t w"]:
        found = self.x.new_empty(*self.chosen.shape, self.routed.d_expert)
        for expert in self.chosen.unique().tolist():
            token, slot, a = self._of(expert, read)
            found[token, slot] = (a * self.routed.factor).to(found.dtype)
        return found.flatten(1)

    def in_output(self, expert: int, token: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Where in the module's output tokens that went through an expert are."""
        return token if self.weight is not None else expert * self.x.shape[1] + token


def watch_calls(
    routed: Routed,
    n_rows: Callable[[], int],
    then: Callable[[Call, Tensor], Tensor | None],
) -> list[Any]:
    """Hooks that hand each call and the module's output to `then`; what it returns replaces the output."""
    is_image: list[Bool[Tensor, "batch n"] | None] = [None]

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get(IS_IMAGE, args[1] if len(args) > 1 else None)
        is_image[0] = given.bool() if given is not None and given.any() else None

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        return then(_call(routed, n_rows(), [*args, *kwargs.values()], is_image[0]), output)

    handles = [routed.module.register_forward_hook(hook, with_kwargs=True)]
    if routed.block is not None:
        handles.append(routed.block.register_forward_pre_hook(note, with_kwargs=True))
    return handles


def _call(routed: Routed, n_rows: int, given: list[Tensor], is_image: Bool[Tensor, "batch n"] | None) -> Call:
    x, d = given[0], given[0].shape[-1]
    if len(given) == 1:
        x = x.reshape(routed.n_experts, -1, d)
        chosen, weight = x.detach().abs().sum(-1).T.topk(routed.n_chosen).indices.sort(dim=-1).values, None
    else:
        x = x.reshape(-1, d)
        chosen, order = given[1].reshape(len(x), -1).sort(dim=-1)
        weight = given[2].reshape(len(x), -1).gather(1, order)
    assert chosen.shape[1] == routed.n_chosen, f"{chosen.shape[1]} experts of a token, {routed.n_chosen} expected"
    if is_image is None:
        n = len(chosen) // n_rows
        token = torch.arange(len(chosen), device=x.device)
        return Call(routed, x, chosen, weight, token // n, token % n)
    row, position = (~is_image).nonzero(as_tuple=True)
    assert len(row) == len(chosen), f"{len(row)} tokens are no image's, {len(chosen)} went through the experts"
    return Call(routed, x, chosen, weight, row, position)
