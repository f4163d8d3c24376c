"""Made-up rows of effect, edit and their controls for the run that `filled.fill_whole` makes."""

import json
from datetime import datetime

import pyarrow as pa

from mmn.names import ABLATE, COLUMN_NORM, EVERYWHERE, ORIGINAL, PERTURB, SCALE
from mmn.studies.tables import TABLES

KS = (0, 3, 26, 64)
SIGMAS = (0.5, 1.0)
FACTORS = (0.5, 2.0)
SELECTED = (("top", 0), ("interpretable", 0), ("another", 0), ("random", 0), ("random", 1))
TEXTS = {"plain": 9.0, "captions": 2.0}  # nats per token of the untouched model
EDIT_IDS = ("aa0000000001", "bb0000000002", "cc0000000003")
METRIC = "word-f1-v1"


def effect_tables(rows, methods, d_mlp):
    """Tables of a shard about a run with these `rows`: top units take the probability away, random ones little."""
    said = [row for row in rows["concept"] if row["variant"] == ORIGINAL]
    texts = {row["image_id"]: row["text"] for row in rows["caption"] if row["variant"] == ORIGINAL}
    effects = [row for method in methods[:2] for one in said for row in _effects(one, method, texts, said)]
    found = {
        "effect": effects,
        "noun_share": [_named(row, "noun_share") | {"n_nouns": 9, "noun_share": row["prob"] / 2} for row in effects],
        "perplexity": [_read(row, text) for row in effects if not row["draw"] for text in TEXTS],
        "edited_text": [
            {"edit_id": edit_id, "text": text, "n_tokens": 90, "nats_before": nats, "nats_after": nats + 0.25}
            for edit_id in EDIT_IDS
            for text, nats in TEXTS.items()
        ],
        "edit": [_edit(edit_id, said[0]["noun"], d_mlp) for edit_id in EDIT_IDS],
        "edited_caption": [row for edit_id in EDIT_IDS for row in _edited(edit_id, said, texts)],
    }
    return {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in found.items()}


def _named(row, table):
    """The columns of a row that another table has, too."""
    return {name: row[name] for name in TABLES[table].names if name in row}


def _read(row, text):
    """Text suffers by a tenth as much as the noun."""
    nats = TEXTS[text] + (row["k"] * (row["sigma"] or 1) / 200 if row["selection"] != "random" else 0)
    return _named(row, "perplexity") | {"text": text, "n_tokens": 90, "nats": nats}


def _effects(said, method, texts, every):
    elsewhere = [one for one in every if one["noun"] != said["noun"] and one["image_id"] != said["image_id"]]
    for selection, draw in SELECTED:
        other = elsewhere[0] if selection == "another" else None
        for k in KS:
            if k or not draw:
                yield _effect(said, method, texts, ABLATE, selection, draw, k, None, other)
            for sigma in SIGMAS if selection != "interpretable" and (k or not draw) else ():
                yield _effect(said, method, texts, PERTURB, selection, draw, k, sigma, other)
            for factor in FACTORS if selection != "interpretable" and k else ():
                yield _effect(said, method, texts, SCALE, selection, draw, k, None, other, factor)


def _effect(said, method, texts, kind, selection, draw, k, sigma, other, factor=None):
    amount = k * (sigma or 1) * (1 if factor is None else abs(1 - factor))
    left = {"random": 1 - amount / 1000, "another": 1 - amount / 320}.get(selection, 1 / (1 + amount / 20))
    is_lost = left < 0.5
    text = texts[said["image_id"]]
    return {
        "image_id": said["image_id"],
        "variant": ORIGINAL,
        "noun": said["noun"],
        "kind": kind,
        "selection": selection,
        "method": method,
        "k": k,
        "sigma": sigma,
        "sigma_unit": COLUMN_NORM if sigma else None,
        "draw": draw,
        "positions": EVERYWHERE,
        "factor": factor,
        "other_image_id": None if other is None else other["image_id"],
        "other_noun": None if other is None else other["noun"],
        "logit": said["logit"] * left,
        "prob": said["prob"] * left,
        "caption": text.replace(said["noun"], "thing") if is_lost else text,
        "similarity": 0.75 if is_lost else 1.0,
        "metric": METRIC,
        "is_lost": is_lost,
    }


def _edit(edit_id, noun, d_mlp):
    algorithm, selection, units = {
        EDIT_IDS[0]: ("p2", "top", [[3, 1], [3, 2], [2, 5]]),
        EDIT_IDS[1]: ("p2", "random", [[0, 7], [1, 9], [3, 3]]),
        EDIT_IDS[2]: ("rank-one", "top", [[3, unit] for unit in range(d_mlp)]),
    }[edit_id]
    shares = {"efficacy": 1.0, "generalisation": 0.5, "locality": 0.75}
    if selection == "random":
        shares = {"efficacy": 0.0, "generalisation": 0.0, "locality": 1.0}
    checksums = {"checksum_before": "c0ffee", "checksum_edited": "beef", "checksum_after_undo": "c0ffee"}
    return {
        "edit_id": edit_id,
        "created_at": datetime.fromisoformat("2026-11-21T11:00:00"),
        "algorithm": algorithm,
        "selection": selection,
        "method": "contribution" if algorithm == "p2" else None,
        "noun": noun,
        "target": "boat",
        "units": json.dumps(units),
        "settings": json.dumps({"stopped_by": "success", **checksums}),
        "fingerprint_before": "a" * 16,
        "fingerprint_after": "b" * 16,
        "relative_norm": 0.35,
        "fluency": 3.5,
        "fluency_before": 3.6,
    } | shares


def _edited(edit_id, said, texts):
    noun = said[0]["noun"]
    of_noun = [row["image_id"] for row in said if row["noun"] == noun]
    others = [image_id for image_id in texts if image_id not in of_noun]
    roles = [(image_id, "edited" if place == 0 else "other") for place, image_id in enumerate(of_noun)]
    works = edit_id != EDIT_IDS[1]
    for place, (image_id, role) in enumerate([*roles, *((one, "unrelated") for one in others[:4])]):
        is_said = works and (role == "edited" or (role == "other" and place % 2 == 0))
        text = texts[image_id]
        after = text.replace(noun, "boat") if is_said else text
        after = "a strange thing." if works and role == "unrelated" and place % 4 == 0 else after
        yield {
            "edit_id": edit_id,
            "image_id": image_id,
            "role": role,
            "text_before": text,
            "text_after": after,
            "prob_before": None if role == "unrelated" else 0.01,
            "prob_after": None if role == "unrelated" else 0.8 if is_said else 0.02,
            "is_as_wished": after == text if role == "unrelated" else is_said,
        }
