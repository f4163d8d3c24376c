"""mPLUG-Owl2 in code of our own: named as the published checkpoint, and the same numbers as a plain computation."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from mmn import names
from mmn.core import ScoreSettings
from mmn.errors import ModelError, UsageError
from mmn.images import list_source
from mmn.models import mplug_owl2
from mmn.models.convert import convert
from mmn.models.geometry import image_grid
from mmn.models.image_tokens import image_positions
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.captions import caption_batch
from mmn.reading.hooks import permuted
from mmn.runs.doctor import examine
from mmn.runs.engines.local import open_batch
from mmn.runs.plan import Batch
from mmn.scores.batch import score_batch
from mmn.specimen.tokenizer import build_tokenizer
from tests.tiny_owl import ABSTRACTOR, GRID, N_QUERIES, PATCH, SIDE, VISION, tiny_config, tiny_module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as it is published, but with safetensors: an image processor of 2023, no processor_config.json."""
    path = tmp_path_factory.mktemp("owl")
    tokenizer = build_tokenizer()
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    tiny_module(tiny_config(vocab_size=len(tokenizer), **special)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    about = {"feature_extractor_type": "CLIPFeatureExtractor", "size": SIDE, "crop_size": SIDE, "resample": 3}
    about |= {"do_resize": True, "do_center_crop": True, "do_normalize": True}
    about |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (path / "preprocessor_config.json").write_text(json.dumps(about))
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(str(folder), device="cpu")


def pictures() -> list[Image.Image]:
    first = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
    first.paste((200, 90, 40), (10, 10, 40, 30))
    return [first, Image.new("RGB", (50, 70), (20, 160, 90))]


# --- names and shapes -------------------------------------------------------------------------------------------------


def linear(name: str, width: int, reads: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width, reads)} | ({f"{name}.bias": (width,)} if bias else {})


def norm(name: str, width: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", *(["bias"] if bias else []))}


def published() -> dict[str, tuple[int, ...]]:
    """The tensors of MAGAer13/mplug-owl2-llama2-7b, by rule, from the names that its authors' conversion writes."""
    d, m, n_words, width, n_layers = 4096, 11008, 32000, 1024, 32
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (n_words, d), "lm_head.weight": (n_words, d)}
    found |= norm("model.norm", d, bias=False)
    for layer in range(n_layers):
        at = f"model.layers.{layer}"
        found |= linear(f"{at}.self_attn.q_proj", d, d, bias=False) | linear(f"{at}.self_attn.o_proj", d, d, bias=False)
        found |= linear(f"{at}.mlp.gate_proj", m, d, bias=False) | linear(f"{at}.mlp.up_proj", m, d, bias=False)
        found |= linear(f"{at}.mlp.down_proj", d, m, bias=False)
        for way in (0, 1):
            found |= linear(f"{at}.self_attn.k_proj.multiway.{way}", d, d, bias=False)
            found |= linear(f"{at}.self_attn.v_proj.multiway.{way}", d, d, bias=False)
            found |= norm(f"{at}.input_layernorm.multiway.{way}", d, bias=False)
            found |= norm(f"{at}.post_attention_layernorm.multiway.{way}", d, bias=False)
    at = "model.vision_model"
    found |= {f"{at}.embeddings.cls_token": (1, 1, width), f"{at}.embeddings.patch_embed.weight": (width, 3, 14, 14)}
    found |= {f"{at}.embeddings.position_embedding": (1, 32 * 32 + 1, width)}
    found |= norm(f"{at}.embeddings.pre_layernorm", width) | norm(f"{at}.post_layernorm", width)
    for layer in range(24):
        at = f"model.vision_model.encoder.layers.{layer}"
        found |= norm(f"{at}.input_layernorm", width) | norm(f"{at}.post_attention_layernorm", width)
        found |= linear(f"{at}.self_attn.query_key_value", 3 * width, width)
        found |= linear(f"{at}.self_attn.dense", width, width)
        found |= linear(f"{at}.mlp.fc1", 4 * width, width) | linear(f"{at}.mlp.fc2", width, 4 * width)
    at = "model.visual_abstractor"
    found |= {f"{at}.query_embeds": (1, 64, width), f"{at}.vit_eos": (1, 1, d)} | linear(f"{at}.visual_fc", d, width)
    for layer in range(6):
        at = f"model.visual_abstractor.encoder.layers.{layer}.crossattention"
        for part in ("query", "key", "value"):
            found |= linear(f"{at}.attention.{part}", width, width)
        found |= {f"{at}.attention.q_pos_embed": (64, width), f"{at}.attention.k_pos_embed": (32 * 32 + 1, width)}
        found |= norm(f"{at}.norm1", width) | norm(f"{at}.normk", width) | norm(f"{at}.output.norm2", width)
        found |= linear(f"{at}.output.out_proj", width, width)
        found |= linear(f"{at}.output.mlp.w1", 2816, width) | linear(f"{at}.output.mlp.w3", 2816, width)
        found |= linear(f"{at}.output.mlp.w2", width, 2816) | norm(f"{at}.output.mlp.ffn_ln", 2816)
    return found


