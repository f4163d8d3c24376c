"""Strangers' checkpoints: what cannot be scored is refused by its small files, in one line, with what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors.torch import load_file, save_file
from torch import nn

from mmn.cli import main
from mmn.errors import ModelError, UnsupportedModelError, UsageError
from mmn.models.adapters import find_anatomy
from mmn.models.checkpoints import fingerprint, judge_family
from mmn.models.hub import Place, find_checkpoint
from mmn.models.loading import load_model
from mmn.runs.shards import find_runs, read_run
from mmn.store import Store
from tests.tiny import ENCODER_DECODERS, FAMILY_BUILDERS, FFN, SPECIAL, TOWER, VOCABULARY, WIDTH, build_family

Break = Callable[[Path], object]
BART = {"decoder_ffn_dim": FFN, "decoder_attention_heads": 4, "vocab_size": VOCABULARY}
OPT = {"ffn_dim": FFN, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": VOCABULARY, **SPECIAL}


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def config(**changes: object) -> Break:
    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | changes))

    return change


def text_config(**changes: object) -> Break:
    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        values["text_config"] |= changes
        (folder / "config.json").write_text(json.dumps(values))

    return change


def write(name: str, content: object) -> Break:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text)


def blip2_on(text: hf.PretrainedConfig) -> Break:
    """A folder with nothing but the config of a BLIP-2 on another text model."""

    def change(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        vision = hf.Blip2VisionConfig(**TOWER)
        hf.Blip2Config(vision_config=vision, text_config=text, num_query_tokens=5).save_pretrained(folder)

    return change


def int8(folder: Path) -> None:
    """What an 8-bit checkpoint looks like whose config lost its `quantization_config`."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight") and "vision" not in name)
    weights[name] = (weights[name] * 50).to(torch.int8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def adapter_beside(folder: Path) -> None:
    write("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "some/base"})(folder)
    save_file({"lora": torch.zeros(2)}, folder / "adapter_model.safetensors")


def adapter_alone(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    adapter_beside(folder)


def pipe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def config_pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def without(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def no_tokenizer(folder: Path) -> None:
    hf.CLIPImageProcessor().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (folder / name).unlink()


deep = "[" * 100_000 + "]" * 100_000
REFUSED: dict[str, tuple[Break, type[ModelError], str]] = {
    "bitsandbytes of plain weights": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ModelError,
        r"says bitsandbytes of its weights, and none in the files is quantised; remove quantization_config",
    ),
    "hqq": (
        config(quantization_config={"quant_method": "hqq"}),
        UnsupportedModelError,
        r"quantised \(hqq, by config.json\).*dequantize",
    ),
    "awq": (config(quantization_config={"quant_method": "awq", "bits": 4}), UnsupportedModelError, r"quantised \(awq"),
    "gptq": (config(quantization_config={"quant_method": "gptq"}), UnsupportedModelError, r"quantised \(gptq"),
    "quantised in its text part": (
        text_config(quantization_config={"quant_method": "fp8"}),
        UnsupportedModelError,
        r"quantised \(fp8",
    ),
    "gptq of old": (write("quantize_config.json", {"bits": 4}), UnsupportedModelError, r"by quantize_config.json"),
    "int8 weights": (int8, UnsupportedModelError, r"layers.1.mlp.down_proj.weight in model.safetensors is I8"),
    "a LoRA beside the weights": (
        adapter_beside,
        ModelError,
        r"adapter \(adapter_config.json\).*a folder of their own",
    ),
    "a LoRA whose base is not there": (adapter_alone, ModelError, r"'some/base' is neither a folder here nor"),
    "LLaVA as its authors save it": (
        config(mm_vision_tower="openai/clip"),
        UnsupportedModelError,
        "'mm_vision_tower'.*convert it to the llava-hf layout",
    ),
    "llava_llama": (config(model_type="llava_llama"), UnsupportedModelError, "convert it to the llava-hf layout"),
    "internvl_chat": (config(model_type="internvl_chat"), UnsupportedModelError, "whose name ends in -hf"),
    "BLIP-2 on BART": (
        blip2_on(hf.BartConfig(d_model=WIDTH, encoder_layers=1, decoder_layers=2, **BART)),
        UnsupportedModelError,
        "'bart' text decoder that norms the residual stream itself",
    ),
    "OPT that norms after": (
        blip2_on(hf.OPTConfig(hidden_size=WIDTH, word_embed_proj_dim=WIDTH, do_layer_norm_before=False, **OPT)),
        UnsupportedModelError,
        "norms the residual stream itself",
    ),
    "OPT without a final norm": (
        blip2_on(hf.OPTConfig(hidden_size=WIDTH, word_embed_proj_dim=WIDTH, _remove_final_layer_norm=True, **OPT)),
        UnsupportedModelError,
        "norms the residual stream itself",
    ),
    "OPT with a projection": (
        blip2_on(hf.OPTConfig(hidden_size=WIDTH, word_embed_proj_dim=16, **OPT)),
        UnsupportedModelError,
        "no list of layers has an FFN that writes 16 values",
    ),
    "a model type that is no text": (config(model_type=["llava"]), ModelError, "names no model_type"),
    "a deep config": (write("config.json", deep), ModelError, "config.json cannot be read: RecursionError"),
    "a huge config": (write("config.json", "[" + "0," * (1 << 23) + "0]"), ModelError, "bytes long, expected at most"),
    "ten million layers": (text_config(num_hidden_layers=10**7), ModelError, "num_hidden_layers = 10000000, expected"),
    "ten million experts": (text_config(num_local_experts=10**7), ModelError, "num_local_experts = 10000000, expected"),
    "no text config": (config(text_config=None), ModelError, "parameters, the files hold"),
    "a width that does not divide": (text_config(num_attention_heads=5), ModelError, "config.json"),
    "a width that is a word": (text_config(hidden_size="wide"), ModelError, "config.json"),
    "weights of another folder": (
        write("model.safetensors.index.json", {"weight_map": {"a": "../../other.safetensors"}}),
        ModelError,
        "no file of this folder",
    ),
    "a pipe for weights": (pipe, ModelError, "is no regular file"),
    "a pipe for a config": (config_pipe, ModelError, "no config.json"),
    "a processor of no known class": (
        write("processor_config.json", {"processor_class": "NoSuchProcessor"}),
        ModelError,
        "processor",
    ),
    "a processor of wrong values": (
        write("processor_config.json", {"processor_class": "LlavaProcessor", "image_processor": [1]}),
        ModelError,
        "processor cannot be loaded",
    ),
    "a processor without a tokenizer": (no_tokenizer, ModelError, "tokenizer|processor"),
    "a tokenizer of another form": (
        write("tokenizer.json", {"model": {"type": "None"}}),
        ModelError,
        "processor cannot",
    ),
    "no tokenizer.json": (without("tokenizer.json"), ModelError, "has no tokenizer; expected tokenizer.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scored_is_refused_in_one_line(name, copy):
    break_it, error, message = REFUSED[name]
    break_it(copy)
    with pytest.raises(error, match=message) as caught:
        load_model(str(copy), device="cpu")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["hqq", "BLIP-2 on BART", "OPT with a projection", "llava_llama"])
def test_a_decoder_is_judged_before_the_weights_are_looked_at(name, copy):
    break_it, error, message = REFUSED[name]
    break_it(copy)
    (copy / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises(error, match=message):
        load_model(str(copy), device="cpu")


@pytest.mark.parametrize("name", [*[name for name in FAMILY_BUILDERS if name != "limber"], *ENCODER_DECODERS])
def test_every_family_can_be_judged_by_its_config_alone(name, tmp_path):
    """No weights there: what is refused is that, and not the config."""
    module, _ = (FAMILY_BUILDERS | ENCODER_DECODERS)[name]()
    module.config.save_pretrained(tmp_path)
    found, family = judge_family(tmp_path)
    assert (found.model_type, family.model_type) == (module.config.model_type, module.config.model_type)


def refusal(kind: type[HfHubHTTPError], message: str) -> HfHubHTTPError:
    error = kind.__new__(kind)  # whose own __init__ wants the answer of a server
    Exception.__init__(error, message)
    return error


class Hub:
    """A hub of one repository: what was asked for, and a snapshot that grows by it."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository, self.snapshot = repository, folder / "abc123"
        self.asked: list[tuple[str | None, list[str]]] = []
        self.snapshot.mkdir()

    def fetch(self, _name: str, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((revision, allow_patterns))
        if revision not in (None, "main", "v1.5", "abc123"):
            raise refusal(RevisionNotFoundError, "404 Client Error. (Request ID: 1)")
        for pattern in allow_patterns:
            for file in self.repository.glob(pattern):
                shutil.copy(file, self.snapshot)
        return str(self.snapshot)


@pytest.fixture
def hub(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(copy, tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.fetch)
    return made


def test_a_hub_models_config_is_judged_before_its_weights_are_fetched(hub):
    text_config(model_type="bert")(hub.repository)
    with pytest.raises(UnsupportedModelError, match="'bert' text decoder that norms the residual stream"):
        load_model("some-body/some-model", device="cpu")
    assert [file.name for file in hub.snapshot.iterdir()] == ["config.json"]


def test_a_hub_model_is_fetched_whole_at_the_commit_that_was_judged(hub):
    model = load_model("some-body/some-model", device="cpu")
    assert model.facts.fingerprint == fingerprint(hub.repository)
    assert [revision for revision, _ in hub.asked] == [None, "abc123"]


def test_a_hub_model_of_a_tag_is_fetched_at_it_and_known_by_its_commit(hub):
    model = load_model("some-body/some-model", device="cpu", revision="v1.5")
    assert model.facts.revision == "abc123"
    assert [revision for revision, _ in hub.asked] == ["v1.5", "abc123"]


def test_a_run_keeps_the_commit_of_its_model_and_later_commands_load_that(hub, tmp_path):
    words = ["--cache", str(tmp_path / "cache"), "--device", "cpu", "--progress", "none", "--json"]
    score = ["score", "--model", "some-body/some-model", "--revision", "v1.5", "--images", "gallery", "--limit", "2"]
    assert main([*score, *words]) == 0
    (path,) = find_runs([tmp_path / "cache" / "runs"])
    assert read_run(path)[0].model.revision == "abc123"
    with Store.open(tmp_path / "cache") as store:
        versions = store.runs()["versions"].item()
    assert json.loads(versions)["model"] == "abc123"
    del hub.asked[:]
    assert main(["annotate", "latest", *words]) == 0
    assert {revision for revision, _ in hub.asked} == {"abc123"}


@pytest.mark.parametrize("name", ["specimen", "folder", "limber:parts.json"])
def test_what_is_not_on_the_hub_has_no_revision(name, checkpoint):
    named = str(checkpoint) if name == "folder" else name
    with pytest.raises(UsageError, match=f"--revision v1.5: {re.escape(named)} is not on the hub"):
        load_model(named, device="cpu", revision="v1.5")


def test_a_revision_in_a_hub_id_is_told_to_be_given_apart(hub):
    with pytest.raises(ModelError, match=r"'a/b@v1' is no hub id; .*a/b with --revision v1$"):
        load_model("a/b@v1", device="cpu")
    assert not hub.asked


def test_a_revision_that_is_not_there_is_named(hub):
    with pytest.raises(ModelError, match="it has no revision 'v9'; give a branch, a tag or a commit of it"):
        load_model("some-body/some-model", device="cpu", revision="v9")


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (
            GatedRepoError,
            r"gated; accept its terms at https://huggingface.co/some-body/some-model, then `hf auth login`",
        ),
        (RepositoryNotFoundError, "no such repository, or a private one; check the name, or `hf auth login`"),
    ],
)
def test_a_hub_that_says_no_is_told_with_what_to_do(kind, remedy, monkeypatch):
    def refuse(*_arguments, **_more):
        raise refusal(kind, "401 Client Error. (Request ID: 1)")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelError, match=remedy):
        load_model("some-body/some-model", device="cpu")


def test_an_adapter_on_the_hub_is_refused_before_anything_large_is_fetched(hub):
    adapter_beside(hub.repository)
    with pytest.raises(ModelError, match="a folder of their own"):
        load_model("some-body/some-model", device="cpu")
    assert not list(hub.snapshot.glob("*.safetensors"))


def test_a_folder_that_is_not_judged_is_only_found(copy):
    assert find_checkpoint(str(copy)) == Place(copy)


def test_flash_attention_in_a_config_is_not_needed(copy, checkpoint):
    config(attn_implementation="flash_attention_2")(copy)
    text_config(_attn_implementation="flash_attention_2")(copy)
    model = load_model(str(copy), device="cpu")
    other = load_model(str(checkpoint), device="cpu")
    assert model.module.config._attn_implementation == other.module.config._attn_implementation


@pytest.mark.parametrize("file", ["adapter_model.bin", "adapter_config.json", "adapter_model.safetensors"])
def test_an_adapters_files_are_part_of_the_fingerprint(file, copy):
    before = fingerprint(copy)
    (copy / file).write_bytes(b"")
    assert fingerprint(copy) != before


class Quantised(nn.Linear):
    """As bitsandbytes' layers: a subclass, whose `weight` is not what is multiplied."""


def replaced(path: str, change: Callable[[nn.Module], object]):
    def break_it(module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, change(module.get_submodule(path)))

    return break_it


def as_int8(module: nn.Module) -> nn.Module:
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    module.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    return module


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (replaced("model.language_model.layers.1.mlp.down_proj", as_int8), "mlp.down_proj of layer 1.weight .*int8"),
        (replaced("lm_head", as_int8), "lm_head.weight is a Parameter of torch.int8"),
        (replaced("model.language_model.norm", as_int8), "norm.weight is a Parameter of torch.int8"),
        (replaced("lm_head", lambda _one: Quantised(WIDTH, VOCABULARY)), "Quantised, no plain nn.Linear"),
        (
            replaced("model.language_model.layers.2.mlp.down_proj", lambda _one: Quantised(FFN, WIDTH, bias=False)),
            "mlp.down_proj of layer 2 is a tests.test_checkpoints.Quantised",
        ),
        (
            replaced("model.language_model.layers.2.mlp.down_proj", lambda _one: nn.Linear(FFN, WIDTH + 1)),
            "layer 2 is 33 × 48, expected 32 rows",
        ),
    ],
)
def test_matrices_that_are_no_plain_floats_are_refused_by_name(break_it, message):
    model, _ = build_family("llava")
    break_it(model.module)
    with pytest.raises(UnsupportedModelError, match=message):
        find_anatomy(model.module, model.family)


def test_sizes_that_are_no_numbers_of_layers_are_not_limited(copy):
    """Gemma 4 has a vocabulary for its input to each layer; 512 experts are the most that there are."""
    text_config(vocab_size_per_layer_input=262_144, num_experts=512)(copy)
    assert load_model(str(copy), device="cpu").facts.n_layers == 3
