"""LiMBeR from three small checkpoints, saved and described the way a user would; exact, captioned, mapped, refused."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file

from mmn.errors import ModelError, UnsupportedModelError, UsageError
from mmn.models.encoders import FIRST
from mmn.models.geometry import image_grid
from mmn.models.limber import PLACEHOLDER
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.captions import caption_batch
from mmn.runs.doctor import examine
from mmn.specimen.tokenizer import build_tokenizer

N_PATCHES, WIDTH, VISION_WIDTH = 16, 32, 24


def save_parts(folder: Path) -> Path:
    """The three parts below `folder`, and the file that names them."""
    torch.manual_seed(0)
    words = build_tokenizer()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=words.backend_tokenizer, eos_token=words.eos_token, bos_token=words.bos_token
    )
    text = hf.GPTJConfig(
        n_embd=WIDTH, n_inner=48, n_layer=3, n_head=4, rotary_dim=4, n_positions=128, vocab_size=len(words) + 8
    )
    vision = hf.BeitConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        vocab_size=16,
        use_absolute_position_embeddings=True,
    )
    language_model = hf.GPTJForCausalLM(text)
    with torch.no_grad():
        for parameter in language_model.parameters():
            parameter.copy_(parameter * 4 + torch.randn_like(parameter) * 0.05)  # biases of 0 hide mistakes
    language_model.generation_config.eos_token_id = words.eos_token_id
    language_model.save_pretrained(folder / "gptj")
    tokenizer.save_pretrained(folder / "gptj")
    hf.BeitModel(vision).save_pretrained(folder / "beit")
    size = {"height": 56, "width": 56}
    hf.BeitImageProcessor(size=size, crop_size=size, do_center_crop=False).save_pretrained(folder / "beit")
    projection = {"weight": torch.randn(WIDTH, VISION_WIDTH), "bias": torch.randn(WIDTH)}
    save_file(projection, folder / "projection.safetensors")
    file = folder / "limber.json"
    parts = {"language_model": "gptj", "vision_model": "beit", "projection": "projection.safetensors"}
    file.write_text(json.dumps(parts))
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_parts(tmp_path_factory.mktemp("limber"))


@pytest.fixture(scope="module")
def model(file: Path) -> Model:
    return load_model(f"limber:{file}", device="cpu")


def picture(shade: int = 90) -> Image.Image:
    made = Image.linear_gradient("L").resize((80, 60)).convert("RGB")
    made.paste((200, shade, 40), (10, 10, 40, 30))
    return made


def test_the_logit_adds_up(model: Model) -> None:
    found = examine(model)
    assert found["exactness_residual"] < 1e-5
    assert (found["n_image_tokens"], found["family"], found["norm"]) == (N_PATCHES, "limber", "layer")


def test_captions_are_what_the_text_decoder_says_of_projected_patches(model: Model) -> None:
    """Against transformers alone: embeddings put together by hand, one forward pass for each token."""
    prompt = model.exact_prompt(model.default_prompt)
    assert prompt == f"{PLACEHOLDER}A picture of"
    caption = caption_batch(model, [picture(), picture(200)], prompt, 5).captions[0]
    pixels = model.processor.image_processor(images=[picture()], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        patches = model.module.vision_model(pixels).last_hidden_state[:, 1:]
        embed = model.module.language_model.get_input_embeddings()
        said = model.tokenizer("A picture of", return_tensors="pt").input_ids
        for expected in caption.token_ids:
            embeddings = torch.cat([model.module.projection(patches), embed(said)], dim=1)
            best = model.module.language_model(inputs_embeds=embeddings).logits[0, -1].argmax()
            assert best == expected
            said = torch.cat([said, best[None, None]], dim=1)


def test_every_patch_has_its_place_in_the_picture(model: Model) -> None:
    inputs = model.encode([picture()], model.exact_prompt("A picture of"))
    grids = image_grid(model, inputs, (80, 60))
    assert grids.box_of(0) == pytest.approx((0, 0, 20, 15))
    assert grids.box_of(N_PATCHES - 1) == pytest.approx((60, 45, 80, 60))


def test_any_part_changes_the_fingerprint(file: Path, model: Model, tmp_path: Path) -> None:
    again = save_parts(tmp_path)
    assert load_model(f"limber:{again}").facts.fingerprint == model.facts.fingerprint
    save_file(
        {"weight": torch.zeros(WIDTH, VISION_WIDTH), "bias": torch.zeros(WIDTH)}, tmp_path / "projection.safetensors"
    )
    assert load_model(f"limber:{again}").facts.fingerprint != model.facts.fingerprint


def test_a_token_may_come_before_the_picture(file: Path, model: Model) -> None:
    started = file.with_name("started.json")
    started.write_text(json.dumps(json.loads(file.read_text()) | {"start": "<s>"}))
    other = load_model(f"limber:{started}", device="cpu")
    inputs = other.encode([picture()], other.exact_prompt("A picture of"))
    ids = inputs["input_ids"][0]
    places = torch.eq(ids, other.image_token_id or -1)
    assert ids[0] == other.tokenizer.convert_tokens_to_ids("<s>")
    assert places[1 : 1 + N_PATCHES].all()
    assert places.sum() == N_PATCHES
    assert other.facts.fingerprint != model.facts.fingerprint
    assert examine(other)["exactness_residual"] <= 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projection": "gone.safetensors"}, "file of safetensors"),
        ({"projection": "projection.ckpt"}, "no pickled"),
        ({"vision_model": "./nowhere"}, "no folder"),
        ({"language_model": None}, "lacks language_model"),
        ({"language_model": "pip:nothing"}, "no such package is known"),
        ({"start": 7}, "expected a token of the language model, as text"),
        ({"start": "<nowhere>"}, "which is no token of its language model"),
    ],
)
def test_a_part_that_is_not_there_is_named(change: dict, message: str, file: Path) -> None:
    changed = file.with_name("changed.json")
    changed.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        load_model(f"limber:{changed}")


def test_no_such_file_and_no_json_are_said(file: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(f"limber:{file}.gone")
    broken = file.with_name("broken.json")
    broken.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(f"limber:{broken}")


def test_a_projection_of_other_widths_is_refused(file: Path) -> None:
    save_file({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, file.with_name("small.safetensors"))
    changed = file.with_name("small.json")
    changed.write_text(json.dumps(json.loads(file.read_text()) | {"projection": "small.safetensors"}))
    with pytest.raises(ModelError, match="not a projection"):
        load_model(f"limber:{changed}")


def test_a_text_decoder_that_norms_its_stream_is_refused(file: Path) -> None:
    config = hf.BertConfig(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, is_decoder=True)
    config.save_pretrained(file.parent / "bert")
    changed = file.with_name("bert.json")
    changed.write_text(json.dumps(json.loads(file.read_text()) | {"language_model": "bert"}))
    with pytest.raises(UnsupportedModelError, match=r"'bert' text decoder that norms the residual stream"):
        load_model(f"limber:{changed}")


# --- any text decoder, any image encoder ------------------------------------------------------------------------------

TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TEXTS: dict[str, Callable[..., Any]] = {
    "opt": lambda **more: hf.OPTConfig(
        hidden_size=WIDTH, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=WIDTH, **more
    ),
    "llama": lambda **more: hf.LlamaConfig(**TEXT, **more),
    "mistral": lambda **more: hf.MistralConfig(**TEXT, head_dim=8, **more),
    "ministral3": lambda **more: hf.Ministral3Config(**TEXT, head_dim=8, **more),
    "qwen2": lambda **more: hf.Qwen2Config(**TEXT, **more),
    "qwen3": lambda **more: hf.Qwen3Config(**TEXT, head_dim=8, **more),
    "phi3": lambda **more: hf.Phi3Config(**TEXT, **more),
    "gemma": lambda **more: hf.GemmaConfig(**TEXT, head_dim=8, **more),
    "gemma2": lambda **more: hf.Gemma2Config(**TEXT, head_dim=8, final_logit_softcapping=5.0, **more),
    "gemma3_text": lambda **more: hf.Gemma3TextConfig(**TEXT, head_dim=8, final_logit_softcapping=5.0, **more),
    "granite": lambda **more: hf.GraniteConfig(
        **TEXT, residual_multiplier=0.22, embedding_multiplier=12.0, logits_scaling=4.0, **more
    ),
    "cohere": lambda **more: hf.CohereConfig(**TEXT, logit_scale=0.25, **more),
    "cohere2": lambda **more: hf.Cohere2Config(**TEXT, logit_scale=0.25, **more),
    "glm4": lambda **more: hf.Glm4Config(**TEXT, head_dim=8, **more),
}
TOWER: dict[str, Any] = {
    "hidden_size": VISION_WIDTH,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}


def shaken(module: Any, scale: float = 4) -> Any:
    """Weights scaled up, and norms and biases moved from 1 and 0, which hide mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1).add_(torch.randn_like(parameter) * 0.05)
    return module


