"""A checkpoint -> `Model`: its weights, its processor, its anatomy, and a fingerprint of all that it was made from.

Loud where a silent default would draw a believable chart: weights that are missing from the file (they would be
random), pickled weights (they could run code), a family nobody described.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
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
from mmn.roots import require_model
from mmn.specimen import MODEL_PATHS as BUNDLED_PATHS

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SMALL_MODEL = 50_000_000  # parameters; below it one thread beats several on a CPU
DEFAULT_PROMPT = "Describe the image in few words."  # P2's; a checkpoint's config may name its own `default_prompt`
HASH_BLOCK = 1 << 22
LIMBER = "limber:"
_LIBRARY = re.compile(r"(?:requires the |Package `)(?P<library>\w+)")  # that transformers asks for in an error
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
    from mmn import deltas  # it speaks of `Model`

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
    path = local_folder(name)
    config = _read_config(path)
    family = find_family(config.model_type)
    device = resolve_device(device)
    torch_dtype = _resolve_dtype(dtype, device, config)
    module = load_weights(AutoModelForImageTextToText, path, torch_dtype)
    return _put_together(name, module.to(device), _load_processor(path), family, fingerprint(path))


def _load_limber(name: str, dtype: str, device: str) -> Model:
    """The model that the file of `limber:FILE.json` describes."""
    from mmn.limber import load_limber

    device = resolve_device(device)
    usual = torch.float32 if device == "cpu" else torch.float16
    module, processor, digest = load_limber(Path(name.removeprefix(LIMBER)).expanduser(), DTYPES.get(dtype, usual))
    return _put_together(name, module.to(device), processor, find_family("limber"), digest)


def _put_together(name: str, module: Any, processor: Any, family: Family, digest: str) -> Model:
    module = module.eval().requires_grad_(False)
    _limit_threads(module)
    anatomy = find_anatomy(module, family)
    facts = ModelFacts(name, digest, family.model_type, anatomy.n_layers, anatomy.d_mlp)
    return Model(module, processor, family, anatomy, facts)


def load_weights(auto_class: Any, path: Path, dtype: torch.dtype, unused: tuple[str, ...] = ()) -> Any:
    """The weights of a folder as `auto_class` puts them together, all of them from the file.

    Args:
        auto_class: one of transformers' Auto classes.
        path: the folder.
        dtype: to load them in.
        unused: prefixes of weights that may be missing, since nothing is read from them.

    Raises:
        ModelError: no weights, pickled weights only, weights that do not fit, weights missing.
    """
    require_safetensors(path)
    try:
        module, report = auto_class.from_pretrained(
            path, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"{path}: the weights cannot be loaded ({first_line(error)}); is the download whole?"
        ) from error
    missing = sorted([*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])])
    missing = [name for name in missing if not unused or not name.startswith(unused)]
    if missing:
        raise ModelError(f"{path}: {len(missing)} weights are not in the file, {missing[0]} for one; it is not whole")
    return module


def resolve_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {first_line(error)}; use auto, cpu or cuda") from error
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


def local_folder(name: str) -> Path:
    """The folder of a checkpoint; a hub id is fetched first (safetensors and configuration only).

    Raises:
        ModelError: neither a folder nor to be had from the hub.
        OutsideRootsError: it is outside the folders that this process may read.
    """
    if name in BUNDLED_PATHS:
        return BUNDLED_PATHS[name]
    require_model(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"{name!r} is no folder; give a folder in Hugging Face format, a hub id, or {' or '.join(BUNDLED_PATHS)}"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FINGERPRINTED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{name!r} is neither a folder here nor to be had from the hub: {first_line(error)}"
        ) from error


def _read_config(path: Path) -> Any:
    from transformers import AutoConfig

    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json; give the folder that save_pretrained wrote")
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}/config.json cannot be read: {first_line(error)}") from error


def require_safetensors(path: Path) -> None:
    """Refuses a folder whose weights are missing, or pickled.

    Raises:
        ModelError: no safetensors there.
    """
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
        needed = _LIBRARY.search(str(error))
        why = f"it needs {_how_to_get(needed['library'])}" if needed else first_line(error)
        raise ModelError(f"{path}: its processor cannot be loaded: {why}") from error
    if getattr(processor, "image_processor", None) is None:
        raise ModelError(f"{path} has no image processor; expected preprocessor_config.json or processor_config.json")
    processor.tokenizer.padding_side = "left"
    return processor


def _how_to_get(library: str) -> str:
    """The library and the command that installs it."""
    library = library.lower()
    beside = f" (the build for torch {torch.__version__})" if library == "torchvision" else ""
    return f"{library}{beside}: `pip install {library}`, then try again"


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


def first_line(error: BaseException) -> str:
    """What a library's error says, without the pages that may follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
