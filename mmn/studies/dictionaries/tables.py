"""Concepts of a noun. `docs/schema.md` tells what the columns mean."""

from __future__ import annotations

from typing import Final

from mmn.studies.table import Table

TABLES: Final = (
    Table(
        "dictionary",
        "noun text, dictionary text, kind text, site text, k int16, n_fit int32, n_test int32, explained double, "
        "explained_test double, word_overlap double?, word_overlap_random double?",
        key=("noun", "dictionary"),
        shares=("word_overlap", "word_overlap_random"),
    ),
    Table(
        "dictionary_concept",
        "noun text, dictionary text, concept int16, led double, led_test double, words texts, logits floats, "
        "images texts, coefficients floats, layers ints, units ints, weights floats, direction floats",
        key=("noun", "dictionary", "concept"),
        shares=("led", "led_test"),
    ),
    Table(
        "dictionary_test",
        "noun text, dictionary text, image_id text, metric text, top int16, concept int16, value double, "
        "any_concept double, random double",
        key=("noun", "dictionary", "image_id", "metric", "top"),
    ),
)
