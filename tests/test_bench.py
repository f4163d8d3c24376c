"""The benchmark: planted units do what they should, rankings are judged as by hand, and the scale has its two ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmn.cli import BAD_INPUT, main
from mmn.core import Neuron
from mmn.errors import ModelError, UnsupportedModelError, UsageError
from mmn.figures.figure import draw
from mmn.figures.replay import redrawn
from mmn.figures.saving import rows_recipe
from mmn.images import list_source
from mmn.models.adapters import norms
from mmn.models.deltas import checksum
from mmn.models.gates import readers
from mmn.models.loading import load_model
from mmn.reading.hooks import hold
from mmn.reading.hooks.streams import count_passes
from mmn.store import Store
from mmn.studies.bench import planting, words
from mmn.studies.bench.command import planted_elsewhere
from mmn.studies.bench.detectors import Site
from mmn.studies.bench.judging import of_planted
from mmn.studies.bench.kept import Kept, Soil
from mmn.studies.bench.measure import SUBMISSION, Asked, Bench, checked_methods
from mmn.studies.bench.pictures import PROTOCOL, split
from mmn.studies.bench.planting import nearest_to_zero, plant
from mmn.studies.bench.rankings import Ranking, average_ranks, correlation
from mmn.studies.bench.result import MEASURES, ROLE_WORDS, Result, keep, model_of, read, shipped, summarise, write
from mmn.studies.bench.roles import ROLES, WANTED, Planted
from mmn.studies.bench.submission import COLUMNS, read_submission
from mmn.studies.bench.told import of_objects
from mmn.studies.bench.verify import Evidence, area_under_roc, verify
from mmn.studies.bench.yardstick import effects, read_again
from mmn.studies.registry import FIGURES
from mmn.units.masks import open_masks
from mmn.view import View

ROOT = Path(__file__).parents[1]
SMALL = Asked(n_nouns=1, n_judged=3, n_built=18, n_sampled=16)
N, M = 8, 384  # the specimen's


@pytest.fixture(scope="module")
def specimen():
    torch.set_num_threads(1)
    return load_model("specimen", "float32", "cpu")


@pytest.fixture(scope="module")
def bench(specimen, tmp_path_factory) -> Bench:
    return Bench.prepare(specimen, SMALL, tmp_path_factory.mktemp("bench"), lambda _progress: None)


def test_a_ranking_s_numbers_are_those_counted_by_hand():
    ranking = Ranking(np.array([4, 2, 0]), 6)  # of 6 units; 1, 3 and 5 share places 4 to 6
    assert list(ranking.places) == [3, 5, 2, 5, 1, 5]
    assert ranking.recall([4, 0, 3], 2) == pytest.approx(1 / 3)
    assert ranking.recall_from_end([0], 1) == 1
    assert (ranking.place(4), ranking.place(1)) == (0, 0.8)
    assert np.isnan(ranking.recall([], 2))
    assert ranking.overlap(Ranking(np.array([2, 5, 4]), 6), 2) == 0.5
    assert list(average_ranks(np.array([3.0, 1.0, 3.0, 7.0]))) == [2.5, 1, 2.5, 4]
    # ranks 1 2 3 4 against 2 1 4 3: 1 − 6·Σd²/(n(n²−1)) = 1 − 24/60
    assert correlation(np.array([1.0, 2, 3, 4]), np.array([20.0, 10, 40, 30])) == pytest.approx(0.6)
    assert ranking.agreement(np.array([4, 2, 0]), np.array([9.0, 5.0, 1.0])) == 1
    assert area_under_roc(np.array([1.0, 2, 3, 2]), np.array([False, True, True, False])) == pytest.approx(3.5 / 4)


def test_one_end_of_the_scale_is_the_planted_units_and_the_other_is_chance():
    by_role = {role.name: place * 7 for place, role in enumerate(ROLES)}
    n = 400
    wanted = [by_role[role.name] for role in WANTED]
    others = [unit for unit in range(n) if unit not in by_role.values()]
    best = of_planted(by_role, Ranking(np.array([*wanted, *others, by_role["suppressor"]]), n))
    assert (best["recall@3"], best["recall@1%"], best["decoys@1%"], best["suppressor@1%"]) == (1, 1, 0, 1)
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame([of_planted(by_role, Ranking(rng.permutation(n), n)) for _ in range(1500)]).mean()
    assert drawn["recall@1%"] == pytest.approx(0.01, abs=0.006)  # four standard deviations of so many draws
    assert drawn["recall@10%"] == pytest.approx(0.1, abs=0.018)
    assert drawn["place writer"] == pytest.approx(0.5, abs=0.03)


def test_pictures_are_split_by_hash_and_none_is_on_both_sides():
    examples = list_source("gallery").examples
    masks = open_masks("gallery", examples)
    found = split(examples, masks, 2, 3, 6)
    again = split(examples[::-1], masks, 2, 3, 6)
    assert (found.nouns, found.judged, found.built) == (again.nouns, again.judged, again.built)
    moved = [replace(one, source=f"/elsewhere/{number}") for number, one in enumerate(examples)]
    assert split(moved, masks, 2, 3, 6).identity == found.identity, "what was found is not lost to a folder that moves"
    assert not {one.image_id for one in found.judged} & {one.image_id for one in found.built}
    assert all(any(noun in masks.find(one) for noun in found.nouns) for one in found.judged)
    with pytest.raises(
        UsageError, match=r"too few pictures of one object: \d+ are needed of each of 3 .*, and there are \w+ in \d+, "
    ):
        split(examples[:20], masks, 3, 9, 9)


def test_planted_units_do_what_their_roles_say_and_the_model_itself_is_left_alone(specimen, bench):
    before = checksum(specimen)
    verified = {one.planted.role: one for one in bench.verified}
    assert checksum(specimen) == before != checksum(bench.model)
    assert bench.model.facts.fingerprint != specimen.facts.fingerprint
    assert set(verified) == {role.name for role in ROLES}
    assert all(one.holds for one in verified.values()), [(one.planted, one.why) for one in verified.values()]
    writer, silent = verified["writer"].planted.unit, verified["silent"].planted.unit
    said = [(told, told.saying(bench.split.nouns[0])) for told in bench.pictures]
    y, without, unmoved = (
        np.array([logit_without(bench.model, told, concept, unit) for told, concept in said])
        for unit in (None, writer, silent)
    )
    assert (y - without).mean() == pytest.approx(verified["writer"].effect, abs=1e-3)
    assert y == pytest.approx(unmoved, abs=0.05)


def test_planted_units_that_fail_are_told_before_any_other_is_measured(specimen, bench, tmp_path, monkeypatch):
    """In the specimen itself nothing is planted: units of these numbers do not do what their roles say."""
    sizes = []

    def counted_effects(replayed, told, concepts, units):
        sizes.append(len(units))
        return effects(replayed, told, concepts, units)

    monkeypatch.setattr("mmn.studies.bench.measure.effects", counted_effects)
    bare = replace(bench, model=specimen, kept=Kept(tmp_path))
    bare.__dict__["pictures"] = bench.pictures[:2]
    with pytest.raises(ModelError, match="planted units do not do what they should"):
        _ = bare.verified
    assert sizes == [len(bench.soil.planted)] * 2


def test_a_result_that_ships_without_planted_units_is_told_first():
    assert "--without all" in planted_elsewhere("specimen-smollm", Asked())
    assert planted_elsewhere("specimen-smollm", Asked(without=tuple(ROLE_WORDS))) == ""
    assert planted_elsewhere("specimen", Asked()) == ""
    assert planted_elsewhere("a model of nobody", Asked()) == ""


def logit_without(model, told, concept, unit) -> float:
    """By plain transformers, with the unit's column of W_out set to 0."""
    inputs = told.whole(model)
    if unit is None:
        with torch.inference_mode():
            return float(model.module(**inputs).logits[0, told.at(concept), concept.token_id])
    column = model.anatomy.w_out(unit.layer)[:, unit.unit]
    kept = column.detach().clone()
    try:
        with torch.no_grad():
            column.zero_()
        return logit_without(model, told, concept, None)
    finally:
        with torch.no_grad():
            column.copy_(kept)


