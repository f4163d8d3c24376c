"""The proof at load: each check catches what it is for, by itself, and says which it was."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from mmn.cli import main
from mmn.errors import UnsupportedModelError
from mmn.models.loading import load_model
from mmn.reading.captions import caption_encoded
from mmn.runs import proof
from mmn.runs.proved import told
from mmn.runs.shards import find_runs, read_run
from mmn.store import Store
from tests.families.test_build import pictures


def captioned(model):
    return caption_encoded(model, model.encode(pictures(), model.exact_prompt("A picture of")), 4)


@contextmanager
def nothing(*_given):
    yield


def test_all_errors_of_a_model_that_is_understood_are_rounding(tiny):
    found = proof.prove(tiny, captioned(tiny))
    assert max(found.head, found.exact, found.ablation) <= 1e-5
    assert found.attribution is not None
    assert found.attribution <= 5e-3
    assert set(found.errors()) == {"head", "exact", "ablation", "attribution"}


def test_head_is_proved(tiny):
    wrong = replace(tiny, anatomy=replace(tiny.anatomy, head_factor=0.5))
    with pytest.raises(UnsupportedModelError, match=r"W_U, norm and head miss the logits by 0\.5 of the largest"):
        proof.prove(wrong, captioned(tiny))


def test_sum_of_terms_is_proved(tiny):
    gains = replace(tiny.anatomy.gains, ffn=(0.5,) * 3)
    with pytest.raises(UnsupportedModelError, match="the terms of the logit of"):
        proof.prove(replace(tiny, anatomy=replace(tiny.anatomy, gains=gains)), captioned(tiny))


def test_ablation_is_proved(tiny, monkeypatch):
    monkeypatch.setattr(proof, "ablate", nothing)
    with pytest.raises(UnsupportedModelError, match="zeroing a unit misses what it was said to write"):
        proof.prove(tiny, captioned(tiny))


def test_derivative_is_proved(tiny, monkeypatch):
    monkeypatch.setattr(proof, "_logit_with", lambda *given: (float(given[-1]), []))
    with pytest.raises(UnsupportedModelError, match="a unit's derivative misses the slope of the logit"):
        proof.prove(tiny, captioned(tiny))


def test_a_hook_of_ours_that_is_left_is_noticed(tiny):
    handle = tiny.anatomy.layers[0].register_forward_hook(_ours)
    try:
        with pytest.raises(UnsupportedModelError, match="1 hooks are left on it"):
            proof.prove(tiny, captioned(tiny))
    finally:
        handle.remove()
    assert proof.n_hooks(tiny) == 0


def _ours(*_given) -> None:
    pass


_ours.__module__ = "mmn.reading.hooks.capture"


@pytest.mark.parametrize("reason", ["dtype", "size"])
def test_the_derivative_is_left_out_where_it_cannot_be_told_or_kept(checkpoint, monkeypatch, reason):
    model = load_model(str(checkpoint), "bfloat16" if reason == "dtype" else "float32", "cpu")
    if reason == "size":
        monkeypatch.setattr(proof, "GRAPH_BYTES", 1e3)
    found = proof.prove(model, captioned(model))
    assert found.attribution is None
    assert "attribution" not in found.errors()


def test_the_proof_is_kept_with_the_run_and_in_the_database(checkpoint, tmp_path):
    words = ["--images", "gallery", "--limit", "2", "--cache", str(tmp_path), "--device", "cpu", "--progress", "none"]
    assert main(["score", "--model", str(checkpoint), *words]) == 0
    (path,) = find_runs([tmp_path / "runs"])
    kept = read_run(path)[0].proof
    assert set(kept) == {"head", "exact", "ablation", "attribution"}
    with Store.open(tmp_path) as store:
        assert store.run("latest")["proof"] == kept


def test_a_proof_is_told_with_every_error_that_was_measured(tiny):
    line = told(proof.prove(tiny, captioned(tiny)).errors())
    assert line.startswith("Proved on two pictures: ")
    assert line.count(" miss") == 4
    assert told({"exact": 2e-7}) == "Proved on two pictures: the terms of a logit miss 2e-07 of it."
    assert told({}) == ""
