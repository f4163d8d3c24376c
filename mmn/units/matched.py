"""Random units that match a set of units, rank for rank: the control of whatever is done to the set.

    unit of the set  ─►  a random unit of the same layer; in a mixture of experts of the same expert

So every first k of the control has as many units in each layer as the first k of the set has, and its units are awake
at the same tokens. Drawn without replacement; the set's own units are not left out. P1's control (arXiv 2308.01544) is
the same for rankings (`scores.equations.rank_matched`); matching experts is OURS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mmn.core import Neuron
from mmn.models.adapters.anatomy import Anatomy


def matched_units(anatomy: Anatomy, units: Sequence[Neuron], key: Sequence[str]) -> tuple[Neuron, ...]:
    """As many random units; `key` says what the draw is for, and the same key gives the same units."""
    orders: dict[tuple[int, range], list[int]] = {}
    drawn = []
    for one in units:
        among = same_part(anatomy, one)
        order = orders.setdefault((one.layer, among), [])
        if not order:
            order += _order(among, [*key, str(one.layer), str(among.start)])
        drawn.append(Neuron(one.layer, order.pop()))
    return tuple(drawn)


def same_part(anatomy: Anatomy, unit: Neuron) -> range:
    """The units of a unit's layer, of its expert where the layer has experts, or of those behind all experts."""
    if not anatomy.mixtures:
        return range(anatomy.d_mlp)
    mixture = anatomy.mixtures[unit.layer]
    if mixture.routed is None or unit.unit >= mixture.start:
        return range(mixture.start, mixture.n_units)
    first = unit.unit - unit.unit % mixture.routed.d_expert
    return range(first, first + mixture.routed.d_expert)


def _order(among: range, key: Sequence[str]) -> list[int]:
    digest = hashlib.sha256("\0".join(["matched", *key]).encode()).digest()
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "big")))
    return [among.start + int(one) for one in generator.permutation(len(among))]
