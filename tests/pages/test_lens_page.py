"""The Lens page: what each image token says, at which layer, and the charts over all pictures."""

import json

from mmn.studies.lens.queries import LensQueries
from tests.pages.conftest import pictures_sent
from tests.pages.filled import fill_whole
from tests.pages.titles import title_of


def titles(at) -> list[str]:
    return [title_of(json.loads(element.proto.spec))["text"] for element in at.get("vega_lite_chart")]


def panel(at) -> dict:
    (found,) = pictures_sent(at, "lens")["panels"]
    return found


def test_first_screen_is_full(whole_cache, open_app):
    at = open_app("lens")
    assert not at.exception
    assert not at.error, [e.value for e in at.error]
    assert len([b for b in at.button if str(b.key).startswith("tile-strip")]) == 4, "of 20: those that were read"
    nearest, shares = titles(at)
    assert nearest.startswith("Nearest word of each image token: D = ")
    assert shares == "Image tokens that say a noun of the caption"
    assert len(panel(at)["words"]) == 4
    from app import resources

    shares = resources.store().ask(LensQueries).noun_shares("5e6f").groupby("layer")["share"].mean()
    opened = next(s for s in at.select_slider if s.key == "layer").value
    assert shares[int(opened)] == shares.max(), "the layer after which image tokens say most of the caption's nouns"
    assert shares.max() > 0
    assert at.dataframe[0].value["n_tokens"].sum() == 4


def test_address_chooses_layer_and_word(whole_cache, open_app):
    at = open_app("lens", layer=["1"], word=["the likeliest word"])
    assert next(s for s in at.select_slider if s.key == "layer").value == "1"
    assert next(g for g in at.button_group if g.key == "word").value == "the likeliest word"
    assert not at.error


def test_input_shows_cosines(whole_cache, open_app):
    at = open_app("lens", layer=["input"])
    assert not at.error
    assert not [g for g in at.button_group if g.key == "word"], "no noun has a probability there"
    assert "cosine" in " ".join(element.proto.body for element in at.get("html"))


def test_a_noun_colours_the_token_that_says_it(whole_cache, open_app):
    """In the made-up run the first noun is the first token's likeliest, and improbable elsewhere."""
    at = open_app("lens")
    colours = panel(at)["colours"]
    assert len(set(colours[1:])) == 1
    assert colours[0] != colours[1]


def test_words_are_sent_as_they_are(whole_cache, open_app):
    """The browser's half sets them as text (`test_hostile_text`)."""
    at = open_app("lens", layer=["input"])
    assert any("<x>" in said for said in pictures_sent(at, "lens")["grids"][0]["words"])


def test_bad_values_in_the_address_are_dropped(whole_cache, open_app):
    at = open_app("lens", layer=["99"], word=["unicorn"], image=["zzz"])
    assert not at.error
    assert not at.exception


def test_a_picture_that_was_not_read_says_so(whole_cache, open_app):
    at = open_app("image")
    last = [button for button in at.button if str(button.key).startswith("tile-strip")][13]
    last.click().run()
    image = at.query_params["image"]
    at = open_app("lens", image=image)
    assert not at.error
    assert "were not read" in at.info[0].value


def test_without_the_lens_the_command_is_told(empty_cache, open_app):
    fill_whole(empty_cache, annotated=False)
    at = open_app("lens")
    assert not at.error
    assert "python -m mmn lens 5e6f0000" in " ".join(c.value for c in at.caption)


def test_a_click_opens_another_picture(whole_cache, open_app):
    at = open_app("lens")
    before = panel(at)
    [button for button in at.button if str(button.key).startswith("tile-strip")][2].click().run()
    assert not at.error
    assert panel(at) != before
