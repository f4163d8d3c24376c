"""A figure is a question, the rows that answer it, and their chart: one value, drawn by one function.

    view ─► Asked: the view as far as the figure reads it, and its run ─► rows ─► chart

A page, `mmn figure`, an export and a report all call `draw`, so that they show the same. A `Figure` names its functions
as `module:function`: the registry (`studies.FIGURES`) is read without Altair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.lazily import load
from mmn.names import default_method
from mmn.view import SPELLINGS, View, flag_of

if TYPE_CHECKING:
    import pandas as pd

    from mmn.figures.beside import Beside
    from mmn.figures.on_screen import Panel
    from mmn.store import Store

One = TypeVar("One", str, int)


@dataclass(frozen=True)
class Click:
    """What a click on a mark means: the chart's selection, and the columns of the mark that choose fields of a view.

    A mark with `layer` and `unit` chooses a unit; other columns choose their fields (`_FIELD_OF`).
    """

    selection: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column of a paper's table: its heading, what it is of, and how a number is written (`.3f`, `.1%`, `,d`).

    `ends` are the columns of the interval, which stands behind the number; `words`, a function or mapping named as
    `module:name`, says a value as people do.
    """

    heading: str
    name: str
    form: str = ""
    ends: tuple[str, str] | tuple[()] = ()
    words: str = ""


@dataclass(frozen=True)
class Rows:
    """What a chart is drawn of.

    Attributes:
        data: the rows.
        run: the run's row, with n_images and n_concepts of what enters.
        words: what the chart's function is told besides, by name.
    """

    data: pd.DataFrame
    run: Mapping[str, Any]
    words: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A question that rows and a chart answer.

    Attributes:
        name: what `mmn figure` calls it.
        question: that it answers, or what it shows, in a few words.
        takes: the fields of a view that it reads; any other is refused (`require_taken`).
        rows: `module:function` of (store, Asked) -> Rows.
        chart: `module:function` of (data, run, **words) -> an Altair chart.
        height: pixels on a page, of the rows.
        panels: a column; a page may show its values side by side, each a chart of its own (`Drawn.parts`).
        click: what a click on a mark means, None for nothing.
        control: what the result stands beside, in words for its caption; "" where there is none.
        table: its columns in a paper's table, none where it is no table.
        pictures: `module:function` of (store, Asked) -> `pairing.Pictures`, each picture's value of what is drawn, by
            which two runs of the same pictures are compared; "" where the figure is no mean over pictures.
        subject: `module:function` of (store, view) -> what a figure of no run is of, as a run's row says it.
    """

    name: str
    question: str
    takes: tuple[str, ...]
    rows: str
    chart: str
    height: Callable[[pd.DataFrame], int] = lambda _data: 340
    panels: str = ""
    click: Click | None = None
    control: str = ""
    table: tuple[Column, ...] = ()
    pictures: str = ""
    subject: str = ""


@dataclass
class Asked:
    """A view as far as a figure reads it. Where it leaves open which of several, one is chosen here, and told.

    Attributes:
        figure: its name.
        view: what was asked for.
        run: the run's row and counts.
        taken: what was chosen of several, by what it is: `k` -> 43.
        pinned: the same by the field of a view: a view with these draws the same when more was measured.
        told: a sentence for each of these.
    """

    figure: str
    view: View
    run: dict[str, Any]
    taken: dict[str, Any] = field(default_factory=dict)
    pinned: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])

    @property
    def n_units(self) -> int:
        """All units, L·m."""
        return int(self.run["n_layers"]) * int(self.run["d_mlp"])

    @property
    def stored_k(self) -> int:
        """The largest k that the run's rankings hold."""
        return min(int(self.run["settings"]["top_k"]), self.n_units)

    def one(self, name: str, what: str, there: Sequence[One], asked: One | None, usual: One | None = None) -> One:
        """The one asked for, or `usual` (the first of `there`), which is told where there are others.

        Args:
            name: the view's field.
            what: it is, in words.
            there: what was measured.
            asked: None or empty where the view leaves it open.
            usual: what to take then.

        Raises:
            UsageError: it is not there; nothing is.
        """
        known = ", ".join(map(str, there)) or "none (run the study first)"
        if asked:
            if asked not in there:
                raise UsageError(f"{flag_of(name)} {asked}: measured were {known}")
            return asked
        if not there:
            raise UsageError(f"{self.figure} draws one {what}; measured were: {known}")
        chosen = there[0] if usual is None else usual
        self.pinned[name] = (chosen,) if SPELLINGS[name].is_list else chosen
        if len(there) > 1:
            self.taken[what] = chosen
            others = ", ".join(str(one) for one in there if one != chosen)
            self.told.append(f"{what} {chosen}; there are also {others} ({flag_of(name)})")
        return chosen

    def one_method(self, there: Sequence[str]) -> str:
        """The score asked for, or the default of those that were measured, which is told where there are others.

        Raises:
            UsageError: several were asked for, one that was not measured, or none was.
        """
        asked = self.view.methods
        if len(asked) > 1 or not there:
            known = ", ".join(there) or "none (run the study first)"
            raise UsageError(f"{self.figure} draws one score; give --methods with one of those measured: {known}")
        return self.one("methods", "score", list(there), asked[0] if asked else None, default_method(there))

    def measured_ks(self, there: Sequence[int]) -> list[int]:
        """The k's asked for, all that were measured where none were.

        Raises:
            UsageError: one that was not measured.
        """
        known = sorted(set(there))
        if missing := [k for k in self.view.ks if k not in known]:
            raise UsageError(f"--ks {missing[0]}: measured were {', '.join(map(str, known))}")
        return list(self.view.ks) or known

    def one_k(self, there: Sequence[int]) -> int:
        """The k asked for, or the measured one next to 1.4 % of all units, which is told.

        Raises:
            UsageError: several were asked for, or one that was not measured.
        """
        ks = self.measured_ks(there)
        if self.view.ks and len(ks) > 1:
            raise UsageError(f"{self.figure} draws one k; --ks names {len(ks)}")
        return self.one("ks", "k", ks, None, min(ks, key=lambda k: abs(k - 0.014 * self.n_units), default=None))

    def ks(self, usual_shares: Sequence[float]) -> list[int]:
        """The k's asked for, as numbers or shares of all units, else the usual shares as far as the run keeps them.

        Raises:
            UsageError: both numbers and shares; more than there are units.
        """
        view = self.view
        if view.ks and view.shares:
            raise UsageError("give --ks or --shares, not both")
        if wrong := [k for k in view.ks if not 1 <= k <= self.n_units]:
            raise UsageError(f"--ks {wrong[0]}: expected whole numbers from 1 to {self.n_units}, the model's units")
        if view.ks or view.shares:
            return sorted({*view.ks, *(max(1, round(share * self.n_units)) for share in view.shares)})
        usual = sorted({max(1, round(share * self.n_units)) for share in usual_shares})
        return [k for k in usual if k <= self.stored_k] or [self.stored_k]


