"""A checkpoint -> `Model`: its weights, its processor, its anatomy, and a fingerprint of all that it was made from.

The folder and its weights are read by `checkpoints.py`, the processor by `processors.py`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import nn

from mmn.core import ModelFacts
from mmn.errors import EncodingError, UsageError
from mmn.models.adapters import Anatomy, Family, find_anatomy, find_family
from mmn.models.checkpoints import fingerprint, judge_family, load_weights, local_folder, require_safetensors
from mmn.models.processors import fill_image_token, load_processor
from mmn.safety.boundary import Translated, first_line
from mmn.safety.limits import Limits, apart
from mmn.specimen import MODEL_PATHS as BUNDLED_PATHS

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SMALL_MODEL = 50_000_000  # parameters; below it one thread beats several on a CPU
DEFAULT_PROMPT = "Describe the image in few words."  # P2's; a checkpoint's config may name its own `default_prompt`
LIMBER = "limber:"
# Processor time. A large tokenizer takes seconds to load, a picture a fraction of one, a template milliseconds.
LOADING, ENCODING, TEMPLATE = Limits(seconds=60), Limits(seconds=4), Limits(seconds=2)


@dataclass(frozen=True)
class Model:
    """A loaded model. Hold `lock` while hooks are on it: two sessions hooking one model both get wrong numbers.

    `filled` are the sentences that tell what an older processor or config lacked, and where it was taken from.
    """

    module: Any
    processor: Any
    family: Family
    anatomy: Anatomy
    facts: ModelFacts
    filled: tuple[str, ...] = ()
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def device(self) -> torch.device:
        return self.module.device

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens that end a caption."""
        ends = self.module.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        return frozenset([ends] if isinstance(ends, int) else ends or [])

    @property
    def pad_token_id(self) -> int:
        """What fills rows up; it is never attended, so any token would do."""
        pad = self.module.generation_config.pad_token_id
        if pad is None and self.processor is not None:
            pad = self.tokenizer.pad_token_id
        return pad if pad is not None else min(self.end_token_ids, default=0)

    @property
    def image_token_id(self) -> int | None:
        """The placeholder that stands in `input_ids` for each token of a picture; None where there is none."""
        config = self.module.config
        named = [getattr(config, name, None) for name in ("image_token_id", "image_token_index", "image_patch_id")]
        return next((token_id for token_id in named if token_id is not None), None)

    @property
    def default_prompt(self) -> str:
        return getattr(self.module.config, "default_prompt", DEFAULT_PROMPT)

    @property
    def usual_batch_size(self) -> int:
        """What `--batch-size auto` means: a fixed function of the model, since batches can move the last digits."""
        return 64 if _is_small(self.module) else 8

    def exact_prompt(self, prompt: str, answer_prefix: str = "") -> str:
        """The user's words as this model expects them: in its chat template if it has one, image placeholder included.

        `answer_prefix` is put into the model's mouth: the caption goes on from there.
        """
        wrapped = self._wrapped(prompt)
        gap = "" if not answer_prefix or wrapped[-1:].isspace() else " "
        return wrapped + gap + answer_prefix

    def _wrapped(self, prompt: str) -> str:
        if self.processor.chat_template:
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            messages = [{"role": "user", "content": content}]
            return _filled_in(self.facts.name, self.processor, messages)
        placeholder = getattr(self.processor, "image_token", None) or "<image>"
        return self.family.bare_prompt.format(image=placeholder, prompt=prompt)

    def encode(self, images: list[Image.Image], exact_prompt: str) -> dict[str, torch.Tensor]:
        """Model inputs for one exact prompt over several pictures, padded on the left, on the model's device.

        Raises:
            EncodingError: the processor fails, for all pictures or for one of them.
        """
        bos = self.tokenizer.bos_token
        sizes = ", ".join(sorted({"×".join(map(str, image.size)) for image in images})[:3])
        with Translated(f"{self.facts.name}: its processor cannot encode pictures of {sizes} pixels", EncodingError):
            inputs = self.processor(
                images=[[image] for image in images] if self.family.nests_images else images,
                text=[exact_prompt] * len(images),
                return_tensors="pt",
                padding=True,
                add_special_tokens=not (bos and exact_prompt.startswith(bos)),
            )
        inputs.pop("labels", None)
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    def encode_and_close(self, images: Sequence[Image.Image], exact_prompt: str) -> dict[str, torch.Tensor]:
        """`encode` of pictures that nobody needs afterwards: their pixels, gigabytes of photographs, are freed."""
        inputs = self.encode(list(images), exact_prompt)
        for image in images:
            image.close()
        return inputs


def load_model(name: str, dtype: str = "auto", device: str = "auto", delta: Path | None = None) -> Model:
    """Loads a bundled model, a folder in Hugging Face format, a hub id or `limber:FILE.json`; with a delta, edited.

    Args:
        name: `specimen`, `specimen-frozen`, a folder or a hub id; hub files are fetched first.
            `MODEL+FILE.safetensors` is MODEL with the delta FILE. It is what such a model is called, so that whoever
            has a run's name can load its model.
        dtype: `auto` is float32 on a CPU, elsewhere what the checkpoint was saved in.
        device: `auto` is the first GPU, else the CPU.
        delta: a file that `mmn edit` wrote; it changes the loaded weights, never the checkpoint.

    Raises:
        ModelError: nothing there, no weights, pickled weights only, weights missing, no processor; a delta that is not
            there, damaged, or made for another model.
        UnsupportedModelError: no adapter for its family or its decoder.
    """
    from mmn.models import deltas  # it speaks of `Model`

    base, named = split_delta(name)
    path = delta or named
    if path is None:
        return _load_checkpoint(name, dtype, device)
    wanted = deltas.load(path)  # before the model, which takes longer
    return deltas.add_for_good(_load_checkpoint(base, dtype, device), wanted, with_delta(base, path))


