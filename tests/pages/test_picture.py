"""The picture component: what the browser is sent, and what the address keeps."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from app.picture import multiples, second
from app.picture.panels import FIELDS, HOW, NO_PLACES, PARTS, Panel, Places, payload
from app.pictures import displayed
from mmn.models.geometry import Grid, Grids
from mmn.models.geometry.grids import cells_of
from tests.pages.conftest import pictures_sent

GRID = Grid.even(2, 2, (-10.0, 0.0, 90.0, 40.0))  # of a picture of 80 × 40, padded at its left and right
GRIDS = Grids((GRID,), (None, *cells_of(0, GRID)))


def test_places_are_one_array_cut_off_at_the_picture_s_edges():
    places = Places(GRIDS, (80, 40), ("", "a", "b", "c", "d"))
    panel = Panel(Image.new("RGB", (80, 40)), "a dog", places=places, values=(0.0, 1.23456, -2.0, 3e-9, 4.0))
    sent = payload([panel, panel])
    (grid,) = sent["grids"]
    assert grid["places"][:FIELDS] == [1, 0, 0, PARTS // 2, PARTS // 2]
    assert grid["places"][-FIELDS:] == [4, PARTS // 2, PARTS // 2, PARTS, PARTS]
    assert len(grid["places"]) == 4 * FIELDS, "the token without a place is left out"
    assert sent["panels"][0]["values"] == [0.0, 1.235, -2.0, 3e-9, 4.0]
    assert sent["note"] == HOW
    assert sent["id"] != payload([panel])["id"]


@pytest.mark.parametrize("size", [(4000, 200), (1, 1), (200, 4000)])
def test_pictures_of_any_shape_travel_small_and_say_that_they_have_no_places(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    file = str(tmp_path / "one.png")
    image = Image.open(file).copy() if min(size) < 8 else displayed(file, "x" * 8)  # files so small are not scored
    sent = payload([Panel(image, "noise")])
    assert sent["grids"] == []
    assert sent["note"] == NO_PLACES
    assert sent["panels"][0]["grid"] == -1
    assert len(sent["panels"][0]["image"]) < 40_000
    assert max(sent["panels"][0]["width"], sent["panels"][0]["height"]) <= 560


def test_the_address_asks_about_a_token_and_zooms(whole_cache, open_app):
    at = open_app("image", token=["2"], zoom=["2@0.5,0.25"], beside=["3"])
    assert not at.exception
    assert not at.error
    one = pictures_sent(at, "picture-one")
    assert (one["token"], one["zoom"]) == (2, "2@0.5,0.25")
    assert len(one["panels"][0]["values"]) == 4
    assert "Image token 2: what wrote it?" in " ".join(m.value for m in at.markdown)
    active = next(frame.value for frame in at.dataframe if "highest" in frame.value)
    assert list(active["activation"]) == sorted(active["activation"], reverse=True)
    assert (active["activation"] <= active["highest"]).all()
    assert "writes" in active
    titles = [panel["title"] for panel in pictures_sent(at, "picture-beside")["panels"]]
    assert [int(title.partition(".")[0]) for title in titles] == [1, 2, 3]
    assert len({re.sub(r"^\d+\. |:.*", "", title) for title in titles}) == 3


def test_nonsense_in_the_address_is_the_whole_picture(whole_cache, open_app):
    at = open_app("image", token=["-1"], zoom=["99@2,2"], beside=["many"], averaged=["77"])
    assert not at.exception
    assert not at.error
    one = pictures_sent(at, "picture-one")
    assert (one["token"], one["zoom"]) == (None, "")
    at = open_app("image", token=["4000"])
    assert "no such image token" in " ".join(c.value for c in at.caption)


def test_a_second_run_stands_beside_the_first(whole_cache, open_app, monkeypatch):
    def named(run):
        from app import resources

        return resources.store().run("5e6f")

    monkeypatch.setattr(second, "of_view", named)
    at = open_app("image", run=["5e6f"])
    assert not at.error
    titles = [panel["title"] for panel in pictures_sent(at, "picture-beside")["panels"]]
    assert len(titles) == 2
    assert all("5e6f0000 · 1. L" in title for title in titles), "each says its run; here both are the same"
    monkeypatch.setattr(multiples, "of_units", _refuse)
    at = open_app("image", run=["5e6f"])
    assert "cannot be shown side by side: no such noun" in " ".join(i.value for i in at.info)


def _refuse(*_):
    from mmn.errors import UsageError

    raise UsageError("no such noun")
