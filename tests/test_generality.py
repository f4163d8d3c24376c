"""A unit's generality against a plain computation, and what the filter by it leaves of rankings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.figures.figure import draw, require_taken
from mmn.store import Store
from mmn.store.generality import GeneralityQueries, generality_k
from mmn.store.neurons import NeuronQueries
from mmn.store.pictures import PictureQueries
from mmn.studies.registry import FIGURES
from mmn.studies.scoring.layer_queries import LayerQueries
from mmn.view import View
from tests.pages.filled import D_MLP, N_LAYERS, fill_whole

METHOD = "contribution-folded"
K = round(0.014 * N_LAYERS * D_MLP)  # 4 of 256


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    cache_path: Path = tmp_path_factory.mktemp("general")
    fill_whole(cache_path)
    opened = Store.open(cache_path)
    opened.load_new_shards([opened.runs_path])
    return opened


def by_hand(store: Store, method: str) -> dict[tuple[int, int], float]:
    """Noun by noun and picture by picture, in plain Python."""
    concepts, scores = store.table("latest", "concept"), store.table("latest", "score")
    concepts = concepts[(concepts["variant"] == "original") & concepts["target_at"].isna()]
    scores = scores[(scores["variant"] == "original") & (scores["method"] == method) & scores["rank"].between(1, K)]
    found: dict[tuple[int, int], float] = {}
    lemmas = sorted(set(concepts["lemma"]))
    for lemma in lemmas:
        said = concepts[concepts["lemma"] == lemma]
        for image_id, noun in zip(said["image_id"], said["noun"], strict=True):
            top = scores[(scores["image_id"] == image_id) & (scores["noun"] == noun)]
            for unit in zip(top["layer"], top["unit"], strict=True):
                found[unit] = found.get(unit, 0.0) + 1 / len(said) / len(lemmas)
    return found


@pytest.mark.parametrize("method", [METHOD, "random"])
def test_generality_is_the_mean_over_nouns_of_the_share_of_their_pictures(store: Store, method: str) -> None:
    rows = store.ask(GeneralityQueries).units("latest", method)
    found = {(row.layer, row.unit): row.generality for row in rows.itertuples()}
    assert found == pytest.approx(by_hand(store, method))
    assert sum(found.values()) == pytest.approx(K), "on average a unit has k / L·m, whatever the ranking"
    assert rows["generality"].is_monotonic_decreasing


def test_chance_and_the_most_general_unit_are_told(store: Store) -> None:
    assert generality_k(store.run("latest")) == K
    told = store.ask(GeneralityQueries).told("latest", METHOD)
    assert told == {
        "k": K,
        "chance": K / (N_LAYERS * D_MLP),
        "most": pytest.approx(max(by_hand(store, METHOD).values())),
    }


def limit(store: Store) -> tuple[float, set[tuple[int, int]]]:
    """A limit that some units of the ranking pass and some do not, and those that do."""
    found = by_hand(store, METHOD)
    most = float(np.median(list(found.values())))
    general = {unit for unit, share in found.items() if share > most}
    assert 0 < len(general) < len(found)
    return most, general


def test_layers_count_what_the_filter_leaves(store: Store) -> None:
    most, general = limit(store)
    ranks = store.ask(LayerQueries)
    scores = store.table("latest", "score")
    scores = scores[(scores["variant"] == "original") & (scores["method"] == METHOD) & (scores["rank"] >= 1)]
    best = scores.groupby(["image_id", "layer", "unit"])["score"].max().reset_index()
    best = best.sort_values(["score", "layer", "unit"], ascending=[False, True, True]).groupby("image_id").head(8)
    kept = [unit for unit in zip(best["layer"], best["unit"], strict=True) if unit not in general]
    found = ranks.distribution("latest", [METHOD], [8], most_general=most)
    assert found["n_units"].sum() == len(set(kept))
    assert found["mean_units"].sum() == pytest.approx(len(kept) / 20)
    for layer in range(N_LAYERS):
        rows = ranks.unit_rows("latest", METHOD, 8, layer, most_general=most)
        assert set(zip(rows["layer"], rows["unit"], strict=True)) == {one for one in kept if one[0] == layer}


def test_a_limit_that_leaves_nothing_draws_nothing_and_no_limit_leaves_all(store: Store) -> None:
    ranks = store.ask(LayerQueries)
    none = ranks.distribution("latest", [METHOD], [4], most_general=1e-9)
    assert not none[["n_units", "share", "mean_units"]].to_numpy().any(), "every unit leads some noun"
    pd.testing.assert_frame_equal(
        ranks.distribution("latest", [METHOD], [4], most_general=1.0), ranks.distribution("latest", [METHOD], [4])
    )


def test_a_noun_s_units_are_filtered_and_keep_their_ranks(store: Store) -> None:
    most, general = limit(store)
    concept = store.table("latest", "concept").iloc[0]
    asked = ("latest", concept["image_id"], concept["noun"], METHOD)
    pictures = store.ask(PictureQueries)
    whole = pictures.ranked_units(*asked)
    fewer = pictures.ranked_units(*asked, most_general=most)
    is_general = [unit in general for unit in zip(whole["layer"], whole["unit"], strict=True)]
    assert any(is_general)
    assert fewer["rank"].tolist() == whole.loc[~np.array(is_general), "rank"].tolist()
    known = by_hand(store, METHOD)
    expected = [known.get((row.layer, row.unit), 0.0) for row in whole.itertuples()]
    assert whole["generality"].tolist() == pytest.approx(expected)
    assert len(pictures.ranked_units(*asked, limit=5, most_general=most)) == 5, "the next ones take their places"
    sums = pictures.top_share("latest", concept["image_id"], concept["noun"], METHOD, [1, 8], most)
    scores = fewer.set_index("rank")["score"]
    assert sums["logit"].tolist() == pytest.approx([scores[scores.index <= k].sum() for k in (1, 8)])


def test_a_unit_page_tells_generality_by_each_method(store: Store) -> None:
    (layer, unit), share = max(by_hand(store, METHOD).items(), key=lambda one: one[1])
    ranks = store.ask(NeuronQueries).ranks("latest", Neuron(layer, unit)).set_index("method")
    assert ranks.loc[METHOD, "generality"] == pytest.approx(share)


def test_words_are_by_the_rows_that_were_asked_for(store: Store) -> None:
    concept = store.table("latest", "concept").iloc[0]
    asked = ("latest", concept["image_id"], concept["noun"], METHOD)
    pictures = store.ask(PictureQueries)
    raw, centred, cosine = (pictures.ranked_units(*asked, words_by=rows) for rows in ("raw", "centred", "cosine"))
    assert raw["tokens"].tolist() == centred["tokens"].tolist() == [one[::-1] for one in cosine["tokens"]]
    assert raw["is_interpretable"].tolist() == [unit % 2 == 0 for unit in raw["unit"]]
    assert cosine["is_interpretable"].tolist() == [unit % 3 == 0 for unit in raw["unit"]]
    counted = store.ask(LayerQueries).distribution("latest", [METHOD], [8], interpretable=True, words_by="cosine")
    every = store.ask(LayerQueries).unit_rows("latest", METHOD, 8)
    assert counted["n_units"].sum() == (every["unit"] % 3 == 0).sum()


@pytest.mark.parametrize(
    ("rows", "column", "first"), [("", "logit", 1.0), ("centred", "logit", 0.75), ("cosine", "cosine", 0.9)]
)
def test_figures_and_their_titles_say_by_which_rows_and_what_is_hidden(
    store: Store, rows: str, column: str, first: float
) -> None:
    figure = draw(FIGURES["tokens"], store, View("latest", neuron=Neuron(1, 6), words_by=rows))
    assert figure.rows.data[column].iloc[0] == pytest.approx(first)
    assert f"by {rows or 'raw'} rows of W_U" in str(figure.chart.to_dict()["title"])
    view = View("latest", (METHOD,), (8,), units="interpretable", generality=0.1, words_by=rows)
    said = str(draw(FIGURES["layers"], store, view).chart.to_dict()["title"])
    assert "without units that lead more than 10 % of nouns" in said
    assert ("by cosine rows" in said) == (rows == "cosine")


def test_a_figure_that_does_not_read_the_filter_refuses_it() -> None:
    with pytest.raises(UsageError, match="does not read --generality"):
        require_taken(FIGURES["budget"], View("latest", generality=0.1))
