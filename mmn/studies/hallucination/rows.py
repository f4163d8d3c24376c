"""The rows of the figures: what confidence tells, where it lies, and what became of captions without an object.

    hallucination, hallucination-objects   precision against recall of objects that are there, and AUROC (`detection`)
    hallucination-confidence               the confidence in each object, by what is known of it (`judging`)
    hallucination-maps                     IoU and average precision of maps, beside another object's map
    project-away                           CHAIR_s and CHAIR_i (Rohrbach et al. 2018, arXiv 1809.02156), and who is gone

CHAIR_s is the share of captions with a hallucinated object, CHAIR_i that of hallucinated ones among all objects named,
each in two ways (`judging`): of listed objects, every mention of one, as published; and of all nouns, each lemma of a
caption once (OURS). Objects of which nothing is known do not count. Captions are those that name a noun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.statistics.detection import detection, precision_curve
from mmn.statistics.intervals import interval_table, ratio_intervals
from mmn.store import Store
from mmn.studies.hallucination.doubts import threshold
from mmn.studies.hallucination.judging import ABSENT, HALLUCINATED, LISTED, MISSED, NOUNS, PRESENT, UNKNOWN, WAYS, Judge
from mmn.studies.hallucination.queries import HallucinationQueries

RAW, NORMED, PROB, ANOTHER = "no norm", "final norm", "noun's own probability", "another picture's"
NAMED, NAMED_LISTED, ALL = "named objects", "named listed objects", "all objects asked for"
SCORES: Final = {RAW: "raw", NORMED: "normed", PROB: "prob", ANOTHER: "another"}
BEFORE, OWN, OTHER, RANDOM = "before", "own direction", "another object's", "random"
LINES: Final = {"object": OWN, "other": OTHER, "random": RANDOM}
CHAIR_S, CHAIR_I = ({way: f"{name} of {way}, hallucinated out" for way in WAYS} for name in ("CHAIR_s", "CHAIR_i"))
CHAIR_TRUE = {way: f"CHAIR_i of {way}, a true one out" for way in WAYS}
NAMING = {
    LISTED: "captions with a listed object",
    NOUNS: "captions with a judged noun",
}  # no CHAIR tells of one that says nothing any more
GONE: Final = {HALLUCINATED: "hallucinated object gone", PRESENT: "true object gone", UNKNOWN: "unjudged noun gone"}
STAY = "other nouns stay"
CHAIRS: Final = tuple(names[way] for way in WAYS for names in (CHAIR_S, CHAIR_I, NAMING, CHAIR_TRUE))
QUANTITIES: Final = (*CHAIRS, *GONE.values(), STAY)
SETTINGS: Final = ("alpha", "text_layer", "image_layer")


def of_named(store: Store, asked: Asked) -> Rows:
    """Objects that the captions name: those that are there against hallucinated ones.

    Raises:
        UsageError: nothing was measured, or nothing is hallucinated, or nothing is known to be there.
    """
    return _curves(store, asked, NAMED)


def of_vocabulary(store: Store, asked: Asked) -> Rows:
    """All objects that pictures were asked for: those that are there against absent ones (raises likewise)."""
    return _curves(store, asked, ALL)


def confidences(store: Store, asked: Asked) -> Rows:
    """The confidence (no norm) in each object of each picture, and what is known of it.

    Raises:
        UsageError: nothing was measured, or neither masks nor references tell anything of any object.
    """
    data = judged(store, asked.run_id)
    if not data["state"].isin((PRESENT, HALLUCINATED, ABSENT)).any():
        raise UsageError(_why_nothing(data, ALL, asked.run_id))
    kept = data[["image_id", "object", "state", "raw"]].rename(columns={"raw": "confidence"})
    return Rows(kept, asked.run, {"threshold": threshold(data)})


def maps(store: Store, asked: Asked) -> Rows:
    """How well maps outline their object, and another object of the picture; of pictures with two outlined objects.

    Raises:
        UsageError: no map was compared with an outline.
    """
    fits = store.ask(HallucinationQueries).fits(asked.run_id)
    fits = fits[fits["iou_other"].notna()]
    if fits.empty:
        raise UsageError(
            f"no map of {asked.run_id} was compared with outlines of two objects of a picture; mmn hallucination "
            f"{asked.run_id} does that where masks are known and image tokens have a place"
        )
    parts = [
        interval_table(fits, ["readout"], column).assign(measure=measure, whose=whose)
        for measure, columns in _FITS.items()
        for whose, column in columns.items()
    ]
    return Rows(pd.concat(parts, ignore_index=True), asked.run)


_FITS: Final[Mapping[str, Mapping[str, str]]] = {
    "IoU above the map's mean": {"its own map": "iou", "another object's map": "iou_other"},
    "average precision of pixels": {
        "its own map": "precision",
        "another object's map": "precision_other",
        "chance": "precision_chance",
    },
}


def project_away(store: Store, asked: Asked) -> Rows:
    """What became of captions when objects were projected out; of the setting that most pictures have.

    Raises:
        UsageError: nothing was projected out.
    """
    found = chosen_edits(store, asked.run_id)
    if found.empty:
        raise UsageError(
            f"no object was projected out of {asked.run_id}; mmn hallucination {asked.run_id} --project-away does that"
        )
    setting = {name: found[name].iloc[0].item() for name in SETTINGS}
    setting["synonyms"] = store.ask(HallucinationQueries).judge(asked.run_id).told()
    return Rows(_edited(store, asked.run_id, found), asked.run, setting)


def judged(store: Store, run_id: str) -> pd.DataFrame:
    """Returns image_id, object, is_said, is_named (by any word), is_listed, prob, state, and confidence by readout
    (`raw`, `normed`); as `another` that of the next picture in the same object.

    An object that the caption names by another word is `UNKNOWN`: that word stands for it.

    Raises:
        UsageError: nothing was measured.
    """
    found: pd.DataFrame = store.recent(("judged", run_id), lambda: _judged(store, run_id))
    return found.copy(deep=False)  # what is written to is copied then


def _judged(store: Store, run_id: str) -> pd.DataFrame:
    ask = store.ask(HallucinationQueries)
    rows, judge = ask.confidences(run_id), ask.judge(run_id)
    if rows.empty:
        raise UsageError(f"how sure image tokens of {run_id} are was not read; mmn hallucination {run_id} does that")
    told = rows.drop_duplicates(["image_id", "object"])[["image_id", "object", "is_said", "is_compound", "prob"]]
    by_readout = rows.pivot_table(index=["image_id", "object"], columns="readout", values="confidence").reset_index()
    data = told.merge(by_readout, on=["image_id", "object"])
    before = said_before(ask.nouns_before(run_id))
    parts = [stated(some, judge, before.get(str(image_id))) for image_id, some in data.groupby("image_id")]
    data = pd.concat(parts).sort_index()
    return data.merge(_of_next(data), on=["image_id", "object"], how="left")


def told_detections(store: Store, run_id: str) -> list[dict[str, Any]]:
    """AUROC and average precision by set of objects and score, for the command; or why there are none."""
    data = judged(store, run_id)
    found: list[dict[str, Any]] = []
    for what in (NAMED, NAMED_LISTED, ALL):
        try:
            rows = _compared(data, what, run_id)
        except UsageError as error:
            found.append({"of": what, "why_none": str(error)})
            continue
        for line, some in _scored(rows):
            found.append({"of": what, "score": line, "why_none": ""} | asdict(detection(some, SCORES[line])))
    return found


def chosen_edits(store: Store, run_id: str) -> pd.DataFrame:
    """The edits of one setting: the one that most pictures have, of several the first by α and layers."""
    rows = store.ask(HallucinationQueries).edits(run_id)
    if rows.empty:
        return rows
    n_images = rows.groupby(list(SETTINGS))["image_id"].nunique()
    chosen = n_images.idxmax()
    return rows[(rows[list(SETTINGS)] == list(chosen)).all(axis=1)]


def edited_rows(store: Store, run_id: str) -> pd.DataFrame:
    """Returns quantity, line, mean, low, high, n of the chosen setting; empty where nothing was projected out."""
    found = chosen_edits(store, run_id)
    if found.empty:
        return pd.DataFrame(columns=["quantity", "line", "mean", "low", "high", "n"])
    return _edited(store, run_id, found)


def _of_next(data: pd.DataFrame) -> pd.DataFrame:
    """`another`: of each object the confidence of the next picture, by image_id and round; the last has the first's."""
    wide = data.pivot_table(index="image_id", columns="object", values="raw")
    shifted = pd.DataFrame(np.roll(wide.to_numpy(), -1, axis=0), index=wide.index, columns=wide.columns)
    if len(wide) < 2:
        shifted[:] = np.nan
    return shifted.stack().rename("another").reset_index()


