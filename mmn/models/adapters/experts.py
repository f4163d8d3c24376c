"""A layer's FFN where layers differ, as in a mixture of experts: whose units they are, and what each of them writes.

    router ─► g_e of the few experts that a token goes through      a_i = g_e · act(gate · x)_i · (up · x)_i
    unit i of expert e:   a_i ─► W_out[e][:, i] ─► residual stream;   0 for a token that does not go through e

Units of a layer lie flat, one expert's after the other's: unit = e · `d_expert` + i. A shared expert, which every token
goes through, follows the routed ones; a matrix as wide as several of them counts as several. A layer of such a
model without a mixture has one matrix and no experts, or no FFN at all (Nemotron-H). A model without experts whose
layers have different numbers of units (Gemma 4 E2B) is read likewise.

    unit ─► W_out ─► its experts' or its matrix' own norm (Gemma 4) ─► sum ─► norm after the FFN ─► residual stream

What is stored and ranked is compact: for each token the units of the experts that it went through, in the order of
their numbers, then the shared ones. Nothing here holds a number for each unit of an expert that is asleep.

Left out: experts that only image tokens go through (Ernie) write nothing at a position that predicts a word, and
are no units here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from mmn.errors import UnsupportedModelError
from mmn.models.adapters.elsewhere import held
from mmn.models.adapters.structure import FUSED, Layer, Matrix, activation_of, values_of

EXPERTS = "experts"  # the kind of a stacked matrix (`structure.Matrix`)
FACTOR = "routed_scaling_factor"  # of a block: what its routed experts wrote is multiplied by it
SHARED_GATE = "shared_expert_gate"  # of a block: whose sigmoid the shared expert's output is multiplied by
ROUTERS = ("gate", "router")  # of a block: what chooses the experts
CHOSEN = "top_k_experts"  # k in a router's config (Gemma 4)
OF_IMAGES = "vision"  # in the path of experts that image tokens alone go through


@dataclass(frozen=True)
class Routed:
    """The routed experts of one layer: one module that holds all their matrices.

    Attributes:
        module: called with tokens, the numbers of each one's experts and the router's weights of them; where the
            weight is on the input (Llama 4), with as many copies of all tokens as there are experts, weighed.
        layout: of its output matrices: "e d m" or "e m d".
        n_chosen: experts that a token goes through.
        factor: what it wrote is multiplied by.
        block: what is told which tokens are an image's, where others go through experts of their own.
    """

    module: Any
    n_experts: int
    d_expert: int
    layout: str
    n_chosen: int
    factor: float = 1.0
    block: nn.Module | None = None

    def w_out(self, expert: int) -> Float[Tensor, "d m"]:
        weight = held(self.module, "down_proj")[expert]
        return weight if self.layout == "e d m" else weight.T

    def units(self, x: Float[Tensor, "n d"], expert: int) -> Float[Tensor, "n m"]:
        """act(gate) · up of one expert, before the router's weight; by the module's own rule where it has one."""
        return self._acted(self._made(x, expert))

    @property
    def is_gated(self) -> bool:
        return hasattr(self.module, "gate_up_proj")

    def gate_acts(self, x: Float[Tensor, "n d"], expert: int) -> Float[Tensor, "n m"]:
        """act(gate) of one expert, without the up factor; of one without a gate `units`.

        Read by the module's own rule as what one more of up brings, since some add 1 to up (MiniMax).
        """
        made = self._made(x, expert)
        if not self.is_gated:
            return self._acted(made)
        z = made[:, : self.d_expert]
        with_one, without = (torch.cat([z, torch.full_like(z, up)], dim=1) for up in (1.0, 0.0))
        return self._acted(with_one) - self._acted(without)

    @property
    def multiplies_up(self) -> bool:
        """Whether nothing is added to up before act(gate) multiplies it (MiniMax adds 1), or there is no gate."""
        made = torch.ones(1, 2 * self.d_expert)
        made[:, self.d_expert :] = 0
        return not self.is_gated or not self._acted(made).any()

    def relevant_units(self, x: Float[Tensor, "n d"], expert: int) -> Float[Tensor, "n m"]:
        """`units`, linear in what the expert makes of x by RelP's rules: act(z) is z times a constant, and act(gate)
        and up get half of the gradient each.
        """
        made = self._made(x, expert)
        a = self._acted(made).detach()
        factors = made.split(self.d_expert, dim=1)
        each = [factor * torch.where(factor == 0, 0.0, a / factor).detach() for factor in factors]
        return torch.stack(each).mean(0)

    def slopes(self, x: Float[Tensor, "n d"], expert: int) -> Float[Tensor, "n m"]:
        """Returns z · ∂/∂z of `units`, z the gate's pre-activation."""
        with torch.enable_grad():
            made = self._made(x, expert).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._acted(made).sum(), made)
        return (made.detach() * gradient)[:, : self.d_expert]

    def _made(self, x: Float[Tensor, "n d"], expert: int) -> Float[Tensor, "n _"]:
        """Pre-activations of one expert: z, and behind it what a gate is multiplied with."""
        name = "gate_up_proj" if self.is_gated else "up_proj"
        weight = held(self.module, name)[expert].to(x)
        return x @ weight if self.layout == "e m d" else linear(x, weight)

    def _acted(self, made: Float[Tensor, "n _"]) -> Float[Tensor, "n m"]:
        experts = self.module
        if not self.is_gated:
            return experts.act_fn(made)
        if hasattr(experts, "_apply_gate"):
            return experts._apply_gate(made)
        gate, up = made.chunk(2, dim=-1)
        return experts.act_fn(gate) * up