def with_text(file: Path, target: Path, kind: str) -> Path:
    """The three parts with another text decoder."""
    torch.manual_seed(0)
    words = build_tokenizer()
    special = {name: getattr(words, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = TEXTS[kind](vocab_size=len(words) + 8, max_position_embeddings=128, **special)
    assert config.model_type == kind
    shaken(hf.AutoModelForCausalLM.from_config(config)).save_pretrained(target / "text")
    words.save_pretrained(target / "text")
    return described(file, target, language_model=str(target / "text"))


def described(file: Path, target: Path, **parts: Any) -> Path:
    """`file` with other parts, written to `target`."""
    whole = {name: str(file.parent / part) for name, part in json.loads(file.read_text()).items()} | parts
    (target / "limber.json").write_text(json.dumps(whole))
    return target / "limber.json"


@pytest.mark.parametrize("kind", TEXTS)
def test_any_text_decoder_reads_the_picture_and_is_exact(kind: str, file: Path, tmp_path: Path) -> None:
    model = load_model(f"limber:{with_text(file, tmp_path, kind)}", device="cpu")
    found = examine(model)
    assert found["exactness_residual"] <= 1e-5
    assert (found["n_image_tokens"], found["n_layers"], found["d_mlp"]) == (N_PATCHES, 3, 48)
    prompt = model.exact_prompt(model.default_prompt)
    together = caption_batch(model, [picture(), picture(200)], prompt, 5)
    alone = caption_batch(model, [picture()], prompt, 5)
    assert alone.captions[0] == together.captions[0]


def clip() -> tuple[Any, Any]:
    vision = hf.CLIPVisionConfig(**TOWER, projection_dim=16)
    return hf.CLIPVisionModel(vision), clip_pixels()


def clip_pixels() -> Any:
    return hf.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


def whole_clip() -> tuple[Any, Any]:
    text = hf.CLIPTextConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    parts = {"vision_config": hf.CLIPVisionConfig(**TOWER).to_dict(), "text_config": text.to_dict()}
    return hf.CLIPModel(hf.CLIPConfig(projection_dim=16, **parts)), clip_pixels()


def siglip() -> tuple[Any, Any]:
    return hf.SiglipVisionModel(hf.SiglipVisionConfig(**TOWER)), hf.SiglipImageProcessor(size=square(56))


def dinov2() -> tuple[Any, Any]:
    config = hf.Dinov2Config(**TOWER)
    return hf.Dinov2Model(config), hf.BitImageProcessor(size={"shortest_edge": 60}, crop_size=square(56))


def registers() -> tuple[Any, Any]:
    config = hf.Dinov2WithRegistersConfig(num_register_tokens=3, **TOWER)
    return hf.Dinov2WithRegistersModel(config), dinov2()[1]


def vit() -> tuple[Any, Any]:
    return hf.ViTModel(hf.ViTConfig(**TOWER)), hf.ViTImageProcessor(size=square(56))


def swin() -> tuple[Any, Any]:
    config = hf.SwinConfig(image_size=64, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[2, 4], window_size=2)
    return hf.SwinModel(config), hf.ViTImageProcessor(size=square(64))


def resnet() -> tuple[Any, Any]:
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[12, VISION_WIDTH], depths=[1, 1], layer_type="basic")
    return hf.ResNetModel(config), hf.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.9)


