"""Confidence and ProjectAway against plain transformers and a hook written here; statistics against counts by hand."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmn.api import draw
from mmn.cli import main
from mmn.errors import UsageError
from mmn.images import open_image
from mmn.models.geometry import Grid, Grids
from mmn.models.geometry.grids import Cell
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import write_captions
from mmn.reading.hooks import projected_away
from mmn.reading.nouns import lemma_of, tag_nouns
from mmn.reading.synonyms import SHIPPED_PATH, Synonyms, shipped_synonyms
from mmn.runs.added_later import add_synonyms
from mmn.runs.plan import Progress
from mmn.statistics.detection import detection, precision_curve
from mmn.store import Store
from mmn.studies.hallucination import edits, measure, rows
from mmn.studies.hallucination.doubts import doubted
from mmn.studies.hallucination.edits import Edit, project_objects_away, text_direction, usual_layer
from mmn.studies.hallucination.judging import (
    ABSENT,
    HALLUCINATED,
    LISTED,
    MISSED,
    NOUNS,
    PRESENT,
    UNKNOWN,
    WAYS,
    Judge,
    Known,
)
from mmn.studies.hallucination.maps import fit, map_fits
from mmn.studies.hallucination.measure import measure_confidence
from mmn.studies.hallucination.queries import HallucinationQueries
from mmn.studies.hallucination.rows import (
    ALL,
    BEFORE,
    CHAIR_I,
    CHAIR_S,
    GONE,
    NAMED,
    NAMED_LISTED,
    OWN,
    RANDOM,
    Said,
    confidences,
    edited_rows,
    judged,
    still_named,
    told_detections,
)
from mmn.studies.lens.stream import read_stream
from mmn.view import View
from tests.scored import interrupted_at_the_second, run_path_of, tables_of
from tests.tiny import N_LAYERS, UNLIKE, WIDTH, build_family

SCORING = ["--methods", "contribution", "--top-k", 3, "--max-new-tokens", 8, "--batch-size", 2, "--device", "cpu"]
N_PICTURES = 9


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--progress", "none"]


@pytest.fixture(scope="module")
def scored(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored run: of each caption a noun is in the reference, with a dog; two pictures have masks of dog and cat."""
    folder = paint(tmp_path_factory.mktemp("hallucination") / "pictures", N_PICTURES)
    cache = folder.parent / "cache"
    assert main(words("score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING)) == 0
    image, concept = (tables_of(cache, [name])[name] for name in ("image", "concept"))
    first = concept.sort_values("position").drop_duplicates("image_id").set_index("image_id")["lemma"]
    numbers = np.zeros((100, 120), np.uint8)
    numbers[:, :60], numbers[:50, 60:] = 1, 2
    Image.fromarray(numbers).convert("P").save(folder.parent / "mask.png")
    rows = []
    for row in image.to_dict("records"):
        name = Path(row["source"]).name
        told: dict[str, object] = {"file_name": name, "text": f"a {first.get(row['image_id'], 'cat')} and a dog."}
        if name < "002":
            objects = [{"noun": "dog", "mask": 1}, {"noun": "cat", "mask": 2}]
            told |= {"mask_file": str(folder.parent / "mask.png"), "objects": objects}
        rows.append(told)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(words("annotate", "latest", "--references", folder, "--cache", cache, "--device", "cpu")) == 0
    return cache


@pytest.fixture(scope="module")
def measured(scored: Path, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, measured and edited. Read only."""
    cache = Path(shutil.copytree(scored, tmp_path_factory.mktemp("measured") / "cache"))
    measure_confidence(tiny, run_path_of(cache), n_objects=12)
    project_objects_away(tiny, run_path_of(cache), Edit(1.0, 0, 0), n_objects=12)
    return cache


def opened(cache: Path) -> Store:
    store = Store.open(cache)
    store.load_new_shards([store.runs_path])
    return store


# ---- confidence


def test_confidence_is_the_highest_softmax_of_plain_transformers(measured: Path, tiny: Model) -> None:
    with opened(measured) as store:
        rows = store.ask(HallucinationQueries).confidences("latest")
        images, prompt = store.table("latest", "image"), store.run("latest")["prompt"]
    image = images[images["source"].str.endswith("000.png")].iloc[0]
    inputs = tiny.encode([open_image(image["source"])], prompt)
    with torch.inference_mode():
        states = tiny.module(**inputs, output_hidden_states=True).hidden_states
        at = image_positions(tiny, inputs)[0]
        norm, head = tiny.module.model.language_model.norm, tiny.module.lm_head
        read = {
            "raw": [head(state[0, at]) for state in states],
            "normed": [head(norm(state[0, at])) for state in states[:-1]] + [head(states[-1][0, at])],
        }
    here = rows[rows["image_id"] == image["image_id"]]
    assert len(states) == N_LAYERS + 1
    assert {"dog", "cat"} <= set(here["object"])
    for row in here.itertuples():
        probs = torch.stack(read[row.readout])[..., : len(tiny.tokenizer)].softmax(-1)
        of_object = probs[..., tiny.tokenizer(row.object, add_special_tokens=False).input_ids].amax(-1)
        assert row.confidence == pytest.approx(of_object.max().item(), rel=1e-4)
        layer, token = divmod(int(of_object.argmax()), of_object.shape[1])
        assert (-1 if pd.isna(row.layer) else int(row.layer), row.token_position) == (layer - 1, token)
    kept = tables_of(measured, ["object_map"])["object_map"]
    one = kept[(kept["image_id"] == image["image_id"]) & (kept["readout"] == "raw") & (kept["object"] == "dog")]
    probs = torch.stack(read["raw"])[..., : len(tiny.tokenizer)].softmax(-1)
    of_dog = probs[..., tiny.tokenizer("dog", add_special_tokens=False).input_ids].amax(-1).amax(0)
    assert one["scores"].iloc[0] == pytest.approx(of_dog.numpy(), rel=1e-4)


# ---- ProjectAway


@pytest.mark.parametrize("name", UNLIKE)
def test_directions_leave_image_tokens_that_point_along_them_and_nothing_else(name: str) -> None:
    model, inputs = build_family(name)
    two = {key: torch.cat([value, value]) for key, value in inputs.items()}
    is_image = image_positions(model, inputs)[0]
    torch.manual_seed(0)
    plain, hooks = read_stream(model, inputs).after[0], len(model.anatomy.layers[0]._forward_hooks)
    v = torch.randn(2, WIDTH) * 0.1
    v[0] += plain[is_image][0]  # so that one points along it
    seen: list[torch.Tensor] = []
    with projected_away(model, 0, torch.stack([v, 0 * v]), is_image, 1.5):
        handle = model.anatomy.layers[0].register_forward_hook(lambda *given: seen.append(given[2]))
        model.module(**two, use_cache=False)
        handle.remove()
    edited = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    expected = plain.clone()
    for one, token in itertools.product(v, is_image.nonzero()[:, 0].tolist()):
        h = expected[token].clone()
        if h @ one > 0:
            expected[token] = h - 1.5 * (h @ one) / (one @ one) * one
    assert torch.allclose(edited[0], expected, atol=1e-4)
    assert not torch.allclose(expected, plain, atol=1e-3)
    assert torch.allclose(edited[1], plain, atol=1e-5)  # a row of zeros; batches differ by rounding
    assert len(model.anatomy.layers[0]._forward_hooks) == hooks


def test_a_caption_under_the_edit_is_that_of_a_hook_written_here(scored: Path, tiny: Model) -> None:
    """The direction from transformers' own text model, the edit while it reads the prompt, and its own generate."""
    with opened(scored) as store:
        image, prompt = store.table("latest", "image").iloc[0], store.run("latest")["prompt"]
    inputs = tiny.encode([open_image(image["source"])], prompt)
    (token,) = tiny.tokenizer("dog").input_ids
    text = tiny.module.model.language_model
    with torch.inference_mode():
        ids = torch.tensor([[tiny.tokenizer.bos_token_id, token]])
        v = text(input_ids=ids, output_hidden_states=True).hidden_states[2][0, -1]
    assert torch.allclose(text_direction(tiny, [token], 1), v, atol=1e-5)
    at = image_positions(tiny, inputs)[0]

    def edit(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor | None:
        if output.shape[1] == 1:
            return None
        changed = output.clone()
        for position in at.nonzero()[:, 0].tolist():
            along = changed[0, position] @ v
            if along > 0:
                changed[0, position] -= 20.0 * along / (v @ v) * v
        return changed

    def generate() -> list[int]:
        with torch.inference_mode():
            return tiny.module.generate(**inputs, do_sample=False, max_new_tokens=8)[0].tolist()

    handle = text.layers[1].register_forward_hook(edit)
    by_hand = generate()
    handle.remove()
    with projected_away(tiny, 1, v[None, None], at, 20.0):
        ours, logits = write_captions(tiny, inputs, 8)
        assert generate() == by_hand
    assert by_hand != generate(), "the edit changes nothing here, so that nothing was compared"
    assert list(ours[0].token_ids) == by_hand[len(at) :][: len(ours[0].token_ids)]
    assert torch.isfinite(logits[0]).all()


def test_an_edit_that_nothing_ran_under_is_an_error() -> None:
    model, inputs = build_family("llava")
    is_image = image_positions(model, inputs)[0]
    nothing, two = (projected_away(model, 0, torch.ones(n, 1, WIDTH), is_image, 1.0) for n in (1, 2))
    with pytest.raises(AssertionError, match="no pass over the whole prompt"), nothing:
        pass
    with pytest.raises(AssertionError, match="directions of 2"), two:
        model.module(**inputs)
    assert not model.anatomy.layers[0]._forward_hooks


def test_the_demo_s_layers_in_proportion() -> None:
    assert [(usual_layer(1, n), usual_layer(3, n)) for n in (32, 8, 64, 2)] == [(0, 2), (0, 0), (1, 5), (0, 0)]


def test_settings_that_are_none_are_refused(tiny: Model) -> None:
    assert Edit.of(tiny) == Edit(1.5, 0, 0)
    for bad, why in (
        ({"alpha": 0.0}, "--alpha 0"),
        ({"image_layer": 3}, "--image-layer 3"),
        ({"text_layer": 9}, "0–2"),
    ):
        with pytest.raises(UsageError, match=why):
            Edit.of(tiny, **bad)


# ---- what is there


def test_objects_are_judged_by_outlines_and_references() -> None:
    known = {
        "both": Known(frozenset({"dog"}), frozenset({"sea"})),
        "masks": Known(frozenset({"cat"}), None),
        "words": Known(None, frozenset({"sea"})),
    }
    judge = Judge.of(known)
    said = {
        (image, name): judge.state(image, name, is_said=True) for image in (*known, "none") for name in ("dog", "sea")
    }
    assert said == {
        ("both", "dog"): PRESENT,
        ("both", "sea"): PRESENT,
        ("masks", "dog"): HALLUCINATED,  # some picture's masks are of dogs
        ("masks", "sea"): UNKNOWN,  # and none of the sea
        ("words", "dog"): HALLUCINATED,
        ("words", "sea"): PRESENT,
        ("none", "dog"): UNKNOWN,
        ("none", "sea"): UNKNOWN,
    }
    assert judge.state("both", "dog", is_said=False) == MISSED
    assert judge.state("masks", "dog", is_said=False) == ABSENT
    assert judge.state("masks", "dog", is_said=True, is_compound=True) == UNKNOWN, "a hot dog is no dog"


def test_words_for_what_is_there_are_present_and_words_for_nothing_count_for_no_listed_object() -> None:
    """The published way by hand: man, puppy, puppy, hot dog, table, giraffe; sky and traffic are no objects."""
    nouns = ["man", "puppy", "dog", "table", "sky", "traffic", "light", "giraffe"]
    text = "A man, a puppy and a puppy, a hot dog on a table, the sky, a traffic light and a giraffe."
    told = Known(
        frozenset({"person"}), frozenset({"dog", "phone"}), frozenset({"person", "giraffe"}), shipped_synonyms()
    )
    judge = Judge.of({"one": told, "plain": replace(told, synonyms=Synonyms())})
    assert judge.states("one", nouns, {"dog", "traffic", "light"}, text) == {
        **dict.fromkeys(("man", "puppy"), PRESENT),
        **dict.fromkeys(("dog", "table", "sky", "light", "giraffe"), HALLUCINATED),  # of a hot dog and a traffic light
        "traffic": UNKNOWN,
    }
    assert judge.count_listed("one", nouns, text) == (4, 7)
    assert judge.hallucinated("one", nouns, (), text, LISTED) == ("dog", "table", "light", "giraffe")
    assert judge.states("plain", nouns[:3], (), text) == {"man": HALLUCINATED, "puppy": HALLUCINATED, "dog": PRESENT}
    assert judge.count_listed("plain", nouns, text) == (0, 0)
    own = Judge.of({"one": replace(told, outlinable=frozenset({"person", "man"}))})
    assert own.states("one", ["man", "woman"], ()) == {"man": HALLUCINATED, "woman": PRESENT}, "they tell men apart"


# ---- statistics and maps


def test_an_object_is_gone_where_no_word_for_it_is_left() -> None:
    judge = Judge.of({"one": Known(None, frozenset({"dog"}), synonyms=shipped_synonyms())})
    before = Said(["puppy", "sky", "dog"], ["dog"], "A puppy, the sky and a hot dog")
    left = {
        text: still_named(judge, "one", before, Said([span.lemma for span in tag_nouns(text)], [], text))
        for text in ("a dog", "a hot dog", "a sky")
    }
    assert left["a dog"] == {"puppy": True, "sky": False, "dog": False}
    assert left["a hot dog"] == {"puppy": False, "sky": False, "dog": True}
    assert left["a sky"] == {"puppy": False, "sky": True, "dog": False}


def test_detection_counts_pairs_and_precisions() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"image_id": np.repeat(np.arange(20), 3), "is_positive": rng.random(60) < 0.6})
    rows["c"] = np.round(rng.random(60) + 0.4 * rows["is_positive"], 1)  # ties
    there, others = rows.loc[rows["is_positive"], "c"], rows.loc[~rows["is_positive"], "c"]
    pairs = [(a > b) + 0.5 * (a == b) for a in there for b in others]
    found = detection(rows, "c")
    assert found.auroc == pytest.approx(np.mean(pairs))
    at = [(rows["c"] >= value, value) for value in there]
    assert found.average_precision == pytest.approx(np.mean([rows.loc[said, "is_positive"].mean() for said, _ in at]))
    assert found.low < found.auroc < found.high <= 1
    curve = precision_curve(rows, "c")
    last = curve.iloc[-1]
    said = rows["c"] >= there.min()
    assert (last["recall"], last["precision"]) == (1.0, pytest.approx(rows.loc[said, "is_positive"].mean()))
    few = detection(rows[rows["image_id"] < 7], "c")
    assert np.isnan(few.low)


def test_a_map_that_is_the_mask_fits_it_and_another_does_not() -> None:
    grids = Grids((Grid.even(2, 2, (0.0, 0.0, 40.0, 40.0)),), tuple(Cell(0, i // 2, i % 2) for i in range(4)))
    left, right = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    left[:, :20], right[:, 20:] = True, True
    maps = {"dog": np.array([1, 0, 1, 0], np.float32), "cat": np.array([0, 1, 0, 1], np.float32)}
    found = map_fits(maps, {"dog": left, "cat": right, "bird": left}, grids)
    assert found["dog"] == {"iou": 1, "iou_best": 1, "precision": 1, "precision_chance": 0.5} | {
        "iou_other": 0,
        "precision_other": pytest.approx(fit(np.where(right, 1.0, 0.0).astype(np.float32), left).precision, abs=0.2),
    }
    assert set(found) == {"dog", "cat"}
    assert map_fits({"dog": maps["dog"]}, {"dog": left}, grids)["dog"]["iou_other"] is None


# ---- a run


def test_what_is_there_is_what_masks_and_references_say(measured: Path) -> None:
    with opened(measured) as store:
        data, image = judged(store, "latest"), store.table("latest", "image").set_index("image_id")
        fits = store.ask(HallucinationQueries).fits("latest")
        doubts = doubted(store, "latest").groupby("image_id")
    assert data["image_id"].nunique() == N_PICTURES
    for row in data.itertuples():
        is_there = row.object in image.loc[row.image_id, "reference"][0] or (
            row.object == "cat" and Path(image.loc[row.image_id, "source"]).name < "002"
        )
        wanted = (PRESENT if row.is_said else MISSED) if is_there else (HALLUCINATED if row.is_said else ABSENT)
        wanted = UNKNOWN if row.is_compound and not is_there else wanted
        assert row.state == wanted, row
    assert set(fits["object"]) == {"dog", "cat"}
    assert len(fits) == 2 * 2 * 2
    assert fits["iou"].between(0, 1).all()
    threshold = data.loc[~data["is_said"], "raw"].quantile(0.95)
    for image_id in image.index:
        found = doubts.get_group(image_id) if image_id in doubts.groups else data.head(0).assign(threshold=0.0)
        here = data[(data["image_id"] == image_id) & data["is_said"] & (data["raw"] <= threshold)]
        assert len(found) == len(here)
        assert found["threshold"].tolist() == pytest.approx([threshold] * len(here))
    assert len(doubts) > 0


def test_chair_is_counted_by_hand(measured: Path) -> None:
    """Each mention of a word for a listed object, as published, and each noun once; by the list's own lines."""
    tables = tables_of(measured, ["projected_away", "concept", "image", "caption"])
    edited, concept = tables["projected_away"], tables["concept"]
    mentioned = {row["image_id"]: row["reference"][0] for row in tables["image"].to_dict("records")}
    masked = {row["image_id"] for row in tables["image"].to_dict("records") if Path(row["source"]).name < "002"}
    means = dict(line.split(",") for line in SHIPPED_PATH.read_text().split("\n")[1:-1])

    def is_there(image_id: str, name: str) -> bool:
        there = {*re.findall("[a-z]+", mentioned[image_id]), *(("dog", "cat") if image_id in masked else ())}
        return means.get(name, name) in {means.get(one, one) for one in there}

    def that_count(image_id: str, nouns: list[str], compounds: set[str], text: str, way: str) -> list[tuple[str, bool]]:
        """The nouns that count, and whether each is there."""
        if way == LISTED:
            said = [lemma_of(word) for word in re.findall("[a-z]+", text.lower())]
            return [(one, is_there(image_id, one)) for one in said if one in nouns and one in means]
        return [(one, is_there(image_id, one)) for one in nouns if is_there(image_id, one) or one not in compounds]

    concept = concept.sort_values("position")
    parts = concept[concept["is_compound"]].groupby("image_id")["lemma"].agg(set).to_dict()
    texts = tables["caption"].set_index("image_id")["text"]
    named = concept.groupby("image_id")["lemma"].agg(list).items()
    before: dict[str, tuple[list[str], set[str], str]] = {
        image_id: (nouns, parts.get(image_id, set()), texts[image_id]) for image_id, nouns in named
    }
    wrong = {one: [name for name, is_so in that_count(one, *said, NOUNS) if not is_so] for one, said in before.items()}
    with opened(measured) as store:
        found = edited_rows(store, "latest").set_index(["quantity", "line"])["mean"]
        detections = {(one["of"], one.get("score")): one for one in told_detections(store, "latest")}
    for way in WAYS:
        after: dict[str, tuple[list[str], set[str], str]] = {}
        for image_id, said in before.items():
            removed = " + ".join(one for one in wrong[image_id] if way == NOUNS or one in means)
            row = edited[
                (edited["image_id"] == image_id) & (edited["removed"] == removed) & (edited["direction"] == "object")
            ]
            told = [(list(one.nouns), set(one.compounds), one.caption) for one in row.itertuples()]
            after[image_id] = told[0] if told else said
        for line, captions in ((BEFORE, before), (OWN, after)):
            counts = [[is_so for _, is_so in that_count(image_id, *said, way)] for image_id, said in captions.items()]
            assert found[CHAIR_S[way], line] == pytest.approx(np.mean([not all(one) for one in counts])), (way, line)
            of_all = np.mean([not is_so for one in counts for is_so in one])
            assert found[CHAIR_I[way], line] == pytest.approx(of_all), (way, line)
    alone = edited[~edited["removed"].str.contains("+", regex=False) & (edited["direction"] == "random")]
    alone = alone[[one.removed in wrong[one.image_id] for one in alone.itertuples()]]
    gone = [float(one.removed not in one.nouns) for one in alone.itertuples()]
    assert found[GONE[HALLUCINATED], RANDOM] == pytest.approx(
        pd.Series(gone).groupby(alone["image_id"].tolist()).mean().mean()
    )
    assert detections[NAMED, "no norm"]["n_negative"] == sum(map(len, wrong.values()))
    assert detections[NAMED_LISTED, "no norm"]["n_negative"] == sum(
        one in means for some in wrong.values() for one in some
    )
    assert detections[ALL, "another picture's"]["n_images"] == N_PICTURES


def test_again_does_nothing_and_an_interrupted_call_goes_on(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_path, edit = run_path_of(cache), Edit(1.0, 0, 0)
    with interrupted_at_the_second(monkeypatch, measure, "_answer"):
        measure_confidence(tiny, run_path, n_objects=3)
    told: list[Progress] = []
    measure_confidence(tiny, run_path, n_objects=3, progress=told.append)
    assert told[0].done == 2
    monkeypatch.setattr(edits, "PICTURES_OF_A_SHARD", 1)
    with interrupted_at_the_second(monkeypatch, edits, "_answer"):
        project_objects_away(tiny, run_path, edit, 2, 12)
    project_objects_away(tiny, run_path, edit, 2, 12)
    before = {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")}
    measure_confidence(tiny, run_path, n_objects=3)
    project_objects_away(tiny, run_path, edit, 2, 12)
    assert {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")} == before
    rows = tables_of(cache, ["projected_away"])["projected_away"]
    assert rows["image_id"].nunique() == 2
    assert rows.groupby(["image_id", "removed"])["direction"].agg(set).map(len).eq(3).all()


def test_references_that_are_given_later_are_judged_by(cache: Path, tiny: Model, tmp_path: Path) -> None:
    measure_confidence(tiny, run_path_of(cache), 2, 3)
    image = tables_of(cache, ["image"])["image"]
    told = [{"file_name": row["source"], "text": "a zebra."} for row in image.to_dict("records")]
    (tmp_path / "later.jsonl").write_text("\n".join(map(json.dumps, told)))
    assert main(words("annotate", "latest", "--references", tmp_path / "later.jsonl", "--cache", cache)) == 0
    measure_confidence(tiny, run_path_of(cache), 2, 3)
    truth = tables_of(cache, ["object_truth"])["object_truth"]
    assert truth.groupby("image_id")["revision"].agg(list).tolist() == [[1, 2], [1, 2]]
    with opened(cache) as store:
        judge = store.ask(HallucinationQueries).judge("latest")
    assert all(judge.is_there(image_id, "zebra") for image_id in truth["image_id"])


def test_a_noun_is_doubted_by_all_words_for_its_object(measured: Path, tiny: Model, tmp_path: Path) -> None:
    """By a list of which all objects without masks mean the same, the surest word speaks for all that is named."""
    cache = Path(shutil.copytree(measured, tmp_path / "cache"))
    with opened(cache) as store:
        read = store.ask(HallucinationQueries).confidences("latest").query("readout == 'raw'")
    one, *others = (name for name in read["object"].unique() if name not in ("dog", "cat"))
    (tmp_path / "words.csv").write_text("word,object\n" + "".join(f"{name},{one}\n" for name in others))
    add_synonyms(run_path_of(cache), f"only:{tmp_path / 'words.csv'}")
    measure_confidence(tiny, run_path_of(cache), n_objects=12)
    with opened(cache) as store:
        rows = store.ask(HallucinationQueries).confidences("latest").query("readout == 'raw'")
        found = doubted(store, "latest")
    meant = rows["object"].where(rows["object"].isin(["dog", "cat"]), one)
    named = rows.assign(meant=meant).groupby(["image_id", "meant"])["is_said"].transform("any")
    threshold = rows.loc[~named, "confidence"].quantile(0.95)
    surest = rows.assign(meant=meant).groupby(["image_id", "meant"])["confidence"].transform("max")
    wanted = rows[rows["is_said"] & (surest <= threshold)].sort_values(["image_id", "noun"])
    assert 0 < (~named).sum() < (~rows["is_said"]).sum()
    assert found["noun"].tolist() == wanted["noun"].tolist()
    assert found["threshold"].tolist() == pytest.approx([threshold] * len(wanted))
    assert found["confidence"].tolist() == pytest.approx(surest[wanted.index].tolist())


def test_other_synonyms_are_judged_by_once_measured_again(
    measured: Path, tiny: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another list is another revision; what was judged before stays as it was until then."""
    cache = Path(shutil.copytree(measured, tmp_path / "cache"))
    run_path, file = run_path_of(cache), tmp_path / "words.csv"
    file.write_text("word,object\nquuxes,dog\n")
    before = {path.name for path in run_path.iterdir()}

    def judge() -> Judge:
        with opened(cache) as store:
            return store.ask(HallucinationQueries).judge("latest")

    def give(spec: object) -> bool:
        assert main(words("annotate", "latest", "--synonyms", spec, "--cache", cache, "--json")) == 0
        return bool(json.loads(capsys.readouterr().out)["synonyms"]["is_changed"])

    assert [give(file), give(file)] == [True, False]
    assert judge().told() == str(shipped_synonyms())
    measure_confidence(tiny, run_path, 2, 12)
    project_objects_away(tiny, run_path, Edit(1.0, 0, 0), 2, 12)
    assert sum(path.name.startswith(("hall", "project")) for path in run_path.iterdir() if path.name not in before) == 2
    with opened(cache) as store:
        rows, kept = store.table("latest", "projected_away"), store.ask(HallucinationQueries).edits("latest")
    twice = rows.loc[rows["revision"] == 2, "image_id"].unique()
    assert rows.groupby("revision")["version"].nunique().to_dict() == {1: 1, 2: 1}
    assert len(twice) == 2
    assert len(kept) == len(rows) - (rows["image_id"].isin(twice) & (rows["revision"] == 1)).sum()
    assert give("none")
    assert judge().told() == "with 424 synonyms of 80 objects or with 425 synonyms of 80 objects"
    again = [one for one, told in judge().known.items() if told.synonyms.is_listed("quux")]
    assert [judge().is_there(one, "quux") for one in again] == [True, True]


def test_without_masks_and_references_figures_of_objects_are_refused(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report of such a run ended in a traceback."""
    with opened(measured) as store:
        unknown = judged(store, "latest").assign(state=UNKNOWN)
        monkeypatch.setattr(rows, "judged", lambda *_: unknown)
        for name in ("hallucination", "hallucination-objects", "hallucination-confidence"):
            with pytest.raises(UsageError, match="neither masks nor references"):
                draw(name, store, View(run="latest")).chart  # noqa: B018 - drawing is what is tried


def test_the_command_says_what_it_found_and_what_it_cannot(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["latest", "--cache", measured, "--device", "cpu", "--objects", 12, "--limit", 99]
    edit = ["--project-away", "--alpha", 1, "--text-layer", 0, "--image-layer", 0]
    assert main(words("hallucination", *run, *edit, "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == said | {"n_images": N_PICTURES, "n_failed": 0, "database": "loaded", "alpha": 1.0, "image_layer": 0}
    assert {one["of"] for one in said["detections"]} == {NAMED, NAMED_LISTED, ALL}
    assert main(words("hallucination", *run)) == 0
    out = capsys.readouterr().out
    assert f"{NAMED}, no norm: AUROC " in out
    assert all(f"{CHAIR_S[way]}, {BEFORE}: " in out for way in WAYS)
    assert f"masks or references tell of 9 pictures, {shipped_synonyms()}" in out
    assert main(words("hallucination", *run, "--alpha", 2)) == 2
    assert "--alpha is of --project-away" in capsys.readouterr().err


def test_a_model_that_reads_pictures_elsewhere_is_refused_by_name(
    measured: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "image_token_id", None)
    for refused in (
        lambda: measure_confidence(tiny, run_path_of(measured)),
        lambda: project_objects_away(tiny, run_path_of(measured), Edit(1.0, 0, 0)),
    ):
        with pytest.raises(UsageError, match="models of family 'llava' have no image tokens"):
            refused()


def test_confidences_of_which_nothing_is_known_are_refused_and_not_drawn_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of photographs without masks ended in an error of pandas here."""
    data = pd.DataFrame({"image_id": ["a"], "object": ["dog"], "state": [UNKNOWN], "raw": [0.1], "is_listed": [True]})
    monkeypatch.setattr("mmn.studies.hallucination.rows.judged", lambda *_given: data)
    asked: Any = SimpleNamespace(run_id="r", run={})
    with pytest.raises(UsageError, match="neither masks nor references"):
        confidences(None, asked)  # type: ignore[arg-type]
