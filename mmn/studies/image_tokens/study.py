"""Which image tokens does a noun need, and in which layers does attention read them?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import RELATED, Measurement, Page, Study

QUESTION: Final = "Which image tokens does a noun need, and in which layers does attention read them?"
_ROWS, _FIGURES = "mmn.studies.image_tokens.rows", "mmn.studies.image_tokens.figures"
_RANDOM: Final = "as many random image tokens of the same picture"

STUDY: Final = Study(
    "image-tokens",
    QUESTION,
    command="mmn.studies.image_tokens.command",
    stages={"image-tokens": "replacing image tokens, blocking attention"},
    tables="mmn.studies.image_tokens.tables:TABLES",
    figures=(
        Figure(
            "image-tokens",
            "what nouns lose when sets of image tokens are replaced by the mean image token",
            ("concepts",),
            f"{_ROWS}:token_loss",
            f"{_FIGURES}:token_loss",
            pictures=f"{_ROWS}:pictures",
            control=_RANDOM,
            table=(
                Column("replaced", "token_set", words=f"{_ROWS}:SET_WORDS"),
                Column("measure", "measure", words=f"{_ROWS}:MEASURE_WORDS"),
                Column("tokens", "n_tokens", ".1f"),
                Column("lost", "value", ".3f", ends=("value_low", "value_high")),
                Column("random tokens", "control", ".3f", ends=("control_low", "control_high")),
                Column("difference", "difference", ".3f", ends=("difference_low", "difference_high")),
                Column("pictures", "n_images", ",d"),
            ),
            height=lambda data: 230 + 26 * len(data),
        ),
        Figure(
            "image-token-share",
            "what nouns lose when the tokens of highest integrated gradients are replaced, by their number",
            ("concepts",),
            f"{_ROWS}:token_share",
            f"{_FIGURES}:token_share",
            control=_RANDOM,
            height=lambda _data: 460,
        ),
        Figure(
            "knockout",
            "what nouns lose when attention to sets of image tokens is blocked, by window of layers",
            ("concepts",),
            f"{_ROWS}:knockout",
            f"{_FIGURES}:knockout",
            control=_RANDOM,
            table=(
                Column("from", "source", words=f"{_ROWS}:SET_WORDS"),
                Column("to", "target", words=f"{_ROWS}:TARGET_WORDS"),
                Column("layers", "layer_window"),
                Column("probability lost", "lost", ".3f", ends=("lost_low", "lost_high")),
                Column("random tokens", "lost_control", ".3f", ends=("lost_control_low", "lost_control_high")),
                Column("turned wrong", "wrong", ".1%", ends=("wrong_low", "wrong_high")),
                Column("pictures", "n_images", ",d"),
            ),
            height=lambda data: 250 + 19 * data[["row", "is_control"]].drop_duplicates().shape[0],
        ),
    ),
    pages=(Page("image_tokens", "Image tokens", ":material/grid_view:", QUESTION, RELATED),),
    measurements={
        "": Measurement(
            ("image-tokens", "--limit", "50"),
            "Reads the captions of 50 pictures again, with image tokens replaced and with attention blocked: a few "
            "hundred rows for each noun. A minute with the bundled model, hours with a large one.",
            "token_loss",
        )
    },
    bundled=("image-tokens latest --limit 16",),
)
