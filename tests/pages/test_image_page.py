"""The Image page: which picture and noun, what the table and the overlay say, and what is missing."""

import json
import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest

from mmn.cli import DONE, main
from mmn.core import Neuron
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.units.heat_maps import heat_map, iou, mask_at
from mmn.units.masks import MaskSource, Outlines
from tests.pages.filled import GRIDS, fill_whole
from tests.pages.titles import title_of


def title(spec: dict) -> str:
    """A chart's title in one line: it may be broken for a narrow window."""
    return title_of(spec)["text"]


def charts(at) -> list[dict]:
    return [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]


def captions(at) -> str:
    return " ".join(element.value for element in at.caption)


def noun_pills(at):
    return next(group for group in at.button_group if group.key == "noun")


def first_picture(cache) -> pd.Series:
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        return store.ask(PictureQueries).pictures("5e6f").iloc[0]


def tile(at, number: int):
    return [button for button in at.button if str(button.key).startswith("tile-strip")][number]


def test_first_screen_is_full(whole_cache, open_app):
    at = open_app("image")
    assert not at.exception
    assert not at.error, [e.value for e in at.error]
    assert len([b for b in at.button if str(b.key).startswith("tile-strip")]) == 14
    assert [m.label for m in at.metric] == ["Probability", "Logit", "Prob., grey", "Logit, grey"]
    rows = at.dataframe[0].value
    assert {"score", "blank_score", "difference", "writes", "iou", "iou_random", "rank:activation"} <= set(rows)
    budget, share = charts(at)
    assert "residual" in " ".join(title_of(budget)["subtitle"])
    assert title(share).startswith("How much of the logit")


def test_address_chooses_picture_and_noun(whole_cache, open_app):
    row = first_picture(whole_cache)
    second = re.findall(r"a (\w+)", row["text"])[1]
    at = open_app("image", image=[row["image_id"][:10]], noun=[second])
    assert noun_pills(at).value == f"{second} (not in the references)"
    assert f"“{row['text']}”" in " ".join(m.value for m in at.markdown)
    assert "Possible hallucination" in captions(at)
    assert f"“{second}” has several tokens" in captions(at)


def test_click_on_a_thumbnail_opens_it(whole_cache, open_app):
    at = open_app("image")
    before = [m.value for m in at.markdown]
    tile(at, 5).click().run()
    assert not at.exception
    assert at.query_params["image"]
    assert [m.value for m in at.markdown] != before


def test_unknown_picture_is_said_and_the_first_is_shown(whole_cache, open_app):
    at = open_app("image", image=["zzz"])
    assert "No picture of this run has an id that begins with “zzz”" in captions(at)
    assert len(at.metric) == 4


def test_only_possible_hallucinations(whole_cache, open_app):
    at = open_app("image", unsaid=["true"])
    assert not at.error
    assert "20 pictures" in captions(at), "each has a noun that its reference lacks"


def test_selected_row_shows_where_that_unit_looks(whole_cache, open_app):
    at = open_app("image")
    key = next(frame.key for frame in at.dataframe if str(frame.key).startswith("units-"))
    at.session_state[key] = {"selection": {"rows": [2], "columns": [], "cells": []}}
    at.run()
    assert not at.error, [e.value for e in at.error]
    assert "IoU of the brightest 5 %" in " ".join(m.value for m in at.markdown)
    assert not [s for s in at.slider if s.key == "averaged"], "one unit is not averaged"
    assert at.get("page_link")
    at.session_state[key] = {"selection": {"rows": [30], "columns": [], "cells": []}}
    at.run()
    assert "were not stored here" in captions(at) or "compared for the first units only" in captions(at)


def test_top_units_are_averaged(whole_cache, open_app):
    at = open_app("image")
    next(s for s in at.slider if s.key == "averaged").set_value(5).run()
    assert not at.error
    assert "the objects' outlines cannot be read" in captions(at), "these pictures are not the gallery's"


