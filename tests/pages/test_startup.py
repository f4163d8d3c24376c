"""Loading the libraries: no garbage collection meanwhile, again afterwards, whatever happened."""

import gc
import sys

import pytest

from app.startup import loading_libraries


@pytest.fixture
def new_server(monkeypatch):
    """A process that has not loaded pandas yet."""
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    yield
    gc.unfreeze()


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
