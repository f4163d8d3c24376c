"""Pins on their page: moved, captioned, removed and brought back; one whose run is gone or has changed says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmn.figures.pins import FILE, Pins


def keys(at: Any, start: str) -> list[str]:
    return [one.key for one in at.button if str(one.key).startswith(start)]


def headings(at: Any) -> list[str]:
    return [one.value for one in at.markdown if one.value.startswith("**(") or "No letter" in one.value]


def test_pins_are_ordered_captioned_removed_and_brought_back(whole_cache: Path, open_app: Any) -> None:
    at = open_app("invariance")
    first, second = keys(at, "pin-")[:2]
    at.button(key=first).click().run()
    at.button(key=second).click().run()
    assert [at.button(key=key).label for key in (first, second)] == ["Pinned", "Pinned"]
    assert len(Pins(whole_cache).read()) == 2

    at = open_app("figures")  # another window
    assert not at.exception
    before = headings(at)
    assert [one[:7] for one in before] == ["**(a)**", "**(b)**"]
    at.button(key=keys(at, "down-")[0]).click().run()
    assert [one[8:] for one in headings(at)] == [before[1][8:], before[0][8:]]
    at.text_area[0].set_value("Words of mine.").run()
    assert [one.caption for one in Pins(whole_cache).read()] == ["Words of mine.", ""]
    at.button(key=keys(at, "remove-")[0]).click().run()
    assert len(headings(at)) == 1
    at.button(key="pins-undo").click().run()
    assert [one.caption for one in Pins(whole_cache).read()] == ["Words of mine.", ""]
    at.button(key=keys(at, "remove-")[0]).click().run()
    at.switch_page("../pages/layers.py").run()
    at.switch_page("../pages/figures.py").run()
    assert not keys(at, "pins-undo"), "until the page was left"
    assert not at.exception


def test_a_pin_whose_run_is_gone_or_changed_says_so(whole_cache: Path, open_app: Any) -> None:
    at = open_app("invariance")
    for key in keys(at, "pin-")[:2]:
        at.button(key=key).click().run()
    path = whole_cache / FILE
    held = json.loads(path.read_text())
    held["pins"][0]["recipe"] |= {"run_id": "0123456789abcdef"}
    held["pins"][0]["recipe"]["view"] |= {"run": "0123456789abcdef"}
    held["pins"][1]["recipe"]["n_rows"] += 1
    path.write_text(json.dumps(held))
    at = open_app("figures")
    assert not at.exception
    assert [one[:13] for one in headings(at)] == ["**No letter**", headings(at)[1][:13]]
    gone, changed = [one.value for one in at.warning]
    assert "can no longer be drawn" in gone
    assert "0123456789abcdef" in gone
    assert "rows there" in changed
    at.button(key=keys(at, "again-")[0]).click().run()
    assert len(at.warning) == 1
    path.write_text("{")
    at.run()
    assert "pins cannot be read" in at.error[0].value
    assert open_app("invariance").button(key=keys(open_app("invariance"), "pin-")[0]).disabled
