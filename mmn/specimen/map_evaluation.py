"""How well a map captions: `python -m mmn.specimen.map_evaluation --model NAME --features DIR [--photos DIR]`.

Through the model that a user loads: fresh scenes in the gallery's style, in the other trained style and in one that
was never trained on; the same captions against other scenes (shuffled); and what a linear probe on the same features
finds. Of photographs, whose file names are to name what they show, whether the caption names it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from mmn.images.opening import open_image
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.specimen import DISPLAY_SIDE, MAP_PATHS
from mmn.specimen.evaluate import judge, objects_in
from mmn.specimen.features import Eye, cached_features, fresh_scenes, states_of
from mmn.specimen.probe import fit_probe, place_accuracy, probe_recall
from mmn.specimen.render import NOTO, SHEETS, render, to_image
from mmn.specimen.world import NOUNS, Scene

BATCH = 25
MOST_NEW = 30  # tokens
N_FITTED = 8000  # scenes that the probe is fitted on
SHIFT = 7  # a shuffled pair: the caption of the scene so many further on


def main() -> None:
    arguments = _parse_arguments()
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model)
    scenes = fresh_scenes("map", arguments.scenes)
    report: dict[str, Any] = {}
    for style in SHEETS:
        captions = caption(model, _pictures(scenes, style))
        report[style] = judge(captions, scenes)
        if style == NOTO:
            report["shuffled"] = judge(captions[SHIFT:] + captions[:SHIFT], scenes)
            report["examples"] = captions[:12]
    if arguments.features:
        report |= probes_of(arguments.features, scenes, has_finer=model.module.config.has_finer)
    if arguments.photos:
        report["photographs"] = photographs(model, arguments.photos)
    text = json.dumps(report, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


@torch.inference_mode()
def caption(model: Model, images: Sequence[Image.Image]) -> list[str]:
    """Greedy captions."""
    captions: list[str] = []
    for start in tqdm(range(0, len(images), BATCH), desc="captions", unit_scale=BATCH):
        inputs = model.encode(list(images[start : start + BATCH]), model.exact_prompt(model.default_prompt))
        output = model.module.generate(**inputs, do_sample=False, max_new_tokens=MOST_NEW)
        new = output[:, inputs["input_ids"].shape[1] :]
        captions += [text.strip() for text in model.tokenizer.batch_decode(new, skip_special_tokens=True)]
    return captions


def probes_of(folder: Path, scenes: list[Scene], *, has_finer: bool) -> dict[str, Any]:
    """Noun recall and place accuracy of linear probes, by style, and how many scenes they were fitted on."""
    features = cached_features(folder, N_FITTED, "train-0", has_finer=has_finer)
    eye = Eye(has_finer=has_finer)
    probe, states = fit_probe(features), {style: states_of(eye, scenes, style) for style in SHEETS}
    recall = {style: probe_recall(probe, seen, scenes) for style, seen in states.items()}
    return {"probe": recall, "place_probe": place_accuracy(features, states, scenes), "n_probe": N_FITTED}


def photographs(model: Model, folder: Path) -> dict[str, Any]:
    """Of the photographs whose file name ends in a noun of the world: named by their caption, or by another's."""
    files = [file for file in sorted(folder.iterdir()) if _named(file)]
    captions = caption(model, [open_image(file).convert("RGB") for file in files])
    said = [objects_in(text) for text in captions]
    right = [_named(file) in names for file, names in zip(files, said, strict=True)]
    chance = sum(_named(file) in names for file in files for names in said) / len(files)
    told = {file.name: text for file, text in zip(files, captions, strict=True)}
    return {"n": len(files), "named": sum(right), "named_by_chance": chance, "captions": told}


def _named(file: Path) -> str | None:
    """The noun that a file's name ends in: `reflex_camera.jpg` shows a camera."""
    last = re.split(r"[^a-z]+", file.stem.lower())[-1]
    return next((noun for noun in NOUNS if last == noun), None)


def _pictures(scenes: list[Scene], style: str) -> list[Image.Image]:
    batches = [scenes[start : start + BATCH] for start in range(0, len(scenes), BATCH)]
    return [to_image(one) for batch in batches for one in render(batch, DISPLAY_SIDE, style=style).pictures]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mmn.specimen.map_evaluation", description="Evaluate the map.")
    parser.add_argument("--model", choices=MAP_PATHS, required=True)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--features", type=Path, help="folder of training features, for the probe")
    parser.add_argument("--photos", type=Path, help="folder of photographs whose file names name what they show")
    parser.add_argument("--out", type=Path, help="file that the report is written to, too")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
