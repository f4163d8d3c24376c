"""Pictures -> a model's inputs without its processor: one square of 4 x 4 patches each, and a prompt."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.families.shrink import SIDE

PROMPT = (10, 11, 12, 13)  # four words of the specimen's tokenizer
IMAGE_ID = 3


def encode_bare(module: Any, images: Sequence[Image.Image]) -> dict[str, Tensor]:
    """Pixels in the shape that the model's forward asks for, and token ids with the image tokens that they become."""
    squares = torch.stack([_square(image) for image in images])
    pixels = _pixels(module, squares)
    n_tokens = N_TOKENS.get(module.config.model_type) or count_image_tokens(module, pixels) // len(images)
    ids = torch.tensor([[1, 9, *[image_id(module.config)] * n_tokens, *PROMPT]] * len(images))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | pixels
    wanted = inspect.signature(module.forward).parameters
    is_image = (ids == image_id(module.config)).long()
    for name in ("mm_token_type_ids", "moe_mm_token_type_ids", "token_type_ids", "image_embeds_position_mask"):
        if name in wanted:
            inputs[name] = is_image
    if module.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[_decoder_start(module), *PROMPT]] * len(images))
    return EXTRAS.get(module.config.model_type, lambda _, inputs: inputs)(module.config, inputs)


def _decoder_start(module: Any) -> int:
    """What the decoder of an encoder-decoder begins with, as transformers' own generation puts it there."""
    own = module.generation_config
    return next((one for one in (own.decoder_start_token_id, own.bos_token_id) if one is not None), 0)


def image_id(config: Any) -> int:
    """The id that stands for a picture in the prompt."""
    if config.model_type == "instructblipvideo":
        return config.video_token_index
    for name in ("image_token_id", "image_token_index", "image_patch_id"):
        if isinstance(value := getattr(config, name, None), int):
            return value
    return IMAGE_ID


def count_image_tokens(module: Any, pixels: dict[str, Tensor]) -> int:
    """Rows of what the model's own image encoder hands to the text decoder."""
    inner = [part for part in module.modules() if hasattr(part, "get_image_features")]
    if not inner:
        return 0
    parameters = inspect.signature(inner[-1].get_image_features).parameters
    wanted = {k: v for k, v in pixels.items() if k in parameters or "kwargs" in parameters}
    with torch.no_grad():
        features = inner[-1].get_image_features(**wanted)
    if (layers := getattr(features, "deepstack_features", None)) and isinstance(layers[0][0], int):
        return _rows(layers[0][1])
    if isinstance(features, (Tensor, list)):
        return _rows(features)
    pooled = features.pooler_output
    return _rows(features.last_hidden_state if pooled is None else pooled)


def _rows(features: Any) -> int:
    if isinstance(features, Tensor):
        return features.numel() // features.shape[-1]
    return sum(_rows(part) for part in features)


def _square(image: Image.Image) -> Tensor:
    """Channels, height, width in -1 .. 1."""
    array = np.asarray(image.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32)
    return torch.from_numpy(array.copy()).permute(2, 0, 1) / 127.5 - 1


def _pixels(module: Any, squares: Tensor) -> dict[str, Tensor]:
    if maker := PIXELS.get(module.config.model_type):
        return maker(module.config, squares)
    wanted = inspect.signature(module.forward).parameters
    if "image_grid_thw" in wanted:
        return _grid(module.config, squares)
    return {"pixel_values": squares}


def _grid(config: Any, squares: Tensor, flat: bool = True) -> dict[str, Tensor]:
    """Patches, those that are merged side by side, and how many there are in time, height and width."""
    vision = config.vision_config
    patch = vision.patch_size
    merge = _merge(vision)
    times = getattr(vision, "temporal_patch_size", getattr(vision, "patch_temporal", 1))
    patches = _patches(squares, patch, merge).unsqueeze(2).expand(-1, -1, times, -1, -1)
    side = squares.shape[-1] // patch
    grid = torch.tensor([[1, side, side]] * len(squares))
    return {"pixel_values": patches.flatten(1) if flat else patches[:, :, 0], "image_grid_thw": grid}


def _merge(vision: Any) -> int:
    for name in ("spatial_merge_size", "merge_size", "merge_kernel_size"):
        if (merge := getattr(vision, name, None)) is not None:
            return merge if isinstance(merge, int) else merge[0]
    return 2


def _patches(squares: Tensor, patch: int, merge: int = 1) -> Tensor:
    """Patches (all pictures' one after the other), channels, height, width; merged blocks of patches side by side."""
    n, channels, side, _ = squares.shape
    blocks = side // patch // merge
    cut = squares.reshape(n, channels, blocks, merge, patch, blocks, merge, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return cut.reshape(-1, channels, patch, patch)


def _rows_of_patches(squares: Tensor, patch: int) -> Tensor:
    """Pictures, patches, values; the channel is the last axis of a patch."""
    return _patches(squares, patch).permute(0, 2, 3, 1).reshape(len(squares), -1, patch * patch * squares.shape[1])


def _positions(squares: Tensor, patch: int) -> Tensor:
    """Pictures, patches, (x, y)."""
    side = squares.shape[-1] // patch
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1).expand(len(squares), -1, -1)


