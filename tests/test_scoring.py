"""Scoring a batch, against a recomputation in plain PyTorch: one picture at a time, no cache, hooks of its own."""

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmn import names
from mmn.core import ScoreSettings
from mmn.errors import UsageError
from mmn.images import list_source, open_image
from mmn.models.adapters import find_anatomy
from mmn.reading.captions import caption_encoded
from mmn.runs.engines.local import open_batch
from mmn.runs.plan import Batch
from mmn.scores import batch, methods
from mmn.scores.batch import check_methods, score_batch

METHODS = (
    names.CONTRIBUTION,
    names.CONTRIBUTION_FOLDED,
    names.CONTRIBUTION_ACTFN,
    names.CONTRIBUTION_CENTRED,
    names.ACTIVATION,
    names.RANDOM,
)
N_UNITS = 3 * 48
TOP = 100
PROMPT = "A picture of"
SETTINGS = ScoreSettings(prompt=PROMPT, methods=METHODS, top_k=N_UNITS, max_new_tokens=10)
# Sums of 32 to 64 products in float32 in another order. Relative to the concept's largest score: the small ones are
# differences of large products.
TOLERANCE = 1e-4


def score(model, examples, settings=SETTINGS, size=None):
    """Rows of every table over `examples`, in batches of `size`."""
    size = size or len(examples)
    rows: dict[str, list[dict]] = {name: [] for name in ("image", "caption", "concept", "score", "budget")}
    for start in range(0, len(examples), size):
        opened = open_batch(Batch("b", tuple(examples[start : start + size])))
        assert not opened.failures
        tables = score_batch(model, opened.examples, opened.images, model.exact_prompt(PROMPT), settings)
        for name, table in tables.items():
            rows[name] += table.to_pylist()
    return rows


@pytest.fixture(scope="module")
def examples(pictures):
    return list_source(str(pictures)).examples


@pytest.fixture(scope="module")
def scored(tiny, examples):
    return score(tiny, examples, size=8)


def test_tables_of_a_batch_become_data_frames(tiny, examples):
    """Two nouns of one picture stood in a dictionary twice, which pandas refuses."""
    opened = open_batch(Batch("b", tuple(examples[:8])))
    settings = replace(SETTINGS, variants=(names.ORIGINAL, names.BLANK), top_k=5)
    tables = score_batch(tiny, opened.examples, opened.images, tiny.exact_prompt(PROMPT), settings)
    assert tables["concept"].to_pandas()["image_id"].duplicated().any()
    for name, table in tables.items():
        frame = table.to_pandas()
        assert list(frame["image_id"]) == table["image_id"].to_pylist(), name
        assert len(frame) == table.num_rows > 0, name


def by_concept(rows) -> dict[tuple, dict[int, float]]:
    """(image, noun, method) -> {flat unit: score}, in the order of the ranks."""
    found: dict[tuple, dict[int, float]] = {}
    for row in sorted(rows, key=lambda row: row["rank"]):
        key = (row["image_id"], row["noun"], row["method"])
        found.setdefault(key, {})[row["layer"] * 48 + row["unit"]] = row["score"]
    return found