def test_effects_everywhere_are_those_of_a_column_of_zeros(bench):
    told = bench.pictures[0]
    concept = of_objects(told, 1)[0]
    units = [bench.soil.planted[0].unit, bench.soil.planted[2].unit, Neuron(5, 17)]
    found = effects(read_again(bench.model, told), told, [concept], units)[0]
    y = logit_without(bench.model, told, concept, None)
    assert found == pytest.approx([y - logit_without(bench.model, told, concept, unit) for unit in units], abs=1e-3)


def test_units_at_their_mean_are_a_column_of_zeros_and_a_constant(tiny):
    ids = torch.full((2, 5), 7)
    mask = torch.zeros(2, tiny.anatomy.n_layers, tiny.anatomy.d_mlp, dtype=torch.bool)
    mask[1, 0, 3] = True
    values = torch.full(mask.shape[1:], 0.7)
    decoder = tiny.anatomy.decoder
    with torch.inference_mode(), hold(tiny, mask, values[None], torch.zeros(5, dtype=torch.long)):
        changed = decoder(input_ids=ids).last_hidden_state
    out = tiny.anatomy.ffn_outs[0]
    column = out.weight[:, 3].detach().clone()

    def constant(_module, _args, output):
        return output + 0.7 * column

    with torch.inference_mode():
        plain = decoder(input_ids=ids).last_hidden_state
        out.weight[:, 3].zero_()
        handle = out.register_forward_hook(constant)
        try:
            wanted = decoder(input_ids=ids).last_hidden_state
        finally:
            handle.remove()
            out.weight[:, 3].copy_(column)
    assert torch.equal(changed[0], plain[0])
    assert torch.allclose(changed[1], wanted[1], atol=1e-5)
    assert not torch.allclose(changed[1], plain[1], atol=1e-5)


