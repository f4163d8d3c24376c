"""A benchmark's result: means over pictures with intervals, as a small JSON file that ships, is kept, and is shown.

No torch here: pages and docs read what was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from mmn.errors import CacheError
from mmn.safety.atomic_files import write_whole
from mmn.statistics.intervals import ANYWHERE, SHARE, Range, mean_intervals

if TYPE_CHECKING:  # it brings torch
    from mmn.studies.bench.measure import Judged

SHIPPED_PATH: Final = Path(__file__).parent / "results"
FILE: Final = "result.json"
PLANTED: Final = "+planted"  # ends the name of a copy


@dataclass(frozen=True)
class Measure:
    """What a ranking is judged by.

    Attributes:
        heading: of its column.
        words: what it is.
        within: what it cannot leave.
        best: the value of the best there can be, None where there is none.
        is_high_better: False for decoys.
    """

    heading: str
    words: str
    within: Range
    is_high_better: bool = True


MEASURES: Final[dict[str, Measure]] = {
    "recall@3": Measure("found in 3", "writer, helper and seer among the first 3 units", SHARE),
    "recall@1%": Measure("in 1 %", "writer, helper and seer among the first 1 % of all units", SHARE),
    "recall@10%": Measure("in 10 %", "writer, helper and seer among the first 10 %", SHARE),
    "decoys@1%": Measure("decoys in 1 %", "units that do nothing among the first 1 %: lower is better", SHARE, False),
    "suppressor@1%": Measure("suppressor last", "the suppressor among the last 1 %", SHARE),
    "agreement": Measure("agreement", "Spearman's correlation with what zeroing a unit everywhere does", (-1.0, 1.0)),
    "area zero": Measure("area, zero", "area between the ablation curves of its units and of random ones", ANYWHERE),
    "area mean": Measure("area, mean", "that area with units set to their mean instead of 0", ANYWHERE),
    "iou": Measure("IoU more", "IoU of its first 10 units' maps with the object, minus that of random ones", ANYWHERE),
    "kept": Measure("kept more", "overlap over shuffled tokens, minus that with other nouns", ANYWHERE),
}
PLACES: Final = "place "  # begins the measures of where a role's unit stands
ROLE_WORDS: Final = {
    "writer": "writes the noun where it is about to be said, when its object is there",
    "helper": "writes there what later layers turn into the noun",
    "seer": "sees the object's place, at the image tokens",
    "suppressor": "takes from the noun what the writer gives",
    "erased": "decoy: writes the noun as the writer does, and the eraser takes it back",
    "eraser": "takes back what the erased one writes",
    "silent": "decoy: active with the noun, writes nothing that any word reads",
}


@dataclass(frozen=True)
class Result:
    """What `mmn bench` found of one model; `rows` are of method, measure, mean, low, high, n."""

    protocol: str
    model: str
    images: str
    n_layers: int
    d_mlp: int
    nouns: tuple[str, ...]
    asked: Mapping[str, Any]
    n_pictures: int
    n_questions: int
    planted: Sequence[Mapping[str, Any]]
    rows: pd.DataFrame
    passes: Mapping[str, Sequence[float]]  # by method: forward, backward, a picture
    seconds: Mapping[str, float]  # by method, a picture: of a processor, of one machine

    @property
    def n_units(self) -> int:
        return self.n_layers * self.d_mlp

    @property
    def methods(self) -> list[str]:
        """Those that find most planted units first; where none are planted, that agree most."""
        by = "recall@1%" if self.planted else "agreement"
        own = self.rows[self.rows["measure"] == by].sort_values("method")
        return list(own.sort_values("mean", ascending=False, kind="stable")["method"])

    def of(self, method: str, measure: str) -> dict[str, Any]:
        """The mean, its interval and n."""
        found = self.rows[(self.rows["method"] == method) & (self.rows["measure"] == measure)]
        return dict(found.iloc[0])

    def n_ahead(self, method: str, measure: str) -> int | None:
        """How many methods are ahead of one; None where it has no value."""
        own, mine = self.rows[self.rows["measure"] == measure], self.of(method, measure)["mean"]
        if math.isnan(mine):
            return None
        return int((own["mean"] > mine if MEASURES[measure].is_high_better else own["mean"] < mine).sum())

    def best(self, measure: str) -> list[str]:
        """The methods that no other one is ahead of, of those that have a value."""
        own = self.rows[(self.rows["measure"] == measure) & self.rows["mean"].notna()]
        target = own["mean"].max() if MEASURES[measure].is_high_better else own["mean"].min()
        return [method for method in self.methods if method in set(own.loc[own["mean"] == target, "method"])]


def summarise(judged: Judged, protocol: str) -> Result:
    """The means over pictures of each method's values, each picture weighing the same."""
    methods = list(dict.fromkeys(method for _, method in judged.values))
    rows = [row for method in methods for row in _rows(judged, method)]
    costs = {method: [cost for (_, one), cost in judged.costs.items() if one == method] for method in methods}
    return Result(
        protocol,
        judged.model,
        judged.asked.images,
        judged.n_layers,
        judged.d_mlp,
        judged.nouns,
        asdict(judged.asked),
        len({image_id for image_id, _ in judged.values}),
        judged.n_questions,
        [_planted(one) for one in judged.verified],
        pd.DataFrame(rows),
        {
            m: [float(np.mean([getattr(c, way) for c in own])) for way in ("forward", "backward")]
            for m, own in costs.items()
            if own
        },
        {method: float(np.mean([cost.seconds for cost in own])) for method, own in costs.items() if own},
    )


