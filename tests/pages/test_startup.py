"""Loading the libraries: no garbage collection meanwhile, again afterwards, whatever happened; and when not at all."""

import gc
import runpy
import subprocess
import sys

import pytest
import streamlit as st

from app.startup import loading_libraries
from tests.pages.conftest import ROOT


@pytest.fixture
def new_server(monkeypatch):
    """A process that has not loaded pandas yet."""
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    yield
    gc.unfreeze()
    gc.enable()


def test_libraries_are_loaded_without_collections_and_never_looked_at_again(new_server):
    n_frozen = gc.get_freeze_count()
    with loading_libraries():
        assert not gc.isenabled()
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= n_frozen + len(kept)


def test_collections_go_on_after_a_library_that_does_not_load(new_server):
    with pytest.raises(ModuleNotFoundError), loading_libraries():
        raise ModuleNotFoundError("no such library")
    assert gc.isenabled()


def test_later_scripts_change_nothing(new_server, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", gc)
    n_frozen = gc.get_freeze_count()
    with loading_libraries():
        assert gc.isenabled()
    assert gc.get_freeze_count() == n_frozen


def test_nothing_loads_pandas_before_the_first_script():
    """Else the libraries would load as slowly as without `loading_libraries`."""
    code = "import sys, streamlit.web.cli, streamlit.web.bootstrap, app.startup; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_a_spawned_worker_does_not_run_the_dashboard(monkeypatch):
    monkeypatch.setattr(st, "navigation", lambda _pages: pytest.fail("the dashboard ran"))
    runpy.run_path(str(ROOT / "app" / "main.py"), run_name="__mp_main__")  # what multiprocessing calls it
