"""Are image tokens words? The rows of the lens's two figures, each with its control.

    lens          before the first layer, the cosine with the nearest embedding, of image tokens and random vectors:
                  the largest distance D of the two distributions (P1, Table 2: D = .037, p > .5), and how many of
                  the nearest tokens are English words (`nearest_result`)
    lens-layers   after every layer, the share of image tokens whose most probable token is a noun of the caption; and
                  of the image tokens on a noun's object, the share that say this noun, against those elsewhere

Shares are means over pictures, with intervals by picture (METHODS: Intervals). p assumes that image tokens are
independent, which those of one picture are not: it is too small, and D is what to compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Bool

from mmn.errors import ImageError, SourceError, UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.models.geometry import Grids, serialise
from mmn.names import ORIGINAL
from mmn.reading.words import is_word
from mmn.runs.added_later import example_of, masks_of_run
from mmn.statistics.intervals import interval_table
from mmn.statistics.kolmogorov_smirnov import KolmogorovSmirnov, kolmogorov_smirnov
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.studies.lens.queries import LensQueries
from mmn.units.heat_maps import tokens_on
from mmn.units.masks import MaskSource

CAPTION, ON_OBJECT, ELSEWHERE = "any noun of the caption", "its noun, on the object", "its noun, elsewhere"
LINES: Final = (CAPTION, ON_OBJECT, ELSEWHERE)
N_MASKED: Final = 200  # pictures whose objects are looked up: their outlines are read from files


def lens(store: Store, asked: Asked) -> Rows:
    """The cosine of each image token, and of each random vector, with the nearest embedding.

    Raises:
        UsageError: there are none, as in a model that adds something to its input embeddings.
    """
    data = store.ask(LensQueries).nearest_tokens(asked.run_id)
    if data["kind"].nunique() < 2:
        raise UsageError(
            f"the image tokens of {asked.run_id} have no nearest words; mmn lens {asked.run_id} finds them"
        )
    return Rows(data, asked.run)


def lens_layers(store: Store, asked: Asked) -> Rows:
    """After each layer, the share of image tokens that say a noun of the caption.

    Raises:
        UsageError: no image tokens were read.
    """
    data = layer_shares(store, asked.run_id)
    if data.empty:
        raise UsageError(f"the image tokens of {asked.run_id} were not read; mmn lens {asked.run_id} does that")
    return Rows(data, asked.run)


@dataclass(frozen=True)
class NearestResult:
    """How image tokens compare with random vectors: `test` of their cosines, and the shares whose nearest token is a
    word.
    """

    test: KolmogorovSmirnov
    word_share: float
    word_share_random: float


def nearest_result(tokens: pd.DataFrame) -> NearestResult | None:
    """Of `LensQueries.nearest_tokens`; None where the model's image tokens were not compared with its vocabulary."""
    image, drawn = tokens[tokens["kind"] == "nearest"], tokens[tokens["kind"] == "random"]
    if image.empty or drawn.empty:
        return None
    test = kolmogorov_smirnov(image["cosine"].to_numpy(np.float64), drawn["cosine"].to_numpy(np.float64))
    return NearestResult(test, _word_share(image["token"]), _word_share(drawn["token"]))


def layer_shares(store: Store, run_id: str) -> pd.DataFrame:
    """Returns layer, line (of `LINES`), mean, low, high, n (pictures); no object lines where no outlines are known."""
    rows = shares_by_picture(store, run_id)
    if rows.empty:
        return pd.DataFrame(columns=["layer", "line", "mean", "low", "high", "n"])
    return interval_table(rows, ["layer", "line"], "share")


def pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's share behind the figure of layers."""
    data = shares_by_picture(store, asked.run_id).rename(columns={"share": "value"})
    return Pictures(data, ("line", "layer"), "layer", "image tokens that say the noun", ".1%")


def shares_by_picture(store: Store, run_id: str) -> pd.DataFrame:
    """Returns image_id, layer, line, share: what `layer_shares` is the mean of."""
    parts = [store.ask(LensQueries).noun_shares(run_id).assign(line=CAPTION)]
    places = object_places(store, run_id)
    if len(places):
        found = store.ask(LensQueries).object_shares(run_id, places)
        parts.append(found.assign(line=np.where(found["is_on"], ON_OBJECT, ELSEWHERE)))
    rows = pd.concat([part[["image_id", "layer", "line", "share"]] for part in parts])
    return rows.groupby(["image_id", "layer", "line"], as_index=False)["share"].mean()


def object_places(store: Store, run_id: str, image_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Returns image_id, noun, token_position, is_on: which image tokens lie on the object of each noun.

    Of these pictures (of those that `mmn lens` has read, where none are named), at most `N_MASKED`; nouns without an
    outline, or without an image token on it, are left out. Empty where the run's pictures come without outlines.
    """
    columns = ["image_id", "noun", "token_position", "is_on"]
    examples = [example_of(picture) for picture in store.table(run_id, "image").to_dict("records")]
    ask = store.ask(PictureQueries)
    source = masks_of_run(ask.mask_specs(run_id), examples, ask.synonyms(run_id))
    if source is None:
        return pd.DataFrame(columns=columns)
    named = store.ask(LensQueries).pictures(run_id)["image_id"] if image_ids is None else image_ids
    read = list(named)[:N_MASKED]
    images, concepts, grid_rows = (store.table(run_id, name) for name in ("image", "concept", "grid"))
    cells = grid_rows[grid_rows["image_id"].isin(read)].set_index("image_id")["grid"].map(serialise.from_json)
    is_said = (concepts["variant"] == ORIGINAL) & concepts["target_at"].isna()
    nouns = concepts[is_said].groupby("image_id")["noun"].agg(list)
    rows = []
    for picture in images[images["image_id"].isin(cells.index.intersection(nouns.index))].to_dict("records"):
        image_id = picture["image_id"]
        for noun, is_on in _on_objects(source, picture, nouns[image_id], cells[image_id]).items():
            rows += [(image_id, noun, at, bool(on)) for at, on in enumerate(is_on)]
    return pd.DataFrame(rows, columns=columns)


def _on_objects(
    source: MaskSource, picture: Mapping[str, Any], nouns: Sequence[str], cells: Grids
) -> dict[str, Bool[np.ndarray, " tokens"]]:
    """For each noun with an outline, which image tokens lie on it; none of a picture that cannot be read any more."""
    try:
        masks = source.find(example_of(picture))
    except (ImageError, SourceError, OSError):
        return {}
    names = {noun: source.object_of(noun) for noun in nouns}
    found = {noun: tokens_on(masks[name], cells) for noun, name in names.items() if name in masks}
    return {noun: is_on for noun, is_on in found.items() if is_on.any()}


def _word_share(tokens: pd.Series) -> float:
    return float(tokens.map(is_word).mean())
