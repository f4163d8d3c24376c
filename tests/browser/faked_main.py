"""The app as it is, but for the program that a job runs: an entry script for the browser journeys."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mmn.runs import jobs  # noqa: E402

jobs.PROGRAM = (sys.executable, str(ROOT / "tests" / "pages" / "fake_score.py"))
runpy.run_path(str(ROOT / "app" / "main.py"), run_name="__main__")