def _nested(config: Any, squares: Tensor) -> dict[str, Tensor]:
    return {"pixel_values": squares.unsqueeze(1)}


def _tiles(config: Any, squares: Tensor) -> dict[str, Tensor]:
    """The whole picture and one tile of it."""
    return {"pixel_values": torch.stack([squares, squares], dim=1)} | _sizes(squares)


def _sizes(squares: Tensor) -> dict[str, Tensor]:
    return {"image_sizes": torch.tensor([list(squares.shape[-2:])] * len(squares))}


def _sized(config: Any, squares: Tensor) -> dict[str, Tensor]:
    return {"pixel_values": squares} | _sizes(squares)


def _gemma4(config: Any, squares: Tensor) -> dict[str, Tensor]:
    patch = config.vision_config.patch_size
    return {"pixel_values": _rows_of_patches(squares, patch), "image_position_ids": _positions(squares, patch)}


def _gemma4_unified(config: Any, squares: Tensor) -> dict[str, Tensor]:
    patch = config.vision_config.model_patch_size
    return {"pixel_values": _rows_of_patches(squares, patch), "image_position_ids": _positions(squares, patch)}


def _lfm2(config: Any, squares: Tensor) -> dict[str, Tensor]:
    patches = _rows_of_patches(squares, config.vision_config.patch_size)
    side = int(patches.shape[1] ** 0.5)
    shapes = torch.tensor([[side, side]] * len(squares))
    return {
        "pixel_values": patches,
        "spatial_shapes": shapes,
        "pixel_attention_mask": torch.ones(patches.shape[:2]).long(),
    }


def _flattened(patch: int, squares: Tensor) -> Tensor:
    """Row and column (from 1) before each patch's values."""
    places = _positions(squares, patch).flip(-1) + 1
    return torch.cat([places.float(), _rows_of_patches(squares, patch)], dim=-1)


def _mllama(config: Any, squares: Tensor) -> dict[str, Tensor]:
    n, tiles = len(squares), config.vision_config.max_num_tiles
    pixels = torch.zeros(n, 1, tiles, *squares.shape[1:])
    pixels[:, 0, 0] = squares
    mask = torch.zeros(n, 1, tiles, dtype=torch.long)
    mask[..., 0] = 1
    return {"pixel_values": pixels, "aspect_ratio_ids": torch.ones(n, 1, dtype=torch.long), "aspect_ratio_mask": mask}


def _molmo2(config: Any, squares: Tensor) -> dict[str, Tensor]:
    patch = config.vision_config.patch_size
    one = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])
    n = len(squares)
    return {
        "pixel_values": _rows_of_patches(squares, patch),
        "image_token_pooling": torch.cat([one + 16 * i for i in range(n)]),
        "image_grids": torch.tensor([[2, 2, 0, 0]] * n),
        "image_num_crops": torch.ones(n, dtype=torch.long),
    }


def _blocks(config: Any, squares: Tensor) -> dict[str, Tensor]:
    """Merged blocks of patches; the channel is the last axis."""
    block = config.vision_config.patch_size * config.vision_config.spatial_merge_size
    side = squares.shape[-1] // block
    grid = torch.tensor([[1, side, side]] * len(squares))
    return {"pixel_values": _patches(squares, block).permute(0, 2, 3, 1), "image_grid_thw": grid}


def _cubes(config: Any, squares: Tensor) -> dict[str, Tensor]:
    """Patches, time, height, width, channels."""
    patches = _patches(squares, config.vision_config.patch_size).permute(0, 2, 3, 1)
    return {"pixel_values": patches.unsqueeze(1).expand(-1, config.vision_config.temporal_patch_size, -1, -1, -1)}


def _minicpm(config: Any, squares: Tensor) -> dict[str, Tensor]:
    """All pictures' patches in one strip: channels, patch height, patches × patch width."""
    squares = _large(config, squares)["pixel_values"]
    patch = config.vision_config.patch_size
    side = squares.shape[-1] // patch
    strip = _patches(squares, patch).permute(1, 2, 0, 3).reshape(1, 3, patch, -1)
    return {"pixel_values": strip, "target_sizes": torch.tensor([[side, side]] * len(squares), dtype=torch.int32)}


def _instructblip(config: Any, squares: Tensor) -> dict[str, Tensor]:
    question = torch.tensor([PROMPT] * len(squares))
    return {"pixel_values": squares, "qformer_input_ids": question, "qformer_attention_mask": torch.ones_like(question)}


