"""What `mmn dictionaries` and `mmn shift` would have found in the made-up run, with invented numbers."""

import pyarrow as pa

from mmn.names import ORIGINAL
from mmn.studies.tables import TABLES

OTHER = "77aa000000000000"
WORDS = ("sea", "sand", "<script>", "a_b*c*", "[x](http://y)")
NAMES = (("semi-nmf", "final"), ("k-means", "units"))


def dictionary_tables(rng, rows, n_layers):
    """Tables of the dictionaries of two nouns, and of what another model changed in them."""
    said = [row for row in rows["concept"] if row["variant"] == ORIGINAL]
    nouns = sorted({row["lemma"] for row in said})[:2]
    ids = {noun: [row["image_id"] for row in said if row["lemma"] == noun] for noun in nouns}
    everywhere = sorted({row["image_id"] for row in said})
    found: dict[str, list[dict]] = {}
    for noun in nouns:
        for kind, site in NAMES:
            _add(found, _dictionary(rng, noun, kind, site, ids[noun], everywhere))
        _add(found, _shift(rng, noun, ids[noun], everywhere, n_layers))
    return {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in found.items()}


def _add(found, tables):
    for name, rows in tables.items():
        found.setdefault(name, []).extend(rows)


def _dictionary(rng, noun, kind, site, ids, everywhere):
    key = {"noun": noun, "dictionary": f"{kind}:{site}:k20:n200"}
    about = {"kind": kind, "site": site, "k": 3, "n_fit": 12, "n_test": 10, "explained": 0.8, "explained_test": 0.6}
    units = {"layers": [0, 2], "units": [1, 7], "weights": [0.6, -0.4], "direction": []}
    no_units = {"layers": [], "units": [], "weights": [], "direction": [1.0, 0.5]}
    return {
        "dictionary": [key | about | {"word_overlap": 0.5, "word_overlap_random": 0.1}],
        "dictionary_concept": [
            key
            | {"concept": concept, "led": 0.4, "led_test": 0.3, "words": [noun, *WORDS[: 4 - concept]]}
            | {"logits": [1.0] * (5 - concept), "images": ids[:3], "coefficients": [3.0, 2.0, 1.0][: len(ids)]}
            | (units if site == "units" else no_units)
            for concept in range(3)
        ],
        "dictionary_test": [
            key
            | {"image_id": image_id, "metric": metric, "top": top, "concept": number % 3}
            | {"value": 0.5 + 0.1 * rng.random(), "any_concept": 0.4, "random": 0.2}
            for metric in ("lexical-v1:caption", "lexical-v1:reference")
            for top in (1, 3)
            for number, image_id in enumerate(everywhere[:10])
        ],
    }


def _shift(rng, noun, ids, everywhere, n_layers):
    key = {"other": OTHER, "noun": noun, "site": "final"}
    cosines = {"cosine": 0.7, "cosine_shifted": 0.9, "cosine_random": 0.65, "cosine_other": 0.8}
    words = {name: list(WORDS[:3]) for name in ("words", "words_shifted", "words_other", "words_delta")}
    return {
        "shift": [key | {"k": 2, "n_images": 12, "alpha": 1.0, "column_cosine": 0.95, "n_columns_changed": 20}],
        "shift_concept": [
            key | {"concept": concept, "n_images": 6, "images": ids[:2]} | cosines | words for concept in range(2)
        ],
        "shift_picture": [
            key | {"image_id": image_id, "concept": 0} | cosines | {"cosine_shifted": 0.8 + 0.1 * rng.random()}
            for image_id in everywhere[:12]
        ],
        "shift_layer": [
            key | {"image_id": image_id, "layer": layer, "change": 0.1 * rng.random(), "change_control": 0.5}
            for image_id in everywhere[:12]
            for layer in range(n_layers)
        ],
        "shift_unit": [
            key
            | {"layer": 1, "unit": unit, "rank": unit + 1, "written": 1.0 / (unit + 1), "noise": 0.1}
            | {"column_change": 0.2, "activation": 1.0, "activation_other": 1.5, "low": 0.4, "high": 0.6}
            | {"tokens": list(WORDS), "tokens_other": list(WORDS)}
            for unit in range(3)
        ],
    }
