"""What does an edit do to text that has nothing to do with its pictures? Its perplexity before and after.

Plain English, and captions of the run that say neither the noun nor the new word, read without a picture: as the study
of degradation reads them (`mmn.reading.plain_text`). An edit that changes one word leaves them alone. OURS.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa

from mmn import names
from mmn.models.deltas import Delta, applied
from mmn.reading.plain_text import nats, plain_texts, prompt_without_picture
from mmn.runs import shards
from mmn.runs.reopen import ScoredRun
from mmn.studies.degradation.told import N_CAPTIONS, Told
from mmn.studies.tables import TABLES

TEXT_PREFIX: Final = "text-edit"


def text_shard_name(edit_id: str) -> str:
    """The name of the shard of what an edit does to text."""
    return f"{TEXT_PREFIX}-{edit_id}"


def write_text_shard(scored: ScoredRun, delta: Delta, lemmas: Collection[str]) -> None:
    """Reads text with and without an edit, unless that was done before; captions that say one of `lemmas` are none."""
    name = text_shard_name(delta.edit_id)
    if name in shards.finished_shards(scored.path):
        return
    model, run = scored.model, scored.run
    prefix = prompt_without_picture(model, run.prompt)
    captions = Told.of(scored).captions_without(lemmas, N_CAPTIONS, run.settings.seed, prefix)
    texts = {names.PLAIN_TEXT: plain_texts(model), names.CAPTIONS_TEXT: captions}
    rows = []
    for text, some in texts.items():
        if not some:
            continue
        n_tokens = sum(one.n_judged for one in some)
        before = nats(model, some, lambda _n: nullcontext())
        with applied(model, delta):
            after = nats(model, some, lambda _n: nullcontext())
        told = {"nats_before": before / n_tokens, "nats_after": after / n_tokens}
        rows.append({"edit_id": delta.edit_id, "text": text, "n_tokens": n_tokens} | told)
    shards.write_shard(scored.path, name, {"edited_text": pa.Table.from_pylist(rows, schema=TABLES["edited_text"])})


def read_text_shard(run_path: Path, edit_id: str) -> pd.DataFrame:
    """The rows of `edited_text` of an edit; none where it was not measured."""
    name = text_shard_name(edit_id)
    if name not in shards.finished_shards(run_path):
        return TABLES["edited_text"].empty_table().to_pandas()
    return shards.read_shard(run_path / name)["edited_text"].to_pandas()
