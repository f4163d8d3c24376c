"""Deltas: added and taken back to the last bit, saved whole, loaded onto the very model that they were made for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmn.errors import CacheError, ModelError
from mmn.images import open_image
from mmn.models import deltas
from mmn.models.checkpoints import fingerprint
from mmn.models.deltas import Columns, Delta, Part, RankOne
from mmn.models.loading import load_model, split_delta, with_delta
from mmn.models.model import Model
from mmn.reading.captions import caption_batch


def columns(model: Model, layer: int = 2, units: tuple[int, ...] = (5, 0, 40), seed: int = 0) -> Columns:
    generator = torch.Generator().manual_seed(seed)
    d = model.anatomy.w_out(layer).shape[0]
    return Columns(layer, units, torch.randn(d, len(units), generator=generator))


def rank_one(model: Model, layer: int = 1) -> RankOne:
    generator = torch.Generator().manual_seed(layer)
    d, m = model.anatomy.w_out(layer).shape
    return RankOne(layer, torch.randn(d, generator=generator), torch.randn(m, generator=generator))


def delta_of(model: Model, *parts: Part) -> Delta:
    return Delta(parts, "abc", "bottle", "cow", "p2", model.facts.fingerprint)


@pytest.fixture
def delta(tiny: Model) -> Delta:
    return delta_of(tiny, columns(tiny), rank_one(tiny))


# ---- in memory


def test_the_weights_are_changed_inside_and_identical_afterwards(tiny: Model, delta: Delta) -> None:
    before = deltas.checksum(tiny)
    weights = [tiny.anatomy.w_out(layer).clone() for layer in range(3)]
    with deltas.applied(tiny, delta):
        assert deltas.checksum(tiny) != before
        change = [tiny.anatomy.w_out(layer) - weights[layer] for layer in range(3)]
        assert not change[0].any()
        assert torch.allclose(change[1], torch.outer(delta.parts[1].u, delta.parts[1].v), atol=1e-5)  # type: ignore[union-attr]
        assert torch.allclose(change[2][:, [5, 0, 40]], delta.parts[0].change, atol=1e-5)
        assert change[2].any(dim=0).sum() == 3
    assert deltas.checksum(tiny) == before


def test_an_exception_inside_leaves_the_weights_as_they_were(tiny: Model, delta: Delta) -> None:
    before = deltas.checksum(tiny)
    with pytest.raises(KeyboardInterrupt), deltas.applied(tiny, delta):
        raise KeyboardInterrupt
    assert deltas.checksum(tiny) == before


def test_a_part_that_cannot_be_added_leaves_no_other_behind(tiny: Model) -> None:
    before = deltas.checksum(tiny)
    wrong = Columns(1, (3,), torch.ones(7, 1))
    with pytest.raises(RuntimeError), deltas.added(tiny, [columns(tiny), wrong]):
        pass
    assert deltas.checksum(tiny) == before


def test_half_precision_comes_back_bit_for_bit(checkpoint: Path) -> None:
    half = load_model(str(checkpoint), dtype="bfloat16", device="cpu")
    before = deltas.checksum(half)
    with deltas.applied(half, delta_of(half, columns(half))):
        assert deltas.checksum(half) != before
    assert deltas.checksum(half) == before


def test_the_checksum_sees_any_parameter(tiny: Model) -> None:
    before = deltas.checksum(tiny)
    bias = next(p for name, p in tiny.module.named_parameters() if "vision" in name)
    saved = bias.detach().clone()
    with torch.no_grad():
        bias.view(-1)[0] += 1
    changed = deltas.checksum(tiny)
    with torch.no_grad():
        bias.copy_(saved)
    assert changed != before
    assert deltas.checksum(tiny) == before


def test_another_session_never_sees_the_edit(tiny: Model, delta: Delta, pictures: Path) -> None:
    image = open_image(sorted(pictures.iterdir())[0])
    prompt = tiny.exact_prompt(tiny.default_prompt)

    def logits() -> torch.Tensor:
        return caption_batch(tiny, [image], prompt, 2).logits[0]

    plain, seen = logits(), list[torch.Tensor]()
    other = threading.Thread(target=lambda: seen.append(logits()))
    with deltas.applied(tiny, delta):
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive()  # it waits for the lock
        assert not torch.equal(logits(), plain)
    other.join()
    assert torch.equal(seen[0], plain)


def test_norms_are_of_the_columns(tiny: Model) -> None:
    part = columns(tiny)
    w = tiny.anatomy.w_out(2)[:, [5, 0, 40]]
    ratios = part.values.norm(dim=0) / w.norm(dim=0)
    assert deltas.relative_norm(tiny.anatomy, [part]) == pytest.approx(float(ratios.max()))
    assert deltas.frobenius_norms(tiny.anatomy, [part]) == pytest.approx((float(part.values.norm()), float(w.norm())))
    one = rank_one(tiny)
    whole = torch.outer(one.u, one.v).norm(dim=0) / tiny.anatomy.w_out(1).norm(dim=0)
    assert deltas.relative_norm(tiny.anatomy, [part, one]) == pytest.approx(float(max(whole.max(), ratios.max())))


# ---- as a file


def test_a_loaded_file_makes_the_same_model_as_the_edit_in_memory(
    tiny: Model, checkpoint: Path, delta: Delta, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "edit.safetensors"
    on_disk = fingerprint(checkpoint)
    deltas.save(delta, path)
    with deltas.applied(tiny, delta):
        edited = deltas.checksum(tiny)
    loaded = load_model(str(checkpoint), device="cpu", delta=path)
    assert deltas.checksum(loaded) == edited
    assert loaded.facts.fingerprint == delta.fingerprint_after != tiny.facts.fingerprint
    assert loaded.facts.name == f"{checkpoint}+{path}"
    by_name = load_model(loaded.facts.name, device="cpu")  # what a worker, or going back to a run, does
    assert by_name.facts == loaded.facts
    assert deltas.checksum(by_name) == edited
    assert fingerprint(checkpoint) == on_disk


def test_only_what_changed_is_in_the_file(tiny: Model, tmp_path: Path) -> None:
    d, m = tiny.anatomy.w_out(0).shape
    for part, n_numbers in ((columns(tiny), 3 * d + 3), (rank_one(tiny), d + m)):
        deltas.save(delta_of(tiny, part), tmp_path / "edit.safetensors")
        with safe_open(tmp_path / "edit.safetensors", "pt") as file:
            names = list(file.keys())
            assert sum(file.get_tensor(name).numel() for name in names) == n_numbers


def test_a_file_comes_back_as_it_was_saved(tiny: Model, delta: Delta, tmp_path: Path) -> None:
    deltas.save(delta, tmp_path / "edit.safetensors")
    found = deltas.load(tmp_path / "edit.safetensors")
    assert [part.layer for part in found.parts] == [1, 2]
    assert all(torch.equal(a.change, b.change) for a, b in zip(found.parts, reversed(delta.parts), strict=True))
    words = ("edit_id", "noun", "target", "algorithm", "fingerprint_before", "fingerprint_after")
    assert [getattr(found, word) for word in words] == [getattr(delta, word) for word in words]


def test_the_fingerprint_after_depends_on_every_number_and_on_the_model(tiny: Model) -> None:
    part = columns(tiny)
    moved = part.values.clone()
    moved[3, 1] += 1e-6
    others = [
        delta_of(tiny, replace(part, values=moved)),
        delta_of(tiny, replace(part, units=(5, 1, 40))),
        delta_of(tiny, replace(part, layer=1)),
        replace(delta_of(tiny, part), fingerprint_before="0" * 64),
    ]
    assert len({one.fingerprint_after for one in [delta_of(tiny, part), *others]}) == 5


def test_another_model_is_refused(tiny: Model, checkpoint: Path, delta: Delta, tmp_path: Path) -> None:
    other = replace(delta, fingerprint_before="f" * 64)
    with pytest.raises(ModelError, match="bottle -> cow was made for a model with fingerprint ffffffffffff"):
        deltas.applied(tiny, other).__enter__()
    deltas.save(other, tmp_path / "edit.safetensors")
    with pytest.raises(ModelError, match="load it onto the model of its run"):
        load_model(str(checkpoint), device="cpu", delta=tmp_path / "edit.safetensors")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    save_file({"weight": torch.ones(2)}, path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_cut, "is damaged or no safetensors file"),
        (_flip, "its tensors are not those that were saved"),
        (_empty, "is damaged or no safetensors file"),
        (_foreign, "is no delta of this version"),
        (Path.unlink, "no delta at"),
    ],
)
def test_a_harmed_file_is_refused(
    delta: Delta, checkpoint: Path, tmp_path: Path, harm: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "edit.safetensors"
    deltas.save(delta, path)
    harm(path)
    with pytest.raises(ModelError, match=message):
        load_model(with_delta(str(checkpoint), path), device="cpu")


def test_killed_while_writing_leaves_the_old_file_whole(tiny: Model, delta: Delta, tmp_path: Path) -> None:
    path = tmp_path / "edit.safetensors"
    deltas.save(delta, path)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:  # SIGKILL after the bytes are written and before the rename: nothing may clean up
        os.fsync = lambda _handle: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        deltas.save(delta_of(tiny, columns(tiny, seed=7)), path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(delta: Delta, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"file/edit\.safetensors cannot be written"):
        deltas.save(delta, tmp_path / "file" / "edit.safetensors")


def test_names_of_models_with_a_delta(tmp_path: Path) -> None:
    assert split_delta("specimen") == ("specimen", None)
    assert split_delta("a+b") == ("a+b", None)
    assert split_delta("specimen+/x/y.safetensors") == ("specimen", Path("/x/y.safetensors"))
    file = tmp_path / "in+this" / "e.safetensors"
    file.parent.mkdir()
    file.touch()
    assert split_delta(with_delta("/models/a+b", file)) == ("/models/a+b", file)


def test_units_of_no_layer_are_refused(tiny: Model) -> None:
    wrong = replace(columns(tiny), layer=99)
    with pytest.raises(ModelError, match="layer 99"), deltas.applied(tiny, delta_of(tiny, wrong)):
        pass


@pytest.mark.parametrize(
    "lie",
    [
        {"L0.units": torch.tensor([-1]), "L0.columns": torch.ones(32, 1)},
        {"L0.units": torch.tensor([3, 3]), "L0.columns": torch.ones(32, 2)},
        {"L0.units": torch.tensor([1.5]), "L0.columns": torch.ones(32, 1)},
        {"L0.units": torch.tensor([3]), "L0.columns": torch.full((32, 1), torch.nan)},
        {"L0.units": torch.tensor([3]), "L0.columns": torch.ones(32, 2)},
        {"L0.units": torch.tensor([3])},
        {"L-1.u": torch.ones(32), "L-1.v": torch.ones(48)},
        {"L0.u": torch.ones(32, 2), "L0.v": torch.ones(48)},
        {"L0.u": torch.ones(32, dtype=torch.int8), "L0.v": torch.ones(48)},
    ],
)
def test_a_delta_that_no_edit_could_have_made_is_refused(lie, tmp_path):
    """Its words are in order; what they say of its tensors is a lie."""
    path = tmp_path / "lie.safetensors"
    save_file(lie, path, {"format": deltas.FORMAT} | dict.fromkeys(deltas._WORDS, "x"))
    with pytest.raises(ModelError, match="is no delta of this version"):
        deltas.load(path)
