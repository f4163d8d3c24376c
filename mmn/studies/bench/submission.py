"""A ranking of somebody else's: a Parquet file of image_id, noun, layer, unit, score, checked before it is judged.

Each noun of each picture of the benchmark (`mmn bench --export DIR` lists them) has rows for any number of units; what
it leaves out stands behind what it ranks. Higher is better; equal scores go to the lower layer, then the lower unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.safety.roots import require_inside
from mmn.studies.bench.rankings import Ranking

COLUMNS: Final = ("image_id", "noun", "layer", "unit", "score")
Key = tuple[str, str]  # picture and noun


def read_submission(path: Path, wanted: Sequence[Key], n_layers: int, d_mlp: int) -> Mapping[Key, Ranking]:
    """The rankings of a file.

    Args:
        path: of the file.
        wanted: every picture and noun that is judged.
        n_layers: of the model.
        d_mlp: units of a layer.

    Raises:
        UsageError: it is no Parquet file with these columns; pictures or nouns are missing, or are none of the
            benchmark's; a unit that the model does not have, or that is there twice; a score that is no number.
    """
    rows = _checked(path, read_rows(path), wanted, n_layers, d_mlp)
    rows = rows.assign(flat=rows["layer"] * d_mlp + rows["unit"])
    rows = rows.sort_values(["image_id", "noun", "score", "flat"], ascending=[True, True, False, True])
    n_units = n_layers * d_mlp
    return {key: Ranking(one["flat"].to_numpy(np.int64), n_units) for key, one in rows.groupby(["image_id", "noun"])}


def read_rows(path: Path) -> pd.DataFrame:
    require_inside(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give a Parquet file of {', '.join(COLUMNS)}")
    try:
        rows = pq.read_table(path).to_pandas()
    except FileNotFoundError as error:
        raise UsageError(f"no submission at {path}: give a Parquet file of {', '.join(COLUMNS)}") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} is no Parquet file: write one of {', '.join(COLUMNS)}") from error
    if missing := [name for name in COLUMNS if name not in rows]:
        raise UsageError(f"{path} has no column {missing[0]!r}: it needs {', '.join(COLUMNS)}")
    for name in COLUMNS[2:]:
        is_right = pd.api.types.is_numeric_dtype if name == "score" else pd.api.types.is_integer_dtype
        if not is_right(rows[name]):
            kind = "numbers" if name == "score" else "whole numbers, without gaps"
            raise UsageError(f"{path}: column {name!r} is {rows[name].dtype}, and should be {kind}")
    return rows[list(COLUMNS)]


def _checked(path: Path, rows: pd.DataFrame, wanted: Sequence[Key], n_layers: int, d_mlp: int) -> pd.DataFrame:
    told = f"{path}: "
    there = set(zip(rows["image_id"], rows["noun"], strict=True))
    if missing := [key for key in wanted if key not in there]:
        raise UsageError(
            f"{told}{len(missing)} of {counted(len(wanted), 'noun')} are missing, first {_named(missing[0])}"
        )
    if strange := sorted(there - set(wanted)):
        raise UsageError(f"{told}{_named(strange[0])} is none of the benchmark's (mmn bench --export DIR lists them)")
    if (wrong := rows[~np.isfinite(rows["score"].to_numpy(float))]).size:
        raise UsageError(f"{told}the score of {_row(wrong)} is no number")
    is_unit = rows["layer"].between(0, n_layers - 1) & rows["unit"].between(0, d_mlp - 1)
    if (wrong := rows[~is_unit]).size:
        raise UsageError(
            f"{told}the model has no unit {_row(wrong)}: {counted(n_layers, 'layer')} of "
            f"{counted(d_mlp, 'unit')}, from 0"
        )
    if (wrong := rows[rows.duplicated(list(COLUMNS[:4]))]).size:
        raise UsageError(f"{told}{_row(wrong)} is there twice")
    return rows


def _named(key: Key) -> str:
    return f"{key[1]!r} of picture {key[0][:12]}"


def _row(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"L{first['layer']}.u{first['unit']} for {_named((str(first['image_id']), str(first['noun'])))}"
