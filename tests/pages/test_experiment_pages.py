"""Invariance, Specificity and Sensitivity: filters, n, controls, and the job that measures a run."""

import json
import sys
import time
from pathlib import Path

import pytest

from mmn.names import default_method
from mmn.runs import jobs
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.studies.specificity.queries import SpecificityQueries
from tests.pages.titles import title_of

FAKE = Path(__file__).with_name("fake_score.py")
PAGES = ("invariance", "specificity", "sensitivity")


def charts(at) -> list[dict]:
    return [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]


def titles(at) -> list[str]:
    return [title_of(spec)["text"] for spec in charts(at)]


def said(at) -> str:
    return " ".join(" ".join(title_of(spec)["subtitle"]) for spec in charts(at))


def text(at) -> str:
    return " ".join(element.value for element in [*at.markdown, *at.caption])


def data(at, number: int) -> bytes:
    """The rows behind a chart."""
    return at.get("vega_lite_chart")[number].proto.SerializeToString()


def choose(at, key: str, *wanted: str):
    """Chooses the options of a multiselect that begin so."""
    box = next(box for box in at.multiselect if box.key == key)
    return fine(box.set_value([one for word in wanted for one in box.options if one.startswith(word)]).run())


def fine(at):
    assert not at.exception, at.exception
    assert not at.error, [error.value for error in at.error]
    return at


@pytest.mark.parametrize("page", PAGES)
def test_unmeasured_run_says_what_measures_it(page, filled_cache, open_app):
    at = fine(open_app(page))
    assert "has not been measured" in at.info[0].value
    assert f"python -m mmn {page} 3f2a9c1b" in text(at)
    assert [button.label for button in at.button] == ["Measure"]


def test_measuring_is_a_job_of_its_own_that_the_page_follows(filled_cache, open_app, monkeypatch):
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, str(FAKE)))
    monkeypatch.setenv("FAKE_STEP_S", "5")
    at = open_app("specificity")
    fine(at.button[0].click().run())
    [job] = jobs.list_jobs(filled_cache / "jobs")
    try:
        words = list(job.command)
        assert words[2:6] == ["specificity", "3f2a9c1b", "--cache", str(filled_cache)]
        assert words[-3:] == ["--json", "--progress", "json"]
        at.run()
        assert [button.label for button in at.button] == ["Cancel"], "the job is shown in the button's place"
        assert [button.label for button in open_app("sensitivity").button] == ["Measure"], "others may start"
    finally:
        jobs.cancel(job)
    give_up = time.monotonic() + 30
    while jobs.is_alive(job):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    at = fine(open_app("specificity"))
    assert "Cancelled." in text(at)
    assert [button.label for button in at.button] == ["Measure"]


def test_failed_measuring_shows_why(filled_cache, open_app, monkeypatch):
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, "-c", 'print(\'{"error": "X", "message": "no pictures"}\')'))
    at = open_app("sensitivity")
    at.button[0].click().run()
    [job] = jobs.list_jobs(filled_cache / "jobs")
    while jobs.is_alive(job):
        time.sleep(0.05)
    at = open_app("sensitivity")
    assert at.error[0].value == "no pictures"
    assert any("specificity" in e.label or "sensitivity: specimen" in e.label for e in open_app("score").expander)


def test_invariance_shows_curves_layers_and_concepts(whole_cache, open_app):
    at = fine(open_app("invariance"))
    assert titles(at) == [
        "Top units that stay when the image tokens are shuffled",
        "Top units that stay, layer by layer: contribution-folded",
        "Shuffled image tokens, concept by concept: contribution-folded, k = 1 (0.39 %)",
    ]
    assert "n = 20 pictures, 20 concepts" in said(at)
    assert "another noun" in json.dumps(charts(at)[0])
    assert at.metric[0].value == "50 %"
    assert set(at.dataframe[0].value.columns) >= {"concept", "ratio", "difference"}
    assert at.dataframe[0].value["concept"].iloc[0].startswith("image?run=5e6f0000&concept=")


