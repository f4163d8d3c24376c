"""The kind of grid declared for a type is right: a square planted in an empty picture is noticed by the tokens on it.

As in `tests/test_geometry.py`, nothing is taken from our own arithmetic: the type's processor prepares the pictures,
and its image encoder, with attention switched off so that patches do not mix, says what the decoder is given at each
image token.
"""

from __future__ import annotations

import itertools
import re
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from mmn.models.adapters.structure import find_structure
from mmn.models.geometry import GRIDS
from mmn.models.geometry.grid_inputs import GridInputs
from tests.families.inputs import image_id
from tests.families.pictures import PICTURES, PLACES, READ_ONLY
from tests.families.processors import load_checkpoint, placeholder
from tests.families.recipes import RECIPES
from tests.families.shrink import PATCH
from tests.families.test_exact import EXACT
from tests.families.test_processors import encode, skip_without_packages

SIZES = [(120, 84), (70, 100)]
MORE_SIZES = {  # with crops, scaled down, a strip
    "granite4_vision": [(80, 30)],
    "granite_docling": [(150, 70), (80, 180)],
    "hunyuan_vl": [(60, 150)],
    "kimi_k25": [(210, 150)],
    "minicpmv4_6": [(260, 200)],
    "minicpmv4_7": [(180, 130)],
    "step3p7": [(140, 30), (260, 200)],
}
EMPTY = (30, 30, 30)  # not black: Idefics takes a black tile for padding
REACH = 3  # half a square's side, in pixels
CONVOLUTIONS = (torch.nn.Conv2d, torch.nn.Conv3d)
WITH_GRID = [name for name, picture in PICTURES.items() if picture.grid in GRIDS]
NOT_LOADED = [name for name in WITH_GRID if name not in EXACT]  # the others: `test_loaded.py`, the same checkpoint
WITHOUT_ENCODER = ("fuyu", "gemma4_unified")  # patches go straight into the decoder
ATTENTION_OUTPUT = re.compile(
    r"(o_proj|out_proj|attn\.proj|attention\.proj|attn_1\.proj_out|projection_layer|attention\.output\.dense)\."
)
BRINGS_PATCHES = re.compile(r"image_pooling_2d|projector\.out_proj|(layerwise|spatial)_projectors")  # within one token


@pytest.mark.parametrize("name", NOT_LOADED)
def test_a_planted_square_of_a_type_that_is_not_scored_is_noticed_where_its_grid_says(name, tmp_path):
    skip_without_packages(name)
    a_planted_square_is_noticed_where_the_declared_grid_says(name, *load_checkpoint(name, tmp_path))


def a_planted_square_is_noticed_where_the_declared_grid_says(name, processor, module):
    """Changes the module: attention writes nothing outside the decoder afterwards."""
    for size in SIZES + MORE_SIZES.get(name, []):
        assert misplaced(name, processor, module, PICTURES[name].grid, size) == []


@pytest.mark.parametrize("name", ["glm5_next", "kimi_k25"])
def test_merged_has_the_right_number_of_tokens_in_wrong_places_where_pictures_are_padded(name, tmp_path):
    skip_without_packages(name)
    assert misplaced(name, *load_checkpoint(name, tmp_path), "merged", SIZES[1])


def test_each_of_two_towers_sees_the_same_places(tmp_path):
    skip_without_packages("deepseek_vl_hybrid")
    processor, module = load_checkpoint("deepseek_vl_hybrid", tmp_path)
    for silent in (module.model.aligner.vision_proj, module.model.aligner.high_res_vision_proj):
        weight = silent.weight.clone()
        with torch.no_grad():
            silent.weight.zero_()
            assert misplaced("deepseek_vl_hybrid", processor, module, "patches", SIZES[0]) == []
            silent.weight.copy_(weight)


def test_patches_that_pooling_leaves_over_are_a_token_of_their_own(tmp_path, monkeypatch):
    """As in published checkpoints of Molmo 2, whose squares are of 27 patches, pooled 2 × 2; here of 5."""
    skip_without_packages("molmo2")
    side, recipe = 5 * PATCH, RECIPES["molmo2"]
    images = recipe.images | {"size": {"height": side, "width": side}}
    model = {"vision_config.image_size": [side, side], "vision_config.num_position_embeddings": 25}
    monkeypatch.setitem(RECIPES, "molmo2", replace(recipe, images=images, model=model))
    assert misplaced("molmo2", *load_checkpoint("molmo2", tmp_path), "overlapping windows", SIZES[0]) == []


def test_the_places_of_all_other_image_tokens_are_told_in_words():
    told = {name for name, picture in PICTURES.items() if picture.grid == "" and picture.seen != "cross-attention"}
    assert told - set(PLACES) == {"git"}
    assert set(PLACES) == told - {"git"}
    assert set(READ_ONLY) < set(PLACES)


