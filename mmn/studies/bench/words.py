"""A benchmark's result as text: the table of the terminal, of the page and of `docs/benchmark.md`.

`python -m mmn.studies.bench.words > docs/benchmark.md` writes the page of the docs again from what ships.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from mmn.counts import counted
from mmn.names import EFFECTS, METHODS, RANDOM, RANDOM_MATCHED, default_method
from mmn.statistics.intervals import N_LEAST
from mmn.studies.bench.result import MEASURES, PLACES, ROLE_WORDS, Result, model_of, shipped
from mmn.studies.bench.usual import N_BUILT, N_JUDGED, N_NOUNS, N_SAMPLED

NONE: Final = "–"
ALL: Final = "all"  # roles: nothing is planted then
FLAGS: Final = {"n_nouns": "--nouns", "n_judged": "--pictures", "n_built": "--build", "n_sampled": "--units"}
USUAL: Final = {"n_nouns": N_NOUNS, "n_judged": N_JUDGED, "n_built": N_BUILT, "n_sampled": N_SAMPLED}


def table(result: Result, with_intervals: bool = True) -> pd.DataFrame:
    """Every method, and what it was judged by; seconds are not part of it, since they are another each time."""
    rows, judged_by = [], {name: about for name, about in MEASURES.items() if result.best(name)}
    for method in result.methods:
        row = {"method": method}
        for measure, about in judged_by.items():
            row[about.heading] = cell(result.of(method, measure), with_intervals)
        rows.append(row | {"passes": passes_text(result.passes.get(method))})
    return pd.DataFrame(rows)


def cell(found: dict[str, Any], with_interval: bool = True) -> str:
    """`.67 [.51, .80]`; a dash where nothing could be judged."""
    if math.isnan(found["mean"]):
        return NONE
    text = number(found["mean"])
    has_ends = with_interval and not math.isnan(found["low"])
    return text + (f" [{number(found['low'])}, {number(found['high'])}]" if has_ends else "")


def number(value: float | None) -> str:
    """Two digits, with a minus sign, never −0; a dash for what is not known."""
    if value is None or math.isnan(value):
        return NONE
    return f"{round(value, 2) + 0.0:z.2f}".replace("-", "−")


def passes_text(passes: Sequence[float] | None) -> str:
    """`1 + 2 back`: of the whole picture and caption, forward and back."""
    if passes is None:
        return NONE
    forward, backward = passes
    return f"{forward:.3g}" + (f" + {backward:.2g} back" if backward else "")


def seconds_text(result: Result, method: str) -> str:
    """`0.42`, a picture; a dash for a submission."""
    return f"{result.seconds[method]:.2g}" if method in result.seconds else NONE


def places(result: Result) -> pd.DataFrame:
    """Where each role's unit stands in each ranking: the mean share of units before it."""
    rows = []
    for method in result.methods:
        found = {role: result.of(method, PLACES + role)["mean"] for role in ROLE_WORDS}
        rows.append({"method": method} | {role: place_text(value) for role, value in found.items()})
    return pd.DataFrame(rows)


def place_text(value: float) -> str:
    """`0.4 %`."""
    return NONE if math.isnan(value) else f"{100 * value:z.1f} %"


def planted(result: Result) -> pd.DataFrame:
    """The planted units: what was measured of each on the judged pictures."""
    return pd.DataFrame(
        [
            {
                "role": one["role"],
                "noun": one["noun"],
                "unit": f"L{one['layer']}.u{one['unit']}",
                "active where it should be": number(one["activity"]),
                "takes (logits)": number(one["effect"]),
                "pictures": one["n"],
                "holds": one["why"] or "yes",
            }
            for one in result.planted
        ]
    )


def headline(result: Result) -> list[str]:
    """Who leads in what, in sentences."""
    return [
        f"{MEASURES[measure].words}: {_list(result.best(measure))} ({_value(result, measure)})"
        for measure in ("recall@1%", "agreement", "area zero", "area mean", "iou", "kept")
        if result.best(measure)
    ]


def standing(result: Result) -> str:
    """Where the program's usual score stands, whatever that is: how many others are ahead of it in each measure; empty
    where no score was judged that the program would choose.
    """
    usual = usual_score(result)
    if usual is None:
        return ""
    found = [(one.heading, result.n_ahead(usual, measure)) for measure, one in MEASURES.items()]
    ahead = ", ".join(f"{heading}: {n}" for heading, n in found if n is not None)
    n_others = len(result.methods) - 1
    return f"how many of {n_others} are ahead of {usual}, the score that pages take where nobody chose one: {ahead}"


def usual_score(result: Result) -> str | None:
    """The judged score that pages take where nobody chose one; None beside draws and submissions alone."""
    own = [method for method in result.methods if method in METHODS and method not in (RANDOM, RANDOM_MATCHED)]
    return default_method(own) if own else None


def told(result: Result) -> str:
    """What the numbers are of."""
    few = "" if result.n_pictures >= N_LEAST else f" (intervals need {N_LEAST})"
    return (
        f"{result.model}, {counted(result.n_units, 'unit')}, {counted(result.n_pictures, 'picture')} of "
        f"{result.images}{few} and their "
        f"{counted(result.n_questions, 'noun')}; {_planted_for(result)}. Means over pictures, 95 % intervals "
        "by picture." + some(result)
    )


