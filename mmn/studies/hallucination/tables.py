"""How sure image tokens are of objects, what is known to be there, and captions of pictures without an object.

`docs/schema.md` tells what the columns mean.
"""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

READOUTS: Final = ("raw", "normed")
DIRECTIONS: Final = ("object", "other", "random")

TABLES: Final = (
    Table(
        "confidence",
        "image_id text, object text, readout text, confidence float, layer int16?, token_position int32",
        key=("image_id", "object", "readout"),
        shares=("confidence",),
        among={"readout": READOUTS},
    ),
    Table(
        "object_truth",
        "image_id text, revision int32, version text, outlined texts?, mentioned texts?, outlinable texts?, "
        "synonyms int32?",
        key=("image_id", "revision"),
        later={"outlinable": None, "synonyms": None},
    ),
    Table(
        "object_map",
        "image_id text, object text, readout text, revision int32, scores floats, iou double?, iou_other double?, "
        "iou_best double?, precision double?, precision_other double?, precision_chance double?",
        key=("image_id", "object", "readout", "revision"),
        shares=("iou", "iou_other", "iou_best", "precision", "precision_other", "precision_chance"),
        among={"readout": READOUTS},
    ),
    Table(
        "projected_away",
        "image_id text, removed text, direction text, alpha double, text_layer int16, image_layer int16, caption text, "
        "nouns texts, compounds texts, revision int32, version text?",
        key=("image_id", "removed", "direction", "alpha", "text_layer", "image_layer", "revision"),
        later={"revision": 1, "version": None},
        among={"direction": DIRECTIONS},
    ),
)
