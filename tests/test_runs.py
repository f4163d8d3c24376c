"""The run id: it changes with every input that can change a number, and with nothing else."""

import json
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mmn.core import Example, Failure, ModelFacts, ScoreSettings
from mmn.images import Listing
from mmn.names import COMPLETE
from mmn.runs import plan as planning
from mmn.runs.plan import open_run, plan, run_id
from mmn.runs.shards import read_run, write_shard
from mmn.studies.tables import failure_table

MODEL = ModelFacts("tiny", "f" * 64, "llava", 3, 48)
EXAMPLES = tuple(
    Example(str(i) * 64, f"/pictures/{i}.png", (f"/pictures/{i}.png",), 8, 8, (f"a picture of {i}",)) for i in range(5)
)
SETTINGS = ScoreSettings(prompt="A picture of", targets=("dog",), batch_size=2)
VERSIONS = {"torch": "1", "scoring": "1"}
PROMPT = "<s><image>A picture of"


def an_id(model=MODEL, examples=EXAMPLES, prompt=PROMPT, settings=SETTINGS, versions=VERSIONS) -> str:
    return run_id(model, examples, prompt, settings, versions)


def changed(value):
    """Another value of the same type; a type that is new to `ScoreSettings` fails here and must be added."""
    more: dict[type, Any] = {str: "x", int: 1, tuple: ("x",)}
    assert type(value) in more, f"how is a {type(value).__name__} changed?"
    return value + more[type(value)]


@pytest.mark.parametrize("name", [field.name for field in fields(ScoreSettings)])
def test_the_id_changes_with_every_setting(name):
    assert an_id(settings=replace(SETTINGS, **{name: changed(getattr(SETTINGS, name))})) != an_id()


@pytest.mark.parametrize(
    "other",
    [
        {"model": replace(MODEL, fingerprint="e" * 64)},
        {"prompt": PROMPT + " "},
        {"examples": EXAMPLES[:-1]},
        {"examples": EXAMPLES[::-1]},
        {"examples": (replace(EXAMPLES[0], image_id="a" * 64), *EXAMPLES[1:])},
        {"examples": (replace(EXAMPLES[0], references=()), *EXAMPLES[1:])},
        {"examples": (replace(EXAMPLES[0], references=("another",)), *EXAMPLES[1:])},
        {"versions": VERSIONS | {"torch": "2"}},
        {"versions": VERSIONS | {"scoring": "2"}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_id_changes_with_every_input(other):
    assert an_id(**other) != an_id()


def test_methods_in_another_order_are_another_run():
    """The score table's rows come in that order."""
    one, other = (replace(SETTINGS, methods=names) for names in (("activation", "random"), ("random", "activation")))
    assert an_id(settings=one) != an_id(settings=other)


def test_the_id_does_not_change_with_names_places_and_times():
    moved = tuple(replace(e, source=f"/else/{i}", sources=(f"/else/{i}", "/twice")) for i, e in enumerate(EXAMPLES))
    assert an_id(model=replace(MODEL, name="/somewhere/else"), examples=moved) == an_id()


def test_the_id_is_short_and_safe_as_a_folder_name():
    assert len(an_id()) == 16
    assert int(an_id(), 16) >= 0


def planned(images: str = "folder", failures: tuple[Failure, ...] = (), **settings) -> planning.Plan:
    return plan(MODEL, Listing(EXAMPLES, failures), images, PROMPT, replace(SETTINGS, **settings))


def test_a_plan_names_the_same_run_at_another_time_and_from_another_place(monkeypatch):
    first = planned()

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 1, tzinfo=tz)

    monkeypatch.setattr(planning, "datetime", Later)
    later = planned(images="another way to write it")
    assert later.run.created_at != first.run.created_at
    assert later.run.run_id == first.run.run_id


@pytest.mark.parametrize("package", [*planning._PACKAGES, "scoring"])
def test_a_plan_names_another_run_under_another_version(package, monkeypatch):
    before = planned()
    assert package in before.run.versions
    if package == "scoring":
        monkeypatch.setattr(planning, "SCORING_VERSION", planning.SCORING_VERSION + 1)
    else:
        monkeypatch.setattr(planning, "version", lambda name: before.run.versions[name] + ".1" * (name == package))
    assert planned().run.run_id != before.run.run_id


def test_a_plan_batches_all_pictures_in_order():
    batches = planned().batches
    assert [batch.name for batch in batches] == ["batch-00000", "batch-00001", "batch-00002"]
    assert [example for batch in batches for example in batch.examples] == list(EXAMPLES)
    assert [len(batch.examples) for batch in batches] == [2, 2, 1]
    assert planned().n_images == 5


def test_a_finished_batch_is_not_done_again(tmp_path):
    this = planned()
    run_path, to_do = open_run(this, tmp_path)
    assert to_do == this.batches
    write_shard(run_path, this.batches[1].name, {"failure": failure_table([Failure("a", "open", "b", "c")])})
    assert open_run(this, tmp_path) == (run_path, (this.batches[0], this.batches[2]))


def test_pictures_that_could_not_be_listed_are_failures_once(tmp_path):
    failures = (Failure("/x.png", "open", "ImageError", "broken"), Failure("/y.png", "open", "ImageError", "broken"))
    this = planned(failures=failures)
    open_run(this, tmp_path)
    run_path, _ = open_run(this, tmp_path)
    counts = planning.count(run_path)
    assert (counts.n_failed, counts.n_images, counts.n_concepts, counts.max_residual) == (2, 0, 0, None)


def test_the_run_file_holds_the_plan_whole(tmp_path):
    this = planned()
    run_path, _ = open_run(this, tmp_path)
    assert read_run(run_path) == (this.run, None)
    assert an_id(*(this.run.model,), versions=this.run.versions) == this.run.run_id
    assert COMPLETE not in json.loads(Path(run_path / "run.json").read_text()).values()
