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
    alone = panels(base)[0].spec["config"]["legend"]["layout"]["top"]
    assert set(alone) == {"anchor"}, "one has nothing to stand below"
    assert f"< {34 + 6.6 * len('a long label 0'):.0f} ? 'end'" in alone["anchor"]["signal"], "or its end is cut off"
    both = panels(base.encode(alt.Shape(**legend("panel"))))[0].spec
    assert set(both["config"]["legend"]["layout"]) == {"top"}
    wanted = 2 * 3 * (34 + 6.6 * len("a long label 0"))
    assert f"< {wanted:.0f} ? 'vertical'" in both["config"]["legend"]["layout"]["top"]["direction"]["signal"]


def test_long_words_of_an_axis_leave_a_legend_less_room() -> None:
    """A legend begins where the panel does: its labels were cut off at the window's edge."""
    legend = alt.Color("what:N", scale=alt.Scale(domain=["a", "b"]), legend=alt.Legend(orient="top"))
    rows = ROWS.assign(panel=["the caption: words of the picture"] * 3)
    base = alt.Chart(rows, title=alt.TitleParams("one")).mark_point().encode(legend, alt.X("mean:Q"))
    signals = [
        panels(base.encode(y))[0].spec["config"]["legend"]["layout"]["top"]["anchor"]["signal"]
        for y in (alt.Y("low:Q"), alt.Y("panel:N"), alt.Y("panel:N", axis=alt.Axis(labelLimit=100)))
    ]
    assert [f"- {pixels} :" in signal for pixels, signal in zip((120, 210, 130), signals, strict=True)] == [True] * 3


def test_a_scale_of_colours_lies_above_and_names_stay_clear_of_their_marks() -> None:
    """Beside the chart it took a quarter of a telephone, and numbers of cells ran into each other."""
    colour = alt.Color("mean:Q", legend=alt.Legend(orient="right", gradientLength=110))
    cells = alt.Chart(ROWS).mark_rect().encode(alt.X("what:N"), alt.Y("panel:N"), colour)
    names = alt.Chart(ROWS).mark_text(fontSize=6, dy=-7).encode(alt.X("what:N"), alt.Y("panel:N"))
    (panel,) = panels(alt.layer(cells, names).properties(title=alt.TitleParams("map")))
    legend = panel.spec["layer"][0]["encoding"]["color"]["legend"]
    assert (legend["orient"], legend["direction"]) == ("top", "horizontal")
    mark = panel.spec["layer"][1]["mark"]
    assert (mark["fontSize"], mark["dy"]) == (10, -9), "as far from its point as four more pixels of letters ask"


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
