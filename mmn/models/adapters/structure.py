"""Where a vision-language model's text decoder keeps what writes to its residual stream: found by shape and role.

Nothing here knows a family. `find_structure` looks at modules only, so that a model without weights (on torch's `meta`
device) will do; whether it found the right ones is proved on a forward pass (`runs.doctor`). Roles go by the names that
modules have for what they do (`down_proj`, `fc2`, `wo`, ...) and by shapes: an FFN output matrix has the decoder's
width on its output side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from mmn.models.adapters.elsewhere import held

FFN_OUT = (
    "down_proj",
    "fc2",
    "w2",
    "wo",
    "c_proj",
    "dense_4h_to_h",
    "fc_out",
    "output_linear",
    "fc_2",
    "linear2",
    "dense",
)
GATES = ("gate_proj", "w1", "wi_0", "gate", "ff_gate")
UPS = ("up_proj", "w3", "wi_1", "fc1", "wi", "c_fc", "fc_in", "linear1", "dense_h_to_4h")
FUSED = ("gate_up_proj", "gate_and_up_proj", "ff_proj", "w13", "w13_dn_proj", "linear_fc1")
ACTIVATIONS = ("act_fn", "activation_fn", "act", "activation", "intermediate_act_fn")
POST_FFN = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_ffn_norm", "post_norm2")
INNER_NORMS = ("post_feedforward_layernorm_2", "post_feedforward_layernorm_1")  # of experts, of the matrix beside them
PER_LAYER_INPUT = "post_per_layer_input_norm"
POST_ATTENTION = ("post_self_attn_layernorm", "post_operator_norm", "post_norm1", "post_attention_layernorm")
NOT_TEXT = re.compile(r"vision|visual|image|audio|qformer|vq|perceiver|resampler|protein|tower|vit|projector|merger")
_FFN_PART = re.compile(r"mlp|ffn|feed_?forward|experts|moe|densere|ff\b|\bfc|dense|mixer|intermediate", re.IGNORECASE)
_ATTENTION_PART = re.compile(r"attn|attention|conv\b|mamba|mixer|delta|shortconv", re.IGNORECASE)
_CROSS_PART = re.compile(r"cross|enc", re.IGNORECASE)  # of a layer's second attention: to what the encoder read


@dataclass(frozen=True)
class Matrix:
    """One FFN output matrix of a layer; `weight` is d_model by units, whatever the module's own layout.

    Attributes:
        kind: linear, conv1d, or experts (`n_experts` matrices stacked in one parameter).
        layout: for experts: "e d m" or "e m d".
    """

    path: str
    kind: str
    d_mlp: int
    n_experts: int = 0
    layout: str = ""


@dataclass(frozen=True)
class Layer:
    """One layer of the decoder: paths from the layer.

    Attributes:
        path: of the layer.
        activation: the FFN's non-linearity, or where that is no module the matrix whose output it is given; "" for
            neither.
        mixers: what mixes positions: attention, linear attention, a convolution.
        cross: the attention to an encoder's output that a layer has beside one of its mixers, "" for none.
        post_attention: norm between a mixer and the residual stream, "" for none.
        post_ffn: norm between W_out and the residual stream, "" for none.
        inner_norms: before that, the norm of what the experts wrote and of what the matrix beside them wrote; or ().
        per_layer_input: what adds an input of the layer's own to the stream, "" for none.
    """

    path: str
    ffn_outs: tuple[Matrix, ...]
    activation: str
    is_gated: bool
    is_fused: bool
    norms: tuple[str, ...]
    mixers: tuple[str, ...]
    cross: str
    post_attention: str
    post_ffn: str
    inner_norms: tuple[str, ...]
    per_layer_input: str


@dataclass(frozen=True)
class Structure:
    """What was found, as paths from the model."""

    decoder: str
    layers: tuple[Layer, ...]
    final_norm: str | None
    head: str
    d_model: int


def find_structure(module: nn.Module) -> Structure:
    """The text decoder's layers with their FFN output matrices, its final norm and the unembedding.

    Raises:
        LookupError: when there is no unembedding, or no list of layers with an FFN that writes to its width.
    """
    head = find_head(module)
    head_path = path_of(module, head)
    d_model = matrix_of(head).shape[1]
    lists = [found for found in _layer_lists(module, d_model) if found[0] != head_path]
    if not lists:
        raise LookupError(f"no list of layers has an FFN that writes {d_model} values")
    path = max(lists, key=lambda found: _closeness(module, found[0], head_path))[0]
    layers = module.get_submodule(path).children()
    found = tuple(_layer(f"{path}.{i}", layer, d_model) for i, layer in enumerate(layers))
    return Structure(path.rpartition(".")[0], found, find_final_norm(module, path, d_model), head_path, d_model)


def find_head(module: nn.Module) -> nn.Module:
    """The matrix that turns a hidden state into logits: the last one of what the model calls its output embeddings."""
    named = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None  # type: ignore[operator]
    heads = [part for part in (named or module).modules() if _is_matrix(part)]
    if named is None:
        words = {part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)}
        matrices = [
            (name, part) for name, part in module.named_modules() if _is_matrix(part) and not NOT_TEXT.search(name)
        ]
        heads = [part for _, part in matrices if matrix_of(part).shape[0] in words and matrix_of(part).shape[0] > 256]
    if not heads:
        raise LookupError("the model has no unembedding: it does not say words")
    return max(heads, key=lambda part: matrix_of(part).shape[0])


def find_final_norm(module: nn.Module, layers_path: str, d_model: int) -> str | None:
    """The last norm beside the list of layers that is not one of embeddings; none where layers end in one."""
    parent = layers_path.rpartition(".")[0]
    owner = module.get_submodule(parent) if parent else module
    names = [name for name, part in owner.named_children() if is_norm(part, d_model)]
    final = [name for name in names if not re.search(r"emb|pre|input|first|image|vision|per_layer", name)]
    final = final or [name for name in names if name == "embedding_norm"]  # LFM2's name for its last norm
    return f"{parent}.{final[-1]}".lstrip(".") if final else None


def path_of(module: nn.Module, part: nn.Module) -> str:
    """The first path under which a module holds a part."""
    return next(name for name, candidate in module.named_modules() if candidate is part)


def is_norm(part: nn.Module, width: int | None = None) -> bool:
    """Whether a module holds nothing but one scale (and shift) of a width, and is called a norm."""
    own = [parameter for parameter in part.parameters(recurse=False) if parameter.ndim == 1]
    named = re.search(r"norm|\bln", type(part).__name__, re.IGNORECASE) is not None
    return named and not list(part.children()) and (width is None or not own or own[0].numel() == width)


def matrix_of(part: nn.Module) -> Tensor:
    """The weight of a matrix module, output by input; of an offloaded one without values."""
    assert isinstance(part.weight, Tensor), part
    return _by_output(part, part.weight)


def values_of(part: nn.Module) -> Tensor:
    """`matrix_of`, of an offloaded module fetched from where its weight is kept."""
    return _by_output(part, held(part, "weight"))


def _by_output(part: nn.Module, weight: Tensor) -> Tensor:
    return weight.T if type(part).__name__ == "Conv1D" else weight


def ffn_matrices(layer: nn.Module, d_model: int) -> tuple[Matrix, ...]:
    """The FFN output matrices of one layer, each with its number of units."""
    found = []
    for path, part in layer.named_modules():
        if _is_attention_path(path):
            continue
        name = path.rpartition(".")[2]
        if name in FFN_OUT and _is_matrix(part) and matrix_of(part).shape[0] == d_model and _is_ffn(layer, path):
            kind = "conv1d" if type(part).__name__ == "Conv1D" else "linear"
            found.append(Matrix(path, kind, matrix_of(part).shape[1]))
        found += [
            _stacked(f"{path}.{name}".lstrip("."), weight, d_model, getattr(part, "is_transposed", False))
            for name, weight in part.named_parameters(recurse=False)
            if weight.ndim == 3 and name.split(".")[0] in (*FFN_OUT, "output_weight", "down_proj_weight")
        ]
    return tuple(found)


def _stacked(path: str, weight: Tensor, d_model: int, is_transposed: bool) -> Matrix:
    n_experts, first, second = weight.shape
    layout = "e m d" if is_transposed or (second == d_model and first != d_model) else "e d m"
    return Matrix(path, "experts", second if layout == "e d m" else first, n_experts, layout)


def _is_matrix(part: nn.Module) -> bool:
    weight = getattr(part, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(part, nn.Embedding)


def _is_attention_path(path: str) -> bool:
    return any(_ATTENTION_PART.search(step) and not _FFN_PART.search(step) for step in path.split("."))


def _is_ffn(layer: nn.Module, path: str) -> bool:
    """A matrix called as an FFN's output, with a matrix beside or before it that makes its units."""
    parent, _, name = path.rpartition(".")
    owner = layer.get_submodule(parent) if parent else layer
    if name == "dense":  # BERT: `output.dense` after `intermediate.dense`; its attention has an `output.dense`, too
        return parent == "output"
    return any(child in (*GATES, *UPS, *FUSED) for child, _ in owner.named_children())


