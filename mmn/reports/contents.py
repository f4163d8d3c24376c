"""What a report of a run holds: every figure that can be drawn of it, its pictures, its definitions. OURS.

    run ─► each figure by its usual view, or why there is none ─► caption, table, chart
        ─► pictures: a thumbnail, the caption, its nouns beside the grey picture's, the unit that leads each

Nothing tells of the machine: folders of models, pictures and the cache are cut to their last names.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from mmn.counts import counted
from mmn.errors import ImageError, UsageError
from mmn.figures.captions import caption
from mmn.figures.figure import Column, Drawn, Figure, draw
from mmn.figures.wording import is_path, short_name
from mmn.images.opening import thumbnail
from mmn.names import RANDOM, default_method, definition
from mmn.store import Store
from mmn.store.digest import DigestQueries
from mmn.store.pictures import PictureQueries
from mmn.studies.registry import STUDIES
from mmn.view import View

SIDE: Final = 112  # pixels of a thumbnail's longer side
MOST_PICTURES: Final = 600  # more would make the file larger than is easily sent
MOST_ROWS: Final = 60  # of a table
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Shown:
    """A figure of the report: its question, chart, draft caption and table (headings, then cells as text)."""

    name: str
    question: str
    chart: Any
    caption: str
    headings: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    n_rows: int


@dataclass(frozen=True)
class Noun:
    """A noun of a caption; numbers and unit as text, "" where they are not known."""

    noun: str
    prob: str
    grey_prob: str
    unit: str
    score: str
    grey_score: str
    words: str


@dataclass(frozen=True)
class Picture:
    """A picture: its thumbnail as WebP in base 64 ("" where it does not open), its caption and its nouns."""

    image_id: str
    webp: str
    text: str
    nouns: tuple[Noun, ...]


@dataclass(frozen=True)
class Contents:
    """All of a report.

    Attributes:
        run: what it is of, as pairs of words.
        figures: by the study's question.
        missing: figures that cannot be drawn, each with the reason.
        pictures: at most `MOST_PICTURES`, evenly taken.
        n_pictures: that the run has.
        method: the score that leads to a noun's unit.
        methods: scores with their definitions: name, equation, where it is read, source.
    """

    run: tuple[tuple[str, str], ...]
    figures: Mapping[str, tuple[Shown, ...]]
    missing: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]
    n_pictures: int
    method: str
    methods: tuple[tuple[str, str, str, str], ...]


def contents(store: Store, run_id: str, tell: Tell = lambda _done, _total: None) -> Contents:
    """The report of a run.

    Args:
        store: with the run.
        run_id: of it, a beginning of it, or latest.
        tell: is told (steps done, steps to do).

    Raises:
        RunNotFoundError: no such run.
        UsageError: no caption of it holds a noun.
    """
    row = store.run(run_id)
    store.require_nouns(row["run_id"])
    methods = store.score_methods(row["run_id"])
    figures = [(study.question, figure) for study in STUDIES for figure in study.figures]
    shown: dict[str, tuple[Shown, ...]] = {}
    missing = []
    for number, (question, figure) in enumerate(figures, start=1):
        try:
            found = _shown(_drawn(figure, store, row["run_id"], methods))
            shown[question] = (*shown.get(question, ()), found)
        except UsageError as error:
            missing.append((figure.name, named_only(str(error), row)))
        tell(number, len(figures) + 1)
    method = default_method(methods)
    pictures, n_pictures = _pictures(store, row["run_id"], method)
    tell(len(figures) + 1, len(figures) + 1)
    summary = store.summary(row["run_id"])
    return Contents(_told(row, summary), shown, tuple(missing), pictures, n_pictures, method, tuple(_defined(methods)))


def _drawn(figure: Figure, store: Store, run_id: str, methods: Sequence[str]) -> Drawn:
    """The figure by the first of its usual views that can be drawn: of all scores, of the default one, of two.

    Raises:
        UsageError: none can; the reason for the first.
    """
    if "neuron" in figure.takes:
        raise UsageError("it is of one unit, which the dashboard lets choose")
    if "noun" in figure.takes:
        return draw(figure, store, _of_first_picture(store, run_id))
    others = [one for one in methods if one != (first := default_method(methods)) and not one.startswith(RANDOM)]
    views = [View(run_id), View(run_id, (first,)), *([View(run_id, (first, others[-1]))] if others else [])]
    reasons = []
    for view in views if "methods" in figure.takes else views[:1]:
        try:
            return draw(figure, store, view)
        except UsageError as error:
            reasons.append(error)
    raise reasons[0]


def _of_first_picture(store: Store, run_id: str) -> View:
    """The first noun of the first picture whose caption has one."""
    pictures = store.ask(PictureQueries).pictures(run_id)
    image_id = pictures.loc[pictures["n_concepts"] > 0, "image_id"].iloc[0]
    return View(run_id, image=image_id, noun=store.ask(PictureQueries).concepts(run_id, image_id)["noun"].iloc[0])


def named_only(text: str, run: Mapping[str, Any]) -> str:
    """A sentence in which the run's model and pictures are called by their last names."""
    for name in ("model", "images"):
        text = text.replace(str(run[name]), short_name(str(run[name])))
    return text


