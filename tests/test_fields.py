"""Where units look: the planted unit that sees one patch, bilinear maps, masks, overlaps, their controls."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.models.geometry import Cell, Grid, Grids
from mmn.models.image_tokens import image_positions
from mmn.reading.captions import caption_batch
from mmn.reading.hooks import capture_units
from mmn.units.heat_maps import average_map, best_iou, heat_map, iou, mask_at, overlay
from mmn.units.receptive_fields import FieldMaps, FieldRow, control_units, field_rows, unit_maps
from tests.tiny import build_family

SIZE = (120, 80)  # width, height


def grid_of(n_rows: int, n_columns: int, box=(0.0, 0.0, 120.0, 80.0)) -> Grids:
    cells = tuple(Cell(0, row, column) for row in range(n_rows) for column in range(n_columns))
    return Grids((Grid.even(n_rows, n_columns, box),), cells)


def picture_of(size=SIZE) -> Image.Image:
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize(size)


def test_a_map_is_the_token_values_at_their_centres_and_bilinear_between():
    heat = heat_map(np.array([0, 3, 6, 1, 4, 7], np.float32), grid_of(2, 3), SIZE)
    assert heat.shape == (80, 120)
    assert heat[20, 59:61].mean() == pytest.approx(3, abs=0.04)  # the middle token of the upper row
    assert heat[20, 39:41].mean() == pytest.approx(1.5, abs=0.04)  # halfway between two
    assert heat[39:41, 60].mean() == pytest.approx(3.5, abs=0.04)
    assert heat[0, 0] == 0  # flat beyond the centres
    assert heat[79, 119] == 7


def test_a_map_agrees_with_torch_where_tokens_are_even():
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(values[None, None], size=(80, 120), mode="bilinear")[0, 0]
    heat = heat_map(values.flatten().numpy(), grid_of(5, 7), SIZE)
    assert np.allclose(heat, expected.numpy(), atol=1e-5)


def test_what_the_model_was_not_shown_is_nan_and_never_in_a_mask():
    heat = heat_map(np.arange(4, dtype=np.float32), grid_of(2, 2, (20, 0, 100, 80)), SIZE)
    assert np.isnan(heat[:, :20]).all()
    assert np.isnan(heat[:, 100:]).all()
    assert not np.isnan(heat[:, 20:100]).any()
    mask = mask_at(heat, 75.0)
    assert not mask[:, :20].any()
    assert mask.sum() == pytest.approx(0.25 * 80 * 80, rel=0.05)


def test_padding_outside_the_picture_is_cut_off():
    heat = heat_map(np.array([0, 1, 2, 3], np.float32), grid_of(4, 1, (0, -40, 120, 120)), SIZE)
    assert not np.isnan(heat).any()
    assert heat[0, 0] == pytest.approx(0.5, abs=0.02)
    assert heat[79, 0] == pytest.approx(2.5, abs=0.02)


def test_grids_that_lie_over_one_another_are_averaged_and_tokens_without_a_place_passed_over():
    tiles = (Grid.even(1, 1, (0, 0, 120, 80)), Grid.even(1, 1, (0, 0, 60, 80)))
    heat = heat_map(np.array([1, 99, 3], np.float32), Grids(tiles, (Cell(0, 0, 0), None, Cell(1, 0, 0))), SIZE)
    assert (heat[:, :60] == 2).all()
    assert (heat[:, 60:] == 1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99), st.floats(-3, 3), st.floats(0.1, 5))
def test_maps_stay_within_their_values_and_masks_do_not_depend_on_unit_or_zero(n_rows, n_columns, seed, zero, unit):
    values = np.random.default_rng(seed).normal(size=n_rows * n_columns).astype(np.float32)
    grids = grid_of(n_rows, n_columns)
    heat = heat_map(values, grids, SIZE)
    assert values.min() - 1e-5 <= heat.min() <= heat.max() <= values.max() + 1e-5
    scaled = heat_map((values * unit + zero).astype(np.float32), grids, SIZE)
    assert iou_or_one(mask_at(heat), mask_at(scaled)) > 0.97  # rounding moves pixels at the threshold


def iou_or_one(first, second) -> float:
    return iou(first, second) if second.any() else float(not first.any())


def test_averaging_units_averages_their_maps():
    values = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    maps = [heat_map(one, grid_of(2, 3), SIZE) for one in values[:3]]
    assert np.allclose(heat_map(average_map(values, 3), grid_of(2, 3), SIZE), np.mean(maps, axis=0), atol=1e-5)
    with pytest.raises(AssertionError):
        average_map(values, 5)


def test_iou_by_hand():
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    first[:2], second[1:3] = True, True
    assert iou(first, second) == pytest.approx(4 / 12)
    assert iou(first, first) == 1
    assert iou(first, ~first) == 0
    with pytest.raises(AssertionError):
        iou(first, np.zeros((4, 4), bool))


def test_an_object_s_size_caps_the_overlap():
    """A mask of 5 % of the picture cannot reach an IoU of 1 with an object of any other size."""
    sizes = {"small": (0, 0, 12, 8), "fitting": (0, 0, 24, 20), "large": (0, 0, 60, 80)}  # 1 %, 5 %, half of it
    fitting = boxes(**sizes)["fitting"]
    found = {name: best_iou(np.roll(fitting, 40), own) for name, own in boxes(**sizes).items()}
    assert found == {"small": pytest.approx(0.2), "fitting": 1, "large": pytest.approx(0.1)}
    for values in np.random.default_rng(0).normal(size=(50, 24)).astype(np.float32):
        mask = mask_at(heat_map(values, grid_of(4, 6), SIZE))
        for own in boxes(**sizes).values():
            assert iou(mask, own) <= best_iou(mask, own) <= 1
    assert best_iou(np.zeros_like(fitting), fitting) == 0


def boxes(**by_lemma: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
    masks = {lemma: np.zeros((SIZE[1], SIZE[0]), bool) for lemma in by_lemma}
    for lemma, (x0, y0, x1, y1) in by_lemma.items():
        masks[lemma][y0:y1, x0:x1] = True
    return masks


def test_rows_of_a_unit_that_looks_at_its_object():
    """Token (1, 1) of 4 × 6 is the dog's; unit 0 of layer 2 is active there, the controls elsewhere."""
    masks = boxes(dog=(20, 20, 40, 40), cat=(80, 40, 120, 80), owl=(0, 60, 20, 80))
    units = (Neuron(2, 0), Neuron(3, 5))
    controls = (Neuron(2, 7), Neuron(3, 8))
    values = np.zeros((4, 24), np.float32)
    values[0, 7] = values[1, 16] = values[2, 7] = values[3, 23] = 1  # 7 is the dog's token, 16 and 23 the cat's
    maps = FieldMaps((*units, *controls), values, grid_of(4, 6), SIZE)
    first, second = field_rows(maps, "image", "dogs", "contribution", units, controls, masks)
    assert (first.image_id, first.noun, first.rank, first.layer, first.unit) == ("image", "dogs", 1, 2, 0)
    assert first.iou > 0.75
    assert first.iou_other == 0
    assert first.iou_random == first.iou  # this layer's control looks at the dog, too
    assert (second.rank, second.iou, second.iou_random) == (2, 0, 0)
    assert second.iou_other == pytest.approx(iou(mask_at(heat_map(values[1], maps.grids, SIZE)), masks["cat"]) / 2)
    assert {(row.selection, row.found_on) for row in (first, second)} == {("same", None)}
    assert first.iou <= first.iou_best <= 20 * 20 / 400
    (other, _) = field_rows(maps, "image", "dogs", "contribution", units, controls, masks, "elsewhere")
    assert (other.selection, other.found_on, other.iou) == ("held-out", "elsewhere", first.iou)
    (alone, _) = field_rows(maps, "image", "dog", "contribution", units, controls, {"dog": masks["dog"]})
    assert alone.iou_other is None