def _layer_lists(module: nn.Module, d_model: int) -> Iterator[tuple[str, nn.ModuleList]]:
    for path, part in module.named_modules():
        is_outer = isinstance(part, nn.ModuleList) and len(part) > 0 and not re.search(r"\.\d+\.", f"{path}.")
        if is_outer:
            assert isinstance(part, nn.ModuleList)
            if sum(bool(ffn_matrices(layer, d_model)) for layer in part) * 3 > len(part):
                yield path, part


def _closeness(module: nn.Module, path: str, head_path: str) -> tuple[int, int, int, int]:
    """Not of an image, a decoder's rather than an encoder's, beside the embedding of words, near the head."""
    owner = module.get_submodule(path.rpartition(".")[0])
    embeds = any(isinstance(child, nn.Embedding) or "embed" in name for name, child in owner.named_children())
    common = len([a for a, b in zip(path.split("."), head_path.split("."), strict=False) if a == b])
    return (not NOT_TEXT.search(path), "encoder" not in path.replace("encoder_decoder", ""), common, embeds)


def _layer(path: str, layer: nn.Module, d_model: int) -> Layer:
    names = {name.rpartition(".")[2] for name, _ in [*layer.named_modules(), *layer.named_parameters()]}
    norms = tuple(name for name, part in layer.named_modules() if name.count(".") < 2 and is_norm(part, d_model))
    matrices = ffn_matrices(layer, d_model)
    mixers = [path for path in _mixers(layer) if not any(one.path.startswith(f"{path}.") for one in matrices)]
    crosses = [path for path in mixers if _CROSS_PART.search(path)] if len(mixers) > 1 else []
    is_fused = bool(names & set(FUSED))
    post_ffn = next((name for name in POST_FFN if name in norms), "")
    return Layer(
        path=path,
        ffn_outs=matrices,
        activation=activation_of(layer, matrices[0].path) if matrices else "",
        is_gated=is_fused or bool(names & {"gate_proj", "w3", "wi_1"}),
        is_fused=is_fused,
        norms=norms,
        mixers=tuple(path for path in mixers if path not in crosses[:1]),
        cross=crosses[0] if crosses else "",
        post_attention=next((name for name in POST_ATTENTION if post_ffn and name in norms), ""),
        post_ffn=post_ffn,
        inner_norms=INNER_NORMS if set(INNER_NORMS) <= set(norms) else (),
        per_layer_input=PER_LAYER_INPUT if PER_LAYER_INPUT in norms else "",
    )


