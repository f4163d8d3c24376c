"""What every type's text decoder is made of, measured on its tiny model: `python -m tests.families.survey`.

Writes `survey.md` beside this file: one row for each type, and under the table what is not plainly additive, in words
made from what was measured.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from mmn.models.adapters.structure import Layer, Structure, find_structure, is_norm, matrix_of
from tests.families.decompose import (
    TOLERANCE,
    Recorded,
    Sum,
    between_layers,
    decompose,
    expert_sum,
    fit_numbers,
    mixed_from,
    norm_formula,
    recording,
)
from tests.families.inputs import image_id
from tests.families.tiny import REFUSED, TYPES, build

COLUMNS = (
    *("type", "decoder layer", "mixers", "FFN output", "norm after a part", "multiplier", "experts"),
    *("final norm", "head", "stream error", "unit error", "what else"),
)
PAGE = Path(__file__).with_name("survey.md")


@dataclass(frozen=True)
class Row:
    """One line of the table; `notes` says what a plain Llama decoder does not have."""

    model_type: str
    decoder: str
    layers: str
    ffn: str
    post_norm: str
    multiplier: str
    experts: str
    final_norm: str
    head: str
    error: float
    ffn_error: float
    notes: str

    @property
    def is_plain(self) -> bool:
        """Whether every layer adds its attention and one FFN matrix's output as they are."""
        return not self.notes and self.error < TOLERANCE


