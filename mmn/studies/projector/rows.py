"""The rows of the projector's figures.

    projector        macro F1 of a probe on the mean image token before and after the projector, beside shuffled labels
    modalities       cosines of image and caption states after every layer, beside another picture's caption
    modality-units   overlap of the units most active at image tokens and at the caption's, beside another picture's
                     caption and chance

Labels are the pictures' folders, where there are several, and whether a noun is there: in the references, or where not
every picture has some, in the caption (then it is the model's own word, and says what the model could read).
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Bool

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.reading.nouns import tag_nouns
from mmn.statistics.intervals import ANYWHERE, N_LEAST, SHARE, Range, interval_table, mean_intervals
from mmn.store import Store
from mmn.studies.projector.probe import f1_parts, folds_of, predictions, shuffled
from mmn.studies.projector.queries import ProjectorQueries
from mmn.studies.projector.tables import AFTER, BEFORE

FOLDER, REFERENCE, CAPTION = "the folder", "a noun of the references", "a noun of the caption"
PROBE, SHUFFLED = "probe", "shuffled labels"
MOST_CLASSES: Final = 20
MOST_PICTURES: Final = 2000  # of a probe: its time grows with their cube
LEAST: Final = N_LEAST  # pictures of a class, and without it
COSINES: Final = {
    "image_text": "image and its caption",
    "image_text_other": "image and another's caption",
    "image_image": "image tokens among themselves",
    "text_text": "caption tokens among themselves",
    "image_next": "image, layer to layer",
    "text_next": "caption, layer to layer",
}
OVERLAPS: Final = {"iou": "its caption", "iou_other": "another's caption", "chance": "by chance"}


def probe(store: Store, asked: Asked) -> Rows:
    """Macro F1 for each label, stage and kind of labels: label, classes, stage, line, mean, low, high, n.

    Raises:
        UsageError: nothing was measured, or no label has enough pictures with and without it.
    """
    data = probe_table(store, asked.run_id)
    if data.empty:
        raise UsageError(
            f"no folder and no noun has {LEAST} pictures of {asked.run_id} with it and {LEAST} without; "
            f"mmn projector {asked.run_id} --limit reads more"
        )
    return Rows(data, asked.run)


def modalities(store: Store, asked: Asked) -> Rows:
    """Cosines after every layer: line, layer, mean, low, high, n.

    Raises:
        UsageError: nothing was measured.
    """
    data = layer_means(store, asked.run_id)["modalities"]
    if data.empty:
        raise _not_measured(asked.run_id)
    return Rows(data, asked.run)


def units(store: Store, asked: Asked) -> Rows:
    """Overlaps in every layer: line, layer, mean, low, high, n.

    Raises:
        UsageError: nothing was measured, as in a mixture of experts.
    """
    data = layer_means(store, asked.run_id)["modality-units"]
    if data.empty:
        raise _not_measured(asked.run_id, " (nor can it be for a mixture of experts)")
    return Rows(data, asked.run)


def layer_means(store: Store, run_id: str) -> dict[str, pd.DataFrame]:
    """Returns for each figure of layers its line, layer, mean, low, high, n; without rows where there are none."""
    cosines, overlaps = _cosines(store, run_id), _overlaps(store, run_id)
    return {
        "modalities": _means(cosines, ANYWHERE),
        "modality-units": _means(overlaps, SHARE),
    }


def _means(data: pd.DataFrame, within: Range) -> pd.DataFrame:
    if data.empty:
        return pd.DataFrame(columns=["line", "layer", "mean", "low", "high", "n"])
    order = {line: place for place, line in enumerate(dict.fromkeys(data["line"]))}
    found = interval_table(data, ["line", "layer"], "value", within=within)
    return found.sort_values("line", key=lambda lines: lines.map(order), kind="stable", ignore_index=True)


def modality_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's cosines."""
    return Pictures(_cosines(store, asked.run_id), ("line", "layer"), "layer", "cosine")


def unit_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's overlaps."""
    return Pictures(_overlaps(store, asked.run_id), ("line", "layer"), "layer", "overlap of units")


def probe_table(store: Store, run_id: str) -> pd.DataFrame:
    """Returns label, classes, stage, line, mean, low, high, n.

    Raises:
        UsageError: no picture was read.
    """
    ask = store.ask(ProjectorQueries)
    vectors = ask.vectors(run_id)
    if vectors.empty:
        raise _not_measured(run_id)
    image_ids = sorted(set(vectors["image_id"]))[:MOST_PICTURES]
    rows = []
    for label, is_so in labels(ask.sources(run_id), ask.said(run_id), image_ids).items():
        for stage in (BEFORE, AFTER):
            of_stage = vectors[vectors["stage"] == stage].set_index("image_id")["vector"]
            if set(image_ids) <= set(of_stage.index):
                values = np.stack([np.asarray(of_stage[one], np.float64) for one in image_ids])
                rows += _probed(label, stage, values, is_so, image_ids)
    return pd.DataFrame(rows, columns=["label", "classes", "stage", "line", "mean", "low", "high", "n"])


