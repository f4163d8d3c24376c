"""The Neuron page: a unit by address, by hand, by default; with and without annotation."""

import json

from tests.pages.conftest import pictures_sent
from tests.pages.filled import D_MLP, N_LAYERS, fill_whole
from tests.pages.titles import title_of


def title(spec: dict) -> str:
    """A chart's title in one line: it may be broken for a narrow window."""
    return title_of(spec)["text"]


def captions(at) -> str:
    return " ".join(element.value for element in at.caption)


def tiles(at) -> list:
    return [button for button in at.button if str(button.key).startswith("tile-strongest")]


def test_first_screen_is_a_unit_that_leads_rankings(whole_cache, open_app):
    at = open_app("neuron")
    assert not at.exception
    assert not at.error, [e.value for e in at.error]
    (spec,) = [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]
    assert "writes" in title(spec)
    ranks, concepts = (frame.value for frame in at.dataframe)
    assert list(ranks["method"]) == ["contribution", "contribution-folded", "activation", "random"]
    assert {"lemma", "n_images", "mean_score", "best_rank"} <= set(concepts)
    assert 1 <= len(pictures_sent(at)["panels"]) <= 12


def test_address_chooses_the_unit(whole_cache, open_app):
    at = open_app("neuron", neuron=["L3.u4"])
    assert any("L3.u4: layer 3" in s.value for s in at.subheader)


def test_unit_of_an_expert_is_called_by_it(empty_cache, open_app):
    fill_whole(empty_cache, d_experts=(0, *[D_MLP // 4] * (N_LAYERS - 1)))
    at = open_app("neuron", neuron=["L3.e2.u1"])
    assert not at.exception
    assert any("L3.e2.u1: layer 3" in s.value for s in at.subheader)
    (spec,) = [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]
    assert "What L3.e2.u1 writes" in title(spec)
    assert "different experts are awake" in captions(at)
    at = open_app("neuron", neuron=["L0.u4"])
    assert any("L0.u4: layer 0" in s.value for s in at.subheader)


def test_what_is_no_unit_is_explained(whole_cache, open_app):
    at = open_app("neuron", neuron=["dog"])
    assert "is not a unit; write it as" in at.info[0].value
    assert not at.error


def test_unit_that_the_model_does_not_have(whole_cache, open_app):
    at = open_app("neuron", neuron=["L9.u1"])
    assert "whole has no unit L9.u1: its layers are 0–3" in at.info[0].value
    assert not at.error


def test_typing_jumps_to_a_unit(whole_cache, open_app):
    at = open_app("neuron")
    at.text_input[0].set_value("L2.u7").run()
    assert any("L2.u7" in s.value for s in at.subheader)


def test_without_annotation_the_command_is_told(empty_cache, open_app):
    fill_whole(empty_cache, annotated=False)
    at = open_app("neuron")
    assert "python -m mmn annotate 5e6f0000" in at.info[0].value
    assert "Its activations at image tokens are not stored" in captions(at)
    assert len(tiles(at)) >= 1


def test_click_on_a_picture_opens_its_image_page(empty_cache, open_app):
    fill_whole(empty_cache, annotated=False)
    at = open_app("neuron")
    tiles(at)[0].click().run()
    assert not at.exception
    assert at.title[0].value == "Image"
    assert at.query_params["image"]


def axis_title(spec: dict) -> str:
    (title,) = [part["encoding"]["x"]["title"] for part in spec.get("layer", [spec])]
    return title


def test_words_are_shown_by_the_rows_that_were_chosen_and_the_badge_says_by_which(whole_cache, open_app):
    at = open_app("neuron", neuron=["L3.u4"])
    for rows, axis in (("raw", "logit per unit"), ("centred", "above the mean token's"), ("cosine", "cosine of")):
        at.segmented_control(key="words").set_value(rows).run()
        assert not at.exception
        (spec,) = [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]
        assert axis in axis_title(spec)
        said = " ".join(element.value for element in at.markdown)
        assert ("Not interpretable" if rows == "cosine" else "Interpretable") + f" by {rows} rows" in said


def test_rows_of_an_address_that_mean_nothing_are_raw(whole_cache, open_app):
    at = open_app("neuron", neuron=["L3.u4"], words=["whitened"])
    assert not at.exception
    assert at.segmented_control(key="words").value == "raw"


def test_generality_stands_beside_chance_and_the_random_ranking(whole_cache, open_app):
    at = open_app("neuron", neuron=["L3.u0"])
    ranks = at.dataframe[0].value
    assert ranks["generality"].max() > 0
    assert ": the share of nouns whose top 4 (1.6 %) have it; by chance 1.6" in captions(at)
    assert "General, here by " in captions(at)
    assert "by random rankings" in captions(at)