@dataclass(frozen=True)
class Mixture:
    """One layer's FFN in a model that has mixtures of experts.

    Attributes:
        routed: None in a layer that has none.
        plain: W_out of the shared experts, or of a layer without a mixture; None where neither is.
        gate: whose sigmoid, one number for each token, `plain`'s output is multiplied by.
        inner_norms: of what the routed experts wrote and of what `plain` wrote, before both are added; or ().
        activation: `plain`'s non-linearity, whose input is z; where that is no module, the matrix whose output begins
            with z. None without `plain`, or where neither is known.
        router: what chooses the routed experts and weighs them; None where it is not known by name.
        is_gated: whether the activation of `plain` is act(gate) · up.
    """

    routed: Routed | None
    plain: nn.Linear | None
    gate: nn.Module | None = None
    inner_norms: tuple[nn.Module, ...] = ()
    activation: nn.Module | None = None
    router: nn.Module | None = None
    is_gated: bool = True

    @property
    def start(self) -> int:
        """The first unit of `plain`."""
        return 0 if self.routed is None else self.routed.n_experts * self.routed.d_expert

    @property
    def n_compact(self) -> int:
        """Units that one token's activations are of."""
        n_routed = 0 if self.routed is None else self.routed.n_chosen * self.routed.d_expert
        return n_routed + (0 if self.plain is None else self.plain.in_features)

    @property
    def n_units(self) -> int:
        return self.start + (0 if self.plain is None else self.plain.in_features)

    def flat_units(self, chosen: Int[Tensor, "n k"]) -> Int[Tensor, "n w"]:
        """The units that are compact for tokens that went through these experts."""
        parts = [chosen.new_empty(len(chosen), 0)]
        if self.routed is not None:
            within = torch.arange(self.routed.d_expert, device=chosen.device)
            parts.append((chosen[..., None] * self.routed.d_expert + within).flatten(1))
        if self.plain is not None:
            plain = torch.arange(self.start, self.n_units, device=chosen.device)
            parts.append(plain.expand(len(chosen), -1))
        return torch.cat(parts, dim=1)

    def products(
        self, rows: Float[Tensor, "n d"] | Float[Tensor, "n 2 d"], chosen: Int[Tensor, "n k"]
    ) -> Float[Tensor, "n w"]:
        """Returns rows · W_out of the compact units; of two rows the first is for routed experts' units."""
        rows, of_plain = (rows, rows) if rows.ndim == 2 else rows.unbind(1)
        parts = [rows.new_empty(len(rows), 0)]
        if self.routed is not None:
            found = rows.new_empty(*chosen.shape, self.routed.d_expert)
            for expert in chosen.unique().tolist():
                row, slot = (chosen == expert).nonzero(as_tuple=True)
                found[row, slot] = rows[row] @ self.routed.w_out(expert).to(rows)
            parts.append(found.flatten(1))
        if self.plain is not None:
            parts.append(of_plain @ values_of(self.plain).to(rows))
        return torch.cat(parts, dim=1)

    def written(self, a: Float[Tensor, "n w"], chosen: Int[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """What the compact units write together, without the bias of the matrix beside the experts."""
        n_routed = 0 if self.routed is None else self.routed.n_chosen * self.routed.d_expert
        found = torch.zeros((), device=a.device)
        if self.plain is not None:
            found = a[:, n_routed : self.n_compact] @ values_of(self.plain).to(a).T
        if self.routed is None:
            return found
        of_slots = a[:, :n_routed].unflatten(1, (self.routed.n_chosen, -1))
        for expert in chosen.unique().tolist():
            row, slot = (chosen == expert).nonzero(as_tuple=True)
            written = of_slots[row, slot] @ self.routed.w_out(expert).to(a).T
            found = a.new_zeros(len(a), written.shape[1]).index_add(0, row, written) + found
        return found

    def columns(self, units: Int[Tensor, " n"]) -> Float[Tensor, "d n"]:
        """Columns of W_out of some units."""
        return torch.stack([self.column(unit) for unit in units.tolist()], dim=1)

    def column(self, unit: int) -> Float[Tensor, " d"]:
        """One unit's column of W_out; a view."""
        if self.routed is not None and unit < self.start:
            return self.routed.w_out(unit // self.routed.d_expert)[:, unit % self.routed.d_expert]
        assert self.plain is not None, unit
        return values_of(self.plain)[:, unit - self.start]

    def w_out(self) -> Float[Tensor, "d m"]:
        """All columns of all experts side by side: a copy, as large as the layer's experts are."""
        matrices = [] if self.routed is None else [self.routed.w_out(e) for e in range(self.routed.n_experts)]
        return torch.cat([*matrices, *([] if self.plain is None else [values_of(self.plain)])], dim=1)

    def by_expert(self, units: Int[Tensor, " n"]) -> Iterator[tuple[int, Int[Tensor, " i"], Int[Tensor, " i"]]]:
        """Routed units by expert: its number, where in `units` its own are, and their numbers within it."""
        assert self.routed is not None, "no routed experts"
        expert, within = units // self.routed.d_expert, units % self.routed.d_expert
        for number in expert[units < self.start].unique().tolist():
            at = (expert == number).nonzero()[:, 0]
            yield number, at, within[at]


def differ(layers: tuple[Layer, ...]) -> bool:
    """Whether there are experts, or layers with another number of units than others, or with none."""
    matrices = [layer.ffn_outs for layer in layers]
    has_experts = any(matrix.kind == EXPERTS for of_layer in matrices for matrix in of_layer)
    widths = {of_layer[0].d_mlp if of_layer else 0 for of_layer in matrices}
    return has_experts or len(widths) > 1


def find_mixture(module: nn.Module, found: Layer) -> Mixture:
    """The experts of one layer.

    Raises:
        UnsupportedModelError: experts of a form that no units are known for.
    """
    stacked = [matrix for matrix in found.ffn_outs if matrix.kind == EXPERTS and OF_IMAGES not in matrix.path]
    plain = [matrix for matrix in found.ffn_outs if matrix.kind != EXPERTS]
    if len(stacked) > 1 or len(plain) > 1 or any(one.kind != "linear" for one in plain):
        paths = ", ".join(f"{matrix.path} ({matrix.kind})" for matrix in found.ffn_outs) or "none"
        raise UnsupportedModelError(f"{found.path} should have routed experts and shared ones, or one FFN: {paths}")
    out = module.get_submodule(plain[0].path) if plain else None
    assert out is None or isinstance(out, nn.Linear), type(out)
    activation = _activation(module, plain[0].path) if plain else None
    if not stacked:
        return Mixture(None, out, activation=activation, is_gated=found.is_gated)
    routed = _routed(module, found, stacked[0])
    block = module.get_submodule(stacked[0].path.rpartition(".")[0].rpartition(".")[0])
    gate = getattr(block, SHARED_GATE, None)
    if gate is not None and out is not None and out.bias is not None:
        raise UnsupportedModelError(f"{found.path}: a shared expert with a gate and a bias is not supported")
    inner_norms = tuple(module.get_submodule(path) for path in found.inner_norms)
    if inner_norms and out is None:
        raise UnsupportedModelError(f"{found.path}: a norm of experts' output, with no matrix beside them, is unknown")
    router = next((getattr(block, name) for name in ROUTERS if isinstance(getattr(block, name, None), nn.Module)), None)
    return Mixture(routed, out, gate, inner_norms, activation, router, found.is_gated)


def _activation(layer: nn.Module, ffn_out: str) -> nn.Module | None:
    """The non-linearity beside an output matrix, else the matrix that feeds it; one for gate and up begins with z."""
    parent = ffn_out.rpartition(".")[0]
    beside = layer.get_submodule(parent)
    fused = next((name for name in FUSED if hasattr(beside, name)), "")
    found = activation_of(layer, ffn_out) or (f"{parent}.{fused}".lstrip(".") if fused else "")
    return layer.get_submodule(found) if found else None


def _routed(layer: nn.Module, found: Layer, matrix: Matrix) -> Routed:
    path = matrix.path.rpartition(".")[0]
    experts = layer.get_submodule(path)
    _require_known(f"{found.path}.{path}", experts, matrix)
    block = layer.get_submodule(path.rpartition(".")[0])
    others = [one for one in found.ffn_outs if one.kind == EXPERTS and one is not matrix]
    return Routed(
        experts,
        matrix.n_experts,
        matrix.d_mlp,
        matrix.layout,
        n_chosen=_n_chosen(f"{found.path}.{path}", block),
        factor=float(getattr(block, FACTOR, 1.0)),
        block=layer.get_submodule(path.split(".")[0]) if others else None,
    )


def _n_chosen(name: str, block: nn.Module) -> int:
    """What the block, its router or that one's config calls k."""
    holders = [block, *(getattr(block, router, None) for router in ROUTERS)]
    for holder, key in [(one, "top_k") for one in holders] + [
        (getattr(one, "config", None), CHOSEN) for one in holders
    ]:
        if isinstance(found := getattr(holder, key, None), int):
            return found
    raise UnsupportedModelError(f"{name}: how many experts a token goes through is not told by it or its router")


def _require_known(name: str, experts: nn.Module, matrix: Matrix) -> None:
    """No biases, no norm behind each, matrices under the names that are read."""
    parts = {name for name, _ in experts.named_parameters()}
    known = parts in ({"gate_up_proj", "down_proj"}, {"up_proj", "down_proj"})
    if not known or matrix.path.rpartition(".")[2] != "down_proj":
        raise UnsupportedModelError(f"{name} ({type(experts).__name__}) holds {', '.join(sorted(parts))}: unknown")
