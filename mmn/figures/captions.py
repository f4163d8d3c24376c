"""A draft of a figure's caption: what is drawn, of which model and pictures, how it was scored, beside what, how sure.

What the chart's own subtitle says of the sample, the means and the interval is taken from there, so that the two cannot
differ; the rest is from the run, the definitions of the scores (`names.METHODS`) and the figure's declaration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from mmn import __version__
from mmn.counts import counted
from mmn.figures.figure import Drawn
from mmn.figures.wording import in_measured_layers, k_text, of_run, short_name
from mmn.names import RANDOM_MATCHED, meaning, reference_of

_SITE: Final = (
    "a is the input of an FFN's output matrix W_out (gated: act(gate) times up), z the one of its non-linearity"
)
_ENDS: Final = tuple(mark + quote for mark in ".?!" for quote in ("", "”", '"', ")"))
_MOST_KS: Final = 6  # more are told by their ends


def caption(drawn: Drawn) -> str:
    """The draft: sentences in one line."""
    return " ".join(f"{_sentence(one)}" for one in _told(drawn) if one)


def _told(drawn: Drawn) -> Iterator[str]:
    title = drawn.chart.title
    subtitle = _lines(title.subtitle)
    yield " ".join(_lines(title.text))
    yield from (line.removeprefix(f"{of_run(drawn.rows.run)}, ") for line in subtitle)
    if not any("95 %" in line or "interval" in line for line in subtitle):
        yield "No interval is drawn"
    yield from _controls(drawn)
    yield _ks(drawn)
    yield from _scores(drawn)
    yield _run(drawn)
    if drawn.beside is not None:
        yield from (*drawn.beside.of_runs, *drawn.beside.told)


def _run(drawn: Drawn) -> str:
    run = drawn.asked.run
    versions = run.get("versions") or {}
    revision = versions.get("model", "") if isinstance(versions, dict) else ""
    of = f"revision {revision[:12]}" if revision else f"fingerprint {run['model_fingerprint'][:12]}"
    sample = f"{counted(run['n_images'], 'picture')} with {counted(run['n_concepts'], 'concept')}"
    size = f"{counted(run['n_layers'], 'layer')} of {counted(run['d_mlp'], 'unit')}"
    model, pictures = short_name(run["model"]), short_name(run["images"])
    if drawn.figure.subject:
        return f"Model {model} ({size}); {sample} of {pictures}; {drawn.figure.name} {run['run_id']}, mmn {__version__}"
    return f"Model {model} ({of}; {size}); {sample} of {pictures}; run {run['run_id']}, mmn {__version__}"


def _controls(drawn: Drawn) -> Iterator[str]:
    control = drawn.figure.control
    yield f"Control: {control}" if control else "There is no control"


def _ks(drawn: Drawn) -> str:
    """`k = 43 (1.4 %) of all 3,072 units`."""
    asked, data = drawn.asked, drawn.rows.data
    given = [drawn.rows.words["k"]] if "k" in drawn.rows.words else data["k"].dropna().tolist() if "k" in data else []
    ks = sorted({int(k) for k in given})
    if not ks:
        return ""
    said = [k_text(k, asked.n_units) for k in ks]
    of = ", ".join(said) if len(ks) <= _MOST_KS else f"{said[0]} to {said[-1]}, {len(ks)} values"
    return f"k = {of} of all {counted(asked.n_units, 'unit')}"


def _scores(drawn: Drawn) -> Iterator[str]:
    methods = _methods(drawn)
    known = [(method, meaning(method)) for method in methods]
    for method, meant in known:
        like = f", those of {reference_of(method)}" if method.startswith(RANDOM_MATCHED) else ""
        read = f", read at {meant.position}" if meant.position != "none" else ""
        where = in_measured_layers(method, drawn.asked.run)
        yield f"{method}: {meant.equation}{like}{where}{read} ({meant.source})"
    if any(meant.position != "none" for _, meant in known):
        yield _SITE


def _methods(drawn: Drawn) -> list[str]:
    """The scores that the figure is of."""
    data, words, view = drawn.rows.data, drawn.rows.words, drawn.asked.view
    found: Sequence[Any] = (
        data["method"].tolist() if "method" in data else [words["method"]] if "method" in words else view.methods
    )
    return [method for method in dict.fromkeys(map(str, found)) if _is_known(method)]


def _is_known(method: str) -> bool:
    try:
        meaning(method)
    except KeyError:
        return False
    return True


def _lines(text: Any) -> list[str]:
    return [text] if isinstance(text, str) else list(text) if isinstance(text, list | tuple) else []


def _sentence(text: str) -> str:
    first = text.split(" ")[0]
    said = text if len(first) == 1 or ":" in first else text[:1].upper() + text[1:]  # symbols stay as they are
    return said if said.endswith(_ENDS) else f"{said}."
