"""`mmn image-tokens`: what it measures is what plain transformers says with the embeddings replaced, or with a mask."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmn.cli import main
from mmn.core import Concept
from mmn.errors import UsageError
from mmn.figures.figure import draw
from mmn.images import open_image
from mmn.models.geometry import Cell, Grid, Grids
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.hooks import Blocked, block_attention, embed
from mmn.runs.plan import Progress
from mmn.runs.proof import n_hooks
from mmn.runs.reopen import ScoredRun, open_run
from mmn.store import Store
from mmn.studies.image_tokens import command, measure
from mmn.studies.image_tokens.gradients import integrated_gradients
from mmn.studies.image_tokens.measure import KNOCKOUT, REPLACE, measure_image_tokens
from mmn.studies.image_tokens.pictures import image_embeddings, mean_image_token
from mmn.studies.image_tokens.proof import require_blockable, require_replaceable
from mmn.studies.image_tokens.queries import ImageTokenQueries
from mmn.studies.image_tokens.replacing import token_counts
from mmn.studies.image_tokens.sets import highest, last_row, moved, object_tokens, random_tokens, registers, ringed
from mmn.studies.image_tokens.windows import layer_windows
from mmn.studies.registry import FIGURES
from mmn.view import View
from tests.families import tiny as types
from tests.families.bare import bare_model
from tests.families.test_build import pictures as two_pictures
from tests.scored import interrupted_at_the_second, run_path_of, tables_of
from tests.tiny import UNLIKE, build_family

SCORING = ["--methods", "contribution", "--top-k", "3", "--max-new-tokens", "4", "--batch-size", "32"]
N_TOKENS, SIDE = 64, 8
LEFT = np.tile(np.arange(SIDE) < SIDE // 2, SIDE)
GRID = Grids((Grid.even(4, 4, (0.0, 0.0, 8.0, 8.0)),), tuple(Cell(0, at // 4, at % 4) for at in range(16)))


def words(command: str, *more: object) -> list[str]:
    return [command, *map(str, more), "--progress", "none", "--device", "cpu"]


@pytest.fixture(scope="module")
def scored(paint: Callable[[Path, int], Path], checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a scored run of three pictures; in two the first noun is their left half."""
    folder = paint(tmp_path_factory.mktemp("tokens") / "pictures", 3)
    cache = folder.parent / "cache"
    assert main(words("score", "--model", checkpoint, "--images", folder, "--cache", cache, *SCORING)) == 0
    concepts = tables_of(cache, ["concept", "image"])
    nouns = concepts["concept"].sort_values("position").groupby("image_id")["lemma"].first()
    rows = []
    for image in concepts["image"].itertuples():
        name = Path(image.source).name
        if name != "002.png":
            mask = np.zeros((100, 120), np.uint8)
            mask[:, :60] = 1
            Image.fromarray(mask).convert("P").save(folder.parent / name)
            objects = [{"noun": nouns[image.image_id], "mask": 1}]
            rows.append({"file_name": name, "mask_file": str(folder.parent / name), "objects": objects})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return cache


