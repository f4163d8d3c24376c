"""A run as earlier versions wrote it: its shards have no manifests."""

import json
from pathlib import Path


def unbind(run_path: Path) -> None:
    """Leaves a run as it was written before shards had manifests."""
    for manifest in run_path.glob("*/manifest.json"):
        manifest.unlink()
    told = json.loads((run_path / "run.json").read_text())
    del told["digest"]
    (run_path / "run.json").write_text(json.dumps(told))
