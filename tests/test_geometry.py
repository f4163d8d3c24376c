"""Where image tokens lie: a square is planted in an empty picture, and the tokens that notice it must cover it.

Nothing is taken from our own arithmetic: the family's image processor prepares both pictures, and its vision tower
and projector (tiny, random, with attention switched off, so that patches do not mix) say which tokens changed. That
fixes the whole way: resizing, padding, crops, order of the tiles, merging of patches, tokens that end rows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from mmn.core import ModelFacts
from mmn.errors import UsageError
from mmn.models.adapters import FAMILIES, find_anatomy, find_family
from mmn.models.encoders import Layout
from mmn.models.geometry import GRIDS, WITHOUT_GRID, Cell, Grid, Grids, image_grid
from mmn.models.geometry.grid_inputs import GridInputs
from mmn.models.limber import put_together
from mmn.models.model import Model
from tests.families.pictures import PICTURES
from tests.tiny import IMAGE_ID, LLAMA, MROPE, TOWER, VIDEO_ID, WIDTH, build_family

SIDE, PATCH = 56, 7  # 8 × 8 patches
SIZES = [(150, 100), (90, 160), (97, 41), (120, 120), (61, 133), (30, 23)]  # width, height; the last is enlarged
SQUARE = 5  # pixels of the picture
EMPTY = (30, 30, 30)  # not black: Idefics takes a black tile for padding
PINPOINTS = [[SIDE, SIDE * 2], [SIDE * 2, SIDE], [SIDE * 2, SIDE * 2], [SIDE * 3, SIDE], [SIDE, SIDE * 3]]


@dataclass(frozen=True)
class Case:
    """A family with one way to prepare pictures."""

    model: Model
    is_nested: bool = False

    def inputs(self, size: tuple[int, int]) -> dict[str, Any]:
        """Model inputs for one empty picture, as `encode` makes them."""
        prepared = self._prepare([Image.new("RGB", size, EMPTY)])
        ids = torch.tensor([[1, 5, *[IMAGE_ID] * len(self._features(prepared)), 6]])
        return prepared | {"input_ids": ids}

    def features(self, pictures: list[Image.Image]) -> torch.Tensor:
        """(pictures, image tokens, width) of pictures of one size, in the order in which the decoder is given them."""
        rows = self._features(self._prepare(pictures))
        return rows.view(len(pictures), -1, rows.shape[-1])

    def _prepare(self, pictures: list[Image.Image]) -> dict[str, Any]:
        nested = [[picture] for picture in pictures] if self.is_nested else pictures
        inputs = self.model.processor.image_processor(nested, return_tensors="pt")
        return {name: inputs[name] for name in inputs if name not in ("num_patches", "batch_num_images")}

    def _features(self, prepared: dict[str, Any]) -> torch.Tensor:
        features = self.model.module.get_image_features(**prepared).pooler_output
        return torch.cat([f.flatten(0, -2) for f in (features if isinstance(features, list | tuple) else [features])])


def case(module: Any, image_processor: Any, **more: Any) -> Case:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
            if ("vision" in name or "visual" in name) and is_attention_output(name):
                parameter.zero_()
    module.eval().requires_grad_(False)
    family = find_family(module.config.model_type)
    anatomy = find_anatomy(module, family)
    facts = ModelFacts("tiny", "none", family.model_type, anatomy.n_layers, anatomy.d_mlp)
    processor = type("Processor", (), {"image_processor": image_processor})()
    return Case(Model(module, processor, family, anatomy, facts), **more)


def is_attention_output(name: str) -> bool:
    return any(
        part in name for part in (".out_proj.", "attn.proj.", "attention.projection_layer.", "attention.o_proj.")
    )


TOWER_56: dict[str, Any] = TOWER | {"image_size": SIDE, "patch_size": PATCH}
SIGLIP_60: dict[str, Any] = TOWER_56 | {"image_size": 60}  # 8 patches and 4 pixels that make none


def llava(image_processor: Any, strategy: str = "default") -> Case:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER_56, projection_dim=32),
        text_config=hf.LlamaConfig(**LLAMA),
        image_token_index=IMAGE_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy=strategy,
    )
    return case(hf.LlavaForConditionalGeneration(config), image_processor)


def clip(shortest: int = SIDE) -> Any:
    return CLIPImageProcessorPil(size={"shortest_edge": shortest}, crop_size={"height": SIDE, "width": SIDE})


def llava_on_siglip() -> Case:
    config = hf.LlavaConfig(
        vision_config=hf.SiglipVisionConfig(vision_use_head=False, **SIGLIP_60),
        text_config=hf.LlamaConfig(**LLAMA),
        image_token_index=IMAGE_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return case(hf.LlavaForConditionalGeneration(config), SiglipImageProcessorPil(size={"height": 60, "width": 60}))


def llava_padded() -> Any:
    crop = {"height": SIDE, "width": SIDE}
    return LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": SIDE}, crop_size=crop)


def llava_next(pinpoints: list[list[int]] = PINPOINTS, has_class_token: bool = True) -> Case:
    clip_tower = hf.CLIPVisionConfig(**TOWER_56, projection_dim=32)
    config = hf.LlavaNextConfig(
        vision_config=clip_tower if has_class_token else hf.SiglipVisionConfig(vision_use_head=False, **TOWER_56),
        vision_feature_select_strategy="default" if has_class_token else "full",
        text_config=hf.LlamaConfig(**LLAMA),
        image_token_index=IMAGE_ID,
        vision_feature_layer=-1,
        image_grid_pinpoints=pinpoints,
    )
    crop = {"height": SIDE, "width": SIDE}
    processor = LlavaNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop, image_grid_pinpoints=PINPOINTS)
    return case(hf.LlavaNextForConditionalGeneration(config), processor)


def llava_onevision(budget: int) -> Case:
    pinpoints = [[60 * n, 60 * m] for n in range(1, 4) for m in range(1, 4)]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(vision_use_head=False, **SIGLIP_60),
        text_config=hf.Qwen2Config(**LLAMA),
        image_token_index=IMAGE_ID,
        video_token_index=VIDEO_ID,
        vision_feature_layer=-1,
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio=f"anyres_max_{budget}",
    )
    processor = LlavaOnevisionImageProcessorPil(size={"height": 60, "width": 60}, image_grid_pinpoints=pinpoints)
    return case(hf.LlavaOnevisionForConditionalGeneration(config), processor)


def paligemma() -> Case:
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(vision_use_head=False, **TOWER_56),
        text_config=hf.GemmaConfig(**LLAMA, head_dim=8),
        image_token_index=IMAGE_ID,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return case(hf.PaliGemmaForConditionalGeneration(config), processor)


def qwen(config_type: Any, model_type: Any, vision: dict[str, Any]) -> Case:
    config = config_type(
        text_config=LLAMA | MROPE, vision_config=vision, image_token_id=IMAGE_ID, video_token_id=VIDEO_ID
    )
    processor = Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, min_pixels=56 * 56, max_pixels=140 * 140)
    return case(model_type(config), processor)


def qwen2_vl() -> Case:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 4, "patch_size": PATCH, "mlp_ratio": 2}
    return qwen(hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration, vision)


def qwen2_5_vl() -> Case:
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": WIDTH,
        "intermediate_size": 37,
        "num_heads": 4,
    }
    vision |= {"patch_size": PATCH, "fullatt_block_indexes": [1], "window_size": 4 * PATCH}
    return qwen(hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration, vision)


def internvl(is_cropped: bool) -> Case:
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**TOWER_56),
        text_config=hf.Qwen2Config(**LLAMA),
        image_token_id=IMAGE_ID,
        vision_feature_layer=-1,
        downsample_ratio=0.5,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = GotOcr2ImageProcessorPil(size=size, crop_to_patches=is_cropped, max_patches=6)
    return case(hf.InternVLForConditionalGeneration(config), processor)


def idefics(names: tuple[Any, Any, Any, Any], is_split: bool) -> Case:
    config_type, vision_type, model_type, processor_type = names
    config = config_type(
        vision_config=vision_type(**TOWER_56),
        text_config=hf.LlamaConfig(**LLAMA),
        image_token_id=IMAGE_ID,
        scale_factor=2,
        pad_token_id=0,
    )
    processor = processor_type(
        size={"longest_edge": 3 * SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=is_split
    )
    return case(model_type(config), processor, is_nested=True)


def limber(encoder: Any, image_processor: Any, n_first: int, side: int = SIDE // PATCH) -> Case:
    text = hf.GPTJConfig(n_embd=WIDTH, n_inner=48, n_layer=2, n_head=4, rotary_dim=4, vocab_size=128)
    layout = Layout(side, side, n_first, TOWER["hidden_size"], "the test")
    return case(put_together(hf.GPTJForCausalLM(text), encoder, layout, IMAGE_ID), image_processor)


def beit() -> Case:
    vision = hf.BeitConfig(**TOWER_56, vocab_size=16)
    processor = BeitImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    return limber(hf.BeitModel(vision, add_pooling_layer=False), processor, 1)


def dinov2() -> Case:
    vision = hf.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=60, patch_size=PATCH
    )
    crop = {"height": 60, "width": 60}  # 8 patches and 4 pixels that make none
    return limber(hf.Dinov2Model(vision), BitImageProcessorPil(size={"shortest_edge": 70}, crop_size=crop), 1)


def vit() -> Case:
    vision = hf.ViTConfig(**TOWER_56)
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return limber(hf.ViTModel(vision, add_pooling_layer=False), processor, 1)


def patchified(shortest: int) -> Case:
    """A convolutional network whose places do not overlap: patches, merged 2 × 2 by the next stage."""
    vision = hf.ConvNextConfig(patch_size=4, hidden_sizes=[16, 32], depths=[0, 0], num_stages=2)
    processor = ConvNextImageProcessorPil(size={"shortest_edge": shortest}, crop_pct=0.8)
    return limber(hf.ConvNextModel(vision), processor, 0, side=shortest // 8)


IDEFICS3 = (
    hf.Idefics3Config,
    hf.Idefics3VisionConfig,
    hf.Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
)
SMOLVLM = (hf.SmolVLMConfig, hf.SmolVLMVisionConfig, hf.SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil)
CASES: dict[str, Callable[[], Case]] = {
    "llava, middle crop": lambda: llava(clip()),
    "llava, narrow middle crop": lambda: llava(clip(75)),
    "llava, class token kept": lambda: llava(clip(), strategy="full"),
    "llava, squeezed": lambda: llava(SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})),
    "llava, padded": lambda: llava(llava_padded()),
    "llava on siglip, pixels left over": llava_on_siglip,
    "limber, squeezed": beit,
    "limber on dinov2, cropped, pixels left over": dinov2,
    "limber on vit, squeezed": vit,
    "limber on convnext, cropped": lambda: patchified(64),
    "limber on convnext, squeezed": lambda: patchified(384),
    "llava_next": llava_next,
    "llava_next on siglip, all features": lambda: llava_next(has_class_token=False),
    "llava_onevision": lambda: llava_onevision(9),
    "llava_onevision, over budget": lambda: llava_onevision(2),
    "paligemma": paligemma,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "internvl, one tile": lambda: internvl(False),
    "internvl, crops": lambda: internvl(True),
    "idefics3, one tile": lambda: idefics(IDEFICS3, False),
    "idefics3, split": lambda: idefics(IDEFICS3, True),
    "smolvlm, split": lambda: idefics(SMOLVLM, True),
}

N_SEEN = {  # of 120 planted squares, where it is not all: some lie outside the crop, or among pixels left over
    "llava, middle crop": 72,
    "llava, narrow middle crop": 30,
    "llava, class token kept": 72,
    "llava on siglip, pixels left over": 80,
    "limber on dinov2, cropped, pixels left over": 30,
    "limber on convnext, cropped": 36,
    "llava_onevision": 84,
    "llava_onevision, over budget": 86,
}


@pytest.mark.parametrize("name", CASES)
def test_the_tokens_that_notice_a_planted_square_are_those_that_cover_it(name):
    looking = CASES[name]()
    n_seen = 0
    for size in SIZES:
        grids = image_grid(looking.model, looking.inputs(size), size)
        squares = plant(size)
        features = looking.features([paint(size, None), *(paint(size, square) for square in squares)])
        change = (features[1:] - features[0]).abs().amax(dim=2)
        noticed = change > 1e-4 * change.max()
        for square, tokens in zip(squares, noticed.tolist(), strict=True):
            n_seen += check(grids, tokens, square, slack=shrinkage(name))
    assert n_seen == N_SEEN.get(name, len(SIZES) * len(plant(SIZES[0])))


def plant(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(x0, y0, x1, y1) of squares all over a picture, in its corners, too."""
    corners = [
        tuple(round(share * (length - SQUARE)) for share, length in zip(shares, size, strict=True))
        for shares in itertools.product((0, 0.3, 0.5, 0.83, 1), (0, 0.5, 0.66, 1))
    ]
    return [(x, y, x + SQUARE, y + SQUARE) for x, y in corners]


