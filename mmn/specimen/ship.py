"""Scores the gallery, runs every study on it and puts the run beside it: `python -m mmn.specimen.ship MODEL [CACHE]`.

The app loads it at its first start, so that every page has something to show. Ship `specimen-smollm` first: of two
bundled runs `latest` is the one that was scored last. With a cache folder, what is there already is not done again. The
pictures' paths are made relative to the run's folder, so that the run is at home wherever the package is. What is only
shown is rounded (`ROUNDED`); scores, budgets and effects are whole.
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

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from mmn import names
from mmn.cli import DONE, main
from mmn.runs import shards
from mmn.specimen import GALLERY_PATH, RUN_PATH, RUN_PATHS
from mmn.studies.registry import STUDIES

METHODS = (
    *(names.CONTRIBUTION, names.CONTRIBUTION_FOLDED, names.CONTRIBUTION_CENTRED, names.CONTRIBUTION_ACTFN),
    *(names.ATTRIBUTION, names.ATTRIBUTION_ACT, names.RELP, names.ACTIVATION, names.RANDOM, names.RANDOM_MATCHED),
)  # all but those that take dozens of passes for each noun: integrated-gradients, hones, effect, effect-prob
FIVE = (names.CONTRIBUTION, names.CONTRIBUTION_FOLDED, names.ATTRIBUTION, names.ACTIVATION, names.RANDOM)
MEASURED = [command for study in STUDIES for command in study.bundled]  # on as many pictures as fit
ROUNDED = {  # columns that take much room and are told or drawn, not computed with
    "score": ("activation",),
    "neuron": ("logits", "cosines"),
    "look": ("activations",),
    "lens": ("scores",),
    "modality_score": ("prob", "mean", "maximum", "attn_k", "attn_q"),
}
ROUNDED_BITS = 11  # of a mantissa: .05 % at most
COMPRESSION_LEVEL = 19  # a tenth smaller than at the usual 3, and read as fast
AT_HOME = os.path.relpath(GALLERY_PATH, RUN_PATH) + os.sep


@dataclass(frozen=True)
class Shipment:
    """What is scored for a model, where it goes, and how much of it a package should carry.

    `fewer` is added to the commands that begin with its keys, which take long or much room.
    """

    run_path: Path
    images: str
    n_pictures: int
    methods: tuple[str, ...]
    top_k: int
    most_bytes: int
    more: str = ""
    fewer: Mapping[str, str] = field(default_factory=dict)

    def measure(self, command: str) -> str:
        """A study's command, for as many pictures as there is time and room for."""
        return command + "".join(more for start, more in self.fewer.items() if command.startswith(start))

    def score(self, model: str) -> str:
        what = f"--images {self.images} --limit {self.n_pictures} --methods {','.join(self.methods)}"
        return f"score --model {model} {what} --top-k {self.top_k} --blank{self.more}"


SHIPMENTS = {
    # 43 is 1.4 % of its units, the share that P1's 6,400 are of GPT-J's; with the grey pictures, what fits.
    "specimen": Shipment(RUN_PATHS[0], "gallery", 128, FIVE, top_k=43, most_bytes=5_200_000),
    # Of two places, so that a noun has the dozen pictures that studies of its states compare.
    "specimen-smollm": Shipment(
        RUN_PATHS[1],
        "gallery:beach,desert",
        24,
        METHODS,
        top_k=100,
        most_bytes=6_800_000,
        more=" --max-new-tokens 24",
        fewer={
            "circuits": " --noun beach --units-per-layer 1 --pictures 1 --limit 2",
            "degrade": " --limit 8 --text-pictures 1",
            "domains": " --domains 2",
            "hallucination": " --limit 8 --objects 24",
            "image-tokens": " --limit 8 --draws 1 --steps 5",
            "invariance latest --kind region": " --limit 8",
            "lens": " --limit 8",
            "modules": " --limit 8",
            "patchscopes": " --limit 8 --image-tokens 4 --layers 0,9,19,24,27,29",
            "specificity": " --methods contribution,contribution-folded,activation,attribution",
        },
    ),
}


def ship(model: str, cache_path: Path) -> None:
    """Runs the commands in a cache of their own, then puts the run's shards into the package.

    Raises:
        AssertionError: a command failed, or the run is larger than a package should carry.
    """
    shipment = SHIPMENTS[model]
    for command in (shipment.score(model), *map(shipment.measure, MEASURED)):
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
        tables = {table: _rounded(table, rows) for table, rows in shards.read_shard(scored / name).items()}
        shards.write_shard(run_path, name, _at_home(tables), COMPRESSION_LEVEL)
    size = sum(file.stat().st_size for file in run_path.rglob("*") if file.is_file())
    assert size <= shipment.most_bytes, f"{size} bytes is more than a package should carry; lower top_k"
    print(f"{run_path}: {size / 1e6:.1f} MB")


def _rounded(table: str, rows: pa.Table) -> pa.Table:
    """A table with its columns of `ROUNDED` rounded."""
    for name in ROUNDED.get(table, ()):
        field = rows.schema.field(name)
        rounded = [None if one is None else round_mantissa(np.asarray(one)) for one in rows[name].to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(rounded, field.type))
    return rows


def round_mantissa(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Values with `ROUNDED_BITS` bits of mantissa: the last bytes of a float32 are 0, which compresses."""
    mantissa, exponent = np.frexp(values.astype(np.float32))
    return np.ldexp(np.round(mantissa * 2**ROUNDED_BITS) / 2**ROUNDED_BITS, exponent)


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
