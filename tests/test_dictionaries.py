"""Concept dictionaries and shift: what is planted is found, vectors are the model's own, chance is chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmn.cli import main
from mmn.core import Example
from mmn.errors import UsageError
from mmn.figures.figure import draw
from mmn.images.opening import read_header
from mmn.models.adapters import find_anatomy
from mmn.models.model import Model
from mmn.reading.nouns import lemma_of
from mmn.runs import shards
from mmn.store import Store
from mmn.studies.dictionaries import measure, solvers
from mmn.studies.dictionaries.grounding import overlap, words_of
from mmn.studies.dictionaries.measure import gram, held_out, n_concepts
from mmn.studies.dictionaries.vectors import (
    FINAL_NORM,
    UNITS,
    checked_sites,
    column_lengths,
    pictures_of_lemmas,
    read_vectors,
)
from mmn.studies.registry import FIGURES
from mmn.studies.shift import measure as shift
from mmn.studies.shift.deltas import left_out
from mmn.studies.shift.matching import assign
from mmn.studies.shift.states import Wanted
from mmn.view import View
from tests.scored import run_path_of, tables_of

SITES = (FINAL_NORM, "layer-0", "layer-2", UNITS)


def planted(n: int = 90, d: int = 40, k: int = 4, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors made of k directions of length 1, two of them in each: vectors, directions, coefficients."""
    rng = np.random.default_rng(3)
    concepts = np.linalg.qr(rng.normal(size=(d, k)))[0].T
    codes = np.zeros((n, k))
    for row in codes:
        row[rng.choice(k, 2, replace=False)] = rng.uniform(20, 60, 2)
    return codes @ concepts + noise * rng.normal(size=(n, d)), concepts, codes


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    return np.abs(one @ other.T / lengths)


def test_planted_concepts_are_found_and_random_directions_are_not_them() -> None:
    z, concepts, codes = planted()
    found = solvers.semi_nmf(z, 4, seed=0)
    match = cosines(found.concepts, concepts)
    assert (match.max(1) > 0.999).all()
    assert sorted(match.argmax(1)) == [0, 1, 2, 3]
    ours = found.coefficients(z)[:, match.argmax(0)]
    assert np.abs(ours - codes).max() < 3.5, "of 20 to 60: alpha takes 1 from each, the noise little"
    drawn = np.random.default_rng(0).normal(size=(200, z.shape[1]))
    assert cosines(drawn, concepts).mean() == pytest.approx(np.sqrt(2 / (np.pi * z.shape[1])), rel=0.1)


def test_semi_nmf_stands_where_no_change_of_either_factor_helps() -> None:
    """Against autograd: the gradient of the loss in V and U, with their bounds, is 0; and against scikit-learn 1.9.1,
    whose DictionaryLearning (fit cd, positive_code, alpha 1), begun elsewhere, ends at 2919.79 on these vectors.
    """
    rng = np.random.default_rng(0)
    z = rng.gamma(1, 1, (60, 5)) @ rng.normal(size=(5, 30)) * 2 + rng.normal(size=(60, 30)) * 0.5
    found = solvers.semi_nmf(z, 5, seed=0)
    v = torch.tensor(found.coefficients(z), requires_grad=True)
    u = torch.tensor(found.concepts, requires_grad=True)
    loss = 0.5 * ((torch.tensor(z) - v @ u) ** 2).sum() + v.sum()
    loss.backward()
    assert v.grad is not None
    assert u.grad is not None
    scale = float(np.abs(z @ found.concepts.T).max())
    assert (v.detach() >= 0).all()
    assert v.grad[v > 0].abs().max() < 1e-3 * scale
    assert v.grad[v == 0].min() > -1e-3 * scale, "a coefficient of 0 would help if it were less"
    lengths = u.detach().norm(dim=1)
    assert torch.allclose(lengths, torch.ones(5, dtype=torch.float64), atol=1e-6)
    inward = (u.grad * u.detach()).sum(1, keepdim=True) * u.detach()
    assert (u.grad - inward).norm() < 5e-3 * u.grad.norm(), "only longer concepts would help"
    assert solvers.semi_nmf_loss(z, found.coefficients(z), found.concepts) == pytest.approx(loss.item())
    assert loss.item() == pytest.approx(2919.79, rel=1e-5)