@dataclass(frozen=True)
class Drawn:
    """A figure of a view: its rows, and the chart once it is asked for.

    Attributes:
        figure: of the registry.
        asked: the view, and what was chosen of several.
        rows: what is drawn.
        kept: where it is of some of the rows: a column, and the values that they have there.
        beside: a second run's, where the view names one.
    """

    figure: Figure
    asked: Asked
    rows: Rows
    kept: tuple[str, tuple[Any, ...]] | None = None
    beside: Beside | None = None

    @cached_property
    def chart(self) -> Any:
        """The Altair chart; of the first run, where there are two."""
        return load(self.figure.chart)(self.rows.data, self.rows.run, **self.rows.words)

    @cached_property
    def charts(self) -> tuple[Any, ...]:
        """The chart; with a second run both, on the same scales, and then their difference."""
        return (self.chart,) if self.beside is None else self.beside.charts(self)

    @cached_property
    def panels(self) -> tuple[list[Panel], ...]:
        """Each of the charts as a page shows it."""
        from mmn.figures.on_screen import panels

        return tuple(panels(chart) for chart in self.charts)

    @cached_property
    def _parts(self) -> dict[tuple[Any, ...], Any]:
        """What `parts` and `where` made of it: a page that is drawn again shows the same ones."""
        return {}

    @property
    def written(self) -> pd.DataFrame:
        """The rows as files hold them: of two runs both, which the column `run` tells apart."""
        return self.rows.data if self.beside is None else self.beside.written(self)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of a paper's table."""
        return self.figure.table if self.beside is None else self.beside.columns(self.figure.table)

    @property
    def height(self) -> int:
        """Pixels on a page."""
        return self.figure.height(self.rows.data)

    def parts(self, *always: Any) -> Iterator[tuple[Any, Drawn]]:
        """Each value of the figure's `panels` column, and the figure of its rows alone.

        Rows of `always` are in every panel, and have one of their own only where there are no others. A panel by a
        column that is a field of a view (a method, a metric) is the figure of a view with that value alone.
        """
        if ("parts", *always) not in self._parts:
            self._parts[("parts", *always)] = list(self._made_parts(always))
        return iter(self._parts[("parts", *always)])

    def _made_parts(self, always: Sequence[Any]) -> Iterator[tuple[Any, Drawn]]:
        name = self.figure.panels
        values = list(dict.fromkeys(self.rows.data[name]))
        for value in [one for one in values if one not in always] or values:
            view = replace(self.asked.view, **_fields_of({name: value}))
            part = self.where(name, value, *always)
            yield value, replace(part, asked=replace(self.asked, view=view))

    def where(self, column: str, *values: Any) -> Drawn:
        """The same figure of the rows that have one of these values in a column."""
        if (column, *values) not in self._parts:
            self._parts[(column, *values)] = self._of_some(column, values)
        found: Drawn = self._parts[(column, *values)]
        return found

    def _of_some(self, column: str, values: tuple[Any, ...]) -> Drawn:
        data = self.rows.data
        beside = None if self.beside is None else self.beside.where(column, *values)
        rows = replace(self.rows, data=data[data[column].isin(values)])
        return replace(self, rows=rows, kept=(column, values), beside=beside)

    def clicked(self, point: Mapping[str, Any]) -> View | None:
        """The view that a clicked mark means; None if no such mark is drawn any more."""
        click, data = self.figure.click, self.rows.data
        assert click is not None, f"{self.figure.name} has no clicks"
        is_there = [data[column] == point.get(column) for column in click.columns if column in data]
        if not is_there or not all(each.any() for each in is_there) or not bool(_all(is_there).any()):
            return None
        return replace(self.asked.view, **_fields_of({column: point[column] for column in click.columns}))