def test_passes_are_counted_forward_and_back(tiny):
    ids = torch.full((3, 5), 7)
    with count_passes(tiny, 5) as passes, torch.enable_grad():
        embedded = tiny.anatomy.decoder.get_input_embeddings()(ids).requires_grad_(True)
        out = tiny.anatomy.decoder(inputs_embeds=embedded).last_hidden_state
        torch.autograd.grad(out[:2].sum(), embedded)
    assert (passes.forward, passes.backward) == (3, 2)


def test_the_same_table_twice_and_chance_for_a_shuffled_submission(bench, tmp_path):
    known = {"verified": bench.verified, "measured": bench.measured, "pictures": bench.pictures[1:2]}
    bench = replace(bench)
    bench.__dict__.update(known)  # of one picture, whose units were verified on all
    methods = checked_methods(bench.model, ("contribution",))
    first = summarise(bench.judge(methods), PROTOCOL)
    for file in bench.kept.path.glob("*.json"):
        file.unlink()  # judged again, not read again
    shuffled = submitted(bench, tmp_path, oracle=False)
    judged = bench.judge(methods, shuffled)
    second = summarise(judged, PROTOCOL)
    own = second.rows[second.rows["method"] != SUBMISSION].reset_index(drop=True)
    pd.testing.assert_frame_equal(first.rows, own, check_exact=True)
    assert second.of("contribution", "place writer")["mean"] < 0.01
    assert abs(second.of(SUBMISSION, "agreement")["mean"]) < 0.35  # of 16 sampled units and 7 planted ones
    assert second.of(SUBMISSION, "recall@1%")["mean"] < 0.34
    best = summarise(bench.judge((), submitted(bench, tmp_path, oracle=True)), PROTOCOL)
    assert best.of(SUBMISSION, "recall@3")["mean"] == 1
    assert best.of(SUBMISSION, "decoys@1%")["mean"] == 0
    assert "kept" in set(best.rows["measure"])
    path = tmp_path / "result.json"
    write(first, path)
    assert read(path).methods == first.methods