def _mixers(layer: nn.Module) -> list[str]:
    """Paths of what mixes positions: of a sublayer that adds to the stream itself (T5) its attention."""
    found = []
    for path, part in _parts_of(layer):
        inside = [f"{path}.{name}" for name, child in part.named_children() if _is_mixer(name, child)]
        if _is_sublayer(part):
            found += inside
        elif _is_mixer(path, part):
            found.append(path)
    return found


def _parts_of(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A layer's children; of those in a list (T5's `layer`) each."""
    for name, part in layer.named_children():
        if isinstance(part, nn.ModuleList):
            yield from ((f"{name}.{number}", one) for number, one in enumerate(part))
        else:
            yield name, part


def _is_sublayer(part: nn.Module) -> bool:
    return any(name == "layer_norm" and is_norm(child) for name, child in part.named_children())


def _is_mixer(path: str, part: nn.Module) -> bool:
    has_weights = bool(list(part.parameters()))  # no dropout
    return has_weights and _ATTENTION_PART.search(path) is not None and "norm" not in path and not is_norm(part)


def activation_of(layer: nn.Module, ffn_out: str) -> str:
    """The non-linearity beside an FFN's output matrix, else the matrix that feeds it."""
    parent = ffn_out.rpartition(".")[0]
    beside = [name for name, _ in layer.get_submodule(parent).named_children()]
    found = next((name for name in (*ACTIVATIONS, *GATES, *UPS) if name in beside), "")
    return f"{parent}.{found}".lstrip(".") if found else ""
