"""The Specificity page draws what `mmn figure` draws, by the same filters."""

import json
import re
import shlex

import numpy as np
import pyarrow as pa
import pytest

from mmn.cli import build_parser
from mmn.figures.figure import Drawn, draw, require_taken
from mmn.studies.registry import FIGURES
from mmn.studies.specificity.queries import SpecificityQueries
from mmn.view import View
from tests.pages.titles import title_of

SAME = ["Chosen on this picture (P2)"]


def from_terminal(at) -> list[Drawn]:
    """The figures that the commands under the page's exports draw."""
    from app import resources

    found = []
    for caption in at.caption:
        if command := re.search(r"`python -m mmn (figure .*)`", caption.value):
            options = build_parser().parse_args(shlex.split(command[1]))
            figure, view = FIGURES[options.name], View.from_flags(vars(options))
            require_taken(figure, view)
            found.append(draw(figure, resources.store(), view))
    return found


def words(title: dict) -> str:
    """A title, however it is wrapped."""
    return " ".join(" ".join([*np.ravel(title["text"]), *np.ravel(title["subtitle"])]).split())


def assert_same(element, figure: Drawn) -> None:
    """Asserts that a chart of the page has the figure's words and numbers."""
    assert words(title_of(json.loads(element.proto.spec))) == words(figure.chart.to_dict()["title"])
    shares = np.sort(figure.rows.data["share"].to_numpy(dtype=float))
    sets = [pa.ipc.open_stream(one.data.data).read_pandas() for one in element.proto.datasets]
    drawn = [one for one in sets if "share" in one]
    assert drawn
    for rows in drawn:
        np.testing.assert_allclose(np.unique(rows["share"].to_numpy(dtype=float)), np.unique(shares))


def side(figure: Drawn, is_control: bool) -> Drawn:
    return figure.where("is_control", is_control)


@pytest.mark.parametrize("is_control", [False, True])
@pytest.mark.parametrize(
    "address",
    [
        {},
        {"ranking": ["activation"], "concepts": ["6"], "found": SAME},
        {"layers": ["1", "3"], "concept": ["dog"]},
    ],
)
def test_all_pictures(address, is_control, whole_cache, open_app):
    at = open_app("specificity", **address, chance=[str(is_control).lower()])
    assert not at.exception, at.exception
    highest, summary, concepts = from_terminal(at)
    charts = at.get("vega_lite_chart")
    assert len(charts) == 3
    assert_same(charts[0], highest)
    assert words(title_of(json.loads(charts[1].proto.spec))) == words(summary.chart.to_dict()["title"])
    assert_same(charts[2], side(concepts, is_control))
    given = concepts.asked.view
    assert given.methods == tuple(address.get("ranking", ["contribution-folded"]))
    assert given.most == int(address.get("concepts", ["12"])[0])
    assert given.found_on == ("same" if "found" in address else "another")
    assert given.layers == ((1, 3) if "layers" in address else None)
    assert given.concepts == tuple(address.get("concept", []))


@pytest.mark.parametrize("found", [[], SAME])
def test_one_picture(found, whole_cache, open_app):
    at = open_app("specificity", map=["One picture"], ranking=["activation"], **({"found": found} if found else {}))
    (figure,) = from_terminal(at)
    assert_same(at.get("vega_lite_chart")[0], side(figure, False))
    picked = next(box for box in at.selectbox if box.key == "picture")
    assert picked.value.endswith(figure.asked.view.image[:12])


def test_classes(whole_cache, open_app):
    at = open_app("specificity", map=["Classes"], ranking=["activation"], concepts=["6"], concept=["dog"])
    (figure,) = from_terminal(at)
    units, control = at.get("vega_lite_chart")
    assert_same(units, side(figure, False))
    assert_same(control, side(figure, True))
    assert figure.asked.view.most == 6


@pytest.mark.parametrize("address", [{}, {"map": ["One picture"]}])
def test_classes_of_a_saved_set_are_shown_where_nothing_else_was_measured(address, whole_cache, open_app, monkeypatch):
    monkeypatch.setattr(SpecificityQueries, "methods", lambda _self, _run_id: [])
    at = open_app("specificity", **address)
    assert not at.exception, at.exception
    (figure,) = from_terminal(at)
    assert_same(at.get("vega_lite_chart")[0], side(figure, False))
    assert [one.label for one in at.expander if one.label.startswith("Measure again")]


def test_a_clicked_cell_leads_to_its_unit_while_it_is_drawn(whole_cache, open_app):
    from app import charts

    at = open_app("specificity", map=["One picture"])
    (figure,) = from_terminal(at)
    shown = side(figure, False)
    cell = shown.rows.data.iloc[0]
    point = {"layer": int(cell["layer"]), "unit": int(cell["unit"])}
    meant = shown.clicked(point)
    assert meant is not None
    assert str(meant.neuron) == f"L{cell['layer']}.u{cell['unit']}"
    assert shown.clicked({"layer": 99, "unit": 0}) is None
    at.session_state[f"chart-{charts.name_of(shown)}"] = {"selection": {"unit": [point]}}
    at.run()
    assert "Click a cell to open its unit." not in [one.value for one in at.caption]


def test_files_of_units_and_of_their_control_have_different_names(whole_cache, open_app):
    from app import charts

    at = open_app("specificity")
    figure = from_terminal(at)[-1]
    names = [charts.name_of(side(figure, is_control)) for is_control in (False, True)]
    assert names[1] == f"{names[0]}-control"