def draw(figure: Figure, store: Store, view: View) -> Drawn:
    """The figure of a view, of what it reads of it; where it names a second run, with that one beside it.

    Raises:
        RunNotFoundError: no such run.
        UsageError: nothing is there to be drawn, or the view asks for what is not; the message says what to do.
    """
    drawn = draw_alone(figure, store, view)
    if not view.compare:
        return drawn
    if figure.subject:
        raise UsageError(f"{figure.name} is of no run: leave --compare out")
    from mmn.figures.beside import with_second

    return with_second(drawn, store, view)


def draw_alone(figure: Figure, store: Store, view: View) -> Drawn:
    """The figure of the view's own run, or of what it is of instead (raises as `draw`)."""
    if figure.subject:
        asked = Asked(figure.name, replace(view.only(figure.takes), run=""), load(figure.subject)(store, view))
        return Drawn(figure, asked, load(figure.rows)(store, asked))
    store.require_nouns(view.run)
    row = store.run(view.run)
    row |= store.summary(row["run_id"])
    asked = Asked(figure.name, replace(view.only(figure.takes), run=row["run_id"]), row)
    return Drawn(figure, asked, load(figure.rows)(store, asked))


def require_taken(figure: Figure, view: View) -> None:
    """Refuses a view with fields that the figure does not read: it would look as if they held.

    Raises:
        UsageError: such a field was chosen.
    """
    if unread := [name for name in view.given() if name not in {*figure.takes, "run", "compare"}]:
        those = ", ".join(flag_of(name) for name in SPELLINGS if name in figure.takes) or "no filter"
        raise UsageError(f"figure {figure.name} does not read {flag_of(unread[0])}; it reads {those}")


_FIELD_OF: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {  # a column -> what its value chooses of a view
    "k": lambda k: {"ks": (int(k),)},
    "layer": lambda layer: {"layers": (int(layer), int(layer))},
    "method": lambda method: {"methods": (str(method),)},
    "metric": lambda metric: {"metric": (str(metric),)},
}


def _fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the columns of a mark, or of a panel, choose of a view; a layer and a unit are a neuron."""
    if "unit" in values:
        return {"neuron": Neuron(int(values["layer"]), int(values["unit"]))}
    known = [_FIELD_OF[column](value) for column, value in values.items() if column in _FIELD_OF]
    return {name: value for fields in known for name, value in fields.items()}


def _all(columns: Sequence[Any]) -> Any:
    found = columns[0]
    for column in columns[1:]:
        found = found & column
    return found
