"""Does a unit decode to the tokens that it writes? Against the whole matrix product, and by planted units."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from torch import Tensor

from mmn.core import Neuron
from mmn.errors import ModelError, UsageError
from mmn.models.adapters import find_anatomy
from mmn.models.model import Model
from mmn.reading.words import is_interpretable
from mmn.units.decoding import NEURON_SCHEMA, TokenTexts, Vocabulary, decode_units, texts_of, token_text
from mmn.units.top_tokens import TopTokens, top_tokens

N_TOKENS = 499  # of the tiny tokenizer
FLOATS = ["logits", "mean_logit", "cosines"]


@pytest.fixture
def own(tiny: Model) -> Model:
    """The tiny model with weights that a test may change."""
    module = copy.deepcopy(tiny.module)
    return replace(tiny, module=module, anatomy=find_anatomy(module, tiny.family))


def by_hand(model: Model, neuron: Neuron) -> tuple[list[str], Tensor]:
    """The whole product, sorted: no blocks, no topk."""
    vector = model.anatomy.w_out(neuron.layer)[:, neuron.unit].double()
    n_tokens = len(model.tokenizer)
    logits = model.anatomy.unembedding.weight[:n_tokens].double() @ vector
    best = sorted(range(n_tokens), key=lambda token_id: (-logits[token_id].item(), token_id))[:10]
    return [token_text(model.tokenizer, token_id) for token_id in best], logits[best]


def assert_logits_close(first: pa.Table, second: pa.Table) -> None:
    """The same float32 products, summed in another order: they differ in the last digits."""
    for name in FLOATS:
        ours, theirs = (np.array(table[name].to_pylist()) for table in (first, second))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_every_unit_is_decoded_as_by_hand(tiny: Model) -> None:
    table = decode_units(tiny)
    assert table.schema.equals(NEURON_SCHEMA)
    assert table.num_rows == tiny.facts.n_units == 3 * 48
    for row in table.to_pylist():
        tokens, logits = by_hand(tiny, Neuron(row["layer"], row["unit"]))
        assert row["tokens"] == tokens
        # float32 sums of 32 products against float64
        assert row["logits"] == pytest.approx(logits.tolist(), rel=1e-4, abs=1e-5)
        assert row["is_interpretable"] == is_interpretable(tokens)
        assert row["model_fingerprint"] == tiny.facts.fingerprint


def by_other_rows(model: Model, neuron: Neuron, rows: Tensor) -> tuple[list[str], Tensor]:
    """The best ten tokens by other rows than the unembedding's own, in double precision, sorted."""
    values = rows @ model.anatomy.w_out(neuron.layer)[:, neuron.unit].double()
    best = sorted(range(len(rows)), key=lambda token_id: (-values[token_id].item(), token_id))[:10]
    return [token_text(model.tokenizer, token_id) for token_id in best], values[best]


def test_every_unit_is_decoded_by_centred_and_by_cosine_normalised_rows_as_by_hand(own: Model) -> None:
    """Rows of very different lengths, and a mean far from 0, as in real models."""
    with torch.no_grad():
        weight = own.anatomy.unembedding.weight
        weight *= torch.linspace(0.2, 4, len(weight))[:, None]
        weight += 0.5
    rows = own.anatomy.unembedding.weight[:N_TOKENS].double()
    centred, unit_rows = rows - rows.mean(0), rows / rows.norm(dim=1, keepdim=True)
    n_other = 0
    for row in decode_units(own).to_pylist():
        neuron = Neuron(row["layer"], row["unit"])
        tokens, logits = by_other_rows(own, neuron, centred)
        assert row["tokens"] == tokens, "centring takes the same from every token"
        above = [logit - row["mean_logit"] for logit in row["logits"]]
        assert above == pytest.approx(logits.tolist(), rel=1e-3, abs=1e-4)
        tokens, products = by_other_rows(own, neuron, unit_rows)
        assert row["cosine_tokens"] == tokens
        cosines = products / own.anatomy.w_out(neuron.layer)[:, neuron.unit].double().norm()
        assert row["cosines"] == pytest.approx(cosines.tolist(), rel=1e-4, abs=1e-5)
        assert row["is_cosine_interpretable"] == is_interpretable(tokens)
        n_other += row["cosine_tokens"] != row["tokens"]
    assert n_other > 100, "where raw rows and cosines agreed, this would prove nothing"


