"""The published procedure and our scorer, on the tiny model: equal scores; and the comparison sees a difference."""

from dataclasses import replace

import pytest
import torch

from benchmarks import published_costs
from benchmarks.published_procedure import largest_difference, load_scores, of_pictures, save_scores, score_ours
from benchmarks.published_steps import Clock, prepare, score_picture
from mmn.images import list_source

TOP_K, N_TOKENS = 20, 10
# Float32 sums in another order (a cache, a batch), of a noun's largest score; float16 keeps products to 2⁻¹¹.
REORDERED, ROUNDED = 1e-4, 2**-11


@pytest.fixture(scope="module")
def listing(pictures):
    return list_source(str(pictures), limit=4)


def published(model, listing, dtype):
    prepared = prepare(model, dtype)
    clock = Clock()
    return of_pictures(
        [score_picture(model, prepared, str(one.source), N_TOKENS, TOP_K, clock) for one in listing.examples]
    )


@pytest.fixture(scope="module")
def theirs(tiny, listing):
    return published(tiny, listing, torch.float32)


@pytest.fixture(scope="module")
def ours(tiny, listing):
    return score_ours(tiny, listing, N_TOKENS, TOP_K, batch_size=3)


def test_both_procedures_give_equal_scores(tiny, listing, theirs, ours):
    assert len(ours.captions) == 4
    assert len(ours.tops) >= 4
    assert all(len(units) == TOP_K for units, _ in ours.tops.values())
    assert largest_difference(theirs, ours) <= REORDERED
    half = published(tiny, listing, torch.float16)
    assert 0 < largest_difference(half, ours) <= REORDERED + ROUNDED


def test_what_is_prepared_is_every_token_and_unit(tiny):
    prepared = prepare(tiny, torch.float16)
    weight = tiny.anatomy.unembedding.weight
    assert [products.shape for products in prepared] == [(len(weight), 48)] * 3
    expected = weight[7] @ tiny.anatomy.w_out(2)
    assert torch.allclose(prepared[2][7].float(), expected, rtol=2**-10, atol=1e-6)


def test_a_score_that_differs_is_seen(theirs, ours):
    key = next(iter(ours.tops))
    units, scores = ours.tops[key]
    moved = replace(ours, tops=ours.tops | {key: (units, scores + theirs.every[key].abs().max() / 100)})
    assert largest_difference(theirs, moved) == pytest.approx(0.01, rel=0.05)
    swapped = replace(ours, tops=ours.tops | {key: (units.roll(1), scores)})
    assert largest_difference(theirs, swapped) > REORDERED + ROUNDED


def test_other_captions_other_nouns_and_none_are_refused(theirs, ours):
    source = next(iter(ours.captions))
    with pytest.raises(ValueError, match="another caption"):
        largest_difference(theirs, replace(ours, captions=ours.captions | {source: [1]}))
    with pytest.raises(ValueError, match="other pictures or nouns"):
        largest_difference(theirs, replace(ours, tops=dict(list(ours.tops.items())[1:])))
    with pytest.raises(ValueError, match="nothing is compared"):
        largest_difference(replace(theirs, tops={}), replace(ours, tops={}))


def test_scores_survive_the_way_between_processes(tmp_path, theirs):
    save_scores(tmp_path / "scores.pt", theirs)
    found = load_scores(tmp_path / "scores.pt")
    assert found.captions == theirs.captions
    assert all(torch.equal(found.every[key], every) for key, every in theirs.every.items())


def test_a_product_too_large_for_half_precision_is_refused(tiny):
    weight = tiny.anatomy.unembedding.weight
    before = weight.data  # put back by hand: monkeypatch takes a parameter for an attribute, and deletes it
    weight.data = before * 1e6
    try:
        with pytest.raises(OverflowError, match="float32"):
            prepare(tiny, torch.float16)
    finally:
        weight.data = before


def test_counted_costs_by_hand():
    """L 1, d 2, m 3, V 5, P 4; T 2, n 1, B 1: N = 4·4 + 3·2·3 = 34."""
    shape, asked = published_costs.Shape("hand", 1, 2, 3, 5, 4), published_costs.Asked(2, 1, 1)
    theirs, ours = published_costs.of_published(shape, asked), published_costs.of_ours(shape, asked)
    read_4, read_5, step_5 = 8 * 34 + 4 * 16 + 20, 10 * 34 + 4 * 25 + 20, 2 * 34 + 8 * 5 + 20
    assert (shape.N, theirs.prepared_bytes, theirs.prepared_operations) == (34, 30, 60)
    assert theirs.operations == read_4 + read_5 + 3
    assert ours.operations == read_4 + step_5 + 2 * 12
    assert theirs.moved == 4 * 44 + 6
    assert ours.moved == 4 * 44 + 24 + 8 * 5
    assert (theirs.held, ours.held) == (30 + 12, 8 * 6 + 4 * (3 + 2 + 4 + 5) + 36)
