"""The Degradation and Edit pages: filters, captions side by side, controls, undo, and what they say while empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from mmn.store import Store
from mmn.studies.editing.queries import EditQueries
from tests.pages.filled_effects import EDIT_IDS
from tests.pages.titles import title_of


def specs(at: AppTest) -> list[dict[str, Any]]:
    return [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]


def titles(at: AppTest) -> list[str]:
    return [title_of(spec)["text"] for spec in specs(at)]


def told(at: AppTest) -> str:
    return " ".join(element.value for element in [*at.markdown, *at.caption, *at.info])


def test_ablation_is_told_in_a_sentence_and_drawn(whole_cache, open_app) -> None:
    at = open_app("degradation")
    assert "At k = 64 (25 %) the probability falls by 76 %" in told(at)
    assert "random units: 6 %" in told(at)
    assert "half of it is gone at k = 23" in told(at)
    assert titles(at) == [
        "Probability of the noun after ablation, contribution-folded",
        "Perplexity of the run's captions, without a picture after ablation, contribution-folded",
        "Perplexity of plain English after ablation, contribution-folded",
        "Captions that lose the noun after ablation, contribution-folded",
        "Similarity of the new caption after ablation, contribution-folded",
    ]
    assert "known up to k = 40" in told(at), "the run kept fewer units than were zeroed"


def test_whose_a_drop_is_stands_below_it(whole_cache, open_app) -> None:
    at = open_app("degradation")
    said = told(at)
    assert "its own units take 76 % of the probability away, another picture's 20 %, random ones 6 %" in said
    assert "56.2 points" in said
    assert "The noun's share among all nouns" in said
    assert "Perplexity of plain English" in said
    assert "Plain English is foreign to a model trained only on captions" in said
    assert "not measured" not in said
    at = open_app("degradation", quantity=["share among nouns"])
    assert titles(at)[0].startswith("The noun's share among all nouns after ablation")


def test_a_run_from_before_the_controls_opens_and_names_the_command(whole_cache: Path, open_app) -> None:
    with Store.open(whole_cache) as store:
        store.load_new_shards([store.runs_path])
        with store._cursor() as cursor:
            cursor.execute("DELETE FROM effect WHERE selection = 'another'")
            for table in ("noun_share", "perplexity", "edited_text"):
                cursor.execute(f"DELETE FROM {table}")  # noqa: S608 - names are our own
    at = open_app("degradation")
    assert not at.error
    assert not at.exception
    said = told(at)
    assert "another picture's units were not measured, so the noun's own part of the drop is not known" in said
    assert "python -m mmn degrade 5e6f0000 --kind ablate --controls only" in said
    assert "The perplexity of text was not measured" in said
    at = open_app("degradation", quantity=["share among nouns"])
    assert not at.exception
    assert "Share was not measured: mmn degrade 5e6f0000 --kind ablate --controls only" in told(at)
    at = open_app("edit")
    assert not at.exception
    assert "There is no edit of another noun's units to compare with" in told(at)
    assert "The perplexity of text was not measured" in told(at)


def test_smaller_k_shows_the_layers(whole_cache, open_app) -> None:
    at = open_app("degradation")
    at.select_slider[0].set_value(26).run()
    assert titles(at)[-1] == "Layers of the zeroed units"
    concepts = at.dataframe[0].value
    assert {"drop", "another", "random", "half", "concept"} <= set(concepts)
    assert (concepts["drop"] > concepts["another"]).all()
    assert (concepts["another"] > concepts["random"]).all()


def test_filters_are_the_address(whole_cache, open_app) -> None:
    at = open_app("degradation", nouns=["the first one"], quantity=["logit"])
    at.multiselect(key="method").set_value(["contribution", "contribution-folded"])
    at.multiselect(key="concept").set_value([at.multiselect(key="concept").options[0]]).run()
    assert not at.error
    lemma = at.multiselect(key="concept").options[0].partition(" (")[0]
    assert f"concepts: {lemma}, first nouns only" in " ".join(title_of(specs(at)[0])["subtitle"])
    assert titles(at)[0] == "Logit of the noun after ablation, top units"


def test_filters_that_leave_nothing_are_said(whole_cache, open_app) -> None:
    at = open_app("degradation", method=[])
    at.multiselect(key="method").set_value([]).run()
    assert "Choose at least one score" in told(at)


def test_captions_side_by_side(whole_cache, open_app) -> None:
    at = open_app("degradation")
    rows = at.dataframe[1].value
    assert list(rows["units"])[:5] == ["untouched", "top", "interpretable", "another picture's", "random"]
    assert rows["other_noun"].notna().tolist() == (rows["units"] == "another picture's").tolist()
    assert rows["noun_share"].notna().all()
    assert rows[(rows["selection"] == "top") & (rows["k"] == 64)]["caption"].iloc[0].count("thing") == 1
    second = [button for button in at.button if str(button.key).startswith("tile-degraded")][1]
    before = told(at)
    second.click().run()
    assert not at.exception
    assert told(at) != before


def test_perturbation(whole_cache, open_app) -> None:
    at = open_app("degradation", effect=["Perturb"], axis=["k"])
    assert not at.error, [e.value for e in at.error]
    assert titles(at) == [
        "Captions that lose the noun under noise, contribution-folded",
        "Perplexity of the run's captions, without a picture under noise, contribution-folded",
        "Perplexity of plain English under noise, contribution-folded",
    ]
    assert "σ = 0.5: its own units take" in told(at)
    assert sorted(at.dataframe[0].value["sigma"].dropna().unique()) == [0.5, 1.0]


def test_without_measurements_the_command_is_told(filled_cache, open_app) -> None:
    at = open_app("degradation")
    assert "No unit of this run has been set to 0 yet" in told(at)
    assert "python -m mmn degrade 3f2a9c1b --kind ablate --method contribution --limit 12" in told(at)


def test_edit_beside_its_controls(whole_cache, open_app) -> None:
    at = open_app("edit")
    assert [metric.value for metric in at.metric][:3] == ["100 %", "50 %", "75 %"]
    assert titles(at)[0].startswith("Edits of “")
    assert list(at.dataframe[0].value["how"]) == [
        "p2, top 3 units by contribution",
        "p2, random 3 units",
        "rank-one, layer 3",
    ]
    assert at.metric[4].value == "9.49", "e to the 2.25"
    assert "7.39 before" in told(at)
    assert "There is no edit of another noun's units to compare with" in told(at)
    assert "c0ffee" in told(at)
    assert "same as before" in told(at)
    assert "neuron?run=5e6f0000&neuron=L3.u1" in told(at)
    assert "the model on disk never changes" in told(at)


def test_address_names_an_edit_and_a_whole_layer_is_told_in_short(whole_cache, open_app) -> None:
    at = open_app("edit", edit=[EDIT_IDS[2][:8]])
    assert at.selectbox(key="edit").value.startswith("zebra") or "rank-one" in at.selectbox(key="edit").value
    assert "layer 3: 64 of 64" in told(at)


def test_captions_by_role_and_change(whole_cache, open_app) -> None:
    at = open_app("edit", changed=["changed"])
    assert at.dataframe[-1].value["is_changed"].all()
    assert "boat" in at.dataframe[-1].value["text_after"].iloc[0]


def test_undo_asks_first_and_removes_the_edit_alone(whole_cache: Path, open_app) -> None:
    from app import resources

    file = whole_cache / "edits" / f"{EDIT_IDS[0]}.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"delta")
    at = open_app("edit")
    assert at.get("download_button")
    at.button(key=f"undo-{EDIT_IDS[0]}").click().run()
    assert not at.exception
    assert not at.error, [e.value for e in at.error]
    store: Store = resources.store()
    assert set(store.ask(EditQueries).edits("5e6f")["edit_id"]) == set(EDIT_IDS[1:])
    assert not file.exists()
    assert at.selectbox(key="edit").value.endswith(EDIT_IDS[1][:8])


def test_a_first_edit_is_offered_once_the_word_is_typed(filled_cache, open_app) -> None:
    at = open_app("edit")
    assert "No edit of this model" in told(at)
    assert "Type the new word" in told(at)
    at.text_input(key="edit-target").set_value("boat").run()
    assert "python -m mmn edit 3f2a9c1b --noun" in told(at)
    assert "--to boat" in told(at)
    at.text_input(key="edit-target").set_value("a boat").run()
    assert "is not a single different word" in told(at)
