"""Every figure of the registry, drawn of the bundled run, or of an invented one where that lacks the measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmn.core import Neuron
from mmn.figures.figure import Drawn, draw
from mmn.specimen import RUN_PATH
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.studies.registry import FIGURES
from mmn.view import View
from tests.pages.filled import fill_whole

INVENTED = (  # what the bundled run was not measured for
    "perturbation",
    "scaling",
    "edit",
    "domain-ablation",
    "shift",
    "shift-concepts",
    "shift-layers",
    "hallucination",
)


@contextmanager
def stores(path: Path) -> Iterator[dict[str, Store]]:
    """The bundled run, and an invented one."""
    fill_whole(path / "invented")
    with Store.open(path / "bundled") as bundled, Store.open(path / "invented") as invented:
        bundled.load_new_shards([RUN_PATH])
        invented.load_new_shards([invented.runs_path])
        yield {"bundled": bundled, "invented": invented}


def drawn_of(name: str, opened: dict[str, Store]) -> Drawn:
    """A figure by its usual view."""
    store = opened["invented" if name in INVENTED else "bundled"]
    run = store.runs().iloc[0]["run_id"]
    return draw(FIGURES[name], store, View(run=run, **_words(name, store, run)))


def _words(name: str, store: Store, run: str) -> dict[str, Any]:
    picture = store.ask(PictureQueries).pictures(run).iloc[0]["image_id"]
    first, second = store.ask(PictureQueries).concepts(run, picture)["noun"].tolist()[:2]
    two = {"image": picture, "noun": first, "rival": second}
    return {
        "comparison": {"methods": ("contribution", "activation")},
        "budget": two,
        "top-share": two,
        "tokens": {"neuron": Neuron(6, 100)},
        "perturbation": {"methods": ("contribution",)},
        "scaling": {"methods": ("contribution",)},
        "ablated-layers": {"methods": ("contribution-folded",)},
    }.get(name, {})
