"""`mmn domains`: rates and importance against plain transformers, groups against the papers' code written out, halves
that resume, runs by tag, and what is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mmn.cli import main
from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.figures.figure import draw
from mmn.images import open_image
from mmn.models.model import Model
from mmn.reading.hooks import each_layer, streaming
from mmn.runs import reopen
from mmn.runs.shards import write_shard
from mmn.store import Store
from mmn.studies.domains import measure as measuring
from mmn.studies.domains.groups import adaptive, by_tokens, dape, la_mu, weighted
from mmn.studies.domains.measure import measure_domains
from mmn.studies.domains.measured import Measured, half_of
from mmn.studies.domains.membership import Asked, find_domains
from mmn.studies.domains.queries import DomainQueries
from mmn.studies.domains.rows import Found, overlap_rows
from mmn.studies.domains.stored import measured_in, runs_of
from mmn.studies.domains.words import EVERY, LA_MU
from mmn.studies.registry import FIGURES
from mmn.studies.tables import TABLES
from mmn.view import View
from tests.pages.filled import fill
from tests.scored import interrupted_at_the_second, run_path_of, tables_of
from tests.test_experts import tiny as tiny_experts
from tests.tiny import build_family

N_LAYERS, M = 3, 48
FOLDERS = Asked("folder")
SCORING = ["--methods", "contribution,random", "--top-k", 20, "--max-new-tokens", 6, "--batch-size", 4]
EVERYWHERE = ["--device", "cpu", "--progress", "none"]


def mmn(*words: object) -> int:
    return main([str(word) for word in (*words, *EVERYWHERE)])


@pytest.fixture(scope="module")
def scored(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of eight pictures in two folders, three in `a` and five in `b`."""
    root = tmp_path_factory.mktemp("domains")
    for number, path in enumerate(sorted(paint(root / "all", 8).iterdir())):
        (root / "pictures" / ("a" if number < 3 else "b")).mkdir(parents=True, exist_ok=True)
        path.rename(root / "pictures" / ("a" if number < 3 else "b") / path.name)
    words = ["score", "--model", checkpoint, "--images", root / "pictures", "--cache", root / "cache"]
    assert mmn(*words, *SCORING) == 0
    return root / "cache"


def measured_by(cache: Path, by: str, half: int | None = None) -> Measured:
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        return store.ask(DomainQueries).measured("latest", by, half)