def test_the_average_map_is_measured_itself(whole_cache, open_app, monkeypatch):
    """The noun's object is the left half of the picture; the IoU is of the map that is shown, by the library."""
    row = first_picture(whole_cache)
    said = re.findall(r"a (\w+)", row["text"])
    left = np.zeros((48, 64), bool)
    left[:, :32] = True
    masks = {said[0]: left, "moon": ~left}
    monkeypatch.setattr("app.outlines.masks_of_run", lambda *_: MaskSource("", lambda _example: Outlines(masks)))
    at = open_app("image", image=[row["image_id"][:10]], noun=[said[0]])
    next(s for s in at.slider if s.key == "averaged").set_value(3).run()
    assert not at.error
    with Store.open(whole_cache / "again") as store:
        store.load_new_shards([whole_cache / "runs"])
        ranked = store.ask(PictureQueries).ranked_units("5e6f", row["image_id"], said[0], "contribution", limit=3)
        units = [Neuron(one.layer, one.unit) for one in ranked.itertuples()]
        values = np.stack(store.ask(PictureQueries).looks("5e6f", row["image_id"], units)["activations"]).mean(axis=0)
    looked_at = mask_at(heat_map(values, GRIDS, (64, 48)))
    expected = f"with “{said[0]}” **{iou(looked_at, left):.2f}** · with other objects **{iou(looked_at, ~left):.2f}**"
    assert f"IoU of the brightest 5 % of the average map: {expected}" in [m.value for m in at.markdown]


def test_suppressors_have_their_own_table(whole_cache, open_app):
    at = open_app("image")
    next(group for group in at.button_group if group.key == "sign").set_value("Suppressors").run()
    assert not at.error
    assert (at.dataframe[0].value["rank"] < 0).all()


def test_another_score_ranks_anew_and_is_defined(whole_cache, open_app):
    at = open_app("image", ranking=["activation"])
    assert "rank:contribution" in set(at.dataframe[0].value)
    assert "activation baseline" in captions(at)


def test_two_budgets_share_an_axis(whole_cache, open_app):
    at = open_app("image")
    rival = next(box for box in at.selectbox if box.key.startswith("rival-"))
    rival.set_value(rival.options[-1]).run()
    assert not at.error, [e.value for e in at.error]
    one, two = charts(at)[:2]
    assert one["encoding"]["y"]["scale"] == two["encoding"]["y"]["scale"]
    assert "grey picture" in title(two)


def test_the_command_below_two_budgets_draws_both(whole_cache, open_app, tmp_path_factory):
    at = open_app("image")
    rival = next(box for box in at.selectbox if box.key.startswith("rival-"))
    rival.set_value(rival.options[0]).run()
    budget, share = (c.value.split("`")[1] for c in at.caption if c.value.startswith("From a terminal"))
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(whole_cache / "runs", cache / "runs")
    out = cache / "figure.json"
    for command, panels in ((budget, charts(at)[:2]), (share, charts(at)[2:])):
        assert main([*shlex.split(command.replace("figure.svg", str(out)))[3:], "--cache", str(cache)]) == DONE
        theirs = json.loads(out.read_text())
        assert {row["noun"] for rows in theirs["datasets"].values() for row in rows} > {rival.options[0]}
        assert all(title_of(panel)["subtitle"][0] == title_of(theirs)["subtitle"][0] for panel in panels)


def test_without_annotation_the_command_is_told(empty_cache, open_app):
    fill_whole(empty_cache, annotated=False)
    at = open_app("image")
    assert not at.error
    assert captions(at).count("python -m mmn annotate 5e6f0000") == 2
    assert "writes" not in at.dataframe[0].proto.column_order


def test_picture_whose_file_is_gone(filled_cache, open_app):
    at = open_app("image")
    assert not at.error
    assert "The picture cannot be shown" in at.info[0].value
    assert len(at.dataframe) == 1, "its units are known all the same"
    assert "This run kept no budgets" in captions(at)


@pytest.mark.parametrize("change", ["run"])
def test_picture_survives_or_falls_back_on_a_change_of_run(whole_cache, open_app, change):
    fill_whole(whole_cache, "77aa000000000000", annotated=False)
    at = open_app("image")
    tile(at, 3).click().run()
    box = at.sidebar.selectbox[0]
    box.set_value(next(option for option in box.options if "77aa" in option or option != box.value)).run()
    assert not at.exception
    assert not at.error, [e.value for e in at.error]


def test_average_has_no_gaps_where_another_noun_had_a_later_unit_looked_at(whole_cache, open_app, monkeypatch):
    def with_a_gap(self, run, image, units):
        return looks(self, run, image, units).iloc[1:]

    monkeypatch.setattr(PictureQueries, "looks", with_a_gap)
    at = open_app("image")
    assert "were not stored here" in captions(at), "rank 1 is missing, so no average of the top is shown"


looks = PictureQueries.looks