def with_delta(name: str, delta: Path) -> str:
    """The name of a model with a delta: `MODEL+FILE.safetensors`, the file's path in full."""
    return f"{name}+{delta.absolute()}"


def split_delta(name: str) -> tuple[str, Path | None]:
    """MODEL and FILE of `MODEL+FILE.safetensors`; of a plain name itself and None.

    A folder's name may hold a `+`, too: of several, the first with a file behind it counts.
    """
    if not name.endswith(".safetensors") or "+" not in name:
        return name, None
    places = [place for place, character in enumerate(name) if character == "+"]
    place = next((place for place in places if Path(name[place + 1 :]).is_file()), places[0])
    return name[:place], Path(name[place + 1 :])


def _load_checkpoint(name: str, dtype: str, device: str) -> Model:
    from transformers import AutoModelForImageTextToText

    if name.startswith(LIMBER):
        return _load_limber(name, dtype, device)
    path = local_folder(name, judge_family)
    config, family = judge_family(path)
    require_safetensors(path)
    processor, filled = _load_processor(name, path, config, family)
    device = resolve_device(device)
    module = load_weights(AutoModelForImageTextToText, path, _resolve_dtype(dtype, device, config))
    filled += fill_image_token(module.config, processor, module.get_input_embeddings().num_embeddings)
    return _put_together(name, module.to(device), processor, family, fingerprint(path), filled)


def _load_processor(name: str, path: Path, config: Any, family: Family) -> tuple[Any, tuple[str, ...]]:
    """A stranger's processor, after it was loaded, and has encoded a picture, in processes of their own.

    What else is wrong with an encoded picture is said better when the whole model is checked.
    """
    if name in BUNDLED_PATHS:
        return load_processor(path, config)
    apart(f"{path}: its processor cannot be loaded", lambda: str(load_processor(path, config)[1]), LOADING)
    processor, filled = load_processor(path, config)
    stand_in = SimpleNamespace(config=config, device=torch.device("cpu"), dtype=torch.float32)
    facts = ModelFacts(name, "", family.model_type, 0, 0)
    nothing: Any = None  # for an anatomy, which encoding does not ask for
    model = Model(stand_in, processor, family, nothing, facts)

    def encode() -> str:
        try:
            model.encode([Image.new("RGB", (336, 224))], model.exact_prompt(DEFAULT_PROMPT))
        except EncodingError as error:
            if isinstance(error.__cause__, MemoryError):
                raise
        return "tried"

    apart(f"{path}: its processor cannot encode a picture of 336×224 pixels", encode, ENCODING)
    return processor, filled


def _filled_in(name: str, processor: Any, messages: list[dict[str, Any]]) -> str:
    """A chat template, which is a program, filled in with messages, in a process of its own."""

    def fill() -> str:
        with Translated(f"{name}: its chat template cannot be filled in", EncodingError):
            return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    if name in BUNDLED_PATHS:
        return fill()
    return apart(f"{name}: its chat template cannot be filled in", fill, TEMPLATE)


def _load_limber(name: str, dtype: str, device: str) -> Model:
    """The model that the file of `limber:FILE.json` describes."""
    from mmn.models.limber import load_limber

    device = resolve_device(device)
    usual = torch.float32 if device == "cpu" else torch.float16
    module, processor, digest = load_limber(Path(name.removeprefix(LIMBER)).expanduser(), DTYPES.get(dtype, usual))
    return _put_together(name, module.to(device), processor, find_family("limber"), digest)


def _put_together(
    name: str, module: Any, processor: Any, family: Family, digest: str, filled: tuple[str, ...] = ()
) -> Model:
    """The parts as one. What was filled in changes what the model sees, so it is part of the fingerprint."""
    anatomy = find_anatomy(module, family)
    module = module.eval().requires_grad_(False)
    _limit_threads(module)
    if filled:
        digest = hashlib.sha256("\0".join([digest, *filled]).encode()).hexdigest()
    facts = ModelFacts(name, digest, family.model_type, anatomy.n_layers, anatomy.d_mlp)
    return Model(module, processor, family, anatomy, facts, filled)


def resolve_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {first_line(error)}; use auto, cpu or cuda") from error
    return device


def _resolve_dtype(dtype: str, device: str, config: Any) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if device == "cpu" else config.dtype or torch.float32
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: expected auto or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _limit_threads(module: Any) -> None:
    """One thread for a small model on a CPU: more are many times slower, since each step is over in microseconds."""
    if module.device.type == "cpu" and _is_small(module):
        torch.set_num_threads(1)


def _is_small(module: nn.Module) -> bool:
    return sum(p.numel() for p in module.parameters()) < SMALL_MODEL
