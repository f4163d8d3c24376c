"""An adapter's folder (LoRA and its kin, as `peft` saves them) -> its base, with the adapter merged in memory.

    adapter_config.json ─► the base that it names (a folder or a hub id), found and judged as any checkpoint
      ─► its weights ─► W + ΔW of every layer that the adapter changes; nothing of the adapter is left to be run

Merged, the matrices that scores are read from are those that are multiplied. The fingerprint is of both folders' files.

Left out: adapters that are no change of weights (prompt tuning), ones that begin from a changed base (PiSSA and the
like), pickled ones, and an adapter on an adapter.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from mmn.errors import ModelError, UnsupportedModelError
from mmn.models.checkpoints import ADAPTER_CONFIG, fingerprint, judge_family, module_without_weights, read_json
from mmn.models.hub import Place, find_checkpoint, refuse_revision
from mmn.safety.boundary import Translated
from mmn.safety.limits import Limits, apart

WEIGHTS: Final = "adapter_model.safetensors"
NAME: Final = "default"
FITTING: Final = Limits(seconds=60)  # of an adapter's patterns to the names of a model's modules
_PROCESSOR_FILES: Final = ("processor_config.json", "preprocessor_config.json")
_PLAIN_STARTS: Final = (True, False, None, "gaussian", "orthogonal", "eva")  # that leave the base as it was


@dataclass(frozen=True)
class About:
    """What `adapter_config.json` says: the kind of adapter, its base, the base's revision (None: the main branch)."""

    kind: str
    base: str
    revision: str | None


@dataclass(frozen=True)
class Parts:
    """A checkpoint's folder, and that of an adapter to be merged into it."""

    base: Place
    adapter: Place | None = None

    @property
    def commit(self) -> str:
        """What `--revision` takes to find the same again: COMMIT, of an adapter COMMIT+BASE; empty off the hub."""
        if self.adapter is None:
            return self.base.commit
        return self.adapter.commit + (f"+{self.base.commit}" if self.base.commit else "")

    @property
    def processor_path(self) -> Path:
        """The adapter's folder where a whole processor was saved beside it, else the base's."""
        if self.adapter and any((self.adapter.path / name).is_file() for name in _PROCESSOR_FILES):
            return self.adapter.path
        return self.base.path

    @property
    def fingerprint(self) -> str:
        if self.adapter is None:
            return fingerprint(self.base.path)
        both = f"{fingerprint(self.base.path)} {fingerprint(self.adapter.path)}"
        return hashlib.sha256(both.encode()).hexdigest()


def find_parts(name: str, revision: str | None = None) -> Parts:
    """The folders that a model is made of, judged by their small files.

    Args:
        name: bundled, a folder or a hub id; of a checkpoint or of an adapter.
        revision: branch, tag or commit of a hub id; of an adapter `REV+BASE`, either may be empty.

    Raises:
        ModelError: nothing there, or nothing that can be scored; an adapter without a base, or with pickled weights.
        UsageError: a revision of what has none.
    """
    own, plus, of_base = (revision or "").partition("+")
    place = find_checkpoint(name, _judge, own or None)
    if not is_adapter(place.path):
        if plus:
            refuse_revision(f"a base of {name}", revision)
        return Parts(place)
    about = read_about(place.path)
    _require_weights(place.path)
    base = find_checkpoint(_base_name(place.path, about), judge_family, of_base or about.revision)
    parts = Parts(base, place)
    _require_same_words(parts)
    return parts


def is_adapter(path: Path) -> bool:
    """Whether a folder is an adapter's alone. Beside whole weights, which may hold it already, it is not."""
    if not (path / ADAPTER_CONFIG).is_file():
        return False
    if not (path / "config.json").is_file():
        return True
    others = [file for pattern in ("*.safetensors", "*.bin") for file in path.glob(pattern)]
    return {file.name for file in others} == {WEIGHTS}


def read_about(path: Path) -> About:
    """What an adapter's config says.

    Raises:
        ModelError: no base is named; `peft` is not installed; the config is broken.
        UnsupportedModelError: it began from a base other than the one it names.
    """
    file = path / ADAPTER_CONFIG
    raw = read_json(file)
    base, revision = raw.get("base_model_name_or_path"), raw.get("revision")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{file} names no base_model_name_or_path; write its base's folder or hub id there")
    start = raw.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise UnsupportedModelError(
            f"{file}: the training began from a changed base (init_lora_weights = {str(start)[:40]!r}); save the "
            "adapter with path_initial_model_for_weight_conversion, or the whole model after merge_and_unload()"
        )
    with Translated(f"{path}: adapters are merged by peft"):
        import peft  # noqa: F401 - whether it is there, before anything is fetched
    return About(str(raw.get("peft_type"))[:40], base, revision if isinstance(revision, str) else None)