def paint(size: tuple[int, int], square: tuple[int, int, int, int] | None) -> Image.Image:
    picture = Image.new("RGB", size, EMPTY)
    if square:
        picture.paste((255, 255, 255), square)
    return picture


def shrinkage(name: str) -> float:
    """Tokens by which neighbours may be mixed beyond the resampling of pixels."""
    return 1.0 if "over budget" in name else 0.0


def check(grids: Grids, noticed: list[bool], planted: tuple[int, int, int, int], slack: float) -> bool:
    """Every grid's token around the square's centre changed, and no token far from it; whether any was around it."""
    x0, y0, x1, y1 = planted
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    is_seen = False
    for token, is_noticed in enumerate(noticed):
        box = grids.box_of(token)
        if box is None:
            assert not is_noticed, f"token {token} stands for no place and noticed the square {planted}"
            continue
        if box[0] <= centre_x < box[2] and box[1] <= centre_y < box[3]:
            is_seen = True
            assert is_noticed, f"token {token} covers {box} and did not notice the square {planted}"
        if is_noticed:
            reach_x, reach_y = (blur(box[i + 2] - box[i], slack) for i in (0, 1))
            distance_x = max(x0 - box[2], box[0] - x1, 0.0)
            distance_y = max(y0 - box[3], box[1] - y1, 0.0)
            assert distance_x <= reach_x, f"token {token} covers {box} and noticed the square {planted}"
            assert distance_y <= reach_y, f"token {token} covers {box} and noticed the square {planted}"
    return is_seen


