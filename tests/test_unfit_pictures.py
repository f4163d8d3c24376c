"""Pictures, concepts and whole runs that a model gives no sound numbers for: failures by name, and never «complete»."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmn import names
from mmn.cli import main
from mmn.core import ScoreSettings
from mmn.errors import UnsupportedModelError
from mmn.images import list_source
from mmn.models.model import Model
from mmn.runs.engines.local import carry_out
from mmn.runs.plan import Plan, Progress, count, plan
from mmn.runs.reopen import ScoredRun
from mmn.runs.shards import finished_shards, read_run, read_shard
from mmn.scores import batch, methods
from mmn.scores.exactness import inexact
from mmn.store import Store
from mmn.studies.invariance import region

WIDE = (150, 40)  # the picture that something is wrong with


def quiet(_progress: Progress) -> None:
    """Nobody looks."""


@pytest.fixture
def folder(paint: Any, tmp_path: Path) -> Path:
    """Three pictures as the others are, and one that is wide."""
    made: Path = paint(tmp_path / "pictures", 3)
    Image.linear_gradient("L").resize(WIDE).convert("RGB").save(made / "wide.png")
    return made


def planned(model: Model, folder: Path, **settings: Any) -> Plan:
    usual = ScoreSettings(prompt="A picture of", top_k=20, max_new_tokens=6, batch_size=4)
    listing = list_source(str(folder))
    return plan(model.facts, listing, str(folder), model.exact_prompt("A picture of"), replace(usual, **settings))


def rows_of(run_path: Path) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in sorted(finished_shards(run_path)):
        for table, values in read_shard(run_path / name).items():
            rows.setdefault(table, []).extend(values.to_pylist())
    return rows


class Picky:
    """A processor that fails on the wide picture, or writes NaN for its pixels, as numbers too large for a format."""

    def __init__(self, processor: Any, *, raises: bool, all_of_them: bool = False) -> None:
        self.processor, self.raises, self.all_of_them = processor, raises, all_of_them

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)

    def __call__(self, images: list[Image.Image], **more: Any) -> Any:
        wrong = [self.all_of_them or image.size == WIDE for image in images]
        if self.raises and any(wrong):
            raise ValueError("absolute aspect ratio must be smaller than 3")
        inputs = self.processor(images=images, **more)
        inputs["pixel_values"][torch.tensor(wrong)] = torch.nan
        return inputs


@pytest.mark.parametrize(
    ("raises", "stage", "message"),
    [
        (True, "encode", "cannot encode pictures of 150×40 pixels: absolute aspect ratio"),
        (False, "caption", "the logits are not finite, and first of all what goes into the first layer"),
    ],
)
def test_a_picture_that_the_model_cannot_take_is_a_failure_and_its_batch_is_unharmed(
    raises, stage, message, tiny, folder, tmp_path
):
    picky = replace(tiny, processor=Picky(tiny.processor, raises=raises))
    run_path, outcome = carry_out(planned(picky, folder), picky, tmp_path / "runs", quiet)
    rows = rows_of(run_path)
    (failure,) = rows["failure"]
    assert outcome.status == names.COMPLETE
    assert (Path(failure["source"]).name, failure["stage"]) == ("wide.png", stage)
    assert message in failure["message"]
    (folder / "wide.png").unlink()
    other_path, _ = carry_out(planned(tiny, folder), tiny, tmp_path / "others", quiet)
    assert rows["score"] == rows_of(other_path)["score"]


@pytest.mark.parametrize("raises", [True, False])
def test_a_run_whose_pictures_all_fail_is_not_complete(raises, tiny, folder, tmp_path):
    picky = replace(tiny, processor=Picky(tiny.processor, raises=raises, all_of_them=True))
    run_path, outcome = carry_out(planned(picky, folder, batch_size=2), picky, tmp_path / "runs", quiet)
    assert (outcome.status, count(run_path).n_failed, count(run_path).n_images) == (names.FAILED, 4, 0)


def test_a_score_of_broken_pictures_alone_ends_with_1_and_failed(checkpoint, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        Image.effect_noise((60, 50), 80).save(tmp_path / "pictures" / f"{number}.png")
        content = (tmp_path / "pictures" / f"{number}.png").read_bytes()
        (tmp_path / "pictures" / f"{number}.png").write_bytes(content[: len(content) // 2])
    words = ["score", "--model", str(checkpoint), "--images", str(tmp_path / "pictures"), "--device", "cpu"]
    assert main([*words, "--cache", str(tmp_path / "cache"), "--json", "--progress", "none"]) == 1
    assert '"status": "failed"' in capsys.readouterr().out


def test_nan_weights_of_a_loaded_model_fail_every_picture(tiny, folder, tmp_path, checkpoint):
    """A weight that is damaged after the check, as memory can be: still no run that is complete with 0 concepts."""
    from mmn.models.loading import load_model

    model = load_model(str(checkpoint), device="cpu")
    model.anatomy.ffn_outs[1].weight.data[3, 4] = torch.nan
    run_path, outcome = carry_out(planned(model, folder), model, tmp_path / "runs", quiet)
    messages = {row["message"] for row in rows_of(run_path)["failure"]}
    assert outcome.status == names.FAILED
    assert len(messages) == 1
    assert "output of layer 1 is not" in messages.pop()


def test_gradients_that_overflow_fail_their_pictures_and_not_the_run(tiny, folder, tmp_path, monkeypatch):
    def overflowing(measured: methods.Measured) -> methods.Scored:
        scored = attribution(measured)
        scored.score[[index for index, one in enumerate(measured.said) if one.row == 0]] = torch.inf
        return scored

    attribution = methods.score_attribution
    monkeypatch.setattr(methods, "score_attribution", overflowing)
    one_by_one = planned(tiny, folder, methods=(names.ATTRIBUTION,), batch_size=1)
    run_path, _ = carry_out(one_by_one, tiny, tmp_path / "runs", quiet)
    rows = rows_of(run_path)
    failures = rows["failure"]
    assert "concept" not in rows, "every picture that says a noun fails"
    assert {row["stage"] for row in failures} == {"score"}
    assert all("attribution are not finite in float32" in row["message"] for row in failures)


# Concepts whose logits do not add up


@pytest.fixture
def inexact_noun(tiny, folder, tmp_path, monkeypatch) -> str:
    """A noun of the pictures' captions; its residual is made large wherever it is looked at."""
    run_path, _ = carry_out(planned(tiny, folder), tiny, tmp_path / "before", quiet)
    noun: str = rows_of(run_path)["concept"][0]["noun"]

    def worse(concepts: Any, n: int, dtype: torch.dtype) -> dict[int, float]:
        rows = concepts.to_pylist()
        moved = [row["residual"] + (max(abs(row["logit"]), 1) if row["noun"] == noun else 0) for row in rows]
        column = concepts.schema.get_field_index("residual")
        return inexact(concepts.set_column(column, "residual", [moved]), n, dtype)

    monkeypatch.setattr(batch, "inexact", worse)
    return noun