def test_tensors_are_named_and_shaped_as_in_the_published_checkpoint() -> None:
    mplug_owl2.register()
    with torch.device("meta"):
        module = hf.AutoModelForImageTextToText.from_config(hf.AutoConfig.for_model("mplug_owl2"))
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == published()


# --- the same numbers as a plain computation --------------------------------------------------------------------------


class Plain:
    """The whole model for one row, from its tensors alone: no module, no cache, no batch, positions from 0."""

    def __init__(self, weights: dict[str, Tensor], config: Any) -> None:
        self.weights, self.config = weights, config

    def logits(self, ids: list[int], pixels: Tensor) -> Tensor:
        image = self.image_tokens(pixels)
        table = self.weights["model.embed_tokens.weight"]
        queue = list(image)
        stream = [queue.pop(0) if one == self.config.image_token_index else table[one] for one in ids]
        assert not queue
        ways = [int(one == self.config.image_token_index) for one in ids]
        states = torch.stack(stream)
        for layer in range(self.config.num_hidden_layers):
            at = f"model.layers.{layer}"
            states = states + self.attention(at, self.by_way(f"{at}.input_layernorm", states, ways), ways)
            normed = self.by_way(f"{at}.post_attention_layernorm", states, ways)
            gate, up = self.linear(f"{at}.mlp.gate_proj", normed), self.linear(f"{at}.mlp.up_proj", normed)
            states = states + self.linear(f"{at}.mlp.down_proj", gate * torch.sigmoid(gate) * up)
        return self.rms(self.weights["model.norm.weight"], states) @ self.weights["lm_head.weight"].T

    def attention(self, at: str, states: Tensor, ways: list[int]) -> Tensor:
        n_heads, n_shared = self.config.num_attention_heads, self.config.num_key_value_heads
        queries = self.linear(f"{at}.self_attn.q_proj", states).chunk(n_heads, dim=-1)
        keys, values = (
            torch.stack(
                [self.linear(f"{at}.self_attn.{part}.multiway.{w}", s) for w, s in zip(ways, states, strict=True)]
            )
            for part in ("k_proj", "v_proj")
        )
        mixed = []
        for head, query in enumerate(queries):
            group = head // (n_heads // n_shared)
            key, value = keys.chunk(n_shared, dim=-1)[group], values.chunk(n_shared, dim=-1)[group]
            scores = rotated(query) @ rotated(key).T / math.sqrt(query.shape[-1])
            future = torch.ones_like(scores).triu(1).bool()
            mixed.append(scores.masked_fill(future, -math.inf).softmax(-1) @ value)
        return self.linear(f"{at}.self_attn.o_proj", torch.cat(mixed, dim=-1))

    def image_tokens(self, pixels: Tensor) -> Tensor:
        states = self.vision(pixels)
        queries = self.weights["model.visual_abstractor.query_embeds"][0]
        places = [torch.zeros(1, ABSTRACTOR["hidden_size"])]
        for row in range(GRID):
            places += [torch.cat([wave(12, column), wave(12, row)])[None] for column in range(GRID)]
        query_places = torch.stack([wave(24, number) for number in range(N_QUERIES)])
        for layer in range(ABSTRACTOR["num_hidden_layers"]):
            at = f"model.visual_abstractor.encoder.layers.{layer}.crossattention"
            normed = self.layer_norm(f"{at}.norm1", queries, 1e-5)
            read = torch.cat([normed, self.layer_norm(f"{at}.normk", states, 1e-5)])
            query = self.linear(f"{at}.attention.query", normed + query_places)
            key = self.linear(f"{at}.attention.key", read + torch.cat([query_places, *places]))
            mixed = attend(query, key, self.linear(f"{at}.attention.value", read), ABSTRACTOR["num_attention_heads"])
            added = normed + self.linear(f"{at}.output.out_proj", mixed)
            inner = self.layer_norm(f"{at}.output.norm2", added, 1e-5)
            gate = self.linear(f"{at}.output.mlp.w1", inner)
            inner = gate * torch.sigmoid(gate) * self.linear(f"{at}.output.mlp.w3", inner)
            inner = self.layer_norm(f"{at}.output.mlp.ffn_ln", inner, 1e-6)
            queries = added + self.linear(f"{at}.output.mlp.w2", inner)
        end = self.weights["model.visual_abstractor.vit_eos"][0]
        return torch.cat([self.linear("model.visual_abstractor.visual_fc", queries), end])

    def vision(self, pixels: Tensor) -> Tensor:
        at = "model.vision_model"
        kernel = self.weights[f"{at}.embeddings.patch_embed.weight"].flatten(1)
        cut = [
            pixels[:, top : top + PATCH, left : left + PATCH].flatten()
            for top in range(0, SIDE, PATCH)
            for left in range(0, SIDE, PATCH)
        ]
        states = torch.cat([self.weights[f"{at}.embeddings.cls_token"][0], torch.stack(cut) @ kernel.T])
        states = states + self.weights[f"{at}.embeddings.position_embedding"][0]
        states = self.layer_norm(f"{at}.embeddings.pre_layernorm", states, 1e-6)
        for layer in range(VISION["num_hidden_layers"]):
            inside = f"{at}.encoder.layers.{layer}"
            normed = self.layer_norm(f"{inside}.input_layernorm", states, 1e-6)
            heads = self.linear(f"{inside}.self_attn.query_key_value", normed).chunk(VISION["num_attention_heads"], -1)
            mixed = [attend(query, key, value, 1) for query, key, value in (head.chunk(3, dim=-1) for head in heads)]
            states = states + self.linear(f"{inside}.self_attn.dense", torch.cat(mixed, dim=-1))
            inner = self.linear(
                f"{inside}.mlp.fc1", self.layer_norm(f"{inside}.post_attention_layernorm", states, 1e-6)
            )
            states = states + self.linear(f"{inside}.mlp.fc2", inner * torch.sigmoid(1.702 * inner))
        return self.layer_norm(f"{at}.post_layernorm", states, 1e-6)

    def by_way(self, name: str, states: Tensor, ways: list[int]) -> Tensor:
        rows = [self.rms(self.weights[f"{name}.multiway.{w}.weight"], s) for w, s in zip(ways, states, strict=True)]
        return torch.stack(rows)

    def rms(self, weight: Tensor, states: Tensor) -> Tensor:
        return states / (states.square().mean(-1, keepdim=True) + self.config.rms_norm_eps).sqrt() * weight

    def linear(self, name: str, states: Tensor) -> Tensor:
        return states @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", torch.zeros(()))

    def layer_norm(self, name: str, states: Tensor, eps: float) -> Tensor:
        return F.layer_norm(
            states, states.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps
        )


