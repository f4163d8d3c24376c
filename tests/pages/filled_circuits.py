"""What `mmn circuits` would have found in the made-up run, with invented numbers: of two nouns, and of one picture."""

from itertools import pairwise

import pyarrow as pa

from mmn.names import ORIGINAL
from mmn.studies.circuits.tables import DIRECTIONS, IMAGE, NOUN, SELECTIONS, TEXT
from mmn.studies.tables import TABLES

K, SIZES = 5, (0, 1, 5, 16, 64)
KEPT_SHARES = {"circuit": (0.05, 0.4, 0.8, 0.9, 1.0), "another": (0.05, 0.1, 0.3, 0.6, 1.0)}
RANDOM_SHARES = (0.05, 0.05, 0.06, 0.2, 1.0)


def circuit_tables(rng, rows, n_layers, d_mlp):
    """All tables of three circuits."""
    said = [row for row in rows["concept"] if row["variant"] == ORIGINAL]
    picture = next(row["image_id"] for row in said if row["noun"] == "dog")
    found: dict[str, list[dict]] = {name: [] for name in TABLES if name.startswith("circuit")}
    for number, (noun, image_id) in enumerate((("dog", None), ("bus", None), ("dog", picture))):
        name = f"{number:08x}"
        pictures = [row["image_id"] for row in said if row["noun"] == noun]
        for table, of in _circuit(rng, noun, image_id, pictures, n_layers, d_mlp).items():
            found[table] += [row | {"circuit": name} for row in of]
    return {name: pa.Table.from_pylist(of, schema=TABLES[name]) for name, of in found.items()}


def _circuit(rng, noun, image_id, pictures, n_layers, d_mlp):
    units = [rng.sample(range(d_mlp), K) for _ in range(n_layers)]
    names = [[f"L{layer}.u{unit}" for unit in of] for layer, of in enumerate(units)]
    one = image_id is not None
    about = {"noun": noun, "rule": "rajaram", "image_id": image_id, "k": K, "n_found": 1 if one else 4}
    about |= {"n_judged": len(pictures), "n_mean": 20, "other_noun": "bus" if noun == "dog" else "dog"}
    about |= {"token": noun, "token_id": 7, "logit": 9.5, "prob": 0.95}
    about |= {"tokens": ["<image>"] * 4 + ["A"] if one else [], "image_at": [0, 1, 2, 3] if one else []}
    chain = [[IMAGE, TEXT], *names, [NOUN]]
    ends = [(source, target) for below, above in pairwise(chain) for source in below for target in above]
    ends += [(f"token:{place}", target) for place in range(5) for target in names[0]] if one else []
    return {
        "circuit": [about],
        "circuit_unit": [
            _unit(rng, layer, unit, place, one) for layer, of in enumerate(units) for place, unit in enumerate(of, 1)
        ],
        "circuit_edge": [_edge(rng, *pair) for pair in ends],
        "circuit_layer": [
            {"layer": layer, "through_attention": 0.2 * layer, "carried": 0.5} for layer in range(n_layers)
        ],
        "circuit_effect": [row for image in pictures for row in _effects(image, image != image_id)],
    }


def _unit(rng, layer, unit, place, one):
    told = {"layer": layer, "unit": unit, "place": place, "score": 2.0 / place, "effect": rng.uniform(-1, 2)}
    ends = {"effect_low": None, "effect_high": None, "position": 4 if one else None}
    return told | ends | {"at_image": rng.random(), "from_image": rng.random()}


def _edge(rng, source, target):
    weight = rng.uniform(-0.5, 1.0)
    ends = {"weight_low": None, "weight_high": None}
    told = {"source": source, "target": target, "weight": weight, "size": abs(weight) + 0.1}
    return told | ends | {"through_attention": rng.random()}


def _effects(image_id, is_held_out):
    found = []
    for selection in SELECTIONS:
        for draw in range(2 if selection == "random" else 1):
            for direction in DIRECTIONS:
                shares = KEPT_SHARES.get(selection, RANDOM_SHARES)
                told = shares if direction == "kept" else [1.05 - share for share in shares]
                key = {"image_id": image_id, "direction": direction, "selection": selection, "draw": draw}
                key |= {"is_held_out": is_held_out}
                found += [
                    key | {"size": size, "logit": 10 * share, "prob": min(1.0, share)}
                    for size, share in zip(SIZES, told, strict=True)
                ]
    return found
