"""The Layers page: filters, addresses, clicks, and what goes wrong."""

import json
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from mmn.cli import DONE, main
from tests.pages.conftest import ROOT
from tests.pages.filled import fill
from tests.pages.titles import title_of


def title(spec: dict) -> str:
    """A chart's title in one line: it may be broken for a narrow window."""
    return title_of(spec)["text"]


def charts(at: AppTest) -> list[dict]:
    """The layer distributions, without the comparison below them."""
    specs = [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]
    return [spec for spec in specs if "per layer" in title(spec)]


def subtitle(spec: dict) -> str:
    return " ".join(title_of(spec)["subtitle"])


def picked(at: AppTest) -> dict[str | None, list[str]]:
    return {widget.key: widget.value for widget in at.multiselect}


def test_first_screen_is_full(filled_cache, open_app):
    at = open_app()
    assert picked(at) == {"method": ["contribution"], "k": ["9 (0.29 %)", "43 (1.4 %)", "154 (5 %)"], "concept": []}
    (spec,) = charts(at)
    assert title(spec) == "Top units of a picture per layer, contribution"
    assert subtitle(spec) == "specimen on gallery, n = 12 pictures, all concepts"
    assert "control_label" in json.dumps(spec["layer"][1]["encoding"]["shape"])


def test_n_in_the_title_counts_only_pictures_with_the_concept(filled_cache, open_app):
    at = open_app(concept=["dog"])
    n = int(picked(at)["concept"][0].partition("(")[2].rstrip(")"))
    assert 1 < n < 12
    assert f"n = {n} pictures, concepts: dog" in subtitle(charts(at)[0])


def test_empty_cache_says_how_to_score(empty_cache, open_app):
    at = open_app()
    assert "Nothing has been scored yet" in at.info[0].value
    assert "mmn score" in " ".join(c.value for c in at.caption)


def test_deep_link_by_hand_written_values(filled_cache, open_app):
    at = open_app(run=["77aa"], k=["43", "0.1%"], concept=["dog"], method=["activation"])
    assert at.sidebar.selectbox[0].value == "deep-llava gallery 77aa9c1b"
    chosen = picked(at)
    assert chosen["method"] == ["activation"]
    assert chosen["k"] == ["43 (0.066 %)", "66 (0.1 %)"]
    assert chosen["concept"][0].startswith("dog (")
    assert "concepts: dog" in subtitle(charts(at)[0])
    assert at.query_params["run"] == "deep-llava gallery 77aa9c1b"


def test_bad_values_in_the_address_are_dropped(filled_cache, open_app):
    at = open_app(
        run=["nothing"], k=["43", "-3", "99999", "x"], concept=["zzz"], method=["no-such"], layers=["-1", "99"]
    )
    assert not at.error
    assert not at.warning
    assert picked(at) == {"method": ["contribution"], "k": ["43 (1.4 %)"], "concept": []}
    assert set(at.query_params) == {"k"}


def test_typed_k_may_be_a_share(filled_cache, open_app):
    at = open_app()
    next(w for w in at.multiselect if w.key == "k").set_value(["2 %", "nonsense"]).run()
    assert "61 (2 %)" in json.dumps(charts(at)[0])
    assert "Left out: nonsense" in " ".join(c.value for c in at.caption)


def test_nothing_chosen_is_said(filled_cache, open_app):
    at = open_app()
    next(w for w in at.multiselect if w.key == "k").set_value([]).run()
    assert at.info[0].value == "Choose at least one k above."


def test_filters_survive_a_change_of_run(filled_cache, open_app):
    at = open_app(concept=["dog"], method=["activation"])
    at.sidebar.selectbox[0].set_value("deep-llava gallery 77aa9c1b").run()
    assert not at.exception
    assert not at.error
    assert "deep-llava" in subtitle(charts(at)[0])
    assert [label.partition(" (")[0] for label in picked(at)["concept"]] == ["dog"]


def test_two_methods_share_an_axis_and_control_can_be_hidden(filled_cache, open_app):
    at = open_app(method=["contribution", "activation"], control=["false"])
    specs = charts(at)
    assert len(specs) == 2
    domains = {json.dumps(spec["layer"][0]["encoding"]["y"]["scale"]["domain"]) for spec in specs}
    assert len(domains) == 1
    assert all(len(spec["layer"]) == 1 for spec in specs)


def test_clicked_bar_lists_its_units(filled_cache, open_app):
    at = open_app()
    at.session_state["chart-contribution"] = {"selection": {"layer": [{"layer": 5, "k": 43}]}}
    at.run()
    assert not at.exception
    rows = at.dataframe[0].value
    assert set(rows["layer"]) == {5}
    assert rows["neuron"].iloc[0] == f"neuron?run=3f2a9c1b&neuron=L5.u{rows['unit'].iloc[0]}"
    assert at.subheader[0].value == f"Layer 5: {len(rows)} units"


def test_click_on_a_bar_that_is_no_longer_drawn_is_forgotten(filled_cache, open_app):
    at = open_app()
    at.session_state["chart-contribution"] = {"selection": {"layer": [{"layer": 5, "k": 44}]}}
    at.run()
    assert not at.error
    assert len(at.dataframe) == 0


def test_results_of_a_job_appear_on_the_next_look(empty_cache, open_app):
    at = open_app()
    assert at.info
    fill(empty_cache)
    from app import resources

    resources.refresh()
    at.run()
    assert len(charts(at)) == 1


