"""How much of a drop is the noun's own? What its units take away beyond those of the controls, picture by picture.

    drop                (p0 − p) / p0                      p0 untouched, p with units changed: sums over pictures
    beyond a control    (p_control − p_own) / p0           the same pictures and nouns: paired, interval by picture
    share, beyond       share_control − share_own          of the noun's share among all nouns: mean over pictures

A drop is called the noun's own only as far as it goes beyond *each* control that was measured, another picture's units
and random ones, and not at all where one of these intervals holds 0. How far text suffers stands beside it: units that
double the perplexity of any text do not write one noun. Pictures of which one line has fewer nouns (no other picture
says another noun) are left out of the pairs. OURS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from mmn.figures.wording import k_text
from mmn.names import ANOTHER, EVERYWHERE, RANDOM, RANDOM_PICTURE, TOP
from mmn.statistics.interval_words import percent, why_none
from mmn.statistics.intervals import ANYWHERE, mean_intervals, ratio_intervals
from mmn.studies.degradation.curves import NONE, POSITION_WORDS, filled, is_untouched

P1_SHARE: Final = 0.014  # of all units: P1's 6,400 of GPT-J's
NOTHING_LEFT: Final = 0.99  # drops from here on leave nothing that own and other units could differ in
AS_MUCH: Final = 0.1  # of the drop: where the noun's own part is surely less, a control takes as much
CONTROLS: Final = (ANOTHER, RANDOM, RANDOM_PICTURE)
CONTROL_WORDS: Final = {ANOTHER: "another picture's", RANDOM: "random ones", RANDOM_PICTURE: "random ones"}
TEXTS: Final = {"nats": "plain English", "nats_captions": "the run's captions, without a picture"}


@dataclass(frozen=True)
class Interval:
    """A number with the ends of its 95 % interval by picture, NaN where `n` pictures have none."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Beyond:
    """A control beside the noun's own units, on the same pictures.

    Attributes:
        own_drop: of the noun's units, as a share of the untouched probability.
        drop: of the control's.
        excess: how much more the noun's own take away, as a share of the untouched probability.
        share_excess: how much further the noun's share among nouns falls; None where it was not measured.
    """

    own_drop: float
    drop: float
    excess: Interval
    share_excess: Interval | None


@dataclass(frozen=True)
class OwnPart:
    """One line at one k.

    Attributes:
        method: that chose the units.
        positions: where they were changed.
        sigma: of the noise; None without.
        factor: that units were multiplied by; None where they were not.
        k: how many.
        beyond: by control, those that were measured.
        shares: the noun's share among nouns, mean over pictures, by selection; `untouched` is one.
        perplexity: by column of `TEXTS`, then by selection, likewise: the geometric mean over pictures.
    """

    method: str
    positions: str
    sigma: float | None
    factor: float | None
    k: int
    beyond: dict[str, Beyond]
    shares: dict[str, float]
    perplexity: dict[str, dict[str, float]]

    @property
    def has_another(self) -> bool:
        """Whether another picture's units were measured: without them nothing is called the noun's own."""
        return ANOTHER in self.beyond

    @property
    def judged(self) -> Interval | None:
        """The excess over the control that takes away most: how much is the noun's own."""
        return min((one.excess for one in self.beyond.values()), key=lambda one: one.mean, default=None)

    @property
    def is_own(self) -> bool | None:
        """Whether the drop goes beyond each control; None where that is not known: no control, no interval, or nothing
        left to tell by.
        """
        lows = [one.excess.low for one in self.beyond.values()]
        if not self.has_another or any(np.isnan(low) for low in lows) or self.leave_nothing:
            return None
        return all(low > 0 for low in lows)

    @property
    def leave_nothing(self) -> tuple[str, ...]:
        """The controls that leave nothing of the noun, where its own units do not either."""
        return tuple(name for name, one in self.beyond.items() if min(one.own_drop, one.drop) >= NOTHING_LEFT)

    def plain(self) -> dict[str, Any]:
        """The same as values of JSON."""
        told: dict[str, Any] = {"k": self.k, "is_own": self.is_own, "noun_share": self.shares}
        for name, one in self.beyond.items():
            told[name] = {"drop": one.drop, "own_drop": one.own_drop} | _plain("excess", one.excess)
            told[name] |= _plain("share_excess", one.share_excess) if one.share_excess else {}
        return told | {"perplexity": {TEXTS[text]: values for text, values in self.perplexity.items()}}