def submitted(bench: Bench, folder: Path, oracle: bool):
    """The rankings of a file that puts planted units first, or that numbers units by lot."""
    rng, rows = np.random.default_rng(3), []
    wanted = {role.name: 3 - place for place, role in enumerate(WANTED)}
    for image_id, noun in bench.questions:
        score = np.zeros(N * M) if oracle else rng.permutation(N * M).astype(float)
        for one in bench.soil.planted:
            if oracle:
                score[one.unit.layer * M + one.unit.unit] = wanted.get(one.role, -1)
        flat = np.arange(N * M)
        rows.append(
            pd.DataFrame({"image_id": image_id, "noun": noun, "layer": flat // M, "unit": flat % M, "score": score})
        )
    path = folder / "submission.parquet"
    pd.concat(rows).to_parquet(path)
    return read_submission(path, bench.questions, N, M)


QUESTIONS = [("a" * 64, "dog"), ("b" * 64, "cat")]
RIGHT = pd.DataFrame(
    [(image_id, noun, layer, unit, 1.0) for image_id, noun in QUESTIONS for layer, unit in ((0, 1), (1, 2))],
    columns=list(COLUMNS),
)


def wrong(**columns) -> pd.DataFrame:
    """A submission whose first row has other values."""
    rows = RIGHT.copy()
    for name, value in columns.items():
        rows.loc[0, name] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (RIGHT[:2], "1 of 2 nouns are missing, first 'cat' of picture bbbbbbbbbbbb"),
        (wrong(noun="cow"), "'cow' of picture aaaaaaaaaaaa is none of the benchmark's"),
        (wrong(score=np.nan), "the score of L0.u1 for 'dog' of picture aaaaaaaaaaaa is no number"),
        (wrong(unit=9), "the model has no unit L0.u9"),
        (wrong(layer=-1), "the model has no unit L-1.u1"),
        (wrong(layer=1, unit=2), "L1.u2 for 'dog' of picture aaaaaaaaaaaa is there twice"),
        (RIGHT.drop(columns="score"), "no column 'score'"),
        (RIGHT.astype({"unit": float}), "column 'unit' is float64"),
    ],
)
def test_a_submission_is_refused_in_one_line(rows, reason, tmp_path):
    path = tmp_path / "mine.parquet"
    rows.to_parquet(path)
    with pytest.raises(UsageError) as told:
        read_submission(path, QUESTIONS, 2, 4)
    assert reason in str(told.value)
    assert "\n" not in str(told.value)


def test_what_is_no_submission_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no submission at"):
        read_submission(tmp_path / "none.parquet", QUESTIONS, 2, 4)
    (tmp_path / "text.parquet").write_text("image_id")
    with pytest.raises(UsageError, match="is no Parquet file"):
        read_submission(tmp_path / "text.parquet", QUESTIONS, 2, 4)
    RIGHT.to_parquet(tmp_path / "right.parquet")
    found = read_submission(tmp_path / "right.parquet", QUESTIONS, 2, 4)
    assert list(found[QUESTIONS[0]].units) == [1, 6], "equal scores: the lower unit first"


def test_a_submission_s_highest_score_is_its_first_unit(tmp_path):
    rows = RIGHT.assign(score=[2.0, 1.0, -3.0, -2.0])[::-1]
    rows.to_parquet(tmp_path / "mine.parquet")
    found = read_submission(tmp_path / "mine.parquet", QUESTIONS, 2, 4)
    assert [list(found[key].units) for key in QUESTIONS] == [[1, 6], [6, 1]]
    assert found[QUESTIONS[1]].recall([6], 1) == 1
    assert found[QUESTIONS[1]].recall_from_end([1], 1) == 1


