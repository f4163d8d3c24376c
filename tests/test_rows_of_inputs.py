"""Some pictures of a batch, and one picture several times, in the inputs of families that list all pictures' pixels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmn.errors import UsageError
from mmn.reading.rows import repeated, some_of

IMAGE = 9
MODEL: Any = SimpleNamespace(image_token_id=IMAGE, facts=SimpleNamespace(name="m"))
# Two pictures of one and of two tiles, two image tokens each.
IDS = torch.tensor([[0, 0, IMAGE, IMAGE, 1], [IMAGE, IMAGE, IMAGE, IMAGE, 1]])
TILES = torch.arange(3.0)[:, None].expand(3, 4)


def test_tiles_belong_to_the_picture_whose_image_tokens_they_are() -> None:
    inputs = {"input_ids": IDS, "pixel_values": TILES, "image_sizes": torch.tensor([[4, 4], [4, 8]])}
    second = some_of(MODEL, inputs, [1])
    assert second["input_ids"].tolist() == IDS[1:].tolist()
    assert second["pixel_values"][:, 0].tolist() == [1, 2]
    assert second["image_sizes"].tolist() == [[4, 8]]
    assert some_of(MODEL, inputs, [1, 0])["pixel_values"][:, 0].tolist() == [1, 2, 0]
    assert some_of(MODEL, inputs, [0, 1]) is inputs


def test_declared_sizes_tell_patches_apart() -> None:
    by_grid = {"input_ids": IDS, "pixel_values": torch.arange(7.0)[:, None]}
    by_grid["image_grid_thw"] = torch.tensor([[1, 1, 3], [1, 2, 2]])
    assert some_of(MODEL, by_grid, [1])["pixel_values"][:, 0].tolist() == [3, 4, 5, 6]
    side_by_side = {"input_ids": IDS, "pixel_values": torch.arange(14.0)[None, None]}
    side_by_side["target_sizes"] = torch.tensor([[1, 3], [2, 2]])
    second = some_of(MODEL, side_by_side, [1])
    assert second["pixel_values"].tolist() == [[[6, 7, 8, 9, 10, 11, 12, 13]]]
    twice = repeated(second, 2)
    assert twice["pixel_values"].shape == (1, 1, 16)
    assert twice["target_sizes"].tolist() == [[2, 2], [2, 2]]


def test_pooled_patches_are_counted_from_each_pictures_own_first() -> None:
    """And the crops of each are those that are counted: they have not as many image tokens each."""
    inputs = {"input_ids": IDS, "pixel_values": TILES}
    inputs["image_token_pooling"] = torch.tensor([[0, 3], [4, 7], [1, -1], [8, 11], [9, -1]])
    inputs |= {"image_num_crops": torch.tensor([2, 1]), "image_grids": torch.tensor([[1, 1, 1, 2], [1, 2, 0, 0]])}
    second = some_of(MODEL, inputs, [1])
    assert second["image_token_pooling"].tolist() == [[0, 3], [1, -1]]
    assert second["pixel_values"].tolist() == TILES[2:].tolist()
    assert some_of(MODEL, inputs, [0])["image_token_pooling"].tolist() == [[0, 3], [4, 7], [1, -1]]


@pytest.mark.parametrize("counts", [torch.tensor([0, 2]), [0, 2]])
def test_crops_beside_whole_pictures_are_those_that_were_counted(counts: Any) -> None:
    inputs = {"input_ids": IDS, "pixel_values_local": torch.arange(2.0)[:, None], "num_local_patches": counts}
    assert some_of(MODEL, inputs, [1])["pixel_values_local"].tolist() == [[0], [1]]
    first = some_of(MODEL, inputs, [0])
    assert list(first["num_local_patches"]) == [0]
    assert "pixel_values_local" not in first
    assert list(repeated(first, 2)["num_local_patches"]) == [0, 0]


@pytest.mark.parametrize("name", ["pixel_values", "something_else"])
def test_what_cannot_be_told_apart_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} of \(5, 1\) cannot be told apart by pictures; .*--batch-size 1"):
        some_of(MODEL, {"input_ids": IDS, name: torch.zeros(5, 1)}, [0])
