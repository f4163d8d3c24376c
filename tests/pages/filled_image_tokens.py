"""What `mmn image-tokens` would have found in the made-up run, with invented numbers; every second noun is outlined."""

import pyarrow as pa

from mmn.names import ORIGINAL
from mmn.studies.image_tokens.blocking import PAIRS
from mmn.studies.image_tokens.tables import ALL, GRADIENTS_OF_SIZE, LAST_ROW, REGISTERS, TOKEN_SETS
from mmn.studies.image_tokens.windows import layer_windows
from mmn.studies.tables import TABLES

SIZES = (0.05, 0.1, 0.2, 0.4)
OF_ANY_NOUN = (REGISTERS, GRADIENTS_OF_SIZE, ALL, LAST_ROW)


def image_token_tables(rng, rows, n_layers, n_tokens):
    """Tables of a shard about a run with these `rows` of concept."""
    said = [row for row in rows["concept"] if row["variant"] == ORIGINAL]
    found: dict[str, list[dict]] = {"token_loss": [], "knockout": []}
    for concept in said:
        key = {"image_id": concept["image_id"], "noun": concept["noun"], "revision": 0, "question": "0" * 12}
        key |= {"n_image_tokens": n_tokens}
        for name in TOKEN_SETS:
            if concept["position"] == 0 or name in OF_ANY_NOUN:
                found["token_loss"] += [key | row for row in _replaced(rng, name, n_tokens)]
        for source, target in PAIRS:
            if concept["position"] == 0 or source in OF_ANY_NOUN:
                found["knockout"] += [key | row for row in _blocked(rng, source, target, n_layers)]
    return {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in found.items()}


def _replaced(rng, name, n_tokens):
    sizes = SIZES if name == GRADIENTS_OF_SIZE else (None,)
    for number, size in enumerate(sizes, start=1):
        n = n_tokens if name == ALL else number
        row = {"token_set": name, "size": size, "n_tokens": n, "residual": 1e-4 if "gradients" in name else None}
        yield row | _outcome(rng, 0.2 * number + 0.2, has_control=name != ALL)


def _blocked(rng, source, target, n_layers):
    for window, layers in layer_windows(n_layers).items():
        row = {"source": source, "target": target, "layer_window": window, "n_tokens": 1}
        row |= {"first_layer": layers[0], "last_layer": layers[-1]}
        yield row | _outcome(rng, 0.1 * len(layers), has_control=source != ALL)


def _outcome(rng, lost, *, has_control):
    prob = max(0.0, 0.9 - lost * rng.uniform(0.6, 1.2))
    none = dict.fromkeys(("control_prob", "control_wrong")) | {"n_draws": 0}
    beside = {"control_prob": 0.85, "control_wrong": 0.1, "n_draws": 3} if has_control else none
    return {"baseline_prob": 0.9, "prob": prob, "is_right": True, "is_wrong": prob < 0.5} | beside
