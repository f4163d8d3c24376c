"""Words that charts, tables and pages share. No chart library here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from mmn.counts import counted
from mmn.names import chosen_layers

# Control characters, halves of surrogate pairs, non-characters, and signs that turn the direction of what follows.
_UNPRINTABLE: Final = "\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff"


def k_text(k: int, n_units: int) -> str:
    """The words for a k: the number, which means nothing alone, and its share of all units: `43 (1.4 %)`."""
    share = 100 * k / n_units
    return f"{k:,} ({share:z.0f} %)" if share >= 10 else f"{k:,} ({share:.2g} %)"


def written_out(text: str, signs: str = "") -> str:
    """`text` with its control characters and those of `signs` as Python writes them, so that a line stays one line."""
    return re.sub(f"[{_UNPRINTABLE}{re.escape(signs)}]", lambda found: _escape(found[0]), text)


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def token_text(token: str, most: int = 28) -> str:
    """A token as a label: without its space, in one line, at most so many letters; blank ones as Python writes them."""
    said = written_out(token.strip()) or repr(token)
    return said if len(said) <= most else said[: most - 1] + "…"


def clipped(text: str, most: int) -> str:
    """`text`, or its beginning and an ellipsis."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def of_run(run: Mapping[str, Any]) -> str:
    """`specimen on gallery`: no folder of this machine is told."""
    return f"{short_name(run['model'])} on {short_name(run['images'])}"


def short_name(name: str) -> str:
    """The last part of a path, also within `coco:FILE:FOLDER` and `MODEL+/DELTA`; a hub id and a name stay.

    Pictures that were uploaded are called by the start of their folder's name, their hash.
    """
    return "".join(_last_part(part) for part in re.split(r"([:+])", name))


def _last_part(name: str) -> str:
    last = PurePath(name.rstrip("/")).name if is_path(name) else name
    return f"upload-{last[:8]}" if re.fullmatch(r"[0-9a-f]{64}", last) else last


def is_path(text: str) -> bool:
    """Whether it names a place on this machine, rather than a model or pictures by what they are called."""
    return text.startswith(("/", "~", ".", "\\")) or text.count("/") > 1 or "\\" in text


def sample(n_images: float, n_concepts: float) -> str:
    """`n = 20 pictures, 41 concepts`."""
    return f"n = {counted(n_images, 'picture')}, {counted(n_concepts, 'concept')}"


def sample_of_each(n_images: Collection[float], n_concepts: Collection[float]) -> str:
    """The same of several lines of a chart: `n = 12–20 pictures, 41 concepts each` where they do not have as many."""
    each = " each" if len(n_images) > 1 else ""
    return f"n = {span(n_images, 'picture')}, {span(n_concepts, 'concept')}{each}"


def span(counts: Collection[float], noun: str) -> str:
    """`12–20 pictures`, or `20 pictures` where all have as many."""
    least, most = int(min(counts)), int(max(counts))
    return counted(most, noun) if least == most else f"{least:,}–{counted(most, noun)}"


_METRICS: Final = {"lexical-v1": "same word", "word-f1-v1": "shared words"}  # the others are known by their names
_TARGETS: Final = {"noun": "the noun", "caption": "the caption", "reference": "the references", "image": "the picture"}


def metric_words(metric: str) -> str:
    """A measure of `sensitivity` in words: `the caption: same word (lexical-v1, top 10 units)`."""
    rest, _, top = metric.rpartition(":top")
    name, _, target = rest.rpartition(":")
    if not top.isdigit() or target not in _TARGETS:
        return metric
    units = counted(int(top), "unit")
    said = f"{_METRICS[name]} ({name}, top {units})" if name in _METRICS else f"{name} (top {units})"
    return f"{_TARGETS[target]}: {said}"


def parts_word(run: Mapping[str, Any]) -> str:
    """Among which units chance is taken: those of the same `layers`, in a mixture of experts of the same `experts`."""
    widths: Any = run.get("d_experts")
    return "experts" if hasattr(widths, "__len__") and len(widths) else "layers"


def require(there: Iterable[object], wanted: Iterable[str]) -> None:
    """Asserts that a chart has its columns: Altair draws an empty one for a missing column, without an error."""
    missing = set(wanted) - {str(name) for name in there}
    assert not missing, f"missing columns: {sorted(missing)}"


def in_layers(layers: tuple[int, int] | None) -> str:
    """`, top units of layers 3–7`; nothing for all layers."""
    return "" if layers is None else f", top units of layers {layers[0]}–{layers[1]}"


def in_measured_layers(method: str, run: Mapping[str, Any]) -> str:
    """`, of layers 24–29` for a score that a run measured there alone; nothing for any other."""
    layers = chosen_layers(method, run.get("settings") or {})
    if layers is None:
        return ""
    return f", of layer {layers[0]}" if len(layers) == 1 else f", of layers {layers[0]}–{layers[-1]}"


def without_general(most: float | None) -> str:
    """`, without units that lead more than 10 % of nouns`; nothing for no limit."""
    return "" if most is None else f", without units that lead more than {100 * most:.3g} % of nouns"


def concepts_in_words(lemmas: Sequence[str], layers: tuple[int, int] | None = None) -> str:
    """Which nouns were looked at, as words for a subtitle; `layers` are those in which their first units lie."""
    said = f"concepts: {', '.join(lemmas)}" if lemmas else "all concepts"
    return said if layers is None else f"{said}, led by layers {layers[0]} to {layers[1]}"