def test_an_object_outside_the_crop_has_no_rows_and_one_across_its_edge_counts_inside():
    units = (Neuron(0, 0),)
    values = np.array([[0, 1, 0, 0]], np.float32)
    maps = FieldMaps(units, values, grid_of(2, 2, (40, 0, 120, 80)), SIZE)
    masks = boxes(dog=(0, 0, 40, 80), cat=(0, 0, 80, 40), owl=(40, 0, 80, 40))
    assert list(field_rows(maps, "image", "dog", "contribution", units, units, masks)) == []
    (cat,) = field_rows(maps, "image", "cat", "contribution", units, units, masks)
    (owl,) = field_rows(maps, "image", "owl", "contribution", units, units, masks)
    assert cat.iou == owl.iou


@settings(max_examples=25, deadline=None)
@given(st.lists(st.builds(Neuron, st.integers(0, 3), st.integers(0, 19)), unique=True, min_size=1, max_size=20))
def test_controls_have_the_layers_of_the_units_and_no_unit_twice(units):
    controls = control_units(units, [20] * 4, ("0", "image", "dog", "contribution"))
    assert sorted(one.layer for one in controls) == sorted(one.layer for one in units)
    assert len(set(controls)) == len(controls)
    assert all(0 <= one.unit < 20 for one in controls)
    assert controls == control_units(units, [20] * 4, ("0", "image", "dog", "contribution"))


