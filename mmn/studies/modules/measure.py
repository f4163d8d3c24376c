"""What attention and FFN of each layer write at p(c), each projected alone: VisEdit's module contributions.

    v = (W_U · norm(output))[t]        p = softmax(W_U · norm(output))[t]

A mixture of experts is one module: what its routed experts write, each as much as its router says, and the shared ones.

As in VisEdit (Chen et al., AAAI 2025, arXiv 2408.09916; its code), with a noun's own token for the answer's and p(c)
for the last token. The final norm is applied to each output as if it were the whole stream, so that v does not add up
over modules: `contribution-folded` and the budget hold the scale at the stream's own instead (OURS). The control (OURS)
is the same for a word that another picture's caption says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn import names
from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.hooks import ATTENTION, FFN
from mmn.runs import reopen, shards
from mmn.runs.plan import ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import reread
from mmn.scores.equations import uniform_draw
from mmn.scores.methods import Measured
from mmn.scores.rows import Tables
from mmn.studies.tables import TABLES, failure_table

STAGE: Final = "modules"
PARTS: Final = ("attention", "ffn")
VERSION: Final = 1


def measure_modules(scored: ScoredRun, progress: ProgressCallback, limit: int | None = None) -> None:
    """Reads the modules of every noun's pass, as shards of the run; resumes.

    Args:
        scored: the run.
        progress: told after each batch, in pictures.
        limit: only the first batches, until that many pictures are reached.

    The control's word is drawn from all nouns that the run says: of a run that goes on, all is measured again where
    there are more.

    Raises:
        UsageError: layers that add something beside attention and FFN, or lack one of both.
    """
    require_two_modules(scored.model)
    said = _said_tokens(scored)
    asked = {"modules": VERSION, "said": sorted(set().union(*said.values()))}

    def answer(batch: str) -> Tables:
        return _measure_batch(scored, shards.read_shard(scored.path / batch), said)

    reopen.for_each_batch(scored, STAGE, asked, answer, progress, STAGE, limit)


def _said_tokens(scored: ScoredRun) -> dict[str, set[int]]:
    """The nouns' tokens that each caption of the run says."""
    tokens: dict[str, set[int]] = {}
    for batch in reopen.batches(scored):
        concepts = shards.read_shard(scored.path / batch)["concept"]
        for row in concepts.select(["image_id", "token_id"]).to_pylist():
            tokens.setdefault(row["image_id"], set()).add(row["token_id"])
    return tokens


def require_two_modules(model: Model) -> None:
    """Raises `UsageError` where layers are more, or other, than one attention and one FFN."""
    anatomy = model.anatomy
    if anatomy.others:
        more = ", ".join(anatomy.others)
        raise UsageError(f"mmn modules is of attention and FFN; layers of {model.facts.name} add {more}, too")
    if None in anatomy.attentions or 0 in anatomy.widths:
        raise UsageError(f"mmn modules is of attention and FFN; layers of {model.facts.name} have one of both alone")


def _measure_batch(scored: ScoredRun, tables: Mapping[str, pa.Table], said: Mapping[str, set[int]]) -> Tables:
    examples, images, failures = reopen.open_all(tables, STAGE)
    rows: list[dict[str, Any]] = []
    for measured, _ in reread(scored, tables, examples, images, ()):
        own = measured.reading.token_ids
        others = _words_elsewhere(measured, said)
        with torch.inference_mode():
            for is_control, tokens in ((False, own), (True, others)):
                if tokens is not None:
                    rows += _rows(measured, *read_alone(measured, tokens), is_control=is_control)
    written = {"module": pa.Table.from_pylist(rows, schema=TABLES["module"])}
    return written | ({"failure": failure_table(failures)} if failures else {})


def read_alone(measured: Measured, tokens: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n L 2"], Float[Tensor, "n L 2"]]:
    """Values v (before a soft cap) and p of the tokens, from what attention and FFN of each layer write."""
    anatomy = measured.model.anatomy
    values, probs = [], []
    for layer in range(anatomy.n_layers):
        alone = torch.stack([_attention(measured, layer), _ffn(measured, layer)], dim=1)
        normed = anatomy.final_norm(alone.to(measured.model.dtype))
        logits = anatomy.logits(anatomy.unembedding(normed).float())
        at = tokens[:, None, None].expand(-1, 2, 1)
        values.append(anatomy.uncapped(logits.gather(2, at))[..., 0])
        probs.append(logits.softmax(-1).gather(2, at)[..., 0])
    return torch.stack(values, dim=1), torch.stack(probs, dim=1)


def _attention(measured: Measured, layer: int) -> Float[Tensor, "n d"]:
    return measured.batch.captured.read(ATTENTION, layer, measured.reading.rows, measured.reading.steps)


def _ffn(measured: Measured, layer: int) -> Float[Tensor, "n d"]:
    """What the FFN adds to the stream, behind the norm after it where there is one, before a multiplier."""
    anatomy, reading = measured.model.anatomy, measured.reading
    if anatomy.post_ffns:
        written = measured.batch.captured.read(FFN, layer, reading.rows, reading.steps)
        return anatomy.post_ffns[layer](written.to(measured.model.dtype)).float()
    a = measured.a[:, layer]
    if anatomy.mixtures:
        written = anatomy.mixtures[layer].written(a, measured.chosen[layer])
    else:
        written = a @ anatomy.w_out(layer).float().T
    bias = anatomy.ffn_bias(layer)
    return written if bias is None else written + bias.float()


def _words_elsewhere(measured: Measured, said: Mapping[str, set[int]]) -> Int[Tensor, " n"] | None:
    """For each concept the token of a noun that other captions of the run say and its own does not; None without."""
    everywhere, drawn = set().union(*said.values()), []
    for one in measured.said:
        image_id = one.example.image_id
        there = sorted(everywhere - said[image_id])
        if not there:
            return None
        draw = uniform_draw(measured.settings.seed, image_id, names.ORIGINAL, one.concept.lemma, STAGE, len(there))
        drawn.append(there[int(draw.argmax())])
    return torch.tensor(drawn, device=measured.model.device)


def _rows(
    measured: Measured, values: Float[Tensor, "n L 2"], probs: Float[Tensor, "n L 2"], *, is_control: bool
) -> Iterator[dict[str, Any]]:
    pairs: Sequence[Any] = list(zip(values.tolist(), probs.tolist(), strict=True))
    for one, (value, prob) in zip(measured.said, pairs, strict=True):
        for layer, by_part in enumerate(zip(value, prob, strict=True)):
            for part, v, p in zip(PARTS, *by_part, strict=True):
                yield {
                    "image_id": one.example.image_id,
                    "noun": one.concept.noun,
                    "is_control": is_control,
                    "layer": layer,
                    "part": part,
                    "value": v,
                    "prob": min(max(p, 0.0), 1.0),
                }
