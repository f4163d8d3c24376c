"""The runs that come with the package: their pictures open, every page has something to show, and they are small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmn.models.checkpoints import fingerprint
from mmn.names import BLANK, ORIGINAL
from mmn.reading.synonyms import shipped_synonyms
from mmn.runs import shards
from mmn.runs.added_later import run_synonyms
from mmn.specimen import GALLERY_PATH, MODEL_PATH, RUN_PATH, RUN_PATHS
from mmn.specimen.ship import ROUNDED_BITS, SHIPMENTS, round_mantissa
from mmn.store import Store
from mmn.studies.registry import STUDIES

MOST_BYTES = 12_000_000  # of both runs together
RUN_IDS = {model: shards.read_run(shipment.run_path)[0].run_id for model, shipment in SHIPMENTS.items()}
MEASURED = {
    (study.name, one.table): None for study in STUDIES if study.bundled for one in study.measurements.values()
}  # tables that pages ask for
both = pytest.mark.parametrize("model", SHIPMENTS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    opened = Store.open(tmp_path_factory.mktemp("shipped"))
    opened.load_new_shards(RUN_PATHS)
    return opened


def size(run_path: Path) -> int:
    return sum(file.stat().st_size for file in run_path.rglob("*") if file.is_file())


@both
def test_it_is_complete_and_small(model: str) -> None:
    shipment = SHIPMENTS[model]
    run, outcome = shards.read_run(shipment.run_path)
    assert outcome is not None
    assert outcome.status == "complete"
    assert run.settings.methods == shipment.methods
    assert size(shipment.run_path) <= shipment.most_bytes


def test_both_together_are_small() -> None:
    assert {one.run_path for one in SHIPMENTS.values()} == set(RUN_PATHS)
    assert sum(map(size, RUN_PATHS)) <= MOST_BYTES


def test_the_latest_is_of_the_bundled_model() -> None:
    """Or pages would find no model to measure it again with, or open on one that needs an extra."""
    runs = [shards.read_run(path)[0] for path in RUN_PATHS]
    latest = max(runs, key=lambda run: run.created_at)
    assert (latest.model.name, latest.model.fingerprint) == ("specimen", fingerprint(MODEL_PATH))


@both
def test_its_pictures_are_those_of_the_gallery(store: Store, model: str) -> None:
    sources = [Path(source) for source in store.table(RUN_IDS[model], "image")["source"]]
    assert len(sources) == SHIPMENTS[model].n_pictures
    assert {source.parent for source in sources} == {GALLERY_PATH}
    assert all(source.is_file() for source in sources)


@both
@pytest.mark.parametrize(
    "table", [table for _, table in MEASURED], ids=[f"{study}-{table}" for study, table in MEASURED]
)
def test_every_page_has_something_to_show(store: Store, model: str, table: str) -> None:
    assert store.has_rows(RUN_IDS[model], table, "")


@both
def test_what_pages_show_beside_it_is_there(store: Store, model: str) -> None:
    for name in ("neuron", "look", "grid", "selectivity", "shared_layer", "perplexity", "knockout", "modality_unit"):
        assert len(store.table(RUN_IDS[model], name)) > 0, name
    assert set(store.table(RUN_IDS[model], "concept")["variant"]) == {ORIGINAL, BLANK, "shuffled-0"}
    assert set(store.table(RUN_IDS[model], "invariance")["kind"]) == {"region", "cross-image"}
    assert len(store.table(RUN_IDS[model], "failure")) == 0


@both
def test_objects_are_judged_by_the_synonyms_that_ship(model: str) -> None:
    """Runs of before there were any said "without synonyms"."""
    assert any(name.startswith("synonyms") for name in shards.finished_shards(SHIPMENTS[model].run_path))
    assert run_synonyms(SHIPMENTS[model].run_path).digest == shipped_synonyms().digest


def test_units_were_compared_with_their_objects(store: Store) -> None:
    """Where the objects were not found, every overlap was empty and the page still looked right."""
    fields = store.table(RUN_IDS["specimen"], "field")
    assert fields["iou"].notna().mean() > 0.6  # the others are of places, which have no outline
    assert fields.groupby("method")["iou"].mean()["attribution"] > 0.15


def test_what_is_only_drawn_is_rounded_to_half_a_thousandth() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    rounded = round_mantissa(values)
    assert 0 < np.abs(rounded / values - 1).max() <= 2.0**-ROUNDED_BITS
    assert not np.any(rounded.view(np.uint32) & 0x1FFF), "the last bits are 0, or nothing is won"
    assert round_mantissa(np.array([0, 1, -0.5], np.float32)).tolist() == [0, 1, -0.5]
    looks = shards.read_shard(next(RUN_PATH.glob("annotation-*")), ("look",))["look"]
    first = np.array(looks["activations"][0].as_py(), np.float32)
    assert np.array_equal(first, round_mantissa(first))
