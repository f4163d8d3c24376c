"""What `mmn projector` would have found in the made-up run, with invented numbers."""

import pyarrow as pa

from mmn.studies.tables import TABLES

WIDTHS = {"before": 8, "after": 6}


def projector_tables(rng, rows, n_layers, d_mlp):
    """Tables of all pictures; the vectors tell how many references there are, so that a probe finds something."""
    found: dict[str, list[dict]] = {"projector_mean": [], "modality": [], "modality_unit": []}
    for image in rows["image"]:
        key = {"image_id": image["image_id"]}
        for stage, width in WIDTHS.items():
            vector = [rng.gauss(len(image["reference"]), 0.5) for at in range(width)]
            found["projector_mean"].append(key | {"stage": stage, "vector": vector})
        for layer in (None, *range(n_layers)):
            found["modality"].append(key | {"layer": layer} | _cosines(rng, layer))
        for layer in range(n_layers):
            for share in (0.01, 0.1):
                told = {"iou": rng.random(), "iou_other": rng.random() / 2, "chance": share / 2}
                of = {"layer": layer, "share": share, "n_units": max(1, round(share * d_mlp))}
                found["modality_unit"].append(key | of | told)
    return {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in found.items()}


def _cosines(rng, layer):
    names = ("image_text", "image_text_other", "image_image", "text_text")
    following = {name: None if layer is None else 0.9 + rng.random() / 20 for name in ("image_next", "text_next")}
    return {name: rng.uniform(-0.2, 0.6) for name in names} | following
