"""`mmn projector`: means and cosines are those of plain transformers' states, and the probe reads what is there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmn.cli import main
from mmn.errors import UsageError
from mmn.images import open_image
from mmn.models.model import Model
from mmn.reading.hooks import capture_entering, capture_mean_activity
from mmn.runs import reopen
from mmn.runs.plan import Progress
from mmn.studies.patchscopes.states import all_said, partner_of
from mmn.studies.projector import command
from mmn.studies.projector import measure as looking
from mmn.studies.projector.measure import expected_iou, iou, measure_projector
from mmn.studies.projector.probe import f1_parts, folds_of, predictions, shuffled
from mmn.studies.projector.rows import CAPTION, FOLDER, REFERENCE, labels
from tests.scored import interrupted_at_the_second, run_path_of, tables_of
from tests.test_experts import tiny as tiny_mixture
from tests.tiny import UNLIKE, build_family

N_LAYERS = 3
SCORING = ["--methods", "contribution", "--top-k", 3, "--max-new-tokens", 8, "--batch-size", 2, "--device", "cpu"]


@pytest.fixture(scope="module")
def scored(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of three pictures."""
    folder = paint(tmp_path_factory.mktemp("projector") / "pictures", 3)
    cache = folder.parent / "cache"
    words = ["score", "--model", checkpoint, "--images", folder, "--cache", cache, "--progress", "none", *SCORING]
    assert main([*map(str, words)]) == 0
    return cache


@pytest.fixture
def run(cache: Path, tiny: Model) -> reopen.ScoredRun:
    return reopen.open_run(tiny, run_path_of(cache))


def plain(tiny: Model, run: reopen.ScoredRun, number: int):
    """Of a picture with its caption: hidden states, |a| of every layer, where image and caption are, projector's input.

    By transformers' own hidden states, and hooks written here.
    """
    said = all_said(run)[number]
    inputs = tiny.encode([open_image(said.example.source)], run.run.prompt)
    ids = torch.cat([inputs["input_ids"], torch.tensor([said.caption.token_ids])], dim=1)
    active, entering = [], []
    layers = tiny.module.model.language_model.layers
    handles = [
        one.mlp.down_proj.register_forward_pre_hook(lambda _, args: active.append(args[0][0].abs())) for one in layers
    ]
    projector = tiny.module.model.multi_modal_projector
    handles.append(projector.register_forward_pre_hook(lambda _, args: entering.append(args[0])))
    with torch.inference_mode():
        output = tiny.module(
            input_ids=ids, pixel_values=inputs["pixel_values"], attention_mask=ids * 0 + 1, output_hidden_states=True
        )
    for handle in handles:
        handle.remove()
    is_image = ids[0] == tiny.image_token_id
    is_text = torch.arange(ids.shape[1]) >= inputs["input_ids"].shape[1]
    return torch.stack(output.hidden_states)[:, 0], active, is_image, is_text, entering[0].flatten(0, -2)


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one @ other / one.norm() / other.norm()).item()


