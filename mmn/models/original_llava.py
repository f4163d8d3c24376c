"""LLaVA as its authors save it, to what is read here: `python -m mmn.models.original_llava FOLDER TOWER OUT`.

The authors' folder has the decoder and the projector, and names a CLIP that is not in it; transformers' has all three.
LLaVA-Llama-2 (P2's) has one matrix for a projector, where transformers puts two and a non-linearity between them: here
the non-linearity is the identity, and so is the second matrix. The picture's placeholder becomes a token of its own,
whose row of the head is that of the unknown word: greedy decoding never takes it, since of equals the first is taken.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import Metaspace
from torch import Tensor

from mmn.errors import MmnError, ModelError, UnsupportedModelError
from mmn.models.checkpoints import module_without_weights, read_json, require_safetensors
from mmn.safety.boundary import Translated

IMAGE: Final = "<image>"
TOWER: Final = "mm_vision_tower"
LANGUAGE_MODEL, VISION, PROJECTOR = "model.language_model.", "model.vision_tower.", "model.multi_modal_projector."
EMBEDDING, HEAD = f"{LANGUAGE_MODEL}embed_tokens.weight", "lm_head.weight"
RENAMED: Final = (  # the first that fits, of names in the authors' files
    ("model.vision_tower.vision_tower.vision_model.", VISION),
    ("model.mm_projector.0.", f"{PROJECTOR}linear_1."),
    ("model.mm_projector.2.", f"{PROJECTOR}linear_2."),
    ("model.mm_projector.", f"{PROJECTOR}linear_1."),
    ("lm_head.", "lm_head."),
    ("model.", LANGUAGE_MODEL),
)
PROJECTORS: Final = {"linear": "linear", "mlp2x_gelu": "gelu"}
SYSTEM_V1: Final = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
SYSTEM_LLAMA_2: Final = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
WRAPPED: Final = {  # by the first that is in the folder's name: the authors' `run_llava`, `conversation`
    "llama-2": ("[INST] <<SYS>>\n" + SYSTEM_LLAMA_2 + "\n<</SYS>>\n\n", " [/INST]"),
    "v1": (SYSTEM_V1 + " USER: ", " ASSISTANT:"),
    "v0": (SYSTEM_V1 + "###Human: ", "###Assistant:"),
}
MARKED: Final = "mm_use_im_start_end"  # a token of its own on either side of the picture


def convert_llava(folder: Path, tower: Path, out: Path) -> Path:
    """Writes the checkpoint of `folder` and the CLIP of `tower` as one of transformers' `llava` to `out`, a shard at a
    time.

    Raises:
        ModelError: no such layout, pickled weights, another CLIP, weights that are missing or not known, `out` exists.
        UnsupportedModelError: a projector, a decoder or a cut of the picture that is not known here.
    """
    raw = read_json(folder / "config.json")
    if TOWER not in raw:
        raise ModelError(f"{folder}/config.json has no {TOWER}: it is not in the layout of LLaVA's authors")
    _require_known(folder, raw)
    for one in (folder, tower):
        require_safetensors(one)
    if out.exists():
        raise ModelError(f"{out} is there already; name a folder that is not")
    with Translated(f"{folder} and {tower} cannot be put together"):
        seen, processor = _parts(folder, tower, raw)
    config = _config(raw, seen.config, processor.tokenizer.convert_tokens_to_ids(IMAGE))
    made = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        config.save_pretrained(made)
        processor.save_pretrained(made)
        _write(folder, made, config, {VISION + name: value for name, value in seen.state_dict().items()})
        return made.rename(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _require_known(folder: Path, raw: Mapping[str, Any]) -> None:
    kind, cut = raw.get("mm_projector_type", "linear"), raw.get("image_aspect_ratio", "square")
    if kind not in PROJECTORS:
        raise UnsupportedModelError(f"{folder}: mm_projector_type {kind}, expected one of {', '.join(PROJECTORS)}")
    if cut not in ("square", "pad"):
        raise UnsupportedModelError(f"{folder}: image_aspect_ratio {cut} is LLaVA-NeXT's; take its -hf checkpoint")
    if raw.get("model_type") not in ("llava", "llava_llama"):
        raise UnsupportedModelError(f"{folder}: model_type {raw.get('model_type')}, expected a LLaVA on a Llama")


def _parts(folder: Path, tower: Path, raw: Mapping[str, Any]) -> tuple[Any, Any]:
    """The CLIP and the processor."""
    from transformers import CLIPImageProcessor, CLIPVisionModel, LlavaProcessor

    dtype = getattr(torch, str(raw.get("torch_dtype") or raw.get("dtype") or "float32"))
    seen = CLIPVisionModel.from_pretrained(tower, dtype=dtype, use_safetensors=True, local_files_only=True)
    tokenizer = _tokenizer(folder, raw)
    images: Any = CLIPImageProcessor.from_pretrained(tower, local_files_only=True)
    if raw.get("image_aspect_ratio") == "pad":
        kept = {name: getattr(images, name) for name in ("size", "crop_size", "image_mean", "image_std")}
        from transformers import LlavaImageProcessor

        images = LlavaImageProcessor(do_pad=True, **kept)
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=seen.config.patch_size,
        vision_feature_select_strategy=_strategy(raw),
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=_template(folder, raw, tokenizer),
    )
    return seen, processor


def _tokenizer(folder: Path, raw: Mapping[str, Any]) -> Any:
    """The folder's own, with the placeholder.

    As the authors' `tokenizer_image_token` numbers words: `<s>` comes first, unless the folder says otherwise, and what
    is behind a picture is a text of its own, which Llama's tokenizer begins with a space.
    """
    from transformers import AutoTokenizer

    file = folder / "tokenizer_config.json"
    begins = {"add_bos_token": (read_json(file) if file.is_file() else {}).get("add_bos_token", True)}
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **begins)
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    spaces = tokenizer.backend_tokenizer.pre_tokenizer
    if isinstance(spaces, Metaspace) and not raw.get(MARKED):
        spaces.prepend_scheme = "always"
    return tokenizer


def _strategy(raw: Mapping[str, Any]) -> str:
    """Whether the decoder is given the class token, too."""
    return "full" if raw.get("mm_vision_select_feature") == "cls_patch" else "default"


def _template(folder: Path, raw: Mapping[str, Any], tokenizer: Any) -> str:
    """The authors' wording around a picture and a question."""
    own, above = folder.resolve().name, folder.resolve().parent.name
    name = (f"{above}_{own}" if own.startswith("checkpoint-") else own).lower()
    style = next((one for one in WRAPPED if one in name), None)
    if style is None:
        raise ModelError(
            f"{folder}: how a question is wrapped follows from its name, as in the authors' code; call the folder as "
            f"they do, with one of {', '.join(WRAPPED)} in it"
        )
    begin, end = WRAPPED[style]
    image = f"<im_start>{IMAGE}<im_end>" if raw.get(MARKED) else IMAGE
    unknown = [one for one in ("<im_start>", "<im_end>") if one in image and one not in tokenizer.get_vocab()]
    if unknown:
        raise ModelError(f"{folder}: {MARKED}, and its tokenizer has no {unknown[0]}")
    part = "{% if part['type'] == 'image' %}" + image + "\n{% else %}{{ part['text'] }}{% endif %}"
    content = "{% for part in message['content'] %}" + part + "{% endfor %}"
    return "{% for message in messages %}" + begin + content + end + "{% endfor %}"


