"""Adapter folders: merged into their base, the model says what peft's own says; what cannot be merged is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file

from mmn.cli import main
from mmn.errors import ModelError, UnsupportedModelError, UsageError
from mmn.models.loading import load_model
from mmn.models.merging import is_adapter
from mmn.runs.doctor import examine
from mmn.runs.shards import find_runs, read_run
from mmn.safety.limits import Limits
from tests.test_placement import ALL_HERE, DECODER
from tests.tiny import WIDTH

TARGETS = ["down_proj", "q_proj"]


def save_lora(path: Path, base: Path, **settings: Any) -> Any:
    """Saves a LoRA of random tensors, B among them, as a user would; returns peft's model."""
    torch.manual_seed(1)
    wanted: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 16,
        "target_modules": TARGETS,
        "init_lora_weights": False,
    } | settings
    module = hf.AutoModelForImageTextToText.from_pretrained(base)
    adapted = peft.get_peft_model(module, peft.LoraConfig(**wanted)).eval()
    adapted.save_pretrained(str(path))
    return adapted


@pytest.fixture
def adapter(checkpoint: Path, tmp_path: Path) -> Path:
    save_lora(tmp_path / "lora", checkpoint)
    return tmp_path / "lora"


def test_an_adapter_is_not_merged_into_what_is_offloaded(adapter: Path) -> None:
    with pytest.raises(UsageError, match=r"--device-map: an adapter is merged .* no GPU has room"):
        load_model(str(adapter), device_map=ALL_HERE | {f"{DECODER}.layers.1": "disk"})


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    picture = Image.linear_gradient("L").convert("RGB").resize((120, 90))
    return dict(model.encode([picture], model.exact_prompt("A picture of")))


@torch.no_grad()
def assert_same_logits(model: Any, adapted: Any) -> None:
    inputs = inputs_of(model)
    mine, theirs = model.module(**inputs).logits, adapted(**inputs).logits
    assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()  # float32: W + ΔW at once, or one after the other


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": r".*language_model.*\.down_proj"},
    ],
    ids=["plain", "dora", "rslora", "a module saved whole", "a pattern"],
)
def test_a_merged_adapter_says_what_pefts_model_says(settings, checkpoint, tmp_path):
    adapted = save_lora(tmp_path / "lora", checkpoint, **settings)
    model = load_model(str(tmp_path / "lora"), device="cpu")
    assert_same_logits(model, adapted)
    assert examine(model)["exactness_residual"] <= 1e-4
    assert all(type(out) is torch.nn.Linear for out in model.anatomy.ffn_outs)


def test_an_adapter_of_before_transformers_renamed_its_modules_is_merged_alike(adapter):
    now = load_model(str(adapter), device="cpu")
    file = adapter / "adapter_model.safetensors"
    new, old = "base_model.model.model.language_model.", "base_model.model.language_model.model."
    renamed = {name.replace(new, old): tensor for name, tensor in load_file(file).items()}
    assert any(name.startswith(old) for name in renamed)
    save_file(renamed, file, {"format": "pt"})
    then = load_model(str(adapter), device="cpu")
    for layer in range(now.anatomy.n_layers):
        assert torch.equal(now.anatomy.w_out(layer), then.anatomy.w_out(layer))


def test_an_adapter_changes_what_is_scored_and_says_so(adapter, checkpoint):
    model, base = load_model(str(adapter), device="cpu"), load_model(str(checkpoint), device="cpu")
    assert not torch.equal(model.anatomy.w_out(1), base.anatomy.w_out(1))
    n_matrices = 3 * len(TARGETS) + 2  # the image tower has q_proj, too
    (told,) = model.filled
    assert told == f"the LORA adapter was merged into {checkpoint}: {n_matrices} matrices changed"
    assert model.facts.fingerprint != base.facts.fingerprint


