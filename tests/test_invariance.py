"""Shuffled image tokens are the same tokens in other places, and shared units are counted as a set would count them."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmn import names
from mmn.cli import main
from mmn.core import Outcome
from mmn.errors import UsageError
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import caption_encoded, no_context, with_captions
from mmn.reading.hooks import permuted
from mmn.runs import shards
from mmn.runs.plan import Progress
from mmn.runs.reopen import open_run
from mmn.scores.gradients import Question, attribute
from mmn.studies.invariance import cross_image, rankings
from mmn.studies.invariance import region as measuring
from mmn.studies.invariance.cross_image import expected_by_layer, measure_cross_image, shared_by_layer
from mmn.studies.invariance.rankings import CaptionNoun, common_units, shared_units
from mmn.studies.invariance.region import Region, measure_region, permutation, shuffling
from mmn.studies.invariance.summary import summarize
from mmn.units.parts import layers_alike
from tests.scored import run_path_of, tables_of
from tests.tiny import FAMILY_BUILDERS, build_family

METHODS = "contribution,attribution,random"
TOP, N_UNITS = 12, 3 * 48
KS = (3, TOP)
CAPTION = [11, 12, 13]
SEEDS = [(0, "picture", "shuffled-0")]
ROOT = Path(__file__).parents[1]


# ---- the permutation, in every family


def seen_by_decoder(model: Model, run: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What `run` returns, and what the decoder was handed in its first pass: hooks of our own, run last."""
    seen: list[dict[str, Any]] = []
    handle = model.anatomy.decoder.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(dict(kwargs)), with_kwargs=True
    )
    try:
        with torch.inference_mode():
            return run(), seen[0]
    finally:
        handle.remove()