@pytest.fixture(scope="module")
def measured(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A copy of it in which the command measured all, with little effort, and what it said. Read only."""
    cache = shutil.copytree(scored, tmp_path_factory.mktemp("measured") / "cache")
    out = io.StringIO()
    with redirect_stdout(out):
        few = ("--draws", 1, "--steps", 2, "--json", "--cache", cache)
        assert main(words("image-tokens", "latest", *few)) == 0
    return Path(cache), json.loads(out.getvalue())


@pytest.fixture(scope="module")
def found(measured: tuple[Path, dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Its tables."""
    return tables_of(measured[0], ["token_loss", "knockout", "concept", "caption", "image", "run"])


# ---- by hand, with plain transformers


def outlined(found: dict[str, pd.DataFrame]) -> tuple[str, list[int], Concept]:
    """A picture's file, its caption, and its noun with an outline."""
    row = found["token_loss"].query("token_set == 'object'").iloc[0]
    (image,) = found["image"].query(f"image_id == '{row['image_id']}'").to_dict("records")
    (caption,) = found["caption"].query(f"image_id == '{row['image_id']}'").to_dict("records")
    said = found["concept"].query(f"image_id == '{row['image_id']}' and noun == '{row['noun']}'").iloc[0]
    n_mentions, token_id, position = (int(said[name]) for name in ("n_mentions", "token_id", "position"))
    concept = Concept(said["noun"], said["lemma"], n_mentions, token_id, position, True, False, False, None)
    return image["source"], [int(token) for token in caption["tokens"]], concept


def plain_embeddings(model: Model, scored: ScoredRun, source: str, token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What enters the decoder, prompt and caption, as transformers hands it out; and where the image tokens are."""
    inputs = model.encode([open_image(Path(source))], scored.run.prompt)
    ids = torch.cat([inputs["input_ids"], torch.tensor([list(token_ids)], dtype=torch.long)], dim=1)
    with torch.no_grad():
        whole = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        embeddings = model.module(**whole, output_hidden_states=True, use_cache=False).hidden_states[0]
    return embeddings, image_positions(model, {"input_ids": ids})[0]


def probability(logits: Tensor, concept: Concept) -> float:
    return logits[0, -1].double().softmax(-1)[concept.token_id].item()


def test_replaced_tokens_are_embeddings_handed_to_plain_transformers(
    scored: Path, found: dict[str, pd.DataFrame], tiny: Model
) -> None:
    """The object's tokens and their control; the mean is that of all three pictures' tokens."""
    run = open_run(tiny, run_path_of(scored))
    source, token_ids, concept = outlined(found)
    embeddings, is_image = plain_embeddings(tiny, run, source, token_ids[: concept.position])
    parts = []
    for one in found["image"]["source"]:
        values, at = plain_embeddings(tiny, run, one, [])
        parts.append(values[0, at])
    mean = torch.cat(parts).mean(0)
    assert torch.allclose(mean_image_token(run), mean, atol=1e-6)
    rows = (
        found["token_loss"]
        .query(f"noun == '{concept.noun}'")
        .merge(found["image"].query(f"source == '{source}'")[["image_id"]])
    )
    row = rows.set_index("token_set").loc["object"]
    drawn = random_tokens(0, row["image_id"], concept.lemma, "tokens object 32", 32, N_TOKENS, 0)
    places = is_image.nonzero()[:, 0]
    for tokens, said in ((LEFT, row["prob"]), (drawn, row["control_prob"]), (~(LEFT | True), row["baseline_prob"])):
        changed = embeddings.clone()
        changed[0, places[torch.from_numpy(tokens)]] = mean
        with torch.no_grad():
            logits = tiny.module(inputs_embeds=changed, use_cache=False).logits
        assert said == pytest.approx(probability(logits, concept), rel=1e-4)
    assert row["n_tokens"] == 32
    assert row["prob"] != pytest.approx(row["baseline_prob"], rel=1e-3), "nothing changed: the test would see nothing"


@pytest.mark.parametrize(
    ("source", "target", "window", "layers"),
    [("object", "position", "mid", [1]), ("others", "text", "all", [0, 1, 2]), ("object", "last row", "early", [0])],
)
def test_blocked_attention_is_a_mask_in_those_layers_of_plain_transformers(
    scored: Path, found: dict[str, pd.DataFrame], tiny: Model, source: str, target: str, window: str, layers: list[int]
) -> None:
    """Layer by layer, each called with a mask that is written out here."""
    run = open_run(tiny, run_path_of(scored))
    path, token_ids, concept = outlined(found)
    h, is_image = plain_embeddings(tiny, run, path, token_ids[: concept.position])
    n, places = h.shape[1], is_image.nonzero()[:, 0]
    reads = torch.arange(n)
    targets = {
        "position": reads == n - 1,
        "text": reads > places[-1],
        "last row": torch.isin(reads, places[-SIDE:]),
    }[target]
    sources = torch.zeros(n, dtype=torch.bool)
    sources[places[torch.from_numpy(LEFT if source == "object" else ~LEFT)]] = True
    causal = torch.zeros(n, n).masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    blind = (targets[:, None] & sources[None]) & ~torch.eye(n, dtype=torch.bool)
    decoder = tiny.module.model.language_model
    with torch.no_grad():
        rotation = decoder.rotary_emb(h, torch.arange(n)[None])
        for number, layer in enumerate(decoder.layers):
            mask = causal.masked_fill(blind, -torch.inf) if number in layers else causal
            h = layer(h, attention_mask=mask[None, None], position_embeddings=rotation)
        expected = probability(tiny.module.lm_head(decoder.norm(h)), concept)
    (image_id,) = found["image"].query(f"source == '{path}'")["image_id"]
    rows = found["knockout"].query(f"image_id == '{image_id}' and noun == '{concept.noun}' and source == '{source}'")
    row = rows.query(f"target == '{target}' and layer_window == '{window}'").iloc[0]
    assert row["prob"] == pytest.approx(expected, rel=1e-4)
    assert row["prob"] != row["baseline_prob"]
    assert [row["first_layer"], row["last_layer"]] == [layers[0], layers[-1]]


def test_integrated_gradients_are_summed_along_the_line_by_hand(
    scored: Path, found: dict[str, pd.DataFrame], tiny: Model
) -> None:
    run = open_run(tiny, run_path_of(scored))
    source, token_ids, concept = outlined(found)
    embeddings, is_image = plain_embeddings(tiny, run, source, token_ids[: concept.position])
    mean, n_steps = mean_image_token(run), 3
    tokens = embeddings[0, is_image]
    total = torch.zeros_like(tokens)
    ends = []
    for share in [(step + 0.5) / n_steps for step in range(n_steps)] + [0.0, 1.0]:
        point = (mean + share * (tokens - mean)).requires_grad_(True)
        whole = embeddings.clone()
        whole[0, is_image] = point
        logit = tiny.module(inputs_embeds=whole, use_cache=False).logits[0, -1, concept.token_id]
        if share in (0.0, 1.0):
            ends.append(logit.item())
        else:
            total += torch.autograd.grad(logit, point)[0] * (tokens - mean) / n_steps
    inputs = tiny.encode([open_image(Path(source))], run.run.prompt)
    got = integrated_gradients(tiny, inputs, token_ids, [concept], image_embeddings(tiny, inputs), mean, n_steps)
    assert torch.allclose(got.values[0], total.abs().sum(1), rtol=1e-3, atol=1e-6)
    change = ends[1] - ends[0]
    assert got.residual.item() == pytest.approx(abs(total.sum().item() - change) / max(abs(change), 1), abs=1e-4)
    assert n_hooks(tiny) == 0


# ---- families


@pytest.mark.parametrize("name", UNLIKE)
def test_a_family_s_tokens_are_replaced_and_its_attention_blocked_as_is_said(name: str) -> None:
    model, inputs = build_family(name)
    other = inputs | {"pixel_values": torch.randn_like(inputs["pixel_values"])}
    mean = image_embeddings(model, inputs).mean(0)
    prove(model, inputs, other, mean)


@pytest.mark.parametrize(("name", "why"), [("qwen3_vl", "still sees the picture"), ("lfm2_vl", "cannot be blocked")])
def test_what_passes_by_is_refused_by_name(name: str, why: str) -> None:
    """Qwen3-VL hands the picture to later layers; LFM2's convolutions heed no mask."""
    from mmn.models.adapters import find_anatomy, find_family

    vlm = types.build(name)
    model = bare_model(name, vlm.module, find_anatomy(vlm.module, find_family(name)))
    one, other = (vlm.encode([picture]) for picture in two_pictures())
    mean = image_embeddings(model, one).mean(0)
    with pytest.raises(UsageError, match=rf"'{name}'.*{why}"):
        prove(model, one, other, mean)


def prove(model: Model, inputs: dict[str, Tensor], other: dict[str, Tensor], mean: Tensor) -> None:
    require_replaceable(model, inputs, other, mean)
    require_blockable(model, inputs, mean)


def test_a_model_without_image_tokens_is_refused_by_name() -> None:
    model, _ = build_family("blip-2 on t5")
    with pytest.raises(UsageError, match="'blip-2' have no image tokens"):
        measure_image_tokens(ScoredRun(model, cast(Any, SimpleNamespace()), Path()))


def test_a_hook_that_never_fires_and_another_number_of_rows_are_noticed(tiny: Model) -> None:
    at = torch.zeros(2, 5, dtype=torch.bool)
    with pytest.raises(AssertionError, match="0 passes"), embed(tiny, at, torch.zeros(2, 5, 32)):
        pass
    blocked = Blocked(at, at, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(AssertionError, match="never fired"), block_attention(tiny, blocked):
        pass
    assert n_hooks(tiny) == 0


# ---- sets


def test_sets_of_tokens_are_counted_by_hand() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = True  # one pixel of the first token's four
    corner = object_tokens(mask, GRID)
    assert corner.nonzero()[0].tolist() == [0]
    assert ringed(corner, GRID, 1).nonzero()[0].tolist() == [0, 1, 4, 5]
    assert ringed(corner, GRID, 2).reshape(4, 4).sum() == 9
    assert ringed(corner, GRID, 2).reshape(4, 4)[:3, :3].all()
    assert last_row(GRID).nonzero()[0].tolist() == [12, 13, 14, 15]
    assert not ringed(np.zeros(16, bool), GRID, 2).any()
    norms = np.array([[1.0]] * 15 + [[9.0]])
    assert registers(norms).nonzero()[0].tolist() == [15]
    assert highest(np.array([1.0, 3.0, 3.0, 2.0]), 2).tolist() == [False, True, True, False]
    assert token_counts(64) == {1: 10 / 576, 2: 20 / 576, 4: 40 / 576, 7: 60 / 576, 11: 100 / 576, 28: 250 / 576}


def test_a_moved_object_keeps_its_shape_inside_the_grid_and_off_itself() -> None:
    left = np.tile([True, True, False, False], 4)
    assert at_move(left, 0) == np.flatnonzero(~left).tolist(), "there is one other place"
    assert moved(np.arange(16) < 12, GRID, lambda _n: 0) is None
    seen = [at_move(np.isin(np.arange(16), [0, 5]), number) for number in range(7)]
    assert len({tuple(one) for one in seen}) == 7
    assert all(second - first == 5 and first % 4 < 3 and not {0, 5} & {first, second} for first, second in seen)


def at_move(tokens: np.ndarray, number: int) -> list[int]:
    """Where tokens lie after the move of this number."""
    found = moved(tokens, GRID, lambda _n: number)
    assert found is not None
    return np.flatnonzero(found).tolist()


def test_windows_are_the_same_shares_of_every_depth() -> None:
    assert {name: [one[0], one[-1]] for name, one in layer_windows(32).items()} == {
        "early": [0, 10],
        "early to mid": [5, 15],
        "mid": [11, 20],
        "mid to late": [16, 26],
        "late": [21, 31],
        "all": [0, 31],
    }
    assert {name: list(one) for name, one in layer_windows(3).items()} == {
        "early": [0],
        "mid": [1],
        "late": [2],
        "all": [0, 1, 2],
    }


# ---- a run


def test_what_needs_an_outline_is_there_where_there_is_one(found: dict[str, pd.DataFrame]) -> None:
    n_nouns = len(found["concept"])
    tokens, cuts = found["token_loss"], found["knockout"]
    counts = tokens["token_set"].value_counts()
    for name in ("object", "object+1", "object+2", "elsewhere", "gradients"):
        assert counts[name] == 2
    assert counts["all"] == n_nouns
    assert counts["gradients of size"] == 6 * n_nouns
    assert tokens.query("token_set == 'elsewhere'")["n_tokens"].tolist() == [32, 32]
    assert tokens.query("token_set == 'all'")["control_prob"].isna().all()
    pairs = cuts.groupby(["source", "target"]).size()
    assert pairs["object", "position"] == 2 * 4
    assert pairs["last row", "text"] == pairs["all", "position"] == n_nouns * 4
    assert len(pairs) == 11
    assert tokens["is_right"].all(), "a greedy caption's nouns are the likeliest tokens"
    assert tokens.groupby(["image_id", "noun"])["baseline_prob"].nunique().eq(1).all()


def test_means_are_over_nouns_then_pictures(
    measured: tuple[Path, dict[str, Any]], found: dict[str, pd.DataFrame]
) -> None:
    rows = found["token_loss"].assign(lost=lambda of: of["baseline_prob"] - of["prob"])
    rows["beside"] = rows["baseline_prob"] - rows["control_prob"]
    means = rows.groupby(["token_set", "image_id"])[["lost", "beside", "is_wrong"]].mean().groupby("token_set").mean()
    with Store.open(measured[0]) as store:
        told = store.ask(ImageTokenQueries).token_sets("latest").set_index("token_set")
        sizes = store.ask(ImageTokenQueries).sizes("latest")
        counts = store.ask(ImageTokenQueries).counts("latest")
    for name, row in told.iterrows():
        assert row["lost"] == pytest.approx(means.loc[name, "lost"], abs=1e-9)
        assert row["wrong"] == pytest.approx(means.loc[name, "is_wrong"], abs=1e-9)
        assert row["lost_control"] == pytest.approx(means.loc[name, "beside"], abs=1e-9, nan_ok=True)
    assert told["n_images"].to_dict() | {"object": 2, "all": 3} == told["n_images"].to_dict()
    assert sizes["size"].is_monotonic_increasing
    assert (counts["n_outlined"], counts["n_nouns"]) == (2, len(found["concept"]))


def test_again_does_nothing_and_an_interrupted_call_goes_on(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(tiny, run_path_of(cache))
    monkeypatch.setattr(measure, "PICTURES_OF_A_SHARD", 2)
    ask = partial(measure_image_tokens, run, [KNOCKOUT])
    with interrupted_at_the_second(monkeypatch, measure, "_answer"):
        ask()
    told: list[Progress] = []
    ask(progress=told.append)
    assert [one.done for one in told if one.total] == [2, 3]
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.parquet")}
    ask()
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*.parquet")} == before


def test_other_outlines_are_asked_anew_and_the_newest_are_shown(cache: Path, tiny: Model) -> None:
    run = open_run(tiny, run_path_of(cache))
    measure_image_tokens(run, [REPLACE], 1, 1)
    picture = next(iter(tables_of(cache, ["image"])["image"].itertuples()))
    (mask,) = Path(picture.source).parent.parent.glob(Path(picture.source).name)
    kept = mask.read_bytes()
    try:
        few = np.zeros((100, 120), np.uint8)
        few[50:51, 60:61] = 1
        Image.fromarray(few).convert("P").save(mask)
        measure_image_tokens(run, [REPLACE], 1, 1)
    finally:
        mask.write_bytes(kept)
    rows = tables_of(cache, ["token_loss"])["token_loss"]
    assert set(rows["revision"]) == {0, 1}
    with Store.open(cache) as store:
        told = store.ask(ImageTokenQueries).token_sets("latest").set_index("token_set")
    assert told.loc["object", "n"] == 2
    assert told.loc["object", "n_tokens"] == (32 + 1) / 2


def test_a_model_without_places_is_asked_what_needs_none_and_says_so(
    cache: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: object) -> Grids:
        raise UsageError("its image tokens are queries")

    monkeypatch.setattr(measure, "image_grid", refuse)
    told: list[Progress] = []
    measure_image_tokens(open_run(tiny, run_path_of(cache)), n_draws=1, n_steps=1, progress=told.append, limit=1)
    tables = tables_of(cache, ["token_loss", "knockout"])
    assert set(tables["token_loss"]["token_set"]) <= {"registers", "gradients of size", "all"}
    assert set(tables["knockout"]["source"]) == {"all"}
    assert any("without the object's tokens: its image tokens are queries" in one.message for one in told)


def test_the_command_says_what_it_found(
    measured: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    cache, said = measured
    assert (said["n_failed"], said["n_outlined"]) == (0, 2)
    assert {row["token_set"] for row in said["replace"]} >= {"object", "all"}
    assert len(said["knockout"]) == 11 * 4
    command._print_result(said)
    out = capsys.readouterr().out
    assert f"objects with an outline: of 2 of {said['n_nouns']} nouns" in out
    assert len([line for line in out.splitlines() if " -> " in line]) == 11
    assert main(words("image-tokens", "latest", "--kinds", "swap", "--cache", cache)) == 2
    assert "give replace, knockout" in capsys.readouterr().err
    with Store.open(cache) as store, pytest.raises(UsageError, match="no token_loss rows for the nouns xyzzy"):
        draw(FIGURES["image-tokens"], store, View(run="latest", concepts=("xyzzy",)))