def _shown(drawn: Drawn) -> Shown:
    data = drawn.rows.data
    columns = [one for one in drawn.columns if one.name in data and data[one.name].notna().any()]
    rows = data.head(MOST_ROWS).to_dict("records")
    cells = tuple(tuple(cell(row, column) for column in columns) for row in rows) if columns else ()
    headings = tuple(one.heading for one in columns)
    figure = drawn.figure
    return Shown(figure.name, figure.question, drawn.chart, caption(drawn), headings, cells, len(data))


def cell(row: Mapping[str, Any], column: Column) -> str:
    """A number with its interval, as text."""
    said = number(row[column.name], column.form)
    if column.ends and all(pd.notna(row.get(end)) for end in column.ends):
        said += f" [{number(row[column.ends[0]], column.form)}, {number(row[column.ends[1]], column.form)}]"
    return said


def number(value: Any, form: str) -> str:
    """A value as text; a dash where there is none."""
    if not pd.api.types.is_list_like(value) and pd.isna(value):
        return "–"
    if isinstance(value, bool) or not form:
        return {"True": "yes", "False": "no"}.get(str(value), str(value))
    said = format(int(value) if form.endswith("d") else float(value), form)
    return said.replace("-", "−").replace("%", " %")


def _pictures(store: Store, run_id: str, method: str) -> tuple[tuple[Picture, ...], int]:
    rows = store.ask(PictureQueries).pictures(run_id)
    step = max(1, -(-len(rows) // MOST_PICTURES))
    nouns = dict(iter(store.ask(DigestQueries).nouns(run_id, method).groupby("image_id")))
    shown = [
        Picture(row.image_id, _webp(row.source), row.text, tuple(_nouns(nouns.get(row.image_id))))
        for row in rows.iloc[::step].itertuples()
    ]
    return tuple(shown), len(rows)


def _webp(source: str) -> str:
    try:
        return base64.b64encode(thumbnail(source, SIDE)).decode()
    except ImageError:
        return ""


def _nouns(rows: pd.DataFrame | None) -> Iterator[Noun]:
    for row in [] if rows is None else rows.to_dict("records"):
        is_led = pd.notna(row["layer"])
        yield Noun(
            row["noun"],
            number(row["prob"], ".2f"),
            "" if pd.isna(row["grey_prob"]) else number(row["grey_prob"], ".2f"),
            f"L{int(row['layer'])}.u{int(row['unit'])}" if is_led else "",
            number(row["score"], ".2f") if is_led else "",
            "" if pd.isna(row["grey_score"]) else number(row["grey_score"], ".2f"),
            ", ".join(str(token).strip() for token in list(row["tokens"])[:4])
            if pd.api.types.is_list_like(row["tokens"])
            else "",
        )


def _told(run: Mapping[str, Any], summary: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The run in pairs of words."""
    versions = {name: one for name, one in run["versions"].items() if not is_path(str(one))}
    n_units = int(run["n_layers"]) * int(run["d_mlp"])
    residual = summary["max_residual"]
    pairs = {
        "Run": run["run_id"],
        "Model": short_name(run["model"]),
        "Weights": run["model_fingerprint"][:16],
        "Units": f"{counted(run['n_layers'], 'layer')} of {run['d_mlp']:,}, {n_units:,} in all",
        "Pictures": f"{short_name(run['images'])}: {summary['n_images']:,}, {summary['n_failed']:,} failed",
        "Nouns": f"{summary['n_concepts']:,}",
        "Prompt": run["prompt"],
        "Scored": f"{run['created_at']:%d %b %Y, %H:%M} UTC, {run['status']}",
        "Seed": str(run["seed"]),
        "Exactness": "not known" if residual is None else f"largest residual {residual:.2g} of a logit",
        "Versions": ", ".join(f"{name} {one}" for name, one in versions.items()),
    }
    return tuple((name, str(value)) for name, value in pairs.items())


def _defined(methods: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    for method in methods:
        meant = definition(method)
        yield method, meant.equation, meant.position, meant.source
