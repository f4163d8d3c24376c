"""A checkpoint -> `Model`: its weights, its processor, its anatomy, and a fingerprint of all that it was made from.

Loud where a silent default would draw a believable chart: weights that are missing from the file (they would be
random), pickled weights (they could run code), a family nobody described.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import nn

from mmn.adapters import Anatomy, Family, find_anatomy, find_family
from mmn.core import ModelFacts
from mmn.errors import ModelError, UsageError
from mmn.specimen import MODEL_PATH as SPECIMEN_PATH

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SMALL_MODEL = 50_000_000  # parameters; below it one thread beats several on a CPU
DEFAULT_PROMPT = "Describe the image in few words."  # P2's; a checkpoint's config may name its own `default_prompt`
HASH_BLOCK = 1 << 22
_FINGERPRINTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


@dataclass(frozen=True)
class Model:
    """A loaded model. Hold `lock` while hooks are on it: two sessions hooking one model both get wrong numbers."""

    module: Any
    processor: Any
    family: Family
    anatomy: Anatomy
    facts: ModelFacts
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
            return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        placeholder = getattr(self.processor, "image_token", None) or "<image>"
        return self.family.bare_prompt.format(image=placeholder, prompt=prompt)

    def encode(self, images: list[Image.Image], exact_prompt: str) -> dict[str, torch.Tensor]:
        """Model inputs for one exact prompt over several pictures, padded on the left, on the model's device."""
        bos = self.tokenizer.bos_token
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


def load_model(name: str, dtype: str = "auto", device: str = "auto") -> Model:
    """Loads `specimen`, a folder in Hugging Face format, or a hub id.

    Args:
        name: `specimen`, a folder or a hub id; hub files are fetched first.
        dtype: `auto` is float32 on a CPU, elsewhere what the checkpoint was saved in.
        device: `auto` is the first GPU, else the CPU.

    Raises:
        ModelError: nothing there, no weights, pickled weights only, weights missing, no processor.
        UnsupportedModelError: no adapter for its family or its decoder.
    """
    from transformers import AutoModelForImageTextToText

    path = _local_folder(name)
    config = _read_config(path)
    family = find_family(config.model_type)
    _require_safetensors(path)
    device = resolve_device(device)
    torch_dtype = _resolve_dtype(dtype, device, config)
    try:
        module, report = AutoModelForImageTextToText.from_pretrained(
            path, dtype=torch_dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"{path}: the weights cannot be loaded ({_first_line(error)}); is the download whole?"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted([*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])])
        raise ModelError(f"{path}: {len(missing)} weights are not in the file, {missing[0]} for one; it is not whole")
    module = module.eval().to(device).requires_grad_(False)
    _limit_threads(module)
    anatomy = find_anatomy(module, family)
    facts = ModelFacts(name, fingerprint(path), family.model_type, anatomy.n_layers, anatomy.d_mlp)
    return Model(module, _load_processor(path), family, anatomy, facts)


def resolve_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {_first_line(error)}; use auto, cpu or cuda") from error
    return device


def fingerprint(path: Path) -> str:
    """sha-256 over the names and contents of all files that the model and its processor are made from."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _FINGERPRINTED for file in path.glob(pattern)}):
        digest.update(file.name.encode() + b"\0" + _sha256(file))
    return digest.hexdigest()


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(HASH_BLOCK):
            digest.update(block)
    return digest.digest()


def _local_folder(name: str) -> Path:
    """The folder of a checkpoint; a hub id is fetched first (safetensors and configuration only)."""
    if name == "specimen":
        return SPECIMEN_PATH
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"{name!r} is no folder; give a folder in Hugging Face format, a hub id, or specimen")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FINGERPRINTED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{name!r} is neither a folder here nor to be had from the hub: {_first_line(error)}"
        ) from error


def _read_config(path: Path) -> Any:
    from transformers import AutoConfig

    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json; give the folder that save_pretrained wrote")
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}/config.json cannot be read: {_first_line(error)}") from error


def _require_safetensors(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return
    pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern)]
    if pickled:
        raise ModelError(
            f"{path} has only pickled weights ({pickled[0]}), which can run code when opened; convert them with "
            "save_pretrained(safe_serialization=True) where you trust them"
        )
    raise ModelError(f"{path} has a config.json but no weights; expected model.safetensors")


def _load_processor(path: Path) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(f"{path}: its processor cannot be loaded: {_first_line(error)}") from error
    if getattr(processor, "image_processor", None) is None:
        raise ModelError(f"{path} has no image processor; expected preprocessor_config.json or processor_config.json")
    processor.tokenizer.padding_side = "left"
    return processor


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