def test_invariance_keeps_its_filters_in_the_address(whole_cache, open_app):
    at = fine(open_app("invariance", size=["40"]))
    assert "k = 40 (16 %)" in titles(at)[2]
    at = choose(choose(at, "concept", "dog"), "method", "activation")
    assert "concepts: dog" in said(at)
    assert titles(at)[1] == "Top units that stay, layer by layer: activation"
    assert "size" in at.query_params
    fine(at.switch_page("../pages/sensitivity.py").run())
    assert at.multiselect(key="method").value == ["activation"], "both go along; a browser has them in the address"
    assert at.multiselect(key="concept").value[0].startswith("dog (")
    assert "concepts: dog" in said(at)
    at = fine(open_app("invariance", size=["-3"]))
    assert "k = 1 (0.39 %)" in titles(at)[2]


@pytest.mark.parametrize("page", ["invariance", "sensitivity"])
def test_leading_layers_keep_their_nouns(page, whole_cache, open_app):
    at = fine(open_app(page, layers=["0", "1"]))
    assert at.slider(key="layers").value == (0, 1)
    assert "all concepts, led by layers 0 to 1" in said(at)
    every = fine(at.slider(key="layers").set_value((0, 3)).run())
    assert "led by" not in said(every)
    assert "led by" not in said(fine(open_app(page, layers=["0", "99"]))), "an address of a deeper run"


def test_survival_is_told_score_by_score_of_the_nouns_that_the_layers_lead(whole_cache, open_app):
    from app import resources

    at = fine(open_app("invariance", layers=["0", "1"]))
    assert not at.metric
    rows = at.dataframe[0].value
    assert {"contribution", "activation"} <= set(rows["score"])
    store = resources.store()
    for row in rows.to_dict("records"):
        told = store.ask(InvarianceQueries).survival("5e6f", method=row["score"], layers=(0, 1))
        assert (row["share"], row["n_kept"]) == (100 * told["share"], told["n_kept"]), "in percent"
    assert rows["n_concepts"].max() < store.ask(InvarianceQueries).survival("5e6f")["n_concepts"]


def test_filters_that_leave_nothing_are_said_and_are_no_error(whole_cache, open_app):
    from app import resources

    at = open_app("invariance")
    store = resources.store()
    kept = set(store.ask(InvarianceQueries).by_concept("5e6f", "contribution", 10)["lemma"])
    gone = sorted(set(store.concepts("5e6f")["lemma"]) - kept)
    assert gone, "some noun is never the first one, and only first ones survive here"
    choose(at, "concept", gone[0])
    assert f"for the nouns {gone[0]}" in at.info[0].value


def test_across_pictures_says_that_its_interval_is_of_draws(whole_cache, open_app):
    at = fine(open_app("invariance", view=["Across pictures"]))
    assert titles(at) == [
        "Where the units lie that 5 pictures of a concept share: contribution-folded",
        "Top units that 5 pictures of a concept share: contribution-folded, k = 40 (16 %)",
    ]
    assert "not a confidence interval" in said(at)
    assert "n_draws" in at.dataframe[0].value


def test_across_pictures_layers_show_their_part(whole_cache, open_app):
    at = fine(open_app("invariance", view=["Across pictures"]))
    fine(at.slider(key="layers").set_value((3, 3)).run())
    assert "only units of layers 3 to 3, as a share of all k" in said(at)
    assert "full colour: layers 3 to 3" in said(at)
    assert at.dataframe[0].value["ratio"].tolist() == pytest.approx([30.0] * len(at.dataframe[0].value))
    fine(at.slider(key="layers").set_value((0, 2)).run())
    assert at.dataframe[0].value["ratio"].tolist() == pytest.approx([10.0] * len(at.dataframe[0].value))


