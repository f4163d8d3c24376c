"""What `mmn lens` would have found in the made-up run, with invented numbers."""

import pyarrow as pa

from mmn.studies.tables import TABLES

WORDS = ("dog", "bus", "the", "sky", "<x>")


def lens_tables(rng, rows, n_layers, n_tokens, n_images=4):
    """Table `lens` of the first pictures: nearest words, the lens after every layer, the nouns, and random vectors."""
    found = [_row(None, "random", None, at, WORDS, _falling(rng)) for at in range(8)]
    for image in rows["image"][:n_images]:
        image_id = image["image_id"]
        nouns = [one["noun"] for one in rows["concept"] if one["image_id"] == image_id and one["variant"] == "original"]
        for at in range(n_tokens):
            found.append(_row(image_id, "nearest", None, at, WORDS, _falling(rng)))
            for layer in range(n_layers):
                scores = _falling(rng)
                found.append(_row(image_id, "logit-lens", layer, at, rng.sample(WORDS, 5), scores))
                probs = [scores[0] if at == number else 0.01 for number in range(len(nouns))]
                found.append(_row(image_id, "nouns", layer, at, nouns, probs))
    return {"lens": pa.Table.from_pylist(found, schema=TABLES["lens"])}


def _row(image_id, kind, layer, at, tokens, scores):
    key = {"image_id": image_id, "kind": kind, "layer": layer, "token_position": at}
    return key | {"tokens": list(tokens), "scores": list(scores)}


def _falling(rng):
    return sorted((rng.uniform(0.05, 0.6) for _ in WORDS), reverse=True)
