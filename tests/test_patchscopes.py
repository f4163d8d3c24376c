"""`mmn patchscopes`: rows are what plain transformers give with a hook written here; controls are controls."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from mmn.cli import main
from mmn.errors import ImageError, UsageError
from mmn.images import open_image
from mmn.models.model import Model
from mmn.reading.hooks import capture_residual, write_residual
from mmn.reading.nouns import lemma_of
from mmn.reading.plain_text import Text, text_states
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress
from mmn.store import Store
from mmn.studies.lens.measure import read_image_tokens
from mmn.studies.patchscopes import bank as company
from mmn.studies.patchscopes import command
from mmn.studies.patchscopes import measure as reading
from mmn.studies.patchscopes.bank import Bank, chances, nearest, nouns_of, read_bank, texts_of_run
from mmn.studies.patchscopes.measure import Asked, find_neighbours, read_in_prompt
from mmn.studies.patchscopes.prompt import encoded, prompt_name
from mmn.studies.patchscopes.queries import PatchscopeQueries
from mmn.studies.patchscopes.states import all_said, drawn_tokens, partner_of
from mmn.studies.patchscopes.tables import IDENTITY
from mmn.studies.tables import TABLES
from tests.scored import interrupted_at_the_second, run_path_of, tables_of
from tests.tiny import ENCODER_DECODERS, UNLIKE, build_family

N_TOKENS, N_LAYERS = 64, 3
SCORING = ["--methods", "contribution", "--top-k", 3, "--max-new-tokens", 8, "--batch-size", 2, "--device", "cpu"]
PROMPT = "dog cat a"
ASKED = Asked(PROMPT, n_tokens=3)


@pytest.fixture(scope="module")
def scored(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of three pictures in two batches."""
    folder = paint(tmp_path_factory.mktemp("patchscopes") / "pictures", 3)
    cache = folder.parent / "cache"
    words = ["score", "--model", checkpoint, "--images", folder, "--cache", cache, "--progress", "none", *SCORING]
    assert main([*map(str, words)]) == 0
    return cache


