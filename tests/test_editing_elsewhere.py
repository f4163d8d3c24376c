"""`mmn edit` of models whose decoder has an encoder beside it, or experts in it: made, judged and taken back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from mmn.cli import main
from mmn.models import deltas
from mmn.models.loading import load_model
from mmn.reading.hooks import ACTIVATION, FINAL, ONCE
from mmn.studies.editing.objective import Aim, rank_one_direction
from tests.scored import run_path_of, tables_of
from tests.test_experts import captured_pass, dense, tiny
from tests.tiny import save_tiny_instructblip_on_t5, save_tiny_llava

TARGETS = ("cow", "egg", "boat")
KINDS = {"top", "another", "random", "rank-one"}


def save(name: str, path: Path) -> Path:
    if name == "t5":
        return save_tiny_instructblip_on_t5(path)
    more = {"num_local_experts": 5, "num_experts_per_tok": 2}
    return save_tiny_llava(path, text_type=hf.MixtralConfig, more=more)


@pytest.fixture(scope="module", params=["t5", "mixtral"])
def scored(request: Any, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """The name of a model, its checkpoint, and a cache with its run of eight pictures."""
    folder = tmp_path_factory.mktemp(request.param)
    path, cache = save(request.param, folder / "model"), folder / "cache"
    words = ["score", "--model", path, "--images", pictures, "--limit", 8, "--prompt", "the", "--cache", cache]
    assert (
        say(*words, "--methods", "contribution-folded", "--top-k", 300, "--max-new-tokens", 6, "--device", "cpu") == 0
    )
    return request.param, path, cache


def say(*words: object) -> int:
    return main([*map(str, words), "--progress", "none"])


def pair(cache: Path) -> tuple[str, str]:
    """The noun that most pictures say, and a word for it."""
    concepts = tables_of(cache, ["concept"])["concept"]
    noun = concepts.groupby("lemma")["image_id"].nunique().idxmax()
    return noun, next(word for word in TARGETS if word != noun)


def test_an_edit_is_made_with_its_controls_and_undone(scored, tmp_path, capfd):
    _, path, cache = scored
    noun, target = pair(cache)
    words = ["edit", "latest", "--cache", cache, "--device", "cpu"]
    sizes = ["--edited", 2, "--unrelated", 2, "--units", 6, "--max-norm", 0.05]
    capfd.readouterr()
    assert say(*words, "--noun", noun, "--to", target, *sizes, "--out", tmp_path / "d.safetensors", "--json") == 0
    edits = json.loads(capfd.readouterr().out)["edits"]
    kinds = {"rank-one" if one["algorithm"] == "rank-one" else one["selection"] for one in edits}
    assert KINDS - {"another"} <= kinds <= KINDS  # no other noun may be said
    for one in edits:
        settings = one["settings"]
        assert settings["checksum_before"] == settings["checksum_after_undo"] != settings["checksum_edited"]
        assert 0 < one["relative_norm"] <= 0.05 + 1e-5
        assert one["perplexity"]["plain"]["before"] != one["perplexity"]["plain"]["after"]
    awake = tables_of(cache, ["score"])["score"]
    edited = load_model(str(path), device="cpu", delta=tmp_path / "d.safetensors")
    assert deltas.checksum(edited) == edits[0]["settings"]["checksum_edited"]
    assert set(map(tuple, edits[0]["units"])) <= set(zip(awake["layer"], awake["unit"], strict=True))
    assert say(*words, "--undo", edits[0]["edit_id"]) == 0
    assert edits[0]["edit_id"] not in set(tables_of(cache, ["edit"])["edit"]["edit_id"])
    assert run_path_of(cache).exists()


@torch.inference_mode()
@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "llama4"])
def test_a_rank_one_edit_of_experts_writes_the_wished_vector_at_the_noun_and_leaves_sleeping_ones_alone(model_type):
    """Of one picture's last token: what its experts write together is s · direction more."""
    model, inputs = tiny(model_type)
    last, first = model.anatomy.n_layers - 1, (torch.tensor([1]), torch.tensor([0]))
    plain, _ = captured_pass(model, inputs)
    both = torch.arange(2)
    a = dense(plain, plain.read_layers(ACTIVATION, both, 0 * both), model.anatomy.d_mlp)[1:]
    towards = torch.randn(model.anatomy.unembedding.in_features)
    (part,) = rank_one_direction(model.anatomy, Aim(a, towards), last)
    assert isinstance(part, deltas.Columns)
    assert deltas.relative_norm(model.anatomy, [part]) == pytest.approx(1)
    assert set(part.units) == set(a[0, last].nonzero()[:, 0].tolist())
    assert len(part.units) < model.anatomy.widths[last]
    with deltas.added(model, [part]):
        edited, _ = captured_pass(model, inputs)
    change = edited.read(FINAL, ONCE, *first) - plain.read(FINAL, ONCE, *first)
    size = change.norm() / towards.norm()
    torch.testing.assert_close(change[0], size * towards, rtol=1e-3, atol=1e-5 * float(change.norm()))
    assert size > 1e-3
