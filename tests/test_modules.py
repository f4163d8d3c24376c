"""Modules read alone: against plain transformers, and what `mmn modules` tells of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mmn.cli import main
from mmn.errors import UsageError
from mmn.images import open_image
from mmn.models.model import Model
from mmn.store import Store
from mmn.studies.modules.measure import require_two_modules
from mmn.studies.modules.queries import ModuleQueries
from mmn.studies.modules.rows import ALONE, ANOTHER, FOLDED, by_layer, sums
from tests.scored import run_path_of
from tests.tiny import build_family

SCORING = ["--methods", "contribution", "--top-k", 3, "--max-new-tokens", 8, "--batch-size", 2, "--device", "cpu"]


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--progress", "none"]


@pytest.fixture(scope="module")
def measured(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of four pictures in two batches whose modules were read. Read only."""
    folder = paint(tmp_path_factory.mktemp("modules") / "pictures", 4)
    cache = folder.parent / "cache"
    assert main(words("score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING)) == 0
    assert main(words("modules", "latest", "--cache", cache, "--device", "cpu")) == 0
    return cache


def plain(model: Model, source: str, tokens: list[int], position: int) -> list[Tensor]:
    """By layer the logits of attention's and FFN's output at the position, each behind the final norm alone."""
    module: Any = model.module
    inputs = model.processor(
        images=[open_image(Path(source))], text=[model.exact_prompt("A picture of")], return_tensors="pt"
    )
    ids = torch.cat([inputs["input_ids"], torch.tensor([tokens[:position]], dtype=torch.long)], 1)
    seen: list[Tensor] = []
    handles = [
        part.register_forward_hook(
            lambda _module, _args, output: seen.append((output[0] if isinstance(output, tuple) else output)[0, -1])
        )
        for layer in module.model.language_model.layers
        for part in (layer.self_attn, layer.mlp)
    ]
    module(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"], use_cache=False)
    for handle in handles:
        handle.remove()
    return [module.lm_head(module.model.language_model.norm(one)) for one in seen]


@torch.inference_mode()
def test_values_are_those_of_plain_transformers(measured: Path, tiny: Model) -> None:
    with Store.open(measured) as store:
        concepts, captions, images = (store.table("latest", name) for name in ("concept", "caption", "image"))
        rows = store.ask(ModuleQueries).modules("latest")
    source = images.set_index("image_id")["source"]
    tokens = captions.set_index("image_id")["tokens"]
    for one in concepts.sample(3, random_state=0).itertuples():
        logits = plain(tiny, source[one.image_id], [int(token) for token in tokens[one.image_id]], one.position)
        mine = rows[(rows["image_id"] == one.image_id) & (rows["noun"] == one.noun) & ~rows["is_control"]]
        assert list(mine["part"]) == ["attention", "ffn"] * 3
        assert list(mine["layer"]) == [0, 0, 1, 1, 2, 2]
        expected = torch.stack(logits)
        assert np.allclose(mine["value"], expected[:, one.token_id], rtol=1e-4, atol=1e-4)
        assert np.allclose(mine["prob"], expected.softmax(-1)[:, one.token_id], atol=1e-5)
    assert rows["is_control"].mean() == 0.5


def test_the_budget_is_what_scoring_kept_and_the_same_call_reads_nothing_again(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path: path.stat().st_mtime_ns for path in run_path_of(measured).rglob("module.parquet")}
    assert main(words("modules", "latest", "--cache", measured, "--device", "cpu", "--json")) == 0
    told = {row["what"]: row for row in json.loads(capsys.readouterr().out)["sums"]}
    assert files
    assert files == {path: path.stat().st_mtime_ns for path in run_path_of(measured).rglob("module.parquet")}
    with Store.open(measured) as store:
        budget, concepts = (store.table("latest", name) for name in ("budget", "concept"))
    layers = budget[budget["term"].isin(["attention", "ffn"])].groupby(["image_id", "noun"])["logit"].sum()
    shares = layers / concepts.set_index(["image_id", "noun"])["logit"]
    assert told[FOLDED]["mean"] == pytest.approx(shares.groupby("image_id").mean().mean())
    assert told[FOLDED]["n"] == concepts["image_id"].nunique() > 1


def rows_of(value: list[float], prob: list[float], share: list[float], *, is_control: bool = False) -> pd.DataFrame:
    places = [(layer, part) for layer in range(2) for part in ("attention", "ffn")]
    layer, part = zip(*places, strict=True)
    told = {"image_id": "a", "noun": "cat", "is_control": is_control, "layer": layer, "part": part, "logit": 4.0}
    return pd.DataFrame(told | {"value": value, "prob": prob, "share": share})


def test_contributions_and_sums_are_those_of_a_hand_count() -> None:
    own = rows_of([8.0, -2.0, 0.0, 2.0], [0.25, 1.0, 0.5, 0.01], [2.0, -1.0, 1.0, 1.0])
    found = pd.concat([own, rows_of([1.0, 1.0, -4.0, 1.0], [1.0] * 4, [0.0] * 4, is_control=True)])
    shown = by_layer(found).set_index(["line", "layer", "part"])["mean"].sort_index()
    assert shown[ALONE].tolist() == pytest.approx([0.5, -0.5, 0.0, 0.05])
    assert shown[ANOTHER].tolist() == pytest.approx([0.5, 0.5, -1.0, 0.5])
    assert shown[FOLDED].tolist() == pytest.approx([0.5, -0.25, 0.25, 0.25])
    added = sums(found).set_index("what")["mean"]
    assert added[ALONE] == pytest.approx(2.0)
    assert added[FOLDED] == pytest.approx(0.75)
    assert added["rank correlation"] == pytest.approx(pd.Series([4, 1, 2, 3]).corr(pd.Series([4, 1, 2.5, 2.5])))


def test_a_run_that_was_not_measured_and_models_of_other_parts_are_refused(measured: Path) -> None:
    with pytest.raises(UsageError, match="layers of blip-2 on t5 add cross-attention, too"):
        require_two_modules(build_family("blip-2 on t5")[0])
    assert main(["figure", "modules", "--run", "latest", "--cache", str(measured), "--concepts", "unsaid"]) != 0
