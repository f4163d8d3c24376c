"""A second run beside the first: the same figure of both on the same scales, and their difference by picture.

    view, with `compare` ─► the figure of its run (A) ─► that of the other run (B) ─► B − A on shared pictures

What cannot be compared is said: a figure that B lacks, no common pictures, layers or k of another model. OURS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.figures.differences import difference_chart
from mmn.figures.figure import Asked, Column, Drawn, draw_alone
from mmn.figures.pairing import DIFFERENCE, ENDS, N_SHARED, Paired, paired
from mmn.figures.saving import pinned_view
from mmn.figures.scales import share_scales
from mmn.figures.specification import whole
from mmn.figures.wording import clipped, short_name
from mmn.lazily import load
from mmn.view import View

if TYPE_CHECKING:
    from mmn.store import Store

RUN: Final = "run"  # the column that tells the rows of two runs apart
ID_LENGTH: Final = 8  # signs of a run's id
_COMPARED: Final = {  # of a run's row, in words
    "model": "model",
    "model_fingerprint": "weights",
    "images": "pictures",
    "prompt": "prompt",
    "dtype": "dtype",
    "seed": "seed",
}
_PLACES: Final = ("model", "pictures")
_UNTOLD: Final = ("prompt", "seed", "dtype", "batch_size")  # settings that are told already, or change no number
_MOST_LETTERS: Final = 60  # of a value that two runs differ in; a hash's beginning is enough
_HASH: Final = re.compile("[0-9a-f]{32,}")


@dataclass(frozen=True)
class Beside:
    """The second run's side of a figure.

    Attributes:
        second: the figure of it, None where it has none.
        run: its row.
        paired: the difference on shared pictures, None where there is none.
        of_runs: how the two runs differ, and how many pictures they share; sentences, the same for every figure.
        told: what of this figure cannot be compared, and why; sentences.
    """

    second: Drawn | None
    run: Mapping[str, Any]
    paired: Paired | None
    of_runs: tuple[str, ...]
    told: tuple[str, ...]

    def charts(self, first: Drawn) -> tuple[Any, ...]:
        """A and B on the same scales, and their difference; fewer where they are not to be had."""
        if self.second is None:
            return (first.chart,)
        pair = (first, self.second)
        specs = [_marked(one, letter) for one, letter in zip(pair, "AB", strict=True)]
        share_scales(*specs)
        sides = [_chart_of(one, spec) for one, spec in zip(pair, specs, strict=True)]
        return (*sides, difference_chart(self.paired, first.figure.panels)) if self.paired is not None else tuple(sides)

    def written(self, first: Drawn) -> pd.DataFrame:
        """The rows of both runs; those of B with the difference to A, where it is known."""
        parts = [_of_run(first, first.rows.data)]
        if self.second is not None:
            parts.append(_of_run(self.second, _with_difference(self.second.rows.data, self.paired)))
        return pd.concat(parts, ignore_index=True)

    def columns(self, table: Sequence[Column]) -> tuple[Column, ...]:
        """Of a paper's table: which run, then the figure's, then the difference."""
        if not table:
            return ()
        form = self.paired.form if self.paired is not None else ".3f"
        return (Column("run", RUN), *table, Column("B - A", DIFFERENCE, form, ends=ENDS))

    def where(self, column: str, *values: Any) -> Beside:
        """The same of the rows that have one of these values in a column."""
        second = None if self.second is None else self.second.where(column, *values)
        if second is not None and second.rows.data.empty:
            second = None
        pairs = None if self.paired is None else self.paired.where(column, *values)
        if pairs is not None and (second is None or pairs.rows.empty):
            pairs = None
        lacks = (
            () if second is not None or self.second is None else (f"B has no {column} {', '.join(map(str, values))}",)
        )
        return replace(self, second=second, paired=pairs, told=(*self.told, *lacks))

    def changed(self, change: Any) -> Beside:
        """The same with another second figure, and its difference rounded alike."""
        return replace(self, second=None if self.second is None else change(self.second))


def with_second(first: Drawn, store: Store, view: View) -> Drawn:
    """The figure with that of the run `view.compare` beside it.

    Raises:
        RunNotFoundError: no such run.
        UsageError: it is the same run.
    """
    other = store.run(view.compare)
    run = first.asked.run
    if other["run_id"] == run["run_id"]:
        raise UsageError(f"--compare {view.compare}: that is the run itself; name another (mmn runs lists them)")
    n_shared, said = _shared(first, store, other)
    of_runs = [f"A is {_name(run)}, B is {_name(other)}: {_differing(run, other)}", said, *_sizes(run, other)]
    told: list[str] = []
    second = _second(first, store, view, other, told)
    pairs = None if second is None else _paired(first, second, store, n_shared, told)
    asked = replace(first.asked, view=replace(first.asked.view, compare=other["run_id"]))
    asked.told = [*asked.told, *of_runs, *told]
    return replace(first, asked=asked, beside=Beside(second, other, pairs, tuple(of_runs), tuple(told)))


def _name(run: Mapping[str, Any]) -> str:
    return f"run {str(run['run_id'])[:ID_LENGTH]}"


def _second(first: Drawn, store: Store, view: View, other: Mapping[str, Any], told: list[str]) -> Drawn | None:
    """The second run's figure of the same view, with what was chosen of several for the first where it has that."""
    is_as_large = _is_as_large(first.asked.run, other)
    if not is_as_large and "neuron" in first.figure.takes:
        told.append("a unit of another model is another unit, whatever its number")
        return None
    pinned = pinned_view(first) if is_as_large else replace(pinned_view(first), ks=view.ks)
    try:
        return draw_alone(first.figure, store, replace(pinned, run=other["run_id"], compare=""))
    except UsageError as error:
        told.append(f"B has no such figure: {error}")
        return None