def recompute(model, source: str, token_ids: list[int], position: int, token_id: int) -> dict[str, torch.Tensor]:
    """All scores of one concept from one forward pass over prompt and caption; plain modules, nothing of ours."""
    module = model.module
    decoder = module.model.language_model
    image, prompt = open_image(Path(source)), model.exact_prompt(PROMPT)
    inputs = model.processor(images=[image], text=[prompt], return_tensors="pt")
    assert (inputs["input_ids"] == model.tokenizer.bos_token_id).sum() == 1
    prefix = torch.tensor([token_ids[:position]], dtype=torch.long)
    ids = torch.cat([inputs["input_ids"], prefix], 1)
    seen: dict[str, list[torch.Tensor]] = {"a": [], "gate": [], "final": []}
    handles = [decoder.norm.register_forward_pre_hook(lambda _m, args: seen["final"].append(args[0][0, -1]))]
    for layer in decoder.layers:
        handles.append(layer.mlp.down_proj.register_forward_pre_hook(lambda _m, args: seen["a"].append(args[0][0, -1])))
        handles.append(layer.mlp.gate_proj.register_forward_hook(lambda _m, _a, out: seen["gate"].append(out[0, -1])))
    with torch.no_grad():
        logits = module(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"], use_cache=False
        ).logits[0, -1]
    for handle in handles:
        handle.remove()
    row = module.lm_head.weight[token_id]
    (final,) = seen["final"]
    known = sorted(set(model.tokenizer.get_vocab().values()))
    centred = row - sum(module.lm_head.weight[token] for token in known) / len(known)
    folded = row * decoder.norm.weight / (final.square().mean() + decoder.norm.variance_epsilon).sqrt()
    a, act = torch.stack(seen["a"]), torch.nn.functional.silu(torch.stack(seen["gate"]))
    projected = torch.stack([row @ layer.mlp.down_proj.weight for layer in decoder.layers])
    projected_folded = torch.stack([folded @ layer.mlp.down_proj.weight for layer in decoder.layers])
    return {
        names.CONTRIBUTION: (a * projected).flatten(),
        names.CONTRIBUTION_FOLDED: (a * projected_folded).flatten(),
        names.CONTRIBUTION_ACTFN: (act * projected).flatten(),
        names.CONTRIBUTION_CENTRED: torch.cat(
            [(centred @ layer.mlp.down_proj.weight) * a[number] for number, layer in enumerate(decoder.layers)]
        ),
        names.ACTIVATION: a.flatten(),
        "logit": logits[token_id],
        "prob": logits.softmax(-1)[token_id],
    }


def test_scores_equal_a_plain_recomputation(tiny, scored):
    sources = {row["image_id"]: row["source"] for row in scored["image"]}
    tokens = {row["image_id"]: row["tokens"] for row in scored["caption"]}
    ours = by_concept(scored["score"])
    assert len(scored["concept"]) > 20
    for concept in scored["concept"]:
        image_id, noun = concept["image_id"], concept["noun"]
        theirs = recompute(tiny, sources[image_id], tokens[image_id], concept["position"], concept["token_id"])
        assert concept["logit"] == pytest.approx(theirs.pop("logit").item(), rel=1e-4)
        assert concept["prob"] == pytest.approx(theirs.pop("prob").item(), rel=1e-3)
        for method, expected in theirs.items():
            found = ours[image_id, noun, method]
            ranked = expected.sort(descending=True, stable=True)
            assert set(list(found)[:TOP]) == set(ranked.indices[:TOP].tolist()), (noun, method)
            values = torch.tensor([found[unit] for unit in range(N_UNITS)])
            assert (values - expected).abs().max() <= TOLERANCE * expected.abs().max(), (noun, method)


def test_captions_are_those_of_plain_transformers(tiny, scored):
    """One picture at a time, nothing of ours in between."""
    for image, caption in zip(scored["image"], scored["caption"], strict=True):
        inputs = tiny.encode([open_image(Path(image["source"]))], tiny.exact_prompt(PROMPT))
        output = tiny.module.generate(**inputs, do_sample=False, max_new_tokens=SETTINGS.max_new_tokens)
        new = output[0, inputs["input_ids"].shape[1] :].tolist()
        ends = [index for index, token in enumerate(new) if token == tiny.tokenizer.eos_token_id]
        n = len(caption["tokens"])
        assert caption["tokens"] == new[:n]
        assert caption["is_cut"] == (not ends)
        rest = tiny.tokenizer.decode(new)[len(caption["text"]) :]
        assert n == ends[0] if ends else n == len(new) or rest.strip().isalpha()  # the beginning of one word
        assert caption["text"] == tiny.tokenizer.decode(caption["tokens"], skip_special_tokens=True)


