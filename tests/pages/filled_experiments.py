"""Made-up rows of invariance, specificity and sensitivity for the run that `filled.fill_whole` makes."""

import pyarrow as pa

from mmn.names import ORIGINAL
from mmn.studies.tables import TABLES

KS = (1, 10, 40)
SHUFFLED = ("shuffled-0", "shuffled-1")
KINDS = (("held-out", False), ("held-out", True), ("same", False), ("shuffled", True))
METRICS = ("word-f1-v1", "clip-text-v1")


def experiment_tables(rng, rows, methods, n_layers, d_mlp):
    """Tables of a shard about a run with these `rows` of concept and score; every second noun survives shuffling."""
    said = [row for row in rows["concept"] if row["variant"] == ORIGINAL]
    scores = [row for row in rows["score"] if row["variant"] == ORIGINAL]
    measured = [method for method in methods if method != "random"]
    found = {
        "caption": [
            row | {"variant": variant} for row in rows["caption"] if row["variant"] == ORIGINAL for variant in SHUFFLED
        ],
        "concept": [row | {"variant": variant} for row in said if row["position"] == 0 for variant in SHUFFLED],
        "score": _shuffled(said, scores),
        "invariance": _region(rng, said, measured, n_layers * d_mlp) + _cross_image(rng, said, measured),
        "shared_layer": _shared_layers(said, measured, n_layers),
        "specificity": [row for method in measured for row in _specificity(rng, said, scores, method)],
        "selectivity": [row for method in measured for row in _selectivity(rng, said, method)],
        "class_activation": [row for method in measured for row in _class_activation(rng, said, method)],
        "sensitivity": _sensitivity(rng, said, measured),
        "module": [row for one in said for row in _modules(rng, one, n_layers)],
    }
    return {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in found.items()}


def _modules(rng, said, n_layers):
    key = {"image_id": said["image_id"], "noun": said["noun"]}
    return [
        key | {"is_control": is_control, "layer": layer, "part": part, "value": rng.gauss(2, 3), "prob": rng.random()}
        for is_control in (False, True)
        for layer in range(n_layers)
        for part in ("attention", "ffn")
    ]


def _shuffled(said, scores):
    """The first nouns' rankings without every third unit."""
    first = {(row["image_id"], row["noun"]) for row in said if row["position"] == 0}
    kept = [row for row in scores if (row["image_id"], row["noun"]) in first and row["rank"] > 0 and row["rank"] % 3]
    return [row | {"variant": variant} for row in kept for variant in SHUFFLED]


def _region(rng, said, methods, n_units):
    return [
        {
            "image_id": row["image_id"],
            "kind": "region",
            "noun": row["noun"],
            "method": method,
            "k": k,
            "draw": draw,
            "ratio": min(1.0, 0.6 + 0.005 * k + 0.1 * rng.random()),
            "floor_other_noun": 0.1 + 0.005 * k,
            "floor_random": k / n_units,
            "n": 1,
        }
        for row in said
        if row["position"] == 0
        for method in methods
        for k in KS
        for draw in range(len(SHUFFLED))
    ]


def _cross_image(rng, said, methods):
    return [
        {
            "image_id": None,
            "kind": "cross-image",
            "noun": lemma,
            "method": method,
            "k": 40,
            "draw": draw,
            "ratio": 0.3 + 0.2 * rng.random(),
            "floor_other_noun": None,
            "floor_random": 0.02,
            "n": 5,
        }
        for lemma in sorted({row["lemma"] for row in said})
        for method in methods
        for draw in range(4)
    ]


def _shared_layers(said, methods, n_layers):
    """Twelve of the top 40 in the last layer, four in the one before."""
    return [
        {"noun": lemma, "method": method, "k": 40, "draw": draw, "n": 5, "layer": layer, "n_shared": n, "n_random": 0.4}
        for lemma in sorted({row["lemma"] for row in said})
        for method in methods
        for draw in range(4)
        for layer, n in ((n_layers - 2, 4), (n_layers - 1, 12))
    ]


def _specificity(rng, said, scores, method):
    top = {(row["image_id"], row["noun"]): row for row in scores if row["method"] == method and row["rank"] == 1}
    nouns_of: dict[str, list[str]] = {}
    for row in said:
        nouns_of.setdefault(row["image_id"], []).append(row["noun"])
    found = []
    for image_id, nouns in nouns_of.items():
        for unit_noun in nouns:
            best = top[image_id, unit_noun]
            for selection, is_control in KINDS:
                for noun in nouns:
                    is_high = noun == unit_noun and (not is_control or selection == "shuffled")
                    share = (0.8 if selection == "held-out" else 1.0) if is_high else rng.uniform(-0.2, 0.2)
                    unit = {"layer": best["layer"], "unit": best["unit"] + is_control, "is_control": is_control}
                    told = {"image_id": image_id, "unit_noun": unit_noun, "noun": noun, "method": method}
                    told |= {"selection": selection, "found_on": "other" if selection == "held-out" else None}
                    found.append(told | unit | {"score": share * best["score"], "share": share})
    return found


def _selectivity(rng, said, method):
    classes = sorted({row["lemma"] for row in said})[:4]
    return [
        {
            "unit_noun": one,
            "noun": other,
            "method": method,
            "is_control": is_control,
            "value": 1.0 if one == other and not is_control else 0.5,
            "share": 1.0 if one == other and not is_control else 0.3 + 0.3 * rng.random(),
            "n_units": 20,
            "n_images": 5,
            "held_out": 5,
        }
        for one in classes
        for other in classes
        for is_control in (False, True)
    ]


def _class_activation(rng, said, method):
    """Units more active in the last five pictures that say their noun than in others; random ones alike in all."""
    classes = sorted({row["lemma"] for row in said})[:4]
    pictures = sorted({row["image_id"] for row in said})
    of = {one: [row["image_id"] for row in said if row["lemma"] == one][-5:] for one in classes}
    key = {"method": method, "n_units": 20, "held_out": 5}
    return [
        key
        | {"unit_noun": one, "is_control": is_control, "image_id": image_id, "is_own": image_id in of[one]}
        | {"value": (1.0 if image_id in of[one] and not is_control else 0.5) + 0.1 * rng.random()}
        for one in classes
        for image_id in pictures
        for is_control in (False, True)
    ]


def _sensitivity(rng, said, methods):
    return [
        {
            "image_id": row["image_id"],
            "noun": row["noun"],
            "method": method,
            "metric": metric,
            "value": 0.4 + 0.1 * rng.random(),
            "control": 0.3 + 0.1 * rng.random(),
            "control_blank": 0.35,
        }
        for row in said
        for method in methods
        for metric in METRICS
    ]
