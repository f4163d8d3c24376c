"""LLaVA as its authors save it, against what its parts compute one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from mmn.errors import ModelError, UnsupportedModelError
from mmn.models.loading import load_model
from mmn.models.original_llava import convert_llava
from mmn.runs.doctor import check
from tests.tiny import LLAMA, TOWER

WORDS = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "a", "dog", "cat", "tree", "what", "is", "it", "the", "of"]
IMAGE_ID, SIDE = len(WORDS), 56


def save_parts(folder: Path, projector: dict[str, torch.Tensor], **more: object) -> tuple[Path, Path, hf.LlamaModel]:
    """The authors' folder, the CLIP's, and the decoder."""
    torch.manual_seed(0)
    tower = folder / "clip"
    vision = hf.CLIPVisionModel(hf.CLIPVisionConfig(**TOWER | {"image_size": SIDE}, projection_dim=32))
    vision.save_pretrained(tower)
    hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        tower
    )
    own = folder / "llava-llama-2-tiny"
    text = hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA | {"vocab_size": len(WORDS)}))
    with torch.no_grad():
        for parameter in text.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    text.save_pretrained(own)
    weights = {name: value.clone() for name, value in text.state_dict().items()}
    save_file(
        weights | {f"model.mm_projector.{name}": value for name, value in projector.items()}, own / "model.safetensors"
    )
    config = json.loads((own / "config.json").read_text())
    kind = {"mm_vision_tower": "openai/clip", "mm_vision_select_layer": -2, "model_type": "llava", **more}
    (own / "config.json").write_text(json.dumps(config | kind))
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    hf.PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(own)
    return own, tower, text


def test_converted_llava_computes_what_its_parts_do(tmp_path: Path) -> None:
    """P2's: one matrix between the CLIP's last but one layer, without its class token, and a Llama."""
    matrix, bias = torch.randn(32, 32), torch.randn(32)
    own, tower, text = save_parts(tmp_path, {"weight": matrix, "bias": bias})
    model = load_model(str(convert_llava(own, tower, tmp_path / "out")), device="cpu")
    prompt = model.exact_prompt("what is it")
    assert prompt.startswith("[INST] <<SYS>>\nYou are a helpful language and vision")
    assert prompt.endswith("<</SYS>>\n\n<image>\nwhat is it [/INST]")
    inputs = model.encode([Image.linear_gradient("L").convert("RGB")], prompt)
    found = model.module(**inputs).logits[0]

    vision = hf.CLIPVisionModel.from_pretrained(tower)
    states = vision(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][0, 1:]
    ids = inputs["input_ids"][0]
    embedded = text.model.embed_tokens(ids.clamp(max=len(WORDS) - 1))
    embedded[ids == IMAGE_ID] = states @ matrix.T + bias
    expected = text(inputs_embeds=embedded[None]).logits[0]
    assert (ids == IMAGE_ID).sum() == (SIDE // TOWER["patch_size"]) ** 2 == 16
    assert torch.allclose(found[:, : len(WORDS)], expected, atol=1e-5)
    assert torch.equal(found[:, IMAGE_ID], found[:, 0])  # the unknown word's, which comes first
    assert check(model, prompt).proof.exact <= 1e-5


@pytest.mark.parametrize("marked", [False, True])
def test_words_around_a_picture_are_numbered_as_texts_of_their_own(tmp_path: Path, marked: bool) -> None:
    """As the authors' `tokenizer_image_token` does: Llama's tokenizer begins each with a space, a marker's aside."""
    more = {"mm_use_im_start_end": True} if marked else {}
    own, tower, _ = save_parts(tmp_path, {"weight": torch.randn(32, 32), "bias": torch.randn(32)}, **more)
    tokenizer = llama_tokenizer()
    tokenizer.add_tokens(["<im_start>", "<im_end>"] if marked else [], special_tokens=True)
    tokenizer.save_pretrained(own)
    (tmp_path / "llava-v1-tiny").mkdir()
    checkpoint = own.rename(tmp_path / "llava-v1-tiny" / "checkpoint-9")
    model = load_model(str(convert_llava(checkpoint, tower, tmp_path / "out")), device="cpu")
    prompt = model.exact_prompt("what")
    assert prompt.endswith(("<im_start><image><im_end>" if marked else "<image>") + "\nwhat ASSISTANT:")
    ids = model.encode([Image.new("RGB", (70, 90))], prompt)["input_ids"][0]
    found = model.tokenizer.convert_ids_to_tokens(ids[ids != model.image_token_id])
    apart = [tokenizer.tokenize(text, add_special_tokens=False) for text in prompt.split("<image>")]
    if marked:
        apart = [apart[0], ["<im_end>", *apart[1][apart[1].index("<im_end>") + 1 :]]]
    assert found == ["<s>", *apart[0], *apart[1]]
    assert ("▁" in apart[1][:2]) != marked


def llama_tokenizer() -> hf.LlamaTokenizer:
    """Letters, one word, and the bytes of what is neither."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzAIGHNSTUER:.,-'▁"))
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "wh", "at", "what"]
    merges = [("w", "h"), ("a", "t"), ("wh", "at")]
    return hf.LlamaTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=merges)


def test_a_tower_that_was_trained_further_is_the_authors_own(tmp_path: Path) -> None:
    own, tower, _ = save_parts(tmp_path, {"weight": torch.randn(32, 32), "bias": torch.randn(32)})
    trained = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
    save_file({trained: torch.full((32,), 7.0)}, own / "more.safetensors")
    module = load_model(str(convert_llava(own, tower, tmp_path / "out")), device="cpu").module
    assert (module.model.vision_tower.pre_layrnorm.weight == 7).all()


def test_what_is_no_such_llava_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    own, tower, _ = save_parts(tmp_path, {"weight": torch.randn(32, 16), "bias": torch.randn(32)})
    with pytest.raises(ModelError, match=r"linear_1.weight of \(32, 16\) has no place"):
        convert_llava(own, tower, tmp_path / "wrong")
    with pytest.raises(ModelError, match="is there already"):
        convert_llava(own, tower, tmp_path / "clip")
    for more, message in (
        ({"mm_projector_type": "mlp3x_gelu"}, "mlp3x_gelu"),
        ({"image_aspect_ratio": "anyres"}, "NeXT"),
    ):
        other, _, _ = save_parts(tmp_path / message, {}, **more)
        with pytest.raises(UnsupportedModelError, match=message):
            convert_llava(other, tower, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    assert not (tmp_path / "wrong").exists()
