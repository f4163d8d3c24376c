"""Top units scored for other nouns, and classes' units on other classes: by hand, with controls, resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmn import names
from mmn.cli import main
from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.images import open_image
from mmn.models.model import Model
from mmn.runs import shards
from mmn.runs.held_out import partners
from mmn.runs.plan import Progress
from mmn.runs.reopen import ScoredRun, examples, open_run
from mmn.runs.teacher_forcing import stored_concepts
from mmn.scores.equations import uniform_draw
from mmn.store import Store
from mmn.studies.selectivity import measure as selectivity
from mmn.studies.selectivity.measure import (
    Activations,
    ClassUnits,
    NounClass,
    class_units,
    measure_selectivity,
    picture_rows,
    selectivity_rows,
    split_classes,
    summarize_selectivity,
)
from mmn.studies.specificity import measure as specificity
from mmn.studies.specificity.command import _print_result, _print_table
from mmn.studies.specificity.measure import (
    checked_methods,
    count_of_one_picture,
    measure_specificity,
    summarize_specificity,
)
from tests.scored import interrupted_at_the_second

METHODS = ("contribution", "activation", "attribution")
SCORING = ["--methods", ",".join((*METHODS, "random", "random-matched")), "--top-k", 12, "--max-new-tokens", 8]
SCORING += ["--batch-size", 4, "--device", "cpu", "--target", "window", "--blank"]


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--progress", "none"]


@pytest.fixture(scope="module")
def scored_cache(
    paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A scored run of eight pictures in two batches, with a chosen word and grey pictures. Read only."""
    folder, cache = paint(tmp_path_factory.mktemp("specificity") / "pictures", 8), tmp_path_factory.mktemp("scored")
    assert main(words("score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING)) == 0
    return cache


@pytest.fixture
def cache(scored_cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored_cache, tmp_path / "cache"))


@pytest.fixture
def scored(cache: Path, tiny: Model) -> ScoredRun:
    (path,) = (path for path in (cache / "runs").iterdir() if not path.name.startswith("."))
    return open_run(tiny, path)


@pytest.fixture(scope="module")
def stored(scored_cache: Path) -> dict[str, pd.DataFrame]:
    with Store.open(scored_cache) as store:
        return {name: store.table("latest", name) for name in ("image", "caption", "concept", "score")}


@contextmanager
def watched(model: Model, get: Callable[[Any], Any], *, output: bool) -> Iterator[list[torch.Tensor]]:
    """What one module of each layer is given, or gives, with its gradient kept."""
    seen: list[torch.Tensor] = []

    def keep(value: torch.Tensor) -> None:
        value.requires_grad_(True)
        value.retain_grad()
        seen.append(value)

    hooks = [
        get(layer).register_forward_hook(lambda _module, _args, value: keep(value))
        if output
        else get(layer).register_forward_pre_hook(lambda _module, args: keep(args[0]))
        for layer in model.anatomy.layers
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def by_hand(model: Model, run_prompt: str, row: Any, tokens: list[int], place: int, token_id: int) -> float:
    """The score of one row of `specificity`, from one plain pass over prompt and caption."""
    inputs = model.encode([open_image(row.source)], run_prompt)
    n_prompt = inputs["input_ids"].shape[1]
    is_picture = (inputs["input_ids"] == model.module.config.image_token_index)[0]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    at = n_prompt - 1 + place
    is_attribution = row.method == names.ATTRIBUTION
    with watched(
        model, lambda one: one.mlp.gate_proj if is_attribution else one.mlp.down_proj, output=is_attribution
    ) as seen:
        logits = model.module(**inputs, use_cache=False).logits
    value = seen[row.layer]
    if is_attribution:
        logits[0, at, token_id].backward()
        assert value.grad is not None
        product = (value * value.grad)[0, : len(is_picture), row.unit]
        return product[is_picture].max().item()
    a = value[0, at, row.unit]
    if row.method == names.ACTIVATION:
        return a.item()
    w_out = model.anatomy.layers[row.layer].mlp.down_proj.weight[:, row.unit]
    return (a * (model.module.lm_head.weight[token_id] @ w_out)).item()


# ---- specificity


def test_scores_are_those_of_a_plain_pass(scored: ScoredRun, tiny: Model, stored: dict[str, pd.DataFrame]) -> None:
    rows = measure_specificity(scored, METHODS)["specificity"].to_pandas()
    captions = stored["caption"][stored["caption"]["variant"] == names.ORIGINAL].set_index("image_id")["tokens"]
    said = stored["concept"][(stored["concept"]["variant"] == names.ORIGINAL)].set_index(["image_id", "noun"])
    several = rows[rows.groupby("image_id")["noun"].transform("nunique") > 1]
    assert len(several)
    image_id = several["image_id"].iloc[0]
    picture = several[several["image_id"] == image_id].merge(stored["image"][["image_id", "source"]], on="image_id")
    assert set(picture["method"]) == set(METHODS)
    for row in picture.itertuples():
        concept = said.loc[(image_id, row.noun)]
        expected = by_hand(
            tiny, scored.run.prompt, row, list(captions[image_id]), concept["position"], concept["token_id"]
        )
        # other sums of the same float32 products: relative to the largest activations, about 1e2 here
        assert row.score == pytest.approx(expected, rel=1e-3, abs=1e-3), row


def test_every_noun_of_a_picture_meets_every_unit_of_it(scored: ScoredRun, stored: dict[str, pd.DataFrame]) -> None:
    rows = measure_specificity(scored, METHODS)["specificity"].to_pandas()
    concept, score = stored["concept"], stored["score"]
    said = concept[(concept["variant"] == names.ORIGINAL) & concept["target_at"].isna()][["image_id", "noun", "lemma"]]
    pairs = said.rename(columns={"noun": "unit_noun"}).merge(said[["image_id", "noun"]], on="image_id")
    is_elsewhere = pairs.groupby("lemma")["image_id"].transform("nunique") > 1
    assert is_elsewhere.any()
    keys = ["image_id", "unit_noun", "noun", "method", "selection", "is_control"]
    kinds = pd.DataFrame([("same", False), ("shuffled", True)], columns=["selection", "is_control"])
    held_out = pd.DataFrame([("held-out", False), ("held-out", True)], columns=["selection", "is_control"])
    methods = pd.DataFrame({"method": METHODS})
    expected = pd.concat([pairs.merge(kinds, how="cross"), pairs[is_elsewhere].merge(held_out, how="cross")])
    expected = expected.merge(methods, how="cross")
    assert sorted(map(tuple, rows[keys].to_numpy())) == sorted(map(tuple, expected[keys].to_numpy()))

    first = score[(score["rank"] == 1) & (score["variant"] == names.ORIGINAL)]
    own = rows[(rows["selection"] == "same") & (rows["unit_noun"] == rows["noun"])]
    own = own.merge(first, on=["image_id", "noun", "method"], suffixes=("", "_1"))
    assert len(own) == len(said) * len(METHODS)
    assert own[["layer", "unit"]].to_numpy().tolist() == own[["layer_1", "unit_1"]].to_numpy().tolist()
    assert np.allclose(own["score"], own["score_1"], rtol=1e-3, atol=1e-3)  # read in one pass, not token by token
    assert (own["share"].dropna() == 1).all()


def test_a_unit_is_judged_on_another_picture_than_it_was_chosen_on(
    scored: ScoredRun, stored: dict[str, pd.DataFrame]
) -> None:
    """Chosen as its noun's maximum, every unit's own noun was its highest, whatever units mean."""
    rows = measure_specificity(scored, METHODS)["specificity"].to_pandas()
    held_out = rows[(rows["selection"] == "held-out") & ~rows["is_control"]]
    assert (held_out["found_on"] != held_out["image_id"]).all()
    assert rows[rows["selection"] != "held-out"]["found_on"].isna().all()
    concept, score = stored["concept"], stored["score"]
    said = concept[(concept["variant"] == names.ORIGINAL) & concept["target_at"].isna()]
    lemma = said.set_index(["image_id", "noun"])["lemma"].to_dict()
    first = score[(score["rank"] == 1) & (score["variant"] == names.ORIGINAL)]
    top = {(row.image_id, lemma.get((row.image_id, row.noun)), row.method): row for row in first.itertuples()}
    for row in held_out.itertuples():
        elsewhere = top[row.found_on, lemma[row.image_id, row.unit_noun], row.method]
        assert (row.layer, row.unit) == (elsewhere.layer, elsewhere.unit)


def test_the_control_is_another_unit_of_the_layer_on_the_same_scale(scored: ScoredRun) -> None:
    rows = measure_specificity(scored, METHODS)["specificity"].to_pandas()
    top = rows[(rows["selection"] == "same") & (rows["unit_noun"] == rows["noun"])]
    rows = rows.merge(top[["image_id", "unit_noun", "method", "score"]].rename(columns={"score": "top"}))
    positive = rows[rows["top"] > 0]
    assert len(positive)
    assert np.allclose(positive["share"], positive["score"] / positive["top"])
    assert rows[rows["top"] <= 0]["share"].isna().all()
    held_out = rows[rows["selection"] == "held-out"]
    key = ["image_id", "unit_noun", "noun", "method", "found_on"]
    pairs = held_out[~held_out["is_control"]].merge(held_out[held_out["is_control"]], on=key, suffixes=("", "_control"))
    assert len(pairs) == len(held_out) / 2
    assert (pairs["layer"] == pairs["layer_control"]).all()
    assert (pairs["unit"] != pairs["unit_control"]).all()
    assert (pairs.groupby(["image_id", "unit_noun", "method"])["unit_control"].nunique() == 1).all()


def test_the_null_has_its_own_noun_highest_by_selection_alone(scored: ScoredRun) -> None:
    """Each noun's scores permuted within layers and chosen from likewise: the maximum stays, the rest is arbitrary."""
    image_id, nouns, d_mlp = "a" * 64, ("dog", "sea", "cat"), scored.model.facts.d_mlp
    scores = {noun: np.random.default_rng(number).normal(size=d_mlp) for number, noun in enumerate(nouns)}
    top = Neuron(1, int(scores["dog"].argmax()))
    chosen = specificity.shuffled_units(0, range(d_mlp), image_id, "dog", top, nouns)
    # by hand: permute, choose the highest of the dog's scores, read all nouns under that name
    shuffled = {}
    for noun in nouns:
        draw = uniform_draw(0, image_id, names.ORIGINAL, noun, "specificity shuffled 1", d_mlp)
        shuffled[noun] = scores[noun][draw.argsort(stable=True).numpy()]
    name = shuffled["dog"].argmax()
    assert [scores[noun][one.unit] for noun, one in zip(nouns, chosen, strict=True)] == [
        shuffled[noun][name] for noun in nouns
    ]
    assert chosen[0] == top
    assert {one.layer for one in chosen} == {1}
    others = {specificity.shuffled_units(seed, range(d_mlp), image_id, "dog", top, nouns)[1] for seed in range(20)}
    assert len(others) > 10, "an arbitrary unit, not always the same one"
    rows = measure_specificity(scored, METHODS)["specificity"].to_pandas()
    null = rows[(rows["selection"] == "shuffled") & (rows["unit_noun"] == rows["noun"])]
    assert (null["share"].dropna() == 1).all()


def test_the_control_is_never_the_unit_even_where_that_is_drawn(scored: ScoredRun) -> None:
    tables = shards.read_shard(scored.path / "batch-00000")
    said = stored_concepts(tables, tuple(examples(tables)))[0]
    tops = [Neuron(1, unit) for unit in range(scored.model.facts.d_mlp)]  # one of them is the highest draw
    controls = [specificity._control(scored, said, "contribution", top) for top in tops]
    assert all(control != top and control.layer == 1 for top, control in zip(tops, controls, strict=True))
    assert len(set(controls)) == 2  # the highest draw, and the second where the unit is the highest


def test_partners_are_other_pictures_of_the_lemma_whatever_the_order() -> None:
    said = [(f"{number:02d}", "dogs" if number % 2 else "dog", "dog") for number in range(40)] + [("00", "sea", "sea")]
    found = partners(said, 0)
    assert ("00", "sea") not in found, "one picture alone says it"
    assert set(found) == {(image, noun) for image, noun, _ in said[:40]}
    assert all(own[0] != other[0] and other in found for own, other in found.items())
    assert len(set(found.values())) > 20, "not one picture for all"
    assert partners(said[::-1], 0) == found
    assert partners(said, 1) != found


def test_again_writes_nothing_and_an_interrupted_call_goes_on(
    scored: ScoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with interrupted_at_the_second(monkeypatch, specificity, "_measure_batch"):
        measure_specificity(scored, METHODS)
    told: list[Progress] = []
    found = measure_specificity(scored, METHODS, told.append)
    assert [(one.stage, one.done, one.total) for one in told] == [("specificity", 4, 8), ("specificity", 8, 8)]
    measure_selectivity(scored, METHODS, held_out=1)
    before = {path: path.stat().st_mtime_ns for path in scored.path.rglob("*.parquet")}
    monkeypatch.setattr(specificity, "reread", None)
    monkeypatch.setattr(selectivity, "_read_scores", None)
    assert measure_specificity(scored, METHODS[::-1])["specificity"].equals(found["specificity"])
    measure_selectivity(scored, METHODS, held_out=1)
    assert {path: path.stat().st_mtime_ns for path in scored.path.rglob("*.parquet")} == before


def test_methods_without_units_of_a_noun_are_refused(scored: ScoredRun) -> None:
    assert checked_methods(scored.run, None) == METHODS
    assert checked_methods(scored.run, ["activation", "activation"]) == ("activation",)
    wrong = {"random": "at random", "random-matched": "at random", "contribution-minus-blank": "grey one"}
    for method, message in (wrong | {"contribution-folded": "has no 'contribution-folded' scores"}).items():
        with pytest.raises(UsageError, match=message):
            checked_methods(scored.run, [method])


def test_means_count_pictures_and_how_often_a_unit_is_its_own_noun_s() -> None:
    def row(image: str, unit_noun: str, noun: str, score: float, share: float | None, who: str = "held-out") -> dict:
        selection, is_control = {"control": ("held-out", True), "shuffled": ("shuffled", True)}.get(who, (who, False))
        key = {"image_id": image, "unit_noun": unit_noun, "noun": noun, "method": "m", "is_control": is_control}
        return key | {"score": score, "share": share, "selection": selection}

    rows = [row("1", "dog", "dog", 2.0, 0.8), row("1", "dog", "cat", 3.0, 1.2)]  # the dog's unit is rather a cat's
    rows += [row("1", "cat", "cat", 4.0, 0.9), row("1", "cat", "dog", 2.0, 0.5)]
    rows += [row("2", "dog", "dog", -1.0, None), row("2", "dog", "sea", 0.0, None)]  # silent: no share, yet it fails
    rows += [row("3", "dog", "dog", 1.0, 0.4)]
    rows += [row("1", "dog", "dog", 0.2, 0.1, "control"), row("1", "dog", "cat", 0.6, 0.3, "control")]
    rows += [row("2", "dog", "dog", 5.0, 1.0, "same"), row("2", "dog", "sea", 4.0, 0.8, "same")]
    rows += [row("2", "dog", "dog", 5.0, 1.0, "shuffled"), row("2", "dog", "sea", 5.0, 1.0, "shuffled")]  # ties count
    told = summarize_specificity(pd.DataFrame(rows)).set_index("what")
    assert told["mean"].to_dict() == pytest.approx(
        {
            "held-out own": ((0.8 + 0.9) / 2 + 0.4) / 2,
            "held-out other": (1.2 + 0.5) / 2,
            "held-out highest": (0.5 + 0.0) / 2,
            "control own": 0.1,
            "control other": 0.3,
            "control highest": 0.0,
            "same own": 1.0,
            "same other": 0.8,
            "same highest": 1.0,
            "shuffled own": 1.0,
            "shuffled other": 1.0,
            "shuffled highest": 1.0,
        }
    )
    assert told.loc[["held-out own", "held-out other", "held-out highest"], "n"].tolist() == [2, 1, 2]
    assert count_of_one_picture(pd.DataFrame(rows)) == 0
    assert count_of_one_picture(pd.DataFrame([*rows[-4:], row("9", "sky", "sky", 1.0, 1.0, "same")])) == 2


# ---- selectivity


def test_classes_are_nouns_of_enough_pictures_split_at_random() -> None:
    said = {f"{number:02d}": {"dog", "sea"} if number < 9 else {"dog"} for number in range(12)}
    (dog,) = split_classes(said, held_out=5)  # the sea is in 9 pictures, not in 10
    assert dog.lemma == "dog"
    assert len(dog.held_out) == 5
    assert sorted(dog.found + dog.held_out) == sorted(said)
    assert split_classes(dict(reversed(said.items())), held_out=5) == (dog,)
    assert split_classes(said, held_out=5, seed=1) != (dog,)
    assert [one.lemma for one in split_classes(said, held_out=4)] == ["dog", "sea"]


def test_a_classes_units_are_those_of_most_found_pictures() -> None:
    ranked = [("a", 1, (0, 5)), ("a", 2, (1, 7)), ("a", 3, (0, 3)), ("a", 4, (0, 2))]
    ranked += [("b", 1, (1, 7)), ("b", 2, (0, 2)), ("b", 3, (0, 3)), ("c", 1, (2, 9))]  # c is held out
    rows = pd.DataFrame(
        [("dog", image, "m", rank, layer, unit) for image, rank, (layer, unit) in ranked],
        columns=["lemma", "image_id", "method", "rank", "layer", "unit"],
    )
    classes = [NounClass("dog", ("a", "b"), ("c",))]
    # twice: 1.7 (mean rank 1.5), then 0.2 and 0.3 (3 each: the lower unit); once: 0.5; never 2.9
    order = (Neuron(1, 7), Neuron(0, 2), Neuron(0, 3), Neuron(0, 5))
    assert class_units(rows, classes, 3) == (ClassUnits("dog", "m", False, order[:3]),)
    assert class_units(rows, classes, 20) == (ClassUnits("dog", "m", False, order),)


def test_values_leave_out_pictures_that_say_the_units_own_noun() -> None:
    classes = [
        NounClass("dog", (), ("a", "b")),
        NounClass("sea", (), ("b", "c")),
        NounClass("cat", (), ("b",)),
        NounClass("sky", (), ("gone",)),  # did not open
    ]
    said = {"a": {"dog"}, "b": {"dog", "sea", "cat"}, "c": {"sea"}}
    read = Activations(
        ("a", "b", "c"), (Neuron(0, 1), Neuron(0, 2), Neuron(1, 0)), np.array([[1, 3, 9], [5, 7, 9], [0, 1, 0.0]])
    )
    units = [ClassUnits("dog", "m", False, (Neuron(0, 2), Neuron(0, 1)))]
    rows = selectivity_rows(classes, [*units, ClassUnits("cat", "m", True, (Neuron(1, 0),))], read, said)
    found = {(row["unit_noun"], row["noun"]): (row["value"], row["share"], row["n_images"]) for row in rows}
    assert found == {
        ("dog", "dog"): (4.0, 1.0, 2),  # ((1 + 3) / 2 + (5 + 7) / 2) / 2
        ("dog", "sea"): (0.5, 0.125, 1),  # of c alone: b says dog, too; and so has the cat no picture left
        ("cat", "dog"): (9.0, 1.0, 1),
        ("cat", "sea"): (0.0, 0.0, 1),
        ("cat", "cat"): (9.0, 1.0, 1),
    }
    silent = selectivity_rows(classes, units, Activations(read.image_ids, read.units, 0 * read.values), said)
    assert [row["share"] for row in silent] == [None, None]


def test_values_are_sizes_of_activations_in_a_plain_pass(
    scored: ScoredRun, tiny: Model, stored: dict[str, pd.DataFrame]
) -> None:
    found = measure_selectivity(scored, METHODS, held_out=1, n_units=4)["selectivity"].to_pandas()
    concept = stored["concept"]
    said = concept[(concept["variant"] == names.ORIGINAL) & concept["target_at"].isna()]
    images = said.groupby("lemma")["image_id"].agg(set)
    assert set(found["noun"]) == {lemma for lemma, ids in images.items() if len(ids) >= 2}
    said_in = said.groupby("image_id")["lemma"].agg(set).to_dict()
    classes = {one.lemma: one for one in split_classes(said_in, 1, scored.run.settings.seed)}
    lemma = sorted(classes)[0]
    top = stored["score"][(stored["score"]["variant"] == names.ORIGINAL) & (stored["score"]["rank"] >= 1)]
    top = top.merge(said[["image_id", "noun", "lemma"]], on=["image_id", "noun"])
    top = top[(top["lemma"] == lemma) & (top["method"] == "contribution")]
    best = top[top["image_id"].isin(classes[lemma].found)].groupby(["layer", "unit"])["rank"].agg(["size", "mean"])
    units = best.sort_values(["size", "mean", "layer", "unit"], ascending=[False, True, True, True]).index[:4]
    sources = stored["image"].set_index("image_id")["source"]
    inputs = tiny.encode([open_image(sources[classes[lemma].held_out[0]])], scored.run.prompt)
    is_picture = (inputs["input_ids"] == tiny.module.config.image_token_index)[0]
    with watched(tiny, lambda one: one.mlp.down_proj, output=False) as seen:
        tiny.module(**inputs)
    expected = np.mean([seen[layer][0, is_picture, unit].abs().mean().item() for layer, unit in units])
    is_own = (found["unit_noun"] == lemma) & (found["noun"] == lemma) & (found["method"] == "contribution")
    (row,) = found[is_own & ~found["is_control"]].itertuples()
    assert row.value == pytest.approx(expected, rel=1e-4)
    assert (row.n_units, row.n_images, row.held_out) == (4, 1, 1)
    assert found["share"].max() == 1
    assert found["share"].min() >= 0
    pictures = measure_selectivity(scored, METHODS, held_out=1, n_units=4)["class_activation"].to_pandas()
    of = (pictures["unit_noun"] == lemma) & (pictures["method"] == "contribution") & ~pictures["is_control"]
    assert pictures[of & pictures["is_own"]]["image_id"].tolist() == list(classes[lemma].held_out)
    assert pictures[of & pictures["is_own"]]["value"].tolist() == pytest.approx([expected], rel=1e-4)
    said_there = [lemma in said_in[one] for one in pictures[of & ~pictures["is_own"]]["image_id"]]
    assert not any(said_there), "pictures that say the noun are not others"


def test_too_few_pictures_make_no_class(scored: ScoredRun) -> None:
    before = shards.finished_shards(scored.path)
    assert len(measure_selectivity(scored, METHODS, held_out=100)["selectivity"]) == 0
    assert shards.finished_shards(scored.path) == before


def test_activations_picture_by_picture_average_to_the_classes_values() -> None:
    classes = [NounClass("dog", ("d",), ("a", "b")), NounClass("sea", (), ("b", "c")), NounClass("cat", (), ("d",))]
    said = {"a": {"dog"}, "b": {"dog", "sea"}, "c": {"sea"}, "d": {"dog", "cat"}}
    read = Activations(("a", "b", "c", "d"), (Neuron(0, 1), Neuron(0, 2)), np.array([[1, 3], [5, 7], [0, 1], [9, 9.0]]))
    units = [ClassUnits("dog", "m", False, (Neuron(0, 2), Neuron(0, 1)))]
    rows = picture_rows(classes, units, read, said)
    found = {row["image_id"]: (row["value"], row["is_own"]) for row in rows}
    assert found == {"a": (2.0, True), "b": (6.0, True), "c": (0.5, False)}, "d says dog: the units were found on it"
    [own] = [row for row in selectivity_rows(classes, units, read, said) if row["noun"] == "dog"]
    assert own["value"] == np.mean([value for value, is_own in found.values() if is_own])


def test_intervals_of_selectivity_are_of_held_out_pictures() -> None:
    """Classes were resampled, where METHODS says pictures."""
    rows = pd.DataFrame(
        [(noun, "m", False, value) for noun, value in (("dog", 2.0), ("dog", 1.0), ("sea", 4.0))],
        columns=["unit_noun", "method", "is_control", "value"],
    )
    of_pictures = [("dog", "1", True, 2.0), ("dog", "2", True, 1.0), ("sea", "2", False, 4.0), ("sea", "1", True, 1.0)]
    pictures = pd.DataFrame(of_pictures, columns=["unit_noun", "image_id", "is_own", "value"])
    told = summarize_selectivity(rows, pictures.assign(method="m", is_control=False)).set_index("what")
    # shares of the largest class: of picture 1 own 1 and .25, of picture 2 own .5 and other 1
    assert told["mean"].to_dict() == pytest.approx({"own": ((1 + 0.25) / 2 + 0.5) / 2, "other": 1.0})
    assert told["n"].to_dict() == {"own": 2, "other": 1}


# ---- command line


def n_with_nouns(stored: dict[str, pd.DataFrame], first: int = 8) -> int:
    """Of the first pictures; a random model does not say a noun of every picture."""
    concept = stored["concept"][stored["concept"]["target_at"].isna()]
    return int(stored["image"].sort_values("source")["image_id"].head(first).isin(concept["image_id"]).sum())


def n_alone(stored: dict[str, pd.DataFrame]) -> int:
    """Nouns that one picture's caption alone says."""
    concept = stored["concept"]
    said = concept[(concept["variant"] == names.ORIGINAL) & concept["target_at"].isna()]
    return int((said.groupby("lemma")["image_id"].transform("nunique") == 1).sum())


def test_the_command_measures_loads_and_says_what(
    cache: Path, capfd: pytest.CaptureFixture[str], stored: dict[str, pd.DataFrame]
) -> None:
    command = words("specificity", "latest", "--cache", cache, "--held-out", 1, "--units", 3)
    capfd.readouterr()
    assert main([*command, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said == said | {
        "n_pictures": n_with_nouns(stored),
        "n_failed": 0,
        "database": "loaded",
        "why_no_classes": "",
    }
    assert set(said["specificity"]) == set(said["selectivity"]) == set(METHODS)
    who, what = ("held-out", "control", "same", "shuffled"), ("own", "other", "highest")
    assert set(said["specificity"]["contribution"]) == {f"{one} {number}" for one in who for number in what}
    assert said["n_of_one_picture"] == n_alone(stored)
    with Store.open(cache) as store:
        found = {name: store.table("latest", name) for name in ("specificity", "selectivity")}
    assert found["selectivity"]["unit_noun"].nunique() == said["n_classes"] >= 2
    assert found["specificity"]["image_id"].nunique() == said["n_pictures"] > 2
    assert main(command) == 0
    out = capfd.readouterr().out
    assert f"{said['n_pictures']} pictures with nouns, {said['n_classes']} classes" in out
    for column in ("held-out other", "control highest", "shuffled highest"):
        assert f"{said['specificity']['attribution'][column]['mean']:.3f}" in out
        assert said["specificity"]["attribution"][column]["low"] is None
    assert "too few for a 95 % interval" in out
    assert "in one picture only" in out


def test_a_trial_leaves_classes_out_and_says_so(
    cache: Path, capfd: pytest.CaptureFixture[str], stored: dict[str, pd.DataFrame]
) -> None:
    assert main(words("specificity", "latest", "--cache", cache, "--limit", 2, "--methods", "contribution")) == 0
    out = capfd.readouterr().out
    assert f"{n_with_nouns(stored, 4)} pictures with nouns, 0 classes" in out  # a whole batch
    assert "--limit leaves them out" in out
    assert main(words("specificity", "latest", "--cache", cache, "--methods", "contribution")) == 0
    assert "no noun is said in 10 pictures" in capfd.readouterr().out


def test_pictures_that_do_not_open_are_failures(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], stored: dict[str, pd.DataFrame]
) -> None:
    (run_path,) = (path for path in (cache / "runs").iterdir() if not path.name.startswith("."))
    gone = tmp_path / "gone.png"
    for batch in ("batch-00000", "batch-00001"):
        tables = shards.read_shard(run_path / batch)
        rows = [row | {"source": str(gone)} for row in tables["image"].to_pylist()]
        shutil.rmtree(run_path / batch)
        moved = tables["image"].from_pylist(rows, schema=tables["image"].schema)
        shards.write_shard(run_path, batch, tables | {"image": moved if batch == "batch-00001" else tables["image"]})
    capfd.readouterr()
    assert main(words("specificity", "latest", "--cache", cache, "--held-out", 1, "--json")) == 1
    said = json.loads(capfd.readouterr().out)
    assert (said["n_pictures"], said["n_failed"]) == (n_with_nouns(stored, 4), 1)  # all of one path
    with Store.open(cache) as store:
        failures = store.table("latest", "failure")
    assert set(failures["stage"]) <= {"specificity", "selectivity"}
    assert (failures["stage"] == "specificity").sum() == 4
    assert set(failures["source"]) == {str(gone)}


def test_the_command_names_what_it_cannot_use(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "no run 'nothing'": ["nothing"],
        "at random": ["latest", "--methods", "random"],
        "no 'contribution-folded' scores": ["latest", "--methods", "contribution-folded"],
        "whole number": ["latest", "--held-out", "0"],
    }
    for message, more in wrong.items():
        capfd.readouterr()
        assert main(words("specificity", *more, "--cache", cache)) == 2
        err = capfd.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_table_of_classes_says_of_how_many_pictures_it_is_and_why_it_has_no_interval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class_means = {what: {"mean": 0.9, "low": np.nan, "high": np.nan, "n": n} for what, n in (("own", 6), ("other", 5))}
    result = {
        "run_id": "ab12",
        "n_pictures": 6,
        "n_of_one_picture": 0,
        "n_failed": 0,
        "specificity": {},
        "n_classes": 2,
        "selectivity": {"contribution": class_means},
        "units": None,
        "seconds": 1.0,
        "database": "loaded",
    }
    _print_result(result, ["contribution"])
    said = capsys.readouterr().out
    assert "on 6 held-out pictures of their class and 5 of others" in said
    assert "5 to 6 pictures are too few for a 95 % interval" in said


def test_no_number_is_printed_as_less_than_nothing(capsys):
    _print_table({"activation": {"own": {"mean": -0.0001, "low": -0.0002, "high": 0.1}}}, ["activation"], ["own"])
    assert "0.000 [0.000, 0.100]" in capsys.readouterr().out