def test_nothing_is_judged_by_units_that_do_not_do_what_they_should():
    planted = tuple(Planted(Neuron(1, place), "dog", role.name) for place, role in enumerate(ROLES))
    active = np.tile([True, False, False], (len(planted), 1))
    a = np.where(active, 5.0, 0.0)
    right = np.array([role.effect for role in ROLES])
    assert all(one.holds for one in verify(planted, [Evidence(a, active, right)] * 3))
    with pytest.raises(
        ModelError, match=r"seer \(dog\): zeroing it takes 0.00 logits; helper .*--without seer,helper$"
    ):
        verify(planted, [Evidence(a, active, np.where(right == right[0], 0.0, right))] * 3)
    with pytest.raises(ModelError, match=r"judged by them: helper \(dog\): .*--without seer,helper$"):
        verify(planted, [Evidence(a, active, np.where(right == right[0], 0.0, right))] * 3, without=("seer",))
    with pytest.raises(ModelError, match=r"--without all$"):
        verify(planted, [Evidence(1 - a, active, right)] * 3)
    found = verify(
        planted, [Evidence(a, active, np.where(right == right[0], 0.0, right))] * 3, without=("seer", "helper")
    )
    assert [one.planted.role for one in found if not one.holds] == ["seer", "helper"]
    assert found[0].why == "left out: zeroing it takes 0.00 logits"
    with pytest.raises(ModelError, match="active elsewhere, too"):
        verify(planted, [Evidence(1 - a, active, right)] * 3)
    loud = np.where(right == 0, 0.5, right)
    with pytest.raises(ModelError, match="and should take none"):
        verify(planted, [Evidence(a, active, loud)] * 3)


def test_without_any_role_nothing_is_planted_and_nothing_is_said_of_it(tiny, tmp_path):
    copied, planted = plant(tiny, [], (), lambda *_: None)
    soil = Soil.of(copied, planted, torch.zeros(tiny.anatomy.n_layers, tiny.anatomy.d_mlp))
    Kept(tmp_path).keep_soil(soil)
    again = Kept(tmp_path).soil()
    assert again is not None
    found = again.put_into(tiny)
    assert found.facts.name == tiny.facts.name
    assert checksum(found) == checksum(tiny)
    whole = shipped()[0]
    of_planted = [name for name in MEASURES if "@" in name or name.startswith("place")]
    rows = whole.rows.assign(mean=whole.rows["mean"].where(~whole.rows["measure"].isin(of_planted)))
    bare = replace(whole, planted=[], rows=rows, asked=dict(whole.asked) | {"without": list(ROLE_WORDS)})
    assert list(words.table(bare)) == [
        "method",
        *(MEASURES[name].heading for name in MEASURES if "@" not in name),
        "passes",
    ]
    assert bare.methods[0] == bare.best("agreement")[0]
    assert "nothing is planted, and effects are measured of 384 sampled units. Means" in words.markdown(bare)
    assert words.command(bare).endswith("--without all")


def test_units_are_planted_where_there_is_a_gate_alone(tiny):
    plain = replace(tiny, anatomy=replace(tiny.anatomy, is_gated=False))
    with pytest.raises(UnsupportedModelError, match="one matrix for the gate"):
        readers(plain)
    with pytest.raises(UsageError, match=r"--methods mine: .* has contribution"):
        checked_methods(tiny, ("mine",))


def test_the_direction_that_no_word_reads_takes_no_matrix_of_tokens_by_tokens(tiny, monkeypatch):
    """SmolLM's 49,152 tokens took 19 GB."""
    made = []

    def noted(matrix, **options):
        made.append(plain(matrix, **options))
        return made[-1]

    plain = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", noted)
    direction = planting._unread(Site(tiny, 0, (), (), (), {}), [])
    rows = tiny.anatomy.unembedding.weight.detach() * norms.gain(tiny.anatomy.norm, tiny.anatomy.final_norm)
    (found,) = made
    assert found.U.shape == rows.shape
    assert float((rows @ direction).norm()) == pytest.approx(float(found.S[-1]), rel=1e-3)


def test_the_secant_finds_the_size_at_which_nothing_is_left():
    assert nearest_to_zero(lambda size: 3 - 2 * size, 4) == pytest.approx(1.5)
    assert nearest_to_zero(lambda size: 3 + 2 * size, 4) == 0


def test_the_page_of_the_docs_is_what_ships():
    committed = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert committed == words.page(), "run python -m mmn.studies.bench.words > docs/benchmark.md"
    assert [one.model for one in shipped()] == ["specimen+planted", "specimen-frozen+planted", "specimen-smollm"]


