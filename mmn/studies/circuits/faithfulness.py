"""Is a circuit enough? The noun with all other units held at their mean, and with the circuit's own held.

    mean of a_i     over the positions of one group in the run's pictures: each text position of the prompt is a group
                    of its own (a beginning of text is like no other), all image tokens are one, all of the caption one;
                    of an expert's unit, too, which is 0 where a token does not go through the expert
    kept            a of the circuit's units is computed, all others are held at their mean, at every position
    ablated         the circuit's units are held, all others are computed: the complement
    random          the same with as many units of each layer (of each expert), drawn for each picture; nested like the
                    circuit's own
    another         the same with the circuit of a noun that other pictures say: what any noun needs is in it, too

p(c) is read under the caption's own tokens. With every unit kept nothing is held: that is the plain model, bit for bit.
Routers compute, as attention does: a kept unit is 0 where they choose another expert now; one that is held is at its
mean whatever they choose.
Mean ablation, and a complement beside it, as circuits are judged in text models (Wang et al., arXiv 2211.00593); groups
of positions: OURS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn import names
from mmn.models.float64 import place_of_wide, wide
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.hooks import ACTIVATION, AtTokens, each_layer, hold
from mmn.scores.equations import uniform_draw
from mmn.studies.circuits.tables import ABLATED, ANOTHER, CIRCUIT, DIRECTIONS, RANDOM
from mmn.studies.degradation.interventions import logits_at


@dataclass(frozen=True)
class Means:
    """The mean activation of every unit in each group of positions, over so many pictures."""

    values: Float[Tensor, "groups L m"]
    n_images: int


class MeanActivations:
    """Adds activations up, batch by batch."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._sums: Float[Tensor, "groups L m"] | None = None
        self._counts: Int[Tensor, " groups"] | None = None
        self._n_images = 0

    def add(self, inputs: dict[str, Tensor], captions: Sequence[Sequence[int]]) -> None:
        """One pass over prompts with their captions."""
        groups, n_groups = groups_of(self._model, inputs, captions)
        shape = (self._model.facts.n_layers, self._model.facts.d_mlp)
        if self._sums is None or self._counts is None:
            self._sums = torch.zeros(n_groups, *shape, dtype=torch.float64, device=place_of_wide(groups.device))
            self._counts = torch.zeros(n_groups, dtype=torch.long, device=groups.device)
        sums = self._sums
        assert len(sums) == n_groups, f"prompts of {len(sums)} and of {n_groups} groups of positions"

        def take(layer: int, parts: Sequence[AtTokens], _attention: Tensor | None) -> None:
            for part in parts:
                group = groups[part.row, part.position]
                is_there = group >= 0
                values = wide(part.values[is_there])
                sums[:, layer, part.units].index_add_(0, group[is_there].to(sums.device), values)

        with torch.inference_mode(), each_layer(self._model, take, site=ACTIVATION):
            self._model.module(**with_captions(self._model, inputs, captions), use_cache=False)
        self._counts += torch.bincount(groups[groups >= 0], minlength=n_groups)
        self._n_images += len(captions)

    def means(self) -> Means:
        """The means; 0 in a group without positions."""
        assert self._sums is not None, "no picture was read"
        assert self._counts is not None, "no picture was read"
        counts = self._counts.clamp(min=1)[:, None, None]
        return Means((self._sums / counts.to(self._sums.device)).float().to(counts.device), self._n_images)


def groups_of(
    model: Model, inputs: dict[str, Tensor], captions: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "rows positions"], int]:
    """The group of each position of prompts with their captions, -1 at padding; and how many groups there are.

    The prompt's text before the picture is told position by position, then come all that lies between the picture's
    first and last token, the text behind it position by position, and all of the caption.
    """
    is_image = image_positions(model, inputs)
    width = max(map(len, captions))
    mask = inputs.get("attention_mask")
    starts = [0] * len(captions) if mask is None else mask.int().argmax(1).tolist()
    rows, n_groups = [], 0
    for row, (start, caption) in enumerate(zip(starts, captions, strict=True)):
        places = is_image[row].nonzero()[:, 0]
        first, last = int(places[0]), int(places[-1])
        n_before, n_after = first - start, is_image.shape[1] - 1 - last
        behind = list(range(n_before + 1, n_before + 1 + n_after))
        told = [-1] * start + list(range(n_before)) + [n_before] * (last - first + 1) + behind
        n_groups = n_before + n_after + 2
        rows.append(told + [n_groups - 1] * len(caption) + [-1] * (width - len(caption)))
    return torch.tensor(rows, device=is_image.device), n_groups