def test_another_draw_for_another_noun():
    units = [Neuron(0, unit) for unit in range(10)]
    assert control_units(units, [500] * 20, ("0", "dog")) != control_units(units, [500] * 20, ("0", "cat"))


def test_maps_are_the_activations_of_the_captioning_pass(tiny):
    """Every unit at every position against a hook of our own, and nothing is left behind on the model."""
    prompt = tiny.exact_prompt(tiny.default_prompt)
    units = [Neuron(2, 5), Neuron(0, 47), Neuron(2, 5), Neuron(1, 0)]
    seen: list[torch.Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _module, args: seen.append(args[0].detach()))
        for layer in tiny.anatomy.ffn_outs
    ]
    try:
        caption_batch(tiny, [picture_of()], prompt, 1)
    finally:
        for handle in handles:
            handle.remove()
    maps = unit_maps(tiny, picture_of(), prompt, units)
    positions = image_positions(tiny, tiny.encode([picture_of()], prompt))[0]
    assert maps.values.shape == (4, 64) == (len(units), int(positions.sum()))
    for one, values in zip(units, maps.values, strict=True):
        assert np.allclose(values, seen[one.layer][0, positions, one.unit].numpy(), atol=1e-6)
    assert not any(layer._forward_pre_hooks for layer in tiny.anatomy.ffn_outs)


def test_image_tokens_do_not_know_what_follows_them(tiny):
    units = [Neuron(layer, unit) for layer in range(3) for unit in range(0, 48, 7)]
    prompt = tiny.exact_prompt(tiny.default_prompt)
    first, second = (unit_maps(tiny, picture_of(), text, units) for text in (prompt, prompt + " small dog on the"))
    assert np.allclose(first.values, second.values, atol=1e-5)


def test_units_change_most_where_the_picture_did(tiny):
    """From a black picture to one with a white square, through processor, tower and decoder, back to its pixels."""
    prompt = tiny.exact_prompt(tiny.default_prompt)
    picture = Image.new("RGB", (200, 150))
    picture.paste((255, 255, 255), (110, 30, 150, 70))
    masks = {"ball": np.asarray(picture.convert("L")) > 0}
    units = [Neuron(0, unit) for unit in range(48)]
    plain = unit_maps(tiny, Image.new("RGB", picture.size), prompt, units)
    maps = unit_maps(tiny, picture, prompt, units)
    change = FieldMaps(maps.units, np.abs(maps.values - plain.values), maps.grids, maps.picture_size)
    heat = heat_map(change.values.mean(axis=0), change.grids, picture.size)
    y, x = np.unravel_index(np.nanargmax(heat), heat.shape)
    assert masks["ball"][y, x], (x, y)


