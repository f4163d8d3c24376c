"""HONES: what a unit writes of a word because attention heads brought it there.

    c_i    = a_i · (W_out[:, i] · u/‖u‖), u = W_U[t]               what unit i writes of the word, at p(c)
    w_h    = p(t) − p(t | head h replaced)                         how much the word needs head h
    hones  = Σ_h w_h · [c_i − c_i(head h replaced)]₊ / Σ_h w_h     over the 30 heads of the largest w_h above 0

A head is replaced by the mean of its layer's other heads, in what the attention's output matrix is given. As HONES's
code has it (neuron_scoring.py, configs), but for what only a data set gives: there c is a mean over samples, w the drop
of a task's score, and u the sum of an answer's rows. Ours: one noun and its first token, w its probability, and the
head replaced at p(c) alone. The units before a head, and all units where no head helps, have 0.

In a mixture of experts the units are those that are awake at p(c), as in every ranking there; with a head replaced the
router may choose others, and then the unit's c_i(h) is 0 (OURS). What an expert would write that only wakes up then is
no unit's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from mmn.errors import BatchError, UsageError
from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch
from mmn.reading.hooks import Recorded, mean_of_others_each, past_is_keys
from mmn.scores.rows import ConceptAt
from mmn.scores.stepping import at_each_concept, is_as_read, of_tokens

MOST_HEADS = 30
OUTPUTS = ("o_proj", "out_proj", "dense", "c_proj", "wo")
QUERIES = ("q_proj", "qkv_proj", "query_key_value", "c_attn")


def head_outputs(model: Model, what: str) -> list[tuple[nn.Module, int]]:
    """By layer the matrix that the attention's heads are given to, side by side, and how many heads there are.

    Raises:
        UsageError: a layer's attention has no such matrix.
    """
    found = []
    for number, layer in enumerate(model.anatomy.layers):
        places = [
            (getattr(part, name), part)
            for part in layer.modules()
            for name in OUTPUTS
            if hasattr(part, name) and any(hasattr(part, query) for query in QUERIES)
        ]
        if len(places) != 1 or not isinstance(places[0][0], nn.Linear) or not _n_heads(places[0][1]):
            raise UsageError(f"{what} is not there for {model.facts.name}: the heads of layer {number} are not known")
        output, attention = places[0]
        found.append((output, _n_heads(attention)))
    return found


def _n_heads(attention: Any) -> int:
    config = getattr(attention, "config", None)
    named = getattr(config, "num_attention_heads", None) or getattr(attention, "num_heads", 0)
    n_heads = named if isinstance(named, int) else 0
    output = next(getattr(attention, name) for name in OUTPUTS if hasattr(attention, name))
    return n_heads if n_heads > 1 and output.in_features % n_heads == 0 else 0


def head_mediated(
    model: Model,
    batch: CaptionBatch,
    said: Sequence[ConceptAt],
    chosen: Sequence[Int[Tensor, "n _"]] = (),
    units: Int[Tensor, "n L m"] | None = None,
) -> Float[Tensor, "n L m"]:
    """The score of every unit for the concepts `said`, in their order; the model's lock is held meanwhile.

    `chosen` and `units` are in a mixture of experts those that are awake at each concept, as in `Measured`.

    Raises:
        UsageError: an encoder-decoder, attention whose heads are not known, or a past that is more than keys and
            values.
        BatchError: a pass that cannot be gone again, of the first word of a prompt that is not read causally.
    """
    require_heads(model, "hones")
    outputs = head_outputs(model, "hones")
    width = model.facts.d_mlp if units is None else units.shape[2]
    scores = torch.zeros(len(said), model.facts.n_layers, width, device=model.device)
    left = set(range(len(said)))

    def look(asked: list[int], recorded: Recorded, read: Float[Tensor, " V"]) -> None:
        for number in asked:
            token = torch.tensor([said[number].concept.token_id], device=model.device)
            needs, is_right = _needs(model, recorded, outputs, token, read)
            if is_right:
                of = None if units is None else units[number]
                row = model.anatomy.w_u(token)
                products = _products(model, row / row.norm(), [one[[number]] for one in chosen], width)
                scores[number] = _mediated(model, recorded, outputs, products, needs, of)
                left.discard(number)

    at_each_concept(model, batch, said, look)
    if len(left) == len(said):
        raise UsageError(f"hones is not there for {model.facts.name}: its layers cannot be gone again at one position")
    if left:
        reason = "hones: the pass of its first word cannot be gone again alone; ask for it with another --prompt"
        raise BatchError("score", dict.fromkeys(sorted({said[number].row for number in left}), reason))
    return scores


def require_heads(model: Model, what: str) -> None:
    """Raises `UsageError` where heads cannot be replaced one by one; nothing is run."""
    if model.has_encoder:
        raise UsageError(f"{what} is not there for encoder-decoders, and {model.facts.name} is one")
    head_outputs(model, what)
    if not past_is_keys(model):
        raise UsageError(
            f"{what} is not there for {model.facts.name}: its attention keeps more than keys and values, so that its "
            "layers cannot be gone again at one position"
        )


Outputs = Sequence[tuple[nn.Module, int]]


def _needs(
    model: Model, recorded: Recorded, outputs: Outputs, token: Int[Tensor, " 1"], read: Float[Tensor, " V"]
) -> tuple[dict[tuple[int, int], float], bool]:
    """By (layer, head) what the word loses of its probability; and whether nothing replaced gives what was read."""
    needs: dict[tuple[int, int], float] = {}
    is_right = True
    for layer, (output, n_heads) in enumerate(outputs):
        heads = torch.arange(-1, n_heads, device=model.device)
        final = recorded.again(layer, len(heads), output, mean_of_others_each(heads, n_heads))
        logit, prob = of_tokens(model, final, token)
        is_right &= is_as_read(model, logit[0], read[token])
        needs |= {(layer, head): (prob[0] - prob[1 + head]).item() for head in range(n_heads)}
    return needs, is_right


def _products(
    model: Model, row: Float[Tensor, "1 d"], chosen: Sequence[Int[Tensor, "1 _"]], width: int
) -> Float[Tensor, "L m"]:
    """Returns row · W_out of every unit, of a mixture of those that are awake."""
    anatomy = model.anatomy
    if not anatomy.mixtures:
        return torch.cat([anatomy.products(layer, row) for layer in range(anatomy.n_layers)])
    found = [one.products(row, at) for one, at in zip(anatomy.mixtures, chosen, strict=True)]
    return torch.cat([pad(one, (0, width - one.shape[1])) for one in found])


def _mediated(
    model: Model,
    recorded: Recorded,
    outputs: Outputs,
    products: Float[Tensor, "L m"],
    needs: dict[tuple[int, int], float],
    units: Int[Tensor, "L m"] | None,
) -> Float[Tensor, "L m"]:
    """Σ_h w_h · [c − c(h)]₊ / Σ_h w_h over the heads that the word needs most."""
    needed = {place: need for place, need in needs.items() if need > 0}
    chosen = dict(sorted(needed.items(), key=lambda item: -item[1])[:MOST_HEADS])
    lost = torch.zeros_like(products)
    for first, (output, n_heads) in enumerate(outputs):
        heads = [head for layer, head in chosen if layer == first]
        if not heads:
            continue
        weights = torch.tensor([chosen[first, head] for head in heads], device=model.device)
        change = mean_of_others_each(torch.tensor([-1, *heads], device=model.device), n_heads)
        activations: dict[int, Tensor] = {}
        recorded.again(first, 1 + len(heads), output, change, activations, units)
        for layer, a in activations.items():
            c = a.float() * products[layer]
            lost[layer] += weights @ (c[:1] - c[1:]).clamp(min=0)
    return lost / sum(chosen.values()) if chosen else lost