def _rows(judged: Judged, method: str) -> list[dict[str, Any]]:
    by_picture = pd.DataFrame([values for (_, one), values in judged.values.items() if one == method])
    rows = []
    for measure in by_picture:
        within = MEASURES[measure].within if measure in MEASURES else SHARE
        values = by_picture[measure].to_numpy(float)
        mean, low, high = (float(one[0]) for one in mean_intervals(values[:, None], within))
        n = int((~np.isnan(values)).sum())
        rows.append({"method": method, "measure": measure, "mean": mean, "low": low, "high": high, "n": n})
    return rows


def _planted(one: Any) -> dict[str, Any]:
    unit = one.planted.unit
    return {
        "noun": one.planted.noun,
        "role": one.planted.role,
        "layer": unit.layer,
        "unit": unit.unit,
        "activity": one.activity,
        "effect": one.effect,
        "n": one.n,
        "why": one.why,
    }


def write(result: Result, path: Path) -> None:
    """Writes the file, whole or not at all; numbers to six digits, which no machine's rounding reaches."""
    plain = {name: getattr(result, name) for name in Result.__dataclass_fields__ if name != "rows"}
    plain["rows"] = result.rows.to_dict("records")
    data = json.dumps(_rounded(plain), ensure_ascii=False, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (data + "\n").encode())
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror or error}); give a folder with space") from error


def keep(result: Result, path: Path) -> None:
    """Writes the file, unless one of more scores is there: nothing that was judged is lost to a question about some."""
    try:
        there = set(read(path).methods) if path.is_file() else set()
    except CacheError:
        there = set()  # damaged, or of another version
    if there <= set(result.methods):
        write(result, path)


def read(path: Path) -> Result:
    """The result of a file.

    Raises:
        CacheError: it is damaged, or of another version.
    """
    try:
        return _result(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path} is no result of this version ({error}); remove it, and run mmn bench") from error


def _result(found: dict[str, Any]) -> Result:
    found["rows"] = pd.DataFrame(found["rows"]).astype(dict.fromkeys(("mean", "low", "high"), float))
    return Result(**found | {"nouns": tuple(found["nouns"])})


def results(cache_path: Path) -> list[Result]:
    """What was measured here, the newest first, then what ships and was not measured here."""
    own = sorted(cache_path.glob(f"bench/*/{FILE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [read(path) for path in own] + shipped()


def newest(found: Sequence[Result]) -> dict[str, Result]:
    """Each model's first result, by the model's name without the planted units."""
    by_model = {model_of(result): result for result in reversed(found)}
    return {model: by_model[model] for model in dict.fromkeys(map(model_of, found))}


def model_of(result: Result) -> str:
    """The model that units were planted in."""
    return result.model.removesuffix(PLANTED)


def shipped() -> list[Result]:
    """What ships, by the models' names."""
    return [read(path) for path in sorted(SHIPPED_PATH.glob("*.json"), key=lambda path: path.stem)]


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value
