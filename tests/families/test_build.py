"""Every type of transformers' image-text-to-text mapping: its tiny model reads a picture, or the reason it cannot."""

from __future__ import annotations

import importlib.util
import inspect
import re

import pytest
import torch
import transformers
from PIL import Image

from mmn.models.adapters.structure import find_head, find_structure
from tests.families.inputs import image_id
from tests.families.survey import PAGE, page, survey
from tests.families.tiny import REFUSED, TIMM, TYPES, TinyVLM, build

RUN = [name for name in TYPES if name not in REFUSED]
WITHOUT_IMAGE_TOKENS = {
    "blip": "cross-attention",
    "git": "image features before the text",
    "idefics": "cross-attention",
    "pix2struct": "the encoder reads the picture",
    "pp_formulanet": "the encoder reads the picture",
    "udop": "image features beside the text",
    "vision-encoder-decoder": "the encoder reads the picture",
}


def pictures() -> list[Image.Image]:
    return [Image.linear_gradient("L").convert("RGB"), Image.radial_gradient("L").convert("RGB")]


# Seen, not explained away: in a batch, the second picture of these gives other logits than alone.
BATCH_MIXES = {
    "hunyuan_vl": "its rotary positions count pictures over the whole batch",
}


def test_every_other_type_that_runs_reads_a_picture_too():
    """Those that are scored exactly are read in `test_exact.py`, from the same model."""
    from tests.families.test_exact import EXACT

    others = set(RUN) - set(EXACT)
    assert len(others) > 5
    for name in sorted(others):
        reads_pictures_and_says_finite_logits(build(name))


def reads_pictures_and_says_finite_logits(vlm: TinyVLM) -> None:
    """Different ones for different pictures, and the same whichever comes first in a batch."""
    name, inputs = vlm.model_type, vlm.encode(pictures())
    with torch.no_grad():
        logits = vlm.module(**inputs).logits
        exchanged = vlm.module(**vlm.encode(pictures()[::-1])).logits
    assert logits.isfinite().all()
    assert len(logits) == 2
    assert not torch.allclose(logits[0], logits[1], atol=1e-6), "the picture makes no difference"
    same = torch.allclose(logits, exchanged.flip(0), atol=1e-4, rtol=1e-4)
    assert same != (name in BATCH_MIXES), f"{name}: logits independent of the place in the batch: {same}"
    if name not in WITHOUT_IMAGE_TOKENS:
        assert (inputs["input_ids"] == image_id(vlm.module.config)).any(dim=1).all()
    _is_small_and_has_layers(vlm.module)


def test_the_survey_lists_every_type_that_runs_and_the_reason_of_every_other():
    rows, refused = surveyed()
    assert list(rows) == RUN
    assert refused == REFUSED


@pytest.mark.parametrize("name", ["gemma3", "granite4_vision", "qwen3_vl_moe", "mllama"])
def test_the_survey_says_of_a_type_what_is_found_today(name):
    """All but the two errors, whose last digits depend on the machine; those are small."""
    cells = page([survey(name)], {}).split("\n| " + name + " |")[1].splitlines()[0].split(" | ")
    assert cells[:-3] + cells[-1:] == surveyed()[0][name][:-3] + surveyed()[0][name][-1:]
    assert all(float(error) < 1e-6 for error in cells[-3:-1])


def surveyed() -> tuple[dict[str, list[str]], dict[str, str]]:
    """The cells of each type in `survey.md`, and the reasons of the others."""
    text = PAGE.read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    rows = {line.split(" | ")[0].removeprefix("| "): line.partition(" | ")[2] for line in lines}
    refused = dict(re.findall(r"^- `([^`]+)`: (.+)$", text, re.MULTILINE))
    return {name: (" " + cells).split(" | ") for name, cells in rows.items()}, refused


def _is_small_and_has_layers(module):
    assert sum(parameter.numel() for parameter in module.parameters()) < 9e6
    structure = find_structure(module)
    assert len(structure.layers) >= 2
    assert any(layer.ffn_outs for layer in structure.layers)
    assert all(m.n_experts in (0, 2, 4) for layer in structure.layers for m in layer.ffn_outs)


def test_refused_types_that_build_lack_what_their_reason_says():
    assert find_head(build("mistral4").module) is not None
    assert "pixel_values" not in inspect.signature(transformers.Mistral4ForCausalLM.forward).parameters
    assert "pixel_values" not in inspect.signature(transformers.EvollaForProteinText2Text.forward).parameters
    with pytest.raises(LookupError, match="does not say words"):
        find_head(build("pi0").module)


def test_every_type_of_the_mapping_runs_or_has_its_reason():
    assert set(REFUSED) < set(TYPES)
    assert len(TYPES) == 97  # of transformers 5.23


@pytest.mark.parametrize("name", [name for name, reason in REFUSED.items() if reason == TIMM])
def test_types_that_need_timm_say_so(name):
    if importlib.util.find_spec("timm") is not None:
        pytest.skip("timm is installed: then they can be made; of none is there a tiny one here")
    with pytest.raises(ImportError, match="timm"):
        build(name)