def _shared(first: Drawn, store: Store, other: Mapping[str, Any]) -> tuple[int, str]:
    """How many pictures both runs hold, and that in words."""
    n_first, n_second, n_shared = store.shared_pictures(first.asked.run_id, other["run_id"])
    return n_shared, f"{n_shared:,} of A's {counted(n_first, 'picture')} and of B's {n_second:,} are the same"


def _paired(first: Drawn, second: Drawn, store: Store, n_shared: int, told: list[str]) -> Paired | None:
    """The difference on shared pictures; where there is none, why is told."""
    if not n_shared or not first.figure.pictures:
        told.append("no paired difference: " + ("no picture is in both" if not n_shared else _NO_MEAN))
        return None
    try:
        a, b = (load(first.figure.pictures)(store, _asked_again(one)) for one in (first, second))
        return paired(a, b, first.asked.run, second.asked.run)
    except UsageError as error:
        told.append(f"no paired difference: {error}")
        return None


_NO_MEAN: Final = "this figure is no mean of pictures' values"


def _asked_again(drawn: Drawn) -> Asked:
    """The same question, with what was chosen of several already in it."""
    return Asked(drawn.figure.name, pinned_view(drawn), drawn.asked.run)


def _is_as_large(run: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(run[name] == other[name] for name in ("n_layers", "d_mlp"))


def _sizes(run: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What models of other sizes mean for k; nothing where they are alike."""
    if _is_as_large(run, other):
        return []
    alike = "k is compared as a share of them, but one that was chosen is the same number in both"
    return [f"the models have {_units(run)} and {_units(other)} units: {alike}"]


def _units(run: Mapping[str, Any]) -> str:
    return f"{int(run['n_layers']) * int(run['d_mlp']):,}"


def _differing(run: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What the runs differ in, with both values where they are short."""
    pairs = [(words, run.get(name), other.get(name)) for name, words in _COMPARED.items()]
    settings, others = run.get("settings") or {}, other.get("settings") or {}
    pairs += [(name, settings.get(name), others.get(name)) for name in settings if name not in _UNTOLD]
    found = [f"{words} {_short(words, a)} / {_short(words, b)}" for words, a, b in pairs if a != b]
    return "they differ in " + "; ".join(found) if found else "scored alike"


def _short(words: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if _HASH.fullmatch(text):
        return text[:ID_LENGTH]
    return clipped(short_name(text) if words in _PLACES else text, _MOST_LETTERS)


def _marked(drawn: Drawn, letter: str) -> dict[str, Any]:
    """The chart's specification, which says of which run it is."""
    spec = whole(drawn.chart)
    title = spec["title"]
    lines = [title.get("subtitle", [])] if isinstance(title.get("subtitle", []), str) else title.get("subtitle", [])
    texts = [title["text"]] if isinstance(title["text"], str) else title["text"]
    run = drawn.asked.run
    said = {"text": [f"{letter}: {texts[0]}", *texts[1:]], "subtitle": [_name(run), *lines]}
    return spec | {"title": title | said}


def _chart_of(drawn: Drawn, spec: dict[str, Any]) -> Any:
    """The Altair chart of a changed specification, with title and configuration as objects, which pages change."""
    plain = {name: value for name, value in spec.items() if name not in ("title", "config", "$schema")}
    chart = type(drawn.chart).from_dict(plain, validate=False)
    chart.title, chart.config = alt.TitleParams(**spec["title"]), drawn.chart.config
    return chart


def _of_run(drawn: Drawn, data: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([pd.Series(drawn.asked.run_id[:ID_LENGTH], index=data.index, name=RUN), data], axis=1)


def _with_difference(data: pd.DataFrame, pairs: Paired | None) -> pd.DataFrame:
    if pairs is None or not set(pairs.by) <= set(data):
        return data
    columns = [*pairs.by, DIFFERENCE, *ENDS, N_SHARED]
    return data.merge(pairs.rows[columns], on=list(pairs.by), how="left")