def test_a_caption_ends_where_the_model_would_put_a_picture(tiny, examples, scored):
    """Read again, as attribution does, a placeholder in a caption would call for a picture more."""
    tokens = {caption["image_id"]: caption["tokens"] for caption in scored["caption"]}
    concept = next(one for one in scored["concept"] if one["position"] + 1 < len(tokens[one["image_id"]]))
    told = tokens[concept["image_id"]]
    gone = told[concept["position"] + 1]
    assert gone not in told[: concept["position"] + 1]
    module = copy.deepcopy(tiny.module)
    rows = module.lm_head.weight.data
    rows[[gone, tiny.image_token_id]] = rows[[tiny.image_token_id, gone]]
    changed = replace(tiny, module=module, anatomy=find_anatomy(module, tiny.family))
    of_it = [one for one in examples if one.image_id == concept["image_id"]]
    found = score(changed, of_it, replace(SETTINGS, methods=(names.ATTRIBUTION,)))
    assert found["caption"][0]["tokens"] == told[: told.index(gone)]
    assert concept["noun"] in {row["noun"] for row in found["score"]}


def test_every_concept_adds_up(scored):
    assert scored["concept"]
    for concept in scored["concept"]:
        assert abs(concept["residual"]) / max(abs(concept["logit"]), 1) <= 1e-5
    totals: dict[tuple, float] = {}
    for row in scored["budget"]:
        key = (row["image_id"], row["noun"])
        totals[key] = totals.get(key, 0) + row["logit"]
    for concept in scored["concept"]:
        total = totals[concept["image_id"], concept["noun"]]
        assert total == pytest.approx(concept["logit"] - concept["residual"], rel=1e-9, abs=1e-9)


