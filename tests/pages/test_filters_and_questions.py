"""What all pages share: filters that go along, one default score, a question first, marks beside their labels."""

import json

import pytest
from streamlit.testing.v1 import AppTest

from app.overview import QUESTIONS
from mmn.names import default_method
from tests.pages.conftest import ROOT
from tests.pages.titles import title_of

PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))


def go(at: AppTest, page: str) -> AppTest:
    at.switch_page(f"../pages/{page}.py").run()
    assert not at.exception
    assert not at.error, [e.value for e in at.error]
    assert not at.warning, [w.value for w in at.warning]
    return at


def charts(at: AppTest) -> list[dict]:
    return [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]


def said(spec: dict) -> str:
    return " ".join(title_of(spec)["subtitle"])


def test_layers_filter_goes_from_page_to_page_at_once_and_stays_in_the_address(whole_cache, open_app):
    at = open_app(layers=["1", "2"], concept=["dog"])
    go(at, "invariance")
    assert "concepts: dog, led by layers 1 to 2" in said(charts(at)[0]), "in the first look, not in the next"
    assert at.query_params["layers"] == ["1", "2"]
    go(at, "image")
    assert at.query_params["layers"] == ["1", "2"], "a page without the filter keeps it, too"
    go(at, "sensitivity")
    assert at.slider(key="layers").value == (1, 2)
    at.slider(key="layers").set_value((0, 2)).run()
    go(at, "degradation")
    assert "led by layers 0 to 2" in said(charts(at)[0]), "what was chosen last"
    at.slider(key="layers").set_value((0, 3)).run()
    go(at, "layers")
    assert at.slider(key="layers").value == (0, 3), "no filter is no filter on the next page"
    assert "layers" not in at.query_params


@pytest.mark.parametrize("page", ["layers", "invariance", "sensitivity", "degradation", "specificity"])
def test_layers_filter_has_one_name(page, whole_cache, open_app):
    at = open_app(page)
    assert [slider.label for slider in at.slider if slider.key == "layers"] == ["Layers"]
    assert at.slider(key="layers").proto.help, "and says what this page keeps by it"


@pytest.mark.parametrize("page", ["layers", "sensitivity"])
def test_an_address_with_the_old_name_of_the_layers_filter_is_understood(page, whole_cache, open_app):
    at = open_app(page, led=["1", "2"])
    assert at.slider(key="layers").value == (1, 2)
    assert "led" not in at.query_params


def test_a_default_of_one_page_is_no_choice_for_the_next(whole_cache, open_app):
    at = open_app("invariance")
    assert len(at.multiselect(key="method").value) > 1
    go(at, "layers")
    at.run()
    assert at.multiselect(key="method").value == ["contribution-folded"]


def test_a_score_that_was_chosen_goes_along(whole_cache, open_app):
    at = open_app(method=["activation"])
    go(at, "invariance")
    assert at.multiselect(key="method").value == ["activation"]
    assert at.query_params["method"] in ("activation", ["activation"])


def test_the_default_score_is_the_one_that_adds_up_where_it_is_there():
    assert default_method(["contribution", "contribution-folded"]) == "contribution-folded"
    assert default_method(["activation", "contribution"]) == "contribution"
    assert default_method(["activation", "random"]) == "activation"


def test_the_first_page_says_what_each_page_answers(empty_cache, open_app):
    at = open_app()
    (table,) = (one for one in at.expander if one.label == "What the pages answer")
    assert [text.value for text in table.markdown] == list(QUESTIONS.values())
    assert not any(one.label == "What the pages answer" for one in open_app("image").expander)


def test_labels_stand_beside_their_marks(whole_cache, open_app):
    """Streamlit's theme would move the first and last label of every axis off its mark."""
    for page in ("neuron", "sensitivity", "specificity", "layers"):
        for spec in charts(open_app(page)):
            assert spec["config"]["axis"]["labelFlush"] is False, (page, title_of(spec))


def test_lens_says_what_it_opens_on_in_the_control(whole_cache, open_app):
    at = open_app("lens", layer=["1"])
    assert next(s for s in at.select_slider if s.key == "layer").value == "1", "an address wins"
