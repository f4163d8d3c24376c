"""Does the lens look at the picture's positions, behind the right norm, and is the test on it the textbook's?"""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmn.decoding import TokenTexts, Vocabulary
from mmn.errors import UsageError
from mmn.lens import (
    image_positions,
    kolmogorov_smirnov,
    kolmogorov_tail,
    logit_lens,
    nearest,
    nearest_vocabulary,
    normed_stream,
    random_like,
    read_stream,
)
from mmn.models import Model
from tests.tiny import FAMILY_BUILDERS, IMAGE_ID, build_family

N_IMAGE_TOKENS = 64  # of the tiny LLaVA: a picture of 112 pixels, patches of 14
PICTURE = Image.linear_gradient("L").resize((120, 100)).convert("RGB")


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_the_last_layer_is_the_models_own_prediction_in_every_family(name: str) -> None:
    """At every position; and the layer before, normed, is not, so that a norm too many or too few would show."""
    model, inputs = build_family(name)
    stream = read_stream(model, inputs)
    with torch.inference_mode():
        logits = model.module(**inputs).logits[0]
        last, before = (model.anatomy.unembedding(normed_stream(model, stream, layer)) for layer in (2, 1))
        twice = model.anatomy.unembedding(model.anatomy.final_norm(stream.after[2]))
    torch.testing.assert_close(last, logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, logits, atol=1e-2)
    assert not torch.allclose(twice, logits, atol=1e-3)


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_image_positions_are_those_of_the_placeholder(name: str) -> None:
    model, inputs = build_family(name)
    assert image_positions(model, inputs).tolist() == (inputs["input_ids"] == IMAGE_ID).tolist()


def test_the_image_tokens_embeddings_are_the_projectors_output() -> None:
    model, inputs = build_family("llava")
    stream = read_stream(model, inputs)
    with torch.inference_mode():
        projected = model.module(**inputs).image_hidden_states
    torch.testing.assert_close(stream.embeddings[stream.is_image], projected.reshape(4, -1))


def test_a_family_without_a_placeholder_is_refused() -> None:
    model, inputs = build_family("llava")
    model = replace(model, module=SimpleNamespace(config=SimpleNamespace(image_token_id=None)))
    with pytest.raises(UsageError, match="no placeholder"):
        image_positions(model, inputs)


def test_a_prompt_without_a_picture_is_refused() -> None:
    model, _ = build_family("llava")
    with pytest.raises(UsageError, match="no image token"):
        image_positions(model, {"input_ids": torch.tensor([[1, 5, 6]])})


def test_a_decoder_that_adds_positions_to_its_input_is_refused(monkeypatch: Any, tiny: Model) -> None:
    """As OPT does: the input of its first layer is no embedding any more."""
    from mmn import lens

    def read_with_positions(model: Model, inputs: dict[str, torch.Tensor]) -> lens.Stream:
        stream = read_stream(model, inputs)
        offset = torch.randn(stream.embeddings.shape, generator=torch.Generator().manual_seed(0)) * 10
        return lens.Stream(stream.is_image, stream.embeddings + offset, stream.after)

    monkeypatch.setattr(lens, "read_stream", read_with_positions)
    with pytest.raises(UsageError, match="adds something to its input embeddings"):
        nearest_vocabulary(tiny, PICTURE)


def test_the_lens_tables_say_what_the_whole_matrix_says(tiny: Model) -> None:
    table = logit_lens(tiny, PICTURE, k=3)
    assert table.column_names == ["layer", "token_position", "rank", "token_id", "token", "logit", "prob"]
    assert table.num_rows == 3 * N_IMAGE_TOKENS * 3
    stream = read_stream(tiny, tiny.encode([PICTURE], tiny.exact_prompt(tiny.default_prompt)))
    rows = {(row["layer"], row["token_position"], row["rank"]): row for row in table.to_pylist()}
    with torch.inference_mode():
        for layer in range(3):
            logits = tiny.anatomy.unembedding(normed_stream(tiny, stream, layer)[stream.is_image])
            probs, ids = logits.softmax(-1).topk(3)
            for position, rank in ((0, 1), (31, 2), (63, 3)):
                row = rows[layer, position, rank]
                assert row["token_id"] == ids[position, rank - 1]
                assert row["prob"] == pytest.approx(probs[position, rank - 1].item(), rel=1e-4)
                assert row["logit"] == pytest.approx(logits[position].max().item(), rel=1e-4) or rank > 1


def test_the_lens_does_not_depend_on_its_blocks(tiny: Model) -> None:
    whole, parts = logit_lens(tiny, PICTURE, [1]), logit_lens(tiny, PICTURE, [1], block_bytes=1)
    assert parts["token_id"].equals(whole["token_id"])
    np.testing.assert_allclose(parts["prob"].to_numpy(), whole["prob"].to_numpy(), rtol=1e-4)