def orders(
    own: Int[Tensor, "L m"],
    another: Int[Tensor, "L m"] | None,
    experts: Int[Tensor, "L m"],
    seed: int,
    image_id: str,
    noun: str,
    n_draws: int,
) -> Iterator[tuple[str, int, Int[Tensor, "L m"]]]:
    """The circuit's units of each layer, best first, and those of its controls: selection, draw, order.

    A random unit is of the expert of the circuit's unit in the same place, so that routing is the same and the unit is
    what differs. `experts` are as `experts_of` tells them.
    """
    yield CIRCUIT, 0, own
    if another is not None:
        yield ANOTHER, 0, another
    for draw in range(n_draws):
        scores = uniform_draw(seed, image_id, names.ORIGINAL, noun, "circuit", own.numel(), draw)
        drawn = scores.view(own.shape).argsort(dim=1).to(own.device)
        yield RANDOM, draw, own.scatter(1, _by_expert(own, experts), drawn.gather(1, _by_expert(drawn, experts)))


def _by_expert(order: Int[Tensor, "L m"], experts: Int[Tensor, "L m"]) -> Int[Tensor, "L m"]:
    """The places of an order, those of one expert's units behind the other's."""
    return experts.gather(1, order).argsort(dim=1, stable=True)


def experts_of(model: Model) -> Int[Tensor, "L m"]:
    """The expert of each unit, 0 in a layer without; of a missing unit of a narrow layer the number behind the last."""
    anatomy = model.anatomy
    unit = torch.arange(anatomy.d_mlp, device=anatomy.home)
    sizes = [size or anatomy.d_mlp for size in anatomy.d_experts] or [anatomy.d_mlp] * anatomy.n_layers
    layers = [
        torch.where(unit < width, unit // size, anatomy.d_mlp)
        for width, size in zip(anatomy.widths, sizes, strict=True)
    ]
    return torch.stack(layers)


@dataclass(frozen=True)
class Row:
    """One row of a batch: the first `size` units of each layer of an order, kept or ablated."""

    direction: str
    selection: str
    draw: int
    size: int
    order: Int[Tensor, "L m"]

    def held(self) -> Bool[Tensor, "L m"]:
        """The units that are held at their mean."""
        is_in = torch.zeros(self.order.shape, dtype=torch.bool, device=self.order.device)
        is_in.scatter_(1, self.order[:, : self.size], value=True)
        return is_in if self.direction == ABLATED else ~is_in

    def told(self, logit: float, prob: float) -> dict[str, Any]:
        """The row with what was found."""
        key = {"direction": self.direction, "selection": self.selection, "size": self.size, "draw": self.draw}
        return key | {"logit": logit, "prob": min(prob, 1.0)}


def rows_of(orders: Iterable[tuple[str, int, Int[Tensor, "L m"]]], sizes: Sequence[int]) -> list[Row]:
    """Everything that is measured of one picture."""
    return [
        Row(direction, selection, draw, size, one)
        for selection, draw, one in orders
        for direction in DIRECTIONS
        for size in sizes
    ]


def measure_rows(
    model: Model,
    inputs: dict[str, Tensor],
    before: Sequence[int],
    token_id: int,
    rows: Sequence[Row],
    means: Means,
    batch_size: int,
) -> list[dict[str, Any]]:
    """The noun's logit and probability in each row.

    Args:
        model: its lock is held during the passes.
        inputs: the prompt's model inputs of one picture.
        before: the caption's tokens before the noun.
        token_id: of the noun.
        rows: what is held in each.
        means: what it is held at.
        batch_size: rows of a pass.
    """
    groups, _ = groups_of(model, inputs, [before])
    keys = [hashlib.sha256(row.held().cpu().numpy().tobytes()).digest() for row in rows]
    distinct = dict(zip(keys, rows, strict=True))  # no unit kept, and all: the same whatever the order
    predicted: list[tuple[float, float]] = []
    for start in range(0, len(distinct), batch_size):
        held = torch.stack([row.held() for row in list(distinct.values())[start : start + batch_size]])
        with hold(model, held, means.values, groups[0]):
            logits = wide(logits_at(model, inputs, before, [len(before)] * len(held)))
        y = logits[:, token_id]
        predicted += zip(y.tolist(), (y - logits.logsumexp(-1)).exp().tolist(), strict=True)
    found = dict(zip(distinct, predicted, strict=True))
    return [row.told(*found[key]) for row, key in zip(rows, keys, strict=True)]


def usual_sizes(d_mlp: int) -> list[int]:
    """Units of each layer: none, powers of two, all."""
    powers = [2**power for power in range(d_mlp.bit_length()) if 2**power < d_mlp]
    return [0, *powers, d_mlp]
