"""What the published procedure and our scorer cost on any model, counted: operations, bytes moved, bytes held. OURS.

One picture, T forward passes to write its caption, n nouns, P prompt tokens (the picture's among them), batches of B.
A multiplication and an addition are two operations; numbers have two bytes, ours where said four. Counted is what
differs or dominates: norms, embeddings, sampling and the picture's encoder (once in either) are left out.

    N = L (4 d² + 3 d m)                       the decoder's matrices, with as many key heads as query heads
    read(s) = 2 s N + 2 L d s² + 2 V d         a pass over a sequence of s, attention causal, one row of logits
    step(s) = 2 N + 4 L d s + 2 V d            a pass over one token, s tokens in the cache

    operations, published    Σ_{t<T} read(P + t) + n L m
    operations, ours         read(P) + Σ_{0<t<T} step(P + t) + 2 n · 2 d L m     (raw, and folded for exactness)
    moved, published         2 T (N + V d) + 2 n L m
    moved, ours              (2 T (N + V d) + 2 · 2 d L m) / B + Σ_{0<t<T} 4 L d (P + t)
    prepared once            2 V d L m operations and 2 V L m bytes; ours nothing
    held, published          2 V L m + 2 T L m                                        (prepared, a of every step)
    held, ours               B (4 L d (P + T) + 2 T (L m + L d + 2 d + V) + 3 · 4 n L m)  (cache, captured, scores)

On a GPU a cached step moves weights and hardly computes, a pass over the sequence computes: between the two ratios lies
what a clock would show. It was counted, not run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Shape:
    """A decoder: layers, residual width, FFN width, vocabulary; and the tokens of a usual prompt with its picture."""

    name: str
    L: int
    d: int
    m: int
    V: int
    P: int

    @property
    def N(self) -> int:  # noqa: N802 - as in the formulas
        return self.L * (4 * self.d**2 + 3 * self.d * self.m)


@dataclass(frozen=True)
class Asked:
    """T forward passes for a caption, n nouns in it, B pictures a batch."""

    T: int
    n: int
    B: int


@dataclass(frozen=True)
class Costs:
    """Of one picture: operations, bytes moved; bytes held beside the weights; what is prepared once."""

    operations: float
    moved: float
    held: float
    prepared_operations: float = 0
    prepared_bytes: float = 0


# 576 image tokens, and about 40 of the template and «Describe the image in few words.»
LLAVA: Final = (
    Shape("LLaVA-1.5-7B", 32, 4096, 11008, 32000, 616),
    Shape("LLaVA-1.5-13B", 40, 5120, 13824, 32000, 616),
)


def of_published(shape: Shape, asked: Asked) -> Costs:
    units, head = shape.L * shape.m, shape.V * shape.d
    return Costs(
        operations=sum(_read(shape, shape.P + t) for t in range(asked.T)) + asked.n * units,
        moved=2 * asked.T * (shape.N + head) + 2 * asked.n * units,
        held=2 * shape.V * units + 2 * asked.T * units,
        prepared_operations=2 * head * units,
        prepared_bytes=2 * shape.V * units,
    )


def of_ours(shape: Shape, asked: Asked) -> Costs:
    units, head, width = shape.L * shape.m, shape.V * shape.d, shape.L * shape.d
    cached = [shape.P + t for t in range(1, asked.T)]
    captured = 2 * asked.T * (units + width + 2 * shape.d + shape.V)
    return Costs(
        operations=_read(shape, shape.P) + sum(_step(shape, s) for s in cached) + 2 * asked.n * 2 * shape.d * units,
        moved=(2 * asked.T * (shape.N + head) + 4 * shape.d * units) / asked.B + sum(4 * width * s for s in cached),
        held=asked.B * (4 * width * (shape.P + asked.T) + captured + 12 * asked.n * units),
    )


def explain(shape: Shape, asked: Asked) -> str:
    """Both, with the numbers that went in."""
    theirs, ours = of_published(shape, asked), of_ours(shape, asked)
    own = f"L {shape.L}, d {shape.d:,}, m {shape.m:,}, V {shape.V:,}, N {_short(shape.N)}, P {shape.P}"
    prepared = f"2·V·L·m = 2·{shape.V}·{shape.L}·{shape.m} = {_short(theirs.prepared_bytes)}B"
    making = f"2·V·d·L·m = {_short(theirs.prepared_operations)} operations"
    lines = [
        f"{shape.name}: {own}; T {asked.T}, n {asked.n}, B {asked.B}",
        f"  prepared once  {prepared}, {making}; ours 0",
    ]
    for title, unit in (("operations", ""), ("moved", "B"), ("held", "B")):
        pair = getattr(theirs, title), getattr(ours, title)
        lines.append(f"  {title:14} {_short(pair[0])}{unit} and {_short(pair[1])}{unit}: {pair[0] / pair[1]:.1f}×")
    return "\n".join(lines)


def _short(number: float) -> str:
    """With three digits and the prefix of a thousand's power, as "22.5 G"."""
    power = max(0, min(4, int(math.log10(max(number, 1)) // 3)))
    return f"{number / 1000**power:.3g} {'kMGT'[power - 1] if power else ''}"


def _read(shape: Shape, s: int) -> int:
    return 2 * s * shape.N + 2 * shape.L * shape.d * s**2 + 2 * shape.V * shape.d


def _step(shape: Shape, s: int) -> int:
    return 2 * shape.N + 4 * shape.L * shape.d * s + 2 * shape.V * shape.d
