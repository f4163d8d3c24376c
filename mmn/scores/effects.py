"""Effect: what each unit does to a concept's logit, measured by zeroing it alone, at p(c).

    effect       y − y(a_i := 0 at p(c))                          in logits
    effect-prob  p − p(a_i := 0 at p(c)), p the softmax of y      in probability

Every other score estimates something like it; this is the measurement that they are held against (OURS; NAM and others
call it causal, ROME's tracing restores where this removes). The unit is zeroed where the word is decided and nowhere
else: what it wrote at the picture's tokens stays, and whatever later layers make of its absence is counted.

A unit of layer l changes only what layers l, …, L − 1 do at one position. So the caption is read with a KV cache, and
for each layer all of its units are zeroed side by side, one a row, in passes of one token through the layers behind
(`hooks.replay`): m · L · (L + 1) / 2 passes of a token through a layer. Row 0 of each batch zeroes nothing: where it
misses more of the logit that was read than rounding, or where the decoder's past is more than keys and values, whole
passes are run instead, which give the same at the price of the whole prefix.

In a mixture of experts only units that are awake at p(c) are zeroed, n_awake rows; a unit that sleeps there has no
effect, 0 exactly. Without a unit later routers may choose other experts: that is in its
effect.

Of chosen layers alone it is m times the layers behind each of them: the last ones cost least. What was not
asked is NaN.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch, decoder_ids, with_captions
from mmn.reading.hooks import Recorded, ablate, zero_one_each
from mmn.reading.rows import repeated, some_of
from mmn.scores.rows import ConceptAt
from mmn.scores.stepping import at_each_concept, is_as_read, of_tokens

BYTES_AT_ONCE = 1 << 28  # of keys, values, logits and activations that the rows of one pass may take
ENCODED = "encoder_outputs"
WHOLE_ROWS = 16  # units zeroed side by side where the whole prefix is read for each


@dataclass(frozen=True)
class Effects:
    """What each unit's absence takes from n concepts: in logits (before a soft cap) and in probability; NaN in layers
    that were not asked.
    """

    logit: Float[Tensor, "n L m"]
    prob: Float[Tensor, "n L m"]


def measure_effects(
    model: Model,
    batch: CaptionBatch,
    said: Sequence[ConceptAt],
    units: Int[Tensor, "n L m"] | None = None,
    layers: range | None = None,
) -> Effects:
    """The effects of all units on the concepts `said`, in their order; the model's lock is held meanwhile.

    Args:
        model: of the units.
        batch: of the captions.
        said: the concepts.
        units: in a mixture of experts those that are awake at each concept, which alone are measured; -1 is none.
        layers: whose units are asked; None for all.
    """
    layers = range(model.facts.n_layers) if layers is None else layers
    shape = (len(said), model.facts.n_layers, model.facts.d_mlp if units is None else units.shape[2])
    effects = Effects(*(_nothing_lost(model, shape, layers) for _ in range(2)))
    left = set(range(len(said)))

    def look(asked: list[int], recorded: Recorded, read: Float[Tensor, " V"]) -> None:
        tokens = torch.tensor([said[number].concept.token_id for number in asked], device=model.device)
        of = None if units is None else units[asked[0]]  # of one pass, at which the same units are awake
        lost = _replayed(model, recorded, tokens, read, of, layers)
        if lost is not None:
            effects.logit[asked], effects.prob[asked] = lost
            left.difference_update(asked)

    at_each_concept(model, batch, said, look)
    for number in sorted(left):
        one = said[number]
        prefix = batch.captions[one.row].token_ids[: one.concept.position]
        with batch.around([one.row]):
            inputs, of = some_of(model, batch.inputs, [one.row]), None if units is None else units[number]
            lost = _whole(model, inputs, prefix, one.concept.token_id, of, layers)
        effects.logit[number], effects.prob[number] = lost
    return effects


def _nothing_lost(model: Model, shape: tuple[int, ...], layers: range) -> Tensor:
    """Zeros in these layers, NaN in all others."""
    lost = torch.full(shape, torch.nan, device=model.device)
    lost[..., layers.start : layers.stop, :] = 0
    return lost


Lost = tuple[Float[Tensor, "tokens L m"], Float[Tensor, "tokens L m"]]


def _replayed(
    model: Model,
    recorded: Recorded,
    tokens: Int[Tensor, " t"],
    read: Float[Tensor, " V"],
    of: Int[Tensor, "L m"] | None,
    layers: range,
) -> Lost | None:
    """What the tokens lose at the pass that was just recorded; None where it cannot be gone again."""
    shape = (model.facts.n_layers, model.facts.d_mlp) if of is None else tuple(of.shape)
    lost_logit, lost_prob = (_nothing_lost(model, (len(tokens), *shape), layers) for _ in range(2))
    size = _rows_at_once(model, recorded)
    for layer, units in _chunks(model, size, layers) if of is None else _chunks_of(of, size, layers):
        final = _without(model, recorded, layer, units if of is None else of[layer, units])
        logit, prob = of_tokens(model, final, tokens)
        if not is_as_read(model, logit[0], read[tokens]):
            return None
        lost_logit[:, layer, units], lost_prob[:, layer, units] = (logit[0] - logit[1:]).T, (prob[0] - prob[1:]).T
    return lost_logit, lost_prob


def _without(model: Model, recorded: Recorded, layer: int, units: Int[Tensor, " n"]) -> Float[Tensor, "rows d"]:
    """The stream before the final norm, of rows without another unit of a layer each; row 0 has all."""
    if not model.anatomy.mixtures:
        change = zero_one_each(torch.cat([units.new_tensor([-1]), units]))
        return recorded.again(layer, len(units) + 1, model.anatomy.ffn_outs[layer], change)
    with ablate(model, _one_each(model, layer, units), first=layer):
        return recorded.onward(layer, len(units) + 1)


def _one_each(model: Model, layer: int, units: Int[Tensor, " n"]) -> Bool[Tensor, "rows L m"]:
    """Another unit of each row but the first."""
    shape = (len(units) + 1, model.facts.n_layers, model.facts.d_mlp)
    mask = torch.zeros(shape, dtype=torch.bool, device=model.device)
    mask[torch.arange(1, len(mask)), layer, units] = True
    return mask


def _chunks(model: Model, size: int, layers: range) -> list[tuple[int, Int[Tensor, " n"]]]:
    """Some units of one layer at a time."""
    units = torch.arange(model.facts.d_mlp, device=model.device)
    return [(layer, some) for layer in layers for some in units.split(size)]


def _chunks_of(of: Int[Tensor, "L m"], size: int, layers: range) -> list[tuple[int, Int[Tensor, " n"]]]:
    """Places of some units of one layer at a time."""
    places = [(layer, (of[layer] >= 0).nonzero()[:, 0]) for layer in layers]
    return [(layer, some) for layer, there in places if len(there) for some in there.split(size)]


def _rows_at_once(model: Model, recorded: Recorded) -> int:
    """Units zeroed side by side: each has keys and values of its own while a layer is computed, and logits."""
    (cache,) = recorded.calls[0].past
    keys = max(one.keys[0].numel() + one.values[0].numel() for one in cache.layers if one.is_initialized)
    values = 2 * keys + 3 * model.anatomy.unembedding.out_features + 4 * model.facts.d_mlp
    mask = model.facts.n_units if model.anatomy.mixtures else 0
    return max(1, min(model.facts.d_mlp, BYTES_AT_ONCE // (4 * values + mask)))


@torch.inference_mode()
def _whole(
    model: Model,
    inputs: dict[str, Tensor],
    prefix: Sequence[int],
    token: int,
    of: Int[Tensor, "L m"] | None,
    layers: range,
) -> tuple[Float[Tensor, "L m"], Float[Tensor, "L m"]]:
    """What a token loses, by passes over the whole prefix with a unit of each row zeroed at its last position.

    `of` are by layer the units that it is asked of, -1 for none; None for all.
    """
    prompt = _encoded(model, with_captions(model, inputs, [prefix]))
    is_last = torch.zeros(decoder_ids(prompt).shape[1], dtype=torch.bool)
    is_last[-1] = True
    shape = (model.facts.n_layers, model.facts.d_mlp)
    of_each = shape if of is None else tuple(of.shape)
    lost_logit, lost_prob = (_nothing_lost(model, of_each, layers) for _ in range(2))
    for layer, units in _chunks(model, WHOLE_ROWS, layers) if of is None else _chunks_of(of, WHOLE_ROWS, layers):
        mask = _one_each(model, layer, units if of is None else of[layer, units])
        with ablate(model, mask, only_at=is_last):
            logits = _last_logits(model, prompt, len(mask))
        logit, prob = model.anatomy.uncapped(logits[:, token]), logits.softmax(-1)[:, token]
        lost_logit[layer, units], lost_prob[layer, units] = logit[0] - logit[1:], prob[0] - prob[1:]
    return lost_logit, lost_prob


def _encoded(model: Model, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """The inputs, with what an encoder makes of them where it can be handed over: no unit of the decoder changes it."""
    if not model.has_encoder or ENCODED not in inspect.signature(model.module.forward).parameters:
        return dict(inputs)
    states = model.module(**inputs, use_cache=False).encoder_last_hidden_state
    return inputs | {ENCODED: BaseModelOutput(last_hidden_state=states)}


def _last_logits(model: Model, inputs: dict[str, Any], n_rows: int) -> Float[Tensor, "rows V"]:
    """The logits that n rows of one picture end with."""
    rows = _repeated(inputs, n_rows)
    few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.module.forward).parameters else {}
    return model.module(**rows, use_cache=False, **few).logits[:, -1].float()


def _repeated(inputs: dict[str, Any], n_rows: int) -> dict[str, Any]:
    plain = repeated({name: value for name, value in inputs.items() if name != ENCODED}, n_rows)
    if ENCODED not in inputs:
        return plain
    (states,) = repeated({ENCODED: inputs[ENCODED].last_hidden_state}, n_rows).values()
    return plain | {ENCODED: BaseModelOutput(last_hidden_state=states)}