def plain_act(model: Model, inputs: dict[str, Any]) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """act(gate) of every layer from the module's own input, and transformers' own attention weights."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.mlp.register_forward_pre_hook(
            lambda mlp, args: seen.append(torch.nn.functional.silu(mlp.gate_proj(args[0])))
        )
        for layer in model.module.model.language_model.layers
    ]
    model.module.set_attn_implementation("eager")
    output = model.module(**inputs, output_attentions=True)
    model.module.set_attn_implementation("sdpa")
    for hook in hooks:
        hook.remove()
    return [one[0] for one in seen], output.attentions


def minmax(values: torch.Tensor) -> torch.Tensor:
    return (values - values.min()) / (values.max() - values.min())


@torch.inference_mode()
def test_rates_and_importance_are_those_of_plain_transformers(cache: Path, tiny: Model) -> None:
    scored = reopen.open_run(tiny, run_path_of(cache))
    measure_domains(scored, FOLDERS)
    assert tiny.module.config.text_config._attn_implementation == "sdpa", "what was lent is given back"
    found = measured_by(cache, "folder")
    tables = tables_of(cache, ("image", "caption"))
    tokens = tables["caption"].set_index("image_id")["tokens"]
    active = {(name, token_set): np.zeros((N_LAYERS, M)) for name in "ab" for token_set in ("text", "image")}
    n_tokens = dict.fromkeys(active, 0)
    importance = {token_set: np.zeros((5, N_LAYERS, M)) for token_set in ("text", "image")}
    for picture in tables["image"].itertuples():
        inputs = dict(tiny.encode([open_image(Path(picture.source))], scored.run.prompt))
        said = torch.tensor([list(tokens[picture.image_id])])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], said], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        acts, attentions = plain_act(tiny, inputs)
        is_image = inputs["input_ids"][0] == tiny.module.config.image_token_index
        for token_set, mask in (("text", ~is_image), ("image", is_image)):
            key = Path(picture.source).parent.name, token_set
            n_tokens[key] += int(mask.sum())
            for layer, (act, attention) in enumerate(zip(acts, attentions, strict=True)):
                here, among = act[mask], attention[0].mean(0)[mask][:, mask]
                active[key][layer] += (here > 0).sum(0).numpy()
                keys, queries = among.softmax(0).T @ here, among.softmax(1) @ here
                five = [(here > 0).float().mean(0), here.mean(0), here.max(0).values, keys.sum(0), queries.sum(0)]
                importance[token_set][:, layer] += torch.stack([minmax(one) for one in five]).numpy() / 8
    for name in "ab":
        of = [(name, token_set) for token_set in ("text", "image")]
        rate = sum(active[one] for one in of) / sum(n_tokens[one] for one in of)
        assert np.allclose(found.rates.domains[name], rate, atol=2e-3)  # a value at 0 may round to either side
        assert np.mean(found.rates.domains[name] == rate) > 0.98
    assert found.n_images == {EVERY: 8, "a": 3, "b": 5}
    assert found.n_tokens["image"] == 8 * 64 == sum(n_tokens[name, "image"] for name in "ab")
    for token_set, expected in importance.items():
        for number, name in enumerate(("prob", "mean", "maximum", "attn_k", "attn_q")):
            assert np.allclose(found.rates.scores[token_set][name], expected[number], atol=3e-4), (token_set, name)


@torch.inference_mode()
def test_act_of_a_plain_ffn_is_its_activation_and_hooks_are_gone() -> None:
    model, inputs = build_family("blip-2")
    given: list[torch.Tensor] = []
    hook = model.anatomy.ffn_outs[1].register_forward_pre_hook(lambda _module, args: given.append(args[0]))
    taken: dict[int, torch.Tensor] = {}
    with each_layer(model, lambda layer, acts, _attention: taken.update({layer: acts[0].values})):
        model.module(**inputs)
    hook.remove()
    assert torch.equal(taken[1].flatten(), given[0].flatten())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())


def test_dape_is_the_released_codes_choice() -> None:
    """Its steps one by one, unit by unit: threshold, entropy, the lowest 1 %, every domain above the threshold."""
    rates = np.random.default_rng(0).beta(0.3, 2, (3, 4, 100))
    every = sorted(rates.flatten().tolist())
    bar = every[round(len(every) * 0.95) - 1]
    low = next(unit for unit in range(100) if rates[:, 0, unit].max() < bar)
    rates[:, 0, low] = bar, 0, 0  # of lowest entropy, but at the threshold and not above it
    entropy = {}
    for layer in range(4):
        for unit in range(100):
            p = rates[:, layer, unit]
            q = p / p.sum()
            if (p > bar).any():
                entropy[layer, unit] = -sum(one * np.log(one) for one in q if one > 0)
    lowest = sorted(entropy, key=lambda one: (entropy[one], one))[: round(400 * 0.01)]
    names = ("x", "y", "z")
    found = {group.name: group for group in dape(dict(zip(names, rates, strict=True)))}
    for number, name in enumerate(names):
        expected = [Neuron(*one) for one in lowest if rates[number][one] > bar]
        assert list(found[name].units) == expected
        assert np.allclose(found[name].scores, [-entropy[one.layer, one.unit] for one in expected])
    assert sum(len(group.units) for group in found.values()) >= 4
    with pytest.raises(UsageError, match="DAPE compares domains"):
        dape({"x": rates[0]})


def test_miners_choices_by_hand() -> None:
    """Of 2 × 50 units K = 2: LA_MU gives each set its best one, adaptive the best sums to whom they are higher for."""
    text, image = np.zeros((2, 50)), np.zeros((2, 50))
    text[0, 3], image[0, 3] = 0.9, 0.8
    image[1, 7], text[1, 8] = 1.0, 0.6
    both = {"text": text, "image": image}
    assert [group.units for group in la_mu(both)] == [(Neuron(0, 3),), (Neuron(1, 7),)]
    assert [group.units for group in adaptive(both)] == [(Neuron(0, 3),), (Neuron(1, 7),)]
    text[1, 7] = 1.0  # equal: the first one has it
    assert [group.units for group in adaptive(both)] == [(Neuron(1, 7), Neuron(0, 3)), ()]
    five = {
        name: np.full((1, 1), float(value))
        for name, value in zip(("prob", "mean", "maximum", "attn_k", "attn_q"), (9, 1, 3, 10, 9), strict=True)
    }
    assert weighted({"text": five})["text"] == 0.25 * 1 + 0.25 * 3 + 0.5 * 10
    three = {name: five[name] for name in ("prob", "mean", "maximum")}
    assert weighted({"text": three})["text"] == 0.5 * 1 + 0.5 * 3


def test_units_by_tokens_are_those_above_95_percent_of_each_set() -> None:
    text, image = np.zeros((1, 100)), np.zeros((1, 100))
    text[0, :5], image[0, 2:7] = [0.5, 0.6, 0.7, 0.8, 0.9], 0.4
    found = {group.name: [one.unit for one in group.units] for group in by_tokens(text, image)}
    assert found == {"visual": [5, 6], "text": [1, 0], "multi-modal": [2, 3, 4]}


def test_an_interrupted_measurement_goes_on_where_it_was(cache: Path, tiny: Model, monkeypatch) -> None:
    scored = reopen.open_run(tiny, run_path_of(cache))
    with interrupted_at_the_second(monkeypatch, measuring, "_half"):
        measure_domains(scored, FOLDERS)
    done: list[str] = []
    with monkeypatch.context() as counting:
        count = measuring._count

        def counted(work: Any, image_id: str) -> Any:
            done.append(image_id)
            return count(work, image_id)

        counting.setattr(measuring, "_count", counted)
        names = measure_domains(scored, FOLDERS)
    second = [one for one in tables_of(cache, ("image",))["image"]["image_id"] if half_of(one) == 1]
    assert sorted(done) == sorted(second) != []
    assert names == measure_domains(scored, FOLDERS)
    parts = [measured_by(cache, "folder", half) for half in (0, 1)]
    assert sum(part.n_images[EVERY] for part in parts) == 8


def test_without_attention_weights_three_measures_are_left_and_it_is_said(
    cache: Path, tiny: Model, monkeypatch
) -> None:
    scored = reopen.open_run(tiny, run_path_of(cache))
    monkeypatch.setattr(streaming, "_attending", lambda _layer: iter(()))
    told: list[str] = []
    measure_domains(scored, FOLDERS, progress=lambda now: told.append(now.message))
    assert any("attn_k and attn_q are not there" in one and "hands out no attention weights" in one for one in told)
    found = measured_by(cache, "folder")
    assert set(found.rates.scores["image"]) == {"prob", "mean", "maximum"}
    with Store.open(cache) as store:
        asked = draw(FIGURES["domain-layers"], store, View("latest", by="folder", rule=LA_MU))
    assert "0.5 mean, 0.5 maximum" in " ".join(asked.chart.title.subtitle)


def test_overlap_is_counted_by_hand_on_the_other_half(cache: Path, tiny: Model) -> None:
    measure_domains(reopen.open_run(tiny, run_path_of(cache)), FOLDERS)
    tables = tables_of(cache, ("score", "concept"))
    with Store.open(cache) as store:
        what = Found(store, store.run("latest"), "folder", LA_MU)
        rows = overlap_rows(what, 20).set_index(["group", "method"])
        halves = {half: {one.name: set(one.units) for one in found} for half, found in what.of_halves.items()}
    scores = tables["score"].query("method == 'contribution' and 1 <= rank <= 20 and variant == 'original'")
    by_picture: dict[str, list[float]] = {}
    for (image_id, _noun), top in scores.groupby(["image_id", "noun"]):
        group = halves[1 - half_of(image_id)]["image"]
        shared = sum(Neuron(one.layer, one.unit) in group for one in top.itertuples())
        by_picture.setdefault(image_id, []).append(shared / 20)
    expected = np.mean([np.mean(shares) for shares in by_picture.values()])
    assert rows.loc[("image", "contribution"), "mean"] == pytest.approx(expected)
    assert rows.loc[("image", "random"), "n"] == len(by_picture)


def test_groups_are_saved_and_zeroed_by_the_degradation_study(cache: Path, capsys) -> None:
    """One rule, two pictures; the control has as many units in each layer; what is said is what the figure draws."""
    words = ("domains", "latest", "--by", "folder", "--rules", "la-mu", "--ablate", "--ablate-limit", 2, "--draws", 1)
    assert mmn(*words, "--cache", cache, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["group"] for one in told["groups"]] == ["text", "image"]
    effect = tables_of(cache, ("effect", "unit_set"))
    assert {one.split("@")[0].removeprefix("set:") for one in effect["unit_set"]["name"]} == set(told["sets"])
    zeroed = effect["effect"][effect["effect"]["k"] > 0]
    mine = zeroed[zeroed["method"].str.contains(told["sets"][0]) & (zeroed["selection"] == "top")]
    left = {row["selection"]: row for row in told["groups"][0]["left"]}
    assert left["top"]["n"] == 2
    assert len(left) == len(told["groups"][0]["left"]) == 2, "the whole group, and its control"
    with Store.open(cache) as store:
        whole = store.table("latest", "effect").query("k == 0 and selection == 'top'")
        whole = whole[whole["method"] == mine["method"].iloc[0]]
    ratio = mine.groupby("image_id")["prob"].mean().sum() / whole.groupby("image_id")["prob"].mean().sum()
    assert left["top"]["mean"] == pytest.approx(ratio)


def test_tags_compare_runs_of_one_model(tmp_path: Path) -> None:
    """Two runs of the same weights, a tag each: the domains of either are both, from the database and from shards."""
    runs = {fill(tmp_path, name * 16): tag for name, tag in (("3", "driving"), ("5", "medicine"))}
    paths = [tmp_path / "runs" / run_id for run_id in runs]
    active = np.random.default_rng(0).integers(0, 50, (2, 6, 512))
    for path, counts, tag in zip(paths, active, runs.values(), strict=True):
        of = {"measured": tag, "grouped_by": "tag", "half": 0, "n_images": 6, "n_tokens": 100}
        rows = [
            {**of, "domain": domain, "token_set": token_set, "layer": layer, "active": counts[layer].tolist()}
            for domain in (EVERY, tag)
            for token_set in ("text", "image")
            for layer in range(6)
        ]
        empty = TABLES["modality_score"].empty_table()
        rates = pa.Table.from_pylist(rows, schema=TABLES["domain_rate"])
        write_shard(path, "domains-half-0-aa", {"domain_rate": rates, "modality_score": empty})
    stored = measured_in(paths[0], ["domains-half-0-aa"], runs_of([tmp_path / "runs"], "f" * 16, paths[0].name))
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        found = store.ask(DomainQueries).measured(paths[0].name, "tag")
        assert len(draw(FIGURES["domain-layers"], store, View(paths[0].name, by="tag")).rows.data)
    for one in (stored, found):
        assert one.n_images == {EVERY: 12, "driving": 6, "medicine": 6}
        assert np.allclose(one.rates.domains["medicine"], active[1] / 100)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--by", "noun", "--names", "unicorn"], "no noun 'unicorn' with 2 pictures in this run; there are"),
        (["--by", "folder", "--names", "c"], "no folder 'c' with 2 pictures in this run; there are b, a"),
        (["--by", "tag"], "this run has no tag: mmn label RUN --tags"),
        (["--rules", "magic"], "--rules magic: there are dape, la-mu, adaptive, tokens"),
    ],
)
def test_what_is_not_there_is_refused_by_name(words: list[str], says: str, scored: Path, capfd) -> None:
    assert mmn("domains", "latest", *words, "--cache", scored) == 2
    said = capfd.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1


def test_models_that_it_is_not_for_are_refused_by_name(scored: Path, tiny: Model) -> None:
    own_experts, _ = tiny_experts("ernie4_5_vl_moe")
    run = reopen.open_run(tiny, run_path_of(scored))
    cases = ((own_experts, "experts of their own"), (build_family("blip-2 on t5")[0], "no image tokens"))
    for model, says in cases:
        with pytest.raises(UsageError, match=says):
            measure_domains(reopen.ScoredRun(model, run.run, run.path), FOLDERS)


def test_one_folder_is_no_domain(tiny: Model, scored: Path) -> None:
    run = reopen.open_run(tiny, run_path_of(scored))
    examples = list(measuring._read(run).examples.values())[:3]
    with pytest.raises(UsageError, match="--by folder needs pictures in several"):
        find_domains(FOLDERS, examples, {})
