"""Trains the specimen from scratch: `python -m mmn.specimen.train [specimen|specimen-frozen]`.

Three stages, each from scenes or sentences that are drawn afresh for every batch:

1. text      the language model alone, on captions, category facts and bags of words followed by their caption;
             it learns to speak, and what belongs together, before it sees anything
2. vision    the picture encoder alone: which object (or which place) covers each patch, known from the masks
3. together  everything, on captions of pictures, the patch task of stage 2 kept as a small second loss

`specimen-frozen` is P1's situation: no unit that is scored ever learned from a picture. It takes the eye of the
finished specimen and a language model of stage 1, and learns to read:

2. frozen    attention, norms and projector; feed-forward layers, embeddings and unembedding stay as text made them

Everything is drawn from `--seed`. A GPU is used when there is one. At the end the model is saved in float16, loaded
again the way a user loads it, and evaluated on 500 fresh scenes through the real processor (see `evaluate.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from mmn.specimen import MODEL_PATHS
from mmn.specimen.build import GRID_SIDE, PATCH_SIDE, PICTURE_SIDE, PROMPT, WIDTH, build_model, build_processor
from mmn.specimen.evaluate import evaluate
from mmn.specimen.render import render
from mmn.specimen.tokenizer import BOS, EOS, build_tokenizer
from mmn.specimen.world import CATEGORY, NOUNS, PLACES, Scene, caption_of, plural, sample_scene, with_article

PATCH_CLASSES = (*NOUNS, *PLACES)
COVERED_FROM = 0.25  # share of a patch that an object must cover to be the patch's class
PATCH_LOSS_WEIGHT = 0.2
IGNORED = -100
CHECKPOINT_EVERY = 500  # steps


@dataclass(frozen=True)
class Stage:
    name: str
    n_steps: int
    batch_size: int
    peak_rate: float


TEXT = Stage("text", n_steps=800, batch_size=64, peak_rate=2e-3)
VISION = Stage("vision", n_steps=1500, batch_size=64, peak_rate=1e-3)
RECIPES = {
    "specimen": (TEXT, VISION, Stage("together", n_steps=5000, batch_size=64, peak_rate=8e-4)),
    "specimen-frozen": (TEXT, Stage("frozen", n_steps=2500, batch_size=48, peak_rate=1.5e-3)),
}


@dataclass(frozen=True)
class Trainee:
    """What is trained, and with what: `patch_head` is dropped when the model is saved."""

    model: LlavaForConditionalGeneration
    patch_head: nn.Linear
    tokenizer: PreTrainedTokenizerFast
    rng: random.Random

    @property
    def device(self) -> torch.device:
        return self.patch_head.weight.device


def main() -> None:
    arguments = _parse_arguments()
    stages = RECIPES[arguments.recipe]
    out = arguments.out or MODEL_PATHS[arguments.recipe]
    torch.manual_seed(arguments.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer).to(arguments.device)
    model.set_attn_implementation("eager")  # on a CPU, at this size, 2.4 times faster per step than the fused kernel
    patch_head = nn.Linear(WIDTH, len(PATCH_CLASSES)).to(arguments.device)
    trainee = Trainee(model, patch_head, tokenizer, random.Random(f"train-{arguments.seed}"))
    minutes = {}
    for stage in stages:
        started = time.monotonic()
        run_stage(trainee, stage, arguments.scale, checkpoint=lambda: save(trainee, out))
        minutes[stage.name] = round((time.monotonic() - started) / 60, 1)
    report = {
        "evaluation": evaluate(out, n_scenes=500, seed=arguments.seed + 1),
        "minutes": minutes,
        "stages": [asdict(stage) for stage in stages],
        "scale": arguments.scale,
        "seed": arguments.seed,
    }
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def run_stage(trainee: Trainee, stage: Stage, scale: float, checkpoint: Callable[[], None]) -> None:
    """Trains what the stage trains, for `scale` times its steps: AdamW, clip 1, warm-up, cosine to 3 %."""
    loss_of, modules = {
        "text": (text_loss, [trainee.model.model.language_model, trainee.model.lm_head]),
        "vision": (vision_loss, [trainee.model.model.vision_tower, trainee.patch_head]),
        "together": (together_loss, [trainee.model, trainee.patch_head]),
        "frozen": (frozen_loss, [trainee.model]),
    }[stage.name]
    if stage.name == "frozen":
        _freeze(trainee.model)
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=stage.peak_rate, betas=(0.9, 0.98), weight_decay=0.05)
    n_steps = max(1, round(stage.n_steps * scale))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_then_cosine(n_steps))
    is_half_fast = _is_bfloat16_faster(trainee.device)
    trainee.model.train()
    progress = tqdm(range(n_steps), desc=stage.name, mininterval=5)
    for step in progress:
        with torch.autocast(trainee.device.type, dtype=torch.bfloat16, enabled=is_half_fast):
            loss = loss_of(trainee, stage.batch_size)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")
        if step % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1 or step == n_steps - 1:
            checkpoint()


def _freeze(model: LlavaForConditionalGeneration) -> None:
    """Gives the model the specimen's eye; from now on its projector and its text's attention and norms train."""
    weights = load_file(MODEL_PATHS["specimen"] / "model.safetensors")
    of_eye = {name.partition("vision_tower.")[2]: value for name, value in weights.items() if "vision_tower." in name}
    model.model.vision_tower.load_state_dict(of_eye)
    layers = model.model.language_model.layers
    for part in (model.model.vision_tower, model.lm_head, model.get_input_embeddings(), *(la.mlp for la in layers)):
        part.requires_grad_(False)


def save(trainee: Trainee, path: Path) -> None:
    """Writes the folder that `AutoModelForImageTextToText` and `AutoProcessor` load, in float16."""
    half = build_model(trainee.tokenizer).half()
    half.load_state_dict(trainee.model.state_dict())
    half.generation_config.max_new_tokens = 30
    half.save_pretrained(path)
    build_processor(trainee.tokenizer).save_pretrained(path)


def text_loss(trainee: Trainee, batch_size: int) -> Tensor:
    ids, labels = _encode(trainee, [("", sentence) for sentence in _take(sentences(trainee.rng), batch_size)])
    hidden = trainee.model.model.language_model(input_ids=ids).last_hidden_state
    return _next_token_loss(trainee.model.lm_head(hidden), labels)


def vision_loss(trainee: Trainee, batch_size: int) -> Tensor:
    pixels, patch_classes = _pictures(trainee, [sample_scene(trainee.rng) for _ in range(batch_size)])
    return _patch_loss(trainee, _patches(trainee, pixels), patch_classes)


def together_loss(trainee: Trainee, batch_size: int) -> Tensor:
    scenes = [sample_scene(trainee.rng) for _ in range(batch_size)]
    pixels, patch_classes = _pictures(trainee, scenes)
    patches = _patches(trainee, pixels)
    return _caption_loss(trainee, patches, scenes) + PATCH_LOSS_WEIGHT * _patch_loss(trainee, patches, patch_classes)


def frozen_loss(trainee: Trainee, batch_size: int) -> Tensor:
    scenes = [sample_scene(trainee.rng) for _ in range(batch_size)]
    pixels, _ = _pictures(trainee, scenes)
    return _caption_loss(trainee, _patches(trainee, pixels), scenes)


def _caption_loss(trainee: Trainee, patches: Float[Tensor, "batch patches width"], scenes: list[Scene]) -> Tensor:
    ids, labels = _encode(trainee, [(PROMPT, caption_of(scene)) for scene in scenes])
    text = trainee.model.get_input_embeddings()(ids)
    image = trainee.model.model.multi_modal_projector(patches).to(text.dtype)
    embeddings = torch.cat([text[:, :1], image, text[:, 1:]], dim=1)  # <s>, picture, prompt, caption
    hidden = trainee.model.model.language_model(inputs_embeds=embeddings).last_hidden_state
    hidden = torch.cat([hidden[:, :1], hidden[:, 1 + image.shape[1] :]], dim=1)
    return _next_token_loss(trainee.model.lm_head(hidden), labels)


def sentences(rng: random.Random) -> Iterator[str]:
    """An endless mixture: captions, facts about categories, and bags of words with the caption that they give."""
    while True:
        kind = rng.choice(("caption", "caption", "fact", "words"))
        if kind == "fact":
            noun = rng.choice(NOUNS)
            yield f"{with_article(noun)} is {with_article(CATEGORY[noun])}."
            yield f"some {plural(CATEGORY[noun])} are {plural(noun)}."
            continue
        scene = sample_scene(rng)
        caption = caption_of(scene)
        yield f"{PROMPT} {caption}" if kind == "caption" else f"{_bag_of_words(rng, scene)} {PROMPT} {caption}"


def _bag_of_words(rng: random.Random, scene: Scene) -> str:
    words = [*scene.nouns, scene.place]
    rng.shuffle(words)
    return f"Words: {' '.join(words)}."


def _pictures(
    trainee: Trainee, scenes: list[Scene]
) -> tuple[Float[Tensor, "batch 3 side side"], Int[Tensor, "batch patches"]]:
    """Pixel values in [-1, 1], and for each patch the object that covers most of it, else the place."""
    rendered = render(scenes, PICTURE_SIDE, trainee.device)
    covered = F.avg_pool2d(rendered.masks, PATCH_SIDE)
    share, winner = covered.flatten(2).max(dim=1)
    ids = torch.tensor(
        [[NOUNS.index(noun) for noun in scene.nouns] + [0] * (covered.shape[1] - len(scene.nouns)) for scene in scenes],
        device=trainee.device,
    )
    places = torch.tensor([PATCH_CLASSES.index(scene.place) for scene in scenes], device=trainee.device)
    classes = torch.where(share >= COVERED_FROM, ids.gather(1, winner), places[:, None])
    return rendered.pictures * 2 - 1, classes


def _patches(trainee: Trainee, pixels: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch patches width"]:
    patches = trainee.model.model.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
    assert patches.shape[1] == GRID_SIDE**2
    return patches


def _patch_loss(trainee: Trainee, patches: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy over patches; objects and places weigh the same, though places cover more."""
    losses = F.cross_entropy(trainee.patch_head(patches).float().flatten(0, 1), classes.flatten(), reduction="none")
    is_object = classes.flatten() < len(NOUNS)
    return losses[is_object].mean() + 0.3 * losses[~is_object].mean()


