"""The kind of grid declared for a type is right: a square planted in an empty picture is noticed by the tokens on it.

As in `tests/test_geometry.py`, nothing is taken from our own arithmetic: the type's processor prepares the pictures,
and its image encoder, with attention switched off so that patches do not mix, says what the decoder is given at each
image token.
"""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from PIL import Image, ImageDraw

from mmn.models.adapters.structure import find_structure
from mmn.models.geometry import GRIDS
from mmn.models.geometry.grid_inputs import GridInputs
from tests.families.inputs import image_id
from tests.families.pictures import PICTURES, PLACES, READ_ONLY
from tests.families.processors import load_checkpoint, placeholder
from tests.families.test_exact import EXACT
from tests.families.test_processors import encode, skip_without_packages

SIZES = [(120, 84), (70, 100)]
EMPTY = (30, 30, 30)  # not black: Idefics takes a black tile for padding
REACH = 3  # half a square's side, in pixels
WITH_GRID = [name for name, picture in PICTURES.items() if picture.grid in GRIDS]
NOT_LOADED = [name for name in WITH_GRID if name not in EXACT]  # the others: `test_loaded.py`, the same checkpoint
WITHOUT_ENCODER = ("fuyu", "gemma4_unified")  # patches go straight into the decoder
ATTENTION_OUTPUT = re.compile(
    r"(o_proj|out_proj|attn\.proj|attention\.proj|projection_layer|attention\.output\.dense)\."
)


@pytest.mark.parametrize("name", NOT_LOADED)
def test_a_planted_square_of_a_type_that_is_not_scored_is_noticed_where_its_grid_says(name, tmp_path):
    skip_without_packages(name)
    a_planted_square_is_noticed_where_the_declared_grid_says(name, *load_checkpoint(name, tmp_path))


def a_planted_square_is_noticed_where_the_declared_grid_says(name, processor, module):
    """Changes the module: attention writes nothing outside the decoder afterwards."""
    for size in SIZES:
        assert misplaced(name, processor, module, PICTURES[name].grid, size) == []


@pytest.mark.parametrize("name", ["glm5_next", "kimi_k25"])
def test_merged_has_the_right_number_of_tokens_in_wrong_places_where_pictures_are_padded(name, tmp_path):
    skip_without_packages(name)
    assert misplaced(name, *load_checkpoint(name, tmp_path), "merged", SIZES[1])


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
    seen = decoder_input(module, layers[0].path, inputs)[is_image].unflatten(0, (len(pictures), -1))
    changes = (seen[1:] - seen[0]).flatten(2).abs().sum(-1)
    first = encode(name, processor, module, pictures[:1], [prompt])
    grids = GRIDS[kind](GridInputs(module.config, processor.image_processor, first, size, seen.shape[1]))
    assert len(grids.cells) == seen.shape[1]
    return [spot for spot, change in zip(spots, changes, strict=True) if not noticed(grids, change, spot)]


def noticed(grids, change, spot):
    """On each grid, the token that changed most is within reach of the square."""
    for tile in range(len(grids.tiles)):
        tokens = [token for token, cell in enumerate(grids.cells) if cell is not None and cell.tile == tile]
        x0, y0, x1, y1 = grids.box_of(max(tokens, key=lambda token: float(change[token])))
        if not (x0 - REACH <= spot[0] <= x1 + REACH and y0 - REACH <= spot[1] <= y1 + REACH):
            return False
    return True


def planted(size, spot):
    picture = Image.new("RGB", size, EMPTY)
    (x, y), last = spot, REACH - 1
    ImageDraw.Draw(picture).rectangle((x - REACH, y - REACH, x + last, y + last), fill=(255, 255, 255))
    return picture


def blind_to_neighbours(module, decoder):
    """Attention outside the decoder writes nothing."""
    with torch.no_grad():
        silenced = [
            parameter.zero_()
            for path, parameter in module.named_parameters()
            if ATTENTION_OUTPUT.search(path) and not path.startswith(decoder)
        ]
    assert silenced or module.config.model_type in WITHOUT_ENCODER


def decoder_input(module, layer, inputs):
    """What the first layer is given: batch, positions, width (and streams)."""
    given = []
    handle = module.get_submodule(layer).register_forward_pre_hook(
        lambda _, args, kwargs: given.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    try:
        with torch.no_grad():
            module(**inputs)
    finally:
        handle.remove()
    return given[0]