def _instructblip_video(config: Any, squares: Tensor) -> dict[str, Tensor]:
    return _instructblip(config, squares) | {"pixel_values": squares.unsqueeze(1).expand(-1, 2, -1, -1, -1)}


def _granite_docling(config: Any, squares: Tensor) -> dict[str, Tensor]:
    return _nested(config, squares) | {"pixel_attention_mask": torch.ones(len(squares), 1, dtype=torch.bool)}


def _nemotron(config: Any, squares: Tensor) -> dict[str, Tensor]:
    side = squares.shape[-1] // config.vision_config.patch_size
    flat = _patches(squares, config.vision_config.patch_size).flatten(1)
    return {"pixel_values": flat, "image_grid_hw": torch.tensor([[side, side]] * len(squares))}


def _large(config: Any, squares: Tensor) -> dict[str, Tensor]:
    return {"pixel_values": torch.nn.functional.interpolate(squares, scale_factor=2)}


PIXELS: dict[str, Callable[[Any, Tensor], dict[str, Tensor]]] = {
    "deepseek_ocr2": _large,
    "unlimited_ocr": _large,
    "got_ocr2": _large,
    "pp_chart2table": _large,
    "step3p7": _large,
    "inkling2": lambda config, squares: _blocks(config, squares),
    "inkling_mm_model": lambda config, squares: _cubes(config, squares),
    "deepseek_vl_hybrid": lambda _, squares: {"pixel_values": squares, "high_res_pixel_values": squares},
    "diffusion_gemma": _gemma4,
    "gemma4": _gemma4,
    "gemma4_unified": _gemma4_unified,
    "emu3": _sized,
    "fuyu": lambda config, squares: {"pixel_values": _rows_of_patches(squares, config.patch_size)},
    "granite4_vision": _tiles,
    "granite_docling": _granite_docling,
    "idefics": _nested,
    "idefics2": _nested,
    "idefics3": _nested,
    "smolvlm": _nested,
    "instructblip": _instructblip,
    "instructblipvideo": _instructblip_video,
    "kimi_k25": lambda config, squares: _grid(config, squares, flat=False),
    "kosmos-2.5": lambda _, squares: {"flattened_patches": _flattened(14, squares)},
    "pix2struct": lambda _, squares: {"flattened_patches": _flattened(14, squares)},
    "lfm2_vl": _lfm2,
    "lighton_ocr": _sized,
    "mistral3": _sized,
    "mistral_large4": _sized,
    "llava_next": _tiles,
    "llava_next_video": _tiles,
    "llava_onevision": _tiles,
    "minicpm_ocr": _minicpm,
    "minicpmv4_6": _minicpm,
    "minicpmv4_7": _minicpm,
    "mistral4": lambda _, __: {},
    "mllama": _mllama,
    "molmo2": _molmo2,
    "nemotron_h_omni": _nemotron,
    "paddleocr_vl": lambda config, squares: _paddle(config, squares),
    "video_llama_3": lambda config, squares: (
        _grid(config, squares) | {"image_merge_sizes": torch.tensor([_merge(config.vision_config)] * len(squares))}
    ),
}


N_TOKENS = {"mllama": 1, "instructblipvideo": 10, "kosmos-2": 4, "kosmos-2.5": 4}  # the others' encoders say


def _paddle(config: Any, squares: Tensor) -> dict[str, Tensor]:
    inputs = _grid(config, squares, flat=False)
    return inputs | {"pixel_values": inputs["pixel_values"]}


def _without_prompt(config: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder reads pixels only; the prompt is the decoder's."""
    return {key: value for key, value in inputs.items() if key not in ("input_ids", "attention_mask")}


def _idefics(config: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return inputs | {"image_attention_mask": torch.ones(*inputs["input_ids"].shape, 1, dtype=torch.long)}


def _mllama_mask(config: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    tiles = config.vision_config.max_num_tiles
    return inputs | {"cross_attention_mask": torch.ones(*inputs["input_ids"].shape, 1, tiles, dtype=torch.long)}


def _boxes(config: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    n, length = inputs["input_ids"].shape
    corners = torch.linspace(0.1, 0.9, 4 * length).reshape(1, length, 4)
    return inputs | {"bbox": corners.expand(n, -1, -1).contiguous()}


def _canvas(config: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Block diffusion refines a canvas of words; here one of a prompt's."""
    canvas = torch.tensor([[*PROMPT, 9, 9][: config.canvas_length]] * len(inputs["input_ids"]))
    return inputs | {"decoder_input_ids": canvas}


EXTRAS: dict[str, Callable[[Any, dict[str, Tensor]], dict[str, Tensor]]] = {
    "diffusion_gemma": _canvas,
    "idefics": _idefics,
    "mllama": _mllama_mask,
    "pix2struct": _without_prompt,
    "pp_formulanet": _without_prompt,
    "udop": _boxes,
    "vision-encoder-decoder": _without_prompt,
}
