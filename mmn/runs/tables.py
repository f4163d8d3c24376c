"""Which columns does each table of a shard have? The one place that says it; `docs/schema.md` tells what they mean.

`SCHEMAS` is what scoring writes. `ADDED` tells more of a run that is scored already: what its units write and where
they look (`studies.annotate`), and the other `studies`. Rows of `ADDED` may be told again by another call
with overlapping settings; `ADDED_KEYS` says what tells two rows of one run apart, and the database keeps the first.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

_TYPES: Final = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "bool": pa.bool_(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "ints": pa.list_(pa.int32()),
    "float": pa.float32(),
    "double": pa.float64(),
    "floats": pa.list_(pa.float32()),
    "texts10": pa.list_(pa.string(), 10),
    "floats10": pa.list_(pa.float32(), 10),
    "time": pa.timestamp("us"),
    "json": pa.string(),
}
_JSON: Final = {b"holds": b"JSON"}  # metadata of the fields of such text


def _schema(columns: str) -> pa.Schema:
    """Returns the schema of `name type, …`; a type with a question mark may be empty."""
    pairs = [column.split() for column in columns.split(",")]
    return pa.schema([_field(name, kind.rstrip("?"), nullable=kind.endswith("?")) for name, kind in pairs])


def _field(name: str, kind: str, *, nullable: bool) -> pa.Field:
    return pa.field(name, _TYPES[kind], nullable, _JSON if kind == "json" else None)


def is_json(field: pa.Field) -> bool:
    """Whether the text of a column is JSON."""
    return field.metadata == _JSON


SCHEMAS: Final[dict[str, pa.Schema]] = {
    "image": _schema("image_id text, source text, sources texts, width int32, height int32, reference texts"),
    "caption": _schema("image_id text, variant text, text text, tokens ints, is_cut bool?"),
    "concept": _schema(
        "image_id text, variant text, lemma text, noun text, n_mentions int32, token_id int32, position int32, "
        "logit double, prob double, residual double, is_first bool, is_multi_token bool, is_shared_token bool, "
        "is_in_reference bool?, target_at text?, is_compound bool?, is_modifier bool?"
    ),
    "score": _schema(
        "image_id text, variant text, noun text, method text, rank int32, layer int16, unit int32, score float, "
        "activation float?, token_position int32?"
    ),
    "budget": _schema("image_id text, variant text, noun text, term text, layer int16?, logit double"),
    "failure": _schema("source text, stage text, error text, message text"),
}  # what scoring writes

ANNOTATIONS: Final[dict[str, pa.Schema]] = {
    "neuron": _schema(
        "model_fingerprint text, layer int16, unit int32, tokens texts10, logits floats10, is_interpretable bool"
    ),
    "field": _schema(
        "image_id text, noun text, method text, rank int32, layer int16, unit int32, "
        "iou double?, iou_other double?, iou_random double?, selection text, found_on text?, iou_best double?"
    ),
    "outline": _schema("image_id text, revision int32, version text, source text?, nouns texts"),
    "look": _schema("image_id text, layer int16, unit int32, activations floats"),
    "grid": _schema("image_id text, grid json"),
    "lens": _schema("image_id text?, kind text, layer int16?, token_position int32, tokens texts, scores floats"),
}  # what is said of scored units and pictures afterwards

GIVEN: Final[dict[str, pa.Schema]] = {
    "added_source": _schema("kind text, number int32, source text, n_images int32, added_at time"),
    "reference": _schema("image_id text, number int32, source text, added texts, reference texts, lemmas texts"),
}  # what people gave of scored pictures afterwards

EXPERIMENTS: Final[dict[str, pa.Schema]] = {
    "invariance": _schema(
        "image_id text?, kind text, noun text, method text, k int32, draw int32, ratio double, "
        "floor_other_noun double?, floor_random double, n int32"
    ),
    "shared_layer": _schema(
        "noun text, method text, k int32, draw int32, n int32, layer int16, n_shared int32, n_random double"
    ),
    "specificity": _schema(
        "image_id text, unit_noun text, noun text, method text, layer int16, unit int32, score float, share double?, "
        "is_control bool, selection text, found_on text?"
    ),
    "selectivity": _schema(
        "unit_noun text, noun text, method text, is_control bool, value double, share double?, n_units int32, "
        "n_images int32, held_out int32"
    ),
    "class_activation": _schema(
        "unit_noun text, method text, is_control bool, image_id text, is_own bool, value float, n_units int32, "
        "held_out int32"
    ),
    "sensitivity": _schema(
        "image_id text, noun text, method text, metric text, value double, control double, control_blank double?"
    ),
    "effect": _schema(
        "image_id text, variant text, noun text, kind text, selection text, method text, k int32, sigma double?, "
        "sigma_unit text?, draw int32, logit double, prob double, caption text?, similarity double?, metric text?, "
        "is_lost bool?"
    ),
    "edit": _schema(
        "edit_id text, created_at time, algorithm text, selection text, method text?, noun text, target text, "
        "units json, settings json, fingerprint_before text, fingerprint_after text, relative_norm double, "
        "efficacy double?, generalisation double?, locality double?, fluency double?, fluency_before double?"
    ),
    "edited_caption": _schema(
        "edit_id text, image_id text, role text, text_before text, text_after text, prob_before double?, "
        "prob_after double?, is_as_wished bool"
    ),
}

ADDED: Final = ANNOTATIONS | EXPERIMENTS | GIVEN
ADDED_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "neuron": ("model_fingerprint", "layer", "unit"),
    "field": ("image_id", "noun", "method", "rank", "selection"),
    "outline": ("image_id", "revision"),
    "look": ("image_id", "layer", "unit"),
    "grid": ("image_id",),
    "lens": ("image_id", "kind", "layer", "token_position"),
    "invariance": ("image_id", "kind", "noun", "method", "k", "draw", "n"),
    "shared_layer": ("noun", "method", "k", "draw", "n", "layer"),
    "specificity": ("image_id", "unit_noun", "noun", "method", "is_control", "selection"),
    "selectivity": ("unit_noun", "noun", "method", "is_control", "n_units", "held_out"),
    "class_activation": ("unit_noun", "method", "is_control", "image_id", "n_units", "held_out"),
    "sensitivity": ("image_id", "noun", "method", "metric"),
    "effect": (
        "image_id",
        "variant",
        "noun",
        "kind",
        "selection",
        "method",
        "k",
        "sigma",
        "sigma_unit",
        "draw",
        "metric",
    ),
    "edit": ("edit_id",),
    "edited_caption": ("edit_id", "image_id", "role"),
    "added_source": ("kind", "number"),
    "reference": ("image_id", "number"),
}
TABLES: Final = SCHEMAS | ADDED
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "image": ("image_id",),
    "caption": ("image_id", "variant"),
    "concept": ("image_id", "variant", "noun"),
    "score": ("image_id", "variant", "noun", "method", "rank"),
    "budget": ("image_id", "variant", "noun", "term", "layer"),
} | ADDED_KEYS  # what tells two rows of one shard apart; only `failure` may say the same twice
SHARES: Final = (  # columns, of any table, from 0 to 1; other floats are finite, other whole numbers count from 0
    "prob",
    "prob_before",
    "prob_after",
    "ratio",
    "iou",
    "iou_other",
    "iou_random",
    "iou_best",
    "efficacy",
    "generalisation",
    "locality",
)
SINCE_5: Final[dict[str, dict[str, str | None]]] = {
    "field": {"selection": "same", "found_on": None, "iou_best": None},
    "specificity": {"selection": "same", "found_on": None},
    "sensitivity": {"control_blank": None},
}  # columns that shards of earlier versions lack, and what all their rows were
