"""Work over a stranger's files is killed when it takes too much, and says what it has to say otherwise."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from pathlib import Path

import pytest

from mmn.errors import EncodingError, ModelError
from mmn.models.loading import load_model
from mmn.safety.limits import Limits, apart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are no limits elsewhere: run it on Linux")
SHORT = Limits(seconds=1)


def fails() -> str:
    raise EncodingError("a picture is too wide")


def loops() -> str:
    while True:
        pass


def fills_memory() -> str:
    return str(len(bytearray(8 << 30)))


def dies() -> str:
    faulthandler.disable()  # pytest's would print where it died
    os.abort()


def test_the_answer_comes_back_whatever_its_length():
    assert apart("it", lambda: "é" * 300_000, SHORT) == "é" * 300_000


def test_an_error_comes_back_as_what_it_was():
    with pytest.raises(EncodingError, match="a picture is too wide"):
        apart("it", fails, SHORT)


@pytest.mark.parametrize("work", [loops, fills_memory, dies])
def test_what_takes_too_much_is_killed(work):
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"^it: it takes more than 1 s or 4 GiB, or ends in the middle"):
        apart("it", work, SHORT)
    assert time.monotonic() - started < 10


def test_nothing_of_it_is_seen_here(capfd):
    kept: list[int] = []

    def speak() -> str:
        kept.append(os.write(1, b"loud"))
        return "done"

    apart("it", speak, SHORT)
    assert kept == []
    assert capfd.readouterr() == ("", "")


def test_no_process_is_left_behind(monkeypatch: pytest.MonkeyPatch):
    fork, forked = os.fork, []

    def noted() -> int:
        forked.append(fork())
        return forked[-1]

    monkeypatch.setattr(os, "fork", noted)
    apart("it", lambda: "done", SHORT)
    with pytest.raises(ChildProcessError):
        os.waitpid(forked[0], os.WNOHANG)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages.__init__.__globals__ }}", "unsafe"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than 2 s"),
        ("{{ 'x' * 1000000000000 }}", "MemoryError"),
    ],
)
def test_a_hostile_chat_template_is_refused(template, message, checkpoint, tmp_path):
    folder = tmp_path / "stranger"
    folder.mkdir()
    for file in Path(checkpoint).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=message):
        load_model(str(folder), device="cpu").exact_prompt("A picture of")