def own_parts(means: pd.DataFrame, n_units: int) -> list[OwnPart]:
    """Returns for each method, place and size of the change the noun's own part at `told_ks`.

    Args:
        means: `EffectQueries.means`: one row per picture, draw and setting.
        n_units: of the model.
    """
    rows = filled(means)
    is_first = is_untouched(rows)  # where lines against sigma or factor begin, and those against k
    top = rows[(rows["selection"] == TOP) & ~is_first]
    found = []
    for (method, positions, sigma, factor), line in top.groupby(["method", "positions", "sigma", "factor"], sort=False):
        is_size = ((rows["sigma"] == sigma) & (rows["factor"] == factor)) | is_first
        here = rows[(rows["method"] == method) & (rows["positions"] == positions) & is_size]
        noise, times = (None if size == NONE else float(size) for size in (sigma, factor))
        found += [_part(here, method, positions, noise, times, k) for k in told_ks(line, n_units)]
    return found


def controls_command(run_id: str, kind: str) -> str:
    """The words after `mmn` that measure the controls of what a run has, and nothing again."""
    return f"degrade {run_id[:8]} --kind {kind} --controls only"


def told_ks(top: pd.DataFrame, n_units: int) -> list[int]:
    """The first k whose own units take half of the probability, P1's share where it was measured, and the largest k.

    Where many units are off nothing is left of any noun, and only the first of them tells own from other units.
    """
    left = top.groupby("k")[["prob", "baseline_prob"]].sum()
    halved = left.index[left["prob"] <= left["baseline_prob"] / 2]
    wanted = {*halved[:1], round(P1_SHARE * n_units), left.index.max()}
    return sorted(int(k) for k in wanted & set(left.index))


def _part(
    rows: pd.DataFrame, method: str, positions: str, sigma: float | None, factor: float | None, k: int
) -> OwnPart:
    """`rows` are all lines of one method, place and size of the change."""
    is_first = is_untouched(rows)
    at_k = {name: _by_picture(line) for name, line in rows[(rows["k"] == k) & ~is_first].groupby("selection")}
    own = at_k[TOP]
    first = rows[(rows["selection"] == TOP) & is_first & rows["k"].isin([0, k])]
    untouched = _by_picture(first if len(first) else rows[rows["selection"] == TOP])
    beyond = {name: _beyond(own, at_k[name]) for name in CONTROLS if name in at_k}
    lines = {"untouched": untouched} if len(first) else {}
    lines |= {name: at_k[name] for name in (TOP, *CONTROLS) if name in at_k}
    shares = {
        name: float(line["noun_share"].mean()) for name, line in lines.items() if line["noun_share"].notna().any()
    }
    texts = {
        text: {name: float(np.exp(line[text].mean())) for name, line in lines.items() if line[text].notna().any()}
        for text in TEXTS
    }
    return OwnPart(
        method,
        positions,
        sigma,
        factor,
        k,
        {name: one for name, one in beyond.items() if one is not None},
        shares,
        {text: values for text, values in texts.items() if values},
    )


def _by_picture(line: pd.DataFrame) -> pd.DataFrame:
    """A row for each picture: the means over draws, and the number of nouns."""
    return line.groupby("image_id")[["prob", "baseline_prob", "noun_share", *TEXTS, "n_nouns"]].mean()


def _beyond(own: pd.DataFrame, control: pd.DataFrame) -> Beyond | None:
    both = own.join(control.add_suffix("_control"), how="inner")
    both = both[both["n_nouns"] == both["n_nouns_control"]]
    if both.empty:
        return None
    untouched = both["baseline_prob"].sum()
    ends = ratio_intervals(_column(both["prob_control"] - both["prob"]), _column(both["baseline_prob"]), ANYWHERE)
    shares = (both["noun_share_control"] - both["noun_share"]).dropna()
    return Beyond(
        own_drop=1 - float(both["prob"].sum() / untouched),
        drop=1 - float(both["prob_control"].sum() / untouched),
        excess=_interval(ends, len(both)),
        share_excess=_interval(mean_intervals(_column(shares), ANYWHERE), len(shares)) if len(shares) else None,
    )


def _column(values: pd.Series) -> np.ndarray:
    return values.to_numpy(dtype=float)[:, None]


def _interval(ends: tuple[np.ndarray, ...], n: int) -> Interval:
    mean, low, high = (float(one[0]) for one in ends)
    return Interval(mean, low, high, n)


