"""What an experiment prints and what the page draws of the same run: the same means, intervals and n."""

from __future__ import annotations

from dataclasses import astuple

import pandas as pd
import pyarrow as pa
import pytest

from mmn.names import ABLATE, PERTURB, SAME_PICTURE
from mmn.runs import shards
from mmn.store import Store
from mmn.studies.degradation.curves import curves
from mmn.studies.degradation.own import own_parts
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.studies.degradation.summary import further_rows, picture_means, summarise
from mmn.studies.editing.queries import EditQueries
from mmn.studies.editing.shares import MEASURES, edit_shares, labelled_shares
from mmn.studies.invariance.cross_image_queries import CrossImageQueries
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.studies.invariance.summary import summarize
from mmn.studies.sensitivity.measure import summarize_sensitivity
from mmn.studies.sensitivity.queries import SensitivityQueries
from mmn.studies.specificity.measure import summarize_specificity
from mmn.studies.specificity.queries import SpecificityQueries
from tests.pages.filled import D_MLP, N_LAYERS, fill_whole
from tests.pages.filled_effects import METRIC

METHODS = ("contribution", "contribution-folded")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("cache")
    fill_whole(path)
    with Store.open(path) as opened:
        opened.load_new_shards([opened.runs_path])
        yield opened


@pytest.fixture(scope="module")
def run(store: Store):
    return store.run("5e6f")


@pytest.fixture(scope="module")
def tables(store: Store, run) -> dict[str, pa.Table]:
    """All that the run's shards hold, as an experiment reads it: without the database."""
    path = store.runs_path / run["run_id"]
    read = [shards.read_shard(path / name) for name in sorted(shards.finished_shards(path))]
    names = {name for found in read for name in found}
    return {name: pa.concat_tables([found[name] for found in read if name in found]) for name in names}


def of_rankings(tables: dict[str, pa.Table], kind: str) -> pd.DataFrame:
    """Effects of ranked units; those of sets of units are another call's."""
    effects = tables["effect"].to_pandas()
    return effects[(effects["kind"] == kind) & effects["method"].isin(METHODS)]


def same(ours: pd.Series, theirs: pd.Series) -> None:
    assert len(ours)
    assert ours.tolist() == pytest.approx(theirs.tolist(), nan_ok=True)


@pytest.mark.parametrize("kind", [ABLATE, PERTURB])
@pytest.mark.parametrize(("quantity", "told"), [("prob", "prob"), ("lost", "lost")])
def test_degrade_prints_the_interval_that_its_figure_draws(
    kind: str, quantity: str, told: str, store: Store, tables: dict[str, pa.Table]
) -> None:
    effects = of_rankings(tables, kind)
    effects["prob"] *= 1 - 0.5 * (effects["k"] > 0) * (effects.groupby(["image_id"]).ngroup() % 5) / 5
    means = store.ask(EffectQueries).means("5e6f", EffectFilter(kind, METHODS, metric=METRIC))
    means["prob"] *= 1 - 0.5 * ((means["k"] > 0) & (means["sigma"] != 0)) * (means.groupby("image_id").ngroup() % 5) / 5
    drawn, relative = curves(means, quantity), curves(means, "relative")
    printed = summarise(effects, N_LAYERS * D_MLP)
    assert len(printed) == (8 if kind == ABLATE else 12)
    for one in printed:
        assert one["k"] == 64
        point, share = (_point(rows, one) for rows in (drawn, relative))
        assert (one[told], one[f"{told}_low"], one[f"{told}_high"]) == pytest.approx(
            (point["mean"], point["low"], point["high"]), nan_ok=True
        )
        assert (one["drop"], one["drop_low"], one["drop_high"]) == pytest.approx(
            (1 - share["mean"], 1 - share["high"], 1 - share["low"])
        )
        assert (one["n_images"], one["n_draws"]) == (point["n"], point["n_draws"])
        assert one["n_images"] >= 8, "enough for intervals, or nothing is compared"


def further(tables: dict[str, pa.Table], kind: str) -> pd.DataFrame:
    shares, texts = (tables[name].to_pandas() for name in ("noun_share", "perplexity"))
    return further_rows(shares[shares["kind"] == kind], texts[texts["kind"] == kind])


