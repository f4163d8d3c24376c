"""What studies make of a mixture of experts: rankings by attribution, specificity, shuffled pictures, image tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf

from mmn import names
from mmn.cli import BAD_INPUT, main
from mmn.core import Concept, Example
from mmn.errors import UsageError
from mmn.models.loading import load_model
from mmn.models.token_rows import known_ids
from mmn.reading.captions import read_encoded, with_captions
from mmn.reading.concepts import GeneratedCaption
from mmn.reading.hooks import ACTIVATION, ablate
from mmn.runs.shards import read_run
from mmn.scores import effects
from mmn.scores.effects import _whole as plain_effects
from mmn.scores.effects import measure_effects
from mmn.scores.methods import require_method
from mmn.scores.rows import ConceptAt
from mmn.store import Store
from mmn.studies.degradation.measure import InterventionPlan, degrade
from mmn.studies.domains.measured import half_of
from mmn.studies.domains.rows import Found, overlap_rows
from mmn.studies.invariance import cross_image
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.studies.shift.measure import measure_shift
from mmn.studies.shift.states import Wanted
from mmn.units.parts import parts_of
from tests.scored import run_path_of, tables_of
from tests.test_circuits import assert_opens_in_the_viewer, unpaired
from tests.test_expert_gradients import plainly
from tests.test_experts import ROUNDING, tiny
from tests.tiny import save_tiny_llava

METHODS = (
    *(names.CONTRIBUTION, names.CONTRIBUTION_FOLDED, names.CONTRIBUTION_CENTRED, names.ACTIVATION, names.RANDOM),
    *(names.RANDOM_MATCHED, names.ATTRIBUTION, "random-matched:attribution"),
)
D_EXPERT, N_EXPERTS = 12, 6
KEY = ["image_id", "noun", "method"]


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA on a Mixtral whose tokens go through one of many experts, so that image tokens leave some asleep."""
    more = {"num_local_experts": N_EXPERTS, "num_experts_per_tok": 1, "intermediate_size": D_EXPERT}
    return save_tiny_llava(tmp_path_factory.mktemp("mixtral"), text_type=hf.MixtralConfig, more=more)


