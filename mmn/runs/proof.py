"""Is the model what its anatomy says? Proved on two captioned pictures, before anything is scored.

    head          W_U, the final norm and what follows them give the model's own logits
    exact         the terms of the logits add up to them
    ablation      a unit of the last layer, zeroed, changes the residual stream by what it was said to write
    attribution   a unit's derivative is the slope that the logit has when the unit is made a little smaller
    hooks         none is left on the model

Each is a number, an error, and a limit above what rounding explains; a model that misses one is refused with both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmn.core import Neuron
from mmn.errors import UnsupportedModelError
from mmn.models.float64 import wide
from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch, decoder_ids
from mmn.reading.hooks import ACTIVATION, ATTENTION, FINAL, ONCE, ExpertGraph, ablate, capture
from mmn.scores.budget import Reading, ffn_outputs, logit_budget
from mmn.scores.equations import contribution, folded_rows, written_rows
from mmn.scores.exactness import limit_of, sentence
from mmn.scores.expert_gradients import own_experts_read_images, slopes_of_layer
from mmn.scores.gradients import BYTES_PER_UNIT, GRAPH_BYTES, captured_graph

STEP = 0.01  # the share by which an activation is made smaller and larger: a slope's error goes with its square
SLOPE_LIMIT = 0.02  # of the slope; measured below 2e-3 on every tiny model


@dataclass(frozen=True)
class Proof:
    """Errors, each relative to the largest value at hand; `attribution` is None where it was not tried.

    Attributes:
        head: of the logits of the first token of both captions.
        exact: the largest |residual| / max(|logit|, 1) over the tokens of both captions.
        ablation: of the change of the residual stream before the final norm.
        attribution: of a slope. It is tried in float32, where a slope can be told from rounding, where there are image
            tokens, and where the graph of both captions fits in what one may take; not where image tokens have experts
            of their own, or where a token changed its expert between the two ends of the slope.
    """

    head: float
    exact: float
    ablation: float
    attribution: float | None

    def errors(self) -> dict[str, float]:
        """Those that were measured, by name."""
        return {name: error for name, error in asdict(self).items() if error is not None}


def prove(model: Model, batch: CaptionBatch) -> Proof:
    """The errors of all checks on a captioned batch.

    Raises:
        UnsupportedModelError: one is beyond its limit; the message says which, and by how much.
    """
    proof = Proof(_head(model, batch), _exact(model, batch), _ablation(model, batch), _attribution(model, batch))
    if n := n_hooks(model):
        raise UnsupportedModelError(f"{model.facts.name}: {n} hooks are left on it")
    return proof


def n_hooks(model: Model) -> int:
    """How many hooks of ours are on the model's modules; transformers keeps some of its own there."""
    parts = list(model.module.modules())
    hooks = [hook for part in parts for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())]
    return sum(str(getattr(hook, "__module__", "")).startswith("mmn.") for hook in hooks)


def _require(model: Model, what: str, error: float, limit: float) -> float:
    if not error <= limit:
        raise UnsupportedModelError(
            f"the adapter does not understand {model.facts.name}: {what} by {error:.2g} of the largest, "
            f"and {str(model.dtype).removeprefix('torch.')} explains {limit:g}"
        )
    return error


def _error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-20)).item()


def _first(batch: CaptionBatch) -> tuple[Tensor, Tensor]:
    """Batch rows and forward passes of every caption's first token."""
    n_rows = len(batch.captions)
    return torch.arange(n_rows), torch.zeros(n_rows, dtype=torch.long)


@torch.inference_mode()
def _head(model: Model, batch: CaptionBatch) -> float:
    """The logits of the words that the model may say; some put those of others at the lowest number (Chameleon)."""
    anatomy, (rows, steps) = model.anatomy, _first(batch)
    final = batch.captured.read(FINAL, ONCE, rows, steps).to(model.dtype)
    found = anatomy.logits(anatomy.unembedding(anatomy.final_norm(final)).float())
    own = batch.logits_at(rows, steps)
    said = own > torch.finfo(model.dtype).min / 2
    return _require(model, "W_U, norm and head miss the logits", _error(found[said], own[said]), limit_of(model.dtype))


