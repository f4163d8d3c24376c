"""How alike are two texts, or a text and a picture? One interface for every metric, all of them offline.

`find_metric` knows them by what a user writes:

    lexical                     a word of the reference is among the candidate's words, or none (default; no model)
    word-f1                     F1 of the words that both share (no model)
    bertscore:MODEL[:LAYER]     greedy matching of contextual token vectors (arXiv 1904.09675)
    clipscore:MODEL             cosine of a text's and a picture's CLIP vectors (arXiv 2104.08718)

A metric's name carries its model, layer and version, and never a place on this machine: two numbers may be compared
when their names are equal. Metrics without a model load nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from PIL import Image

from mmn.errors import UsageError
from mmn.metrics.lexical import Lexical, WordF1, words

MODEL_FREE: Final = ("lexical", "word-f1")
FORMS: Final = "lexical, word-f1, bertscore:MODEL[:LAYER] and clipscore:MODEL"

__all__ = [
    "FORMS",
    "MODEL_FREE",
    "ImageMetric",
    "Lexical",
    "TextMetric",
    "WordF1",
    "find_metric",
    "find_text_metric",
    "words",
]


@runtime_checkable
class TextMetric(Protocol):
    """Compares texts pair by pair."""

    @property
    def name(self) -> str:
        """What the tables and charts say: the metric with its model, layer and version."""
        ...

    def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """The similarity of `candidates[i]` to `references[i]`, one number for each; higher is more alike."""
        ...


@runtime_checkable
class ImageMetric(Protocol):
    """Compares texts with pictures, pair by pair."""

    @property
    def name(self) -> str:
        """What the tables and charts say: the metric with its model and version."""
        ...

    def compare_images(self, texts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        """How well `texts[i]` fits `images[i]`, one number for each; the same picture may stand for many texts."""
        ...


def find_metric(text: str, device: str = "auto") -> TextMetric | ImageMetric:
    """The metric that `text` names, with its model loaded where it has one.

    Args:
        text: one of `FORMS`; MODEL is a folder in Hugging Face format or a hub id.
        device: of the metric's model; `auto` is the first GPU, else the CPU.

    Raises:
        UsageError: no such metric, a layer that the model has not.
        ModelError: a model that cannot be loaded, or is none of the kind.
    """
    kind, _, model = text.partition(":")
    if text == "lexical":
        return Lexical()
    if text == "word-f1":
        return WordF1()
    if kind == "bertscore" and model:
        from mmn.metrics.bertscore import BertScore

        name, _, layer = model.rpartition(":")
        if name and layer.isdecimal():
            return BertScore.load(name, int(layer), device)
        return BertScore.load(model, device=device)
    if kind == "clipscore" and model:
        from mmn.metrics.clipscore import ClipScore

        return ClipScore.load(model, device)
    raise UsageError(f"there is no metric {text!r}; there are {FORMS}")


def find_text_metric(text: str, device: str = "auto") -> TextMetric:
    """`find_metric`, where two texts are compared.

    Raises:
        UsageError: also where the metric compares with pictures.
        ModelError: as `find_metric`.
    """
    if text.startswith("clipscore:"):
        raise UsageError(f"{text!r} compares with pictures; to compare two texts, take one of the others of {FORMS}")
    metric = find_metric(text, device)
    assert not isinstance(metric, ImageMetric), text
    return metric