def _plain(name: str, one: Interval) -> dict[str, Any]:
    return {name: one.mean, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_n": one.n}


def describe_own(part: OwnPart, n_units: int, command: str) -> str:
    """What is said of a drop, in a few sentences: whether it is the noun's own, and what else suffers.

    Args:
        part: the line and k.
        n_units: of the model.
        command: that measures the controls where they are missing.
    """
    where = "" if part.positions == EVERYWHERE else f", {POSITION_WORDS[part.positions]}"
    noise = "" if part.sigma is None else f", σ = {part.sigma:g}"
    noise += "" if part.factor is None else f", × {part.factor:g}"
    start = f"At k = {k_text(part.k, n_units)}{where}{noise}: "
    if not part.has_another:
        why = "another picture's units were not measured, so the noun's own part of the drop is not known"
        return f"{start}{why}: {command}"
    told = [_drops(part), _verdict(part), _shares(part), _texts(part, command)]
    return start + " ".join(one for one in told if one)


def _drops(part: OwnPart) -> str:
    another = part.beyond[ANOTHER]
    digits = 0 if another.own_drop >= 0.1 else 1
    words = [f"its own units take {percent(another.own_drop, digits)} of the probability away"]
    words += [f"{CONTROL_WORDS[name]} {percent(one.drop, digits)}" for name, one in part.beyond.items()]
    return ", ".join(words) + "."


def _verdict(part: OwnPart) -> str:
    if part.leave_nothing:
        control = _units(part.leave_nothing[0])
        return f"The noun's own part of the drop cannot be measured: {control} leave nothing either. Use a smaller k."
    if part.is_own is None:
        another = _points(part.beyond[ANOTHER].excess)
        difference = f"the difference to another picture's, {another},"
        return f"Without an interval it cannot be told whether {difference} is the noun's own."
    if part.is_own:
        judged = part.judged
        assert judged is not None, part
        return f"{_points(judged)} of the drop are the noun's own: beyond each control."
    return next(_not_own(_units(name), one) for name, one in part.beyond.items() if not one.excess.low > 0)


def _not_own(control: str, one: Beyond) -> str:
    """Of an interval that holds 0 or less: a control takes as much, or may."""
    points = f"(own minus theirs: {_points(one.excess)})"
    if one.excess.high < AS_MUCH * one.own_drop:
        how = "as much" if one.excess.high >= 0 else "more"
        return f"The drop is not the noun's own: {control} take {how} {points}."
    return f"The drop is not shown to be the noun's own: {control} may take as much {points}."


def _units(control: str) -> str:
    return "another picture's units" if control == ANOTHER else "random units"


def _points(one: Interval) -> str:
    """`12.1 points (95 % interval 3.0 to 20.2)`: of the untouched probability."""
    ends = why_none(one.n) if np.isnan(one.low) else f"95 % interval {_hundred(one.low)} to {_hundred(one.high)}"
    return f"{_hundred(one.mean)} points ({ends})"


def _hundred(share: float) -> str:
    return percent(share, 1).removesuffix(" %")


def _shares(part: OwnPart) -> str:
    if not part.shares:
        return ""
    values = _values(part.shares, lambda share: f"{share:z.3f}")
    excess = part.beyond[ANOTHER].share_excess
    ends = "" if excess is None or np.isnan(excess.low) else f" [{excess.low:z.3f}, {excess.high:z.3f}]"
    less = "" if excess is None else f"; another picture's minus own {excess.mean:z.3f}{ends}".replace("-", "−")
    return f"The noun's share among all nouns: {values}{less}."


def _texts(part: OwnPart, command: str) -> str:
    if part.perplexity:
        told = [f"of {TEXTS[text]}: {_values(values, perplexity_text)}" for text, values in part.perplexity.items()]
        return f"Perplexity {'; '.join(told)}."
    return "" if part.positions != EVERYWHERE else f"The perplexity of text was not measured: {command}"


def perplexity_text(value: float) -> str:
    """`16.9`, or without decimals from 1,000 on."""
    return f"{value:z,.0f}" if value >= 1000 else f"{value:.3g}"


def _values(values: dict[str, float], write: Callable[[float], str]) -> str:
    words = {"untouched": "untouched", TOP: "own units off", ANOTHER: "another picture's"}
    words |= {RANDOM: "random", RANDOM_PICTURE: "random"}
    return ", ".join(f"{write(value)} {words[name]}" for name, value in values.items())