def under(model: Model, sources: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
    """The logits of one pass with permuted embeddings, and what the decoder was handed."""
    with permuted(model, sources):
        return seen_by_decoder(model, lambda: model.module(**inputs, use_cache=False).logits)


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_image_tokens_trade_places_and_nothing_else_changes(name: str) -> None:
    model, inputs = build_family(name)
    is_image = image_positions(model, inputs)
    plain, before = seen_by_decoder(model, lambda: model.module(**inputs, use_cache=False).logits)
    at = is_image[0].nonzero()[:, 0]
    order = torch.arange(len(at)).flip(0)
    identity = torch.arange(is_image.shape[1])[None]
    sources = identity.clone()
    sources[0, at] = at[order]
    logits, after = under(model, sources, inputs)
    first, second = before["inputs_embeds"], after["inputs_embeds"]
    assert torch.equal(second[0, at], first[0, at][order])
    assert torch.equal(second[~is_image], first[~is_image])
    assert not torch.equal(first[0, at], second[0, at])
    assert before.keys() == after.keys()
    for key in before.keys() - {"inputs_embeds"}:  # position ids, masks
        assert torch.equal(before[key], after[key]) if isinstance(before[key], Tensor) else True, key
    assert not torch.equal(logits, plain)
    unmoved, _ = under(model, identity, inputs)
    assert torch.equal(unmoved, plain)


@pytest.mark.parametrize("shuffles", [False, True], ids=["original", "shuffled"])
@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_a_caption_read_in_one_pass_is_the_one_that_was_written(name: str, shuffles: bool) -> None:
    """Shuffled: the prompt is, once, and what is generated after it is not. PaliGemma read captions both ways once."""
    model, inputs = build_family(name)
    around = shuffling(model, inputs, SEEDS) if shuffles else no_context
    with torch.inference_mode(), around([0]):
        output = model.module.generate(
            **inputs, do_sample=False, min_new_tokens=4, max_new_tokens=4, output_logits=True, return_dict_in_generate=1
        )
    written = torch.stack([step[0] for step in output.logits])
    whole = with_captions(model, inputs, [output.sequences[0, -4:].tolist()])
    here = slice(inputs["input_ids"].shape[1] - 1, -1)
    with torch.inference_mode():
        with around([0]):
            read = model.module(**whole, use_cache=False).logits[0, here]
        plain = model.module(**whole, use_cache=False).logits[0, here]
    assert torch.allclose(read, written, atol=1e-4)  # float32 sums in another order
    assert torch.allclose(plain, written, atol=1e-4) == (not shuffles)


def test_the_permutation_follows_from_seed_picture_and_draw_and_not_from_the_batch() -> None:
    model, inputs = build_family("llava")
    two = {name: torch.cat([value, value]) for name, value in inputs.items()}
    seeds = [(0, "a", "shuffled-0"), (0, "b", "shuffled-0")]
    orders = {key: permutation(*key, 64).tolist() for key in [*seeds, (0, "a", "shuffled-1"), (1, "a", "shuffled-0")]}
    assert all(sorted(order) == list(range(64)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    with shuffling(model, two, seeds)([0, 1]):
        _, both = seen_by_decoder(model, lambda: model.module(**two))
    with shuffling(model, two, seeds)([1]):
        _, second = seen_by_decoder(model, lambda: model.module(**inputs))
    assert torch.equal(both["inputs_embeds"][1], second["inputs_embeds"][0])


def test_a_permutation_that_nothing_ran_under_is_an_error_and_no_hook_stays() -> None:
    model, inputs = build_family("llava")
    sources = torch.arange(inputs["input_ids"].shape[1])[None]
    n_before = len(model.anatomy.decoder._forward_pre_hooks)
    with pytest.raises(AssertionError, match="no pass over the whole prompt"), permuted(model, sources):
        pass
    with pytest.raises(AssertionError, match="of a prompt of"), permuted(model, torch.arange(99)[None]):
        model.module(**inputs)
    assert len(model.anatomy.decoder._forward_pre_hooks) == n_before


def test_attribution_reads_the_shuffled_prompt_rows_apart() -> None:
    model, inputs = build_family("llava")
    two = {name: torch.cat([value, value]) for name, value in inputs.items()}
    around = shuffling(model, two, [(0, "a", "shuffled-0"), (0, "b", "shuffled-0")])
    questions = [Question(0, 1, 17), Question(1, 1, 17)]
    both = attribute(model, two, [CAPTION, CAPTION], questions, around=around)
    plain = attribute(model, two, [CAPTION, CAPTION], questions)
    alone = attribute(model, inputs, [CAPTION], [Question(0, 1, 17)], around=lambda _rows: around([1]))
    assert torch.allclose(both.score[1], alone.score[0])
    assert not torch.allclose(both.score, plain.score)


# ---- shared units


def test_shared_units_are_those_of_sets() -> None:
    rng = np.random.default_rng(0)
    ranked = np.stack([[rng.permutation(40)[:20] for _ in range(3)] for _ in range(7)])
    ks = (1, 4, 9, 20)
    expected = [[len(set.intersection(*(set(one[:k].tolist()) for one in group))) for k in ks] for group in ranked]
    assert common_units(ranked, ks, 40).tolist() == expected
    pairs = [[len(set(one[0][:k]) & set(one[1][:k])) for k in ks] for one in ranked]
    assert shared_units(ranked[:, 0], ranked[:, 1], ks, 40).tolist() == pairs


def test_large_models_are_compared_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    ranked = np.stack([[rng.permutation(40)[:20] for _ in range(3)] for _ in range(7)])
    whole = common_units(ranked, (5, 20), 40)
    monkeypatch.setattr(rankings, "RANKS_AT_ONCE", 80)
    assert common_units(ranked, (5, 20), 40).tolist() == whole.tolist()


def test_random_units_in_the_same_layers_share_what_is_expected_of_each_layer() -> None:
    """By hand: 2 layers of 4 units; 2 of the top 3 of one picture are in layer 0, of the other 1."""
    ranked = np.array([[[0, 1, 4], [2, 5, 6]]])
    expected = [[[4 * 2 / 4 / 4, 0], [4 * 2 / 4 / 4, 4 / 4 * 2 / 4]]]
    assert expected_by_layer(ranked, (2, 3), layers_alike(2, 4)).tolist() == expected


def test_shared_units_of_each_layer_add_up_to_all_shared_units() -> None:
    """By hand: 3 and 5 are shared, one in each of the layers of 4 units; 5 is among the first 2 of the first alone."""
    ranked = np.array([[[5, 3, 0], [3, 6, 5]]])
    assert shared_by_layer(ranked, (2, 3), 2, 4).tolist() == [[[1, 0], [1, 1]]]
    rng = np.random.default_rng(1)
    ranked = np.stack([np.stack([rng.permutation(40)[:20] for _ in range(3)]) for _ in range(6)])
    found = shared_by_layer(ranked, (5, 20), 4, 10)
    assert found.sum(axis=2).tolist() == common_units(ranked, (5, 20), 40).tolist()
    members = [{unit for unit in set.intersection(*map(set, one.tolist())) if unit // 10 == 2} for one in ranked]
    assert found[:, 1, 2].tolist() == [len(units) for units in members]


def test_the_expected_share_is_what_random_draws_have_on_average() -> None:
    rng, m = np.random.default_rng(0), 50
    layers = [(10, 5), (3, 12), (8, 7)]  # units of each picture in layers 0 and 1
    ranked = np.array(
        [
            [np.concatenate([rng.permutation(m)[:n], m + rng.permutation(m)[: 15 - n]]) for n, _ in layers]
            for _ in range(4000)
        ]
    )
    found = shared_by_layer(ranked, (15,), 2, m).mean(axis=0)
    assert found.tolist() == pytest.approx(expected_by_layer(ranked[:1], (15,), layers_alike(2, m))[0], rel=0.2)


# ---- a run


def command(name: str, *more: object) -> list[str]:
    return [name, *map(str, more), "--progress", "none"]


SCORING = ["--methods", METHODS, "--top-k", TOP, "--max-new-tokens", 8, "--batch-size", 2, "--device", "cpu"]


@pytest.fixture(scope="module")
def scored(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of five pictures in three batches, with a chosen word and a grey picture. Read only."""
    folder = tmp_path_factory.mktemp("scored")
    pictures, more = paint(folder / "pictures", 5), ["--target", "window", "--blank"]
    words = command("score", "--model", checkpoint, "--images", pictures, "--cache", folder / "cache", *SCORING, *more)
    assert main(words) == 0
    return folder / "cache"


@pytest.fixture(scope="module")
def measured(
    scored: Path, tiny: Model, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Region, list[Progress]]:
    """The same with three draws, what was found, and what was told meanwhile. Read only."""
    told: list[Progress] = []
    copy = Path(shutil.copytree(scored, tmp_path_factory.mktemp("measured") / "cache"))
    return copy, measure_region(open_run(tiny, run_path_of(copy)), 3, None, KS, told.append), told


def tables(cache: Path) -> dict[str, pd.DataFrame]:
    return tables_of(cache, ("caption", "concept", "score", "budget", "invariance", "failure", "image"))


def by_sets(found: dict[str, pd.DataFrame]) -> dict[tuple, tuple[float, float]]:
    """(image, noun, method, k, draw) -> ratio and other-noun floor, counted with Python sets from the database."""
    ranks = found["score"][found["score"]["rank"] >= 1].sort_values("rank")
    flat = (ranks["layer"] * 48 + ranks["unit"]).rename("flat")
    units = {key: list(one) for key, one in flat.groupby([ranks[c] for c in ("image_id", "variant", "noun", "method")])}
    said = found["concept"][found["concept"]["target_at"].isna()]
    pairs = said[said["variant"] == "original"].merge(
        said[said["variant"].str.startswith("shuffled")], on=["image_id", "lemma"], suffixes=("", "_after")
    )
    nouns = said[said["variant"] == "original"].groupby("image_id")["noun"].agg(list)
    expected = {}
    for row, method, k in itertools.product(pairs.itertuples(), METHODS.split(","), KS):
        own = set(units[row.image_id, "original", row.noun, method][:k])
        after = units[row.image_id, row.variant_after, row.noun_after, method][:k]
        others = [units[row.image_id, "original", noun, method][:k] for noun in nouns[row.image_id] if noun != row.noun]
        floor = float(np.mean([len(own & set(other)) / k for other in others])) if others else float("nan")
        draw = int(row.variant_after.removeprefix("shuffled-"))
        expected[row.image_id, row.noun, method, k, draw] = (len(own & set(after)) / k, floor)
    return expected


def test_region_ratios_are_those_counted_by_hand(measured: tuple[Path, Region, list[Progress]]) -> None:
    cache, region, told = measured
    found = tables(cache)
    rows = found["invariance"]
    expected = by_sets(found)
    assert len(rows) == len(expected) > 0
    for row in rows.itertuples():
        ratio, floor = expected[row.image_id, row.noun, row.method, row.k, row.draw]
        assert row.ratio == pytest.approx(ratio)
        assert row.floor_other_noun == pytest.approx(floor, nan_ok=True)
        n_ranked = N_UNITS * 2 / 3 if row.method == "attribution" else N_UNITS  # none of the last of three layers
        assert row.floor_random == pytest.approx(row.k / n_ranked)
    assert set(rows["kind"]) == {"region"}
    assert set(rows["n"]) == {1}
    assert "window" not in set(rows["noun"])
    assert [(one.stage, one.done, one.total) for one in told] == [("invariance", n, 5) for n in (0, 2, 4, 5)]
    is_own = found["concept"]["target_at"].isna() & (found["concept"]["variant"] == "original")
    assert region.n_concepts == is_own.sum()
    assert region.n_survived == len(rows[["image_id", "noun", "draw"]].drop_duplicates()) / 3
    assert (rows["ratio"] < 1).any()
    means = summarize(region.rows).set_index(["method", "k"])
    per_draw = rows[(rows["method"] == "contribution") & (rows["k"] == TOP)]
    by_hand = per_draw.groupby(["draw", "image_id"])["ratio"].mean().groupby("draw").mean().mean()
    assert means.loc[("contribution", TOP), "ratio"] == pytest.approx(by_hand)


def test_shuffled_captions_are_stored_whole_and_add_up(measured: tuple[Path, Region, list[Progress]]) -> None:
    found = tables(measured[0])
    variants = ["shuffled-0", "shuffled-1", "shuffled-2"]
    captions = found["caption"].set_index(["variant", "image_id"])["text"]
    assert captions.loc["shuffled-0"].index.equals(captions.loc["original"].index)
    assert (captions.loc["shuffled-0"] != captions.loc["original"]).any()
    concepts = found["concept"][found["concept"]["variant"].isin(variants)]
    assert len(concepts)
    scale = concepts["logit"].abs().clip(lower=1)
    assert (concepts["residual"].abs() / scale).max() < 1e-4  # rounding: all was captured under the permutation
    assert concepts["target_at"].isna().all()
    scores = found["score"][found["score"]["variant"].isin(variants)]
    n_each = scores.groupby(["image_id", "variant", "noun", "method"]).size()
    assert set(n_each.reset_index()["method"]) == set(METHODS.split(","))
    assert set(n_each) == {TOP}
    assert len(n_each) == 3 * len(concepts)


def test_stored_logits_are_those_of_a_plain_pass_over_shuffled_embeddings(
    measured: tuple[Path, Region, list[Progress]], tiny: Model
) -> None:
    run, _ = shards.read_run(run_path_of(measured[0]))
    found = tables(measured[0])
    captions = found["caption"].set_index(["variant", "image_id"])["tokens"]
    sources = found["image"].set_index("image_id")["source"]
    module = tiny.module
    for variant in ("shuffled-0", "shuffled-1"):
        for row in found["concept"][found["concept"]["variant"] == variant].itertuples():
            with Image.open(sources[row.image_id]) as image:
                inputs = tiny.encode([image.convert("RGB")], run.prompt)
            prefix = torch.tensor([captions[variant, row.image_id][: row.position].tolist()], dtype=torch.long)
            ids = torch.cat([inputs["input_ids"], prefix], dim=1)
            with torch.inference_mode():
                embeddings = module.get_input_embeddings()(ids)
                picture = module.model.multi_modal_projector(
                    module.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-1][
                        :, 1:
                    ]
                )
                order = permutation(run.settings.seed, row.image_id, variant, picture.shape[1])
                embeddings[ids == tiny.image_token_id] = picture[0, order]
                hidden = module.model.language_model(inputs_embeds=embeddings).last_hidden_state
                logit = module.lm_head(hidden[0, -1])[row.token_id].item()
            assert row.logit == pytest.approx(logit, abs=1e-3, rel=1e-4)


def test_stored_attribution_is_that_of_the_shuffled_prompt(
    measured: tuple[Path, Region, list[Progress]], tiny: Model
) -> None:
    run, _ = shards.read_run(run_path_of(measured[0]))
    found = tables(measured[0])
    row = next(found["concept"][found["concept"]["variant"] == "shuffled-1"].itertuples())
    with Image.open(found["image"].set_index("image_id")["source"][row.image_id]) as image:
        inputs = tiny.encode([image.convert("RGB")], run.prompt)
    caption = found["caption"].set_index(["variant", "image_id"])["tokens"]["shuffled-1", row.image_id].tolist()
    question = [Question(0, row.position, row.token_id)]
    around = shuffling(tiny, inputs, [(run.settings.seed, row.image_id, "shuffled-1")])
    score = found["score"]
    is_it = (score["image_id"] == row.image_id) & (score["variant"] == "shuffled-1") & (score["noun"] == row.noun)
    stored = score[is_it & (score["method"] == "attribution")].sort_values("rank")["score"]
    best = attribute(tiny, inputs, [caption], question, around=around).score.flatten().topk(TOP).values
    plain = attribute(tiny, inputs, [caption], question).score.flatten().topk(TOP).values
    assert stored.tolist() == pytest.approx(best.tolist(), rel=1e-3)
    assert stored.tolist() != pytest.approx(plain.tolist(), rel=1e-3)


def test_more_draws_and_other_ks_add_only_what_is_missing(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_path = run_path_of(cache)
    open_again = open_run(tiny, run_path)
    measure_region(open_again, 1, ["contribution"], KS)
    before = {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")}
    region = measure_region(open_again, 3, None, KS)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    methods = shards.read_shard(next(run_path.glob("shuffled-0-batch-00000-*")))["score"]["method"].to_pylist()
    assert set(methods) == set(METHODS.split(","))  # all of the run's, whatever was compared
    assert len(list(run_path.glob("shuffled-*"))) == 3 * 3
    monkeypatch.setattr(measuring, "caption_encoded", None)  # nothing is captioned from here on
    measure_region(open_again, 2, None, (5,))
    again = measure_region(open_again, 3, None, KS)
    assert again.rows.equals(region.rows)
    found = tables(cache)
    for name, key in {
        "caption": ["image_id", "variant"],
        "concept": ["image_id", "variant", "noun"],
        "score": ["image_id", "variant", "noun", "method", "rank"],
        "budget": ["image_id", "variant", "noun", "term", "layer"],
        "invariance": ["image_id", "kind", "noun", "method", "k", "draw", "n"],
    }.items():
        assert not found[name].duplicated(key).any(), name
    assert set(found["invariance"]["draw"]) == {0, 1, 2}
    assert set(found["invariance"]["k"]) == {3, 5, TOP}


def test_the_draws_of_one_picture_are_one_batch(cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def noted(model: Model, inputs: dict[str, Tensor], *more: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        return caption_encoded(model, inputs, *more)

    monkeypatch.setattr(measuring, "caption_encoded", noted)
    measure_region(open_run(tiny, run_path_of(cache)), 3, ["contribution"], KS)
    assert sizes == [2, 2, 2, 2, 2, 2, 3]


def test_a_draw_alone_is_what_it_is_beside_others(
    cache: Path, tiny: Model, measured: tuple[Path, Region, list[Progress]]
) -> None:
    """Attribution, too: its graph is under each row's own permutation."""
    for n_draws in (1, 2, 3):
        measure_region(open_run(tiny, run_path_of(cache)), n_draws, None, KS)
    key = ["image_id", "variant", "noun", "method", "layer", "unit"]
    first, second = (tables(one)["score"].set_index(key)["score"].sort_index() for one in (cache, measured[0]))
    both = pd.concat({"score": first, "score_other": second}, axis=1).dropna()
    assert len(both) > 0.99 * len(first)  # rounding may swap the last ranks
    scale = both.abs().groupby(["image_id", "variant", "noun", "method"])["score"].transform("max")
    assert ((both["score"] - both["score_other"]).abs() / scale).max() < 1e-4


def test_a_picture_that_is_gone_is_one_failure_and_the_others_are_unharmed(
    paint: Callable[[Path, int], Path], checkpoint: Path, tiny: Model, tmp_path: Path
) -> None:
    pictures, cache = paint(tmp_path / "pictures", 3), tmp_path / "cache"
    assert main(command("score", "--model", checkpoint, "--images", pictures, "--cache", cache, *SCORING)) == 0
    (pictures / "000.png").unlink()
    (pictures / "002.png").unlink()  # alone in its batch
    region = measure_region(open_run(tiny, run_path_of(cache)), 2, None, KS)
    found = tables(cache)
    assert region.n_failed == 2
    assert sorted(Path(source).name for source in found["failure"]["source"]) == ["000.png", "002.png"]
    assert set(found["failure"]["stage"]) == {"invariance"}
    captions = found["caption"]
    assert captions[captions["variant"] == "shuffled-1"]["image_id"].nunique() == 1
    words = command("invariance", "latest", "--kind", "region", "--draws", 2, "--cache", cache, "--ks", "3,12")
    assert main(words) == 1


# ---- across pictures


def test_cross_image_ratios_are_those_counted_by_hand(cache: Path) -> None:
    found = tables(cache)
    cross = measure_cross_image(run_path_of(cache), 2, 4, None, KS)
    rows = cross.rows.to_pandas()
    said = found["concept"].query("variant == 'original' and target_at.isna()")
    pictures = said.groupby("lemma")["image_id"].nunique()
    assert cross.n_concepts == len(pictures)
    assert cross.n_left_out == (pictures < 2).sum() > 0
    assert set(rows["noun"]) == set(pictures.index[pictures >= 2])
    assert set(rows["method"]) == {*METHODS.split(","), "contribution-minus-blank", "attribution-minus-blank"}
    ranks = found["score"].query("variant == 'original' and rank >= 1")
    flat = (ranks["layer"] * 48 + ranks["unit"]).rename("flat")
    units = {
        key: set(one)
        for key, one in flat[ranks["rank"] <= 3].groupby([ranks[c] for c in ("image_id", "noun", "method")])
    }
    places = {lemma: [(r.image_id, r.noun) for r in one.itertuples()] for lemma, one in said.groupby("lemma")}
    assert rows["ratio"].gt(0).any()
    for row in rows[rows["k"] == 3].itertuples():
        tops = [units[(*place, row.method)] for place in places[row.noun]]
        pairs = [len(one & other) / 3 for n, one in enumerate(tops) for other in tops[:n]]
        assert row.ratio in pairs
        if len(tops) == 2:
            assert rows.query("noun == @row.noun and method == @row.method and k == 3")["draw"].tolist() == [0]
    assert rows["image_id"].isna().all()
    assert rows["floor_other_noun"].isna().all()
    layers = shards.read_shard(next(run_path_of(cache).glob("invariance-cross-image*")))["shared_layer"].to_pandas()
    by_draw = layers.groupby(["noun", "method", "k", "draw", "n"])[["n_shared", "n_random"]].sum().reset_index()
    both = rows.merge(by_draw, how="left").fillna({"n_shared": 0, "n_random": 0})
    assert both["ratio"].tolist() == pytest.approx((both["n_shared"] / both["k"]).tolist())
    assert both["floor_random"].tolist() == pytest.approx((both["n_random"] / both["k"]).tolist())
    assert layers["layer"].nunique() > 1
    assert measure_cross_image(run_path_of(cache), 2, 4, None, KS).rows.equals(cross.rows)


def test_draws_are_the_same_in_other_batches_and_for_all_methods() -> None:
    run, _ = shards.read_run(invariance_run())
    places = [(CaptionNoun(f"{n:03d}", "dog", "dog"), f"batch-{n % 3}") for n in range(20)]
    moved = [(one, "batch-9") for one, _ in places]
    first, second = (cross_image._draws(run, "dog", some, 5, 3) for some in (places, moved))
    assert [[one for one, _ in draw.pictures] for draw in first] == [
        [one for one, _ in draw.pictures] for draw in second
    ]
    assert len({tuple(draw.pictures) for draw in first}) == 3
    assert len(cross_image._draws(run, "dog", places[:5], 5, 3)) == 1


def invariance_run() -> Path:
    from mmn.specimen import RUN_PATH

    return RUN_PATH


def test_a_run_that_is_not_complete_has_no_draws_of_pictures(cache: Path) -> None:
    run_path = run_path_of(cache)
    (run_path / shards.OUTCOME_FILE).unlink()
    shards.finish_run(run_path, Outcome(names.CANCELLED, "2026-01-01T00:00:00+00:00", 1.0))
    with pytest.raises(UsageError, match="not complete"):
        measure_cross_image(run_path)


# ---- command line


def test_the_command_measures_loads_and_says_what(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kind, more in {"region": [], "cross-image": ["--images-per-concept", 2]}.items():
        words = command("invariance", "latest", "--kind", kind, "--cache", cache, "--draws", 2, "--ks", "3,12", *more)
        capfd.readouterr()
        assert main([*words, "--json"]) == 0
        said = json.loads(capfd.readouterr().out)
        assert said == said | {"run_id": run_path_of(cache).name, "kind": kind, "n_failed": 0, "database": "loaded"}
        assert {(row["method"], row["k"]) for row in said["means"]} >= {("random", 3), ("contribution", 12)}
        assert all((row["floor_other_noun"] is None) == (kind == "cross-image") for row in said["means"])
        assert main(words) == 0
        assert f"{kind}, {'up to ' if kind == 'cross-image' else ''}2 draws" in capfd.readouterr().out
    assert set(tables(cache)["invariance"]["kind"]) == {"region", "cross-image"}


def test_the_command_names_what_it_cannot_use(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    region, cross = ["latest", "--kind", "region"], ["latest", "--kind", "cross-image"]
    wrong: dict[str, list[str]] = {
        "no run 'nothing'": ["nothing", "--kind", "region"],
        "no 'activation' rankings": [*region, "--methods", "activation"],
        "k = 13: run": [*region, "--ks", "13"],
        "is not a number": [*region, "--ks", "3,x"],
        "above 0 and up to 1": [*cross, "--shares", "2"],
        "--limit is for": [*cross, "--limit", "3"],
        "--images-per-concept is for": [*region, "--images-per-concept", "3"],
        "required: --kind": ["latest"],
    }
    for message, more in wrong.items():
        capfd.readouterr()
        assert main(command("invariance", *more, "--cache", cache)) == 2
        err = capfd.readouterr().err
        assert message in err, err
        assert err.count("\n") == 1


def test_comparing_pictures_of_a_noun_needs_no_torch(cache: Path) -> None:
    words = command("invariance", "latest", "--kind", "cross-image", "--cache", cache, "--images-per-concept", 2)
    program = f"import sys\nfrom mmn.cli import main\nassert main({words!r}) == 0\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)