def blur(span: float, slack: float) -> float:
    """How far a token sees past its span: three pixels of the canvas (Lanczos), at least three of the picture.

    A token is at least PATCH pixels of its canvas, so that is 3/7 of its span.
    """
    return max(3 * span / PATCH, 3.0) + slack * span


def test_every_family_declares_its_kind_of_grid_and_every_grid_is_tested():
    declared = {family.grid for family in FAMILIES.values()}
    assert declared <= set(GRIDS) | set(WITHOUT_GRID) | {"unchecked"}
    families = {name for name, family in FAMILIES.items() if family.grid in GRIDS}
    planted_elsewhere = {name for name, picture in PICTURES.items() if picture.grid in GRIDS}  # families/test_places
    assert families <= {name.split(",")[0].split(" ")[0] for name in CASES} | planted_elsewhere
    assert all(FAMILIES[name].grid == PICTURES[name].grid for name in families & planted_elsewhere)


@pytest.mark.parametrize("name", ["instructblip", "blip-2"])
def test_queries_have_no_place(name):
    model, inputs = build_family(name)
    with pytest.raises(UsageError, match="Q-Former"):
        image_grid(model, inputs, (100, 100))


def test_what_was_not_checked_is_refused():
    size = (90, 60)
    looking = llava(clip())
    inputs = looking.inputs(size)
    with pytest.raises(UsageError, match=r"64 tokens and the prompt has 63"):
        image_grid(looking.model, inputs | {"input_ids": inputs["input_ids"][:, :-2]}, size)
    with pytest.raises(UsageError, match=r"checked are those of Beit, Bit, CLIP"):
        image_grid(llava(Qwen2VLImageProcessorPil()).model, inputs, size)
    other = llava(SiglipImageProcessorPil(size={"height": 84, "width": 84})).model
    with pytest.raises(UsageError, match=r"it gave the model \(56, 56\) pixels"):
        image_grid(other, inputs, size)
    with pytest.raises(UsageError, match=r"different image_grid_pinpoints"):
        image_grid(llava_next([[SIDE, SIDE]]).model, inputs, size)
    kept = llava_next()
    kept.model.module.config.vision_feature_select_strategy = "full"
    with pytest.raises(UsageError, match=r"'full' keeps class tokens among the patches"):
        image_grid(kept.model, inputs, size)


