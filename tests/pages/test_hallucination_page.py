"""The Hallucination page: a picture's objects and what is known of them; and the Image page's mark of doubted nouns."""

from app import resources
from mmn.studies.hallucination.doubts import doubted
from mmn.studies.hallucination.judging import HALLUCINATED, PRESENT
from mmn.studies.hallucination.queries import HallucinationQueries
from tests.pages.conftest import pictures_sent
from tests.pages.filled import fill_whole

RUN = "5e6f000000000000"


def test_first_screen_is_full_and_a_map_is_chosen(whole_cache, open_app):
    open_app("layers")
    image = [resources.store().ask(HallucinationQueries).confidences(RUN)["image_id"].iloc[0]]
    at = open_app("hallucination", image=image)
    assert not at.exception
    assert not at.error, [e.value for e in at.error]
    told = at.dataframe[0].value
    assert set(told["state"][:2]) == {PRESENT, HALLUCINATED}, "the named nouns come first"
    assert len(at.get("vega_lite_chart")) == 5
    first = pictures_sent(at, "hallucination")["panels"][0]["measure"]
    other = told["object"][1] if first.endswith(told["object"][0]) else told["object"][0]
    at = open_app("hallucination", object=[other], image=image)
    assert pictures_sent(at, "hallucination")["panels"][0]["measure"] == f"confidence in {other}"


def test_the_image_page_marks_nouns_that_the_model_doubts_and_no_others(whole_cache, open_app):
    open_app("hallucination")
    doubts = doubted(resources.store(), RUN).groupby("image_id")["noun"].agg(list)
    unsure = doubts.index[0]
    read = resources.store().ask(HallucinationQueries).confidences(RUN)["image_id"]
    sure = next(one for one in read if one not in doubts.index)
    marks = [one.value for one in open_app("image", image=[unsure]).markdown if "doubted" in one.value]
    assert len(marks) == len(doubts[unsure])
    assert all(any(noun in mark for mark in marks) for noun in doubts[unsure])
    assert not [one for one in open_app("image", image=[sure]).markdown if "doubted" in one.value]


def test_without_a_measurement_the_command_is_told(empty_cache, open_app):
    fill_whole(empty_cache, annotated=False)
    at = open_app("hallucination")
    assert not at.error
    assert "python -m mmn hallucination 5e6f0000" in " ".join(c.value for c in at.caption)
