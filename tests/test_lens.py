"""Does the lens look at the picture's positions, behind the right norm, and is the test on it the textbook's?"""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaConfig

from mmn.errors import UsageError
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.statistics.kolmogorov_smirnov import kolmogorov_smirnov, kolmogorov_tail
from mmn.studies.lens.neighbours import nearest, random_like, require_bare_embeddings
from mmn.studies.lens.projection import Projected, project_to_words
from mmn.studies.lens.stream import Stream, normed_stream, read_stream
from mmn.units.decoding import TokenTexts, Vocabulary, texts_of
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
        normed = [normed_stream(model, stream, 2), normed_stream(model, stream, 1)]
        normed.append(model.anatomy.final_norm(stream.after[2]))
        last, before, twice = (model.anatomy.logits(model.anatomy.unembedding(one)) for one in normed)
    torch.testing.assert_close(last, logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, logits, atol=1e-2)
    assert not torch.allclose(twice, logits, atol=1e-3)


def test_words_of_a_model_with_a_soft_cap_have_the_probabilities_that_it_gives_them() -> None:
    model, inputs = build_family("paligemma on gemma2")
    assert model.anatomy.soft_cap is not None
    with torch.inference_mode():
        probs = model.module(**inputs).logits[0].softmax(-1)
    normed = normed_stream(model, read_stream(model, inputs), 2)
    vocabulary = Vocabulary(model.anatomy.unembedding.weight, torch.tensor([], dtype=torch.long))
    found = project_to_words(model, vocabulary, normed, 1, [3, 5])
    torch.testing.assert_close(found.asked, probs[:, [3, 5]], rtol=1e-4, atol=1e-6)


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
    model = replace(model, module=SimpleNamespace(config=LlamaConfig()))
    with pytest.raises(UsageError, match="no image tokens"):
        image_positions(model, inputs)


def test_a_prompt_without_a_picture_is_refused() -> None:
    model, _ = build_family("llava")
    with pytest.raises(UsageError, match="no image tokens"):
        image_positions(model, {"input_ids": torch.tensor([[1, 5, 6]])})


def test_a_decoder_that_adds_positions_to_its_input_is_refused(tiny: Model) -> None:
    """As OPT does: the input of its first layer is no embedding any more."""
    inputs = encoded(tiny)
    stream = read_stream(tiny, inputs)
    require_bare_embeddings(tiny, stream, inputs)
    offset = torch.randn(stream.embeddings.shape, generator=torch.Generator().manual_seed(0)) * 10
    moved = Stream(stream.is_image, stream.embeddings + offset, stream.after)
    with pytest.raises(UsageError, match="adds something to its input embeddings"):
        require_bare_embeddings(tiny, moved, inputs)


@pytest.mark.parametrize("layer", range(3))
def test_the_lens_says_what_the_whole_matrix_says(tiny: Model, layer: int) -> None:
    found, probs = projected(tiny, layer, token_ids=[7, 300])
    best, ids = probs.topk(3)
    assert found.top.token_ids.tolist() == ids.tolist()
    torch.testing.assert_close(found.top.scores, best, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.asked, probs[:, [7, 300]], rtol=1e-4, atol=1e-9)


def test_what_is_asked_for_is_the_first_where_it_is_that_token(tiny: Model) -> None:
    """By which the share of image tokens that say a noun is counted, without token ids."""
    _, probs = projected(tiny, 2)
    first = int(probs[5].argmax())
    found, _ = projected(tiny, 2, token_ids=[first])
    is_first = found.asked[:, 0] >= 0.999999 * found.top.scores[:, 0]
    assert is_first.tolist() == (probs.argmax(-1) == first).tolist()
    assert is_first[5]


def test_the_lens_does_not_depend_on_its_blocks(tiny: Model) -> None:
    whole, parts = projected(tiny, 1, [7])[0], projected(tiny, 1, [7], block_bytes=1)[0]
    assert parts.top.token_ids.tolist() == whole.top.token_ids.tolist()
    torch.testing.assert_close(parts.top.scores, whole.top.scores, rtol=1e-4, atol=0)
    torch.testing.assert_close(parts.asked, whole.asked, rtol=1e-4, atol=0)


def encoded(model: Model) -> dict[str, torch.Tensor]:
    return model.encode([PICTURE], model.exact_prompt(model.default_prompt))


def projected(
    model: Model, layer: int, token_ids: list[int] | None = None, block_bytes: int = 1 << 20
) -> tuple[Projected, torch.Tensor]:
    """The lens at the image tokens, and all probabilities from the whole matrix at once."""
    stream = read_stream(model, encoded(model))
    with torch.inference_mode():
        normed = normed_stream(model, stream, layer)[stream.is_image]
        n_tokens = len(model.tokenizer)
        probs = model.anatomy.unembedding(normed)[:, :n_tokens].softmax(-1)
    vocabulary = Vocabulary.of(texts_of(model.tokenizer), model.anatomy.unembedding.weight)
    return project_to_words(model, vocabulary, normed, 3, token_ids or [], block_bytes), probs


def test_the_nearest_embeddings_are_those_of_highest_cosine(tiny: Model) -> None:
    stream = read_stream(tiny, encoded(tiny))
    embedding = tiny.module.get_input_embeddings().weight
    found = nearest(Vocabulary.of(texts_of(tiny.tokenizer), embedding), stream.image_embeddings, 5)
    vectors = torch.nn.functional.normalize(stream.image_embeddings.double(), dim=1)
    rows = embedding[: len(tiny.tokenizer)].double()
    cosines = vectors @ torch.nn.functional.normalize(rows, dim=1).T
    cosines[:, rows.norm(dim=1) == 0] = -2
    best, ids = cosines.topk(5)
    assert len(vectors) == N_IMAGE_TOKENS
    assert found.token_ids.tolist() == ids.tolist()
    torch.testing.assert_close(found.scores.double(), best, rtol=0, atol=1e-5)


def test_the_random_control_is_that_of_its_seed() -> None:
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    first, again, other = (random_like(vectors, seed) for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


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
