"""Where the app's results lie; without the libraries that read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


def cache_path() -> Path:
    """The folder of results: `MMN_CACHE`, or `cache/` beside the app, whatever the working directory is."""
    return Path(os.environ.get("MMN_CACHE") or ROOT / "cache").expanduser().absolute()
