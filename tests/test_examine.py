"""What `score` and `doctor` check before anything else: that the picture is seen, and that the logits add up."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mmn.cli import main
from mmn.errors import EncodingError, ModelError, UnsupportedModelError
from mmn.models import processors
from mmn.models.adapters import Norm
from mmn.models.checkpoints import fingerprint
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.reading.captions import caption_batch
from mmn.runs.doctor import check, examine
from mmn.scores.exactness import LIMITS
from tests.tiny import save_tiny_blip2


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_blip2(tmp_path_factory.mktemp("blip2") / "tiny-blip2")


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def change_json(file: Path, **changes: object) -> None:
    """Sets keys of a JSON file; None takes one away."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def change_weight(folder: Path, ending: str, change) -> None:
    weights = load_file(folder / "model.safetensors")
    (name,) = [name for name in weights if name.endswith(ending) and "vision" not in name]
    weights[name] = change(weights[name])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def load(folder: Path, dtype: str = "float32") -> Model:
    return load_model(str(folder), dtype, "cpu")


def checked(model: Model):
    return check(model, model.exact_prompt(model.default_prompt))


def captions_of(model: Model) -> list[tuple[int, ...]]:
    pictures = [Image.linear_gradient("L").convert("RGB"), Image.new("RGB", (80, 60), (250, 40, 0))]
    written = caption_batch(model, pictures, model.exact_prompt("A picture of"), 6).captions
    return [caption.token_ids for caption in written]


# What an older processor lacks


def test_a_blip2_whose_processor_lacks_num_query_tokens_sees_the_picture(blip2, tmp_path):
    """It used to write no image token, caption every picture alike, and be «complete»."""
    older = Path(shutil.copytree(blip2, tmp_path / "older"))
    change_json(older / "processor_config.json", num_query_tokens=None)
    whole, model = load(blip2), load(older)
    assert model.filled == ("num_query_tokens = 5 from config.json, since the processor has none",)
    found = checked(model)
    assert (found.n_image_tokens, found.n_image_features) == (5, 5)
    assert found.pixel_effect > 0.01
    assert captions_of(model) == captions_of(whole)
    assert len(set(captions_of(model))) == 2, "the pictures do not show in the captions, so this shows nothing"
    assert examine(model)["filled"] == list(model.filled)


def test_what_was_filled_in_is_part_of_the_fingerprint(blip2, tmp_path):
    """So that a run of before, when the picture was not seen, is not taken for one of now."""
    older = Path(shutil.copytree(blip2, tmp_path / "older"))
    change_json(older / "processor_config.json", num_query_tokens=None)
    assert load(older).facts.fingerprint != fingerprint(older)
    assert load(blip2).facts.fingerprint == fingerprint(blip2)


def test_a_config_of_before_there_were_placeholders_gets_the_processors(blip2, tmp_path):
    older = Path(shutil.copytree(blip2, tmp_path / "older"))
    change_json(older / "config.json", image_token_index=None)
    assert json.loads((older / "config.json").read_text()).get("image_token_id") is None
    model = load(older)
    assert checked(model).n_image_tokens == 5
    assert "image_token_index" in model.filled[0]
    assert captions_of(model) == captions_of(load(blip2))


def test_a_llava_whose_processor_lacks_its_numbers_gets_them_from_the_config(copy, checkpoint):
    lacking = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
    change_json(copy / "processor_config.json", **dict.fromkeys(lacking))
    model = load(copy)
    assert [sentence.split(" = ")[0] for sentence in model.filled] == list(lacking)
    assert checked(model).n_image_tokens == 64
    assert captions_of(model) == captions_of(load(checkpoint))


def test_a_tokenizer_without_a_pad_token_gets_one(copy, checkpoint):
    change_json(copy / "tokenizer_config.json", pad_token=None)
    model = load(copy)
    assert "pad token" in model.filled[0]
    assert captions_of(model) == captions_of(load(checkpoint))


