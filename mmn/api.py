"""The program from Python: score pictures, open what was found, draw a figure. `docs/api.md` shows it in ten lines.

Every function is what the command of its name does. Model ─► `score` ─► `open_cache` ─► `draw` ─► `save`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmn import names
from mmn.figures import figure as figures
from mmn.figures.figure import Drawn, Figure, require_taken
from mmn.specimen import RUN_PATHS
from mmn.store import Store
from mmn.studies.registry import find_figure
from mmn.view import View

if TYPE_CHECKING:
    from mmn.models.model import Model
    from mmn.runs.plan import ProgressCallback


@dataclass(frozen=True)
class RunSummary:
    """A scoring run: its id and status (`complete` or `failed`), and what it holds.

    `max_residual` is the largest |residual| / max(|logit|, 1) (METHODS: exactness), None without concepts.
    """

    run_id: str
    status: str
    n_images: int
    n_failed: int
    n_concepts: int
    n_scores: int
    max_residual: float | None


def score(
    model: Model,
    images: str | Path,
    cache: str | Path | None = None,
    *,
    methods: str | Sequence[str] = names.CONTRIBUTION,
    limit: int | None = None,
    progress: ProgressCallback | None = None,
    **settings: Any,
) -> RunSummary:
    """Captions pictures and ranks the units that write each noun, into a cache; the same call again resumes.

    Args:
        model: from `load_model`.
        images: one picture, a folder, `gallery`, or another source that `mmn score --images` takes.
        cache: a folder; `$MMN_CACHE`, else `cache/`, unless given.
        methods: scores, by the names of `mmn score --help`.
        limit: only the first so many pictures.
        progress: told how far it is.
        settings: further fields of `core.ScoreSettings`, such as `prompt` or `top_k`.

    Raises:
        SourceError: the pictures cannot be listed. One that does not open is a row of `failure` instead.
        ModelError: the model does not see pictures, or its logits do not add up.
        UsageError: no such method.
        Cancelled: interrupted; what was finished is kept.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the model's checks are in forked processes
    from mmn.images import list_source
    from mmn.runs.engines.local import carry_out
    from mmn.runs.plan import count
    from mmn.runs.prepare import prepare, settings_of
    from mmn.scores.batch import check_methods

    methods = (methods,) if isinstance(methods, str) else tuple(methods)
    check_methods(methods)
    cache_path = _cache_path(cache)
    listing = list_source(str(images), limit, cache_path / "images")
    plan = prepare(model, listing, str(images), settings_of(model, methods=methods, **settings))
    run_path, outcome = carry_out(plan, model, cache_path / "runs", progress or (lambda _progress: None))
    return RunSummary(plan.run.run_id, outcome.status, **vars(count(run_path)))


def open_cache(cache: str | Path | None = None) -> Store:
    """Opens a cache's results, with what was scored since; close it, or use it in a `with` block.

    Raises:
        CacheLockedError: another process holds it, as the dashboard does.
        CacheError: it is newer than this program, damaged, or cannot be written.
    """
    store = Store.open(_cache_path(cache))
    store.load_new_shards([store.runs_path, *RUN_PATHS])
    for broken in store.set_aside:
        warnings.warn(f"set aside: {broken}", stacklevel=2)
    return store


def draw(figure: str | Figure, cache: Store, view: View) -> Drawn:
    """A figure of a view: `.chart` (Altair), `.rows.data` (the data frame), `.asked.told` (what was taken of several).

    Raises:
        UsageError: no such figure, a filter that it does not read, or nothing there to be drawn.
        RunNotFoundError: no such run.
    """
    found = find_figure(figure) if isinstance(figure, str) else figure
    require_taken(found, view)
    return figures.draw(found, cache, view)


def save(
    drawn: Drawn, path: str | Path, width: str | float = "single", *, preset: str = "plain", ppi: int = 300
) -> Path:
    """Writes a figure as the ending of `path` says: svg, pdf, png, json, csv or parquet for its rows, tex for a table.

    The file carries the recipe that makes it again; beside a csv, parquet or tex it is `NAME.recipe.json`.

    Args:
        drawn: from `draw`.
        path: of the file.
        width: `single` or `double`, a column of a paper or two, or inches.
        preset: whose columns and letters: plain, acl, neurips, iclr, cvpr, ieee, nature.
        ppi: of a png: 300 or 600.

    Raises:
        UsageError: no such format, width, preset or ppi; the figure is no table.
    """
    from mmn.figures.export import unshown
    from mmn.figures.glyphs import remedy
    from mmn.figures.presets import Layout
    from mmn.figures.saving import save_figure

    out, layout = Path(path), Layout(preset, width, ppi)
    form = out.suffix.lstrip(".").lower()
    if lacking := remedy(unshown(drawn.chart, form, layout), form):
        warnings.warn(lacking, stacklevel=2)
    save_figure(drawn, out, layout)
    return out


def _cache_path(cache: str | Path | None) -> Path:
    return Path(cache or os.environ.get("MMN_CACHE") or "cache").expanduser()