def test_the_other_dictionaries_by_definition() -> None:
    z, _, _ = planted(noise=1.0)
    axes = solvers.pca(z, 4, 0)
    values, vectors = np.linalg.eigh(np.cov(z.T))
    assert np.diag(cosines(axes.concepts, vectors[:, ::-1][:, :4].T)) == pytest.approx(1, abs=1e-9)
    assert axes.coefficients(z).var(0, ddof=1) == pytest.approx(values[::-1][:4])
    longest = solvers.simple(z, 3, 0)
    assert longest.concepts == pytest.approx(z[np.argsort(-np.linalg.norm(z, axis=1))[:3]])
    assert longest.coefficients(z)[:, 1] == pytest.approx(1 / (1 + np.linalg.norm(z - longest.concepts[1], axis=1)))
    groups = np.repeat(np.eye(3, 8) * 50, 20, axis=0) + np.random.default_rng(1).normal(size=(60, 8))
    centres = solvers.k_means(groups, 3, 0).concepts
    means = np.stack([groups[start : start + 20].mean(0) for start in (0, 20, 40)])
    assert centres[np.argsort(-centres @ np.eye(8, 3), axis=0)[0]] == pytest.approx(means)
    own = solvers.explained(groups, solvers.k_means(groups, 3, 0), groups.mean(0))
    assert own == pytest.approx(
        1 - ((groups - means.repeat(20, 0)) ** 2).sum() / ((groups - groups.mean(0)) ** 2).sum()
    )


@pytest.mark.parametrize("kind", solvers.KINDS)
def test_vectors_of_any_width_are_solved_in_their_span(kind: str) -> None:
    z, _, _ = planted(n=20, d=400, noise=0.5)
    coordinates, axes = solvers.in_span(gram(torch.from_numpy(z).float()))
    assert coordinates @ axes @ z == pytest.approx(z, abs=1e-4)
    whole, spanned = solvers.KINDS[kind](z, 3, 0), solvers.KINDS[kind](coordinates, 3, 0)
    assert np.diag(cosines(spanned.concepts @ axes @ z, whole.concepts)) == pytest.approx(1, abs=1e-4)


def test_few_pictures_have_few_concepts_and_a_quarter_is_held_out() -> None:
    assert [n_concepts(20, n) for n in (9, 30, 100, 500)] == [2, 6, 20, 20]
    ids = [f"{n}" for n in range(40)]
    is_test = held_out(ids, 0)
    assert is_test.sum() == 10
    assert {one for one, held in zip(ids, is_test, strict=True) if held} == {
        one for one, held in zip(ids[::-1], held_out(ids[::-1], 0), strict=True) if held
    }
    assert overlap([("a", "b"), ("b",), ()]) == pytest.approx((1 / 2 + 1) / 6)


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--device", "cpu", "--progress", "none"]