def test_locked_cache_is_explained(filled_cache, open_app):
    code = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(filled_cache / "mmn.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        try:
            at = open_app()
        finally:
            holder.communicate("")
    assert not at.exception
    assert at.header[0].value == "The results cannot be opened"
    assert "in use by" in at.error[0].value
    at.button[0].click().run()
    assert not at.error, "once the other process is gone, trying again works"
    assert len(charts(at)) == 1


def test_broken_shard_leaves_the_rest_readable(empty_cache, open_app):
    fill(empty_cache)
    fill(empty_cache, "77aa9c1b00112233", created_at="2026-11-19T10:00:00+00:00")
    score = next((empty_cache / "runs" / "77aa9c1b00112233").glob("*/score.parquet"))
    score.write_bytes(b"not parquet")
    at = open_app()
    assert "1 broken file or folder was set aside" in at.sidebar.warning[0].value
    assert "score.parquet" in at.sidebar.text[0].value
    assert len(charts(at)) == 1


def test_unforeseen_error_is_boxed(filled_cache, open_app, monkeypatch: pytest.MonkeyPatch):
    from mmn.store import Store

    def broken(*_):
        raise ZeroDivisionError("made up")

    monkeypatch.setattr(Store, "score_methods", broken)
    at = open_app()
    assert not at.exception
    assert "ZeroDivisionError: made up" in at.error[0].value
    assert any("Traceback" in expander.label for expander in at.expander)


def test_app_holds_no_query_of_its_own():
    """SQL lives in the store alone."""
    for path in [*(ROOT / "app").rglob("*.py"), *(ROOT / "pages").glob("*.py")]:
        assert "SELECT " not in path.read_text(), path


def test_split_keeps_only_units_of_that_kind(whole_cache, open_app):
    for kind, is_interpretable in (("interpretable", True), ("not interpretable", False)):
        at = open_app(units=[kind], k=["20"], method=["contribution"])
        assert f"{kind} units only" in subtitle(charts(at)[0])
        at.session_state["chart-contribution"] = {"selection": {"layer": [{"layer": 3, "k": 20}]}}
        at.run()
        assert not at.error, [e.value for e in at.error]
        rows = at.dataframe[0].value
        assert len(rows)
        assert set(rows["is_interpretable"]) == {is_interpretable}


def test_without_decoded_units_the_split_says_how_to_get_it(filled_cache, open_app):
    at = open_app(units=["interpretable"])
    assert not at.error
    assert "python -m mmn annotate 3f2a9c1b" in " ".join(c.value for c in at.caption)
    assert "interpretable" not in subtitle(charts(at)[0])


@pytest.mark.parametrize(
    "address",
    [
        {"method": ["contribution", "activation"], "k": ["9", "43"], "layers": ["1", "2"], "show": ["share"]},
        {"method": ["activation"], "k": ["20"], "units": ["not interpretable"], "concept": ["dog"]},
        {"k": ["5"], "show": ["count"], "control": ["false"]},
        {"overlaps": ["true"], "agreement": ["true"], "concept": ["dog"]},
    ],
)
def test_the_command_below_a_chart_draws_that_chart(address, whole_cache, open_app, tmp_path_factory):
    """Page and command read the same filters, and draw the same rows under the same title."""
    at = open_app(**address)
    commands = [c.value.split("`")[1] for c in at.caption if c.value.startswith("From a terminal")]
    shown = [element.proto for element in at.get("vega_lite_chart")]
    assert len(commands) == len(shown) > 0
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(whole_cache / "runs", cache / "runs")
    out = cache / "figure.json"
    for command, chart in zip(commands, shown, strict=True):
        words = shlex.split(command.replace("figure.svg", str(out)))
        assert main([*words[3:], "--cache", str(cache)]) == DONE
        theirs, ours = json.loads(out.read_text()), json.loads(chart.spec)
        assert title(theirs) == title(ours)
        assert subtitle(theirs) == subtitle(ours)
        rows = pa.ipc.open_stream(chart.datasets[0].data.data).read_pandas()
        files = map(pd.DataFrame, theirs["datasets"].values())  # a page leaves out a band that has no interval
        drawn = next(one for one in files if one.shape == rows.shape)
        numbers = drawn.select_dtypes("number").columns
        assert drawn.drop(columns=numbers).to_csv() == rows.drop(columns=numbers).to_csv()
        np.testing.assert_allclose(drawn[numbers], rows[numbers].astype(float), rtol=1e-8)  # a file has nine digits


def test_two_scores_are_compared_when_asked_for(whole_cache, open_app):
    at = open_app()
    assert "Spearman" not in " ".join(m.value for m in at.markdown), "it is slow in a large run"
    at.toggle(key="agreement").set_value(True).run()
    spec = [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")][-1]
    assert title(spec) == "Common units of contribution and activation"
    next(box for box in at.selectbox if box.key == "other-contribution").set_value("random").run()
    assert not at.error
    assert "Spearman" in " ".join(m.value for m in at.markdown)


def test_general_units_are_hidden_and_the_filter_goes_along(whole_cache, open_app):
    at = open_app("layers", general=["10 %"])
    assert not at.exception
    assert at.selectbox(key="general").value == "10 %"
    specs = [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]
    assert "without units that lead more than 10 % of nouns" in " ".join(title_of(specs[0])["subtitle"])
    assert any("--generality 0.1" in element.value for element in at.caption), "the command of the export"
    at.switch_page("../pages/image.py").run()
    assert not at.exception
    assert at.selectbox(key="general").value == "10 %"
    assert (at.dataframe[0].value["generality"] <= 10).all()
    at.selectbox(key="general").set_value("all").run()
    assert (at.dataframe[0].value["generality"] > 10).any()


def test_a_limit_of_ones_own_is_understood_and_nonsense_is_none(whole_cache, open_app):
    at = open_app("layers", general=["12.5 %"])
    assert not at.exception
    assert at.selectbox(key="general").value == "12.5 %"
    at = open_app("layers", general=["many"])
    assert not at.exception
    assert at.selectbox(key="general").value == "all"