def test_a_sentence_says_who_is_first_even_where_no_score_of_ours_is():
    rows = pd.DataFrame(
        [
            {"method": method, "measure": measure, "mean": mean, "low": np.nan, "high": np.nan, "n": 3}
            for measure in MEASURES
            for method, mean in (("contribution-folded", 0.3), ("random", 0.4))
        ]
    )
    result = Result(PROTOCOL, "m", "gallery", 2, 8, ("dog",), {}, 3, 5, [{"role": "writer"}], rows, {}, {})
    assert result.methods == ["random", "contribution-folded"]
    assert result.best("decoys@1%") == ["contribution-folded"]
    assert result.n_ahead("contribution-folded", "recall@1%") == 1
    assert result.n_ahead("contribution-folded", "decoys@1%") == 0
    assert words.headline(replace(result, rows=rows))[0].endswith("first 1 % of all units: random (0.40)")
    assert words.standing(result).startswith("how many of 1 are ahead of contribution-folded, ")
    drawn = replace(result, rows=rows[rows["method"] == "random"])
    both = pd.concat([drawn.rows, drawn.rows.assign(method=SUBMISSION)])
    assert [words.standing(one) for one in (drawn, replace(drawn, rows=both))] == ["", ""]


def test_the_figure_is_of_what_ships_the_best_score_first_and_of_no_run(tmp_path):
    figure = FIGURES["bench"]
    (frozen,) = (one for one in shipped() if model_of(one) == "specimen-frozen")
    with Store.open(tmp_path) as store:
        drawn = draw(figure, store, View(model="specimen-frozen", metric=("recall@1%", "decoys@1%")))
        again = redrawn(rows_recipe(drawn), figure, store)
        for view, reason in (
            (View(compare="latest"), "bench is of no run"),
            (View(metric=("mine",)), "--metric mine: the benchmark has recall"),
            (View(methods=("mine",)), "--methods mine"),
            (View(model="mine"), "--model mine: judged were specimen, .*; mmn bench --model mine judges it"),
        ):
            with pytest.raises(UsageError, match=reason):
                draw(figure, store, view)
    data = drawn.rows.data
    pd.testing.assert_frame_equal(again.rows.data, data)
    for measure, ascending in (("recall@1%", False), ("decoys@1%", True)):
        own = data[data["metric"] == measure]
        assert own["mean"].tolist() == sorted(own["mean"], reverse=not ascending)
        assert own["method"].iloc[0] in frozen.best(measure)
        wanted = frozen.of("hones", measure)
        assert dict(own.set_index("method").loc["hones", ["mean", "low", "high"]]) == pytest.approx(
            {name: wanted[name] for name in ("mean", "low", "high")}
        )


def test_a_result_of_some_scores_says_what_was_left_out_and_replaces_none_of_more(tmp_path):
    whole = shipped()[0]
    path = tmp_path / "result.json"
    asked = dict(whole.asked) | {"n_judged": 3, "effect_layers": [6, 7]}
    some = replace(whole, asked=asked, rows=whole.rows[whole.rows["method"].isin(["effect", "random"])])
    keep(whole, path)
    keep(some, path)
    assert read(path).methods == whole.methods
    keep(some, tmp_path / "other.json")
    assert set(read(tmp_path / "other.json").methods) == {"effect", "random"}
    called = words.command(some)
    assert called.endswith("--model specimen --pictures 3 --effect-layers 6-7 --methods effect,random")
    assert "Left out: contribution, " in words.told(some)
    assert "effect ranks the units of layers 6 to 7 alone" in words.told(some)
    assert words.command(whole) == "python -m mmn bench --model specimen"


def test_the_command_says_in_one_line_what_it_cannot_do(checkpoint, pictures, tmp_path, capfd):
    words_of = f"bench --model {checkpoint} --images {pictures} --cache {tmp_path} --progress none"
    assert main(words_of.split()) == BAD_INPUT
    told = capfd.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("mmn: no metadata in"), told
