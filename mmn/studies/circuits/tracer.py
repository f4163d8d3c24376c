"""A circuit as a file for circuit-tracer's viewer (github.com/safety-research/circuit-tracer, `frontend/graph_models`).

    metadata   slug (the file's name), scan (the model), prompt_tokens, prompt; our run and circuit besides
    nodes      tokens (layer `E`), units (`cross layer transcoder`, which the viewer has for a feature of a layer), the
               noun (`logit`): id LAYER_UNIT_POSITION, words as `clerp`, effect as `activation`; `feature` is layer and
               unit (flat in its layer) in one number, from which the viewer reads both again; `jsNodeId` leaves a
               unit's position out
    links      source, target, weight in logits; and what share of it goes through attention
    qParams    what the viewer shows at first: nothing pinned

A circuit of one picture has all tokens of its prompt. One of several pictures, whose tokens are not the same, has two:
all image tokens, and all others; a unit then stands where most of it is. `influence` is, as there, the share of all
|effect| that a node and the larger ones have. The viewer lists the graphs of a folder in `graph-metadata.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mmn.core import Neuron, unit_name
from mmn.errors import UsageError
from mmn.safety.atomic_files import write_whole
from mmn.studies.circuits.tables import IMAGE, NOUN, TEXT, token_name

LISTING: Final = "graph-metadata.json"
GROUPS: Final = ("all image tokens", "prompt and caption")  # tokens of a circuit of several pictures
_N_WORDS: Final = 5


def graph(
    slug: str,
    run_id: str,
    model: str,
    n_layers: int,
    circuit: Mapping[str, Any],
    units: Sequence[Mapping[str, Any]],
    edges: Sequence[Mapping[str, Any]],
    words: Mapping[tuple[int, int], Sequence[str]],
    d_experts: Sequence[int] = (),
) -> dict[str, Any]:
    """The file's object.

    Args:
        slug: its file's name, without the ending.
        run_id: of the circuit's run.
        model: by name.
        n_layers: of it.
        circuit: its row of `circuit`.
        units: its rows of `circuit_unit`.
        edges: its rows of `circuit_edge`.
        words: what units write, by layer and unit; units without are named alone.
        d_experts: of the model (`ModelFacts`), by which its units are named.
    """
    tokens = list(circuit["tokens"])
    nodes = dict(_tokens(circuit, tokens)) | dict(_units(units, words, d_experts, bool(tokens)))
    nodes[NOUN] = _noun(circuit, n_layers, (len(tokens) or len(GROUPS)) - 1)
    links = [
        {"source": nodes[one["source"]]["node_id"], "target": nodes[one["target"]]["node_id"]}
        | {"weight": one["weight"], "through_attention": one["through_attention"]}
        for one in edges
        if one["source"] in nodes
    ]
    about = {"run_id": run_id, "circuit": circuit["circuit"], "rule": circuit["rule"], "program": "mmn"}
    return {
        "metadata": {
            "slug": slug,
            "scan": model,
            "transcoder_list": [],
            "prompt_tokens": tokens or list(GROUPS),
            "prompt": " ".join(tokens) or f"{circuit['n_found']} pictures that say {circuit['noun']}",
            "node_threshold": None,
            "schema_version": 1,
            "info": about,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": list(nodes.values()),
        "links": links,
    }


def write_graph(out: Path, **of: Any) -> None:
    """Writes the file, and adds it to the list of its folder's graphs (raises as `_listed`)."""
    found = graph(out.stem, **of)
    listing = out.parent / LISTING
    others = [one for one in _listed(listing) if one["slug"] != out.stem]
    write_whole(out, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False).encode())
    write_whole(listing, json.dumps({"graphs": [*others, found["metadata"]]}, indent=1, ensure_ascii=False).encode())


def _listed(listing: Path) -> list[dict[str, Any]]:
    """The graphs of a folder.

    Raises:
        UsageError: the file that names them is none of the viewer's.
    """
    try:
        found = json.loads(listing.read_text(encoding="utf-8"))["graphs"] if listing.exists() else []
        return [{"slug": one["slug"], **one} for one in found]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{listing} is no list of graphs: remove it, or write to another folder") from error


def _node(
    node_id: str, js_node_id: str, feature: int, layer: str, position: int, kind: str, clerp: str
) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "feature": feature,
        "layer": layer,
        "ctx_idx": position,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": js_node_id,
        "clerp": clerp,
        "influence": None,
        "activation": None,
    }


def _tokens(circuit: Mapping[str, Any], tokens: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """By the names of edges' ends."""
    names = [token_name(position) for position in range(len(tokens))] if tokens else [IMAGE, TEXT]
    is_image = set(circuit["image_at"]) if tokens else {0}
    for position, (name, text) in enumerate(zip(names, tokens or GROUPS, strict=True)):
        kind = IMAGE if position in is_image else TEXT
        ids = f"E_{position}_{position}", f"E_{position}-{position}"
        yield name, _node(*ids, position, "E", position, "embedding", f"{kind}: {text}")


def _units(
    units: Sequence[Mapping[str, Any]],
    words: Mapping[tuple[int, int], Sequence[str]],
    d_experts: Sequence[int],
    is_one_picture: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    influence = _influence([abs(one["effect"]) for one in units])
    for one, share in zip(units, influence, strict=True):
        neuron = Neuron(int(one["layer"]), int(one["unit"]))
        position = int(one["position"]) if is_one_picture else int(one["at_image"] < 0.5)
        said = " · ".join(str(word).strip() for word in words.get((neuron.layer, neuron.unit), ())[:_N_WORDS])
        name = unit_name(neuron, d_experts)
        clerp = f"{name}: {said}" if said else name
        ids = f"{neuron.layer}_{neuron.unit}_{position}", f"{neuron.layer}_{neuron.unit}-0"
        feature = paired(neuron.layer, neuron.unit)
        node = _node(*ids, feature, str(neuron.layer), position, "cross layer transcoder", clerp)
        yield name, node | {"influence": share, "activation": float(one["effect"])}


def paired(layer: int, unit: int) -> int:
    """Both in one number (Cantor's pairing), as the viewer takes them apart for files of schema 1."""
    return (layer + unit) * (layer + unit + 1) // 2 + unit


def _influence(sizes: Sequence[float]) -> list[float]:
    """For each, the share of all that it and the larger ones have."""
    whole = sum(sizes) or 1.0
    return [sum(other for other in sizes if other >= one) / whole for one in sizes]


def _noun(circuit: Mapping[str, Any], n_layers: int, position: int) -> dict[str, Any]:
    token_id, prob = int(circuit["token_id"]), float(circuit["prob"])
    clerp = f'Output "{circuit["token"]}" (p={prob:.3f})'
    ids = f"{n_layers + 1}_{token_id}_{position}", f"L_{token_id}-{position}"
    node = _node(*ids, token_id, str(n_layers + 1), position, "logit", clerp)
    return node | {"token_prob": prob, "is_target_logit": True, "activation": float(circuit["logit"])}