def test_folded_scores_of_all_units_are_the_budgets_ffn_terms(scored):
    ranked = by_concept(scored["score"])
    ffn = [row for row in scored["budget"] if row["term"] == "ffn"]
    assert ffn
    for row in ffn:
        units = ranked[row["image_id"], row["noun"], names.CONTRIBUTION_FOLDED]
        of_layer = [score for unit, score in units.items() if unit // 48 == row["layer"]]
        assert sum(of_layer) == pytest.approx(row["logit"], abs=1e-4)


def test_batch_8_equals_batch_1(tiny, examples, scored):
    """Same captions and concepts, same top units, scores within TOLERANCE: a batch only changes the order of sums."""
    alone = score(tiny, examples, size=1)
    assert alone["image"] == scored["image"]
    assert alone["caption"] == scored["caption"]
    keys = ("image_id", "noun", "lemma", "token_id", "position", "n_mentions", "is_first", "is_shared_token")
    assert [[row[k] for k in keys] for row in alone["concept"]] == [[row[k] for k in keys] for row in scored["concept"]]
    one, eight = by_concept(alone["score"]), by_concept(scored["score"])
    assert one.keys() == eight.keys()
    for key, units in one.items():
        assert set(list(units)[:TOP]) == set(list(eight[key])[:TOP]), key
        largest = max(abs(score) for score in units.values())
        assert max(abs(score - eight[key][unit]) for unit, score in units.items()) <= TOLERANCE * largest, key


def test_random_scores_do_not_depend_on_batches_at_all(tiny, examples, scored):
    image_id = scored["concept"][-1]["image_id"]
    (example,) = (example for example in examples if example.image_id == image_id)
    alone = score(tiny, [example], replace(SETTINGS, methods=(names.RANDOM,)))
    together = by_concept(row for row in scored["score"] if row["method"] == names.RANDOM)
    expected = {key: units for key, units in together.items() if key[0] == image_id}
    assert expected
    assert by_concept(alone["score"]) == expected


def test_concepts_scored_in_parts_equal_those_scored_together(tiny, examples, scored, monkeypatch):
    monkeypatch.setattr(methods, "UNITS_AT_ONCE", 3 * N_UNITS)
    parts = score(tiny, examples, size=8)
    assert parts["concept"][0].keys() == scored["concept"][0].keys()
    assert [row["noun"] for row in parts["concept"]] == [row["noun"] for row in scored["concept"]]
    one, other = by_concept(parts["score"]), by_concept(scored["score"])
    assert one.keys() == other.keys()
    for key, units in one.items():
        assert units == pytest.approx(other[key], rel=1e-4, abs=1e-5)


def test_rows_of_a_score(scored):
    concepts = {(row["image_id"], row["noun"]) for row in scored["concept"]}
    ranks: dict[tuple, list[int]] = {}
    activation = by_concept(row for row in scored["score"] if row["method"] == names.ACTIVATION)
    for row in scored["score"]:
        assert (row["image_id"], row["noun"]) in concepts
        assert 0 <= row["layer"] < 3
        assert 0 <= row["unit"] < 48
        assert row["token_position"] is None
        same = activation[row["image_id"], row["noun"], names.ACTIVATION]
        assert row["activation"] == same[row["layer"] * 48 + row["unit"]]
        ranks.setdefault((row["image_id"], row["noun"], row["method"]), []).append(row["rank"])
    assert all(found == list(range(1, N_UNITS + 1)) for found in ranks.values())
    assert len(ranks) == len(concepts) * len(METHODS)


def test_top_and_bottom_are_cut_to_what_there_is(tiny, examples):
    rows = score(tiny, examples[:4], replace(SETTINGS, methods=(names.CONTRIBUTION,), top_k=5000, bottom_k=5000))
    for key, units in by_concept([row for row in rows["score"] if row["rank"] > 0]).items():
        assert len(units) == N_UNITS
        bottom = [row for row in rows["score"] if row["rank"] < 0 and (row["image_id"], row["noun"]) == key[:2]]
        assert [row["rank"] for row in bottom] == list(range(-1, -len(bottom) - 1, -1))
        assert len(bottom) == sum(score < 0 for score in units.values())
        assert [row["score"] for row in bottom] == sorted(score for score in units.values() if score < 0)


def test_a_word_of_the_users_choice_is_scored_where_it_was_asked_for(tiny, examples, scored):
    counted = Counter(row["image_id"] for row in scored["concept"])
    ((image_id, _),) = counted.most_common(1)
    (example,) = (example for example in examples if example.image_id == image_id)
    said = [row for row in scored["concept"] if row["image_id"] == image_id]
    last = said[-1]
    targets = ("zebra", f"tram@{last['noun']}", "owl@nowhere", said[0]["noun"])
    rows = score(tiny, [replace(example, references=("a zebra",))], replace(SETTINGS, targets=targets))
    added = rows["concept"][len(said) :]
    assert [(row["noun"], row["position"], row["target_at"]) for row in added] == [
        ("zebra", said[0]["position"], said[0]["noun"]),
        ("tram", last["position"], last["noun"]),
    ]
    assert [row["is_in_reference"] for row in added] == [True, False]
    assert all(abs(row["residual"]) / max(abs(row["logit"]), 1) <= 1e-5 for row in added)
    assert len([row for row in rows["score"] if row["noun"] == "tram"]) == N_UNITS * len(METHODS)


def test_pictures_without_a_noun_have_a_caption_and_no_scores(tiny, examples, monkeypatch):
    monkeypatch.setattr(batch, "find_concepts", lambda *_: ())
    rows = score(tiny, examples[:2])
    assert (len(rows["image"]), len(rows["caption"])) == (2, 2)
    assert not rows["concept"]
    assert not rows["score"]


def test_pixels_are_freed_before_the_model_writes(tiny, examples, monkeypatch):
    opened = open_batch(Batch("b", examples[:2]))

    def caption_without_pictures(*arguments):
        for image in opened.images:
            with pytest.raises(ValueError, match="closed"):
                image.getpixel((0, 0))
        return caption_encoded(*arguments)

    monkeypatch.setattr(batch, "caption_encoded", caption_without_pictures)
    settings = replace(SETTINGS, variants=(names.ORIGINAL, names.BLANK))
    tables = score_batch(tiny, opened.examples, opened.images, tiny.exact_prompt(PROMPT), settings)
    assert set(tables["caption"]["variant"].to_pylist()) == {names.ORIGINAL, names.BLANK}


def test_a_score_that_is_not_finite_is_our_bug(tiny, examples, monkeypatch):
    monkeypatch.setattr(methods, "contribution", lambda _anatomy, a, _rows, _chosen: a * float("nan"))
    with pytest.raises(AssertionError, match="contribution is not finite"):
        score(tiny, examples, replace(SETTINGS, methods=(names.CONTRIBUTION,)))


def test_every_method_can_be_scored():
    check_methods(tuple(names.METHODS))
    with pytest.raises(UsageError, match=r"no method 'contributions'; there are contribution, "):
        check_methods(("contribution", "contributions"))