def _curves(store: Store, asked: Asked, what: str) -> Rows:
    rows = _compared(judged(store, asked.run_id), what, asked.run_id)
    parts = []
    for line, some in _scored(rows):
        found = detection(some, SCORES[line])
        curve = precision_curve(some, SCORES[line])
        parts.append(curve.assign(line=line, auroc=found.auroc, auroc_low=found.low, auroc_high=found.high))
    counts = {"n_there": int(rows["is_positive"].sum()), "n_not": int((~rows["is_positive"]).sum())}
    words = {"what": what, "n_images": int(rows["image_id"].nunique()), **counts}
    words["synonyms"] = store.ask(HallucinationQueries).judge(asked.run_id).told()
    return Rows(pd.concat(parts, ignore_index=True), asked.run, words)


def _compared(data: pd.DataFrame, what: str, run_id: str) -> pd.DataFrame:
    """The objects of a set of which it is known whether they are there, as `is_positive`."""
    states = (PRESENT, MISSED, HALLUCINATED, ABSENT) if what == ALL else (PRESENT, HALLUCINATED)
    rows = data[data["state"].isin(states) & (data["is_listed"] | (what != NAMED_LISTED))]
    rows = rows.assign(is_positive=rows["state"].isin((PRESENT, MISSED)))
    n_there, n_not = int(rows["is_positive"].sum()), int((~rows["is_positive"]).sum())
    if not n_there + n_not:
        raise UsageError(_why_nothing(data, what, run_id))
    if not n_there or not n_not:
        kind = (
            f"none of the {n_there:,} {what} is hallucinated" if n_there else f"none of the {n_not:,} {what} is there"
        )
        raise UsageError(f"{kind}, as far as masks and references tell, so there is nothing to tell apart")
    return rows