@pytest.fixture(scope="module")
def cache(mixtral: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures scored, then each study of them."""
    cache = tmp_path_factory.mktemp("cache")
    words = ["score", "--model", str(mixtral), "--images", "gallery", "--limit", "2", "--blank", "--bottom-k", "3"]
    common = ["--cache", str(cache), "--progress", "none"]
    assert main([*words, "--methods", ",".join(METHODS), *common]) == 0
    assert main(["specificity", "latest", "--methods", "contribution,attribution", *common]) == 0
    assert main(["invariance", "latest", "--kind", "region", "--draws", "1", "--ks", "1,5,36", *common]) == 0
    cross = ["--kind", "cross-image", "--images-per-concept", "2", "--methods", "contribution,attribution"]
    assert main(["invariance", "latest", *cross, "--ks", "1,36", *common]) == 0
    both, changed = (names.CONTRIBUTION, names.ATTRIBUTION), (names.TOP, names.RANDOM, names.RANDOM_PICTURE)
    plan = InterventionPlan(names.ABLATE, both, (30,), changed, n_draws=1, positions=names.IMAGE_TOKENS)
    degrade(load_model(str(mixtral)), run_path_of(cache), plan)
    return cache


@pytest.fixture(scope="module")
def tables(cache: Path) -> dict[str, pd.DataFrame]:
    return tables_of(cache, ["run", "score", "concept", "specificity", "invariance", "shared_layer", "effect"])


def test_a_run_ranks_what_is_awake_and_names_the_expert(tables: dict[str, pd.DataFrame]) -> None:
    score, concept = tables["score"], tables["concept"]
    assert (concept["residual"].abs() / concept["logit"].abs().clip(lower=1)).max() < ROUNDING
    assert (score["expert"] == score["unit"] // D_EXPERT).all()
    assert score["expert"].nunique() == N_EXPERTS
    top = score[(score["method"] == names.CONTRIBUTION) & (score["variant"] == names.ORIGINAL) & (score["rank"] > 0)]
    by_concept = top.groupby(["image_id", "noun"])
    assert (by_concept.size() == 3 * D_EXPERT).all()
    assert (by_concept.apply(lambda rows: rows.groupby("layer")["expert"].nunique().max()) == 1).all()
    assert list(tables["run"]["d_experts"].iloc[0]) == [D_EXPERT] * 3


def test_centred_scores_are_plain_ones_less_what_a_unit_adds_to_every_token(
    mixtral: Path, tables: dict[str, pd.DataFrame]
) -> None:
    """Also where a unit is an expert's: all of them are awake in no ranking, and each has its own column."""
    score, both = tables["score"], (names.CONTRIBUTION, names.CONTRIBUTION_CENTRED)
    rows = score[(score["variant"] == names.ORIGINAL) & (score["rank"] > 0) & score["method"].isin(both)]
    key = ["image_id", "noun", "layer", "unit", "activation"]
    rows = rows.pivot_table("score", key, "method", observed=True).reset_index()
    model = load_model(str(mixtral))
    mean = model.anatomy.unembedding.weight[known_ids(model.tokenizer)].double().mean(0)
    common = [
        row.activation * float(model.anatomy.w_out(row.layer)[:, row.unit].double() @ mean) for row in rows.itertuples()
    ]
    difference = rows[names.CONTRIBUTION] - rows[names.CONTRIBUTION_CENTRED]
    assert difference.abs().max() > 1e-4, "a mean of nothing would prove nothing"
    np.testing.assert_allclose(difference, common, rtol=1e-3, atol=1e-6)


def test_attribution_ranks_experts_that_image_tokens_wake_and_its_control_is_of_their_layers(
    tables: dict[str, pd.DataFrame],
) -> None:
    score = tables["score"][(tables["score"]["variant"] == names.ORIGINAL) & (tables["score"]["rank"] > 0)]
    found, control = (score[score["method"] == method] for method in METHODS[-2:])
    assert (found["expert"] == found["unit"] // D_EXPERT).all()
    assert set(found["layer"]) == {0, 1}, "nothing follows the last layer at an image token"
    assert found["token_position"].notna().all()
    pairs = found.merge(control, on=["image_id", "noun", "rank"], suffixes=("", "_control"))
    assert len(pairs) == len(found) == len(control)
    assert (pairs["layer"] == pairs["layer_control"]).all()
    experts = found.groupby(["image_id", "noun"])["expert"].nunique()
    assert experts.max() > 1, "image tokens wake several"
    brought = tables["score"][tables["score"]["method"] == f"attribution{names.MINUS_BLANK}"]
    assert not brought.empty
    assert np.isfinite(brought["score"]).all()


def test_a_unit_scores_what_is_stored_for_other_nouns_and_0_where_its_expert_sleeps(
    tables: dict[str, pd.DataFrame],
) -> None:
    rows = tables["specificity"]
    score = tables["score"][(tables["score"]["variant"] == names.ORIGINAL) & (tables["score"]["rank"] > 0)]
    both = rows.merge(score[[*KEY, "layer", "unit", "score"]], how="left", on=[*KEY, "layer", "unit"])
    both = both[both["score_y"].notna() | (both["method"] == names.CONTRIBUTION)]  # which ranks all that is awake
    assert set(both["method"]) == {names.CONTRIBUTION, names.ATTRIBUTION}
    assert np.allclose(both["score_x"], both["score_y"].fillna(0.0), rtol=1e-3, atol=1e-6)
    controls = rows[rows["selection"] == "shuffled"].merge(
        rows[rows["selection"] == "same"], on=[*KEY, "unit_noun"], suffixes=("", "_top")
    )
    assert not controls.empty
    assert (controls["unit"] // D_EXPERT == controls["unit_top"] // D_EXPERT).all()


def test_shuffled_pictures_are_compared_as_far_as_both_rankings_reach_beside_units_of_the_same_experts(
    cache: Path, tables: dict[str, pd.DataFrame]
) -> None:
    score = tables["score"][tables["score"]["rank"] > 0].astype({"variant": str})
    lemma = tables["concept"].set_index(["image_id", "variant", "noun"])["lemma"]
    rows = tables["invariance"][tables["invariance"]["kind"] == names.REGION]
    assert set(rows["k"]) == {1, 5, 36}
    for row in rows.itertuples():
        of = score[(score["image_id"] == row.image_id) & (score["method"] == row.method) & (score["rank"] <= row.k)]
        first = of[(of["variant"] == names.ORIGINAL) & (of["noun"] == row.noun)]
        said = lemma[row.image_id, names.ORIGINAL, row.noun]
        second = of[of["variant"] == "shuffled-0"]
        second = second[[lemma[row.image_id, "shuffled-0", noun] == said for noun in second["noun"]]]
        units, others = (set(zip(some["layer"], some["unit"], strict=True)) for some in (first, second))
        assert len(units) == len(others) == row.k
        assert row.ratio == pytest.approx(len(units & others) / row.k)
        counts = [some.groupby(["layer", "expert"]).size() for some in (first, second)]
        assert row.floor_random == pytest.approx((counts[0] * counts[1]).fillna(0).sum() / D_EXPERT / row.k)
    with Store.open(cache) as store:
        by_layer = store.ask(InvarianceQueries).by_layer(tables["run"]["run_id"].iloc[0], names.ATTRIBUTION, 5)
    of_pairs = rows[(rows["method"] == names.ATTRIBUTION) & (rows["k"] == 5)]["floor_random"] * 5
    assert (by_layer["chance"] * by_layer["n_units"]).sum() == pytest.approx(of_pairs.sum())


def test_random_units_of_a_picture_are_of_all_experts_and_an_effect_at_image_tokens_is_there(
    tables: dict[str, pd.DataFrame],
) -> None:
    effect = tables["effect"]
    changed = effect[effect["k"] == 30]
    assert set(changed["selection"]) == {"top", "random", "random-picture"}
    assert set(changed["method"]) == {names.CONTRIBUTION, names.ATTRIBUTION}
    alike = changed[changed["selection"] == "random-picture"].groupby(["image_id", "noun"])["prob"]
    assert (alike.nunique() == 1).all(), "the same units whatever the score"


@pytest.mark.parametrize("model_type", ["qwen3_5_moe", "llama4"])
def test_units_are_zeroed_at_some_positions_as_in_a_model_that_computes_every_expert(model_type: str) -> None:
    """Of the second picture alone; the first computes what it did, bit for bit."""
    model, inputs = tiny(model_type)
    n = inputs["input_ids"].shape[1]
    only_at = torch.arange(n) % 3 == 1
    mask = torch.zeros(2, model.anatomy.n_layers, model.anatomy.d_mlp, dtype=torch.bool)
    for layer, mixture in enumerate(model.anatomy.mixtures):
        mask[1, layer, : mixture.start : 2] = True
    with plainly(model) as plain:
        for layer, mixture in enumerate(model.anatomy.mixtures):
            if mixture.routed is not None:
                kept = torch.ones(mixture.routed.n_experts, 2, n, mixture.routed.d_expert)
                units = mask[1, layer, : mixture.start].view(mixture.routed.n_experts, 1, -1)
                kept[:, 1][:, only_at] = (~units).float()
                plain.kept[layer] = kept.flatten(1, 2)
        expected = model.module(**inputs, use_cache=False).logits.detach()
    with torch.inference_mode():
        untouched = model.module(**inputs, use_cache=False).logits
        with ablate(model, mask, only_at=only_at):
            found = model.module(**inputs, use_cache=False).logits
    assert torch.equal(found[0], untouched[0])
    assert (found[1] - untouched[1]).abs().max() > 1e-3
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("model_type", "is_gone_again"), [("qwen3_5_moe", False), ("qwen3_vl_moe", True)])
def test_the_effect_of_a_unit_is_what_a_model_without_it_at_the_noun_loses(
    model_type: str, is_gone_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second picture's units that write most; one that sleeps at the noun is not asked about.

    Whole passes are for a past of more than keys and values alone.
    """
    model, inputs = tiny(model_type)
    whole_passes: list[tuple[Any, ...]] = []

    def noted(*given: Any) -> Any:
        whole_passes.append(given)
        return plain_effects(*given)

    monkeypatch.setattr(effects, "_whole", noted)
    caption = GeneratedCaption("ab", (11, 12), (1, 2))
    batch = read_encoded(model, inputs, [caption, caption], with_act=False)
    said = [ConceptAt(1, Example("i", "i", ("i",), 1, 1), Concept("w", "w", 1, 30, 1, True, False, False, None))]
    at = torch.tensor([1]), torch.tensor([1])
    units, a = batch.captured.flat_units(*at), batch.captured.read_layers(ACTIVATION, *at)
    found = measure_effects(model, batch, said, units)
    assert units is not None
    assert bool(whole_passes) is not is_gone_again
    assert found.logit.shape == units.shape == a.shape
    whole = with_captions(model, inputs, [(11,), (11,)])
    with torch.inference_mode():
        before = model.module(**whole, use_cache=False).logits[1, -1]
    for layer, mixture in enumerate(model.anatomy.mixtures):
        routed: Any = mixture.routed
        place = int(a[0, layer, : 2 * routed.d_expert].abs().argmax())
        expert, unit = divmod(int(units[0, layer, place]), routed.d_expert)
        with plainly(model) as plain:
            plain.kept[layer] = torch.ones(routed.n_experts, whole["input_ids"].numel(), routed.d_expert)
            plain.kept[layer][expert, -1, unit] = 0
            after = model.module(**whole, use_cache=False).logits[1, -1].detach()
        assert found.logit[0, layer, place].item() == pytest.approx(float(before[30] - after[30]), abs=1e-5)
        lost = (before.softmax(-1) - after.softmax(-1))[30]
        assert found.prob[0, layer, place].item() == pytest.approx(float(lost), rel=1e-3, abs=1e-8)
        assert abs(float(before[30] - after[30])) > 1e-4


def test_a_circuit_names_experts_and_its_file_opens_in_the_viewer(cache: Path, tmp_path: Path, capfd) -> None:
    run_path, noun = run_path_of(cache), tables_of(cache, ["concept"])["concept"]["lemma"].mode()[0]
    out, common = tmp_path / "one.json", ["--cache", str(cache), "--progress", "none"]
    words = ["circuits", "latest", "--noun", noun, "--units-per-layer", "2", "--draws", "1", "--limit", "1"]
    capfd.readouterr()
    assert main([*words, *common, "--out", str(out), "--json"]) == 0
    (told,) = json.loads(capfd.readouterr().out)["circuits"]
    assert told["share"] == pytest.approx(2 / (D_EXPERT * N_EXPERTS))
    graph = assert_opens_in_the_viewer(out)
    units = [node for node in graph["nodes"] if node["feature_type"] == "cross layer transcoder"]
    assert len(units) == 6
    for node in units:
        layer, unit = unpaired(node["feature"])
        assert node["clerp"].startswith(f"L{layer}.e{unit // D_EXPERT}.u{unit % D_EXPERT}: ")
    assert len(graph["links"]) == 2 * 2 + 2 * 2 * 2 + 2, "from two inputs, between layers, into the noun"
    effect = pd.read_parquet(next(run_path.glob("circuits-*/circuit_effect.parquet")))
    by = effect.groupby(["direction", "selection", "size"])["logit"].mean()
    assert by["kept", "circuit", D_EXPERT * N_EXPERTS] == by["ablated", "random", 0] != by["kept", "circuit", 2]
    assert main([*words, *common, "--units-per-layer", str(D_EXPERT + 1)]) == BAD_INPUT
    assert f"lets a token go through {D_EXPERT}" in capfd.readouterr().err


def test_parts_are_experts_and_a_layer_without_some_is_one() -> None:
    anatomy = tiny("llama4")[0].anatomy
    parts = parts_of(anatomy.widths, anatomy.d_experts)
    by_layer = parts.of_unit.reshape(anatomy.n_layers, -1)
    assert [len(set(some)) for some in by_layer] == [1, 5, 5]
    assert parts.sizes[by_layer[0, 0]] == anatomy.widths[0] < anatomy.d_mlp
    assert (parts.sizes[by_layer[1]] == 96).all()


def test_image_tokens_with_experts_of_their_own_have_no_attribution() -> None:
    with pytest.raises(UsageError, match="go through experts of their own"):
        require_method(tiny("ernie4_5_vl_moe")[0], "random-matched:attribution")


def test_pictures_of_a_noun_share_what_sets_share_and_chance_is_of_the_same_experts(
    tables: dict[str, pd.DataFrame],
) -> None:
    """Of both pictures, and all nouns that both say."""
    score, concept = (tables[name][tables[name]["variant"] == names.ORIGINAL] for name in ("score", "concept"))
    rows = tables["invariance"][tables["invariance"]["kind"] == names.CROSS_IMAGE]
    both = concept.groupby("lemma").filter(lambda said: said["image_id"].nunique() == 2)
    said = {lemma: list(zip(of["image_id"], of["noun"], strict=True)) for lemma, of in both.groupby("lemma")}
    assert set(rows["noun"]) == set(said) != set()
    found = set(zip(rows["method"], rows["k"], strict=True))
    assert found == {("contribution", 1), ("contribution", 36), ("attribution", 1), ("attribution", 36)}
    for row in rows.itertuples():
        tops = [
            score[
                (score["image_id"] == image_id)
                & (score["noun"] == noun)
                & (score["method"] == row.method)
                & score["rank"].between(1, row.k)
            ]
            for image_id, noun in said[row.noun]
        ]
        units = [set(zip(top["layer"], top["unit"], strict=True)) for top in tops]
        assert row.ratio == len(set.intersection(*units)) / row.k
        counts = [top.groupby(["layer", "expert"]).size() for top in tops]
        assert row.floor_random == pytest.approx((counts[0] * counts[1]).fillna(0).sum() / D_EXPERT / row.k)
    layers = tables["shared_layer"].groupby(["noun", "method", "k"])[["n_shared", "n_random"]].sum()
    for row in rows.itertuples():
        key = (row.noun, row.method, row.k)
        there = layers.loc[key] if key in layers.index else layers.iloc[0] * 0  # no expert is in both
        assert list(there / row.k) == pytest.approx([row.ratio, row.floor_random])


def test_a_run_that_does_not_tell_its_widths_is_not_compared(cache: Path) -> None:
    run, _ = read_run(run_path_of(cache))
    assert run.model.widths == (D_EXPERT * N_EXPERTS,) * 3
    with pytest.raises(UsageError, match="before runs told how wide each layer is"):
        cross_image._parts(replace(run, model=replace(run.model, widths=())))


@pytest.fixture(scope="module")
def folders(mixtral: Path, paint: Callable[[Path, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of sixteen pictures in two folders, measured by them."""
    root = tmp_path_factory.mktemp("folders")
    for number, path in enumerate(sorted(paint(root / "all", 16).iterdir())):
        (root / "pictures" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        path.rename(root / "pictures" / "ab"[number % 2] / path.name)
    common = ["--cache", str(root / "cache"), "--progress", "none", "--device", "cpu"]
    words = ["score", "--model", str(mixtral), "--images", str(root / "pictures"), "--max-new-tokens", "6"]
    assert main([*words, "--methods", "contribution", *common]) == 0
    assert main(["domains", "latest", "--by", "folder", *common]) == 0
    return root / "cache"


def test_groups_of_domains_share_tops_beside_random_units_of_the_same_experts(folders: Path) -> None:
    """Of what each half of the pictures finds in the other's, counted with sets."""
    k = 20
    tables = tables_of(folders, ("score", "concept"))
    with Store.open(folders) as store:
        run = store.run("latest")
        what = Found(store, run, "folder", "tokens")
        found = overlap_rows(what, k).set_index("group")
        halves, widths = what.of_halves, what.widths
    assert widths == (D_EXPERT * N_EXPERTS,) * 3
    score = tables["score"][tables["score"]["rank"].between(1, k)]
    for name, row in found.iterrows():
        by_picture = []
        for (image_id, _), top in score.groupby(["image_id", "noun"]):
            (group,) = [one for one in halves[1 - half_of(image_id)] if one.name == name]
            units = {(one.layer, one.unit) for one in group.units}
            experts = Counter((one.layer, one.unit // D_EXPERT) for one in group.units)
            places = list(zip(top["layer"], top["unit"], top["expert"], strict=True))
            shared = sum((layer, unit) in units for layer, unit, _ in places) / k
            chance = sum(experts[layer, expert] / D_EXPERT for layer, _, expert in places) / k
            by_picture.append((image_id, shared, chance, len(units) / sum(widths)))
        means = pd.DataFrame(by_picture).groupby(0).mean().mean()
        assert [row["mean"], row["matched"], row["uniform"]] == pytest.approx(list(means))
        assert row["matched"] > 0


def test_a_planted_change_of_one_experts_unit_is_found_where_it_is_awake(mixtral: Path, folders: Path) -> None:
    """The other model is the first one with a column of a last layer's expert replaced: nothing else is another."""
    model, changed = load_model(str(mixtral)), load_model(str(mixtral))
    run_path = run_path_of(folders)
    tables = tables_of(folders, ("score", "concept"))
    (noun, _), *_ = Counter(tables["concept"]["lemma"]).most_common()
    said = tables["concept"][tables["concept"]["lemma"] == noun][["image_id", "noun"]]
    tops = tables["score"].merge(said)
    tops = tops[tops["layer"] == 2].groupby("unit")["activation"].agg(["count", "sum"])
    unit = int(tops["sum"].abs().idxmax())
    added = 40 * torch.randn(model.anatomy.unembedding.in_features)
    changed.anatomy.own_column(2, unit).add_(added)
    facts = replace(model.facts, fingerprint="changed")
    run, _ = read_run(run_path)
    other = replace(run, run_id="00ff00ff00ff00ff", model=facts)
    edited = replace(changed, facts=facts)
    measure_shift(run_path, lambda: model, other, run_path, lambda: edited, (noun,), Wanted(k=2))
    found = tables_of(folders, ("shift", "shift_layer", "shift_unit"))
    best = found["shift_unit"]
    assert list(zip(best["layer"], best["unit"], strict=True)) == [(2, unit)]
    mean = tops.loc[unit, "sum"] / len(said)
    assert best["activation"].iloc[0] == pytest.approx(mean, rel=1e-3)
    assert best["written"].iloc[0] == pytest.approx(abs(mean) * float(added.norm()), rel=1e-3)
    assert found["shift"]["n_columns_changed"].iloc[0] == 1
    layers = found["shift_layer"].groupby("layer")["change"].agg(["max", "count"])
    assert (layers["max"] > 0).tolist() == [False, False, True]
    awake = found["shift_layer"][(found["shift_layer"]["layer"] == 2) & (found["shift_layer"]["change"] > 0)]
    assert len(awake) == tops.loc[unit, "count"], "where its expert sleeps it writes nothing, in neither model"
