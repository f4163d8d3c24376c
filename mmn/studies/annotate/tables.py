"""Decoded units, where they look in each picture, and the masks, references and synonyms that were given later."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "neuron",
        "model_fingerprint text, layer int16, unit int32, tokens texts10, logits floats10, is_interpretable bool, "
        "mean_logit float?, cosine_tokens texts10?, cosines floats10?, is_cosine_interpretable bool?",
        key=("model_fingerprint", "layer", "unit"),
        later=dict.fromkeys(("mean_logit", "cosine_tokens", "cosines", "is_cosine_interpretable")),
        is_of_model=True,
    ),
    Table(
        "field",
        "image_id text, noun text, method text, rank int32, layer int16, unit int32, "
        "iou double?, iou_other double?, iou_random double?, selection text, found_on text?, iou_best double?",
        key=("image_id", "noun", "method", "rank", "selection"),
        later={"selection": "same", "found_on": None, "iou_best": None},
        shares=("iou", "iou_other", "iou_random", "iou_best"),
    ),
    Table(
        "outline",
        "image_id text, revision int32, version text, source text?, nouns texts",
        key=("image_id", "revision"),
    ),
    Table(
        "look",
        "image_id text, layer int16, unit int32, activations floats",
        key=("image_id", "layer", "unit"),
    ),
    Table(
        "grid",
        "image_id text, grid json",
        key=("image_id",),
    ),
    Table(
        "added_source",
        "kind text, number int32, source text, n_images int32, added_at time",
        key=("kind", "number"),
    ),
    Table(
        "reference",
        "image_id text, number int32, source text, added texts, reference texts, lemmas texts",
        key=("image_id", "number"),
    ),
    Table(
        "synonym",
        "number int32, word text, object text",
        key=("number", "word"),
    ),
)