def test_what_was_filled_in_is_said_on_standard_error(copy, capsys):
    change_json(copy / "processor_config.json", patch_size=None)
    assert main(["doctor", str(copy), "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert "mmn: note: patch_size = 14 from config.json" in said.err
    assert json.loads(said.out)["filled"] == ["patch_size = 14 from config.json, since the processor has none"]


# What means that the picture is not seen


def no_tokens(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def text_only(folder: Path) -> None:
    template = "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)


def words_only(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ 'USER: ' + m['content'] }}{% endfor %}")


def refusing(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('only text, please') }}")


def fewer_tokens(folder: Path) -> None:
    change_json(folder / "processor_config.json", num_additional_image_tokens=0)


def more_tokens(folder: Path) -> None:
    change_json(folder / "processor_config.json", num_additional_image_tokens=3)


def blind(folder: Path) -> None:
    change_weight(folder, "multi_modal_projector.linear_2.weight", torch.zeros_like)


def nan(folder: Path) -> None:
    change_weight(folder, "layers.1.mlp.down_proj.weight", lambda weight: weight * float("nan"))


UNFIT = {
    "a chat template of text alone": (text_only, ModelError, "chat template leaves the picture out"),
    "a chat template that joins words": (words_only, EncodingError, "chat template cannot be filled in: TypeError"),
    "a chat template that refuses": (refusing, EncodingError, "chat template cannot be filled in: only text, please"),
    "fewer tokens than features": (fewer_tokens, ModelError, "126 image tokens for 2 pictures.*128 features.*mend"),
    "more tokens than features": (more_tokens, ModelError, "132 image tokens for 2 pictures.*128 features.*mend"),
    "a projector of zeros": (blind, UnsupportedModelError, "does not see the picture"),
    "weights that are NaN": (nan, ModelError, "output of layer 1 .*down_proj.weight is not finite"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_model_that_does_not_see_the_picture_is_refused_by_both_commands(name, copy, pictures, tmp_path, capsys):
    break_it, error, message = UNFIT[name]
    break_it(copy)
    with pytest.raises(error, match=message):
        checked(load(copy))
    cache = str(tmp_path / "cache")
    for words in (["doctor", str(copy)], ["score", "--model", str(copy), "--images", str(pictures), "--limit", "2"]):
        assert main([*words, "--device", "cpu", "--cache", cache]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmn: ")]
        assert len(lines) == 1
        assert str(copy) in lines[0]
    assert not (tmp_path / "cache" / "runs").exists(), "a refused model leaves no run"


def test_a_blip2_without_its_number_of_tokens_anywhere_is_refused(blip2, monkeypatch):
    monkeypatch.setattr(processors, "_known", lambda _config: {})
    model = load(blip2)
    model.processor.num_query_tokens = None
    with pytest.raises(ModelError, match="its processor writes no image tokens"):
        checked(model)


# What means that the adapter reads something else


@pytest.mark.parametrize(
    "wrong",
    [
        lambda anatomy: replace(anatomy, norm=Norm.RMS_PLUS_ONE),
        lambda anatomy: replace(anatomy, attentions=anatomy.attentions[:1] * 3),
        lambda anatomy: replace(anatomy, ffn_outs=anatomy.ffn_outs[:1] * 3),
    ],
)
def test_an_adapter_that_misreads_the_model_is_refused(wrong, tiny):
    with pytest.raises(UnsupportedModelError, match=r"adapter does not understand .*float32 explains 0\.0001"):
        checked(replace(tiny, anatomy=wrong(tiny.anatomy)))


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", ["specimen", "tiny"])
def test_rounding_is_no_misreading(name, dtype, checkpoint):
    """The specimen is trained: its logits are large, and what is far from being said has the largest residual."""
    model = load_model(name if name == "specimen" else str(checkpoint), str(dtype).removeprefix("torch."), "cpu")
    assert checked(model).proof.exact < LIMITS[dtype] / 2


def test_float16_that_overflows_names_the_layer_and_the_remedy(copy):
    for ending in ("layers.1.mlp.up_proj.weight", "layers.1.mlp.down_proj.weight"):
        change_weight(copy, ending, lambda weight: weight * 1e3)
    with pytest.raises(ModelError, match="output of layer 1 is not: too large for float16; try --dtype bfloat16"):
        checked(load(copy, "float16"))
    checked(load(copy, "float32"))