def labels(sources: pd.DataFrame, said: pd.DataFrame, image_ids: list[str]) -> dict[str, pd.DataFrame]:
    """The labels that can be probed: what is read -> a row for each picture, a column of true and false for each class.

    Args:
        sources: image_id, source, reference.
        said: image_id, lemma.
        image_ids: of the pictures that were read.
    """
    of_picture = sources.set_index("image_id").loc[image_ids]
    folders = {image_id: {PurePath(source).parent.name} for image_id, source in of_picture["source"].items()}
    has_references = bool(of_picture["reference"].map(len).all())
    if has_references:
        nouns = {
            image_id: {span.lemma for text in texts for span in tag_nouns(text)}
            for image_id, texts in of_picture["reference"].items()
        }
    else:
        nouns = said.groupby("image_id")["lemma"].agg(set).to_dict()
    found = {FOLDER: _classes(folders, image_ids, all_of_them=True)}
    found[REFERENCE if has_references else CAPTION] = _classes(nouns, image_ids, all_of_them=False)
    return {label: table for label, table in found.items() if len(table.columns) > (1 if label == FOLDER else 0)}


def _classes(of_picture: dict[str, set[str]], image_ids: list[str], *, all_of_them: bool) -> pd.DataFrame:
    """The most frequent classes with enough pictures on both sides; of folders none, if a picture has none of them."""
    counts = Counter(name for image_id in image_ids for name in of_picture.get(image_id, ()))
    enough = [name for name, n in counts.items() if LEAST <= n <= len(image_ids) - LEAST]
    if all_of_them and len(enough) != len(counts):
        enough = []
    kept = sorted(enough, key=lambda name: (-counts[name], name))[: None if all_of_them else MOST_CLASSES]
    has = {name: [name in of_picture.get(image_id, ()) for image_id in image_ids] for name in kept}
    return pd.DataFrame(has, index=image_ids)


def _probed(
    label: str, stage: str, values: np.ndarray, is_so: pd.DataFrame, image_ids: list[str]
) -> list[dict[str, object]]:
    true, folds = is_so.to_numpy(bool), folds_of(image_ids)
    rows = []
    for line, given in ((PROBE, true), (SHUFFLED, shuffled(true, seed=0))):
        said = predictions(values, given, folds, label == FOLDER)
        mean, low, high = _interval(given, said)
        told = {"label": label, "classes": len(is_so.columns), "stage": stage, "line": line}
        rows.append(told | {"mean": mean, "low": low, "high": high, "n": len(image_ids)})
    return rows


def _interval(
    is_so: Bool[np.ndarray, "n classes"], is_said: Bool[np.ndarray, "n classes"]
) -> tuple[float, float, float]:
    """The macro F1, and its 95 % interval by picture, from 0 to 1."""
    mean, low, high = mean_intervals(f1_parts(is_so, is_said)[:, None], ANYWHERE)
    return float(mean[0]), float(np.clip(low[0], 0, 1)), float(np.clip(high[0], 0, 1))


def _cosines(store: Store, run_id: str) -> pd.DataFrame:
    found = store.ask(ProjectorQueries).cosines(run_id)
    return _long(found, COSINES)


def _overlaps(store: Store, run_id: str) -> pd.DataFrame:
    found = store.ask(ProjectorQueries).units(run_id)
    if found.empty:
        return pd.DataFrame(columns=["image_id", "line", "layer", "value"])
    parts = [
        _long(rows, {name: f"top {100 * share:g} %: {words}" for name, words in OVERLAPS.items()})
        for share, rows in found.groupby("share")
    ]
    return pd.concat(parts, ignore_index=True)


def _long(found: pd.DataFrame, lines: dict[str, str]) -> pd.DataFrame:
    """Returns image_id, line, layer, value: a row for each column of `lines`."""
    long = found.melt(["image_id", "layer"], list(lines), "line", "value")
    return long.assign(line=long["line"].map(lines)).dropna(subset=["value"])[["image_id", "line", "layer", "value"]]


def _not_measured(run_id: str, more: str = "") -> UsageError:
    return UsageError(f"the projector of {run_id} was not looked at{more}; mmn projector {run_id} does that")
