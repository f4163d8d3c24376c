"""How a derivative is taken along a circuit's edges: as it is, or of a model that was made linear around one pass.

rajaram   the gradient as it is (Rajaram et al., arXiv 2404.14349)
relp      RelP's: norms at the scale that they had, attention weights constant, act(z) as z times a constant, a gated
product's gradient shared half and half, routers' weights constant (`hooks.relevance`); linear, so that
where no bias is added the weights of all inputs into a unit add up to its A_n
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from jaxtyping import Float
from torch import Tensor

from mmn.models.adapters.experts import Routed
from mmn.models.model import Model
from mmn.reading.hooks import OfExperts, frozen_norm, relevance_graph, require_relevance
from mmn.studies.circuits.tables import RAJARAM, RELP


@dataclass(frozen=True)
class Rule:
    """What the one pass that is differentiated runs in, whose values are the plain model's.

    Attributes:
        name: of `tables.RULE_NAMES`.
        around: the pass.
        normed: what the final norm makes of the residual stream, differentiable by the rule.
        of_experts: what a routed expert makes of what it reads, likewise.
        require: raises `UsageError` for a model that it is not there for.
    """

    name: str
    around: Callable[[Model], AbstractContextManager[Any]]
    normed: Callable[[Model, Float[Tensor, "rows d"]], Float[Tensor, "rows d"]]
    of_experts: OfExperts
    require: Callable[[Model], None]


def _plain_norm(model: Model, final: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
    normed: Tensor = model.anatomy.final_norm(final)
    return normed


def _frozen_norm(model: Model, final: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
    anatomy = model.anatomy
    normed = frozen_norm(anatomy.norm, anatomy.final_norm, final)
    bias = getattr(anatomy.final_norm, "bias", None)
    return normed + bias if isinstance(bias, Tensor) else normed


RULES: Final[Mapping[str, Rule]] = {
    one.name: one
    for one in (
        Rule(RAJARAM, lambda _model: nullcontext(), _plain_norm, Routed.units, lambda _model: None),
        Rule(
            RELP,
            relevance_graph,
            _frozen_norm,
            Routed.relevant_units,
            lambda model: require_relevance(model, "--rule relp"),
        ),
    )
}