def wave(d: int, place: int) -> Tensor:
    angles = [place / 10000 ** (i / (d // 2)) for i in range(d // 2)]
    return torch.tensor([math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles])


def rotated(states: Tensor) -> Tensor:
    """RoPE: number i and number i + d/2 of a head are turned by position · 10000^(-2i/d)."""
    d = states.shape[-1]
    turned = states.clone()
    for position in range(len(states)):
        for i in range(d // 2):
            angle = position * 10000 ** (-2 * i / d)
            a, b = states[position, i], states[position, i + d // 2]
            turned[position, i] = a * math.cos(angle) - b * math.sin(angle)
            turned[position, i + d // 2] = b * math.cos(angle) + a * math.sin(angle)
    return turned


def attend(query: Tensor, key: Tensor, value: Tensor, n_heads: int) -> Tensor:
    heads = zip(query.chunk(n_heads, -1), key.chunk(n_heads, -1), value.chunk(n_heads, -1), strict=True)
    return torch.cat([(q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v for q, k, v in heads], dim=-1)


@torch.inference_mode()
def test_logits_are_those_of_a_plain_computation() -> None:
    module = tiny_module(tiny_config(), scale=3.0)
    plain = Plain(dict(module.state_dict()), module.config)
    ids = [1, 7, *[module.config.image_token_index] * (N_QUERIES + 1), 9, 4, 30]
    pixels = torch.randn(3, SIDE, SIDE)
    found = module(input_ids=torch.tensor([ids]), pixel_values=pixels[None]).logits[0]
    expected = plain.logits(ids, pixels)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    plain.weights["model.layers.1.self_attn.k_proj.multiway.1.weight"] = torch.zeros(16, 32)
    assert (found - plain.logits(ids, pixels)).abs().max() > 1e-3  # the image's way is used


# --- as a user has it -------------------------------------------------------------------------------------------------


def test_the_logit_adds_up(model: Model) -> None:
    found = examine(model)
    assert found["exactness_residual"] <= 1e-5
    assert (found["family"], found["norm"], found["n_layers"], found["d_mlp"]) == ("mplug_owl2", "rms", 3, 48)
    assert found["n_image_tokens"] == found["n_image_features"] == N_QUERIES + 1
    assert found["prompt"] == "USER: <|image|>Describe the image in few words. ASSISTANT:"


def test_image_tokens_stand_between_the_words_on_either_side(model: Model) -> None:
    inputs = model.encode(pictures(), model.exact_prompt("A picture of"))
    before = model.tokenizer("USER: ").input_ids
    after = model.tokenizer("A picture of ASSISTANT:", add_special_tokens=False).input_ids
    row = [*before, *[len(model.tokenizer)] * (N_QUERIES + 1), *after]
    assert inputs["input_ids"].tolist() == [row, row]
    expected = [0] * len(before) + [1] * (N_QUERIES + 1) + [0] * len(after)
    assert image_positions(model, inputs).int().tolist() == [expected, expected]


def test_pixels_are_the_whole_picture_as_a_square(model: Model) -> None:
    picture = pictures()[0]
    pixels = model.encode([picture], model.exact_prompt("A picture of"))["pixel_values"][0]
    assert pixels.shape == (3, SIDE, SIDE)
    mean, std = (torch.tensor(getattr(model.processor.image_processor, name)) for name in ("image_mean", "image_std"))
    shown = pixels * std[:, None, None] + mean[:, None, None]
    resized = torch.tensor(np.array(picture.resize((SIDE, SIDE)))).permute(2, 0, 1) / 255
    assert (shown - resized).abs().mean() < 0.01  # resized twice, as in the published code; cropped nowhere


def test_padding_to_a_square_is_by_the_mean_colour(folder: Path, tmp_path: Path) -> None:
    copy_with(folder, tmp_path, image_aspect_ratio="pad")
    padded = load_model(str(tmp_path), device="cpu").processor.square(pictures()[0])
    assert padded.size == (90, 90)
    assert padded.getpixel((45, 5)) == padded.getpixel((45, 85)) == (122, 116, 104)
    assert padded.getpixel((20, 15 + 20)) == (200, 90, 40)


def copy_with(folder: Path, target: Path, **settings: Any) -> None:
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | settings))


def test_a_batch_of_two_is_captioned_as_one_at_a_time(model: Model) -> None:
    prompt = model.exact_prompt("A picture of")
    together = caption_batch(model, pictures(), prompt, 6)
    for row, picture in enumerate(pictures()):
        alone = caption_batch(model, [picture], prompt, 6)
        assert alone.captions[0] == together.captions[row]
        for one, both in zip(alone.logits, together.logits, strict=False):
            assert (one[0] - both[row]).abs().max() <= 1e-5 * both[row].abs().max()


@torch.inference_mode()
def test_padding_on_the_left_changes_nothing(model: Model) -> None:
    texts = ["USER: <|image|>A picture of", "A small picture of USER: <|image|>two dogs and a picture of"]
    inputs = model.processor(images=pictures(), text=texts, return_tensors="pt", padding=True)
    assert inputs["attention_mask"].sum(1).tolist() != [inputs["attention_mask"].shape[1]] * 2
    together = model.module(**inputs).logits[:, -1]
    for row, (picture, text) in enumerate(zip(pictures(), texts, strict=True)):
        alone = model.module(**model.processor(images=[picture], text=[text])).logits[0, -1]
        assert (alone - together[row]).abs().max() <= 2e-5 * alone.abs().max()


@torch.inference_mode()
def test_generation_with_a_cache_is_generation_without(model: Model) -> None:
    inputs = model.encode(pictures(), model.exact_prompt("A picture of"))
    settings = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    cached, plain = (model.module.generate(**inputs, use_cache=use, **settings) for use in (True, False))
    assert cached.sequences.tolist() == plain.sequences.tolist()
    for one, other in zip(cached.logits, plain.logits, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_in_half_precision_the_terms_add_up_as_far_as_it_reaches(folder: Path) -> None:
    half = load_model(str(folder), dtype="bfloat16", device="cpu")
    assert {value.dtype for value in half.module.parameters()} == {torch.bfloat16}
    assert 1e-5 < examine(half)["exactness_residual"] <= 8e-2


@torch.inference_mode()
def test_image_tokens_in_another_order_are_handed_to_the_decoder(model: Model) -> None:
    """What the invariance study permutes: the embeddings, while each position keeps its modality."""
    inputs = model.encode([pictures()[0]], model.exact_prompt("A picture of"))
    places = image_positions(model, inputs)[0].nonzero()[:, 0]
    sources = torch.arange(inputs["input_ids"].shape[1])[None].clone()
    plain = model.module(**inputs).logits
    with permuted(model, sources):
        assert torch.equal(model.module(**inputs).logits, plain)
    sources[0, places] = places.flip(0)
    with permuted(model, sources):
        assert (model.module(**inputs).logits - plain).abs().max() > 1e-3


def test_image_tokens_have_no_places(model: Model) -> None:
    inputs = model.encode([pictures()[0]], model.exact_prompt("A picture of"))
    with pytest.raises(UsageError, match="sees the whole picture"):
        image_grid(model, inputs, (90, 60))


def test_positions_that_a_checkpoint_lacks_are_computed(folder: Path, model: Model, tmp_path: Path) -> None:
    copy_with(folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    fewer = {name: value for name, value in weights.items() if not name.endswith("pos_embed")}
    assert len(fewer) == len(weights) - 2 * ABSTRACTOR["num_hidden_layers"]
    save_file(fewer, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_model(str(tmp_path), device="cpu").module.state_dict()
    for name, value in model.module.state_dict().items():
        assert torch.equal(loaded[name], value), name


@pytest.fixture
def pickled(folder: Path, tmp_path: Path) -> Path:
    """The checkpoint in two pickled files, as it is published."""
    copy_with(folder, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    weights = list(load_file(folder / "model.safetensors").items())
    torch.save(dict(weights[:50]), tmp_path / "pytorch_model-1-of-2.bin")
    torch.save(dict(weights[50:]), tmp_path / "pytorch_model-2-of-2.bin")
    return tmp_path


def test_pickled_weights_are_refused_until_they_are_converted(pickled: Path, model: Model) -> None:
    with pytest.raises(ModelError, match=r"only pickled weights.*python -m mmn\.models\.convert"):
        load_model(str(pickled), device="cpu")
    program = [sys.executable, "-m", "mmn.models.convert", str(pickled)]
    said = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    assert [Path(one).name for one in said] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    loaded = load_model(str(pickled), device="cpu").module.state_dict()
    assert loaded.keys() == model.module.state_dict().keys()
    assert all(torch.equal(value, loaded[name]) for name, value in model.module.state_dict().items())
    with pytest.raises(ModelError, match="safetensors already"):
        convert(pickled)


class Program:
    """What would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was_run"),))


def test_a_pickled_program_is_not_run(pickled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pickled)
    torch.save({"weight": Program()}, pickled / "pytorch_model-1-of-2.bin")
    with pytest.raises(ModelError, match="more than tensors"):
        convert(pickled)
    assert not Path("was_run").exists()
    assert not list(pickled.glob("*.safetensors"))


def test_a_pickled_number_and_an_empty_folder_are_refused(pickled: Path, tmp_path: Path) -> None:
    torch.save({"weight": 3}, pickled / "pytorch_model-1-of-2.bin")
    with pytest.raises(ModelError, match="no table of tensors"):
        convert(pickled)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="to convert"):
        convert(tmp_path / "empty")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"grid_size": 7}, "grid_size 7"), ({"hidden_size": 16}, "expected one width")],
)
def test_parts_that_do_not_fit_are_refused(change: dict, message: str, folder: Path, tmp_path: Path) -> None:
    visual = {"visual_model": VISION, "visual_abstractor": ABSTRACTOR | change}
    copy_with(folder, tmp_path, visual_config=visual)
    with pytest.raises(ModelError, match=message):
        load_model(str(tmp_path), device="cpu")


def test_a_word_in_the_place_of_the_placeholder_is_refused(folder: Path, tmp_path: Path) -> None:
    copy_with(folder, tmp_path, image_token_index=5)
    with pytest.raises(ModelError, match="set image_token_index"):
        load_model(str(tmp_path), device="cpu")


def test_all_methods_score_it_and_the_terms_add_up(model: Model, paint: Any, tmp_path: Path) -> None:
    examples = list_source(str(paint(tmp_path, 6))).examples
    opened = open_batch(Batch("b", tuple(examples)))
    settings = ScoreSettings(prompt="A picture of", methods=tuple(names.METHODS), top_k=20, max_new_tokens=10)
    tables = score_batch(model, opened.examples, opened.images, model.exact_prompt("A picture of"), settings)
    concepts = tables["concept"].to_pylist()
    assert len(concepts) >= 3
    assert max(abs(row["residual"]) / max(abs(row["logit"]), 1) for row in concepts) <= 1e-5
    scored = tables["score"].to_pylist()
    assert {row["method"] for row in scored} == set(names.METHODS)
    at_image = [row for row in scored if row["method"] == names.ATTRIBUTION]
    assert {row["token_position"] for row in at_image} <= set(range(N_QUERIES + 1))
