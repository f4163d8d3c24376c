"""Which method finds the units that matter?"""

from __future__ import annotations

from typing import Final

from mmn.studies.study import RELATED, Page, Study

QUESTION: Final = "Which method finds the units that matter, where it is known which they are?"

STUDY: Final = Study(
    "bench",
    QUESTION,
    command="mmn.studies.bench.command",
    stages={"bench": "judging methods"},
    pages=(Page("benchmark", "Benchmark", ":material/leaderboard:", QUESTION, RELATED),),
)
