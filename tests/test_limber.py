"""LiMBeR from three small checkpoints, saved and described the way a user would; exact, captioned, mapped, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file

from mmn.errors import ModelError, UnsupportedModelError
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projection": "gone.safetensors"}, "file of safetensors"),
        ({"projection": "projection.ckpt"}, "no pickled"),
        ({"vision_model": "./nowhere"}, "no folder"),
        ({"language_model": None}, "lacks language_model"),
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


def test_a_text_decoder_with_experts_is_refused(file: Path) -> None:
    config = hf.MixtralConfig(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    config.save_pretrained(file.parent / "mixtral")
    changed = file.with_name("mixtral.json")
    changed.write_text(json.dumps(json.loads(file.read_text()) | {"language_model": "mixtral"}))
    with pytest.raises(UnsupportedModelError, match=r"'mixtral' text decoder.*mixture of experts"):
        load_model(f"limber:{changed}")
