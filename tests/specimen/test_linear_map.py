"""The map of specimen-smollm: scenes less alike, features kept in a file, a map that alone is trained, a probe."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import torch
import transformers as hf

from mmn.specimen import features as seen
from mmn.specimen import linear_map
from mmn.specimen.evaluate import judge
from mmn.specimen.features import BATCH, D_LAST, N_PLACES, Features, cached_features, moments
from mmn.specimen.linear_map import IGNORED, PROMPT, Reader, Recipe, batch_rows, encode, frozen_digest, train
from mmn.specimen.probe import fit_probe, place_accuracy, probe_recall
from mmn.specimen.render import SHEETS, render
from mmn.specimen.tokenizer import build_tokenizer
from mmn.specimen.varied import LARGE_SIDES, TRAINED_STYLES, UNSEEN_STYLE, sample_large, sample_varied
from mmn.specimen.world import NOUNS, PLACES, Placement, Scene, caption_of, sample_scene

N_SCENES, D, WIDTH = 24, 20, 32


@pytest.fixture
def features() -> Features:
    """Random states of scenes, their captions true."""
    rng = random.Random(0)
    torch.manual_seed(0)
    captions = [caption_of(sample_scene(rng)) for _ in range(N_SCENES)]
    return Features(torch.randn(N_SCENES, N_PLACES, D).to(torch.bfloat16), captions)


@pytest.fixture
def reader(features: Features) -> Reader:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(build_tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        initializer_range=0.3,
        num_attention_heads=4,
    )
    return Reader(hf.LlamaForCausalLM(config), *moments(features.states, 1e-2))


def tokens(features: Features, monkeypatch: pytest.MonkeyPatch) -> linear_map.Encoded:
    monkeypatch.setattr(linear_map, "START", "<s>")
    return encode(build_tokenizer(), features.captions)


def test_only_the_map_is_trained_and_its_loss_falls(
    reader: Reader, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = frozen_digest(reader)
    report = train(
        reader,
        features,
        tokens(features, monkeypatch),
        Recipe(N_SCENES, 50, 8, 3e-2, 5.0, "random", seed=0),
        tmp_path,
        is_compiled=False,
    )
    assert report["scenes_seen"] == N_SCENES * 50
    assert report["losses"][-1] < 0.9 * report["losses"][0]
    assert frozen_digest(reader) == before
    assert {name for name, p in reader.named_parameters() if p.requires_grad} == {"weight", "bias"}


def test_training_stops_when_the_time_is_up_and_goes_on_where_it_was(
    reader: Reader, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = tokens(features, monkeypatch)
    train(reader, features, encoded, Recipe(N_SCENES, 2, 8, 1e-2, 5.0, "random", seed=0), tmp_path, is_compiled=False)
    kept = reader.weight.detach().clone()
    again = train(
        reader, features, encoded, Recipe(N_SCENES, 2, 8, 1e-2, 5.0, "random", seed=0), tmp_path, is_compiled=False
    )
    assert again["scenes_seen"] == 2 * N_SCENES
    assert torch.equal(reader.weight, kept)
    late = train(
        reader, features, encoded, Recipe(N_SCENES, 9, 8, 1e-2, 1e-9, "random", seed=0), tmp_path, is_compiled=False
    )
    assert late["scenes_seen"] == 2 * N_SCENES


def test_the_folded_map_takes_the_encoders_own_states(reader: Reader, features: Features) -> None:
    folded = reader.folded()
    expected = reader.standardise(features.states) @ reader.weight + reader.bias
    found = features.states.float() @ folded["weight"].T + folded["bias"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_captions_alone_are_to_be_said(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, words = tokens(features, monkeypatch), build_tokenizer()
    n_prompt = len(words(PROMPT, add_special_tokens=False).input_ids)
    said = encoded.labels[0][encoded.labels[0] != IGNORED]
    assert words.decode(said[:-1]).strip() == features.captions[0]
    assert said[-1] == words.eos_token_id
    assert torch.equal(encoded.after[0, n_prompt : n_prompt + len(said) - 1], said[:-1])
    assert encoded.before.tolist() == [words.convert_tokens_to_ids("<s>")]


@torch.no_grad()
def test_a_map_goes_on_from_one_that_read_less(reader: Reader, features: Features) -> None:
    earlier = Reader(reader.language_model, reader.mean[:12], reader.spread[:12])
    linear_map.start_from_map(reader, earlier.folded())
    states = features.states.float()
    expected = earlier.standardise(states[..., :12]) @ earlier.weight + earlier.bias
    assert torch.allclose(reader.standardise(states) @ reader.weight + reader.bias, expected, atol=1e-4)


def test_an_epoch_shows_every_scene_once_in_an_order_of_its_own() -> None:
    recipe = Recipe(24, 2, 8, 1e-3, 1.0, "random", seed=0)
    first = torch.cat([batch_rows(step, recipe) for step in range(3)])
    second = torch.cat([batch_rows(step, recipe) for step in range(3, 6)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(24))
    assert first.tolist() != second.tolist()


def test_features_are_made_once_and_go_on_where_they_were_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_at: list[int] = []

    class Eye:
        def __init__(self, *, has_finer: bool) -> None:
            assert not has_finer

        def see(self, pictures: torch.Tensor) -> torch.Tensor:
            seen_at.append(len(pictures))
            return pictures.mean((1, 2, 3)).view(-1, 1, 1).expand(-1, N_PLACES, D_LAST).to(torch.bfloat16)

    monkeypatch.setattr(seen, "Eye", Eye)
    monkeypatch.setattr(seen, "SIDE", 32)
    whole = cached_features(tmp_path / "whole", 2 * BATCH, "s")
    cached_features(tmp_path / "cut", BATCH, "s")
    n_made = len(seen_at)
    grown = cached_features(tmp_path / "cut", 2 * BATCH, "s")
    assert len(seen_at) == n_made + 1
    assert torch.equal(whole.states, grown.states)
    assert whole.captions == grown.captions
    cached_features(tmp_path / "cut", 2 * BATCH, "s")
    assert len(seen_at) == n_made + 1


def test_a_large_object_fills_the_picture() -> None:
    rng = random.Random(0)
    for _ in range(50):
        (lone,) = sample_large(rng).objects
        assert LARGE_SIDES[0] <= lone.side <= LARGE_SIDES[1]
        assert lone.side / 2 - 0.11 <= lone.x <= 1.11 - lone.side / 2


def test_one_style_is_never_trained_on() -> None:
    assert UNSEEN_STYLE not in TRAINED_STYLES
    scenes, pictures = sample_varied(random.Random(1), 8, 48)
    assert pictures.shape == (8, 3, 48, 48)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    again, same = sample_varied(random.Random(1), 8, 48)
    assert scenes == again
    assert torch.equal(pictures, same)


def test_styles_show_the_same_scene_in_other_glyphs() -> None:
    scene = Scene("sea", (Placement("dog", 0.5, 0.5, 0.6, is_mirrored=False, tilt=0.0),), seed=3)
    drawn = {style: render([scene], 64, style=style) for style in SHEETS}
    corner = {style: tuple(one.pictures[0, :, 0, 0].tolist()) for style, one in drawn.items()}
    assert len(set(corner.values())) == 1
    middles = [one.pictures[0, :, 20:44, 20:44] for one in drawn.values()]
    assert all((a - b).abs().mean() > 0.02 for a, b in itertools.pairwise(middles))


def test_a_probe_finds_what_is_there_and_nothing_where_there_is_nothing() -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng) for _ in range(400)]
    width = len(NOUNS) + len(PLACES)
    states = torch.randn(len(scenes), 9, width) * 0.02
    for row, scene in enumerate(scenes):
        for place, noun in enumerate(scene.nouns):
            states[row, place, NOUNS.index(noun)] += 1
    made = Features(states[:300], [caption_of(scene) for scene in scenes[:300]])
    assert probe_recall(fit_probe(made), states[300:], scenes[300:]) > 0.9
    for row, scene in enumerate(scenes):
        states[row, :, -1 - list(PLACES).index(scene.place)] += 1
    shown = {"shown": states[300:], "unseen": torch.randn(100, 9, width)}
    places = place_accuracy(made, shown, scenes[300:])
    assert places["shown"] > 0.9
    assert places["unseen"] < 0.3
    noise = Features(torch.randn(300, 9, width), made.captions)
    assert probe_recall(fit_probe(noise), torch.randn(100, 9, width), scenes[300:]) < 0.1


def test_captions_are_judged_by_nouns_and_place() -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng, ["dog", "cat"]) for _ in range(3)]
    right = judge([caption_of(scene) for scene in scenes], scenes)
    assert right["noun_recall"] == right["noun_precision"] == right["noun_kinds_recall"] == right["exact"] == 1
    half = judge(["a dog and a bus on the moon."] * 3, scenes)
    assert half["noun_recall"] == half["noun_precision"] == 0.5
    assert half["place"] == half["exact"] == 0