@torch.inference_mode()
def _exact(model: Model, batch: CaptionBatch) -> float:
    """Of the tokens that were written, at every step of both captions."""
    n_rows, n_steps = len(batch.captions), len(batch.logits)
    rows, steps = torch.arange(n_rows).repeat_interleave(n_steps), torch.arange(n_steps).repeat(n_rows)
    logits = batch.logits_at(rows, steps)
    tokens = logits.argmax(-1)
    folded = folded_rows(model.anatomy, model.anatomy.w_u(tokens), batch.captured.read(FINAL, ONCE, rows, steps))
    reading = Reading(rows, steps, tokens)
    written = written_rows(model.anatomy, folded, ffn_outputs(model.anatomy, batch.captured, reading))
    chosen = batch.captured.chosen(rows, steps)
    scores = contribution(model.anatomy, batch.captured.read_layers(ACTIVATION, rows, steps), written, chosen)
    budget = logit_budget(model.anatomy, batch.captured, reading, folded, written, scores)
    logit = model.anatomy.uncapped(wide(logits.gather(1, tokens[:, None])[:, 0]))
    missed = (logit - budget.total()).abs() / logit.abs().clamp(min=1)
    largest = missed.max().item()
    if not largest <= limit_of(model.dtype):
        word = model.tokenizer.decode([int(tokens[missed.argmax()])])
        raise UnsupportedModelError(
            f"the adapter does not understand {model.facts.name}: {sentence([word], largest, model.dtype)}"
        )
    return largest


@torch.inference_mode()
def _ablation(model: Model, batch: CaptionBatch) -> float:
    """Zeroes, in each row, the unit of the last layer with an FFN whose activation is largest, in one pass over the
    prompt. What reads the stream behind it (a per-layer input, attention in layers without an FFN), and then writes
    something else, is taken out of the change.
    """
    anatomy, (rows, steps) = model.anatomy, _first(batch)
    last = max(layer for layer, width in enumerate(anatomy.widths) if width)
    a = batch.captured.read(ACTIVATION, last, rows, steps)
    largest = a.abs().argmax(dim=1, keepdim=True)
    unit = _units_of(model, batch, last).expand_as(a).gather(1, largest)[:, 0]
    mask = torch.zeros(len(rows), anatomy.n_layers, anatomy.d_mlp, dtype=torch.bool, device=model.device)
    mask[rows, last, unit] = True
    with batch.around(range(len(rows))), capture(model) as without:
        model.module(**batch.inputs, use_cache=False)
    with batch.around(range(len(rows))), ablate(model, mask), capture(model) as zeroed:
        model.module(**batch.inputs, use_cache=False)

    def change(site: str, layer: int) -> Tensor:
        return zeroed.read(site, layer, rows, steps) - without.read(site, layer, rows, steps)

    gains, behind = anatomy.gains, range(last + 1, anatomy.n_layers)
    attention = [gains.attention[layer] * change(ATTENTION, layer) for layer in behind]
    others = [gains.others[layer] * change(term, layer) for term in anatomy.others for layer in (last, *behind)]
    found = change(FINAL, ONCE) - sum([*attention, *others])
    wrote = anatomy.columns(last, unit).T.float() * a.gather(1, largest)
    is_routed = unit < anatomy.mixtures[last].start if anatomy.mixtures else torch.zeros_like(unit, dtype=torch.bool)
    read = ffn_outputs(anatomy, without, Reading(rows, steps, unit))
    expected = gains.ffn[last] * _less(model, last, None if read is None else read[:, last], wrote, is_routed)
    stream = without.read(FINAL, ONCE, rows, steps).abs().max()
    error = ((found - expected).abs().max() / torch.maximum(stream, expected.abs().max())).item()
    return _require(model, "zeroing a unit misses what it was said to write", error, limit_of(model.dtype))


def _units_of(model: Model, batch: CaptionBatch, layer: int) -> Int[Tensor, "n w"]:
    """Which units of a layer the captured activations of every caption's first token are of."""
    anatomy = model.anatomy
    if not anatomy.mixtures:
        return torch.arange(anatomy.d_mlp, device=model.device)[None]
    return anatomy.mixtures[layer].flat_units(batch.captured.chosen(*_first(batch))[layer])