def test_a_token_with_a_long_row_leads_raw_products_and_no_cosines(own: Model) -> None:
    """Real models: the same few rare tokens lead most units' raw products."""
    long, dog = (own.tokenizer.convert_tokens_to_ids(token) for token in ("▁cat", "▁dog"))
    with torch.no_grad():
        rows = own.anatomy.unembedding.weight
        column = rows[dog].clone()
        rows[long] = 100 * (rows[dog] + 0.5 * rows[dog].norm() * torch.nn.functional.normalize(rows[long], dim=0))
        own.anatomy.w_out(1)[:, 5] = column
    row = decode_units(own, [Neuron(1, 5)]).to_pylist()[0]
    assert (row["tokens"][0], row["cosine_tokens"][0]) == ("cat", "dog")
    assert row["cosines"][0] == pytest.approx(1)


def test_units_come_in_the_order_asked_for(tiny: Model) -> None:
    asked = [Neuron(2, 7), Neuron(0, 47), Neuron(2, 7), Neuron(1, 0)]
    some = decode_units(tiny, asked)
    every = decode_units(tiny).take([neuron.layer * 48 + neuron.unit for neuron in asked])
    assert some.drop(FLOATS).equals(every.drop(FLOATS))
    assert_logits_close(some, every)


def test_no_units_make_an_empty_table(tiny: Model) -> None:
    assert decode_units(tiny, []).equals(NEURON_SCHEMA.empty_table())


@pytest.mark.parametrize("block_bytes", [1, 4 * N_TOKENS * 7])
def test_blocks_do_not_change_the_answer(tiny: Model, block_bytes: int) -> None:
    """One unit at a time, or seven with a rest: the same tokens."""
    whole, parts = decode_units(tiny), decode_units(tiny, block_bytes=block_bytes)
    assert parts.drop(FLOATS).equals(whole.drop(FLOATS))
    assert_logits_close(whole, parts)


def test_a_block_is_no_larger_than_allowed(tiny: Model) -> None:
    vocabulary = Vocabulary.of(texts_of(tiny.tokenizer), tiny.anatomy.unembedding.weight)
    vectors = tiny.anatomy.w_out(0).T
    memory = vocabulary.memory(len(vectors), block_bytes=4 * N_TOKENS * 7 + 1)
    blocks = [(here, block.shape) for here, block in vocabulary.project(vectors, memory)]
    assert [shape[0] for _, shape in blocks] == [7] * 6 + [6]
    assert [(here.start, here.stop) for here, _ in blocks][-1] == (42, 48)


def test_a_planted_unit_decodes_to_its_token_first(own: Model) -> None:
    """W_out[:, i] = W_U[t], where W_U[t] is its own nearest row by far."""
    dog = own.tokenizer.convert_tokens_to_ids("▁dog")
    with torch.no_grad():
        own.anatomy.unembedding.weight[dog] *= 20
        own.anatomy.w_out(1)[:, 5] = own.anatomy.unembedding.weight[dog]
    row = decode_units(own, [Neuron(1, 5)]).to_pylist()[0]
    assert row["tokens"][0] == "dog"
    norm = own.anatomy.unembedding.weight[dog].double().norm().item()
    assert row["logits"][0] == pytest.approx(norm**2, rel=1e-5)
    assert row["logits"] == sorted(row["logits"], reverse=True)


def test_rows_that_pad_the_unembedding_are_no_tokens(own: Model) -> None:
    """499 tokens in a matrix of 512 rows, the extra ones the strongest of all."""
    expected = decode_units(own)
    linear = own.anatomy.unembedding
    padding = torch.full((13, linear.weight.shape[1]), 100.0)
    linear.weight = torch.nn.Parameter(torch.cat([linear.weight, padding, -padding]), requires_grad=False)
    assert decode_units(own).drop(FLOATS).equals(expected.drop(FLOATS))