def efficientnet() -> tuple[Any, Any]:
    """Three steps of stride 2, padded as TensorFlow pads them: 8 × 8 places of a picture of 64 pixels."""
    config = hf.EfficientNetConfig(
        image_size=64,
        width_coefficient=VISION_WIDTH / 1280,
        depth_coefficient=1.0,
        hidden_dim=VISION_WIDTH,
        in_channels=[32, 16],
        out_channels=[16, 24],
        kernel_sizes=[3, 5],
        strides=[2, 2],
        num_block_repeats=[1, 2],
        expand_ratios=[1, 6],
    )
    encoder = hf.EfficientNetModel(config)
    for parameter in encoder.parameters():
        if parameter.ndim == 4:  # as they come, they let next to nothing through
            torch.nn.init.kaiming_normal_(parameter)
    return encoder, hf.SiglipImageProcessor(size=square(64))


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


# name: (encoder and image processor, rows and columns, states that come first)
ENCODERS: dict[str, tuple[Callable[[], tuple[Any, Any]], tuple[int, int], int]] = {
    "clip": (clip, (4, 4), 1),
    "clip, both halves": (whole_clip, (4, 4), 1),
    "siglip": (siglip, (4, 4), 0),
    "dinov2": (dinov2, (4, 4), 1),
    "dinov2 with registers": (registers, (4, 4), 4),
    "vit": (vit, (4, 4), 1),
    "swin": (swin, (8, 8), 0),
    "resnet": (resnet, (8, 8), 0),
    "efficientnet": (efficientnet, (8, 8), 0),
}