def misplaced(name, processor, module, kind, size):
    """Centres of squares that, on some grid of the kind, another token noticed most."""
    layers = find_structure(module).layers
    blind_to_neighbours(module, layers[0].path.rpartition(".")[0])
    prompt = PICTURES[name].prompt.format(image=placeholder(name), prompt="what is this ?")
    spots = list(itertools.product(*[[int(length * share) for share in (0.2, 0.5, 0.8)] for length in size]))
    pictures = [Image.new("RGB", size, EMPTY), *(planted(size, spot) for spot in spots)]
    inputs = encode(name, processor, module, pictures, [prompt] * len(pictures))
    is_image = inputs["input_ids"] == image_id(module.config)
    if codes := getattr(getattr(module, "model", None), "vqmodel", None):
        codes.quantize.register_forward_pre_hook(lambda _, args: grade_codes(module, args[0], len(pictures)))
    levels = [
        seen.unflatten(0, (len(pictures), -1)) for seen in decoder_inputs(module, layers[0].path, inputs, is_image)
    ]
    first = encode(name, processor, module, pictures[:1], [prompt])
    grids = GRIDS[kind](GridInputs(module.config, processor.image_processor, first, size, levels[0].shape[1]))
    changes = [(seen[1:] - seen[0]).flatten(2).abs().sum(-1) for seen in levels]
    assert len(grids.cells) == levels[0].shape[1]
    return [
        spot for number, spot in enumerate(spots) if not all(noticed(grids, change[number], spot) for change in changes)
    ]


def noticed(grids, change, spot):
    """On each grid, the token that changed most is within reach of the square, and the one at its middle changed.

    No token without a place did.
    """
    if any(cell is None and moved > 1e-5 * change.max() for cell, moved in zip(grids.cells, change, strict=True)):
        return False
    for tile in range(len(grids.tiles)):
        tokens = [token for token, cell in enumerate(grids.cells) if cell is not None and cell.tile == tile]
        most = max(tokens, key=lambda token: float(change[token]))
        around = [token for token in tokens if covers(grids.box_of(token), spot, -1)]
        if not covers(grids.box_of(most), spot, REACH) or any(change[one] < 1e-3 * change[most] for one in around):
            return False
    return True


def covers(box, spot, reach):
    return all(box[axis] - reach <= spot[axis] <= box[axis + 2] + reach for axis in (0, 1))


def planted(size, spot):
    picture = Image.new("RGB", size, EMPTY)
    (x, y), last = spot, REACH - 1
    ImageDraw.Draw(picture).rectangle((x - REACH, y - REACH, x + last, y + last), fill=(255, 255, 255))
    return picture


def blind_to_neighbours(module, decoder):
    """Outside the decoder attention writes nothing, no norm is over all positions, convolutions do not overlap."""
    with torch.no_grad():
        silenced = [
            parameter.zero_()
            for path, parameter in module.named_parameters()
            if ATTENTION_OUTPUT.search(path) and not BRINGS_PATCHES.search(path) and not path.startswith(decoder)
        ]
    for path, part in module.named_modules():
        if isinstance(part, torch.nn.GroupNorm):
            part.register_forward_hook(lambda _, given, __: given[0].clone())
        if isinstance(part, CONVOLUTIONS) and part.kernel_size[-1] == 3 and not path.startswith(decoder):
            keep_own_pixels(part)
    assert silenced or module.config.model_type in WITHOUT_ENCODER


def keep_own_pixels(convolution):
    """Of three taps the middle one; those on a step's two pixels, the first two where nothing is padded before."""
    start = int(convolution.stride[-1] == 1 or convolution.padding[-1] == 1)
    own = torch.zeros(3)
    own[start : start + convolution.stride[-1]] = 1
    with torch.no_grad():
        convolution.weight.mul_(own[:, None] * own)


@torch.no_grad()
def grade_codes(module, features, n_pictures):
    """Lays codes, and the embeddings of their words, along a line each: the more a place changes, the more its code."""
    codes = module.model.vqmodel.quantize.embedding
    features = features.movedim(-3, -1).reshape(n_pictures, -1, codes.embedding_dim)
    line = torch.linalg.svd((features[1:] - features[0]).flatten(0, 1), full_matrices=False).Vh[0]
    along = features @ line
    steps = torch.linspace(float(along.min()), float(along.max()), codes.num_embeddings)
    codes.weight.copy_(features.mean((0, 1)) + (steps - along.mean())[:, None] * line)
    words = module.model.vocabulary_mapping.img2bpe_mapping_tensor.long()
    module.get_input_embeddings().weight[words] = torch.arange(float(len(words)))[:, None]


def decoder_inputs(module, layer, inputs, is_image):
    """What the first layer is given at image tokens, and later layers at the same ones (deep-stack): tokens, width."""
    given: list[torch.Tensor] = []
    levels: list[torch.Tensor] = []
    handle = module.get_submodule(layer).register_forward_pre_hook(
        lambda _, args, kwargs: given.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    try:
        with torch.no_grad(), stacked_deep(module, levels):
            module(**inputs)
    finally:
        handle.remove()
    return [given[0][is_image], *levels]


@contextmanager
def stacked_deep(module, levels):
    """Puts into `levels` what the image encoder hands to later layers."""
    encoders: list[Any] = [part for part in module.modules() if hasattr(part, "get_image_features")]
    if not encoders:
        yield
        return
    encode_pictures = encoders[-1].get_image_features

    def recorded(*args, **kwargs):
        features = encode_pictures(*args, **kwargs)
        for level in getattr(features, "deepstack_features", None) or []:
            parts = level[1] if isinstance(level[0], int) else level  # Granite 4 Vision: which layer, and what for it
            levels.append(parts if isinstance(parts, torch.Tensor) else torch.cat(list(parts)))
        return features

    encoders[-1].get_image_features = recorded
    try:
        yield
    finally:
        del encoders[-1].get_image_features
