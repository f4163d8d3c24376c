"""What somebody needs to rank units by a method of their own: the model with planted units, and the questions.

DIR/            a folder in Hugging Face format; which units are planted it does not say
DIR/questions.csv  image_id, source, caption, noun, token_id, position
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from mmn.errors import CacheError, UsageError
from mmn.studies.bench.measure import MOST_NOUNS, Bench
from mmn.studies.bench.told import of_objects

QUESTIONS = "questions.csv"


def make_new(path: Path) -> None:
    """Makes the folder; asked before minutes of planting, too.

    Raises:
        UsageError: it is there already, and is not empty.
        CacheError: it cannot be made.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"--export {path}: it is there already; give a new folder")
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


def export(bench: Bench, path: Path) -> None:
    """Writes both (raises as `make_new`)."""
    make_new(path)
    with _explained(path):
        bench.model.module.save_pretrained(path)
        bench.model.processor.save_pretrained(path)
        questions(bench).to_csv(path / QUESTIONS, index=False)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror or error}); give a folder with space") from error


def questions(bench: Bench) -> pd.DataFrame:
    """Every picture and noun that a ranking is of: the token whose logit it is about, and the pass that predicts it."""
    return pd.DataFrame(
        [
            {
                "image_id": told.example.image_id,
                "source": told.example.source,
                "caption": told.caption.text,
                "noun": concept.noun,
                "token_id": concept.token_id,
                "position": concept.position,
            }
            for told in bench.pictures
            for concept in of_objects(told, MOST_NOUNS)
        ]
    )