def test_the_head_alone_is_changed_where_it_is_tied_to_the_embeddings(checkpoint, tmp_path):
    config = hf.AutoConfig.from_pretrained(checkpoint)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    tied = hf.AutoModelForImageTextToText.from_pretrained(checkpoint, config=config)
    shutil.copytree(checkpoint, tmp_path / "base")
    tied.save_pretrained(tmp_path / "base")
    adapted = save_lora(tmp_path / "lora", tmp_path / "base", target_modules=["lm_head"])
    model = load_model(str(tmp_path / "lora"), device="cpu")
    embeddings = model.module.get_input_embeddings().weight
    assert torch.equal(embeddings, tied.get_input_embeddings().weight)
    assert_same_logits(model, adapted)


def test_the_fingerprint_covers_the_base_and_the_adapter(adapter, checkpoint, tmp_path):
    before = load_model(str(adapter), device="cpu").facts.fingerprint
    base = Path(shutil.copytree(checkpoint, tmp_path / "base"))
    name_base(adapter, base)
    other_place = load_model(str(adapter), device="cpu").facts.fingerprint
    change_one(base / "model.safetensors")
    other_base = load_model(str(adapter), device="cpu").facts.fingerprint
    change_one(adapter / "adapter_model.safetensors")
    other_adapter = load_model(str(adapter), device="cpu").facts.fingerprint
    assert len({before, other_place, other_base, other_adapter}) == 4


def change_one(file: Path) -> None:
    tensors = load_file(file)
    tensors[min(tensors)] += 1
    save_file(tensors, file, {"format": "pt"})


def name_base(adapter: Path, base: object, **more: object) -> None:
    file = adapter / "adapter_config.json"
    values = json.loads(file.read_text()) | {"base_model_name_or_path": base and str(base)} | more
    file.write_text(json.dumps(values))


def test_a_base_is_found_beside_its_adapter(adapter, checkpoint):
    shutil.copytree(checkpoint, adapter / "base")
    name_base(adapter, "base")
    assert load_model(str(adapter), device="cpu").filled


def test_a_processor_that_was_saved_with_the_adapter_is_used(adapter, checkpoint):
    processor = hf.AutoProcessor.from_pretrained(checkpoint)
    processor.chat_template = "{{ 'Look: <image>' }}"
    processor.save_pretrained(adapter)
    assert load_model(str(adapter), device="cpu").exact_prompt("What is it?") == "Look: <image>"


