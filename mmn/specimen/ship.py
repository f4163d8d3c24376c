"""Scores the gallery, runs every experiment on it and puts the run beside it: `python -m mmn.specimen.ship [CACHE]`.

The app loads it at its first start, so that every page has something to show. With a cache folder, what is there
already is not done again. The pictures' paths are made relative to the run's folder, so that the run is at home
wherever the package is.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow as pa

from mmn import names
from mmn.cli import DONE, main
from mmn.runs import shards
from mmn.specimen import GALLERY_PATH, RUN_PATH
from mmn.studies.registry import STUDIES

TOP_K = 43  # 1.4 % of the specimen's units, the share that P1's 6,400 are of GPT-J's; with the grey pictures, what fits
LOOKING = (names.CONTRIBUTION, names.CONTRIBUTION_FOLDED, names.ATTRIBUTION)
METHODS = (*LOOKING, names.ACTIVATION, names.RANDOM)
SCORE = f"score --model specimen --images gallery --methods {','.join(METHODS)} --top-k {TOP_K} --blank"
MEASURED = [command for study in STUDIES for command in study.bundled]  # on as many pictures as fit
MOST_BYTES = 17_000_000  # units found on other pictures take 1.5 of it
AT_HOME = os.path.relpath(GALLERY_PATH, RUN_PATH) + os.sep


def ship(cache_path: Path) -> None:
    """Runs the commands in a cache of their own, then puts the run's shards into the package.

    Raises:
        AssertionError: a command failed, or the run is larger than a package should carry.
    """
    for command in (SCORE, *MEASURED):
        assert main([*command.split(), "--cache", str(cache_path)]) == DONE, command
    (scored,) = (cache_path / "runs").iterdir()
    shutil.rmtree(RUN_PATH, ignore_errors=True)
    RUN_PATH.mkdir()
    for name in (shards.RUN_FILE, shards.OUTCOME_FILE):
        shutil.copy(scored / name, RUN_PATH / name)
    for name in sorted(shards.finished_shards(scored)):
        shards.write_shard(RUN_PATH, name, _at_home(shards.read_shard(scored / name)))
    size = sum(file.stat().st_size for file in RUN_PATH.rglob("*") if file.is_file())
    assert size <= MOST_BYTES, f"{size} bytes is more than a package should carry; lower TOP_K"
    print(f"{RUN_PATH}: {size / 1e6:.1f} MB")


def _at_home(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables with their pictures' paths relative to the run's folder."""
    if "image" not in tables:
        return tables
    images = tables["image"]
    sources = [os.path.relpath(source, RUN_PATH) for source in images["source"].to_pylist()]
    assert all(source.startswith(AT_HOME) for source in sources), f"{sources[0]} is no picture of the package's gallery"
    columns = {
        "source": pa.array(sources),
        "sources": pa.array([[source] for source in sources], images.schema.field("sources").type),
    }
    for name, values in columns.items():
        images = images.set_column(images.schema.get_field_index(name), name, values)
    return tables | {"image": images}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        ship(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            ship(Path(folder))
