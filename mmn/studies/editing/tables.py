"""Edits, captions before and after, and what they do to other text. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "edit",
        "edit_id text, created_at time, algorithm text, selection text, method text?, noun text, target text, "
        "units json, settings json, fingerprint_before text, fingerprint_after text, relative_norm double, "
        "efficacy double?, generalisation double?, locality double?, fluency double?, fluency_before double?",
        key=("edit_id",),
        shares=("efficacy", "generalisation", "locality"),
    ),
    Table(
        "edited_caption",
        "edit_id text, image_id text, role text, text_before text, text_after text, prob_before double?, "
        "prob_after double?, is_as_wished bool",
        key=("edit_id", "image_id", "role"),
        shares=("prob_before", "prob_after"),
    ),
    Table(
        "edited_text",
        "edit_id text, text text, n_tokens int32, nats_before double, nats_after double",
        key=("edit_id", "text"),
    ),
)
