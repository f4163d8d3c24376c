"""Which method finds the units that matter? Every score by one protocol, on units whose roles are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import charts, state, study_page
from app.places import cache_path
from app.table_height import fitting
from app.text import code, plain, sentence
from mmn.studies.bench import words
from mmn.studies.bench.result import MEASURES, ROLE_WORDS, Result, model_of, newest, results
from mmn.studies.bench.rows import usual as usual_of
from mmn.view import View

HEADINGS = {about.heading: measure for measure, about in MEASURES.items()}
PLANTED = (
    "In a copy of the model some units are planted with a known role, and each role is checked on other pictures "
    "first. Every score then ranks all units of that copy. Which score finds the planted units, leaves the decoys "
    "out, and agrees with the measured effect of zeroing units?"
)
UNPLANTED = (
    "Every score ranks all units of the model as it is. Which score agrees with the measured effect of zeroing "
    "units, and for which does a noun need the first units more than random ones of the same layers? No units were "
    "planted here, so recall of planted units and decoys is not judged."
)


def page() -> None:
    found = results(cache_path())
    if not found:
        st.info("There is no result yet: `mmn bench` makes one.", icon=":material/science:")
        return
    tidy(found)
    introduction = st.container()
    result = chosen(found)
    introduction.markdown(PLANTED if result.planted else UNPLANTED)
    st.caption(plain(words.told(result)))
    study_page.guarded(lambda: figure(result))
    for one in words.headline(result):
        st.markdown(f"- First by {plain(one)}")
    if told := standing(result):
        st.markdown(f"- {sentence(told)}")
    with st.expander("All scores and measures as numbers", icon=":material/table:"):
        table(result)
    if result.planted:
        places(result)
        with st.expander("What the planted units do", icon=":material/potted_plant:"):
            st.dataframe(words.planted(result).rename(columns=_capital), hide_index=True)
    with st.expander("Your own method", icon=":material/upload_file:"):
        how_to(result)


def tidy(found: Sequence[Result]) -> None:
    """The address names models, and measures as the page or the tables do."""
    models = newest(found)
    state.tidy_address(
        {
            "model": lambda text: text if text in models else None,
            "metric": lambda text: next((one for one in HEADINGS if text in (one, HEADINGS[one])), None),
        }
    )


def chosen(found: Sequence[Result]) -> Result:
    """One of the results, the newest first; each model once."""
    by_model = newest(found)
    if len(by_model) == 1:
        return next(iter(by_model.values()))
    return by_model[st.selectbox("Model", list(by_model), key="model", bind="query-params")]


def figure(result: Result) -> None:
    """A panel for each measure that was chosen, at first the usual ones."""
    there = [heading for heading, measure in HEADINGS.items() if result.best(measure)]
    if any(heading not in there for heading in st.session_state.get("metric", [])):
        del st.session_state["metric"]  # of a model that units are planted in
    usual = state.usual("metric", [MEASURES[measure].heading for measure in usual_of(result)])
    chosen = st.multiselect("Measures", there, default=usual, key="metric", bind="query-params", wrap=True)
    view = View(model=model_of(result), metric=tuple(HEADINGS[heading] for heading in chosen or usual))
    charts.show("bench", view)


def table(result: Result) -> None:
    """Every score and what it was judged by."""
    with_ends = st.toggle("95 % intervals", key="bench_ends")
    columns: dict[str, Any] = {"method": "Score"}
    columns |= {
        one.heading: st.column_config.TextColumn(_capital(one.heading), help=plain(one.words))
        for one in MEASURES.values()
    }
    columns["passes"] = st.column_config.TextColumn(
        "Passes",
        help="For one picture, forward and backward: 1 is a pass of the whole prompt and caption through all layers",
    )
    rows = words.table(result, with_ends)
    rows["seconds"] = [words.seconds_text(result, method) for method in rows["method"]]
    columns["seconds"] = st.column_config.TextColumn(
        "Seconds", help="CPU time for one picture, on the machine that measured it"
    )
    st.dataframe(rows, hide_index=True, column_config=columns, height=fitting(len(rows), 600))


def standing(result: Result) -> str:
    """How many of the other scores are ahead of the program's usual one, by each measure; empty without that one."""
    usual = words.usual_score(result)
    if usual is None:
        return ""
    found = {one.heading: result.n_ahead(usual, measure) for measure, one in MEASURES.items()}
    ahead = ", ".join(f"{n} by “{heading}”" for heading, n in found.items() if n is not None)
    others = len(result.methods) - 1
    return f"of {others} other scores, so many are ahead of {usual}, which pages take where nobody chose one: {ahead}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def places(result: Result) -> None:
    """Where each role's unit stands."""
    st.markdown(
        "**Where the planted units stand**: the share of all units that a score ranks before them, 50 % by chance."
    )
    columns: dict[str, Any] = {"method": "Score"}
    columns |= {
        role: st.column_config.TextColumn(_capital(role), help=plain(about)) for role, about in ROLE_WORDS.items()
    }
    st.dataframe(words.places(result), hide_index=True, column_config=columns)


def how_to(result: Result) -> None:
    """How a ranking of somebody else's is judged."""
    model = "the model with its planted units" if result.planted else "the model"
    st.markdown(
        f"The first command writes {model} as a folder, and every picture and noun; write a Parquet file of image_id, "
        "noun, layer, unit and score, and the second one judges it beside the others."
    )
    command = words.command(result)
    st.markdown(code(f"{command} --export bench-model"))
    st.markdown(code(f"{command} --submission mine.parquet"))


page()