def test_a_picture_gives_rows_for_the_nouns_that_have_masks(tiny):
    prompt = tiny.exact_prompt(tiny.default_prompt)
    ranked = {"dogs": [Neuron(1, 4), Neuron(2, 6)], "grass": [Neuron(0, 1)]}
    masks = boxes(dog=(30, 20, 60, 60), cat=(70, 40, 90, 70))

    def rows_of(nouns: dict[str, list[Neuron]]) -> list[FieldRow]:
        """As annotating does it: the units and random ones in one pass."""
        controls = {noun: control_units(units, [48] * 20, ("0", "image", noun)) for noun, units in nouns.items()}
        needed = sorted({one for units in (*nouns.values(), *controls.values()) for one in units})
        maps = unit_maps(tiny, picture_of(), prompt, needed)
        of = [("image", noun, "contribution", units, controls[noun], masks) for noun, units in nouns.items()]
        return [row for one in of for row in field_rows(maps, *one)]

    rows = rows_of(ranked)
    assert [(row.noun, row.rank, row.layer, row.unit) for row in rows] == [("dogs", 1, 1, 4), ("dogs", 2, 2, 6)]
    columns = "image_id noun method rank layer unit iou iou_other iou_random selection found_on iou_best"
    assert list(asdict(rows[0])) == columns.split()
    assert rows == rows_of(ranked)
    assert rows_of({"grass": [Neuron(0, 1)]}) == []


def test_a_family_without_a_grid_is_refused(monkeypatch):
    model, inputs = build_family("blip-2")
    monkeypatch.setattr(type(model), "encode", lambda *_: inputs)
    with pytest.raises(UsageError, match="Q-Former"):
        unit_maps(model, picture_of(), "a", [Neuron(0, 0)])


def test_units_are_captured_for_every_row_and_position_whatever_shape_the_decoder_uses():
    """OPT hands its FFN all rows' positions as one list."""
    model, inputs = build_family("blip-2")
    inputs = {name: torch.cat([value, value.flip(0)]) for name, value in inputs.items()}
    inputs["pixel_values"][1] += 1
    with capture_units(model, [Neuron(1, 3), Neuron(0, 2)]) as captured:
        model.module(**inputs)
    assert captured.read().shape == (2, inputs["input_ids"].shape[1], 2)
    with capture_units(model, [Neuron(0, 2)]) as alone:
        model.module(**{name: value[:1] for name, value in inputs.items()})
    assert torch.allclose(alone.read()[0, :, 0], captured.read()[0, :, 1], atol=1e-5)


def test_units_that_are_never_reached_are_our_bug(tiny):
    with pytest.raises(AssertionError, match="never fired"), capture_units(tiny, [Neuron(0, 0)]):
        pass
    for missing in (Neuron(3, 0), Neuron(0, 48)):
        with pytest.raises(AssertionError, match=str(missing)), capture_units(tiny, [missing]):
            pass
    with pytest.raises(KeyError), capture_units(tiny, [Neuron(0, 0)]):
        raise KeyError
    assert not any(layer._forward_pre_hooks for layer in tiny.anatomy.ffn_outs)


def test_an_overlay_is_brightest_at_the_peak_and_grey_outside_the_crop():
    heat = heat_map(np.array([0, 0, 0, 1], np.float32), grid_of(2, 2, (20, 0, 120, 80)), SIZE)
    picture = Image.new("RGB", SIZE, (90, 30, 30))
    laid = np.asarray(overlay(picture, heat), int).sum(axis=2)
    assert overlay(picture, heat).size == SIZE
    assert laid.argmax() in np.flatnonzero(heat == 1)
    assert len(set(np.asarray(overlay(picture, heat))[5, 5].tolist())) == 1
    assert np.array_equal(np.asarray(overlay(picture, heat, opacity=0.0))[:, 20:], np.asarray(picture)[:, 20:])
    flat = overlay(picture, np.ones((80, 120), np.float32), opacity=1.0)
    assert flat.getpixel((60, 40)) == (0, 0, 4)


def test_brighter_means_more():
    ramp = np.tile(np.linspace(0, 1, 120, dtype=np.float32), (80, 1))
    grey = np.asarray(overlay(Image.new("RGB", SIZE), ramp, opacity=1.0).convert("L"), int)[0]
    assert (np.diff(grey) >= 0).all()