@pytest.fixture(scope="module")
def read(scored: Path, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The tables of all pictures, written into the same layer and into layer 1, and the neighbours."""
    cache = Path(shutil.copytree(scored, tmp_path_factory.mktemp("read") / "cache"))
    opened = reopen.open_run(tiny, run_path_of(cache))
    read_in_prompt(opened, replace(ASKED, n_next=2))
    read_in_prompt(opened, replace(ASKED, into=1), limit=1)
    find_neighbours(opened, ASKED)
    return tables_of(cache, ["patchscope", "patchscope_word", "neighbour", "grid", "concept", "image"])


@pytest.fixture
def run(cache: Path, tiny: Model) -> reopen.ScoredRun:
    return reopen.open_run(tiny, run_path_of(cache))


def plain_states(tiny: Model, run: reopen.ScoredRun, number: int) -> tuple[torch.Tensor, list[int], int]:
    """Every layer's states of a picture with its caption, where its image tokens lie, and the prompt's length."""
    said = all_said(run)[number]
    inputs = tiny.encode([open_image(said.example.source)], run.run.prompt)
    ids = torch.cat([inputs["input_ids"], torch.tensor([said.caption.token_ids])], dim=1)
    with torch.inference_mode():
        output = tiny.module(
            input_ids=ids, pixel_values=inputs["pixel_values"], attention_mask=ids * 0 + 1, output_hidden_states=True
        )
    at = torch.eq(inputs["input_ids"][0], int(tiny.image_token_id or 0)).nonzero()[:, 0].tolist()
    return torch.stack(output.hidden_states)[:, 0], at, inputs["input_ids"].shape[1]


def plain_patch(tiny: Model, state: torch.Tensor, layer: int, n_next: int = 1) -> tuple[torch.Tensor, list[int]]:
    """The next token's probabilities, and the tokens read on, from transformers' own text model and a hook."""
    ids = [tiny.tokenizer.bos_token_id, *tiny.tokenizer(PROMPT, add_special_tokens=False).input_ids]
    place, said, first = len(ids) - 1, list[int](), None

    def put(_module, _args, output):
        output[:, place] = state
        return output

    handle = tiny.module.model.language_model.layers[layer].register_forward_hook(put)
    try:
        for _ in range(n_next):
            with torch.inference_mode():
                last = tiny.module.model.language_model(input_ids=torch.tensor([[*ids, *said]])).last_hidden_state
                probs = tiny.module.lm_head(last)[0, -1, : len(tiny.tokenizer)].softmax(-1)
            first = probs if first is None else first
            said.append(int(probs.argmax()))
    finally:
        handle.remove()
    assert first is not None
    return first, said


def test_rows_are_what_plain_transformers_give_with_a_hook_of_our_own(
    read: dict[str, pd.DataFrame], run: reopen.ScoredRun, tiny: Model
) -> None:
    """States of the first two layers: the last one's are handed out normed by transformers."""
    said = all_said(run)[0]
    states, at, n_prompt = plain_states(tiny, run, 0)
    rows = read["patchscope"].set_index(["image_id", "source", "reading", "setting", "layer", "token_position", "noun"])
    words = read["patchscope_word"].set_index(["image_id", "source", "reading", "setting", "layer", "token_position"])
    drawn = drawn_tokens(said.example.image_id, N_TOKENS, 3)
    for layer, setting in ((0, f"{PROMPT}, same layer"), (1, f"{PROMPT}, same layer"), (0, f"{PROMPT}, layer 1")):
        into = 1 if setting.endswith("layer 1") else layer
        for concept in said.concepts:
            key = (said.example.image_id, "noun", "patch", setting, layer, concept.position)
            probs, tokens = plain_patch(tiny, states[layer + 1, n_prompt - 1 + concept.position], into, 2)
            row = rows.loc[(*key, concept.noun)]
            assert row["surprisal"] == pytest.approx(-probs[concept.token_id].log().item(), rel=1e-3)
            assert row["is_top"] == (int(probs.argmax()) == concept.token_id)
            assert words.loc[key, "scores"][0] == pytest.approx(probs.max().item(), rel=1e-3)
            if setting.endswith("same layer"):
                assert words.loc[key, "said"] == tiny.tokenizer.decode(tokens)
        for token in drawn[:2]:
            probs, _ = plain_patch(tiny, states[layer + 1, at[token]], into)
            for concept in said.concepts:
                row = rows.loc[(said.example.image_id, "image", "patch", setting, layer, token, concept.noun)]
                assert row["surprisal"] == pytest.approx(-probs[concept.token_id].log().item(), rel=1e-3)


def test_the_lens_of_the_same_states_is_the_lens_study(
    read: dict[str, pd.DataFrame], run: reopen.ScoredRun, tiny: Model, cache: Path
) -> None:
    """Image tokens against `mmn lens`, whose states come by another way; nouns against the run's own probabilities."""
    read_image_tokens(tiny, run.path)
    lens = tables_of(cache, ["lens"])["lens"]
    lens = lens[lens["kind"] == "nouns"].set_index(["image_id", "layer", "token_position"])
    ours = read["patchscope"][read["patchscope"]["reading"] == "lens"]
    for row in ours[ours["source"] == "image"].itertuples():
        theirs = lens.loc[(row.image_id, row.layer, row.token_position)]
        prob = dict(zip(theirs["tokens"], theirs["scores"], strict=True))[row.noun]
        assert row.surprisal == pytest.approx(-np.log(prob), rel=1e-3, abs=1e-4)
    last = ours[(ours["source"] == "noun") & (ours["layer"] == N_LAYERS - 1)].merge(read["concept"])
    assert len(last) == len(read["concept"])
    assert np.allclose(last["surprisal"], -np.log(last["prob"]), rtol=1e-3, atol=1e-4)
    assert last["is_top"].all(), "p(c) predicts the noun"


def test_after_the_last_layer_nothing_of_the_prompt_is_left(read: dict[str, pd.DataFrame]) -> None:
    """Only the final norm follows: the patchscope is the logit lens there, and nowhere before."""
    rows = read["patchscope"][read["patchscope"]["setting"].isin(["", f"{PROMPT}, same layer"])]
    keys = ["image_id", "source", "layer", "token_position", "noun"]
    wide = rows[rows["reading"].isin(["patch", "lens"])].pivot(index=keys, columns="reading", values="surprisal")
    differ = (wide["patch"] - wide["lens"]).abs().groupby("layer").max()
    assert differ[N_LAYERS - 1] < 1e-4
    assert differ[0] > 1e-2


def test_controls_are_another_pictures_states_and_random_ones_of_the_same_length(
    read: dict[str, pd.DataFrame], run: reopen.ScoredRun, tiny: Model
) -> None:
    said = all_said(run)
    partner = partner_of(said, said[0].example.image_id)
    assert partner is not None
    assert not partner.token_ids & said[0].token_ids
    states, _, n_prompt = plain_states(tiny, run, said.index(partner))
    concept = said[0].concepts[0]
    probs, _ = plain_patch(tiny, states[1, n_prompt - 1 + partner.concepts[0].position], 0)
    rows = read["patchscope"].query("source == 'noun' and layer == 0 and setting.str.endswith('same layer')")
    of_first = rows[(rows["image_id"] == said[0].example.image_id) & (rows["noun"] == concept.noun)]
    other = of_first[of_first["reading"] == "other"]["surprisal"].iloc[0]
    assert other == pytest.approx(-probs[concept.token_id].log().item(), rel=1e-3)
    own = torch.randn(5, 8) * torch.arange(1.0, 6)[:, None]
    drawn = reading._random_like(own, 0, "a", "noun", 1)
    torch.testing.assert_close(drawn.norm(dim=1), own.norm(dim=1))
    assert torch.equal(drawn, reading._random_like(own, 0, "a", "noun", 1))
    assert not torch.allclose(drawn, reading._random_like(own, 0, "a", "noun", 2))
    assert partner_of([said[0], replace(said[1], concepts=said[0].concepts)], said[0].example.image_id) is None


def test_every_picture_has_every_reading_and_a_grid(read: dict[str, pd.DataFrame]) -> None:
    rows = read["patchscope"][read["patchscope"]["setting"].isin(["", f"{PROMPT}, same layer"])]
    n_nouns = len(read["concept"])
    counts = rows.groupby(["source", "reading"]).size().to_dict()
    per_noun = {("noun", name): n_nouns * N_LAYERS for name in ("patch", "lens", "other", "random")}
    assert counts == per_noun | {("image", name): 3 * n_nouns * N_LAYERS for _, name in per_noun}
    assert len(read["grid"]) == len(read["image"]) == 3
    assert rows["surprisal"].between(0, 87.6).all()


@pytest.mark.parametrize("name", UNLIKE)
def test_writing_what_is_there_changes_nothing_in_families_of_every_kind(name: str) -> None:
    """The text decoder alone; another state changes its own position and those behind, and no earlier one."""
    model, _ = build_family(name)
    texts = [Text((), (1, 5, 6, 7, 8)), Text((), (1, 9, 4, 3, 2))]
    with torch.inference_mode():
        with capture_residual(model) as after:
            plain = text_states(model, texts)
        for layer, stream in enumerate(after):
            with write_residual(model, layer, 2, stream[:, 2]):
                assert torch.equal(text_states(model, texts), plain)
        with write_residual(model, 1, 2, after[1][:, 2].flip(0)):
            changed = text_states(model, texts)
        assert torch.equal(text_states(model, texts), plain), "the hook stayed behind"
    assert torch.equal(changed[:, :2], plain[:, :2])
    assert (changed[:, 2:] != plain[:, 2:]).any(-1).all()


def test_a_write_that_cannot_be_is_loud(tiny: Model) -> None:
    texts = [Text((), (1, 5, 6))]
    for position, n_rows, why in ((3, 1, "position 3 in a pass of 3"), (0, 2, "2 states for a pass of 1 rows")):
        with pytest.raises(AssertionError, match=why), write_residual(tiny, 0, position, torch.zeros(n_rows, 32)):
            text_states(tiny, texts)
    with pytest.raises(AssertionError, match="no pass went through"), write_residual(tiny, 0, 0, torch.zeros(1, 32)):
        pass


def test_the_bank_is_the_states_of_words_and_its_nearest_are_the_nearest(tiny: Model) -> None:
    texts = {"a dog, on the grass.": frozenset({"x"}), "the unhurried zebra": frozenset()}
    found = read_bank(tiny, texts)
    assert sorted(found.words) == ["a", "dog", "grass", "on", "the", "the", "unhurried", "zebra"]
    entry = found.words.index("dog")
    ids = [tiny.tokenizer.bos_token_id, *tiny.tokenizer("a dog, on the grass.", add_special_tokens=False).input_ids]
    place = next(n for n in range(len(ids)) if tiny.tokenizer.decode(ids[1 : n + 1]).endswith("dog"))
    with torch.inference_mode():
        states = tiny.module.model.language_model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    expected = torch.nn.functional.normalize(states.hidden_states[2][0, place], dim=0)
    torch.testing.assert_close(found.states[1][entry], expected, rtol=1e-3, atol=1e-4)
    asked = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    may_be = found.without("x")
    assert may_be.tolist() == [context == "the unhurried zebra" for context in found.contexts]
    everywhere = np.ones(len(found.words), bool)
    cosine = torch.nn.functional.cosine_similarity(asked[:, None], found.states[1][None], dim=-1)
    for row, one in enumerate(nearest(found, 1, asked, everywhere)):
        assert list(one.entries) == cosine[row].argsort(descending=True)[:5].tolist()


def test_chance_is_counted_by_hand() -> None:
    """Of eight words one is of this picture's own text; two of the other seven are dogs."""
    lemmas = np.array(["dog", "dog", "cat", "the", "a", "on", "dog", "sky"])
    owners = (*[frozenset[str]()] * 6, frozenset({"x"}), frozenset[str]())
    made = Bank(tuple(lemmas), lemmas, ("",) * 8, owners, ())
    chance, chance_any = chances(made, made.without("x", "y"), frozenset({"dog"}))
    assert chance == pytest.approx(2 / 7)
    assert chance_any == pytest.approx(1 - (5 / 7) * (4 / 6) * (3 / 5) * (2 / 4) * (1 / 3))


def test_neighbours_are_judged_by_the_pictures_nouns(
    read: dict[str, pd.DataFrame], run: reopen.ScoredRun, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {one.example.image_id: one for one in all_said(run)}
    found = read["neighbour"]
    assert found.groupby(["reading", "image_id"]).size().unique().tolist() == [3 * N_LAYERS]
    for row in found.itertuples():
        are = [lemma_of(word.lower()) in nouns_of(said[row.image_id]) for word in row.words]
        assert (row.is_match, row.is_any_match) == (are[0], any(are))
        assert said[row.image_id].caption.text not in row.contexts, "its own caption"
    texts = texts_of_run(list(said.values()))
    assert {one.caption.text for one in said.values()} <= set(texts)
    monkeypatch.setattr(company, "N_TEXTS", 65)
    assert len(texts_of_run(list(said.values()))) == 65


def test_again_does_nothing_and_an_interrupted_call_goes_on(
    run: reopen.ScoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PICTURES_OF_A_SHARD", 1)
    asked = replace(ASKED, layers=(1,))
    with interrupted_at_the_second(monkeypatch, reading, "_read"):
        read_in_prompt(run, asked)
    told: list[Progress] = []
    read_in_prompt(run, asked, progress=told.append)
    assert [one.done for one in told] == [1, 2, 3]
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.parquet")}
    read_in_prompt(run, asked)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*.parquet")} == before


def test_a_picture_that_is_gone_is_a_failure(run: reopen.ScoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = all_said(run)[0].example
    whole = reopen.open_again

    def open_again(example):
        if example.image_id == gone.image_id:
            raise ImageError("gone")
        return whole(example)

    monkeypatch.setattr(reopen, "open_again", open_again)
    (name, _) = read_in_prompt(run, replace(ASKED, layers=(0,)))
    tables = shards.read_shard(run.path / name)
    assert tables["failure"]["stage"].to_pylist() == ["patchscopes"]
    assert gone.image_id not in tables["patchscope"]["image_id"].to_pylist()


def test_shares_on_an_object_are_counted_by_hand(cache: Path) -> None:
    """Four image tokens, two nouns: the first says dog, on a dog; the last says dog, elsewhere."""
    with Store.open(cache) as store:
        image_id = store.table("latest", "image")["image_id"].iloc[0]
    key = {"image_id": image_id, "source": "image", "reading": "patch", "setting": "identity, same layer", "layer": 1}
    tops = {"dog": (True, False, False, True), "bus": (False, False, True, False)}
    rows = [
        key | {"token_position": at, "noun": noun, "surprisal": 1.0 + at, "is_top": is_top}
        for noun, of_noun in tops.items()
        for at, is_top in enumerate(of_noun)
    ]
    table = pa.Table.from_pylist(rows, schema=TABLES["patchscope"])
    shards.write_shard(run_path_of(cache), "by-hand", {"patchscope": table})
    on_dog = [True, True, False, False]
    places = pd.DataFrame({"image_id": image_id, "noun": "dog", "token_position": range(4), "is_on": on_dog})
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        ask = store.ask(PatchscopeQueries)
        assert ask.settings("latest") == ["identity, same layer"]
        assert ask.image_readings("latest", "identity, same layer")["share"].tolist() == [0.75]
        found = ask.object_readings("latest", "identity, same layer", places).set_index("is_on")
        assert found["share"].to_dict() == {True: 0.5, False: 0.5}
        assert found["surprisal"].to_dict() == {True: 1.5, False: 3.5}


def test_the_command_says_what_it_found(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["patchscopes", "latest", "--cache", str(cache), "--device", "cpu", "--progress", "none"]
    words += ["--prompt", PROMPT, "--image-tokens", "2", "--layers", "0,2", "--neighbours"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["setting"] == f"{PROMPT}, same layer"
    assert {row["layer"] for row in said["patchscopes"]} == {0, 2}
    (last,) = [row for row in said["patchscopes"] if (row["line"], row["layer"]) == ("patchscope", 2)]
    assert (last["mean"], last["n"]) == (1.0, 3)
    told = {"run_id": "r", "database": "loaded", "seconds": 1.0}
    command._print_result(told | command.summary(cache, "latest", said["setting"], with_neighbours=True))
    out = capsys.readouterr().out
    assert "nouns that their state says, after layer 2: " in out
    assert "patchscope 100.0 %" in out
    assert "image tokens near a word of their picture, after layer 0: " in out
    assert "3 pictures are too few" in out
    assert main([*words[:-1], "--into", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["setting"] == f"{PROMPT}, layer 1"  # not the usual one


@pytest.mark.parametrize(
    ("more", "why"),
    [("--into=top", "--into: 'top' is not a number"), ("--image-tokens=0", "--image-tokens 0")],
)
def test_a_word_that_is_no_number_is_refused(
    cache: Path, more: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["patchscopes", "latest", "--cache", str(cache), "--progress", "none", more]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Asked(PROMPT, layers=(3,)), "no layer 3"),
        (Asked(PROMPT, into=9), "no layer 9"),
        (Asked(""), "has no token"),
        (Asked("dog " * 300), "at most 200"),
        (Asked("<image> ?"), "placeholder of a picture"),
    ],
)
def test_what_the_model_cannot_be_asked_is_refused(run: reopen.ScoredRun, asked: Asked, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_in_prompt(run, asked)


def test_models_that_cannot_are_refused_by_name(run: reopen.ScoredRun, tiny: Model) -> None:
    encoder, _ = build_family(next(iter(ENCODER_DECODERS)))
    by_cross_attention = replace(tiny, family=replace(tiny.family, grid="cross-attention"))
    for model, why in ((encoder, f"prompts of {encoder.facts.name}"), (by_cross_attention, "no image tokens")):
        with pytest.raises(UsageError, match=why):
            read_in_prompt(replace(run, model=model), ASKED)


def test_the_identity_prompt_ends_where_a_state_is_written(tiny: Model) -> None:
    prompt = encoded(tiny, IDENTITY)
    assert tiny.tokenizer.decode(prompt.token_ids[prompt.position :]) == "?"
    assert prompt.token_ids[0] == tiny.tokenizer.bos_token_id
    assert prompt_name(prompt.text) == "identity"
