"""`mmn lens` on a scored run: the rows are what the model says, the shares are counted rightly, and it resumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from mmn.cli import main
from mmn.errors import UsageError
from mmn.images import open_image
from mmn.models.geometry import Cell, Grid, Grids
from mmn.models.model import Model
from mmn.runs import shards
from mmn.runs.plan import Progress
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.studies.lens import measure as reading
from mmn.studies.lens.measure import read_image_tokens
from mmn.studies.lens.queries import LensQueries
from mmn.studies.lens.rows import CAPTION, ELSEWHERE, ON_OBJECT, layer_shares, nearest_result
from mmn.studies.lens.stream import normed_stream, read_stream
from mmn.studies.tables import TABLES
from mmn.units.decoding import token_text
from mmn.units.heat_maps import tokens_on
from tests.scored import interrupted_at_the_second, run_path_of

N_TOKENS, N_LAYERS = 64, 3
SCORING = ["--methods", "contribution", "--top-k", 3, "--max-new-tokens", 8, "--batch-size", 2, "--device", "cpu"]


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--progress", "none"]


@pytest.fixture(scope="module")
def scored(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of three pictures in two batches; the first noun of two lies in their left half."""
    folder = paint(tmp_path_factory.mktemp("lens") / "pictures", 3)
    cache = folder.parent / "cache"
    assert main(words("score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING)) == 0
    with Store.open(cache) as store:
        pictures = store.ask(PictureQueries).pictures("latest")
        nouns = [
            store.ask(PictureQueries).picture_concepts("latest", image_id)["lemma"].iloc[0]
            for image_id in pictures["image_id"]
        ]
    rows = []
    for number in range(2):
        numbers = np.zeros((100, 120), np.uint8)
        numbers[:, :60] = 1
        Image.fromarray(numbers).convert("P").save(folder.parent / f"{number}.png")
        objects = [{"noun": nouns[number], "mask": 1}]
        mask = str(folder.parent / f"{number}.png")
        rows.append({"file_name": f"00{number}.png", "mask_file": mask, "objects": objects})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return cache


def rows_of(cache: Path) -> pd.DataFrame:
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        return store.table("latest", "lens")


def test_rows_are_what_the_model_says(cache: Path, tiny: Model) -> None:
    read_image_tokens(tiny, run_path_of(cache))
    rows = rows_of(cache)
    counts = rows["kind"].value_counts().to_dict()
    every = 3 * N_TOKENS
    assert counts == {"nearest": every, "random": every, "logit-lens": every * N_LAYERS, "nouns": every * N_LAYERS}
    with Store.open(cache) as store:
        picture = store.ask(PictureQueries).picture(
            "latest", store.ask(PictureQueries).pictures("latest")["image_id"].iloc[0]
        )
        prompt = store.run("latest")["prompt"]
        concepts = store.ask(PictureQueries).picture_concepts("latest", picture["image_id"])
        said = store.ask(LensQueries).image_words("latest", picture["image_id"], 1)
        nouns = store.ask(LensQueries).noun_probabilities("latest", picture["image_id"])
        assert store.ask(PictureQueries).grid("latest", picture["image_id"]) is not None
    stream = read_stream(tiny, tiny.encode([open_image(picture["source"])], prompt))
    with torch.inference_mode():
        logits = tiny.anatomy.unembedding(normed_stream(tiny, stream, 1)[stream.is_image])
    probs = logits[:, : len(tiny.tokenizer)].softmax(-1).double()
    assert np.allclose([scores[0] for scores in said["scores"]], probs.max(-1).values, rtol=1e-4)
    assert [tokens[0] for tokens in said["tokens"]] == [token_text(tiny.tokenizer, int(i)) for i in probs.argmax(-1)]
    for concept in concepts.itertuples():
        found = nouns[(nouns["layer"] == 1) & (nouns["noun"] == concept.noun)]
        assert np.allclose(found["prob"], probs[:, concept.token_id], rtol=1e-4)


def test_shares_are_counted_by_hand(cache: Path, tiny: Model) -> None:
    """From the captured probabilities alone: which tokens say which noun, on the left half and on the right."""
    read_image_tokens(tiny, run_path_of(cache))
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        shares = layer_shares(store, "latest").set_index(["layer", "line"])["mean"]
        said: dict[tuple[str, int], list[float]] = {}
        pictures = store.ask(PictureQueries).pictures("latest")
        for number, image_id in enumerate(pictures["image_id"]):
            lemma = store.ask(PictureQueries).picture_concepts("latest", image_id)["noun"].iloc[0]
            for layer in range(N_LAYERS):
                top = np.stack(store.ask(LensQueries).image_words("latest", image_id, layer)["scores"])[:, 0]
                probs = store.ask(LensQueries).noun_probabilities("latest", image_id)
                wide = probs[probs["layer"] == layer].pivot(index="token_position", columns="noun", values="prob")
                is_top = wide.to_numpy() >= 0.999999 * top[:, None]
                said.setdefault((CAPTION, layer), []).append(is_top.any(axis=1).mean())
                if number < 2:
                    is_left = np.tile(np.arange(8) < 4, 8)
                    first = is_top[:, list(wide.columns).index(lemma)]
                    said.setdefault((ON_OBJECT, layer), []).append(first[is_left].mean())
                    said.setdefault((ELSEWHERE, layer), []).append(first[~is_left].mean())
    assert len(shares) == len(said) == 3 * N_LAYERS
    for (line, layer), of_pictures in said.items():
        assert shares[layer, line] == pytest.approx(np.mean(of_pictures)), (line, layer)


def test_a_noun_is_said_only_where_it_is_the_most_probable(cache: Path) -> None:
    """Four image tokens, two nouns; the third token says the second noun, the fourth the first, and no more."""
    with Store.open(cache) as store:
        image_id = store.ask(PictureQueries).pictures("latest")["image_id"].iloc[0]
    key = {"image_id": image_id, "layer": 1}
    probs = [[0.4, 0.1], [0.29, 0.29], [0.1, 0.5], [0.3, 0.1]]
    rows = [
        key | {"kind": kind, "token_position": at, "tokens": tokens, "scores": scores}
        for at, (top, asked) in enumerate(zip([0.5, 0.3, 0.5, 0.3], probs, strict=True))
        for kind, tokens, scores in (("logit-lens", ["x"], [top]), ("nouns", ["dog", "bus"], asked))
    ]
    shards.write_shard(run_path_of(cache), "by-hand", {"lens": pa.Table.from_pylist(rows, schema=TABLES["lens"])})
    on_dog = [True, False, False, True]
    places = pd.DataFrame({"image_id": image_id, "noun": "dog", "token_position": range(4), "is_on": on_dog})
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        assert store.ask(LensQueries).noun_shares("latest")["share"].tolist() == [0.5]
        found = store.ask(LensQueries).object_shares("latest", places).set_index("is_on")["share"]
        assert found.to_dict() == {True: 0.5, False: 0.0}


def test_again_does_nothing_and_an_interrupted_call_goes_on(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_path = run_path_of(cache)
    with interrupted_at_the_second(monkeypatch, reading, "_answer"):
        read_image_tokens(tiny, run_path)
    told: list[Progress] = []
    read_image_tokens(tiny, run_path, progress=told.append)
    assert [one.done for one in told] == [2, 3]
    before = {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")}
    read_image_tokens(tiny, run_path)
    assert {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")} == before
    assert len(rows_of(cache)) == 3 * N_TOKENS * (2 + 2 * N_LAYERS)
    assert len(list(run_path.glob("lens-random-*"))) == 1


def test_a_limit_is_rounded_up_to_whole_batches_and_layers_are_chosen(cache: Path, tiny: Model) -> None:
    read_image_tokens(tiny, run_path_of(cache), limit=1, top=2, layers=[2])
    rows = rows_of(cache)
    assert rows["image_id"].nunique() == 2
    assert rows.loc[rows["kind"] == "logit-lens", "layer"].unique().tolist() == [2]
    assert set(rows.loc[rows["kind"] != "nouns", "tokens"].map(len)) == {2}


def test_random_vectors_are_told_apart_only_where_they_differ(cache: Path, tiny: Model) -> None:
    """Vectors drawn like the image tokens of this random model are like them: P1's finding, here by construction."""
    read_image_tokens(tiny, run_path_of(cache))
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        tokens = store.ask(LensQueries).nearest_tokens("latest")
    found = nearest_result(tokens)
    assert found is not None
    assert (found.test.n_first, found.test.n_second) == (3 * N_TOKENS, 3 * N_TOKENS)
    assert 0 <= found.word_share <= 1
    moved = tokens.assign(cosine=tokens["cosine"] + 9 * (tokens["kind"] == "nearest"))
    far = nearest_result(moved)
    assert far is not None
    assert far.test.statistic == 1
    assert nearest_result(tokens[tokens["kind"] == "random"]) is None


def test_a_decoder_with_positions_gets_the_lens_only_and_it_is_said(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmn.studies.lens.neighbours.PARALLEL", 2.0)  # no cosine reaches it
    told: list[Progress] = []
    read_image_tokens(tiny, run_path_of(cache), progress=told.append)
    assert set(rows_of(cache)["kind"]) == {"logit-lens", "nouns"}
    assert len([one for one in told if "use the logit lens" in one.message]) == 1


def test_a_picture_that_is_gone_is_a_failure(
    paint: Callable[[Path, int], Path], checkpoint: Path, tiny: Model, tmp_path: Path
) -> None:
    folder, cache = paint(tmp_path / "pictures", 2), tmp_path / "cache"
    assert main(words("score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING)) == 0
    (folder / "000.png").unlink()
    read_image_tokens(tiny, run_path_of(cache))
    assert rows_of(cache)["image_id"].nunique() == 1
    with Store.open(cache) as store:
        assert store.table("latest", "failure")["stage"].tolist() == ["lens"]
    (folder / "001.png").unlink()
    for name in shards.finished_shards(run_path_of(cache)):
        if name.startswith("lens"):
            shutil.rmtree(run_path_of(cache) / name)
    with pytest.raises(UsageError, match="no picture of run"):
        read_image_tokens(tiny, run_path_of(cache))


@pytest.mark.parametrize(
    ("layers", "why"), [("3", "no layer 3"), ("one", "not a layer's number"), (",", "--layers is empty")]
)
def test_a_layer_that_is_not_there(cache: Path, layers: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("lens", "latest", "--cache", cache, "--layers", layers, "--device", "cpu")) == 2
    assert why in capsys.readouterr().err


def test_the_command_says_what_it_found(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("lens", "latest", "--cache", cache, "--json", "--device", "cpu")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == said | {"n_images": 3, "n_image_tokens": 192, "n_random": 192, "n_failed": 0, "database": "loaded"}
    assert len(said["layers"]) == 9
    assert 0 <= said["statistic"] <= 1
    assert main(words("lens", "latest", "--cache", cache, "--device", "cpu")) == 0
    out = capsys.readouterr().out
    assert "nearest word: D = " in out
    assert len([line for line in out.splitlines() if line.startswith("after layer")]) == N_LAYERS


def test_tokens_lie_on_an_object_where_half_of_their_stretch_does() -> None:
    """Two by two tokens over 4 × 4 pixels: the mask covers all of one, half of another, a pixel of the third."""
    mask = np.zeros((4, 4), bool)
    mask[:2, :3] = True
    mask[2, 0] = True
    grids = Grids(
        (Grid.even(2, 2, (0.0, 0.0, 4.0, 4.0)),), (*(Cell(0, row, column) for row in (0, 1) for column in (0, 1)), None)
    )
    assert tokens_on(mask, grids).tolist() == [True, True, False, False, False]