def test_specificity_of_all_pictures_has_its_control(whole_cache, open_app):
    at = fine(open_app("specificity"))
    assert "random unit" in json.dumps(charts(at)[0])
    assert "one in so many nouns" in said(at)
    assert "found on another picture (held out)" in said(at)
    assert "survive Benjamini–Hochberg" in said(at)
    shown = data(at, -1)
    fine(at.toggle(key="chance").set_value(True).run())
    assert data(at, -1) != shown
    fine(at.slider(key="layers").set_value((3, 3)).run())
    assert "top units of layers 3–3" in said(at)


def test_the_sentence_above_the_charts_is_of_held_out_units(whole_cache, open_app):
    """A unit chosen on the picture has its own noun highest by selection: that was the page's headline."""
    from app import resources

    at = fine(open_app("specificity"))
    method = default_method(resources.store().ask(SpecificityQueries).methods("5e6f"))
    rows = resources.store().ask(SpecificityQueries).highest_for_own_noun("5e6f", [method])
    rows = rows[rows["selection"] == "held-out"].set_index("is_control")["share"]
    assert f"**{100 * rows[False]:.1f} %** of the top units by {method} score highest" in text(at)
    assert f"random units of their layers: {100 * rows[True]:.1f} %" in text(at)


def test_units_chosen_on_the_picture_are_shown_with_their_null(whole_cache, open_app):
    at = fine(open_app("specificity", found=["Chosen on this picture (P2)"]))
    assert "found on the same picture (P2)" in said(at)
    null = fine(at.toggle(key="chance").set_value(True).run())
    assert "the control's, too" in said(null)


def test_specificity_of_one_picture_leads_to_its_units(whole_cache, open_app):
    at = fine(open_app("specificity", map=["One picture"]))
    assert titles(at)[0].startswith("What each noun's top unit does for the others")
    units = at.dataframe[0].value
    assert len(units) == 2
    assert units["neuron"].iloc[0].startswith("neuron?run=5e6f0000&neuron=L")
    picked = next(box for box in at.selectbox if box.key == "picture")
    other = picked.options[3]
    fine(picked.set_value(other).run())
    assert other[-12:-4] in said(at)


def test_specificity_of_one_picture_shows_the_units_of_the_chosen_layers(whole_cache, open_app):
    at = fine(open_app("specificity", map=["One picture"]))
    units = at.dataframe[0].value
    layer = int(units["layer"].iloc[0])
    fine(at.slider(key="layers").set_value((layer, layer)).run())
    assert set(at.dataframe[0].value["layer"]) == {layer}
    assert f"top units of layers {layer}–{layer}" in said(at)
    empty = next(one for one in range(4) if one not in set(units["layer"]))
    at.slider(key="layers").set_value((empty, empty)).run()
    assert f"layers {empty} to {empty}" in at.info[0].value


def test_classes_stand_beside_their_control(whole_cache, open_app):
    at = fine(open_app("specificity", map=["Classes"]))
    assert len(charts(at)) == 2
    assert "20 units a class" in said(at)
    assert data(at, 0) != data(at, 1)


def test_sensitivity_shows_each_measure_and_the_difference(whole_cache, open_app):
    at = choose(choose(open_app("sensitivity"), "concept", "dog"), "method", "contribution-folded", "activation")
    assert [title.partition(": ")[2] for title in titles(at)] == ["clip-text-v1", "word-f1-v1"]
    assert "concepts: dog" in said(at)
    rows = at.dataframe[0].value
    assert len(rows) == 4
    assert rows["n_images"].max() < 8
    assert rows["difference_low"].isna().all(), "too few pictures say dog"
    assert "are too few for an interval" in said(at)
    every = fine(open_app("sensitivity")).dataframe[0].value
    assert (every["difference_low"] <= every["difference"]).all()
    box = next(box for box in at.multiselect if box.key == "metric")
    box.set_value([]).run()
    assert at.info[0].value == "Choose at least one measure above."