def pictures(n: int = 2) -> list[Image.Image]:
    """Noise of a seed."""
    noise = np.random.default_rng(0).integers(0, 256, (n, 60, 80, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in noise]


def survey(model_type: str) -> Row:
    """Builds a type's tiny model, runs it once with a picture, and says what its decoder was seen to do."""
    vlm = build(model_type)
    inputs = vlm.encode(pictures())
    structure = find_structure(vlm.module)
    with torch.no_grad(), recording(vlm.module) as recorded:
        logits = vlm.module(**inputs).logits
    sums = [decompose(layer.path, vlm.module.get_submodule(layer.path), recorded) for layer in structure.layers]
    norm, norm_note, norm_error = _final_norm(vlm.module, structure, recorded)
    head, head_error = _head(vlm.module, structure, recorded, logits)
    ffn_errors = [_ffn_error(vlm.module, layer, recorded) for layer in structure.layers]
    ids = inputs.get("input_ids")
    is_image = None if ids is None else ids == image_id(vlm.module.config)
    notes = [*_stream_notes(vlm.module, structure, recorded, is_image), *_sum_notes(sums), *norm_note]
    for layer, found in zip(structure.layers, sums, strict=True):
        notes += _branch_notes(vlm.module, layer, recorded, found)
    notes += sorted({note for _, note in ffn_errors if note})
    return Row(
        model_type,
        f"{type(vlm.module.get_submodule(structure.layers[0].path)).__name__} × {len(structure.layers)}",
        _layer_kinds(structure, sums),
        _ffn_kinds(structure),
        _post_norms(vlm.module, structure, sums),
        _multipliers(vlm.module, structure, sums),
        _experts(structure),
        norm,
        head,
        max([one.error for layer in sums for one in layer] + [norm_error, head_error]),
        max(error for error, _ in ffn_errors),
        "; ".join(dict.fromkeys(notes)),
    )


def _short(path: str) -> str:
    """A path inside its layer."""
    return re.sub(r"^.*?\.\d+\.", "", path)


def _layer_kinds(structure: Structure, sums: list[list[Sum]]) -> str:
    kinds = []
    for layer, found in zip(structure.layers, sums, strict=True):
        mixers = [m for m in layer.mixers if not re.search("gate|hyper|_hc|norm|residual|input", m)]
        if not mixers:
            mixers = sorted({_short(term.path) for one in found for term in one.terms} - {"mlp", "ffn"})
        kinds.append("+".join(mixers) or "?")
    return ", ".join(dict.fromkeys(kinds))


def _ffn_kinds(structure: Structure) -> str:
    kinds = []
    for layer in structure.layers:
        names = [f"{m.path} {'experts' if m.kind == 'experts' else ''}".strip() for m in layer.ffn_outs]
        shape = "fused gate·up" if layer.is_fused else "gated" if layer.is_gated else "plain"
        kinds.append(f"{' & '.join(names)} ({shape})" if names else "none")
    return ", ".join(dict.fromkeys(kinds))


def _experts(structure: Structure) -> str:
    found = {
        f"{m.n_experts} × {m.d_mlp} {m.layout}" for layer in structure.layers for m in layer.ffn_outs if m.n_experts
    }
    return ", ".join(sorted(found)) or "-"


def _post_norms(module: nn.Module, structure: Structure, sums: list[list[Sum]]) -> str:
    terms = {term.path for layer in sums for one in layer for term in one.terms if one.per != "norm after the sum"}
    norms = sorted({_short(path) for path in terms if is_norm(module.get_submodule(path))})
    return ", ".join(norms) or "-"


def _multipliers(module: nn.Module, structure: Structure, sums: list[list[Sum]]) -> str:
    """Numbers other than 1, each with the scalar of the layer that has its value, if one has."""
    found = []
    for layer, layer_sums in zip(structure.layers, sums, strict=True):
        for one in layer_sums:
            if one.per == "all" and abs(one.kept - 1) > 1e-4 and abs(one.kept) > 1e-4:
                found.append(f"stream × {one.kept:.3g}{_source(one.kept, module.get_submodule(layer.path))}")
            if one.per in ("channel", "token"):
                found.append(f"one number for each {one.per}")
                continue
            scaled = [term for term in one.terms if abs(term.factor - 1) > 1e-4]
            found += [
                f"{_short(term.path)} × {term.factor:.3g}{_source(term.factor, module.get_submodule(layer.path))}"
                for term in scaled
            ]
    return ", ".join(dict.fromkeys(found)) or "-"


def scalars(layer: nn.Module) -> tuple[tuple[str, float], ...]:
    """Single numbers that a layer may multiply with: parameters, buffers, and floats in its attributes."""
    held = [*layer.named_parameters(), *layer.named_buffers()]
    found = {name: float(value) for name, value in held if value.numel() == 1 and value.is_floating_point()}
    own: dict[str, Any] = {k: v for k, v in vars(layer).items() if isinstance(v, float) and not k.startswith("_")}
    own = {k: v for k, v in own.items() if not re.search(r"eps|dropout|layerdrop", k)}
    return tuple(sorted((found | own).items()))


def _source(factor: float, layer: nn.Module) -> str:
    held = scalars(layer)
    named = dict(held) | {f"tanh({n})": float(np.tanh(v)) for n, v in held}
    name = min(named, key=lambda key: abs(named[key] - factor), default="")
    return f" = {name}" if name and abs(named[name] - factor) < 1e-4 else ""


def _final_norm(module: nn.Module, structure: Structure, recorded: Recorded) -> tuple[str, list[str], float]:
    last = recorded.outputs[structure.layers[-1].path]
    into = recorded.inputs[structure.head]
    if structure.final_norm is None:
        if _gap(last, into) < TOLERANCE:
            return "none: the layers end in one", [], 0.0
        makers = [path for path, out in recorded.outputs.items() if out.shape == into.shape and torch.equal(out, into)]
        through = f"{makers[0]} ({type(module.get_submodule(makers[0])).__name__})" if makers else "unnamed arithmetic"
        return "inside what lies before the head", [f"between layers and head is {through}"], 0.0
    part = module.get_submodule(structure.final_norm)
    given, result = recorded.inputs[structure.final_norm], recorded.outputs[structure.final_norm]
    name, error = norm_formula(part, given, result)
    notes = [] if _gap(last, given) < TOLERANCE else [_before_norm(structure, recorded, last, given)]
    scale = _scale(result, into)
    if scale is None:
        notes.append("the head is not given the final norm's output")
    elif abs(scale - 1) > 1e-4:
        name += f", then × {scale:.4g}"
    return name, notes, error


def _before_norm(structure: Structure, recorded: Recorded, last: Tensor, given: Tensor) -> str:
    if last.ndim == 4 and _gap(last.mean(dim=2), given) < TOLERANCE:
        return "the final norm is given the mean of the streams"
    streams = [recorded.inputs[layer.path] for layer in structure.layers] + [last]
    if all(one.shape == given.shape for one in streams) and mixed_from(given, streams) < 5 * TOLERANCE:
        return "the final norm is given a mix of earlier streams, weighed anew for each token"
    return "the last layer's output is not what the final norm is given"


def _gap(left: Tensor, right: Tensor) -> float:
    if left.numel() != right.numel():
        return 1.0
    return float((left.flatten() - right.flatten()).abs().max() / right.abs().max())


def _scale(given: Tensor, result: Tensor) -> float | None:
    """The one number between two tensors, if there is one."""
    if given.numel() != result.numel():
        return None
    x, y = given.flatten().double(), result.flatten().double()
    factor = float((x @ y) / (x @ x))
    return factor if float((factor * x - y).abs().max() / y.abs().max()) < TOLERANCE else None


def _head(module: nn.Module, structure: Structure, recorded: Recorded, logits: Tensor) -> tuple[str, float]:
    part = module.get_submodule(structure.head)
    weight, bias = matrix_of(part).double(), getattr(part, "bias", None)
    raw = recorded.inputs[structure.head].double() @ weight.T + (0 if bias is None else bias.double())
    raw = raw[..., : logits.shape[-1]]
    extras = ["bias"] if bias is not None else []
    words = [one.weight for one in module.modules() if isinstance(one, nn.Embedding)]
    if any(one is part.weight for one in words):
        extras.append("tied")
    shown = logits > -1e30  # Chameleon never says an image token
    if not bool(shown.all()):
        extras.append("image tokens' logits are the lowest number")
        raw, logits = raw[shown], logits[shown]
    if (scale := _scale(raw, logits)) is not None:
        error = _gap(raw * scale, logits.double())
        return ", ".join([*extras, *([f"× {scale:.4g}"] if abs(scale - 1) > 1e-4 else [])]) or "-", error
    for cap in _caps(module):
        if (scale := _scale(raw, torch.atanh((logits.double() / cap).clamp(-1 + 1e-12, 1 - 1e-12)) * cap)) is not None:
            return ", ".join(
                [*extras, f"soft cap {cap:g}", *([f"× {scale:.4g}"] if abs(scale - 1) > 1e-4 else [])]
            ), 0.0
    return ", ".join([*extras, "logits are not the head's output"]), 1.0


def _caps(module: nn.Module) -> list[float]:
    held = [module, module.config, module.config.get_text_config(decoder=True)]  # type: ignore[operator,union-attr]
    return [
        v for one in held for k, v in vars(one).items() if "softcap" in k and "attn" not in k and isinstance(v, float)
    ]


def _ffn_error(module: nn.Module, layer: Layer, recorded: Recorded) -> tuple[float, str]:
    """How far the sum over units misses what each FFN matrix gave, and what is special about it."""
    worst, notes = 0.0, []
    for matrix in layer.ffn_outs:
        path = f"{layer.path}.{matrix.path}"
        owner, _, name = path.rpartition(".")
        if matrix.kind != "experts":
            if path in recorded.outputs:
                part = module.get_submodule(path)
                bias = getattr(part, "bias", None)
                summed = recorded.inputs[path] @ matrix_of(part).T + (0 if bias is None else bias)
                worst = max(worst, _gap(summed, recorded.outputs[path]))
            continue
        experts, arguments = module.get_submodule(owner), recorded.arguments.get(owner, [])
        if not arguments:
            notes.append(f"{_short(owner)} was not called")
            continue
        summed = expert_sum(experts, arguments, getattr(experts, name), matrix.layout)
        worst = max(worst, _gap(summed, recorded.outputs[owner]))
        if len(arguments) == 1:
            notes.append("the router's weight multiplies an expert's input")
        if [name for name, part in experts.named_children() if is_norm(part)]:
            notes.append("a norm after each expert, before the router's weight")
    return worst, "; ".join(notes)


def _branch_notes(module: nn.Module, layer: Layer, recorded: Recorded, sums: list[Sum]) -> list[str]:
    """What lies between a layer's FFN matrices and the part that is added: norms, factors and gates of single ones."""
    outputs = dict(_matrix_outputs(layer, recorded).items())
    notes = []
    for term in {term.path for one in sums for term in one.terms}:
        target, inside = recorded.outputs[term], {p: out for p, out in outputs.items() if p.startswith(term)}
        part = module.get_submodule(term)
        if not inside and not _ATTENTION.search(term) and len(outputs) > 0 and not list(part.children()):
            target, inside = recorded.inputs[term], outputs
        if not inside or term in inside:
            continue
        notes += _branch(target, inside, recorded)
    terms = [term.path for one in sums for term in one.terms]
    direct = any(path.startswith(term) or is_norm(module.get_submodule(term)) for path in outputs for term in terms)
    if outputs and not direct and not any(one.target in module_paths(outputs) - {layer.path} for one in sums):
        added = ", ".join(_short(term) for term in terms)
        notes.append(f"the FFN's output is not added itself: what is added are {added}")
    return notes


def module_paths(outputs: dict[str, Tensor]) -> set[str]:
    """The paths of matrices and of all modules around them."""
    return {".".join(path.split(".")[:n]) for path in outputs for n in range(1, len(path.split(".")) + 1)}


_ATTENTION = re.compile(r"attn|attention|operator|per_layer|norm1")


def _matrix_outputs(layer: Layer, recorded: Recorded) -> dict[str, Tensor]:
    """What each FFN matrix gave; all experts' rows summed where they have rows of their own."""
    outputs = {}
    for matrix in layer.ffn_outs:
        path = f"{layer.path}.{matrix.path}"
        path = path.rpartition(".")[0] if matrix.kind == "experts" else path
        if path in recorded.outputs:
            own_rows = matrix.kind == "experts" and len(recorded.arguments[path]) == 1
            out = recorded.outputs[path]
            outputs[path] = out.reshape(matrix.n_experts, -1, out.shape[-1]).sum(dim=0) if own_rows else out
    return outputs


def _branch(target: Tensor, inside: dict[str, Tensor], recorded: Recorded) -> list[str]:
    names = " and ".join(map(_short, inside))
    if partial := [path for path, out in inside.items() if out.numel() < target.numel()]:
        if all(inside[path].shape[-1] == target.shape[-1] for path in partial):
            return [f"inside the FFN {' and '.join(map(_short, partial))} are each for tokens of one kind"]
        return [
            f"inside the FFN {' and '.join(map(_short, partial))} write to a narrower stream, and a matrix from there"
        ]
    fit = fit_numbers(target, list(inside.values()))
    if fit[1] < TOLERANCE:
        factors = [f"{_short(path)} × {f:.3g}" for path, f in zip(inside, fit[0], strict=True) if abs(f - 1) > 1e-4]
        return [f"inside the FFN {', '.join(factors)}"] if factors else []
    followers = {
        path: after
        for path, out in inside.items()
        for after, given in recorded.inputs.items()
        if given.numel() == out.numel() and torch.equal(given.flatten(), out.flatten()) and "norm" in after
    }
    if (
        len(followers) == len(inside)
        and fit_numbers(target, [recorded.outputs[f] for f in followers.values()])[1] < TOLERANCE
    ):
        return [f"inside the FFN {', '.join(f'{_short(p)} through {_short(f)}' for p, f in followers.items())}"]
    if mixed_from(target, [out.reshape(target.shape) for out in inside.values()]) < 5 * TOLERANCE:
        return [f"inside the FFN {names} are weighed anew for each token"]
    return [f"inside the FFN {names} are changed before they are added"]


def _stream_notes(module: nn.Module, structure: Structure, recorded: Recorded, is_image: Tensor | None) -> list[str]:
    """What is added to the stream between two layers: by a block of its own, or features at image tokens."""
    gaps = between_layers(structure, recorded)
    where = [i + 1 for i, gap in enumerate(gaps) if gap > TOLERANCE]
    if not where:
        return []
    before, after = structure.layers[where[0] - 1].path, structure.layers[where[0]].path
    left, entered = recorded.outputs[before], recorded.inputs[after]
    blocks = [
        path
        for path, given in recorded.inputs.items()
        if given.shape == left.shape and torch.equal(given, left) and path in recorded.outputs
        if recorded.outputs[path].shape == entered.shape and torch.equal(recorded.outputs[path], entered)
    ]
    layers = ", ".join(map(str, where))
    if blocks:
        inside = "; ".join(
            f"{one.kept:.3g} · input + " + " + ".join(f"{t.factor:.3g} · {_short(t.path)}" for t in one.terms)
            for one in decompose(blocks[0], module.get_submodule(blocks[0]), recorded)
        )
        return [f"before layer {layers} a block of its own, {blocks[0]} ({inside})"]
    changed = (entered - left).abs().amax(-1) > 1e-5
    if is_image is not None and changed.shape == is_image.shape and not bool((changed & ~is_image).any()):
        return [f"image features are added at image tokens before layer {layers} (deepstack)"]
    return [f"more is added to the stream before layer {layers}"]


def _sum_notes(sums: list[list[Sum]]) -> list[str]:
    notes = []
    for layer in sums:
        if any(one.error > 5 * TOLERANCE for one in layer):
            notes.append("a layer is not the sum of its parts")
        if any(one.per == "norm after the sum" for one in layer):
            notes.append("a norm after each sum: the stream itself is normed")
        if any(one.per == "channel" for one in layer):
            notes.append("vector gates on stream and parts")
        if any(one.per == "token" for one in layer):
            notes.append("several streams, mixed anew for each token")
    return notes


def page(rows: list[Row], failed: dict[str, str]) -> str:
    """The survey as Markdown."""
    lines = [
        "# What the text decoders are made of",
        "",
        f"Written by `python -m tests.families.survey` (transformers {transformers.__version__}; tiny random models,",
        "float32, two pictures). A layer is `kept · input + sum of factor · part`; factors other than 1 are in",
        "`multiplier`. `stream error`: how far each layer's output is from that sum, the final norm from its formula",
        "and the logits from the head, as a share of the largest value. `unit error`: how far an FFN matrix's (all",
        "experts') output is from the sum over units.",
        "Default configs may be simpler than published checkpoints.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    for row in rows:
        cells = [row.model_type, row.decoder, row.layers, row.ffn, row.post_norm, row.multiplier, row.experts]
        cells += [row.final_norm, row.head, f"{row.error:.0e}", f"{row.ffn_error:.0e}", row.notes or "-"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Not surveyed", ""]
    lines += [f"- `{name}`: {reason}" for name, reason in sorted(failed.items())]
    return "\n".join(lines) + "\n"


def main(types: list[str]) -> None:
    """Surveys the types named, or all, and writes the page when it is all."""
    rows, failed = [], dict(REFUSED)
    for model_type in types or [name for name in TYPES if name not in REFUSED]:
        try:
            rows.append(survey(model_type))
        except (LookupError, KeyError, RuntimeError, AttributeError, ValueError, TypeError) as error:
            failed[model_type] = f"survey failed: {type(error).__name__}: {error}"
            if types:
                raise
    text = page(rows, failed)
    print(text)
    if not types:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    main(sys.argv[1:])