def with_encoder(file: Path, target: Path, made: tuple[Any, Any], seed: int = 0, **parts: Any) -> Path:
    """The three parts with another image encoder."""
    torch.manual_seed(seed)
    encoder, image_processor = made
    shaken(encoder, 2).save_pretrained(target / "encoder")
    image_processor.save_pretrained(target / "encoder")
    return described(file, target, vision_model=str(target / "encoder"), **parts)


@pytest.mark.parametrize("name", ENCODERS)
def test_any_encoder_gives_a_grid_of_image_tokens(name: str, file: Path, tmp_path: Path) -> None:
    make, grid, n_first = ENCODERS[name]
    encoder, _ = made = make()
    model = load_model(f"limber:{with_encoder(file, tmp_path, made)}", device="cpu")
    facts = examine(model)
    assert facts["exactness_residual"] <= 1e-5
    assert facts["n_image_tokens"] == grid[0] * grid[1]
    (told,) = facts["filled"]
    assert told.startswith(f"of the encoder's states {n_first} come first and are left out (class_tokens, by the enc")
    assert told.endswith(f"{grid[0]} × {grid[1]} are the image tokens")
    inputs = model.encode([picture()], model.exact_prompt("A picture of"))
    with torch.inference_mode():
        alone = getattr(encoder, "vision_model", encoder) if name == "clip, both halves" else encoder
        states = alone.eval()(inputs["pixel_values"]).last_hidden_state
        if states.ndim == 4:
            states = states.flatten(2).transpose(1, 2)
        expected = model.module.projection(states[:, n_first:])
        assert torch.allclose(
            model.module.get_image_features(inputs["pixel_values"]).pooler_output, expected, atol=1e-4
        )
    assert image_grid(model, inputs, (80, 60)).tiles[0].shape == grid


@pytest.mark.parametrize("make", [resnet, efficientnet])
@torch.inference_mode()
def test_the_places_of_a_map_lie_where_its_convolutions_look(
    make: Callable[[], tuple[Any, Any]], file: Path, tmp_path: Path
) -> None:
    """The mean place of what changes with a spot is the spot's, on the average over spots and weights.

    Half a place to one side, where equal stretches would put them, is six pixels.
    """
    plain = Image.new("RGB", (100, 100), (30, 30, 30))
    spots = [(left, top) for left in (30, 40, 50, 60) for top in (30, 40, 50, 60)]
    missed = []
    for seed in range(8):
        (tmp_path / str(seed)).mkdir()
        torch.manual_seed(seed)
        model = load_model(f"limber:{with_encoder(file, tmp_path / str(seed), make(), seed=seed)}", device="cpu")
        grids = image_grid(model, model.encode([plain], model.exact_prompt("A")), plain.size)
        centres = torch.tensor([middle(grids.box_of(token)) for token in range(64)])
        for left, top in spots:
            spotted = plain.copy()
            spotted.paste((255, 255, 255), (left, top, left + 6, top + 6))
            pixels = model.encode([plain, spotted], model.exact_prompt("A"))["pixel_values"]
            before, after = model.module.get_image_features(pixels).pooler_output
            change = (after - before).square().sum(-1)
            found = (change[:, None] * centres).sum(0) / change.sum()
            missed.append(found - torch.tensor([left + 3.0, top + 3.0]))
    assert torch.stack(missed).mean(0).abs().max() < 2.5


