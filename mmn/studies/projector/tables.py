"""Mean image tokens around the projector, and the two modalities in the decoder. `docs/schema.md` has the columns."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

BEFORE, AFTER = "before", "after"  # the projector

TABLES: Final = (
    Table(
        "projector_mean",
        "image_id text, stage text, vector floats",
        key=("image_id", "stage"),
        among={"stage": (BEFORE, AFTER)},
    ),
    Table(
        "modality",
        "image_id text, layer int16?, image_text float, image_text_other float?, image_image float?, text_text float?, "
        "image_next float?, text_next float?",
        key=("image_id", "layer"),
    ),
    Table(
        "modality_unit",
        "image_id text, layer int16, share float, n_units int32, iou double, iou_other double?, chance double",
        key=("image_id", "layer", "share"),
        shares=("iou", "iou_other", "chance"),
    ),
)
