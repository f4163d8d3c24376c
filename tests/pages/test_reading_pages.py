"""The Patchscopes page: its settings, and what the states of one picture say; both pages where nothing is measured."""

import json

from tests.pages.filled import fill_whole
from tests.pages.titles import title_of


def titles(at) -> list[str]:
    return [title_of(json.loads(element.proto.spec))["text"] for element in at.get("vega_lite_chart")]


def test_all_is_drawn_of_the_setting_in_the_address(whole_cache, open_app):
    at = open_app("patchscopes", setting=["identity, layer 1"])
    assert not at.error
    assert [one.value for one in at.selectbox if one.key == "setting"] == ["identity, layer 1"]
    assert titles(at) == [
        "Nouns that their state says",
        "Surprisal of a noun, read from its state",
        "Image tokens that say a noun of the caption",
        "Image tokens near a word of their picture",
    ]
    spec = json.loads(at.get("vega_lite_chart")[0].proto.spec)
    assert "identity, layer 1; all concepts" in " ".join(title_of(spec)["subtitle"])
    nouns, tokens = at.dataframe[0].value, at.dataframe[1].value
    assert nouns["After layer"].tolist() == [0, 1, 2, 3]
    assert [name.partition(": ")[2] for name in nouns.columns[1:]] == ["patchscope", "logit lens"] * 2
    assert list(tokens.columns)[:4] == ["Image token", "Patchscope", "Logit lens", "Nearest word"]
    assert len(tokens) == 3


def test_what_means_nothing_is_dropped_and_a_picture_that_was_not_read_says_so(whole_cache, open_app):
    at = open_app("patchscopes", setting=["nonsense"], concept=["unicorn"])
    assert not at.error
    assert not at.exception
    at = open_app("image")
    [button for button in at.button if str(button.key).startswith("tile-strip")][13].click().run()
    at = open_app("patchscopes", image=at.query_params["image"])
    assert "states of this picture were not read" in " ".join(one.value for one in at.info)


def test_without_measurements_the_commands_are_told(empty_cache, open_app):
    fill_whole(empty_cache, annotated=False)
    for page in ("patchscopes", "projector"):
        at = open_app(page)
        assert not at.error
        assert f"python -m mmn {page} 5e6f0000" in " ".join(one.value for one in at.caption)