@pytest.fixture(scope="module")
def scored(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of 24 pictures in batches of 10."""
    folder = paint(tmp_path_factory.mktemp("dictionaries") / "pictures", 24)
    cache = folder.parent / "cache"
    scoring = ["--methods", "contribution", "--top-k", 2, "--max-new-tokens", 12, "--batch-size", 10, "--cache", cache]
    assert main(words("score", "--model", checkpoint, "--images", folder, *scoring)) == 0
    return cache


def frequent(cache: Path) -> str:
    """The noun that most captions say."""
    return next(iter(pictures_of_lemmas(run_path_of(cache))))


def test_vectors_are_the_models_own_states_at_the_noun(tiny: Model, scored: Path) -> None:
    """Against plain transformers, one picture and one prefix at a time, without our hooks or batches."""
    from mmn.images import open_image

    run_path = run_path_of(scored)
    run, _ = shards.read_run(run_path)
    noun = frequent(scored)
    pictures = pictures_of_lemmas(run_path)[noun].first(3)
    found = read_vectors(tiny, run.prompt, run_path, pictures, SITES, lambda _n: None)
    tables = tables_of(scored, ("caption", "concept"))
    said = tables["concept"].query("lemma == @noun and variant == 'original'").sort_values("position")
    decoder = tiny.module.model.language_model
    for row, example in enumerate(found.examples):
        position = int(said[said["image_id"] == example.image_id]["position"].iloc[0])
        tokens = list(tables["caption"].set_index("image_id")["tokens"][example.image_id])[:position]
        inputs = tiny.encode([open_image(Path(example.source))], run.prompt)
        ids = torch.cat([inputs["input_ids"], torch.tensor([tokens], dtype=torch.long)], dim=1)
        more = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        activations: list[torch.Tensor] = []

        def keep(_module: Any, given: Any, to: list[torch.Tensor] = activations) -> None:
            to.append(given[0][0, -1])

        handles = [layer.mlp.down_proj.register_forward_pre_hook(keep) for layer in decoder.layers]
        output = tiny.module(**inputs | more, output_hidden_states=True)
        for handle in handles:
            handle.remove()
        states = [state[0, -1] for state in output.hidden_states]
        close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
        assert torch.allclose(found.values[FINAL_NORM][row], states[-1], **close)
        assert torch.allclose(found.values["layer-0"][row], states[1], **close)
        assert torch.allclose(decoder.norm(found.values["layer-2"][row]), states[-1], **close)
        lengths = [layer.mlp.down_proj.weight.norm(dim=0) for layer in decoder.layers]
        written = torch.cat([a * length for a, length in zip(activations, lengths, strict=True)])
        assert torch.allclose(found.values[UNITS][row], written, **close)
    logits = tiny.module.lm_head(found.values[FINAL_NORM])
    (first, *_) = words_of(tiny, found.values[FINAL_NORM], FINAL_NORM)
    order = [tiny.tokenizer.decode([token]).strip().lower() for token in logits[0].argsort(descending=True)[:50]]
    assert list(first.words) == [word for word in dict.fromkeys(order) if word in first.words]
    assert first.words


def test_the_command_measures_resumes_and_is_shown(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noun = frequent(cache)
    line = words("dictionaries", "latest", "--noun", noun, "--cache", cache, "--json", "--k", 3)
    assert main(line) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nouns"] == [noun]
    assert len(told["dictionaries"]) == 8
    tables = tables_of(cache, ("dictionary", "dictionary_concept", "dictionary_test"))
    n = len(pictures_of_lemmas(run_path_of(cache))[noun].image_ids)
    assert set(tables["dictionary"]["n_fit"] + tables["dictionary"]["n_test"]) == {n}
    concepts = tables["dictionary_concept"]
    assert concepts.groupby("dictionary")["led"].sum().to_numpy() == pytest.approx(1)
    units = concepts[concepts["dictionary"].str.contains("units")]
    assert set(units["layers"].map(len)) == {10}
    assert set(map(len, concepts[~concepts["dictionary"].str.contains("units")]["direction"])) == {32}
    tests = tables["dictionary_test"]
    assert tests["value"].between(0, 1).all()
    assert tests.groupby("dictionary")["random"].mean().between(0, 1).all()
    draws_what_was_measured(cache)
    before = shards.finished_shards(run_path_of(cache))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measure, "read_vectors", lambda *_given: pytest.fail("read again"))
        assert main(line) == 0
    assert shards.finished_shards(run_path_of(cache)) == before


def draws_what_was_measured(cache: Path) -> None:
    with Store.open(cache) as store:
        run = store.runs().iloc[0]["run_id"]
        drawn = draw(FIGURES["dictionary-concepts"], store, View(run=run))
        assert drawn.rows.data["led_test"].sum() == pytest.approx(1)
        with pytest.raises(UsageError, match="--dictionary x: measured were semi-nmf"):
            draw(FIGURES["dictionary-concepts"], store, View(run=run, dictionary="x"))
        with pytest.raises(UsageError, match="has no dictionaries of zeppelin"):
            draw(FIGURES["dictionaries"], store, View(run=run, concepts=("zeppelin",)))


def test_the_nouns_own_forms_are_no_candidates_and_words_are_compared_with_the_rest() -> None:
    from mmn.metrics import Lexical

    rated = measure._rate_texts(Lexical(), "dog", ("a dog on the grass.",), [("dog", "dogs"), ("cat", "grass")])
    assert rated == [0.0, 1.0]
    assert lemma_of("dogs") == "dog"


@dataclass(frozen=True)
class Lengths:
    """An image metric: the picture's width and the letters of the text."""

    name: str = "lengths-v0"

    def compare_images(self, texts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        return [1000.0 * image.width + len(text) for text, image in zip(texts, images, strict=True)]


def test_an_image_metric_is_given_the_picture_and_the_words_as_the_paper_puts_them(pictures: Path) -> None:
    source = str(sorted(pictures.iterdir())[0])
    example = Example(read_header(Path(source)).image_id, source, (source,), 120, 100, ("a dog.",))
    ((name, rate),) = measure._ratings([Lengths()], "dog", example, "a dog.", ("a dog.",))
    assert name == "lengths-v0:image"
    assert rate([("sea", "sand"), ()]) == [120_000.0 + len("A photo is described by the words sea, sand."), 120_035.0]


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--noun", "zeppelin"], "0 captions of the run say 'zeppelin'"), (["--kind", "nmf"], "there is no 'nmf'")],
)
def test_bad_input_is_refused_in_one_line(more: list[str], says: str, scored: Path, capsys) -> None:
    assert main(words("dictionaries", "latest", "--cache", scored, *more)) == 2
    assert says in capsys.readouterr().err


def test_a_layer_that_there_is_not_is_refused(tiny: Model) -> None:
    with pytest.raises(UsageError, match="has no layer 9: its layers are 0–2"):
        checked_sites(tiny, ("residual",), 9)


def test_units_of_experts_are_refused_by_name_and_their_residual_is_not() -> None:
    from tests.test_experts import tiny as tiny_mixture

    mixture, _ = tiny_mixture("qwen3_vl_moe")
    with pytest.raises(UsageError, match="a dictionary of units is not there for mixtures of experts"):
        checked_sites(mixture, ("units",), None)
    assert checked_sites(mixture, ("residual",), 1) == ("layer-1",)


def test_the_assignment_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (4, 4), (5, 6), (6, 6)):
        for _ in range(20):
            cost = rng.normal(size=(n, m))
            found = assign(cost)
            assert len(set(found)) == n
            best = min(cost[range(n), list(one)].sum() for one in permutations(range(m), n))
            assert cost[range(n), found].sum() == pytest.approx(best)


