"""What a terminal is told of how far a long job is."""

from __future__ import annotations

import json

import pytest

from mmn.cli.progress import reporter
from mmn.runs.plan import Progress


@pytest.mark.parametrize("style", ["json", "auto"])
def test_a_stage_that_begins_again_has_no_rate_of_the_one_before(style: str, capsys: pytest.CaptureFixture) -> None:
    """As a study does with its controls: there were a negative rate and seconds left below zero."""
    report = reporter(style)
    for done, total in ((0, 12), (6, 12), (12, 12), (1, 3), (3, 3)):
        report(Progress("degrade", done, total))
    told = capsys.readouterr().err
    assert told.count("\n") >= 3
    assert "-" not in told.replace("e-", "")
    if style == "json":
        assert [json.loads(line)["remaining_s"] is None for line in told.splitlines()] == [
            True,
            False,
            False,
            True,
            False,
        ]