def _planted_for(result: Result) -> str:
    n = result.asked["n_sampled"]
    if not result.planted:
        return f"nothing is planted, and effects are measured of {counted(n, 'sampled unit')}"
    nouns, n_built = _list(result.nouns), result.asked["n_built"]
    built = f"built on {counted(n_built, 'other picture')} of each"
    return (
        f"units are planted for {nouns}, {built}; effects are measured of {counted(n, 'sampled unit')} and "
        "the planted ones"
    )


def some(result: Result) -> str:
    """What was not judged, in sentences; empty where all of every score was."""
    layers, absent = result.asked.get("effect_layers"), left_out(result)
    of = [method for method in EFFECTS if method in result.methods]
    said = f" Left out: {_list(absent)}." if absent else ""
    if result.planted and (roles := result.asked.get("without")):
        said += f" Nothing is judged by the {_list(roles)}."
    if layers and of:
        verb = "ranks" if len(of) == 1 else "rank"
        said += f" {_list(of)} {verb} the units of layers {layers[0]} to {layers[1]} alone; all others are behind."
    return said


def left_out(result: Result) -> list[str]:
    """The scores that were not judged."""
    return [method for method in METHODS if method not in result.methods]


def command(result: Result) -> str:
    """What was called."""
    asked = result.asked
    words = ["python -m mmn bench", "--model", model_of(result)]
    words += ["--images", result.images] if result.images != "gallery" else []
    words += [f"{flag} {asked[name]}" for name, flag in FLAGS.items() if asked[name] != USUAL[name]]
    if layers := asked.get("effect_layers"):
        words.append(f"--effect-layers {layers[0]}-{layers[1]}")
    if roles := asked.get("without"):
        words.append(f"--without {','.join(roles) if result.planted else ALL}")
    if left_out(result):
        words.append(f"--methods {','.join(method for method in METHODS if method in result.methods)}")
    return " ".join(words)


def markdown(result: Result) -> str:
    """A section of the docs."""
    seconds = ", ".join(
        f"{method} {result.seconds[method]:.2g}" for method in result.methods if method in result.seconds
    )
    leads = "\n".join(f"- {one}" for one in (*headline(result), standing(result)) if one)
    return "\n\n".join(
        [
            f"## {model_of(result)}",
            f"`{command(result)}`: {told(result)}",
            _markdown_table(table(result)),
            f"First in each:\n\n{leads}",
            *(_of_planted(result) if result.planted else []),
            f"Seconds of a processor a picture, on one machine, not part of the table: {seconds}.",
        ]
    )


def _of_planted(result: Result) -> list[str]:
    return [
        "Where the planted units stand (the share of units before them; 50 % by chance):",
        _markdown_table(places(result)),
        "What the planted units do on the judged pictures:",
        _markdown_table(planted(result)),
    ]


def page() -> str:
    """`docs/benchmark.md`."""
    measures = "\n".join(f"- *{one.heading}*: {one.words}" for one in MEASURES.values())
    roles = "\n".join(f"- *{role}*: {words}" for role, words in ROLE_WORDS.items())
    return "\n\n".join([_HEAD.format(measures=measures, roles=roles), *(markdown(one) for one in shipped())]) + "\n"


_HEAD: Final = """# Benchmark

Which method finds the units that matter? `python -m mmn bench` judges every score of this program by one protocol, on a
copy of a model in which some units have a role that is known, because it was planted, and was then measured on other
pictures; and by what zeroing units really does. Definitions: `docs/methods.md`, *The benchmark*. This page is made by
`python -m mmn.studies.bench.words > docs/benchmark.md` from the results that ship.

The planted units of a noun:

{roles}

Helper and seer write along a gradient of the noun's logit: a score that takes a gradient there is helped by that, and
one that reads what a unit itself writes into the noun cannot find them, whatever they do. What units do in the model as
it was trained is judged by agreement and areas.

What a ranking is judged by:

{measures}

*passes* are a picture's, forward and back, 1 being the whole prompt and caption through all layers. A dash: nothing to
judge (a score that takes long is not computed again over shuffled tokens; a submission has none there).

Your own method: `python -m mmn bench --export DIR` writes the model with the planted units as a folder in Hugging Face
format, and `questions.csv`, every picture and noun; write a Parquet file of `image_id, noun, layer, unit, score`
(higher is better, any number of units), and `python -m mmn bench --submission FILE` judges it beside the others.

A large model: name the scores with `--methods`, without `effect` and `effect-prob`, which zero every unit for every
noun, or with `--effect-layers 24-29`, which ranks the units of these layers alone. What rankings are held against, the
effects of sampled units (`--units`), is measured all the same. The same values again (`mmn bench` keeps them by picture
and score) cost nothing: scores can be added to a result one at a time, each call naming those before, too. Where
planted units do not do what they should, `--without ROLE` judges by the other roles; `--without all` plants nothing.

The figure of this page: `mmn figure bench --model specimen --out bench.svg` (`docs/figures.md`)."""


def _markdown_table(rows: pd.DataFrame) -> str:
    lines = [list(rows.columns), ["---"] * len(rows.columns), *rows.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _value(result: Result, measure: str) -> str:
    return cell(result.of(result.best(measure)[0], measure))


if __name__ == "__main__":
    print(page(), end="")