@pytest.fixture(scope="module")
def steady(tiny: Model, scored: Path) -> tuple[int, torch.Tensor]:
    """The unit of the last layer whose activation varies least for its size, and its activations at the noun."""
    run, _ = shards.read_run(run_path_of(scored))
    pictures = pictures_of_lemmas(run_path_of(scored))[frequent(scored)]
    found = read_vectors(tiny, run.prompt, run_path_of(scored), pictures, (UNITS,), lambda _n: None)
    lengths = column_lengths(tiny)
    last = (found.values[UNITS].unflatten(1, lengths.shape) / lengths)[:, -1]
    unit = int((last.mean(0).abs() / last.std(0)).argmax())
    return unit, last[:, unit]


def test_a_planted_change_of_one_unit_is_found(tiny: Model, cache: Path, steady: tuple[int, torch.Tensor]) -> None:
    """The other model is the first one with one column of the last W_out replaced: all that follows is known."""
    unit, a = steady
    changed = deepcopy(tiny.module)
    column = changed.model.language_model.layers[-1].mlp.down_proj.weight
    added = 40 * torch.randn(len(column), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        column[:, unit] += added
    facts = replace(tiny.facts, fingerprint="changed")
    family = tiny.family
    edited = Model(changed, tiny.processor, family, find_anatomy(changed, family), facts)
    run_path, noun = run_path_of(cache), frequent(cache)
    run, _ = shards.read_run(run_path)
    other = replace(run, run_id="00ff00ff00ff00ff", model=facts)
    wanted = Wanted(layer=2, k=3)
    given: Any = (run_path, lambda: tiny, other, run_path, lambda: edited, (noun,), wanted)
    assert shift.measure_shift(*given) == (noun,)
    tables = tables_of(cache, ("shift", "shift_concept", "shift_picture", "shift_layer", "shift_unit"))
    about, best = tables["shift"].iloc[0], tables["shift_unit"].iloc[0]
    assert about["n_columns_changed"] == 1
    assert len(tables["shift_unit"]) == 1, "no other unit writes anything else"
    assert (best["layer"], best["unit"]) == (2, unit)
    assert best["written"] == pytest.approx(float(a.mean().abs() * added.norm()), rel=1e-3)
    assert best["noise"] < best["written"]
    assert best["activation"] == pytest.approx(best["activation_other"], rel=1e-4)
    layers = tables["shift_layer"].groupby("layer")["change"].mean()
    assert layers[[0, 1]].to_numpy() == pytest.approx(0)
    assert layers[2] > 0
    pictures = tables["shift_picture"]
    gains = pictures[["cosine_shifted", "cosine_random"]].sub(pictures["cosine"], axis=0).mean()
    assert gains["cosine_shifted"] > 0.05
    assert gains["cosine_shifted"] > gains["cosine_random"] + 0.05
    concepts = tables["shift_concept"]
    assert (concepts["cosine_shifted"] > concepts["cosine"]).all()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shift, "read_first", lambda *_given: pytest.fail("read again"))
        patched.setattr(shift, "read_model", lambda *_given: pytest.fail("read again"))
        assert shift.measure_shift(*given) == (noun,)
    with pytest.raises(UsageError, match=r"both of .* nothing was changed"):
        shift.measure_shift(run_path, lambda: tiny, run, run_path, lambda: tiny)


def test_a_picture_is_left_out_of_its_own_delta() -> None:
    """By hand: three states of one concept, of which the third moves elsewhere; and a concept of one has no other."""
    z = np.array([[1.0, 0, 0], [1, 0.1, 0], [1, 0, 0.1], [0, 0, 5]])
    after = z + np.array([[0, 1.0, 0], [0, 1, 0], [0, 0, 3], [1, 1, 1]])
    own = np.array([0, 0, 0, 1])
    deltas = np.stack([(after - z)[own == j].mean(0) for j in (0, 1)])
    rows = dict(left_out(own, deltas, z, after, 1.0, 0))
    assert list(rows) == [0, 1, 2]
    moved = z[2] + np.array([0, 1.0, 0])  # the mean delta of the first two
    assert rows[2]["cosine_shifted"] == pytest.approx(
        moved @ after[2] / np.linalg.norm(moved) / np.linalg.norm(after[2])
    )