def test_only_the_layers_asked_for_in_their_order(tiny: Model) -> None:
    seen: list[tuple[int, int]] = []
    table = logit_lens(tiny, PICTURE, [2, 0], k=1, progress=lambda done, total: seen.append((done, total)))
    assert table["layer"].to_pylist() == [2] * N_IMAGE_TOKENS + [0] * N_IMAGE_TOKENS
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(("layers", "message"), [([3], "no layer 3"), ([-1], "no layer -1"), ([], "no layer to look")])
def test_a_layer_that_is_not_there(tiny: Model, layers: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        logit_lens(tiny, PICTURE, layers)


def test_the_nearest_embeddings_are_those_of_highest_cosine(tiny: Model) -> None:
    found = nearest_vocabulary(tiny, PICTURE)
    assert found.table.column_names == ["vectors", "token_position", "rank", "token_id", "token", "cosine"]
    assert found.table.num_rows == 2 * N_IMAGE_TOKENS * 5
    stream = read_stream(tiny, tiny.encode([PICTURE], tiny.exact_prompt(tiny.default_prompt)))
    vectors = torch.nn.functional.normalize(stream.embeddings[stream.is_image].double(), dim=1)
    rows = tiny.module.get_input_embeddings().weight[: len(tiny.tokenizer)].double()
    is_zero = rows.norm(dim=1) == 0
    cosines = vectors @ torch.nn.functional.normalize(rows, dim=1).T
    cosines[:, is_zero] = -2
    best, ids = cosines.topk(5)
    image = [row for row in found.table.to_pylist() if row["vectors"] == "image"]
    assert [row["token_id"] for row in image] == ids.flatten().tolist()
    assert [row["cosine"] for row in image] == pytest.approx(best.flatten().tolist(), abs=1e-5)
    assert (found.test.n_first, found.test.n_second) == (N_IMAGE_TOKENS, N_IMAGE_TOKENS)


def test_the_random_control_is_that_of_its_seed(tiny: Model) -> None:
    first, again, other = (nearest_vocabulary(tiny, PICTURE, seed=seed).table for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_a_token_that_is_an_image_vector_is_nearest_with_cosine_one() -> None:
    """Rows (3, 4), (0, 0), (1, 0), (0, 2) against (6, 8) and (0, 1): by hand; the row of zeros is no neighbour."""
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])

    texts = TokenTexts(SimpleNamespace(get_vocab=lambda: {"a": 0, "b": 1, "c": 2, "d": 3}))
    top = nearest(Vocabulary.of(texts, rows), torch.tensor([[6.0, 8.0], [0.0, 1.0]]), 3)
    assert top.token_ids.tolist() == [[0, 3, 2], [3, 0, 2]]
    np.testing.assert_allclose(top.scores, [[1, 0.8, 0.6], [1, 0.8, 0]], atol=1e-6)


def test_random_vectors_have_the_spread_of_those_they_stand_for() -> None:
    vectors = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.0]) + 7
    drawn = random_like(vectors, seed=3)
    # 4,000 draws: the mean's own deviation is 5 / √4000 = 0.08, the deviation's 0.06
    np.testing.assert_allclose(drawn.mean(0), vectors.mean(0), atol=0.4)
    np.testing.assert_allclose(drawn.std(0), vectors.std(0), atol=0.3)


@pytest.mark.parametrize(
    ("first", "second", "statistic"),
    [
        ([1, 2, 3], [4, 5, 6], 1.0),
        ([1, 2, 3, 4], [1, 2, 3, 4], 0.0),
        ([1, 3], [2, 4], 0.5),  # at 1: 1/2 against 0
        ([1, 2, 2, 3], [2, 4], 0.5),  # at 3: 1 against 1/2; at 2: 3/4 against 1/2
        ([0, 0, 0], [0, 1], 0.5),  # ties are passed at once
    ],
)
def test_the_statistic_is_the_largest_gap(first: list[int], second: list[int], statistic: float) -> None:
    for pair in ((first, second), (second, first)):
        assert kolmogorov_smirnov(*(np.array(sample, float) for sample in pair)).statistic == pytest.approx(statistic)


def test_the_statistic_against_the_definition() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=57), rng.normal(0.4, size=31).round(1)
    gaps = [abs((first <= x).mean() - (second <= x).mean()) for x in np.concatenate([first, second])]
    assert kolmogorov_smirnov(first, second).statistic == pytest.approx(max(gaps), abs=1e-12)


@pytest.mark.parametrize(
    ("x", "tail"),  # the usual critical values (Smirnov 1948), and Q(1) = 1 - 0.7300003
    [(1.2238478702170836, 0.1), (1.3580986393225505, 0.05), (1.6276236115189504, 0.01), (1.0, 0.2699996717)],
)
def test_the_tail_at_known_points(x: float, tail: float) -> None:
    assert kolmogorov_tail(x) == pytest.approx(tail, abs=1e-9)


def test_the_tails_two_forms_are_one_function() -> None:
    """They meet at 1, and 200 terms of the first agree with the second well below it."""
    assert kolmogorov_tail(1 - 1e-12) == pytest.approx(kolmogorov_tail(1 + 1e-12), abs=1e-10)
    for x in (0.3, 0.5, 0.8):
        series = 2 * sum((-1) ** (j - 1) * math.exp(-2 * (j * x) ** 2) for j in range(1, 201))
        assert kolmogorov_tail(x) == pytest.approx(series, abs=1e-12)
    assert kolmogorov_tail(0.0) == 1
    assert kolmogorov_tail(0.01) == pytest.approx(1)


def test_the_p_value_is_the_tail_at_the_scaled_statistic() -> None:
    """D = 1 of 3 and 3: √(9/6) · 1 = 1.2247, Q = 0.0996."""
    test = kolmogorov_smirnov(np.array([1.0, 2, 3]), np.array([4.0, 5, 6]))
    assert test.p_value == pytest.approx(2 * (math.exp(-3) - math.exp(-12)), abs=1e-9)


def test_samples_of_one_distribution_are_rarely_told_apart() -> None:
    """400 pairs: p < .05 in about 5 %, three deviations (√(.05·.95/400) = .011) allowed, below since p errs upwards."""
    rng = np.random.default_rng(1)
    pairs = (rng.normal(size=(2, 100)) for _ in range(400))
    share = np.mean([kolmogorov_smirnov(first, second).p_value < 0.05 for first, second in pairs])
    assert 0.01 <= share <= 0.083
