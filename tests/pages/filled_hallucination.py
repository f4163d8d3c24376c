"""What `mmn hallucination --project-away` would have found in the made-up run, with invented numbers."""

import random

import pyarrow as pa

from mmn.names import ORIGINAL
from mmn.studies.hallucination.tables import DIRECTIONS, READOUTS
from mmn.studies.tables import TABLES

NAMES = ("confidence", "object_truth", "object_map", "projected_away")


def hallucination_tables(rows, objects, n_tokens):
    """A caption's first noun is there and its second is not; image tokens are surer of the first, most of the time."""
    rng = random.Random(0)
    found: dict[str, list[dict]] = {name: [] for name in NAMES}
    for image in rows["image"]:
        key = {"image_id": image["image_id"]}
        said = [one for one in rows["concept"] if one["image_id"] == key["image_id"] and one["variant"] == ORIGINAL]
        first, second = (one["lemma"] for one in said)
        truth = {"revision": 1, "version": "0" * 16, "outlined": [first, second], "mentioned": [first]}
        found["object_truth"].append(key | truth | {"outlined": None})
        for readout in READOUTS:
            of = key | {"readout": readout}
            found["confidence"] += [_confidence(rng, of, name, first, second) for name in objects]
            found["object_map"] += [_map(rng, of, name, n_tokens) for name in (first, second)]
        found["projected_away"] += [
            _edited(key, removed, direction, first, second) for removed in (first, second) for direction in DIRECTIONS
        ]
    return {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in found.items()}


def _confidence(rng, key, name, first, second):
    sure = 0.3 if name == first else 0.02 if name == second else 0.001
    return key | {
        "object": name,
        "confidence": min(1.0, sure * rng.lognormvariate(0, 1)),
        "layer": rng.choice((None, 0, 3)),
        "token_position": 0,
    }


def _map(rng, key, name, n_tokens):
    fits = {"iou": 0.4, "iou_other": 0.2, "iou_best": 0.9, "precision": 0.6, "precision_other": 0.3}
    fits = {what: value * rng.uniform(0.8, 1.1) for what, value in fits.items()}
    scores = [rng.uniform(0.0, 0.5) for _ in range(n_tokens)]
    return key | {"object": name, "revision": 1, "scores": scores, "precision_chance": 0.25} | fits


def _edited(key, removed, direction, first, second):
    kept = [one for one in (first, second) if direction != "object" or one != removed]
    setting = {"alpha": 1.5, "text_layer": 0, "image_layer": 0, "revision": 1, "version": "0" * 16}
    text = f"a {' and a '.join(kept)}."
    return key | setting | {"removed": removed, "direction": direction, "caption": text, "nouns": kept, "compounds": []}