def test_a_crop_ends_inside_the_picture_and_padding_outside():
    size = (150, 100)
    cropped, padded = llava(clip()), llava(llava_padded())
    assert image_grid(cropped.model, cropped.inputs(size), size).tiles[0].box == pytest.approx((25, 0, 125, 100), abs=1)
    assert image_grid(padded.model, padded.inputs(size), size).tiles[0].box == pytest.approx((0, -25, 150, 125))


@given(st.integers(1, 9), st.integers(1, 9), st.floats(-50, 50), st.floats(1, 500))
def test_even_tokens_tile_their_box(n_rows, n_columns, start, length):
    box = (start, 0.0, start + length, 100.0)
    grid = Grid.even(n_rows, n_columns, box)
    assert grid.shape == (n_rows, n_columns)
    assert grid.box == pytest.approx(box)
    areas = [
        (x1 - x0) * (y1 - y0)
        for row in range(n_rows)
        for column in range(n_columns)
        for x0, y0, x1, y1 in [grid.cell(row, column)]
    ]
    assert sum(areas) == pytest.approx(length * 100)


def test_two_tokens_in_one_place_are_our_bug():
    grid = Grid.even(1, 2, (0, 0, 2, 1))
    with pytest.raises(AssertionError):
        Grids((grid,), (Cell(0, 0, 0), Cell(0, 0, 0)))
    assert Grids((grid,), (Cell(0, 0, 1), None, Cell(0, 0, 0))).box_of(0) == (1.0, 0.0, 2.0, 1.0)


