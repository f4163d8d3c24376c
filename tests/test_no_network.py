"""Scoring and the app work without a network, and do not even try: nothing asks for an address or connects to one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from mmn.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was connected to or looked up; the libraries' own switch for working offline is off."""
    import huggingface_hub.constants

    told: list[object] = []

    def refuse(*words: object, **_named: object) -> None:
        told.append(words[-1])
        raise OSError("no network in this test")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    look_up = socket.getaddrinfo

    def look_up_here(host: object, *words: object, **named: object) -> object:
        """Whether the server's address is this machine is asked of this machine alone."""
        if host != "localhost":
            refuse(host)
        return look_up(host, *words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    return told


def test_the_guard_sees_a_connection(asked: list[object]) -> None:
    from urllib.request import urlopen

    with pytest.raises(OSError, match="no network"):
        urlopen("http://example.invalid")
    assert asked


def test_scoring_asks_for_nothing(asked: list[object], checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["--limit", "2", "--top-k", "5", "--max-new-tokens", "4", "--progress", "none", "--cache", str(tmp_path)]
    assert main(["score", "--model", str(checkpoint), "--images", str(pictures), *words]) == 0
    assert main(["score", "--model", "specimen", "--images", "gallery", *words]) == 0
    assert asked == []


def test_the_first_page_asks_for_nothing(asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMN_CACHE", str(tmp_path))
    st.cache_resource.clear()
    page = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120).run()
    assert not page.exception
    assert page.title[0].value == "Layers"
    assert asked == []
    st.cache_resource.clear()  # closes the database
