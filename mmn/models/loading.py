"""A checkpoint -> `Model`: weights, processor, anatomy, and a fingerprint of all that it was made from.

The folder and its weights are read by `checkpoints`, the processor by `processors`; `limber` puts P1's kind together,
`deltas` adds an edit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from mmn.core import ModelFacts
from mmn.errors import EncodingError, ModelError, UsageError
from mmn.models import deltas
from mmn.models.adapters import Family, find_anatomy
from mmn.models.checkpoints import judge_family, module_without_weights, require_safetensors
from mmn.models.hub import refuse_revision
from mmn.models.limber import load_limber
from mmn.models.merging import find_parts, merge
from mmn.models.model import DEFAULT_PROMPT, Model, is_small
from mmn.models.placement import DeviceMap, places_of, require_loaded, require_map, require_together
from mmn.models.processors import fill_image_token, load_processor
from mmn.models.quantised import sentence
from mmn.models.weights import load_weights
from mmn.safety.boundary import first_line
from mmn.safety.limits import Limits, apart
from mmn.specimen import MAP_PATHS
from mmn.specimen import MODEL_PATHS as BUNDLED_PATHS

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LIMBER = "limber:"
# Processor time. A large tokenizer takes seconds to load, a picture a fraction of one.
LOADING, ENCODING = Limits(seconds=60), Limits(seconds=4)


def load_model(
    name: str,
    dtype: str = "auto",
    device: str = "auto",
    delta: Path | None = None,
    revision: str | None = None,
    device_map: DeviceMap | None = None,
) -> Model:
    """Loads a bundled model, a folder in Hugging Face format, a hub id or `limber:FILE.json`; with a delta, edited.

    Args:
        name: a bundled model (`mmn.specimen.MODELS`), a folder or a hub id; hub files are fetched first.
            `MODEL+FILE.safetensors` is MODEL with the delta FILE. It is what such a model is called, so that whoever
            has a run's name can load its model.
        dtype: `auto` is float32 on a CPU, elsewhere what the checkpoint was saved in.
        device: `auto` is the first GPU, else the CPU.
        delta: a file that `mmn edit` wrote; it changes the loaded weights, never the checkpoint.
        revision: branch, tag or commit of a hub id; its commit is in the model's facts.
        device_map: `auto`, or accelerate's own: parts of the model on several devices, instead of `device`.

    Raises:
        ModelError: nothing there, no weights, pickled weights only, weights missing, no processor; a delta that is not
            there, damaged, or made for another model.
        UnsupportedModelError: no adapter for its family or its decoder.
        UsageError: no such dtype or device; a revision of what is not on the hub; a map that scores cannot be read by.
    """
    base, named = split_delta(name)
    path = delta or named
    if path is None:
        return _load_checkpoint(name, dtype, device, revision, device_map)
    wanted = deltas.load(path)  # before the model, which takes longer
    return deltas.add_for_good(
        _load_checkpoint(base, dtype, device, revision, device_map), wanted, with_delta(base, path)
    )


def with_delta(name: str, delta: Path) -> str:
    """The name of a model with a delta: `MODEL+FILE.safetensors`, the file's path in full.

    Raises:
        ModelError: no such file, or one that is no delta by its name.
    """
    if not delta.exists():
        raise ModelError(f"no delta at {delta}: give the file that mmn edit wrote")
    if delta.suffix != ".safetensors" or not delta.is_file():
        raise ModelError(f"{delta} is no delta: give the .safetensors file that mmn edit wrote")
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


def _load_checkpoint(name: str, dtype: str, device: str, revision: str | None, device_map: DeviceMap | None) -> Model:
    from transformers import AutoModelForImageTextToText

    if name.startswith(LIMBER) or name in MAP_PATHS:
        refuse_revision(name, revision)
        if device_map:
            raise UsageError(f"--device-map {device_map}: {name} is of three parts; leave --device-map out")
        return _load_limber(name, dtype, device)
    parts = find_parts(name, revision)
    path = parts.base.path
    config, family = judge_family(path)
    require_safetensors(path)
    processor, filled = _load_processor(name, parts.processor_path, config, family)
    if device_map:
        require_map(device_map, device)
    device = resolve_device(device)
    wanted = _resolve_dtype(dtype, device, config)
    auto_class, places = AutoModelForImageTextToText, None
    if device_map:
        places = places_of(device_map, module_without_weights(auto_class, path, config), wanted)
    module = load_weights(auto_class, path, wanted, config=config, device_map=places)
    filled += sentence(config, wanted)
    if parts.adapter:
        require_loaded(module, "an adapter is merged into the weights of its base")
        filled += merge(module, parts.adapter.path, config)
    filled += fill_image_token(module.config, processor, module.get_input_embeddings().num_embeddings)
    if places is None:
        module = module.to(device)
    model = _put_together(name, module, processor, family, parts.fingerprint, filled, parts.commit)
    if places is not None:
        require_together(module, model.anatomy, name)
    return model


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


def _load_limber(name: str, dtype: str, device: str) -> Model:
    """The model that the file of `limber:FILE.json` describes, or the bundled one of that kind."""
    device = resolve_device(device)
    usual = torch.float32 if device == "cpu" else torch.float16
    file = MAP_PATHS.get(name) or Path(name.removeprefix(LIMBER)).expanduser()
    made = load_limber(file, DTYPES.get(dtype, usual))
    told = (made.layout.sentence(),)
    return _put_together(name, made.module.to(device), made.processor, made.family, made.digest, told)


def _put_together(
    name: str,
    module: Any,
    processor: Any,
    family: Family,
    digest: str,
    filled: tuple[str, ...] = (),
    commit: str = "",
) -> Model:
    """The parts as one. What was filled in changes what the model sees, so it is part of the fingerprint."""
    anatomy = find_anatomy(module, family)
    module = module.eval().requires_grad_(False)
    _limit_threads(module)
    if filled:
        digest = hashlib.sha256("\0".join([digest, *filled]).encode()).hexdigest()
    widths = anatomy.widths if anatomy.mixtures else ()
    shape = (anatomy.n_layers, anatomy.d_mlp)
    facts = ModelFacts(name, digest, family.model_type, *shape, commit, anatomy.d_experts, widths)
    return Model(module, processor, family, anatomy, facts, filled)


def resolve_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    remedy = "use auto, cpu, cuda or mps"
    try:
        tried = torch.empty(0, device=device)
    except NotImplementedError as error:  # its message is a page about operators
        raise UsageError(f"--device {device}: PyTorch has no such device on this machine; {remedy}") from error
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device}: {first_line(error)}; {remedy}") from error
    if tried.is_meta:
        raise UsageError(f"--device {device}: it holds no numbers; {remedy}")
    return device


def _resolve_dtype(dtype: str, device: str, config: Any) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if device == "cpu" else config.dtype or torch.float32
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: expected auto or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _limit_threads(module: Any) -> None:
    """One thread for a small model on a CPU: more are many times slower, since each step is over in microseconds."""
    if module.device.type == "cpu" and is_small(module):
        torch.set_num_threads(1)