def _why_nothing(data: pd.DataFrame, what: str, run_id: str) -> str:
    """Why nothing is known of any object of a set."""
    if (data["state"] == UNKNOWN).all():
        return f"neither masks nor references say what the pictures of {run_id} show: add some (mmn annotate)"
    if what == NAMED_LISTED:
        return f"captions of {run_id} name no listed object of which masks or references tell; --synonyms lists others"
    return f"captions of {run_id} name nothing of which masks or references tell: add some (mmn annotate)"


def _scored(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each score of which both kinds of rows have values, and those rows."""
    for line, column in SCORES.items():
        some = rows[rows[column].notna()]
        is_of_all = line != PROB or len(some) == len(rows)  # only what is named has a probability
        if is_of_all and some["is_positive"].nunique() == 2:
            yield line, some


def _edited(store: Store, run_id: str, found: pd.DataFrame) -> pd.DataFrame:
    """`edited_rows` of some edits."""
    ask = store.ask(HallucinationQueries)
    judge, before = ask.judge(run_id), said_before(ask.nouns_before(run_id))
    told = pd.DataFrame([_told(row, judge, before[row["image_id"]]) for row in found.to_dict("records")])
    alone = told[~told["is_together"]]
    parts = [part for way in WAYS for part in (*_chair(told, way), *_true_removed(alone, way))]
    for state, quantity in GONE.items():
        parts.append(_means(alone[alone["state"] == state], "is_gone", quantity))
    parts.append(_means(alone, "stay", STAY))
    rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
    rows["line"] = pd.Categorical(rows["line"], [BEFORE, *LINES.values()], ordered=True)
    rows["quantity"] = pd.Categorical(rows["quantity"], QUANTITIES, ordered=True)
    rows = rows.sort_values(["quantity", "line"], ignore_index=True)
    return rows.astype({"line": str, "quantity": str})[["quantity", "line", "mean", "low", "high", "n"]]


@dataclass(frozen=True)
class Said:
    """What a caption says: its nouns' lemmas, which of them are parts of compounds, and its text."""

    nouns: Sequence[str]
    compounds: Sequence[str]
    text: str

    @classmethod
    def of(cls, row: Mapping[str, Any], text: str) -> Said:
        """The nouns of a row, in the caption `text`."""
        return cls(list(row["nouns"]), list(row["compounds"]), row[text])


def said_before(rows: pd.DataFrame) -> dict[str, Said]:
    """What each caption says as it was scored."""
    return {row["image_id"]: Said.of(row, "text") for row in rows.to_dict("records")}


def stated(rows: pd.DataFrame, judge: Judge, said: Said | None) -> pd.DataFrame:
    """The objects of one picture with their states, whether the caption names them, and whether they are listed."""
    image_id = str(rows["image_id"].iloc[0])
    own: dict[str, str] = {} if said is None else judge.states(image_id, said.nouns, said.compounds, said.text)
    senses = {} if said is None else judge.senses(image_id, said.nouns, said.text)
    meant = frozenset() if said is None else judge.named(image_id, said.nouns, said.text)
    are_named = [name in own or judge.meaning(image_id, name) in meant for name in rows["object"]]
    states = [
        own.get(name) or (UNKNOWN if is_named else judge.state(image_id, name, is_said=False))
        for name, is_named in zip(rows["object"], are_named, strict=True)
    ]
    are_listed = [judge.is_listed(image_id, senses.get(name) or name) for name in rows["object"]]
    return rows.assign(state=states, is_named=are_named, is_listed=are_listed)


def _told(row: Mapping[str, Any], judge: Judge, before: Said) -> dict[str, Any]:
    """What one edit did to its caption; `is_all` where it took all that was hallucinated out, by way of counting."""
    removed, image_id = row["removed"].split(" + "), str(row["image_id"])
    states = judge.states(image_id, before.nouns, before.compounds, before.text)
    after = Said.of(row, "caption")
    stay = still_named(judge, image_id, before, after)
    others = [stays for name, stays in stay.items() if name not in removed]
    told = {
        "image_id": image_id,
        "is_known": judge.knows(image_id),
        "is_listed": judge.is_listed(image_id, judge.senses(image_id, removed, before.text)[removed[0]] or removed[0]),
        "line": LINES[row["direction"]],
        "is_together": len(removed) > 1,
        "state": states[removed[0]],
        "is_gone": float(not any(stay[name] for name in removed)),
        "stay": np.mean(others) if others else np.nan,
    }
    for way in WAYS:
        wrong = judge.hallucinated(image_id, before.nouns, before.compounds, before.text, way)
        told[f"is_all {way}"] = bool(wrong) and set(removed) == set(wrong)
        told[f"wrong {way}"], told[f"known {way}"] = _counts(judge, image_id, after, way)
        told[f"wrong before {way}"], told[f"known before {way}"] = _counts(judge, image_id, before, way)
    return told


def still_named(judge: Judge, image_id: str, before: Said, after: Said) -> dict[str, bool]:
    """Whether a caption still names what each noun of another one names, by whatever word."""
    named = judge.named(image_id, after.nouns, after.text)
    senses = judge.senses(image_id, before.nouns, before.text)
    return {
        noun: noun in after.nouns if sense is None else judge.meaning(image_id, sense) in named
        for noun, sense in senses.items()
    }


def _counts(judge: Judge, image_id: str, said: Said, way: str) -> tuple[int, int]:
    """Hallucinated objects of a caption, and all of which it is known."""
    if way == LISTED:
        return judge.count_listed(image_id, said.nouns, said.text)
    states = list(judge.states(image_id, said.nouns, said.compounds, said.text).values())
    return states.count(HALLUCINATED), states.count(HALLUCINATED) + states.count(PRESENT)


def _of_way(told: pd.DataFrame, way: str, when: str = "") -> pd.DataFrame:
    """The columns `wrong` and `known` of one way of counting, after the edit or `before ` it."""
    found = told[[f"wrong {when}{way}", f"known {when}{way}"]]
    return found.set_axis(["wrong", "known"], axis=1)


def _chair(told: pd.DataFrame, way: str) -> Iterator[pd.DataFrame]:
    """CHAIR_s and CHAIR_i of all pictures of which anything is known, before, and after what is hallucinated was taken
    out of those with any.
    """
    told = told[told["is_known"]]
    base = _of_way(told.drop_duplicates("image_id").set_index("image_id"), way, "before ")
    if not base["known"].any():
        return
    tables = {BEFORE: base}
    for line in LINES.values() if base["wrong"].any() else ():
        edited = told[told[f"is_all {way}"] & (told["line"] == line)].set_index("image_id")
        if len(edited):
            tables[line] = _of_way(edited, way).combine_first(base).loc[base.index]
    for line, table in tables.items():
        shares = {"is_wrong": table["wrong"] > 0, "is_naming": table["known"] > 0}
        some = table.reset_index().assign(line=line, **{name: one.to_numpy(float) for name, one in shares.items()})
        yield interval_table(some, ["line"], "is_wrong").assign(quantity=CHAIR_S[way])
        yield interval_table(some, ["line"], "is_naming").assign(quantity=NAMING[way])
        yield _ratio(table, line, CHAIR_I[way])


def _true_removed(alone: pd.DataFrame, way: str) -> Iterator[pd.DataFrame]:
    """CHAIR_i of captions that a true object was taken out of, and of the same ones before."""
    some = alone[(alone["state"] == PRESENT) & (alone["is_listed"] | (way == NOUNS))]
    for line in LINES.values():
        of_line = some[some["line"] == line].set_index("image_id")
        if line == OWN and len(of_line):
            yield _ratio(_of_way(of_line, way, "before ").groupby("image_id").sum(), BEFORE, CHAIR_TRUE[way])
        if len(of_line):
            yield _ratio(_of_way(of_line, way).groupby("image_id").sum(), line, CHAIR_TRUE[way])


def _ratio(table: pd.DataFrame, line: str, quantity: str) -> pd.DataFrame:
    """The ratio of two sums over pictures, which weigh by what they name; no row where none names anything."""
    if not table["known"].any():
        return pd.DataFrame()
    mean, low, high = ratio_intervals(table[["wrong"]].to_numpy(float), table[["known"]].to_numpy(float))
    n = int((table["known"] > 0).sum())
    return pd.DataFrame({"line": line, "mean": mean, "low": low, "high": high, "n": n, "quantity": quantity})


def _means(rows: pd.DataFrame, value: str, quantity: str) -> pd.DataFrame:
    """Means within a picture, then over pictures, by line; empty without rows."""
    if rows.empty or rows[value].isna().all():
        return pd.DataFrame()
    return interval_table(rows, ["line"], value).assign(quantity=quantity)
