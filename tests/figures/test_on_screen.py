"""A page's chart: its title beside it, a facet as its panels on the scales that it shares, nothing that warns."""

from __future__ import annotations

import altair as alt
import pandas as pd
import pytest

from mmn.figures.on_screen import panels
from mmn.figures.specification import beside, digest
from mmn.figures.theme import GREY

ROWS = pd.DataFrame(
    {
        "panel": ["first", "first", "second"],
        "what": ["a", "b", "a"],
        "mean": [0.2, 0.4, 3.0],
        "low": [None] * 3,
        "high": [None] * 3,
    }
)


def facet() -> alt.FacetChart:
    base = alt.Chart(ROWS).encode(alt.Y("what:N"))
    ends = base.mark_rule().encode(alt.X("low:Q"), alt.X2("high"))
    layers = alt.layer(ends, alt.layer(base.mark_point().encode(alt.X("mean:Q")))).properties(height=alt.Step(20))
    title = alt.TitleParams("What is there", subtitle=["n = 3"])
    return layers.facet(facet=alt.Facet("panel:N", sort=["second", "first"]), columns=1).properties(title=title)


@pytest.mark.parametrize("is_read", [False, True])
def test_panels_of_a_facet_share_their_scale_and_nothing_else(is_read: bool) -> None:
    """Also of a chart that was made of a specification, as that of a second run is."""
    chart = facet()
    if is_read:
        title = chart.title
        chart = alt.FacetChart.from_dict(chart.to_dict(), validate=False)
        chart.title = title
    (first, second), other = panels(chart), chart.resolve_scale(x="independent")
    assert [panel.heading for panel in (first, second)] == ["second", "first"]
    assert [[len(rows) for rows in panel.spec["datasets"].values()] for panel in (first, second)] == [[1], [2]]
    assert second.height - first.height == 20, "a line more"
    assert [domain_of(panel.spec) for panel in (first, second)] == [[0, 3], [0, 3]]
    assert [domain_of(panel.spec) for panel in panels(other)] == [None, None]


def domain_of(spec: dict) -> list[float] | None:
    (layer,) = spec["layer"]  # that of intervals is gone: there is none
    (points,) = layer["layer"]
    return points["encoding"]["x"].get("scale", {}).get("domain")


def test_a_title_is_beside_the_chart_and_told_to_those_who_do_not_see() -> None:
    chart = facet()
    spec = panels(chart)[0].spec
    assert "title" not in spec
    assert spec["description"] == "What is there. n = 3"
    assert {spec["config"][mark]["color"] for mark in ("rule", "text")} == {GREY}, "Vega's are black"
    (plain,) = panels(alt.Chart(ROWS).mark_point().properties(title=chart.title))
    assert "title" not in plain.spec
    assert not plain.heading


def test_legends_that_a_telephone_has_no_room_for_stand_below_each_other() -> None:
    def legend(field: str) -> dict:
        domain = [f"a long label {place}" for place in range(3)]
        return {"shorthand": f"{field}:N", "scale": alt.Scale(domain=domain), "legend": alt.Legend(orient="top")}

    base = alt.Chart(ROWS, title=alt.TitleParams("two")).mark_point().encode(alt.Color(**legend("what")))
    assert "layout" not in panels(base)[0].spec["config"]["legend"], "one has nothing to stand below"
    both = panels(base.encode(alt.Shape(**legend("panel"))))[0].spec
    assert set(both["config"]["legend"]["layout"]) == {"top"}
    wanted = 2 * 3 * (34 + 6.6 * len("a long label 0"))
    assert f"< {wanted:.0f} ? 'vertical'" in both["config"]["legend"]["layout"]["top"]["direction"]["signal"]


def test_rows_beside_a_chart_are_named_by_what_they_are_and_files_have_theirs() -> None:
    chart = alt.Chart(ROWS).mark_point().encode(alt.X("mean:Q"), tooltip=["what"])
    spec, tables = beside(chart)
    assert spec["data"] == {"name": digest(ROWS.copy())}
    assert tables[spec["data"]["name"]] is ROWS
    assert spec["encoding"]["tooltip"] == [{"field": "what", "type": "nominal"}]
    assert digest(ROWS.assign(mean=0.0)) != digest(ROWS)
    assert digest(ROWS.assign(what=[["a"], 1, None])), "a column of several kinds has a name, too"
    (values,) = chart.to_dict()["datasets"].values()
    assert len(values) == 3, "Altair's own way of writing rows is as it was"
