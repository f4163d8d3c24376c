"""The controls of interventions: another picture's units, text, the noun's share, and what is called a noun's own."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from mmn import names
from mmn.cli import main
from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.models import deltas
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import write_captions
from mmn.reading.hooks import ablate
from mmn.reading.plain_text import Text, nats, plain_sentences, plain_texts, prompt_without_picture
from mmn.reading.rows import repeated
from mmn.runs import reopen, shards
from mmn.runs.teacher_forcing import reread
from mmn.studies.degradation import controls
from mmn.studies.degradation.controls import measure_controls, measured_before, plan_of
from mmn.studies.degradation.curves import curves
from mmn.studies.degradation.interventions import logits_at
from mmn.studies.degradation.measure import InterventionPlan, degrade
from mmn.studies.degradation.own import describe_own, own_parts
from mmn.studies.degradation.summary import read_effects, summarise
from mmn.studies.degradation.told import Said, Told
from mmn.studies.editing.measure import edit, file_of, read_edit
from mmn.studies.editing.pictures import EDITED, OtherNoun, another_noun
from mmn.studies.editing.shares import describe_own_edit, own_share
from tests.scored import run_path_of, tables_of
from tests.test_degradation import columns_changed, logits
from tests.tiny import FAMILY_BUILDERS, FFN, N_LAYERS, build_family
from tests.unbound import unbind

SCORING = ["--methods", "contribution,attribution", "--top-k", 12, "--max-new-tokens", 8, "--batch-size", 4]
PLAN = InterventionPlan(names.ABLATE, (names.CONTRIBUTION,), (0, 5, 40), (names.TOP, names.RANDOM), n_draws=2)
N_UNITS = N_LAYERS * FFN


def tables(cache: Path) -> dict[str, pd.DataFrame]:
    return tables_of(cache, ("effect", "noun_share", "perplexity", "concept", "caption"))


@pytest.fixture(scope="module")
def scored(pictures: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of six pictures. Read only."""
    folder = tmp_path_factory.mktemp("some")
    for picture in sorted(pictures.glob("*.png"))[:6]:
        shutil.copy(picture, folder)
    cache = tmp_path_factory.mktemp("scored") / "cache"
    command = ["score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING, "--progress", "none"]
    assert main(list(map(str, command))) == 0
    return cache


@pytest.fixture(scope="module")
def controlled(scored: Path, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its units zeroed, and the controls of that. Read only."""
    cache = Path(shutil.copytree(scored, tmp_path_factory.mktemp("controlled") / "cache"))
    run_path = run_path_of(cache)
    measure_controls(tiny, run_path, degrade(tiny, run_path, PLAN), n_texts=2)
    return cache


# ---- text


@pytest.mark.parametrize("family", FAMILY_BUILDERS)
def test_the_nats_of_a_text_are_those_of_its_parts(family: str) -> None:
    """The chain rule: it holds only where no token is predicted from itself, or from what is filled up behind."""
    model, _ = build_family(family)

    def alone(*texts: Text) -> float:
        return nats(model, texts, lambda _n: nullcontext())

    parts = [alone(Text((5, 6, 7, 8)[:n], (token,))) for n, token in ((1, 6), (2, 7), (3, 8))]
    whole = Text((5,), (6, 7, 8))
    assert alone(whole) == pytest.approx(sum(parts), rel=1e-4)
    assert alone(Text((), (5, 6, 7, 8))) == pytest.approx(sum(parts), rel=1e-4)
    assert alone(whole, Text((), (9, 5)), whole) == pytest.approx(2 * sum(parts) + alone(Text((9,), (5,))), rel=1e-4)
    assert (whole.n_judged, Text((), (9, 5)).n_judged) == (3, 1)


@pytest.mark.parametrize(
    "family", ["llava", "llava on gemma2", "qwen2_vl", "paligemma", "paligemma on gemma2", "limber"]
)
def test_the_decoder_alone_is_the_model_without_a_picture(family: str) -> None:
    model, _ = build_family(family)
    ids = torch.tensor([[5, 6, 7, 8]])
    types = {"token_type_ids": torch.ones_like(ids)} if family.startswith("paligemma") else {}  # read causally
    with torch.inference_mode():
        log_probs = model.module(input_ids=ids, use_cache=False, **types).logits.log_softmax(-1)[0]
    expected = -sum(log_probs[at, ids[0, at + 1]].item() for at in range(3))
    assert nats(model, [Text((), (5, 6, 7, 8))], lambda _n: nullcontext()) == pytest.approx(expected, rel=1e-4)


def test_the_sentences_are_ours_plain_and_end(tiny: Model) -> None:
    sentences = plain_sentences()
    assert 60 <= len(sentences) <= 120
    assert len(set(sentences)) == len(sentences)
    assert all(one.isascii() and one[-1] == "." and 5 <= len(one.split()) <= 20 for one in sentences)
    assert all(text.token_ids for text in plain_texts(tiny))


def test_the_prompt_without_its_picture(tiny: Model) -> None:
    prompt = tiny.exact_prompt("A picture of")
    token_ids = prompt_without_picture(tiny, prompt)
    assert tiny.image_token_id not in token_ids
    whole = tiny.tokenizer(prompt).input_ids
    assert list(token_ids) == [one for one in whole if one != tiny.image_token_id]
    assert len(token_ids) < len(whole)


# ---- image tokens only


@pytest.mark.parametrize("family", ["llava", "blip-2"])
def test_zeroing_at_image_tokens_is_zeroing_by_hand_there(family: str) -> None:
    """A plain hook that sets the units to 0 at these positions, written out here, is what the mask is held against."""
    model, inputs = build_family(family)
    at = image_positions(model, inputs)[0]
    assert 0 < at.sum() < len(at)
    torch.manual_seed(3)
    mask = torch.rand(1, N_LAYERS, FFN) < 0.3

    def by_hand(layer: int) -> Callable[..., tuple[Tensor, ...]]:
        def zero(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            a = args[0].clone().reshape(1, -1, FFN)
            for position in at.nonzero()[:, 0].tolist():
                a[0, position, mask[0, layer]] = 0
            return (a.reshape(args[0].shape), *args[1:])

        return zero

    with ablate(model, mask, only_at=at):
        found = logits(model, inputs)
    handles = [model.anatomy.ffn_outs[layer].register_forward_pre_hook(by_hand(layer)) for layer in range(N_LAYERS)]
    expected = logits(model, inputs)
    for handle in handles:
        handle.remove()
    assert torch.allclose(found, expected, atol=1e-5)
    with ablate(model, mask):
        assert not torch.allclose(found, logits(model, inputs), atol=1e-3)


def test_a_caption_is_written_under_it_token_by_token(tiny: Model, pictures: Path) -> None:
    """The cached steps, of one token each, are those of a whole pass whose image tokens alone are without the units."""
    from mmn.images import open_image

    image = open_image(sorted(pictures.glob("*.png"))[0])
    inputs = tiny.encode([image], tiny.exact_prompt(tiny.default_prompt))
    at = image_positions(tiny, inputs)[0]
    mask = torch.rand(2, N_LAYERS, FFN, generator=torch.Generator().manual_seed(1)) < 0.5
    with ablate(tiny, mask, only_at=at):
        captions, _ = write_captions(tiny, repeated(inputs, 2), 5)
    for row, caption in enumerate(captions):
        for position, token_id in enumerate(caption.token_ids):
            with torch.inference_mode(), ablate(tiny, mask[row : row + 1], only_at=at):
                assert logits_at(tiny, inputs, caption.token_ids, [position]).argmax().item() == token_id


def test_where_units_are_zeroed_is_recorded_and_noise_is_everywhere(cache: Path, tiny: Model) -> None:
    run_path = run_path_of(cache)
    there = replace(PLAN, positions=names.IMAGE_TOKENS)
    done = [*degrade(tiny, run_path, PLAN, limit=2), *degrade(tiny, run_path, there, limit=2)]
    measure_controls(tiny, run_path, done, n_texts=1)
    found = tables(cache)
    effect = found["effect"].set_index(["positions", "image_id", "noun", "selection", "k", "draw"])["prob"].sort_index()
    everywhere, at_tokens = (effect.loc[one] for one in names.POSITIONS)
    assert everywhere.index.equals(at_tokens.index)
    is_zeroed = everywhere.index.get_level_values("k") > 0
    assert not np.allclose(everywhere[is_zeroed], at_tokens[is_zeroed], atol=1e-4)
    assert everywhere[~is_zeroed].tolist() == pytest.approx(at_tokens[~is_zeroed].tolist(), abs=1e-5)
    assert set(found["perplexity"]["positions"]) == {names.EVERYWHERE}
    noise = InterventionPlan(names.PERTURB, (names.CONTRIBUTION,), (5,), (names.TOP,), 1, (1.0,), names.WEIGHT)
    with pytest.raises(UsageError, match="noise is on weights"):
        degrade(tiny, run_path, replace(noise, positions=names.IMAGE_TOKENS))


# ---- another picture's noun


def test_the_other_noun_is_of_another_picture_and_not_said_here(controlled: Path) -> None:
    found = tables(controlled)
    said = found["concept"][found["concept"]["variant"] == names.ORIGINAL]
    nouns = {image_id: (set(rows["lemma"]), set(rows["token_id"])) for image_id, rows in said.groupby("image_id")}
    of = said.set_index(["image_id", "noun"])
    effect = found["effect"]
    another = effect[effect["selection"] == names.ANOTHER]
    assert len(another)
    assert effect.loc[effect["selection"] != names.ANOTHER, ["other_image_id", "other_noun"]].isna().all(axis=None)
    for row in another.itertuples():
        other = of.loc[(row.other_image_id, row.other_noun)]
        lemmas, token_ids = nouns[row.image_id]
        assert row.other_image_id != row.image_id
        assert other["lemma"] not in lemmas
        assert other["token_id"] not in token_ids
    assert another.groupby("image_id")["other_image_id"].nunique().eq(1).all()
    assert another["other_image_id"].nunique() > 1, "one picture for all would be no draw"


def test_the_draw_is_seeded_and_leaves_out_words_and_first_tokens_that_are_said_here() -> None:
    """By hand: `dogs` is the word `dog`, `doghouse` begins with its token; picture a says dog and tree."""

    def said(image_id: str, *nouns: tuple[str, str, int]) -> tuple[Said, ...]:
        return tuple(Said(image_id, noun, lemma, token_id) for noun, lemma, token_id in nouns)

    here = said("a", ("dog", "dog", 1), ("tree", "tree", 2))
    foreign = {
        "b": said("b", ("dogs", "dog", 5)),
        "c": said("c", ("doghouse", "doghouse", 1)),
        "d": said("d", ("dogs", "dog", 5), ("cat", "cat", 3), ("boat", "boat", 4)),
    }
    told = Told({}, {"a": here, **foreign, **{str(n): said(str(n), ("cat", "cat", 3)) for n in range(6)}})
    orders = [list(told.others("a", seed)) for seed in range(5)]
    assert all(sorted(one) == ["0", "1", "2", "3", "4", "5", "d"] for one in orders)
    assert len({one[0] for one in orders}) > 1
    assert list(told.others("a", 3)) == orders[3]
    drawn = {told.another("a", "d", lemma, seed).noun for lemma in ("dog", "tree") for seed in range(8)}
    assert drawn == {"cat", "boat"}
    assert sorted(told.token_ids.tolist()) == [1, 2, 3, 4, 5]


def test_its_units_are_that_noun_s_and_what_is_stored_is_what_weights_without_them_compute(
    controlled: Path, tiny: Model
) -> None:
    scored = reopen.open_run(tiny, run_path_of(controlled))
    told, found = Told.of(scored), tables(controlled)
    texts = found["caption"].set_index("image_id")["tokens"]
    concepts = found["concept"].set_index(["image_id", "noun"])
    effect = found["effect"]
    rows = effect[(effect["selection"] == names.ANOTHER) & (effect["k"] == 40)]
    shares = found["noun_share"].set_index(["image_id", "noun", "selection", "k", "draw"])["noun_share"]
    nouns = sorted(set(found["concept"].loc[found["concept"]["variant"] == names.ORIGINAL, "token_id"]))
    for row in list(rows.itertuples())[:6]:
        other = told.of_pictures([row.other_image_id])
        there, images, _ = reopen.open_all(other, "test")
        ((measured, by_method),) = reread(scored, other, there, images, (names.CONTRIBUTION,))
        at = [one.concept.noun for one in measured.said].index(row.other_noun)
        score = by_method[names.CONTRIBUTION].score[at].flatten()
        top = sorted(range(len(score)), key=lambda unit: -score[unit].item())[:40]
        units = [Neuron(*divmod(unit, tiny.facts.d_mlp)) for unit in top]
        _, (image,), _ = reopen.open_all(told.of_pictures([row.image_id]), "test")
        concept = concepts.loc[(row.image_id, row.noun)]
        inputs = tiny.encode([image], scored.run.prompt)
        with columns_changed(tiny, {one: -tiny.anatomy.w_out(one.layer)[:, one.unit] for one in units}):
            probs = logits_at(tiny, inputs, texts[row.image_id].tolist(), [int(concept["position"])]).softmax(-1)[0]
        assert row.prob == pytest.approx(probs[concept["token_id"]].item(), abs=2e-4)
        expected = probs[concept["token_id"]] / sum(probs[one] for one in nouns)
        stored = shares[row.image_id, row.noun, names.ANOTHER, 40, 0]
        assert stored == pytest.approx(expected.item(), abs=2e-3)


def test_perplexity_is_that_of_the_text_under_weights_without_the_units(controlled: Path, tiny: Model) -> None:
    scored = reopen.open_run(tiny, run_path_of(controlled))
    found, told = tables(controlled), Told.of(scored)
    rows = found["perplexity"]
    assert rows["image_id"].nunique() == 2
    firsts = found["concept"][found["concept"]["is_first"]].set_index("image_id")["noun"]
    assert all(row.noun == firsts[row.image_id] for row in rows.itertuples())
    assert set(rows["text"]) == {names.PLAIN_TEXT, names.CAPTIONS_TEXT}
    assert set(rows["selection"]) == {names.TOP, names.ANOTHER, names.RANDOM}
    plain = rows[rows["text"] == names.PLAIN_TEXT]
    texts = plain_texts(tiny)
    n_tokens = sum(one.n_judged for one in texts)
    assert set(plain["n_tokens"]) == {n_tokens}
    whole = nats(tiny, texts, lambda _n: nullcontext()) / n_tokens
    assert plain.loc[plain["k"] == 0, "nats"].tolist() == pytest.approx([whole] * 6, rel=1e-5)
    image_id = plain["image_id"].iloc[0]
    tables_here = told.of_pictures([image_id])
    there, images, _ = reopen.open_all(tables_here, "test")
    ((measured, by_method),) = reread(scored, tables_here, there, images, (names.CONTRIBUTION,))
    at = [one.concept.noun for one in measured.said].index(firsts[image_id])
    score = by_method[names.CONTRIBUTION].score[at].flatten()
    units = [Neuron(*divmod(unit, tiny.facts.d_mlp)) for unit in score.argsort(descending=True)[:40].tolist()]
    with columns_changed(tiny, {one: -tiny.anatomy.w_out(one.layer)[:, one.unit] for one in units}):
        without = nats(tiny, texts, lambda _n: nullcontext()) / n_tokens
    stored = plain[(plain["image_id"] == image_id) & (plain["selection"] == names.TOP) & (plain["k"] == 40)]["nats"]
    assert stored.tolist() == pytest.approx([without], rel=1e-4)
    assert without != pytest.approx(whole, rel=1e-3)


def test_captions_that_are_read_say_none_of_the_nouns(controlled: Path, tiny: Model) -> None:
    told = Told.of(reopen.open_run(tiny, run_path_of(controlled)))
    lemma = next(iter(told.nouns.values()))[0].lemma
    saying = {image_id for image_id, said in told.nouns.items() if lemma in {one.lemma for one in said}}
    tokens = {row["image_id"]: tuple(row["tokens"]) for row in told.tables["caption"].to_pylist()}
    texts = told.captions_without({lemma}, 99, 0, (4, 5))
    assert {one.token_ids for one in texts} == {tokens[one] for one in tokens if one not in saying and tokens[one]}
    assert {one.prefix for one in texts} == {(4, 5)}
    assert len(told.captions_without({lemma}, 1, 0, ())) == 1


# ---- what was measured before


def test_of_an_older_measurement_only_the_controls_are_measured(
    cache: Path, tiny: Model, controlled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shards have no share, and not the columns that came later."""
    run_path = run_path_of(cache)
    done = degrade(tiny, run_path, PLAN)
    unbind(run_path)
    for name in done:
        (run_path / name / "noun_share.parquet").unlink()
        file = run_path / name / "effect.parquet"
        older = pq.read_table(file).drop_columns(["positions", "other_image_id", "other_noun"])
        pq.write_table(older, file)
    before = {name: (run_path / name / "effect.parquet").read_bytes() for name in done}
    assert measured_before(run_path, names.ABLATE) == sorted(done)
    first = measure_controls(tiny, run_path, done, n_texts=2)
    assert {name: (run_path / name / "effect.parquet").read_bytes() for name in done} == before
    assert degrade(tiny, run_path, PLAN) == done, "it would have been measured again"
    now, whole = tables(cache), tables(controlled)
    for name in ("effect", "noun_share", "perplexity"):
        order = ["image_id", "noun", "selection", "k", "draw"] + (["text"] if name == "perplexity" else [])
        ours, theirs = (one[name].sort_values(order, ignore_index=True) for one in (now, whole))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=False, atol=1e-6, check_dtype=False)
    monkeypatch.setattr(controls, "Measuring", None)  # nothing is measured twice
    assert measure_controls(tiny, run_path, done, n_texts=2) == first


def test_the_plan_is_read_from_the_rows(controlled: Path) -> None:
    run_path = run_path_of(controlled)
    (name,) = measured_before(run_path, names.ABLATE)[:1]
    effects = shards.read_shard(run_path / name, ("effect",))["effect"].to_pandas()
    assert plan_of(effects) == PLAN


def test_the_command_measures_the_controls_alone(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common = ["--kind", "ablate", "--cache", str(cache), "--progress", "none", "--no-captions"]
    assert main(["degrade", "latest", *common, "--controls", "only"]) == 2
    assert "no measurements of kind ablate to control" in capfd.readouterr().err
    short = ["--method", "contribution", "--ks", "5,40", "--selections", "top,random", "--draws", "1", "--limit", "3"]
    assert main(["degrade", "latest", *common, *short, "--controls", "without"]) == 0
    assert "were not measured, so the noun's own part of the drop is not known: mmn degrade" in capfd.readouterr().out
    assert names.ANOTHER not in set(tables(cache)["effect"]["selection"])
    assert main(["degrade", "latest", *common, "--controls", "only", "--text-pictures", "1"]) == 0
    out = capfd.readouterr().out
    assert "contribution, another: probability" in out
    assert "another picture's" in out
    assert "Perplexity of plain English" in out
    found = tables(cache)
    assert set(found["effect"]["selection"]) == {names.TOP, names.RANDOM, names.ANOTHER}
    assert found["perplexity"]["image_id"].nunique() == 1


# ---- whose a drop is


def means(own: float, another: float | None, random: float = 0.9, n: int = 12) -> pd.DataFrame:
    """Pictures with .5 of probability, of which each line leaves a share, a little more or less by picture."""
    lines = {names.TOP: own, names.ANOTHER: another, names.RANDOM: random}
    rows = [
        {"image_id": str(image), "selection": name, "k": k, "prob": 0.5 * (left if k else 1) + 0.01 * (-1) ** image * k}
        for name, left in lines.items()
        if left is not None
        for image in range(n)
        for k in (0, 1)
    ]
    same = {
        "method": "contribution",
        "positions": "everywhere",
        "sigma": np.nan,
        "factor": np.nan,
        "baseline_prob": 0.5,
        "draw": 0,
    }
    return pd.DataFrame(rows).assign(**same, noun_share=lambda one: one["prob"], nats=1.0, nats_captions=2.0, n_nouns=1)


def told_of(frame: pd.DataFrame) -> str:
    (part,) = own_parts(frame, 100)
    return describe_own(part, 100, "mmn degrade X")


def test_a_drop_is_the_noun_s_own_as_far_as_it_goes_beyond_each_control() -> None:
    frame = means(0.2, 0.7)
    varied = frame["prob"].where(
        (frame["selection"] != names.TOP) | (frame["k"] == 0), frame["prob"] + 0.02 * (frame.index % 3)
    )
    (part,) = own_parts(frame.assign(prob=varied), 100)
    wide = frame.assign(prob=varied).query("k == 1").pivot_table(index="image_id", columns="selection", values="prob")
    expected = (wide[names.ANOTHER] - wide[names.TOP]).sum() / (0.5 * len(wide))
    excess = part.beyond[names.ANOTHER].excess
    assert excess.mean == pytest.approx(expected)
    assert excess.low < expected < excess.high
    assert part.judged == excess
    assert part.is_own is True
    assert part.perplexity["nats"] == pytest.approx(dict.fromkeys(("untouched", *part.beyond, names.TOP), math.e))
    assert re.search(r"46.0 points \(95 % .*\) of the drop are the noun's own", describe_own(part, 100, ""))


def test_general_damage_is_said_not_to_be_the_noun_s_own() -> None:
    frame = means(0.2, 0.2)
    jitter = 0.004 * ((frame["image_id"].astype(int) * 7) % 5 - 2) * (frame["selection"] == names.TOP) * frame["k"]
    said = told_of(frame.assign(prob=frame["prob"] + jitter))
    assert "The drop is not the noun's own: another picture's units take as much" in said
    more = frame["prob"] + jitter + 0.3 * (frame["selection"] == names.ANOTHER) * frame["k"]
    more -= 0.35 * (frame["selection"] == names.RANDOM) * frame["k"]
    assert "not the noun's own: random units take as much" in told_of(frame.assign(prob=more))


def test_the_points_told_are_those_over_the_control_that_may_take_as_much() -> None:
    frame = means(0.2, 0.5, random=0.3)
    swings = 0.3 * ((frame["image_id"].astype(int) * 7) % 5 - 2) * (frame["selection"] == names.ANOTHER) * frame["k"]
    frame = frame.assign(prob=frame["prob"] + swings + 0.001 * (frame.index % 5))
    (part,) = own_parts(frame, 100)
    another, random = (part.beyond[name].excess for name in (names.ANOTHER, names.RANDOM))
    assert another.low < 0 < random.low < random.mean < another.mean
    said = describe_own(part, 100, "")
    assert "not shown to be the noun's own: another picture's units may take as much" in said
    assert f"(own minus theirs: {100 * another.mean:.1f} points" in said


def test_a_k_that_leaves_nothing_of_any_noun_is_no_verdict_and_the_one_that_halves_it_is_told() -> None:
    frame = means(0.2, 0.7)
    own_jitter = 0.01 * ((frame["image_id"].astype(int) * 7) % 5) * (frame["selection"] == names.TOP) * frame["k"]
    small, large = frame.assign(prob=frame["prob"] + own_jitter), frame[frame["k"] == 1].assign(k=50)
    nothing = large.assign(prob=1e-4 * (1 + (large["image_id"].astype(int) * 3) % 4))
    halves, none_left = (describe_own(one, 100, "") for one in own_parts(pd.concat([small, nothing]), 100))
    assert halves.startswith("At k = 1 ")
    assert "are the noun's own: beyond each control" in halves
    assert "own part of the drop cannot be measured: another picture's units leave nothing either" in none_left


def test_no_interval_says_that_more_than_all_of_the_probability_is_gone() -> None:
    frame = means(0.0, 0.0)
    prob = frame["prob"].where(frame["k"] == 0, 0.05 * (frame["image_id"] == "3") + 0.001)
    baseline = 0.5 + 0.4 * (frame["image_id"] == "4")
    drawn = curves(frame.assign(prob=prob, baseline_prob=baseline), "relative").query("k == 1")
    assert (drawn["low"] == 0).all()
    assert (drawn["high"] > drawn["mean"]).all()


def test_without_another_picture_s_units_nothing_is_called_its_own() -> None:
    frame = means(0.2, None)
    (part,) = own_parts(frame, 100)
    assert part.is_own is None
    assert told_of(frame).endswith("own part of the drop is not known: mmn degrade X")
    few = told_of(means(0.2, 0.7, n=3))
    assert "cannot be told" in few
    assert "3 pictures are too few for an interval" in few


def test_pictures_of_which_a_noun_has_no_control_are_not_paired() -> None:
    frame = means(0.2, 0.7)
    uneven = frame.assign(n_nouns=1 + ((frame["image_id"] == "0") & (frame["selection"] == names.TOP)).astype(int))
    (part,) = own_parts(uneven, 100)
    assert part.beyond[names.ANOTHER].excess.n == 11


def test_the_summary_has_it_beside_the_top_units(controlled: Path) -> None:
    run_path = run_path_of(controlled)
    found = read_effects(run_path, sorted(shards.finished_shards(run_path)))
    entries = summarise(found.effect, N_UNITS, found.further)
    assert [one["selection"] for one in entries] == [names.TOP, names.ANOTHER, names.RANDOM]
    (own,) = entries[0]["own"]
    assert own["k"] == 40
    assert own[names.ANOTHER]["drop"] == pytest.approx(entries[1]["drop"])
    assert own[names.ANOTHER]["excess"] == pytest.approx(entries[0]["drop"] - entries[1]["drop"])
    assert set(own["perplexity"]) == {"plain English", "the run's captions, without a picture"}
    assert entries[1]["own"] == []


# ---- edits


def test_an_edit_s_other_noun_and_its_text(pictures: Path, checkpoint: Path, tiny: Model, tmp_path: Path) -> None:
    from mmn.studies.editing import measure, text
    from tests.test_editing import NOUN, QUICK, SCORING, words

    cache = tmp_path / "cache"
    assert main(words("score", "--model", checkpoint, "--images", pictures, "--cache", cache, *SCORING)) == 0
    run_path = run_path_of(cache)
    another = replace(QUICK, selection=names.ANOTHER)
    scored = reopen.open_run(tiny, run_path)
    begun = measure._begin(scored, another)
    told = Told.of(scored)
    assert begun.other is not None
    edited = {one.example.image_id for one in begun.split.roles[EDITED]}
    assert begun.other.lemma not in {one.lemma for image_id in edited for one in told.nouns[image_id]}
    assert 1 <= len(begun.other.image_ids) <= len(edited)
    for image_id in begun.other.image_ids:
        lemmas = {one.lemma for one in told.nouns[image_id]}
        assert begun.other.lemma in lemmas
        assert NOUN not in lemmas
    both = {str(n): (Said(str(n), NOUN, NOUN, 1), Said(str(n), "kite", "kite", 9998)) for n in range(9)}
    by_hand = Told({}, both | {"x": (Said("x", "drum", "drum", 9999),)})
    assert {another_noun(by_hand, begun.split, seed) for seed in range(4)} == {OtherNoun("drum", ("x",))}
    assert another_noun(Told({}, both), begun.split, 0) is None
    ids = edit(tiny, run_path, cache / "edits", [QUICK, another])
    own, control = (read_edit(run_path, one) for one in ids)
    assert control["settings"]["other_noun"] == begun.other.lemma
    assert own["units"] != control["units"]
    assert set(own["perplexity"]) == {names.PLAIN_TEXT, names.CAPTIONS_TEXT}
    with deltas.applied(tiny, deltas.load(file_of(cache / "edits", ids[0]))):
        texts = plain_texts(tiny)
        after = nats(tiny, texts, lambda _n: nullcontext()) / sum(one.n_judged for one in texts)
    assert own["perplexity"][names.PLAIN_TEXT]["after"] == pytest.approx(math.exp(after), rel=1e-4)
    assert own["perplexity"][names.PLAIN_TEXT]["before"] != pytest.approx(math.exp(after), rel=1e-7)
    shutil.rmtree(run_path / text.text_shard_name(ids[0]))  # as an earlier version left it
    assert read_edit(run_path, ids[0])["perplexity"] == {}
    assert edit(tiny, run_path, cache / "edits", [QUICK]) == ids[:1]
    assert read_edit(run_path, ids[0])["perplexity"] == own["perplexity"]
    assert main(["edit", "latest", "--undo", ids[0], "--cache", str(cache)]) == 0
    assert set(tables_of(cache, ("edited_text",))["edited_text"]["edit_id"]) == {ids[1]}
    assert text.text_shard_name(ids[0]) not in shards.finished_shards(run_path)


def test_what_an_edit_does_is_compared_picture_by_picture() -> None:
    rows = [
        {"edit_id": one, "image_id": str(image), "role": "other", "is_as_wished": works(image)}
        for one, works in {"own": lambda image: image not in (3, 4, 5), "control": lambda image: image == 0}.items()
        for image in range(20)
    ]
    found = own_share(pd.DataFrame(rows), "own", "control")
    assert found["other"]["mean"] == pytest.approx(0.8)
    assert found["other"]["n"] == 20
    assert "80 points more often" in describe_own_edit(found)
    both = pd.DataFrame(rows)
    numbers = both["image_id"].astype(int)
    even = (numbers + (both["edit_id"] == "own")) % 2 == 0  # each works where the other does not
    same = own_share(both.assign(is_as_wished=even), "own", "control")
    assert same["other"]["mean"] == 0
    assert "another noun's units write the new word as often" in describe_own_edit(same)