def middle(box: tuple[float, float, float, float] | None) -> tuple[float, float]:
    assert box is not None
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_a_map_that_nobody_looked_at_has_no_places(file: Path, tmp_path: Path) -> None:
    config = hf.PoolFormerConfig(hidden_sizes=[8, 8, 8, VISION_WIDTH], depths=[1, 1, 1, 1])
    made = hf.PoolFormerModel(config), hf.ViTImageProcessor(size=square(64))
    model = load_model(f"limber:{with_encoder(file, tmp_path, made)}", device="cpu")
    assert examine(model)["n_image_tokens"] == 4
    inputs = model.encode([picture()], model.exact_prompt("A picture of"))
    with pytest.raises(UsageError, match="nobody looked where the places of a poolformer's map lie"):
        image_grid(model, inputs, (80, 60))


def mlcd() -> tuple[Any, Any]:
    """A transformer whose type is not in the table of those known; it has a class token."""
    config = hf.MLCDVisionConfig(**TOWER | {"hidden_size": 32})
    return hf.MLCDVisionModel(config), clip_pixels()


@pytest.mark.parametrize(
    ("make", "stage", "n_channels"), [(efficientnet, "encoder.blocks.0", 8), (resnet, "encoder.stages.0", 12)]
)
def test_states_of_the_stage_before_stand_behind_those_of_the_last(
    make: Callable[[], tuple[Any, Any]], stage: str, n_channels: int, file: Path, tmp_path: Path
) -> None:
    encoder, _ = made = make()
    finer: list[torch.Tensor] = []
    encoder.get_submodule(stage).register_forward_hook(lambda _module, _args, output: finer.append(output))
    width = VISION_WIDTH + 4 * n_channels
    save_file({"weight": torch.randn(WIDTH, width), "bias": torch.randn(WIDTH)}, tmp_path / "wide.safetensors")
    said: dict[str, Any] = {"projection": str(tmp_path / "wide.safetensors"), "finer_stage": True}
    model = load_model(f"limber:{with_encoder(file, tmp_path, made, **said)}", device="cpu")
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        last = encoder.eval()(pixels).last_hidden_state
        found = model.module.get_image_features(pixels).last_hidden_state
    row, column = 3, 5
    square_of_four = finer[0][0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    expected = torch.cat([last[0, :, row, column], square_of_four.flatten()])
    assert torch.allclose(found[0, 8 * row + column], expected, atol=1e-5)
    assert examine(model)["n_image_tokens"] == 64
    assert "each with the four states of the stage before that lie in it" in model.filled[0]


def test_an_encoder_of_unknown_kind_is_asked_about(file: Path, tmp_path: Path) -> None:
    assert "mlcd_vision_model" not in FIRST
    save_file({"weight": torch.randn(WIDTH, 32), "bias": torch.randn(WIDTH)}, tmp_path / "wide.safetensors")
    wide = str(tmp_path / "wide.safetensors")
    with pytest.raises(ModelError, match=r'17 states .* not known of a mlcd_vision_model; say it: "class_tokens": 1'):
        load_model(f"limber:{with_encoder(file, tmp_path, mlcd(), projection=wide)}", device="cpu")
    with pytest.raises(ModelError, match=r"17 states without the first 0 are no grid over 56 × 56 pixels"):
        load_model(f"limber:{with_encoder(file, tmp_path, mlcd(), projection=wide, class_tokens=0)}", device="cpu")
    model = load_model(f"limber:{with_encoder(file, tmp_path, mlcd(), projection=wide, class_tokens=1)}", device="cpu")
    assert examine(model)["n_image_tokens"] == N_PATCHES
    assert "1 come first and are left out (class_tokens, by the file)" in model.filled[0]


@pytest.mark.parametrize(
    ("make", "parts", "message"),
    [
        (clip, {"class_tokens": 0}, "a clip_vision_model has class_tokens 1, the file says 0"),
        (clip, {"class_tokens": "one"}, "class_tokens is 'one', expected a number"),
        (clip, {"finer_stage": True}, "no stage twice as fine as its last: leave finer_stage out"),
        (clip, {"finer_stage": "yes"}, "finer_stage is 'yes', expected true or false"),
        (lambda: (vit()[0], hf.CLIPImageProcessor(size={"shortest_edge": 56}, do_center_crop=False)), {}, "one size"),
        (lambda: (hf.ViTMAEModel(hf.ViTMAEConfig(**TOWER)), vit()[1]), {}, "at random; take another encoder"),
        (lambda: (clip()[0], hf.ViTImageProcessor(size=square(70))), {}, "cannot read a picture"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(
    make: Callable[[], tuple[Any, Any]], parts: dict[str, Any], message: str, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(f"limber:{with_encoder(file, tmp_path, make(), **parts)}", device="cpu")


# --- timm -------------------------------------------------------------------------------------------------------------

HAS_TIMM = importlib.util.find_spec("timm") is not None


def timm_folder(target: Path, architecture: str, side: int) -> Path:
    """config.json as timm's own checkpoints have it: it names no model_type."""
    about = {"input_size": [3, side, side], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0, "num_classes": 0}
    config = {"architecture": architecture, "num_classes": 0, "label_names": [], "pretrained_cfg": about}
    target.mkdir()
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.skipif(HAS_TIMM, reason="timm is installed: the test below is run instead")
def test_a_timm_encoder_without_timm_is_told_how_to_get_it(file: Path, tmp_path: Path) -> None:
    encoder = timm_folder(tmp_path / "encoder", "resnet10t", 64)
    save_file({"weight": torch.zeros(1)}, encoder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="it needs timm: `pip install timm`"):
        load_model(f"limber:{described(file, tmp_path, vision_model=str(encoder))}", device="cpu")


@pytest.mark.skipif(not HAS_TIMM, reason="needs timm and torchvision, which nothing else here does: pip install timm")
@pytest.mark.parametrize(
    ("architecture", "settings", "grid", "n_first", "width"),
    [
        ("efficientnet_lite0", {}, (2, 2), 0, 1280),
        ("vit_tiny_patch16_224", {"img_size": 64}, (4, 4), 1, 192),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "depths": (1, 1)}, (8, 8), 0, 192),
    ],
)
def test_a_timm_encoder_is_read(
    architecture: str,
    settings: dict[str, Any],
    grid: tuple[int, int],
    n_first: int,
    width: int,
    file: Path,
    tmp_path: Path,
) -> None:
    timm = importlib.import_module("timm")
    encoder = timm_folder(tmp_path / "encoder", architecture, 64)
    config = json.loads((encoder / "config.json").read_text()) | {"model_args": settings}
    (encoder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    made = timm.create_model(architecture, num_classes=0, **settings)
    save_file(made.state_dict(), encoder / "model.safetensors", {"format": "pt"})
    save_file({"weight": torch.randn(WIDTH, width), "bias": torch.randn(WIDTH)}, tmp_path / "wide.safetensors")
    parts = {"vision_model": str(encoder), "projection": str(tmp_path / "wide.safetensors")}
    model = load_model(f"limber:{described(file, tmp_path, **parts)}", device="cpu")
    found = examine(model)
    assert found["exactness_residual"] <= 1e-5
    assert found["n_image_tokens"] == grid[0] * grid[1]
    assert f"states {n_first} come first" in model.filled[0]
    pixels = model.encode([picture()], model.exact_prompt("A picture of"))["pixel_values"]
    with torch.inference_mode():
        states = made.eval().forward_features(pixels)
    if states.ndim == 4:
        states = states if states.shape[-1] == width else states.permute(0, 2, 3, 1)
        states = states.flatten(1, 2)
    expected = model.module.projection(states[:, n_first:])
    assert torch.allclose(model.module.get_image_features(pixels).pooler_output, expected, atol=1e-4)
