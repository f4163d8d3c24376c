"""What `mmn patchscopes` would have found in the made-up run, with invented numbers."""

import pyarrow as pa

from mmn.names import ORIGINAL
from mmn.studies.tables import TABLES

SETTINGS = ("identity, same layer", "identity, layer 1")
N_IMAGE_TOKENS = 3


def patchscope_tables(rng, rows, n_layers, n_images=10):
    """Tables of the first pictures: nouns are read better in later layers, controls never."""
    found: dict[str, list[dict]] = {"patchscope": [], "patchscope_word": [], "neighbour": []}
    for image in rows["image"][:n_images]:
        image_id = image["image_id"]
        said = [one for one in rows["concept"] if one["image_id"] == image_id and one["variant"] == ORIGINAL]
        for layer in range(n_layers):
            for reading in ("patch", "lens", "other", "random"):
                for setting in SETTINGS if reading != "lens" else ("",):
                    key = {"image_id": image_id, "reading": reading, "setting": setting, "layer": layer}
                    found["patchscope"] += _readings(rng, key, said, layer / (n_layers - 1))
                    if reading in ("patch", "lens"):
                        found["patchscope_word"] += _words(rng, key, said)
            for reading in ("image", "other"):
                key = {"image_id": image_id, "reading": reading, "layer": layer}
                found["neighbour"] += [_company(rng, key, at) for at in range(N_IMAGE_TOKENS)]
    return {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in found.items()}


def _readings(rng, key, said, share):
    is_own = key["reading"] in ("patch", "lens")
    for one in said:
        is_top = is_own and rng.random() < share
        told = {"noun": one["noun"], "surprisal": 9 - 8 * share * is_own + rng.random(), "is_top": is_top}
        yield key | told | {"source": "noun", "token_position": one["position"]}
        for at in range(N_IMAGE_TOKENS):
            yield key | told | {"source": "image", "token_position": at, "is_top": is_top and at == 0}


def _words(rng, key, said):
    places = [("noun", one["position"]) for one in said] + [("image", at) for at in range(N_IMAGE_TOKENS)]
    for source, place in places:
        scores = sorted((rng.random() for _ in range(5)), reverse=True)
        told = {"tokens": ["dog", "<x>", "bus", "the", "a"], "scores": scores, "said": None}
        yield key | {"source": source, "token_position": place} | told


def _company(rng, key, at):
    scores = sorted((rng.random() for _ in range(5)), reverse=True)
    told = {
        "words": ["dog", "<x>", "bus", "the", "a"],
        "contexts": ["a dog on the <b>grass</b>."] * 5,
        "scores": scores,
    }
    judged = {"is_match": rng.random() < 0.4, "is_any_match": True, "chance": 0.1, "chance_any": 0.41}
    return key | {"token_position": at} | told | judged
