"""Differentiable passes over pictures that say a noun: a of every unit with its graph, and what the noun takes of it.

Several pictures share a pass, as many as its graph has room for; where there are more, each pass is made anew whenever
it is wanted. A layer's a is in one part, or in a part for each expert that some token goes through (`hooks.AtTokens`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.hooks import AtTokens, Paths, capture_paths
from mmn.reading.rows import some_of
from mmn.scores.gradients import GRAPH_BYTES, few_logits
from mmn.studies.circuits.rules import Rule

BYTES_PER_UNIT: Final = 32  # a, act, up, gate, their products, gradients and flows, in float32


@dataclass(frozen=True)
class Shown:
    """Pictures whose caption says a noun: model inputs of their prompts, the caption's tokens before the noun, the
    noun's first token.
    """

    inputs: dict[str, Tensor]
    before: tuple[tuple[int, ...], ...]
    token_ids: tuple[int, ...]

    def part(self, model: Model, rows: range) -> Shown:
        """Some of the pictures."""
        some = slice(rows.start, rows.stop)
        return Shown(some_of(model, self.inputs, rows), self.before[some], self.token_ids[some])


class Target(NamedTuple):
    """A unit that flows are into; with the number behind the last layer's, the noun."""

    layer: int
    unit: int


@dataclass(frozen=True)
class Pass:
    """One differentiable pass over some of the pictures; `taken` is w of each part of a of each layer."""

    paths: Paths
    taken: tuple[tuple[Float[Tensor, "_ _"], ...], ...]
    y: Float[Tensor, " rows"]
    prob: Float[Tensor, " rows"]
    is_there: Bool[Tensor, "rows positions"]
    is_image: Bool[Tensor, "rows positions"]
    d_mlp: int

    def target(self, of: Target) -> Float[Tensor, ""]:
        """Σ over pictures of A_n of a unit; or the logit itself."""
        if of.layer == len(self.taken):
            return self.y.sum()
        there = self._where(of)
        if there is None:
            return 0 * self.paths.embedding.sum()
        part, w, unit = there
        return (w * self.paths.gated(of.layer, part)[:, unit]).sum()

    def at_positions(self, of: Target) -> Float[Tensor, "rows positions"]:
        """Returns w · a of a unit, 0 where it sleeps and at padding."""
        found = torch.zeros(self.is_there.shape, device=self.is_there.device)
        if (there := self._where(of)) is not None:
            part, w, unit = there
            found[part.row, part.position] = (part.values.detach()[:, unit] * w).float()
        return found.masked_fill(~self.is_there, 0.0)

    def _where(self, of: Target) -> tuple[AtTokens, Float[Tensor, " n"], int] | None:
        """The part of a that holds a unit, w of it there, and its place in the part; None where it always sleeps."""
        for part, w in zip(self.paths.a[of.layer], self.taken[of.layer], strict=True):
            if part.units.start <= of.unit < part.units.stop:
                unit = of.unit - part.first
                return part, w[:, unit], unit
        return None

    def over_positions(self, layer: int, values: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "rows m"]:
        """Of values of each part of a layer's a the sums over each picture's positions; of every unit."""
        found = torch.zeros(len(self.is_there), self.d_mlp, device=self.is_there.device)
        rows = torch.arange(len(self.is_there), device=self.is_there.device)[:, None]
        for part, one in zip(self.paths.a[layer], values, strict=True):
            is_there = self.is_there[part.row, part.position]
            of_row = (part.row == rows).float()
            found[:, part.units] = of_row @ one.float().masked_fill(~is_there[:, None], 0.0)
        return found

    def by_row(self, values: Float[Tensor, "rows positions d"]) -> Float[Tensor, "rows positions"]:
        """Sums over the width of the stream, 0 at padding."""
        return values.float().sum(-1).masked_fill(~self.is_there, 0.0)

    def n_padding(self) -> Int[Tensor, " rows"]:
        """How many positions of each row are before its first token."""
        return self.is_there.int().argmax(1)


Passes = Callable[[], Iterator[Pass]]


def passes_of(model: Model, shown: Shown, rule: Rule) -> Passes:
    """The passes over all pictures, as few as fit; where they are several, each is made anew whenever it is wanted."""
    n_rows, n_prompt = shown.inputs["input_ids"].shape
    n_positions = n_prompt + max(map(len, shown.before))
    size = max(1, int(GRAPH_BYTES // (n_positions * model.anatomy.n_awake * BYTES_PER_UNIT)))
    parts = [shown.part(model, range(start, min(start + size, n_rows))) for start in range(0, n_rows, size)]
    if len(parts) == 1:
        only = _run(model, parts[0], rule)
        return lambda: iter([only])
    return lambda: (_run(model, part, rule) for part in parts)


@torch.enable_grad()
def _run(model: Model, shown: Shown, rule: Rule) -> Pass:
    inputs = with_captions(model, shown.inputs, shown.before)
    with rule.around(model), capture_paths(model, rule.of_experts) as paths:
        model.module(**inputs, use_cache=False, **few_logits(model))
    y, prob = _logits(model, paths, shown, rule)
    values = [part.values for parts in paths.a for part in parts]
    gradients = iter(torch.autograd.grad(y.sum(), values, retain_graph=True, materialize_grads=True))
    taken = tuple(tuple(next(gradients) for _ in parts) for parts in paths.a)
    n_prompt = shown.inputs["input_ids"].shape[1]
    is_image = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    is_image[:, :n_prompt] = image_positions(model, shown.inputs)
    return Pass(paths, taken, y, prob, _attended(inputs), is_image, model.facts.d_mlp)


def _attended(inputs: dict[str, Tensor]) -> Bool[Tensor, "rows positions"]:
    """Where a row has tokens; all of it where there is no mask, which padding would need."""
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def _logits(
    model: Model, paths: Paths, shown: Shown, rule: Rule
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The noun's logit before a soft cap, differentiable, and its probability."""
    anatomy = model.anatomy
    rows = torch.arange(len(shown.before), device=model.device)
    places = torch.tensor([shown.inputs["input_ids"].shape[1] - 1 + len(one) for one in shown.before])
    tokens = torch.tensor(shown.token_ids, device=model.device)
    normed = rule.normed(model, paths.final[rows, places.to(model.device)])
    y = anatomy.head_factor * (normed.float() * anatomy.w_u(tokens)).sum(-1) + anatomy.logit_bias(tokens)
    with torch.no_grad():
        logits = anatomy.logits(anatomy.unembedding(normed.to(model.dtype)).float())
    return y, logits.softmax(-1)[rows, tokens]