def _config(raw: Mapping[str, Any], vision: Any, image_id: int) -> Any:
    from transformers import LlamaConfig, LlavaConfig

    own = {name: value for name, value in raw.items() if not name.startswith(("mm_", "image_", "tune_", "freeze_"))}
    text = LlamaConfig.from_dict(
        own | {"model_type": "llama", "vocab_size": max(raw["vocab_size"], image_id + 1), "architectures": None}
    )
    patches = (vision.image_size // vision.patch_size) ** 2
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_id,
        projector_hidden_act=PROJECTORS[raw.get("mm_projector_type", "linear")],
        vision_feature_layer=raw.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy=_strategy(raw),
        image_seq_length=patches + (_strategy(raw) == "full"),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        architectures=["LlavaForConditionalGeneration"],
        dtype=vision.dtype,
    )


def _write(folder: Path, out: Path, config: Any, tower: dict[str, Tensor]) -> None:
    """The weights, renamed, and an index; a tower that was trained further is the authors' own."""
    from transformers import AutoModelForImageTextToText

    wanted = module_without_weights(AutoModelForImageTextToText, out, config).state_dict()
    names: dict[str, str] = {}
    for number, tensors in enumerate(_shards(folder, config, tower, dict(wanted)), start=1):
        file = f"model-{number:05}.safetensors"
        for name, value in tensors.items():
            if name not in wanted or value.shape != wanted[name].shape:
                raise ModelError(f"{folder}: {name} of {tuple(value.shape)} has no place in a LLaVA of this config")
        save_file(tensors, out / file, {"format": "pt"})
        names |= dict.fromkeys(tensors, file)
    if missing := sorted(wanted.keys() - names.keys()):
        raise ModelError(f"{folder}: {len(missing)} weights are not in its files, {missing[0]} for one")
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}, indent=1))


def _shards(
    folder: Path, config: Any, tower: dict[str, Tensor], wanted: dict[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    seen: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if "inv_freq" not in name]  # noqa: SIM118 - no mapping
            found = {_renamed(name): _longer(_renamed(name), tensors.get_tensor(name), config) for name in names}
        seen |= found.keys()
        yield found
    rest = {name: value.contiguous() for name, value in tower.items() if name in wanted and name not in seen}
    yield rest | _identity(wanted, seen, config)


def _renamed(name: str) -> str:
    return next((to + name.removeprefix(begin) for begin, to in RENAMED if name.startswith(begin)), name)


def _longer(name: str, value: Tensor, config: Any) -> Tensor:
    """The embedding and the head with rows for tokens that were added behind."""
    n_more = config.text_config.vocab_size - len(value)
    if name not in (EMBEDDING, HEAD) or n_more <= 0:
        return value
    row = value[:1] if name == HEAD else torch.zeros_like(value[:1])
    return torch.cat([value, row.expand(n_more, -1)])


def _identity(wanted: Mapping[str, Tensor], seen: set[str], config: Any) -> dict[str, Tensor]:
    """The second matrix of a projector that has one."""
    second = f"{PROJECTOR}linear_2."
    if config.projector_hidden_act != PROJECTORS["linear"] or f"{second}weight" in seen:
        return {}
    n = len(wanted[f"{second}weight"])
    return {f"{second}weight": torch.eye(n, dtype=config.dtype), f"{second}bias": torch.zeros(n, dtype=config.dtype)}


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {Path(sys.argv[0]).stem} FOLDER TOWER OUT")
    try:
        print(convert_llava(*map(Path, sys.argv[1:])))
    except MmnError as error:
        sys.exit(str(error))
