"""A page's chart: its title beside it, a facet as its panels on the scales that it shares, nothing that warns."""

from __future__ import annotations

import altair as alt
import pandas as pd
import pytest

from mmn.figures import on_screen
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
    (first, second), other = on_screen.panels(chart), chart.resolve_scale(x="independent")
    assert [name for name, _, _ in (first, second)] == ["second", "first"]
    assert [len(panel.data) for _, panel, _ in (first, second)] == [1, 2]
    assert second[2] - first[2] == 20, "a line more"
    domains = [domain_of(on_screen.themed(panel, chart.title).to_dict()) for _, panel, _ in (first, second)]
    assert domains == [[0, 3], [0, 3]]
    assert [domain_of(on_screen.themed(panel, chart.title).to_dict()) for _, panel, _ in on_screen.panels(other)] == [
        None,
        None,
    ]


def domain_of(spec: dict) -> list[float] | None:
    (layer,) = spec["layer"]  # that of intervals is gone: there is none
    (points,) = layer["layer"]
    return points["encoding"]["x"].get("scale", {}).get("domain")


def test_a_title_is_beside_the_chart_and_told_to_those_who_do_not_see() -> None:
    chart = facet()
    spec = on_screen.themed(on_screen.panels(chart)[0][1], chart.title).to_dict()
    assert "title" not in spec
    assert spec["description"] == "What is there. n = 3"
    assert {spec["config"][mark]["color"] for mark in ("rule", "text")} == {GREY}, "Vega's are black"
    plain = alt.Chart(ROWS).mark_point().properties(title=chart.title)
    assert "title" not in on_screen.themed(plain).to_dict()
    assert on_screen.panels(plain) == []
