"""Scores the gallery, runs every study on it and puts the run beside it: `python -m mmn.specimen.ship MODEL [CACHE]`.

The app loads it at its first start, so that every page has something to show. Ship `specimen-smollm` first: of two
bundled runs `latest` is the one that was scored last. With a cache folder, what is there already is not done again. The
pictures' paths are made relative to the run's folder, so that the run is at home wherever the package is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mmn import names
from mmn.cli import DONE, main
from mmn.runs import shards
from mmn.specimen import GALLERY_PATH, RUN_PATH, RUN_PATHS
from mmn.studies.registry import STUDIES
from mmn.studies.study import RELATED as RELATED_PAGES

LOOKING = (names.CONTRIBUTION, names.CONTRIBUTION_FOLDED, names.ATTRIBUTION)
METHODS = (*LOOKING, names.ACTIVATION, names.RANDOM)
MEASURED = [command for study in STUDIES for command in study.bundled]  # on as many pictures as fit
RELATED = tuple(study.name for study in STUDIES for page in study.pages if page.section == RELATED_PAGES)
AT_HOME = os.path.relpath(GALLERY_PATH, RUN_PATH) + os.sep


@dataclass(frozen=True)
class Shipment:
    """What is scored for a model, where it goes, and how much of it a package should carry."""

    run_path: Path
    top_k: int
    most_bytes: int
    more: str = ""
    fewer: Mapping[str, str] = field(default_factory=dict)  # by command, of what takes long or much room
    skipped: tuple[str, ...] = ()  # commands for which there is no room

    def measure(self, command: str) -> str:
        """A study's command, for as many pictures as there is time and room for."""
        return command + self.fewer.get(command.split()[0], "")

    def score(self, model: str) -> str:
        methods = ",".join(METHODS)
        return f"score --model {model} --images gallery --methods {methods} --top-k {self.top_k} --blank{self.more}"


SHIPMENTS = {
    # 43 is 1.4 % of its units, the share that P1's 6,400 are of GPT-J's; with the grey pictures, what fits.
    "specimen": Shipment(RUN_PATHS[0], top_k=43, most_bytes=6_900_000, more=" --limit 128"),
    "specimen-smollm": Shipment(
        RUN_PATHS[1],
        top_k=100,
        most_bytes=5_200_000,
        more=" --limit 24 --max-new-tokens 24",
        fewer={"degrade": " --limit 8 --text-pictures 4", "lens": " --limit 16"},
        skipped=RELATED,
    ),
}


def ship(model: str, cache_path: Path) -> None:
    """Runs the commands in a cache of their own, then puts the run's shards into the package.

    Raises:
        AssertionError: a command failed, or the run is larger than a package should carry.
    """
    shipment = SHIPMENTS[model]
    measured = [command for command in MEASURED if command.split()[0] not in shipment.skipped]
    for command in (shipment.score(model), *map(shipment.measure, measured)):
        assert main([*command.split(), "--cache", str(cache_path)]) == DONE, command
    (scored,) = (path for path in (cache_path / "runs").iterdir() if not path.name.startswith("."))
    put(scored, shipment)


def put(scored: Path, shipment: Shipment) -> None:
    """Copies a run's shards into the package.

    Raises:
        AssertionError: the run is larger than a package should carry.
    """
    run_path = shipment.run_path
    shutil.rmtree(run_path, ignore_errors=True)
    run_path.mkdir()
    for name in (shards.RUN_FILE, shards.OUTCOME_FILE):
        shutil.copy(scored / name, run_path / name)
    for name in sorted(shards.finished_shards(scored)):
        shards.write_shard(run_path, name, _at_home(shards.read_shard(scored / name)))
    size = sum(file.stat().st_size for file in run_path.rglob("*") if file.is_file())
    assert size <= shipment.most_bytes, f"{size} bytes is more than a package should carry; lower top_k"
    print(f"{run_path}: {size / 1e6:.1f} MB")


def _at_home(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables with their pictures' paths relative to the run's folder."""
    if "image" not in tables:
        return tables
    images = tables["image"]
    names_there = [Path(source).name for source in images["source"].to_pylist()]
    for name, image_id in zip(names_there, images["image_id"].to_pylist(), strict=True):
        there = hashlib.sha256((GALLERY_PATH / name).read_bytes()).hexdigest()
        assert there == image_id, f"{name} is no picture of the package's gallery"
    sources = [AT_HOME + name for name in names_there]
    columns = {
        "source": pa.array(sources),
        "sources": pa.array([[source] for source in sources], images.schema.field("sources").type),
    }
    for name, values in columns.items():
        images = images.set_column(images.schema.get_field_index(name), name, values)
    return tables | {"image": images}


if __name__ == "__main__":
    if len(sys.argv) > 2:
        ship(sys.argv[1], Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            ship(sys.argv[1], Path(folder))