@pytest.mark.parametrize("variants", [(names.ORIGINAL,), (names.ORIGINAL, names.BLANK)])
def test_a_concept_whose_logit_does_not_add_up_is_a_failure_and_no_concept(
    variants, inexact_noun, tiny, folder, tmp_path
):
    run_path, outcome = carry_out(planned(tiny, folder, variants=variants), tiny, tmp_path / "runs", quiet)
    before, after = rows_of(next((tmp_path / "before").iterdir())), rows_of(run_path)
    assert outcome.status == names.COMPLETE
    n_wrong = sum(row["noun"] == inexact_noun for row in before["concept"])
    failures = after["failure"]
    assert len(failures) == n_wrong > 0
    assert all(f"'{inexact_noun}' miss 1 of it, and float32 explains 0.0001" in row["message"] for row in failures)
    assert {row["error"] for row in failures} == {"InexactLogit"}
    expected = [row for row in before["score"] if row["noun"] != inexact_noun]
    assert [row for row in after["score"] if row["variant"] == names.ORIGINAL and "-minus" not in row["method"]] == (
        expected
    )
    assert inexact_noun not in {row["noun"] for table in ("concept", "score", "budget") for row in after[table]}
    with Store.open(tmp_path / "cache") as store:
        store.load_new_shards([tmp_path / "runs"])


def test_a_run_whose_first_batch_does_not_add_up_stops(tiny, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "inexact", lambda _concepts, n, _dtype: dict.fromkeys(range(n), 271.0))
    again = planned(tiny, folder, batch_size=2)
    for _ in range(2):  # and when it is resumed
        with pytest.raises(UnsupportedModelError, match=r"adapter does not understand .*miss 2\.7e"):
            carry_out(again, tiny, tmp_path / "runs", quiet)
        _, outcome = read_run(tmp_path / "runs" / again.run.run_id)
        assert outcome is not None
        assert outcome.status == names.FAILED


def test_a_shuffled_captions_concept_that_does_not_add_up_is_a_failure_of_its_draw(
    inexact_noun, tiny, folder, tmp_path
):
    run_path, _ = carry_out(planned(tiny, folder), tiny, tmp_path / "runs", quiet)
    run, _ = read_run(run_path)
    region.measure_region(ScoredRun(tiny, run, run_path), n_draws=2)
    draws = [read_shard(run_path / name) for name in finished_shards(run_path) if name.startswith("shuffled")]
    assert len(draws) == 2
    assert all(inexact_noun not in tables["concept"]["noun"].to_pylist() for tables in draws if "concept" in tables)
    failures = [row for tables in draws if "failure" in tables for row in tables["failure"].to_pylist()]
    assert failures, "no shuffled caption says the noun, so this shows nothing"
    assert all(f"'{inexact_noun}'" in row["message"] for row in failures)