def test_rows_are_those_of_plain_hidden_states(run: reopen.ScoredRun, tiny: Model, cache: Path) -> None:
    """All but the last layer's cosines, which transformers hands out normed."""
    measure_projector(run)
    found = tables_of(cache, ["projector_mean", "modality", "modality_unit"])
    said = all_said(run)
    states, active, is_image, is_text, before = plain(tiny, run, 0)
    partner = partner_of(said, said[0].example.image_id)
    assert partner is not None
    others, theirs, _, their_text, _ = plain(tiny, run, said.index(partner))
    mine = {name: rows[rows["image_id"] == said[0].example.image_id] for name, rows in found.items()}
    vectors = mine["projector_mean"].set_index("stage")["vector"]
    np.testing.assert_allclose(vectors["before"], before.mean(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(vectors["after"], states[0][is_image].mean(0), rtol=1e-3, atol=1e-4)
    cosines = mine["modality"].set_index(mine["modality"]["layer"].fillna(-1).astype(int))
    assert sorted(cosines.index) == [-1, 0, 1, 2]
    for layer in (-1, 0, 1):
        image, text = states[layer + 1][is_image], states[layer + 1][is_text]
        row = cosines.loc[layer]
        assert row["image_text"] == pytest.approx(cosine(image.mean(0), text.mean(0)), abs=1e-4)
        other = others[layer + 1][their_text].mean(0)
        assert row["image_text_other"] == pytest.approx(cosine(image.mean(0), other), abs=1e-4)
        pairs = [cosine(one, two) for one, two in itertools.combinations(text, 2)]
        assert row["text_text"] == pytest.approx(np.mean(pairs), abs=1e-4)
        if layer >= 0:
            earlier = states[layer][is_image].mean(0)
            assert row["image_next"] == pytest.approx(cosine(image.mean(0), earlier), abs=1e-4)
    units = mine["modality_unit"].set_index(["layer", mine["modality_unit"]["share"].round(3)])
    for layer in range(N_LAYERS):
        at_image, at_text = (set(active[layer][at].mean(0).argsort()[-5:].tolist()) for at in (is_image, is_text))
        at_other = set(theirs[layer][their_text].mean(0).argsort()[-5:].tolist())
        row = units.loc[(layer, 0.1)]
        assert row["n_units"] == 5
        assert row["iou"] == pytest.approx(len(at_image & at_text) / len(at_image | at_text))
        assert row["iou_other"] == pytest.approx(len(at_image & at_other) / len(at_image | at_other))


@pytest.mark.parametrize("name", UNLIKE)
def test_what_the_projector_is_given_is_found_in_families_of_every_kind(name: str) -> None:
    """As many vectors as it makes tokens of, or more; never pixels, nor what it made itself."""
    model, inputs = build_family(name)
    is_image = torch.eq(inputs["input_ids"][0], int(model.image_token_id or 0))
    with torch.inference_mode(), capture_entering(model) as entering:
        model.module(**inputs)
    assert entering.embeddings is not None
    found, made = entering.before(is_image), entering.embeddings[0, is_image]
    assert found is not None
    assert found.ndim == 2
    assert not torch.isin(made, found).any(), "its output"
    entering.embeddings = torch.randn(entering.embeddings.shape)
    assert entering.before(is_image) is None, "image tokens that no module made"


def test_chance_is_what_drawn_sets_have() -> None:
    assert expected_iou(2, 4) == pytest.approx(np.mean([len(b & {0, 1}) / len(b | {0, 1}) for b in pairs_of(4)]))
    assert expected_iou(3, 4) == pytest.approx((1 + 3 * 0.5) / 4)
    assert expected_iou(5, 5) == 1
    assert iou(frozenset({1, 2}), frozenset({2, 3})) == pytest.approx(1 / 3)


def pairs_of(n: int) -> list[set[int]]:
    return [set(pair) for pair in itertools.combinations(range(n), 2)]


def test_the_probe_reads_a_planted_label_and_none_from_noise() -> None:
    """More dimensions than pictures, so that a probe that saw the pictures that it is judged on would read noise."""
    rng = np.random.default_rng(0)
    is_so = rng.random((120, 2)) < 0.4
    vectors = rng.standard_normal((120, 200))
    vectors[:, :50] += 1.5 * is_so[:, :1]
    folds = folds_of([str(number) for number in range(120)])
    assert sorted(np.bincount(folds)) == [24] * 5
    said = predictions(vectors, is_so, folds, one_of=False)
    assert f1_parts(is_so[:, :1], said[:, :1]).mean() > 0.85
    assert f1_parts(is_so[:, 1:], said[:, 1:]).mean() < 0.6
    given = shuffled(is_so, 0)
    assert given.sum(0).tolist() == is_so.sum(0).tolist()
    assert f1_parts(given, predictions(vectors, given, folds, one_of=False)).mean() < 0.6
    folders = np.stack([is_so[:, 0], ~is_so[:, 0]], axis=1)
    assert (predictions(vectors, folders, folds, one_of=True).sum(1) == 1).all()


def test_the_probe_is_the_ridge_that_is_written_down() -> None:
    """Its scores against the primal solution, and its left-out errors against leaving pictures out."""
    from mmn.studies.projector import probe

    rng = np.random.default_rng(1)
    train, test, is_so = rng.standard_normal((14, 4)), rng.standard_normal((3, 4)), rng.random((14, 1)) < 0.5
    y = np.where(is_so, 1.0, -1.0)
    x = (train - train.mean(0)) / train.std(0) / 2
    x_test = (test - train.mean(0)) / train.std(0) / 2
    values, basis = np.linalg.eigh(x @ x.T)
    errors = {}
    for ridge in probe.RIDGES:
        hat = x @ np.linalg.solve(x.T @ x + ridge * np.eye(4), x.T)
        slow = [(one - (hat @ one)) / (1 - np.diag(hat)) for one in (y - y.mean()).T]
        errors[ridge] = (np.array(slow) ** 2).mean()
        found = probe._left_out_error(values, basis, basis.T @ (y - y.mean()), ridge)
        assert found == pytest.approx(errors[ridge])
    best = min(errors, key=lambda ridge: errors[ridge])
    expected = x_test @ np.linalg.solve(x.T @ x + best * np.eye(4), x.T @ (y - y.mean())) + y.mean()
    np.testing.assert_allclose(probe._scores(train, is_so, test)[0], expected)


def test_macro_f1_is_counted_by_hand() -> None:
    """Class one: 1 right, 1 missed, 1 wrong: 2/4. Class two: 2 right, 1 missed: 4/5. The third is nowhere."""
    is_so = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    is_said = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    assert f1_parts(is_so, is_said).mean() == pytest.approx((0.5 + 0.8) / 2)


def test_labels_are_folders_and_nouns_with_pictures_on_both_sides() -> None:
    image_ids = [f"{number:02d}" for number in range(20)]
    sources = pd.DataFrame(
        {
            "image_id": image_ids,
            "source": [f"/x/{'cats' if number < 9 else 'dogs'}/{number}.png" for number in range(20)],
            "reference": [["a dog on a beach."] if number % 2 else ["a beach."] for number in range(20)],
        }
    )
    said = pd.DataFrame({"image_id": image_ids[:8], "lemma": "bus"})
    found = labels(sources, said, image_ids)
    assert {name: list(table.columns) for name, table in found.items()} == {
        FOLDER: ["dogs", "cats"],
        REFERENCE: ["dog"],
    }, "beaches are in all"
    assert found[REFERENCE]["dog"].tolist() == [number % 2 == 1 for number in range(20)]
    bare = sources.assign(reference=[[]] * 20, source="/x/one/a.png")
    assert {name: table["bus"].sum() for name, table in labels(bare, said, image_ids).items()} == {CAPTION: 8}


def test_again_does_nothing_and_an_interrupted_call_goes_on(
    run: reopen.ScoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PICTURES_OF_A_SHARD", 1)
    with interrupted_at_the_second(monkeypatch, looking, "_of_picture"):
        measure_projector(run)
    told: list[Progress] = []
    measure_projector(run, progress=told.append)
    assert [one.done for one in told] == [1, 2, 3]
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.parquet")}
    measure_projector(run)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*.parquet")} == before


def test_the_command_says_what_it_found(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["projector", "latest", "--cache", str(cache), "--device", "cpu", "--progress", "none", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["probe"] == [], "three pictures"
    assert {row["layer"] for row in said["modalities"]} == {0, 1, 2}
    assert -1 <= said["entering"]["image_text"] <= 1
    told = {"run_id": "r", "database": "loaded", "seconds": 1.0}
    command._print_result(told | command.summary(cache, "latest"))
    out = capsys.readouterr().out
    assert "no folder and no noun has pictures enough" in out
    (of_units,) = [line for line in out.splitlines() if line.startswith("units of both modalities, IoU, layer 2: ")]
    assert "top 10 %: its caption 0." in of_units


def test_models_that_cannot_are_refused_or_told_by_name(run: reopen.ScoredRun) -> None:
    by_cross_attention = replace(run.model, family=replace(run.model.family, grid="cross-attention"))
    with pytest.raises(UsageError, match="no image tokens"):
        measure_projector(replace(run, model=by_cross_attention))
    mixture, _ = tiny_mixture("qwen3_vl_moe")
    asked = torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(UsageError, match="not there for mixtures"), capture_mean_activity(mixture, asked):
        pass
    assert looking._why_no_units(mixture)
    assert not looking._why_no_units(run.model)