def test_a_tokenizer_alone_may_be_there_if_it_is_the_bases(adapter, checkpoint):
    shutil.copy(checkpoint / "tokenizer.json", adapter)
    assert load_model(str(adapter), device="cpu").filled
    other = json.loads((adapter / "tokenizer.json").read_text())
    other["model"] |= {"type": "another"}
    (adapter / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(ModelError, match=r"tokenizer.json is another than its base's.*processor.save_pretrained"):
        load_model(str(adapter), device="cpu")


def test_a_run_of_an_adapter_on_the_hub_finds_both_commits_again(adapter, checkpoint, tmp_path, monkeypatch):
    shelves = {"some/lora": (adapter, "aaa"), "some/base": (checkpoint, "bbb")}
    name_base(adapter, "some/base", revision="v2")
    asked: list[tuple[str, str | None]] = []

    def fetch(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        repository, commit = shelves[name]
        snapshot = tmp_path / commit
        snapshot.mkdir(exist_ok=True)
        asked.append((name, revision))
        for pattern in allow_patterns:
            for file in repository.glob(pattern):
                shutil.copy(file, snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    words = ["--cache", str(tmp_path / "cache"), "--device", "cpu", "--progress", "none", "--json"]
    assert main(["score", "--model", "some/lora", "--images", "gallery", "--limit", "2", *words]) == 0
    assert asked == [("some/lora", None), ("some/lora", "aaa"), ("some/base", "v2"), ("some/base", "bbb")]
    (path,) = find_runs([tmp_path / "cache" / "runs"])
    assert read_run(path)[0].model.revision == "aaa+bbb"
    del asked[:]
    assert main(["annotate", "latest", *words]) == 0
    assert set(asked) == {("some/lora", "aaa"), ("some/base", "bbb")}


def test_a_revision_of_a_base_that_there_is_none_of_is_refused(checkpoint):
    with pytest.raises(UsageError, match=r"--revision \+v1: "):
        load_model(str(checkpoint), device="cpu", revision="+v1")


def no_base(folder: Path) -> None:
    name_base(folder, None)


def base_gone(folder: Path) -> None:
    name_base(folder, folder / "nowhere")


def base_is_an_adapter(folder: Path) -> None:
    shutil.copytree(folder, folder / "other")
    name_base(folder, folder / "other")


def pissa(folder: Path) -> None:
    name_base(
        folder,
        json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"],
        init_lora_weights="pissa",
    )


def settings(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def change_them(folder: Path) -> None:
        there = load_file(folder / "adapter_model.safetensors")
        change(there)
        save_file(there, folder / "adapter_model.safetensors", {"format": "pt"})

    return change_them


def of_another_width(there: dict[str, torch.Tensor]) -> None:
    name = next(name for name in there if "down_proj.lora_B" in name)
    there[name] = torch.zeros(WIDTH + 1, 4)


REFUSED: dict[str, tuple[Callable[[Path], object], type[ModelError], str]] = {
    "no base": (no_base, ModelError, "names no base_model_name_or_path; write"),
    "a base that is gone": (base_gone, ModelError, "nowhere' is no folder"),
    "a base that is an adapter": (base_is_an_adapter, ModelError, "is an adapter, not a whole model"),
    "PiSSA": (pissa, UnsupportedModelError, "init_lora_weights = 'pissa'.*path_initial_model_for_weight_conversion"),
    "pickled weights": (pickled, ModelError, r"no adapter_model.safetensors \(a pickled .*save_pretrained of peft"),
    "a broken config": (lambda folder: (folder / "adapter_config.json").write_text("{"), ModelError, "cannot be read"),
    "a kind that peft does not know": (settings(peft_type="LORE"), ModelError, "this LORE adapter cannot be merged"),
    "prompts": (settings(peft_type="PREFIX_TUNING"), ModelError, "this PREFIX_TUNING adapter cannot be merged"),
    "targets that are not there": (settings(target_modules=["c_proj"]), ModelError, "cannot be merged into .*c_proj"),
    "a tensor missing": (tensors(lambda there: there.pop(min(there))), ModelError, "1 tensors are missing, "),
    "a tensor too many": (
        tensors(lambda there: there.update({min(there).replace("layers.0", "layers.7"): torch.zeros(2)})),
        ModelError,
        "1 tensors are unexpected, ",
    ),
    "a tensor of another shape": (tensors(of_another_width), ModelError, "cannot be merged into"),
    "not a number": (
        tensors(lambda there: there[min(there)].fill_(torch.nan)),
        ModelError,
        "cannot be merged into .*(NaN|nan)",
    ),
    "an endless pattern": (settings(target_modules="(([a-z_.0-9]+)+)+!"), ModelError, "takes more than 60 s"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_adapter_that_cannot_be_merged_is_refused_in_one_line(name, adapter, monkeypatch):
    break_it, error, message = REFUSED[name]
    break_it(adapter)
    if name == "an endless pattern":
        monkeypatch.setattr("mmn.models.merging.FITTING", Limits(seconds=2))
        message = "takes more than 2 s"
    with pytest.raises(error, match=message) as caught:
        load_model(str(adapter), device="cpu")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_without_peft_the_message_is_the_command(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match="adapters are merged by peft: it needs peft: `pip install peft"):
        load_model(str(adapter), device="cpu")


def test_weights_beside_an_adapter_may_hold_it_already(adapter, checkpoint):
    shutil.copy(checkpoint / "config.json", adapter)
    assert is_adapter(adapter)
    assert load_model(str(adapter), device="cpu").filled
    shutil.copy(checkpoint / "model.safetensors", adapter)
    with pytest.raises(ModelError, match=r"to a folder of their own to have them merged .*or remove them"):
        load_model(str(adapter), device="cpu")