def test_ids_that_the_tokenizer_does_not_know_are_no_tokens() -> None:
    tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 0, "c": 2, "d": 3})
    vocabulary = Vocabulary.of(TokenTexts(tokenizer), torch.arange(12.0).reshape(6, 2))
    _, block = next(vocabulary.project(torch.ones(1, 2), vocabulary.memory(1)))
    assert block.tolist() == [[1, -torch.inf, 9, 13]]
    assert top_tokens(block, 3).token_ids.tolist() == [[3, 2, 0]]


def test_a_dead_unit_decodes_to_the_lowest_ids(own: Model) -> None:
    with torch.no_grad():
        own.anatomy.w_out(0)[:, 3] = 0
    row = decode_units(own, [Neuron(0, 3)]).to_pylist()[0]
    assert (row["cosines"], row["mean_logit"]) == ([0.0] * 10, 0.0)
    assert row["cosine_tokens"] == row["tokens"]
    assert row["tokens"] == [token_text(own.tokenizer, token_id) for token_id in range(10)]
    assert row["logits"] == [0.0] * 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast_before_it_is_multiplied(own: Model, dtype: torch.dtype, monkeypatch: Any) -> None:
    """Exactly the products of the rounded weights, also where W_U is upcast in parts."""
    own.module.to(dtype)
    monkeypatch.setattr("mmn.units.decoding.ROWS_BYTES", 4 * 32 * 100)
    halved = decode_units(own)
    own.module.float()
    full = decode_units(own)
    assert halved["tokens"].equals(full["tokens"])
    assert_logits_close(halved, full)


def test_progress_counts_units_after_each_layer(tiny: Model) -> None:
    seen: list[tuple[int, int]] = []
    decode_units(tiny, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(48, 144), (96, 144), (144, 144)]


@pytest.mark.parametrize("neuron", [Neuron(3, 0), Neuron(0, 48), Neuron(-1, 0), Neuron(0, -1)])
def test_a_unit_that_is_not_there(tiny: Model, neuron: Neuron) -> None:
    with pytest.raises(UsageError, match="its layers are 0–2, its units 0–47"):
        decode_units(tiny, [neuron])


def test_weights_that_are_not_finite(own: Model) -> None:
    with torch.no_grad():
        own.anatomy.w_out(2)[0, 0] = torch.nan
    with pytest.raises(ModelError, match="layer 2"):
        decode_units(own)


def test_the_lock_is_held_for_a_layer_and_free_between(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked from another thread: the one that holds it could always take it again."""

    def is_free() -> bool:
        taken = tiny.lock.acquire(blocking=False)
        if taken:
            tiny.lock.release()
        return taken

    seen: list[tuple[str, bool]] = []
    with ThreadPoolExecutor(1) as other:

        def spied(scores: Tensor, k: int) -> TopTokens:
            seen.append(("inside", other.submit(is_free).result()))
            return top_tokens(scores, k)

        monkeypatch.setattr("mmn.units.decoding.top_tokens", spied)
        decode_units(tiny, progress=lambda _done, _total: seen.append(("between", other.submit(is_free).result())))
    assert seen == [*[("inside", False)] * 2, ("between", True)] * 3  # by raw rows, then by cosines


def byte_level_tokenizer() -> Any:
    """GPT-2's way of writing bytes: "Ġ" is a space, "Ċ" a line break, "âĢ" two bytes of three."""
    from transformers import PreTrainedTokenizerFast

    names = ["dog", "Ġdog", "Ġ", "Ċ", "âĢ", "Ã©", "."]
    tokenizer = Tokenizer(BPE({name: index for index, name in enumerate(names)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    ("token_id", "text"),
    list(enumerate(["dog", "dog", "<0x20>", "<0x0A>", "<0xE2><0x80>", "é", "."])),
)
def test_bytes_of_a_byte_level_vocabulary_are_readable(token_id: int, text: str) -> None:
    assert token_text(byte_level_tokenizer(), token_id) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [("▁dog", "dog"), ("<0xE2>", "<0xE2>"), ("<0x0A>", "<0x0A>"), ("<0x41>", "A"), ("▁", "▁"), ("<s>", "<s>")],
)
def test_bytes_of_a_sentencepiece_vocabulary_are_readable(tiny: Model, name: str, text: str) -> None:
    assert token_text(tiny.tokenizer, tiny.tokenizer.convert_tokens_to_ids(name)) == text
