"""The Domains page: what the address chooses is what is drawn and listed, and what was not measured is offered."""

from __future__ import annotations

from pathlib import Path

from mmn.studies.domains.words import RULE_WORDS


def titles(at) -> list[str]:
    return [" ".join(element.proto.spec.split()) for element in at.get("vega_lite_chart")]


def test_the_rule_of_the_address_is_drawn_and_its_groups_listed(whole_cache: Path, open_app) -> None:
    at = open_app("domains", rule=["la-mu"])
    assert len(titles(at)) == 5, "both groups per layer and in rankings, and zeroed"
    assert all("MINER" in title for title in titles(at))
    table = at.dataframe[0].value
    assert table["group"].tolist() == ["text", "image"]
    assert table["set"].str.startswith("la-mu-").all()
    units = at.dataframe[1].value
    assert len(units) == table["n_units"].iloc[0]
    at.selectbox(key="domain-group").select("image").run()
    assert len(at.dataframe[1].value) == table["n_units"].iloc[1]
    assert not at.exception


def test_an_address_that_means_nothing_is_dape(whole_cache: Path, open_app) -> None:
    at = open_app("domains", rule=["magic"], by=["planet"])
    assert not at.exception
    assert all(RULE_WORDS["dape"] in title for title in titles(at))


def test_a_run_that_was_not_measured_is_offered(filled_cache: Path, open_app) -> None:
    at = open_app("domains")
    assert any("not been measured" in one.value for one in at.info)
    assert [one.label for one in at.button if one.label == "Measure"] == ["Measure"]
    assert any("--by folder" in one.value for one in at.caption)
