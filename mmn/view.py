"""What is looked at? One frozen value, which the address of a page, the flags of a command and JSON spell alike.

A page's filters, the options of `mmn figure` and a recipe are this value. A field is declared once, in `View`: its
name, what reads and writes it, its flag, its parameter in an address, its help. `()`, `""` and None are not chosen: a
figure then takes all there is, or its usual one and says so (`figures.figure.Asked`).

    to_address, to_flags, to_json   write what was chosen, and nothing else
    from_address                    never fails: what means nothing is left out, as a page leaves it out
    from_flags, from_json           raise UsageError, which names the field and what it may be
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, Self

from mmn.core import Neuron, UnitOfExpert, parse_unit
from mmn.errors import UsageError
from mmn.names import GROUPED_BY, SIGMA_UNITS, UNIT_RULES, WORD_ROWS

QUANTITIES: Final = ("per-picture", "distinct", "share")
UNITS: Final = ("all", "interpretable", "not-interpretable")
NOUNS: Final = ("all", "first")
MEASURES: Final = ("prob", "relative", "logit", "similarity", "lost", "share", "perplexity", "perplexity-captions")
AGAINST: Final = ("sigma", "k", "factor")
FOUND_ON: Final = ("another", "same")
MOST_ZOOM: Final = 16
Zoom = tuple[float, float, float]  # times, and what of the picture is in the middle, as shares of width and height


@dataclass(frozen=True)
class Kind:
    """How a value is read from text, and written: `write(read(text))` means the same as `text`."""

    read: Callable[[str], Any]  # raises ValueError, whose message says what it may be
    write: Callable[[Any], str] = str
    metavar: str | None = None
    options: tuple[str, ...] = ()  # all that it may be, where that is a short list


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text.strip()


def _number(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text.strip()) or int(text) < least:
            why = "" if text.strip().isdigit() else f"; {text.strip()!r} is not a number"
            raise ValueError(f"give a whole number, at least {least}{why}")
        return int(text)

    return read


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ValueError("give a share, from above 0 to 1")
    return share


def _labelled_k(text: str) -> int:
    """`43`, or as pages write it `43 (1.4 %)`."""
    return _number(0)(re.sub(r" \([\d.]+ %\)$", "", text).replace(",", ""))


def _percent(text: str) -> float:
    """`1.4 %`."""
    if not text.strip().endswith("%"):
        raise ValueError("give a share in percent, as 1.4 %")
    return _share(f"{float(text.strip().rstrip('%')) / 100:.12g}")


def _range(text: str) -> tuple[int, int]:
    """`3-7`, or `3` for that one alone."""
    found = re.fullmatch(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?", text.strip())
    if found is None or int(found[1]) > int(found[2] or found[1]):
        raise ValueError("give FIRST-LAST, counted from 0, for example 2-5")
    return int(found[1]), int(found[2] or found[1])


def _neuron(text: str) -> Neuron | UnitOfExpert:
    try:
        return parse_unit(text)
    except UsageError as error:
        raise ValueError(str(error)) from error


def _zoom(text: str) -> Zoom:
    found = re.fullmatch(r"(\d{1,2}(?:\.\d{1,6})?)@(\d(?:\.\d{1,6})?),(\d(?:\.\d{1,6})?)", text.strip(), re.ASCII)
    times, x, y = map(float, found.groups()) if found else (0.0, 0.0, 0.0)
    if not (1 <= times <= MOST_ZOOM and x <= 1 and y <= 1):
        raise ValueError(f"give TIMES@X,Y: from 1 to {MOST_ZOOM} times, its middle as shares of the picture")
    return times, x, y


def _yes_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("give true or false")
    return text.lower() == "true"


def _one_of(
    options: Sequence[str], aliases: Mapping[str, str] = MappingProxyType({}), old: tuple[str, ...] = ()
) -> Kind:
    """One of a few; `aliases` are other words for them, of which a flag lists the `old` ones."""

    def read(text: str) -> str:
        meant = aliases.get(text, text)
        if meant not in options:
            raise ValueError(f"give one of {', '.join(options)}")
        return meant

    return Kind(read, options=(*options, *old))


def _last_word(text: str) -> str:
    """An id; pages write it after the words for what it names: `specimen gallery 3f2a91cc`, `A dog. · 3f2a91cc`."""
    return _text(text).split()[-1]


def _lemma(text: str) -> str:
    """A noun; pages write it with the number of its pictures: `dog (12)`."""
    return _text(re.sub(r" \([\d,]+\)$", "", text))


TEXT: Final = Kind(_text)
ID: Final = Kind(_last_word, metavar="ID")
COUNT: Final = Kind(_number(1), metavar="N")
SHARE: Final = Kind(_share, lambda share: f"{share:.12g}", "S,S")
SHARE_OF_NOUNS: Final = Kind(_share, lambda share: f"{share:.12g}", "S")
LAYERS: Final = Kind(_range, lambda pair: f"{pair[0]}-{pair[1]}", "FIRST-LAST")
NEURON: Final = Kind(_neuron, metavar="L14.u2019")
TOKEN: Final = Kind(_number(0), metavar="N")
ZOOM: Final = Kind(_zoom, lambda zoom: "{:.6g}@{:.6g},{:.6g}".format(*zoom), "TIMES@X,Y")
YES: Final = Kind(_yes_no, lambda yes: str(yes).lower())
_QUANTITY: Final = _one_of(QUANTITIES, {"count": "distinct", "per picture": "per-picture"}, ("count",))
_KIND_OF_UNITS: Final = _one_of(UNITS, {"not interpretable": "not-interpretable"})
_WORD_ROWS: Final = _one_of(WORD_ROWS)
_PERCENT: Final = Kind(_percent, lambda share: f"{100 * share:.12g} %")
_FIRST_OR_ALL: Final = _one_of(NOUNS, {"the first one": "first"})
_MEASURE: Final = _one_of(
    MEASURES,
    {
        "probability": "prob",
        "share of the untouched": "relative",
        "captions that lose the noun": "lost",
        "share among nouns": "share",
    },
)
_PLACE: Final = _one_of(FOUND_ON, {"Found on another picture": "another", "Chosen on this picture (P2)": "same"})
_SIGMA_UNIT: Final = _one_of(SIGMA_UNITS)
_GROUPED_BY: Final = _one_of(GROUPED_BY)
_RULE: Final = _one_of(UNIT_RULES)
_AXIS: Final = _one_of(AGAINST, {"σ": "sigma", "×": "factor"})


@dataclass(frozen=True)
class Spelling:
    """How a field of `View` is written in its three places."""

    kind: Kind
    help: str
    parameter: str = ""  # in an address; the field's name unless said
    others: tuple[str, ...] = ()  # parameters that mean the same, in the addresses of some pages and of old versions
    is_list: bool = False  # several values: a comma between them in a flag, one parameter each in an address
    is_switch: bool = False  # a flag without a value
    flag: str = ""  # the field's name with dashes unless said
    in_address: Kind | None = None  # where pages write its values otherwise

    @property
    def of_address(self) -> Kind:
        """How an address spells a value."""
        return self.in_address or self.kind


def _spelled(default: Any, kind: Kind, told: str, **more: Any) -> Any:
    return field(default=default, metadata={"spelling": Spelling(kind, told, **more)})


@dataclass(frozen=True)
class View:
    """What is looked at. Every field may be left open; a figure reads those that it names (`Figure.takes`)."""

    run: str = _spelled("", ID, "a run id, a beginning of it, or latest")
    methods: tuple[str, ...] = _spelled(
        (), Kind(_text, metavar="A,B"), "default: all of the run", parameter="method", others=("ranking",), is_list=True
    )
    ks: tuple[int, ...] = _spelled(
        (),
        Kind(_number(0), metavar="K,K"),
        "units per picture",
        parameter="k",
        others=("size",),
        is_list=True,
        in_address=Kind(_labelled_k),
    )
    shares: tuple[float, ...] = _spelled(
        (),
        SHARE,
        "the same as shares of all units, 0.014 for 1.4 %%",
        parameter="k",
        is_list=True,
        in_address=_PERCENT,
    )
    concepts: tuple[str, ...] = _spelled(
        (), Kind(_lemma, metavar="A,B"), "only these nouns", parameter="concept", is_list=True
    )
    layers: tuple[int, int] | None = _spelled(None, LAYERS, "only these layers, as 3-5", others=("led",))
    quantity: str = _spelled("", _QUANTITY, "layers: default per-picture; count means distinct", parameter="show")
    units: str = _spelled("", _KIND_OF_UNITS, "layers: units whose tokens are words, or are not; default all")
    generality: float | None = _spelled(
        None,
        SHARE_OF_NOUNS,
        "hide units that are top units of more than this share of nouns, 0.1 for 10 %%",
        parameter="general",
        in_address=_PERCENT,
    )
    words_by: str = _spelled(
        "",
        _WORD_ROWS,
        "rows of W_U that decode a unit; default raw",
        parameter="words",
    )
    control: bool = _spelled(True, YES, "layers: leave out the random units", is_switch=True, flag="--no-control")
    image: str = _spelled("", ID, "a picture's id or a beginning of it", others=("picture",))
    noun: str = _spelled("", TEXT, "a noun of that picture's caption")
    rival: str = _spelled("", Kind(_text, metavar="NOUN"), "another noun of that caption, side by side")
    grey: bool = _spelled(False, YES, "the same noun over a grey picture, side by side", is_switch=True)
    neuron: Neuron | UnitOfExpert | None = _spelled(  # noqa: RUF009
        None, NEURON, "a unit, layer and number from 0; of an expert L14.e3.u201"
    )
    metric: tuple[str, ...] = _spelled(
        (),
        Kind(_text, metavar="A,B"),
        "sensitivity: its measures; degradation: the similarity of captions",
        others=("similarity",),
        is_list=True,
    )
    most: int | None = _spelled(None, COUNT, "concepts in a heat map; default 12", parameter="concepts")
    pictures: int | None = _spelled(None, Kind(_number(2), metavar="N"), "cross-image: pictures of each concept")
    found_on: str = _spelled("", _PLACE, "specificity: units found on another or the same picture", parameter="found")
    dictionary: str = _spelled("", TEXT, "dictionaries: one of a noun's, by the name that mmn dictionaries prints")
    other: str = _spelled("", ID, "shift: the run that the first is compared with")
    nouns: str = _spelled("", _FIRST_OR_ALL, "nouns of each caption: all (default) or the first")
    measure: str = _spelled(
        "",
        _MEASURE,
        "what is measured; default prob for degradation and scaling, lost for perturbation",
        parameter="quantity",
        others=("noisy", "scaled"),
    )
    against: str = _spelled(
        "",
        _AXIS,
        "horizontal axis: sigma (default) or k for perturbation, factor (default) or k for scaling",
        parameter="axis",
        others=("factor-axis",),
    )
    by: str = _spelled("", _GROUPED_BY, "domains: how pictures are grouped")
    rule: str = _spelled("", _RULE, "domains: the rule that groups units; default dape")
    sigma_unit: str = _spelled(
        "", _SIGMA_UNIT, "perturbation: unit of sigma, if a run has both", parameter="sigma-unit"
    )
    setting: str = _spelled("", TEXT, "patchscopes: the prompt and the layer that states were written into")
    edit: str = _spelled("", ID, "edit: the edit to draw, with its controls")
    compare: str = _spelled(
        "", Kind(_last_word, metavar="RUN"), "a second run beside the first, on the same scales; for every figure"
    )
    model: str = _spelled("", TEXT, "bench: the model; default the newest result")
    derivative: str = _spelled("", TEXT, "circuits: rajaram or relp, if a run has both")
    token: int | None = _spelled(None, TOKEN, "pages only: the selected image token, from 0")
    zoom: Zoom | None = _spelled(  # noqa: RUF009
        None, ZOOM, "pages only: magnification and centre of the picture"
    )
    averaged: int | None = _spelled(None, COUNT, "pages only: number of top units that the map averages; default 1")
    beside: int | None = _spelled(None, COUNT, "pages only: number of top units shown side by side")

    def given(self) -> tuple[str, ...]:
        """The names of the fields that were chosen."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) != one.default)

    def only(self, names: Collection[str]) -> View:
        """The same view with none but these fields, and its run."""
        return replace(View(), **{name: getattr(self, name) for name in {*names, "run"}})

    def to_address(self) -> dict[str, list[str]]:
        """The parameters of a page's address, each with its values; what was not chosen is not in it."""
        found: dict[str, list[str]] = {}
        for name, spelling, value in self._chosen():
            texts = [spelling.of_address.write(one) for one in (value if spelling.is_list else [value])]
            ends = texts[0].split("-") if spelling.kind is LAYERS else texts  # a slider's two ends are two values
            found.setdefault(spelling.parameter or name, []).extend(ends)
        return found

    @classmethod
    def from_address(cls, parameters: Mapping[str, Sequence[str]]) -> Self:
        """The view that an address means; what means nothing is left out, as a page leaves it out."""
        found: dict[str, Any] = {}
        for name, spelling in SPELLINGS.items():
            known = (spelling.parameter or name, *spelling.others)
            texts = next((parameters[one] for one in known if parameters.get(one)), ())
            texts = ["-".join(texts)] if spelling.kind is LAYERS and texts else texts
            values = [value for text in texts if (value := _read_or_none(spelling, text)) is not None]
            if values:
                found[name] = tuple(dict.fromkeys(values)) if spelling.is_list else values[0]
        return cls(**found)

    def to_flags(self) -> list[str]:
        """The flags of `mmn figure` that choose this view."""
        flags = []
        for name, spelling, value in self._chosen():
            flags.append(flag_of(name))
            if not spelling.is_switch:
                flags.append(",".join(_written(spelling, value)))
        return flags

    @classmethod
    def from_flags(cls, given: Mapping[str, Any]) -> Self:
        """The view that flags choose.

        Args:
            given: field -> the flag's text, or True for a switch; None, False and "" where it was not given.

        Raises:
            UsageError: a text that means nothing.
        """
        found: dict[str, Any] = {}
        for name, spelling in SPELLINGS.items():
            text = given.get(name)
            if text is None or text is False or text == "":
                continue
            if spelling.is_switch:
                found[name] = not DEFAULTS[name]
            elif spelling.is_list:
                found[name] = tuple(_read(name, one) for one in str(text).split(",") if one.strip())
            else:
                found[name] = _read(name, str(text))
        return cls(**found)

    def to_json(self) -> str:
        """One JSON object: field -> its text, or texts; what was not chosen is not in it."""
        values = {name: _written(spelling, value) for name, spelling, value in self._chosen()}
        plain = {name: texts if SPELLINGS[name].is_list else texts[0] for name, texts in values.items()}
        return json.dumps(plain, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The view that `to_json` wrote.

        Raises:
            UsageError: it is no such object, or a field or value means nothing.
        """
        try:
            given = json.loads(text)
        except ValueError as error:
            raise UsageError(f"a view is one JSON object: {error}") from error
        if not isinstance(given, dict) or not set(given) <= set(SPELLINGS):
            raise UsageError(f"a view is a JSON object of {', '.join(SPELLINGS)}")
        found: dict[str, Any] = {}
        for name, value in given.items():
            texts = value if isinstance(value, list) else [value]
            values = tuple(_read(name, str(one)) for one in texts)
            if not SPELLINGS[name].is_list and len(values) != 1:
                raise UsageError(f"the view's {name} is one value, not {len(values)}")
            found[name] = values if SPELLINGS[name].is_list else values[0]
        return cls(**found)

    def _chosen(self) -> list[tuple[str, Spelling, Any]]:
        return [(name, SPELLINGS[name], getattr(self, name)) for name in self.given()]


SPELLINGS: Final[Mapping[str, Spelling]] = {one.name: one.metadata["spelling"] for one in fields(View)}
DEFAULTS: Final[Mapping[str, Any]] = {one.name: one.default for one in fields(View)}


def flag_of(name: str) -> str:
    """`--sigma-unit` for `sigma_unit`."""
    return SPELLINGS[name].flag or "--" + name.replace("_", "-")


def _written(spelling: Spelling, value: Any) -> list[str]:
    return [spelling.kind.write(one) for one in (value if spelling.is_list else [value])]


def _read(name: str, text: str) -> Any:
    try:
        return SPELLINGS[name].kind.read(text)
    except ValueError as error:
        raise UsageError(f"{flag_of(name)} {text}: {error}") from error


def _read_or_none(spelling: Spelling, text: str) -> Any:
    try:
        return spelling.of_address.read(text)
    except ValueError:
        return None