def _less(
    model: Model,
    layer: int,
    ffn: Float[Tensor, "n d"] | Float[Tensor, "n 3 d"] | None,
    wrote: Float[Tensor, "n d"],
    is_routed: Bool[Tensor, " n"],
) -> Float[Tensor, "n d"]:
    """How a layer's part of the residual stream changes, before its gain, where a unit does not write `wrote`.

    Args:
        model: of the layer.
        layer: whose.
        ffn: `budget.ffn_outputs` of the layer.
        wrote: by each row's unit.
        is_routed: whether that is a routed expert's.
    """
    if ffn is None:
        return -wrote
    anatomy = model.anatomy
    norm = anatomy.post_ffns[layer]
    if ffn.ndim == 2:
        return _changed(norm, ffn, -wrote, model.dtype)
    inner = anatomy.mixtures[layer].inner_norms
    routed, plain = (_changed(one, ffn[:, part], -wrote, model.dtype) for part, one in enumerate(inner, start=1))
    return _changed(norm, ffn[:, 0], torch.where(is_routed[:, None], routed, plain), model.dtype)


def _changed(
    norm: nn.Module, x: Float[Tensor, "n d"], more: Float[Tensor, "n d"], dtype: torch.dtype
) -> Float[Tensor, "n d"]:
    return (norm((x + more).to(dtype)) - norm(x.to(dtype))).float().to(x.device)


def _attribution(model: Model, batch: CaptionBatch) -> float | None:
    """The slope of the first row's first token along the activation of the middle layer's unit that matters most."""
    n_values = decoder_ids(batch.inputs).numel() * model.facts.n_units
    is_too_large = n_values * BYTES_PER_UNIT > GRAPH_BYTES
    if model.dtype != torch.float32 or model.image_token_id is None or own_experts_read_images(model) or is_too_large:
        return None
    layers = [layer for layer, width in enumerate(model.anatomy.widths) if width]
    layer, n_rows = layers[(len(layers) - 1) // 2], len(batch.captions)
    token = batch.logits_at(*_first(batch)).argmax(-1)[:1]
    with torch.enable_grad(), batch.around(range(n_rows)):
        with captured_graph(model) as graph:
            model.module(**batch.inputs, use_cache=False)
        y = _logit(model, graph.final[:1, -1], token).sum()
        if isinstance(graph, ExpertGraph):
            slopes = slopes_of_layer(model.anatomy.mixtures[layer], graph, layer, y)
        else:
            (gradient,) = torch.autograd.grad(y, graph.a[layer])
            slopes = (graph.a[layer].detach() * gradient).reshape(-1, gradient.shape[-1]).sum(0)
    unit = int(slopes.abs().argmax())
    (low, by_low), (high, by_high) = (
        _logit_with(model, batch, token, Neuron(layer, unit), 1 + sign * STEP) for sign in (-1, 1)
    )
    if not all(map(torch.equal, by_low, by_high)):
        return None
    slope = slopes[unit].item()
    error = abs((high - low) / (2 * STEP) - slope) / max(abs(slope), 1e-20)
    return _require(model, "a unit's derivative misses the slope of the logit", error, SLOPE_LIMIT)


def _logit(model: Model, final: Float[Tensor, "n d"], token: Tensor) -> Float[Tensor, " n"]:
    """The logit before a soft cap, without the head's bias, which is no matter of slopes."""
    anatomy = model.anatomy
    return anatomy.head_factor * (wide(anatomy.final_norm(final)) * wide(anatomy.w_u(token))).sum(-1)


@torch.inference_mode()
def _logit_with(
    model: Model, batch: CaptionBatch, token: Tensor, unit: Neuron, factor: float
) -> tuple[float, list[Tensor]]:
    """The logit of `token` in the first row where one unit's activation is multiplied by `factor` there; and by layer
    the experts that each token of that row goes through.
    """
    n_rows = len(batch.captions)
    mask = torch.zeros(n_rows, model.anatomy.n_layers, model.anatomy.d_mlp, dtype=torch.bool, device=model.device)
    mask[0, unit.layer, unit.unit] = True
    n_last = decoder_ids(batch.inputs).shape[1] if model.anatomy.d_expert else 1
    with batch.around(range(n_rows)), ablate(model, mask, factor), capture(model, n_last=n_last) as captured:
        model.module(**batch.inputs, use_cache=False)
    first, steps = torch.zeros(n_last, dtype=torch.long), torch.arange(n_last)
    final = captured.read(FINAL, ONCE, first[:1], steps[-1:])
    return _logit(model, final, token).item(), list(captured.chosen(first, steps))
