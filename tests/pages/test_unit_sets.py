"""Sets and notes on pages: a ranking is saved, a unit added, a note kept, an experiment started on a set."""

import pandas as pd
import pytest

from mmn.core import Neuron
from mmn.store.unit_rankings import set_of_rows
from mmn.units.kept import kept_sets, load_set, save_set
from mmn.units.notes import notes


def of(elements, key):
    (found,) = [one for one in elements if str(one.key).startswith(key)]
    return found


def test_the_current_ranking_is_saved_as_a_set(whole_cache, open_app):
    at = open_app("image")
    of(at.text_input, "set-name-image").set_value("first").run()
    of(at.button, "set-save-image").click().run()
    assert not at.exception
    assert "saved as first" in at.success[0].value
    (kept,) = kept_sets(whole_cache).sets
    assert {"method", "noun", "image", "k", "run"} <= set(kept.origin)
    assert len(kept.units) == len(kept.scores) == int(kept.origin["k"])


def test_a_unit_is_added_by_a_click_and_its_note_is_kept(whole_cache, open_app):
    at = open_app("neuron", neuron=["L3.u4"])
    of(at.text_input, "set-new").set_value("hand").run()
    of(at.button, "set-add").click().run()
    assert "hand has 1 unit now" in at.success[0].value
    assert load_set(whole_cache, "hand").units == (Neuron(3, 4),)
    of(at.text_area, "note-").set_value("*beaks* ![](http://x)").run()
    assert not at.exception
    again = open_app("neuron", neuron=["L3.u4"])
    assert of(again.text_area, "note-").value == "*beaks* ![](http://x)"
    assert any("In the sets: hand" in one.value for one in again.caption)
    (told,) = [notes(whole_cache, path.name) for path in (whole_cache / "unit-notes").iterdir()]
    assert told == {Neuron(3, 4): "*beaks* ![](http://x)"}


def test_an_experiment_takes_a_set_and_factors(whole_cache, open_app):
    from app import resources

    at = open_app("degradation", effect=["Scale"])
    assert not at.exception
    assert not [one for one in at.selectbox if str(one.key).startswith("new-scale-set")]
    run = resources.store().runs().iloc[0].to_dict()
    rows = pd.DataFrame({"layer": [3, 1], "unit": [5, 7], "score": [1.0, 0.5]})
    save_set(whole_cache, set_of_rows(run, "dogs", rows, {}))
    at.run()
    of(at.selectbox, "new-scale-set").set_value("dogs").run()
    of(at.multiselect, "new-factors").set_value(["0", "2"]).run()
    assert not at.exception
    assert any("--kind scale --units dogs" in one.value and "--factor 0,2" in one.value for one in at.caption)


@pytest.mark.parametrize("axis", ["×", "k"])
def test_scaled_units_are_drawn_against_factor_and_k(whole_cache, open_app, axis):
    at = open_app("degradation", effect=["Scale"], **{"factor-axis": [axis]})
    assert not at.exception
    assert not at.error
    assert any("multiplied" in element.proto.spec for element in at.get("vega_lite_chart"))


def test_a_set_that_cannot_be_saved_is_told(whole_cache, open_app):
    at = open_app("neuron", neuron=["L3.u4"])
    of(at.text_input, "set-new").set_value("../evil").run()
    of(at.button, "set-add").click().run()
    assert "is no name of a set" in at.warning[0].value
    assert not at.exception