@pytest.mark.parametrize("kind", [ABLATE, PERTURB])
def test_degrade_says_of_whose_a_drop_is_what_its_page_says(
    kind: str, store: Store, tables: dict[str, pa.Table]
) -> None:
    """Shards and database come to the same shares, perplexities, differences and intervals."""
    printed = own_parts(picture_means(of_rankings(tables, kind), further(tables, kind)), N_LAYERS * D_MLP)
    means = store.ask(EffectQueries).means("5e6f", EffectFilter(kind, METHODS, metric=METRIC))
    told = own_parts(means, N_LAYERS * D_MLP)
    assert len(printed) == len(told) == (4 if kind == ABLATE else 6), "the k that halves beside the largest"
    by_line = {(one.method, one.sigma, one.k): one for one in told}
    for one in printed:
        other = by_line[one.method, one.sigma, one.k]
        for control, beyond in one.beyond.items():
            for ends in ("excess", "share_excess"):
                ours, theirs = (astuple(getattr(found, ends)) for found in (beyond, other.beyond[control]))
                assert ours == pytest.approx(theirs, nan_ok=True)
        assert one.shares == pytest.approx(other.shares)
        assert set(one.perplexity) == set(other.perplexity) == {"nats", "nats_captions"}
        for text, values in one.perplexity.items():
            assert values == pytest.approx(other.perplexity[text])


def _point(rows: pd.DataFrame, one: dict[str, object]) -> pd.Series:
    is_line = (rows["method"] == one["method"]) & (rows["selection"] == one["selection"]) & (rows["k"] == one["k"])
    is_noise = rows["sigma"].isna() if one["sigma"] is None else rows["sigma"] == one["sigma"]
    (found,) = rows[is_line & is_noise].to_dict("records")
    return pd.Series(found)


def test_invariance_prints_what_its_figure_draws(store: Store, tables: dict[str, pa.Table]) -> None:
    rows = tables["invariance"]
    frame = rows.to_pandas()
    printed = summarize(rows.filter(pa.array(frame["kind"] == "region")))
    methods, ks = list(dict.fromkeys(printed["method"])), sorted(set(printed["k"]))
    drawn = store.ask(InvarianceQueries).curves("5e6f", methods, ks).set_index(["method", "k"])
    theirs = drawn.loc[pd.MultiIndex.from_frame(printed[["method", "k"]])]
    for name in ("ratio", "floor_other_noun"):
        for end in ("", "_low", "_high"):
            same(printed[f"{name}{end}"], theirs[f"{name}{end}"])
    assert printed["ratio_low"].notna().any()
    same(printed["n_images"], theirs["n_images"])
    same(printed["floor_random"], theirs["floor_random"])


def test_cross_image_prints_the_mean_of_what_its_figure_draws(store: Store, tables: dict[str, pa.Table]) -> None:
    rows = tables["invariance"]
    printed = summarize(rows.filter(pa.array(rows.to_pandas()["kind"] == "cross-image")))
    for row in printed.itertuples():
        drawn = store.ask(CrossImageQueries).by_concept("5e6f", row.method, row.k, 5)
        assert (row.ratio, row.n_concepts) == (pytest.approx(drawn["ratio"].mean()), len(drawn))


def test_sensitivity_prints_what_its_figure_draws(store: Store, tables: dict[str, pa.Table]) -> None:
    printed = summarize_sensitivity(tables["sensitivity"].to_pandas())
    methods, metrics = store.ask(SensitivityQueries).measured("5e6f")
    drawn = store.ask(SensitivityQueries).summary("5e6f", methods, metrics).set_index(["method", "metric"])
    theirs = drawn.loc[pd.MultiIndex.from_frame(printed[["method", "metric"]])]
    for name in ("value", "control", "difference"):
        for end in ("", "_low", "_high"):
            same(printed[f"{name}{end}"], theirs[f"{name}{end}"])
    assert printed["difference_low"].notna().all()
    same(printed["n"], theirs["n_images"])


def test_specificity_prints_what_its_figure_draws(store: Store, tables: dict[str, pa.Table]) -> None:
    printed = summarize_specificity(tables["specificity"].to_pandas()).set_index(["method", "what"])
    methods = store.ask(SpecificityQueries).methods("5e6f")
    drawn = store.ask(SpecificityQueries).summary("5e6f", methods)
    drawn = drawn.set_index(["method", "selection", "is_control", "is_own"])
    for method in methods:
        theirs = drawn.loc[(method, SAME_PICTURE, False, False)]
        same(printed.loc[(method, "same other"), ["mean", "low", "high", "n"]], theirs[[*_SHARE, "n_images"]])


_SHARE = ("share", "share_low", "share_high")


def test_edits_print_the_interval_that_their_figure_draws(store: Store, tables: dict[str, pa.Table]) -> None:
    """`mmn edit` reads its own shard, the figure the database."""
    edits = store.ask(EditQueries).edits("5e6f")
    drawn = labelled_shares(edits, store.ask(EditQueries).captions("5e6f", *edits["edit_id"])).set_index(
        ["edit_id", "role"]
    )
    printed = edit_shares(tables["edited_caption"].to_pandas()).set_index(["edit_id", "role"])
    assert len(printed) == len(edits) * len(MEASURES)
    for end in ("mean", "low", "high", "n"):
        same(printed[end].sort_index(), drawn[end].sort_index())
