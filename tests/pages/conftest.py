"""Pages run in this process by Streamlit's AppTest, on a cache of their own that is empty or filled."""

import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from mmn.store import Store
from tests.pages.filled import fill, fill_whole

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder of an empty cache that the app opens; closed again afterwards, the bundled runs left out."""
    from app import resources

    monkeypatch.setenv("MMN_CACHE", str(tmp_path))
    monkeypatch.setattr(resources, "BUNDLED_RUNS", ())
    monkeypatch.setattr("mmn.cli.figure.RUN_PATHS", ())
    st.cache_data.clear()
    st.cache_resource.clear()
    yield tmp_path
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture(scope="session")
def filled_loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds two runs, in its database, too: a small complete one and a deep cancelled one. Read only."""
    path = tmp_path_factory.mktemp("filled")
    fill(path)
    fill(
        path,
        "77aa9c1b00112233",
        model="/models/deep-llava",
        n_layers=32,
        d_mlp=2048,
        n_images=4,
        status="cancelled",
        created_at="2026-11-19T10:00:00+00:00",
    )
    return loaded(path)


@pytest.fixture
def filled_cache(empty_cache: Path, filled_loaded: Path) -> Path:
    """A copy of it, to write to."""
    shutil.copytree(filled_loaded, empty_cache, dirs_exist_ok=True)
    return empty_cache


@pytest.fixture(scope="session")
def whole_loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds one run in which nothing is missing, in its database, too. Read only."""
    path = tmp_path_factory.mktemp("whole")
    fill_whole(path)
    return loaded(path)


@pytest.fixture
def whole_cache(empty_cache: Path, whole_loaded: Path) -> Path:
    """A copy of it, to write to; its pictures are the same files."""
    shutil.copytree(whole_loaded, empty_cache, dirs_exist_ok=True)
    return empty_cache


def loaded(cache: Path) -> Path:
    """The cache, its shards in its database."""
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
    return cache


@pytest.fixture
def open_app():
    """Opens the app at a page and address, and asserts that nothing went wrong."""

    def open_(page: str = "layers", **address: list[str]) -> AppTest:
        at = AppTest.from_file(ROOT / "app" / "main.py", default_timeout=60)
        for key, values in address.items():
            at.query_params[key] = values
        return at.switch_page(f"../pages/{page}.py").run()

    return open_


def pictures_sent(at: AppTest, key: str = "") -> dict:
    """What the browser is sent for the picture component whose key ends so."""
    found = [one.proto for one in at.get("bidi_component") if one.proto.id.endswith(key)]
    assert len(found) == 1, [one.id for one in found]
    return json.loads(found[0].json)
