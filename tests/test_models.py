"""Loading a checkpoint: loud where a silent default would draw a believable chart, and what the fingerprint covers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mmn.errors import ModelError, UnsupportedModelError, UsageError
from mmn.models.checkpoints import fingerprint
from mmn.models.loading import load_model
from mmn.runs.doctor import check, examine

FILES = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
    "chat_template.jinja",
)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own, to be broken."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_the_tiny_checkpoint_has_every_file_that_the_tests_below_change(checkpoint):
    assert set(FILES) <= {file.name for file in checkpoint.iterdir()} | {"chat_template.jinja"}


@pytest.mark.parametrize("name", FILES)
def test_the_fingerprint_changes_with_every_file_that_matters(name, copy):
    before = fingerprint(copy)
    with (copy / name).open("ab") as stream:
        stream.write(b" ")
    assert fingerprint(copy) != before


@pytest.mark.parametrize(
    "name", ["preprocessor_config.json", "tokenizer.model", "merges.txt", "adapter_model.safetensors"]
)
def test_the_fingerprint_changes_with_a_new_file_that_matters(name, copy):
    before = fingerprint(copy)
    (copy / name).write_bytes(b"")
    assert fingerprint(copy) != before


def test_the_fingerprint_is_of_contents_not_of_places(copy, checkpoint):
    (copy / "README.md").write_text("a model")
    (copy / "picture.png").write_bytes(b"")
    assert fingerprint(copy) == fingerprint(checkpoint)
    (copy / "config.json").rename(copy / "generation_config.json")
    assert fingerprint(copy) != fingerprint(checkpoint)


def test_facts_of_a_model(tiny, checkpoint):
    facts = tiny.facts
    assert (facts.name, facts.family, facts.n_layers, facts.d_mlp) == (str(checkpoint), "llava", 3, 48)
    assert facts.fingerprint == fingerprint(checkpoint)
    assert not tiny.module.training
    assert not any(parameter.requires_grad for parameter in tiny.module.parameters())
    assert (tiny.dtype, tiny.device.type, tiny.default_prompt) == (torch.float32, "cpu", "A picture of")


def test_a_small_model_on_a_cpu_gets_one_thread(checkpoint):
    torch.set_num_threads(2)
    load_model(str(checkpoint), device="cpu")
    assert torch.get_num_threads() == 1


def test_a_model_in_half_precision(checkpoint):
    model = load_model(str(checkpoint), dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
    inputs = model.encode([Image.new("RGB", (50, 40))], model.exact_prompt("A picture of"))
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["input_ids"].dtype == torch.int64


def test_inputs_are_padded_on_the_left_and_begin_once(tiny):
    prompt = tiny.exact_prompt("A picture of")
    inputs = tiny.encode([Image.new("RGB", (50, 40)), Image.new("RGB", (300, 20))], prompt)
    ids = inputs["input_ids"]
    assert tiny.tokenizer.padding_side == "left"
    assert ids.shape[0] == 2
    assert (ids == tiny.tokenizer.bos_token_id).sum(1).tolist() == [1, 1]
    assert (ids == tiny.module.config.image_token_id).sum(1).tolist() == [64, 64]


def test_a_prompt_without_a_chat_template_is_wrapped_as_the_family_says(checkpoint, monkeypatch):
    model = load_model(str(checkpoint), device="cpu")
    monkeypatch.setattr(model.processor, "chat_template", None)
    assert model.exact_prompt("What is it?") == "USER: <image>\nWhat is it? ASSISTANT:"


def test_the_chat_template_is_used_where_there_is_one(tiny):
    if tiny.processor.chat_template:
        assert "<image>" in tiny.exact_prompt("What is it?")
    assert "What is it?" in tiny.exact_prompt("What is it?")


def test_examine_reports_an_exact_adapter(tiny):
    facts = examine(tiny)
    assert facts["exactness_residual"] <= 1e-5
    assert (facts["n_image_tokens"], facts["n_layers"], facts["d_mlp"], facts["n_units"]) == (64, 3, 48, 144)
    assert (facts["family"], facts["norm"], facts["is_gated"], facts["dtype"]) == ("llava", "rms", True, "float32")
    assert facts["caption"]


def drop_weight(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight") and "language" in name)]
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def resize_weight(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight") and "language" in name)
    weights[name] = torch.zeros(3, 3)
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def cut(name: str):
    def break_it(path: Path) -> None:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: len(content) // 2])

    return break_it


def without(*names: str):
    def break_it(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return break_it


def pickled_only(path: Path) -> None:
    (path / "model.safetensors").unlink()
    torch.save({}, path / "pytorch_model.bin")


def garbage(name: str):
    def break_it(path: Path) -> None:
        (path / name).write_bytes(b"\x00\xff not this")

    return break_it


def other_type(model_type: str):
    def break_it(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {"model_type": model_type}))

    return break_it


BROKEN = {
    "no config": (without("config.json"), "no config.json"),
    "no weights": (without("model.safetensors"), "no weights; expected model.safetensors"),
    "pickled weights only": (pickled_only, "only pickled weights .pytorch_model.bin.*can run code"),
    "a weight missing": (drop_weight, "1 weights are not in the file, .*down_proj"),
    "a weight of another shape": (resize_weight, "down_proj|cannot be loaded"),
    "weights cut short": (cut("model.safetensors"), "weights cannot be loaded"),
    "weights that are none": (garbage("model.safetensors"), "weights cannot be loaded"),
    "an empty weights file": (lambda path: (path / "model.safetensors").write_bytes(b""), "weights cannot be loaded"),
    "config cut short": (cut("config.json"), "config.json cannot be read"),
    "config that is no JSON": (garbage("config.json"), "config.json cannot be read"),
    "config that is a list": (lambda path: (path / "config.json").write_text("[]"), "config.json cannot be read"),
    "config of no type": (lambda path: (path / "config.json").write_text("{}"), "config.json cannot be read"),
    "an invented type": (other_type("nothing_vl"), "'nothing_vl' is no type of transformers .* a newer one may have"),
    "processor cut short": (cut("processor_config.json"), "processor"),
    "a note of git-lfs": (
        lambda path: (path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "weights cannot be loaded.*`git lfs pull` fetches them",
    ),
    "an index of nothing": (
        lambda path: (path / "model.safetensors.index.json").write_text("{}"),
        "index.json has no weight_map",
    ),
    "an index of numbers": (
        lambda path: (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": [1]}}'),
        r"names '\[1\]', which is no file",
    ),
    "no processor": (without("processor_config.json"), "has no image processor; expected preprocessor_config.json"),
    "tokenizer cut short": (cut("tokenizer.json"), "processor cannot be loaded"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "has no tokenizer; expected tokenizer.json"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_refused_with_its_path_and_a_reason(name, copy):
    break_it, message = BROKEN[name]
    break_it(copy)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(copy), device="cpu")
    assert str(copy) in str(caught.value) or isinstance(caught.value, UnsupportedModelError)


@pytest.mark.parametrize(
    ("told", "remedy"),
    [
        (
            "Qwen2VLVideoProcessor requires the Torchvision library but it was not found.\nMore",
            "torchvision.*for torch 2",
        ),
        (
            "Package `num2words` is required to run SmolVLM processor. Install it.",
            "it needs num2words: `pip install num2",
        ),
        ("TimmWrapperModel requires the timm library but it was not found.\nMore", "it needs timm: `pip install timm`"),
        (
            "A requires the Torchvision library but it was not found.\nB requires the timm library but it was not.",
            "it needs torchvision and timm .the build for torch.*: `pip install torchvision timm`",
        ),
        ("cannot import name 'this'\nMore", "cannot import name 'this'$"),
    ],
)
def test_a_library_that_a_processor_lacks_is_named_with_its_command(told, remedy, copy, monkeypatch):
    import transformers as hf

    def fail(*_arguments, **_more):
        raise ImportError(told)

    monkeypatch.setattr(hf.AutoProcessor, "from_pretrained", fail)
    with pytest.raises(ModelError, match=f"its processor cannot be loaded: .*{remedy}"):
        load_model(str(copy), device="cpu")


def test_a_processor_of_another_family_is_named_where_the_encoder_fails(checkpoint):
    model = load_model(str(checkpoint), device="cpu")

    kind = type(model.processor)

    def prepare(*arguments, **more):
        prepared = kind.__call__(*arguments, **more)
        return {**prepared, "pixel_values": prepared["pixel_values"].flatten(1)}

    model.processor.__class__ = type("Qwen2VLProcessor", (kind,), {"__call__": prepare})
    said = r"on a test picture, which a Qwen2VLProcessor prepared; llava models come with a LlavaProcessor.*: .*"
    with pytest.raises(ModelError, match=said):
        check(model, model.exact_prompt("what is this ?"))


def test_a_tokenizer_of_sentencepiece_alone_asks_for_sentencepiece(copy, monkeypatch):
    monkeypatch.setattr("mmn.models.processors.find_spec", lambda _name: None)
    (copy / "tokenizer.json").rename(copy / "tokenizer.model")
    with pytest.raises(ModelError, match=r"its tokenizer is tokenizer.model alone; .*`pip install sentencepiece`"):
        load_model(str(copy), device="cpu")


def test_an_embedding_that_was_resized_for_other_words_is_scored_exactly(checkpoint, tmp_path):
    import transformers as hf

    module = hf.AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = hf.AutoProcessor.from_pretrained(checkpoint)
    n_before = len(processor.tokenizer)
    processor.tokenizer.add_tokens(["platypus", "wombat"])
    module.resize_token_embeddings(n_before + 2, pad_to_multiple_of=64)
    module.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    assert len(model.anatomy.unembedding.weight) % 64 == 0
    assert len(model.anatomy.unembedding.weight) > n_before + 2
    assert model.tokenizer.convert_tokens_to_ids("wombat") == n_before + 1
    assert examine(model)["exactness_residual"] <= 1e-5


def test_another_vocabulary_is_scored_exactly(checkpoint, tmp_path):
    """Fewer words, and every one with another number, the placeholder and the end of a caption among them."""
    import transformers as hf

    module = hf.AutoModelForImageTextToText.from_pretrained(checkpoint)
    hf.AutoProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path)
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = [one for at, one in enumerate(spec["model"]["vocab"]) if at % 5 or not one[0].startswith("▁")][::-1]
    number = {word: at for at, (word, _) in enumerate(vocabulary)}
    spec["model"] |= {"vocab": vocabulary, "unk_id": number["<unk>"]}
    for token in spec["added_tokens"]:
        token["id"] = number[token["content"]]
    spec["added_tokens"].sort(key=lambda token: token["id"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    module.resize_token_embeddings(len(vocabulary))
    module.config.image_token_id = number["<image>"]
    module.generation_config.eos_token_id = number["</s>"]
    module.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    assert (
        len(model.anatomy.unembedding.weight)
        == len(vocabulary)
        < load_model(str(checkpoint)).module.lm_head.out_features
    )
    assert model.image_token_id == model.tokenizer.convert_tokens_to_ids("<image>") == number["<image>"]
    assert examine(model)["exactness_residual"] <= 1e-5


@pytest.mark.parametrize("model_type", ["gemma3n", "florence2", "gpt2"])
def test_an_unsupported_family_is_refused_before_its_weights_are_read(model_type, tmp_path):
    import transformers as hf

    hf.AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=model_type):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", ["/no/such/folder", "./no", "~/no-such", "no-slash", "a/b/c", ""])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name):
    with pytest.raises(ModelError, match=r"is no folder|no config\.json"):
        load_model(name)


def test_a_hub_id_without_a_network_is_refused():
    with pytest.raises(ModelError, match=r"'some-body/some-model' is neither .* from the hub: .* unset HF_HUB_OFFLINE"):
        load_model("some-body/some-model")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cpu:x", "vulkan", "meta", ""])
def test_a_device_that_is_not_there_is_refused(device, checkpoint):
    with pytest.raises(UsageError, match=f"^--device {device}: .{{5,400}}; use auto, cpu, cuda or mps$"):
        load_model(str(checkpoint), device=device)


def test_a_dtype_that_is_none_is_refused(checkpoint):
    with pytest.raises(UsageError, match=r"--dtype float8.*float32"):
        load_model(str(checkpoint), dtype="float8")