def merge(module: Any, path: Path, config: Any) -> tuple[str, ...]:
    """Merges an adapter into the weights of its base, and says so in one sentence.

    W becomes W + ΔW in the type that W has; layers that the adapter replaced as a whole are taken as they were saved.

    Args:
        module: the base with its weights; changed.
        path: the adapter's folder.
        config: of the base.

    Raises:
        ModelError: tensors of the adapter are missing, left over, or of another shape.
    """
    from peft import PeftConfig

    about = read_about(path)
    what = f"{path}: this {about.kind} adapter cannot be merged into {about.base}"
    apart(what, lambda: _try_to_fit(what, path, config), FITTING)
    with Translated(what):
        told = module.load_adapter(
            adapter_name=NAME, adapter_state_dict=_tensors(path), peft_config=PeftConfig.from_pretrained(str(path))
        )
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if found := sorted(map(str, getattr(told, problem))):
                kind = problem.removesuffix("_keys")
                raise ModelError(f"{what}: {len(found)} tensors are {kind}, {found[0]} for one; is it this base's?")
        n_changed = _merge_layers(module)
    module._hf_peft_config_loaded = False
    del module.peft_config
    return (f"the {about.kind} adapter was merged into {about.base}: {n_changed} matrices changed",)


def _judge(path: Path) -> object:
    return read_about(path) if is_adapter(path) else judge_family(path)


def _require_weights(path: Path) -> None:
    if not (path / WEIGHTS).is_file():
        pickled = " (a pickled adapter_model.bin can run code when opened)" * (path / "adapter_model.bin").is_file()
        raise ModelError(f"{path} has no {WEIGHTS}{pickled}; save the adapter with save_pretrained of peft")


def _base_name(path: Path, about: About) -> str:
    """The base as it is named, or the folder of that name beside the adapter's."""
    beside = path / about.base
    return str(beside) if beside.is_dir() and not Path(about.base).is_dir() else about.base


def _require_same_words(parts: Parts) -> None:
    """Refuses a tokenizer beside the adapter that is another than the base's, and would not be read."""
    assert parts.adapter is not None
    own = parts.adapter.path / "tokenizer.json"
    if not own.is_file() or parts.processor_path != parts.base.path:
        return
    mine, base = (read_json(one).get("model") for one in (own, parts.base.path / "tokenizer.json"))
    if mine != base:
        raise ModelError(
            f"{own} is another than its base's, and no processor is beside it; save the processor that the adapter was "
            "trained with there, too (processor.save_pretrained)"
        )


def _try_to_fit(what: str, path: Path, config: Any) -> str:
    """Puts an adapter without its weights into its base without its weights: patterns and sizes are a stranger's."""
    from peft import PeftConfig, inject_adapter_in_model
    from transformers import AutoModelForImageTextToText

    with Translated(what):
        bare = module_without_weights(AutoModelForImageTextToText, path, config)
        inject_adapter_in_model(PeftConfig.from_pretrained(str(path)), bare, NAME)
    return json.dumps("fits")


def _tensors(path: Path) -> dict[str, Tensor]:
    """An adapter's tensors; DoRA's magnitudes by the names that transformers looks for."""
    from safetensors.torch import load_file

    magnitude = "lora_magnitude_vector"
    return {name + ".weight" * name.endswith(magnitude): tensor for name, tensor in load_file(path / WEIGHTS).items()}


def _merge_layers(module: nn.Module) -> int:
    """Replaces every layer that an adapter wraps by the plain one with its weights changed; returns how many."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    n_changed = 0
    for name, layer in list(module.named_modules()):
        if isinstance(layer, AuxiliaryTrainingWrapper):
            plain = layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
        elif isinstance(layer, BaseTunerLayer):
            _untie(layer.get_base_layer(), module)
            layer.merge(safe_merge=True)
            plain = layer.get_base_layer()
        else:
            continue
        module.set_submodule(name, plain)
        n_changed += 1
    left = [name for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)]
    assert not left, f"an adapter's layers are left: {left[:3]}"
    return n_changed


def _untie(layer: nn.Module, module: nn.Module) -> None:
    """Gives a layer a weight of its own, where another module has the same: only this one is to be changed."""
    for key, parameter in list(layer.named_parameters(recurse=False)):
        owners = [one for one in module.modules() if any(own is parameter for own in one._parameters.values())]
        if len(owners) > 1:
            setattr(layer, key, nn.Parameter(parameter.detach().clone(), requires_grad=False))