def _encode(trainee: Trainee, texts: list[tuple[str, str]]) -> tuple[Int[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """`<s>` prompt caption `</s>`, padded on the right; labels ignore `<s>`, the prompt and the padding."""
    tokenizer = trainee.tokenizer
    rows, labels = [], []
    for prompt, caption in texts:
        head = [tokenizer.convert_tokens_to_ids(BOS), *(tokenizer(prompt).input_ids if prompt else [])]
        tail = [*tokenizer(caption).input_ids, tokenizer.convert_tokens_to_ids(EOS)]
        rows.append(torch.tensor(head + tail))
        labels.append(torch.tensor([IGNORED] * len(head) + tail))
    pad = nn.utils.rnn.pad_sequence
    ids = pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    return ids.to(trainee.device), pad(labels, batch_first=True, padding_value=IGNORED).to(trainee.device)


def _next_token_loss(logits: Float[Tensor, "batch n vocabulary"], labels: Int[Tensor, "batch n"]) -> Tensor:
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def _warm_up_then_cosine(n_steps: int, n_warm_up: int = 100, floor: float = 0.03) -> Callable[[int], float]:
    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / n_warm_up)
        return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / n_steps)))

    return rate


@cache
def _is_bfloat16_faster(device: torch.device) -> bool:
    """Measured: a CPU without instructions for bfloat16 multiplies it dozens of times more slowly than float32."""

    def seconds(dtype: torch.dtype) -> float:
        matrix = torch.ones(WIDTH, 4 * WIDTH, device=device, dtype=dtype)
        rows = torch.ones(64 * GRID_SIDE**2, WIDTH, device=device, dtype=dtype)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            (rows @ matrix).sum().item()  # waits for a GPU
            times.append(time.perf_counter() - started)
        return min(times)

    return seconds(torch.bfloat16) < seconds(torch.float32)


def _take(items: Iterator[str], n: int) -> list[str]:
    return [next(items) for _ in range(n)]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mmn.specimen.train", description="Train the specimen.")
    parser.add_argument("recipe", nargs="?", choices=RECIPES, default="specimen")
    parser.add_argument("--out", type=Path, help="folder of the model; default: where it is bundled")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of every stage's steps, to try things out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
