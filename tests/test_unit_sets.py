"""Sets of units: read from files, kept in a cache, fitted to models, and taken by the studies with their controls."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmn import names
from mmn.cli import BAD_INPUT, DONE, main
from mmn.core import ModelFacts, Neuron
from mmn.errors import CacheError, MmnError, UsageError
from mmn.models.model import Model
from mmn.store import Store
from mmn.studies.editing.measure import Wish, with_controls
from mmn.units.kept import add_unit, delete_set, find_set, kept_sets, load_set, save_set
from mmn.units.matched import matched_units
from mmn.units.notes import note_on, notes, write_note
from mmn.units.set_files import read_set
from mmn.units.sets import Shape, UnitSet, fitting
from tests.scored import run_path_of, tables_of
from tests.test_degradation import scored  # noqa: F401 - a fixture
from tests.test_experts import tiny as tiny_experts

FACTS = ModelFacts("m", "f" * 64, "llava", 4, 96)
EXPERTS = replace(FACTS, d_experts=(0, 24, 24, 24))
UNITS = (Neuron(3, 5), Neuron(1, 7), Neuron(3, 2))


def a_set(**more: object) -> UnitSet:
    return replace(UnitSet("dogs", UNITS, (0.5, None, 2.0), "m", FACTS.fingerprint, Shape.of(FACTS)), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "units", "scores"),
    [
        (b"layer,unit,score\n3,5,0.5\n1,7,\n", [(3, 5), (1, 7)], (0.5, None)),
        (b"3,5\n1,7\n", [(3, 5), (1, 7)], ()),
        (b"\xef\xbb\xbfLayer,Unit\r\n3,5\r\n\r\n", [(3, 5)], ()),
        (b"unit,score\nL3.u5,0\nL1.e2.u7,-1\n", [(3, 5), (1, 55)], (0.0, -1.0)),
        (b"L3.u5", [(3, 5)], ()),
    ],
)
def test_a_file_is_read_in_its_order(tmp_path: Path, text: bytes, units: list[tuple[int, int]], scores: object) -> None:
    path = tmp_path / "my dogs.csv"
    path.write_bytes(text)
    found = read_set(path, EXPERTS)
    assert [(one.layer, one.unit) for one in found.units] == units
    assert found.scores == scores
    assert found.label.startswith("set:my_dogs@")
    parquet = tmp_path / "dogs.parquet"
    columns = {"layer": [layer for layer, _ in units], "unit": [unit for _, unit in units]}
    pq.write_table(pa.table(columns | ({"score": list(scores)} if scores else {})), parquet)
    assert read_set(parquet, FACTS).units == found.units
    assert read_set(parquet, FACTS).scores == found.scores


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is empty"),
        (b"\r\n\n", "is empty"),
        (b"layer,unit\n", "names no unit"),
        (b"a,b\n1,2\n", "has the columns 'a,b'"),
        (b"1,2,3,4\n", "has the columns '1,2,3,4'"),
        (b"1\n", "has the columns '1'"),
        (b"layer,unit\n1,2,3\n", "line 2: 3 columns instead of 2"),
        (b"1,2\n1,2\n", "line 2: L1.u2 stands there twice, first in line 1"),
        (b"layer,unit\n-1,2\n", "line 2: layer '-1' is not a whole number from 0"),
        (b"1,2\n1,2.5\n", "line 2: unit '2.5' is not a whole number"),
        (b"1,2,nan\n", "line 1: score 'nan' is not a number"),
        (b"1,96\n", "has L1.e4.u0, which m has not"),
        (b"4,1\n", "has L4.u1, which m has not: its layers are 0 to 3"),
        (b"L1.e9.u30\n", "line 1: 'l1.e9.u30' is not a unit|line 1: 'L1.e9.u30' is not a unit"),
        (b"\xff\xfe1\x00,\x002\x00", "is not UTF-8 text"),
        (b"1,2\n\x00\x00\n", "zero bytes"),
        (b'1,"2\n', "is no CSV"),
    ],
)
def test_what_is_no_set_is_said_in_one_line(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=says) as told:
        read_set(path, EXPERTS)
    assert "\n" not in str(told.value)


def test_what_is_no_file_of_units_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    for path in (tmp_path / "x.parquet", tmp_path / "none.csv", tmp_path):
        with pytest.raises(UsageError, match=r"is no Parquet file|is no file of units"):
            read_set(path, FACTS)


def test_sets_are_kept_with_where_they_came_from_and_never_changed_behind_a_name(tmp_path: Path) -> None:
    kept = a_set(origin={"method": "contribution", "noun": "dog"})
    save_set(tmp_path, kept)
    save_set(tmp_path, kept)
    assert load_set(tmp_path, "dogs") == kept
    with pytest.raises(UsageError, match="there is a set 'dogs' of other units"):
        save_set(tmp_path, a_set(units=UNITS[:2], scores=()))
    grown = add_unit(tmp_path, "dogs", Neuron(0, 9), "r", FACTS)
    assert grown.units == (*UNITS, Neuron(0, 9))
    assert grown.label != kept.label
    assert add_unit(tmp_path, "dogs", Neuron(0, 9), "r", FACTS) == load_set(tmp_path, "dogs") == grown
    with pytest.raises(UsageError, match="of another model"):
        add_unit(tmp_path, "dogs", Neuron(0, 9), "r", replace(FACTS, fingerprint="e" * 64))
    add_unit(tmp_path, "hand", Neuron(1, 1), "r", FACTS)
    (tmp_path / "units" / "bad.json").write_text('{"name": "bad", "units": [[1]]}')
    (tmp_path / "units" / "evil.json").symlink_to("/etc/passwd")
    found = kept_sets(tmp_path)
    assert [one.name for one in found.sets] == ["dogs", "hand"]
    assert len(found.broken) == 2
    assert find_set(tmp_path, "hand", FACTS).units == (Neuron(1, 1),)
    delete_set(tmp_path, "hand")
    with pytest.raises(UsageError, match=r"no set of units 'hand' in .*; there are: dogs"):
        find_set(tmp_path, "hand", FACTS)
    for name in ("12", "../x", ".x", "a b", "", "x" * 61):
        with pytest.raises(MmnError, match="is no name of a set"):
            save_set(tmp_path, a_set(name=name))


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    for change in (
        lambda: save_set(tmp_path, a_set()),
        lambda: write_note(tmp_path, "f" * 64, UNITS[0], "beaks"),
    ):
        with pytest.raises(CacheError, match=r"cannot be written .*make its folder writable"):
            change()


def test_a_set_fits_its_own_model_and_says_where_it_meets_another() -> None:
    assert fitting(a_set(), FACTS) == ""
    other = replace(FACTS, name="other", fingerprint="e" * 64)
    assert "another model of the same shape" in fitting(a_set(), other)
    with pytest.raises(UsageError, match="has another shape"):
        fitting(a_set(), replace(other, d_mlp=97))
    assert fitting(UnitSet("file", UNITS), replace(other, d_mlp=97)) == ""
    with pytest.raises(UsageError, match=r"has L3.u5, which m has not"):
        fitting(UnitSet("file", UNITS), replace(FACTS, n_layers=2))


def test_notes_are_the_models_and_an_empty_one_goes(tmp_path: Path) -> None:
    write_note(tmp_path, FACTS.fingerprint, UNITS[0], " beaks\nand \N{DUCK} ")
    assert note_on(tmp_path, FACTS.fingerprint, UNITS[0]) == "beaks\nand \N{DUCK}"
    assert notes(tmp_path, FACTS.fingerprint) == {UNITS[0]: "beaks\nand \N{DUCK}"}
    assert notes(tmp_path, "e" * 64) == {}
    with pytest.raises(UsageError, match="up to 2,000 letters"):
        write_note(tmp_path, FACTS.fingerprint, UNITS[0], "x" * 2001)
    write_note(tmp_path, FACTS.fingerprint, UNITS[0], " ")
    assert notes(tmp_path, FACTS.fingerprint) == {}


def test_controls_match_rank_for_rank_by_layer_and_expert() -> None:
    model, _ = tiny_experts("qwen3_vl_moe")
    anatomy = model.anatomy
    routed = anatomy.mixtures[-1].routed
    assert routed is not None
    last, width = anatomy.n_layers - 1, routed.d_expert
    units = [Neuron(last, width + 1), Neuron(last, 0), Neuron(0, 3), Neuron(last, width + 2)]
    drawn = matched_units(anatomy, units, ["a"])
    assert drawn == matched_units(anatomy, units, ["a"])
    assert drawn[:2] == matched_units(anatomy, units[:2], ["a"])
    assert drawn != matched_units(anatomy, units, ["b"])
    assert len(set(drawn)) == 4
    assert [(one.layer, one.unit // width) for one in drawn] == [(one.layer, one.unit // width) for one in units]


def test_the_controls_of_an_edited_set_and_ids_of_edits_without_one() -> None:
    plain = Wish("dog", "cat")
    assert "given" not in plain.plain
    assert "units" not in plain.plain
    of_set = Wish("dog", "cat", n_units=3, given=a_set())
    assert of_set.plain["units"] == a_set().label
    wishes = {one.algorithm + one.selection: one.given for one in with_controls(of_set)}
    assert wishes == {"p2top": a_set(), "p2another": None, "p2random": a_set(), "rank-onetop": a_set()}


def run(*words: object) -> int:
    return main([*map(str, words)])


def test_a_study_takes_a_set_from_the_terminal(
    scored: Path,  # noqa: F811
    tiny: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mmn.cli import running

    monkeypatch.setattr(running, "load_quietly", lambda *_given, **_more: tiny)
    cache = Path(shutil.copytree(scored, tmp_path / "cache"))
    common = ("--cache", cache, "--json")
    assert run("units", "save", "top", "--k", 6, "--method", "contribution", *common) == DONE
    kept = load_set(cache, "top")
    assert kept.origin["method"] == "contribution"
    study = ("latest", "--units", "top", "--limit", 2, "--progress", "none", *common)
    assert run("degrade", *study, "--kind", "ablate", "--no-captions", "--draws", 2, "--text-pictures", 0) == DONE
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["units"]["label"] == kept.label
    assert {one["selection"] for one in told["effects"]} == {names.TOP, names.ANOTHER, names.RANDOM}
    found = tables_of(cache, ["effect", "unit_set"])
    assert set(found["effect"]["method"]) == {kept.label}
    assert sorted(found["effect"]["k"].unique()) == [0, 1, 2, 3, 6]
    rows = found["unit_set"].sort_values("place")
    assert [Neuron(*unit) for unit in zip(rows["layer"], rows["unit"], strict=True)] == list(kept.units)
    assert run("annotate", "latest", "--units", "top", "--progress", "none", *common) == DONE
    looks = tables_of(cache, ["look"])["look"]
    assert set(map(tuple, looks[["layer", "unit"]].to_numpy())) == {(one.layer, one.unit) for one in kept.units}
    assert looks["image_id"].nunique() == 5
    bad = tmp_path / "bad.csv"
    bad.write_text("layer,unit\n1,1\n1,1\n")
    for words, says in (
        (("degrade", "latest", "--kind", "ablate", "--units", bad), "stands there twice"),
        (("degrade", "latest", "--kind", "ablate", "--units", "none"), "no set of units 'none'"),
        (("degrade", "latest", "--kind", "ablate", "--units", "top", "--method", "activation"), "not both"),
        (
            ("degrade", "latest", "--kind", "ablate", "--units", "top", "--ks", "7"),
            "expected whole numbers from 0 to 6, the set's units",
        ),
        (("degrade", "latest", "--kind", "ablate", "--factor", "2"), "--factor 2 is for --kind scale"),
        (("annotate", "latest", "--units", "top", "--top", "3"), "not both"),
        (("edit", "latest", "--noun", "a", "--to", "b", "--units", "0"), "not a whole number from 1"),
        (("specificity", "latest", "--units", "none"), "no set of units 'none'"),
    ):
        assert run(*words, *common) == BAD_INPUT
        assert says in capsys.readouterr().err


def test_a_set_is_measured_on_classes_under_its_noun_or_its_name() -> None:
    from mmn.studies.selectivity.measure import Activations, ClassUnits, NounClass, picture_rows, selectivity_rows

    classes = [NounClass("dog", (), ("a",)), NounClass("cat", (), ("b",))]
    import numpy as np

    activations = Activations(("a", "b"), UNITS[:1], np.array([[3.0], [1.0]]))
    said = {"a": {"dog"}, "b": {"cat"}}
    for lemma, own in (("dog", [True, False]), ("mine", [False, False])):
        units = [ClassUnits(lemma, a_set().label, False, UNITS[:1])]
        rows = pd.DataFrame(selectivity_rows(classes, units, activations, said)).set_index("noun")
        assert rows["value"].to_dict() == {"dog": 3.0, "cat": 1.0}
        assert [row["is_own"] for row in picture_rows(classes, units, activations, said)] == own


def test_a_ranking_becomes_a_set_of_what_leads_most_pictures(scored: Path) -> None:  # noqa: F811
    from mmn.store.unit_rankings import ranked_set

    with Store.open(scored) as store:
        store.load_new_shards([store.runs_path])
        found = ranked_set(store, "latest", "some", "contribution", 5)
        rows = store.table("latest", "score")
        with pytest.raises(UsageError, match="ranks no unit by contribution for 'nothing'"):
            ranked_set(store, "latest", "some", "contribution", 5, "nothing")
    rows = rows[(rows["method"] == "contribution") & (rows["rank"] >= 1) & (rows["variant"] == "original")]
    counts = rows.groupby(["layer", "unit"]).agg(n=("image_id", "nunique"), rank=("rank", "mean"))
    best = counts.reset_index().sort_values(["n", "rank", "layer", "unit"], ascending=[False, True, True, True])
    assert [(one.layer, one.unit) for one in found.units] == [
        (one.layer, one.unit) for one in best.head(5).itertuples()
    ]
    assert found.origin == {"method": "contribution", "k": "5", "run": run_path_of(scored).name}