def test_a_picture_cut_into_parts_has_no_even_grid():
    """LFM2 cuts large pictures; nobody looked where the tokens of its parts lie."""
    asked = {"spatial_shapes": torch.tensor([[4, 6], [2, 2]])}
    parts = GridInputs(SimpleNamespace(model_type="lfm2_vl"), None, asked, (120, 84), 28)
    with pytest.raises(UsageError, match="cuts the picture into 2 parts"):
        GRIDS["resized"](parts)
    whole = replace(parts, inputs={"spatial_shapes": torch.tensor([[4, 6]])}, n_tokens=6)
    assert GRIDS["resized"](whole).tiles == (Grid.even(2, 3, (0, 0, 120, 84)),)
    with pytest.raises(UsageError, match="5 image tokens are no squares of 4 × 6"):
        GRIDS["resized"](replace(whole, n_tokens=5))


@pytest.mark.parametrize(
    ("shape", "settings", "said"),
    [
        ((2, 3, 56, 56), {}, "it crops or pads pictures, or gives several for one"),
        ((1, 3, 56, 56), {"do_pad": True}, "it crops or pads pictures, or gives several for one"),
        ((1, 3, 56, 56), {"do_center_crop": True}, "it crops or pads pictures, or gives several for one"),
        ((1, 3, 42, 56), {}, "it gave the model (42, 56) pixels (height, width), not (42, 42)"),
    ],
)
def test_what_is_no_squeezed_square_has_no_even_square_grid(shape, settings, said):
    """Tokens of other pictures, as of Gemma 3's crops, may be a square's number, too."""
    config, prepared = SimpleNamespace(model_type="gemma3"), {"pixel_values": torch.zeros(shape)}
    with pytest.raises(UsageError, match=re.escape(said)):
        GRIDS["squared"](GridInputs(config, SimpleNamespace(**settings), prepared, (120, 84), 16))


def test_settings_that_leave_no_token_are_refused_in_one_line():
    """A processor may scale to less than a patch; dividing by the number of tokens then failed with a traceback."""
    looking = idefics(IDEFICS3, True)
    inputs = looking.inputs((90, 60))
    looking.model.module.config.scale_factor = 0
    with pytest.raises(
        UsageError, match=r"^idefics3: its Idefics3ImageProcessorPil does not say where .*: Zero\S+: .*$"
    ):
        image_grid(looking.model, inputs, (90, 60))
