"""The command below a chart of a page draws the same chart: same title, sample, filters and number of rows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmn.cli import DONE, main
from tests.pages.filled_effects import EDIT_IDS
from tests.pages.titles import title_of

ADDRESSES: list[tuple[str, dict[str, list[str]]]] = [
    ("invariance", {"size": ["40"], "concept": ["dog"], "method": ["activation"]}),
    ("invariance", {"led": ["0", "1"], "method": ["contribution", "activation"], "ranking": ["activation"]}),
    ("invariance", {"view": ["Across pictures"], "layers": ["3", "3"], "concept": ["dog", "bus"]}),
    ("lens", {}),
    (
        "degradation",
        {"nouns": ["the first one"], "quantity": ["logit"], "layers": ["0", "3"], "concept": ["dog", "bus"]},
    ),
    ("degradation", {"method": ["contribution", "contribution-folded"], "quantity": ["share of the untouched"]}),
    ("degradation", {"effect": ["Perturb"], "axis": ["k"], "noisy": ["similarity"], "ranking": ["contribution"]}),
    ("edit", {"edit": [EDIT_IDS[1]]}),
    ("circuits", {"left": ["logit"]}),
]


def text_of(spec: dict[str, Any]) -> str:
    """Title and subtitle; a page breaks their lines elsewhere than a file does."""
    return " ".join([title_of(spec)["text"], *title_of(spec)["subtitle"]])


def rows_of(proto: Any) -> list[list[dict[str, Any]]]:
    return sorted((pa.ipc.open_stream(one.data.data).read_all().to_pylist() for one in proto.datasets), key=str)


@pytest.mark.parametrize(("page", "address"), ADDRESSES)
def test_a_page_and_its_command_draw_the_same(
    page: str, address: dict[str, list[str]], whole_cache: Path, open_app: Any, tmp_path: Path
) -> None:
    at = open_app(page, **address)
    assert not at.exception
    charts = [element.proto for element in at.get("vega_lite_chart")]
    commands = [one.value.partition("`")[2].strip("`") for one in at.caption if "mmn figure" in one.value]
    assert len(charts) == len(commands) > 0
    for chart, command in zip(charts, commands, strict=True):
        out = tmp_path / "figure.json"
        words = shlex.split(command.replace("figure.svg", str(out)))
        assert words[:4] == ["python", "-m", "mmn", "figure"]
        assert main([*words[3:], "--cache", str(whole_cache)]) == DONE
        spec = json.loads(out.read_text())
        assert text_of(spec).split() == text_of(json.loads(chart.spec)).split()
        drawn = sorted(spec["datasets"].values(), key=str)
        assert [len(rows) for rows in drawn] == [len(rows) for rows in rows_of(chart)]
