"""The run that comes with the package: its pictures open, every page has something to show, and it is small."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmn.models.checkpoints import fingerprint
from mmn.names import BLANK, ORIGINAL
from mmn.runs import shards
from mmn.specimen import GALLERY_PATH, MODEL_PATH, RUN_PATH
from mmn.specimen.ship import SHIPMENTS
from mmn.store import Store

N_PICTURES = 128


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    opened = Store.open(tmp_path_factory.mktemp("shipped"))
    opened.load_new_shards([RUN_PATH])
    return opened


def test_it_is_complete_and_small() -> None:
    _, outcome = shards.read_run(RUN_PATH)
    assert outcome is not None
    assert outcome.status == "complete"
    assert (
        sum(file.stat().st_size for file in RUN_PATH.rglob("*") if file.is_file()) <= SHIPMENTS["specimen"].most_bytes
    )


def test_it_is_of_the_bundled_model() -> None:
    """Or pages would find no model to measure it again with."""
    run, _ = shards.read_run(RUN_PATH)
    assert (run.model.name, run.model.fingerprint) == ("specimen", fingerprint(MODEL_PATH))


def test_its_pictures_are_those_of_the_gallery(store: Store) -> None:
    sources = [Path(source) for source in store.table("latest", "image")["source"]]
    assert len(sources) == N_PICTURES
    assert {source.parent for source in sources} == {GALLERY_PATH}
    assert all(source.is_file() for source in sources)


def test_every_page_has_something_to_show(store: Store) -> None:
    annotations, others = {"neuron", "look", "grid", "lens"}, {"specificity", "selectivity", "sensitivity", "effect"}
    for name in annotations | others | {"invariance", "shared_layer"}:
        assert len(store.table("latest", name)) > 0, name
    assert set(store.table("latest", "concept")["variant"]) == {ORIGINAL, BLANK, "shuffled-0"}
    assert set(store.table("latest", "invariance")["kind"]) == {"region", "cross-image"}


def test_units_were_compared_with_their_objects(store: Store) -> None:
    """Where the objects were not found, every overlap was empty and the page still looked right."""
    fields = store.table("latest", "field")
    assert fields["iou"].notna().mean() > 0.6  # the others are of places, which have no outline
    assert fields.groupby("method")["iou"].mean()["attribution"] > 0.15
    assert len(store.table("latest", "failure")) == 0
