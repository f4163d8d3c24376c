"""How confident is the model of the objects that it names, and what does it say when one is projected out?"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import charts, filter_bar, links, picture_strip, pictures, resources, state, study_page
from app.picture import mount
from app.picture.panels import Panel, Places
from app.text import code, plain
from mmn.errors import ImageError
from mmn.store.pictures import PictureQueries
from mmn.studies.hallucination.judging import Judge
from mmn.studies.hallucination.queries import HallucinationQueries
from mmn.studies.hallucination.rows import Said, said_before, stated
from mmn.units.heat_maps import OPACITY, overlay
from mmn.view import View

INTRODUCTION = (
    "**Internal confidence** in an object: the highest probability that any image token gives it after any layer "
    "(Jiang et al., arXiv 2410.02762; their code was read). It should be higher for objects that are in the "
    "picture than for hallucinated ones. Which objects are there is read from masks and references, which are "
    "incomplete; synonyms count."
)
EDITED = (
    "**ProjectAway** removes the direction of one noun from the image tokens, and the model captions again. The "
    "controls are the direction of an object that is not there and a random direction of the same length. CHAIR_s "
    "is the share of captions with a hallucinated object, CHAIR_i the share of hallucinated objects among all "
    "named ones. For **listed objects**, as published, every mention of a word for one counts; for **all nouns**, "
    "every noun counts once. The last rows show what happens to objects that are there."
)
MOST_ABSENT = 10


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    filter_bar.none()
    job = study_page.measurement("hallucination")
    if not study_page.is_measured(run, job):
        return
    ask = resources.store().ask(HallucinationQueries)
    read, judge = ask.confidences(run["run_id"]), ask.judge(run["run_id"])
    command = code(f"mmn hallucination {run['run_id']} --synonyms FILE")
    st.caption(f"Objects are matched {plain(judge.told())}. {command} changes that.")
    found = resources.store().ask(PictureQueries).pictures(run["run_id"])
    found = found[found["image_id"].isin(read["image_id"])]
    picture = picture_strip.chosen_picture(run, found)
    picture_strip.show(run, found, picture)
    if picture is not None:
        said = said_before(ask.nouns_before(run["run_id"])).get(picture["image_id"])
        one_picture(run, picture, objects_of(read[read["image_id"] == picture["image_id"]], judge, said))
    st.subheader("Over all pictures that were read")
    view = View(run["run_id"])
    for name in ("hallucination", "hallucination-objects", "hallucination-confidence", "hallucination-maps"):
        study_page.guarded(partial(charts.show, name, view))
    edits(run, view)
    study_page.measure_again(run, job)


def one_picture(run: dict[str, Any], picture: dict[str, Any], told: pd.DataFrame) -> None:
    """The picture under the map of one object, and how sure the model is of each."""
    if told.empty:
        st.info("This picture was not read, or no object was asked for in it.", icon=":material/search_off:")
        return
    row = st.container(horizontal=True, gap="large")  # in a narrow window one below the other
    left, right = row.container(width=420), row.container(width="stretch")
    with right:
        st.markdown(f"#### “{plain(picture['text'] or 'no caption')}”")
        links.image_link(run, picture["image_id"])
        st.dataframe(
            told,
            hide_index=True,
            placeholder="–",
            column_config={
                "object": st.column_config.TextColumn("Object", width=84),
                "state": st.column_config.TextColumn("Is it there?", width=96, help="By masks and references"),
                "raw": st.column_config.NumberColumn(
                    "Confidence", width=80, format="%.3f", help="No norm, as in the paper"
                ),
                "normed": st.column_config.NumberColumn(
                    "Final norm", width=80, format="%.3f", help="Behind the final norm (OURS)"
                ),
                "layer": st.column_config.NumberColumn("After layer", help="Of Confidence; –: before the first"),
            },
        )
    with left:
        object_map(run, picture, list(told["object"]))


def objects_of(read: pd.DataFrame, judge: Judge, said: Said | None) -> pd.DataFrame:
    """The objects of a picture: those that are named, and the surest of the others."""
    wide = read.pivot_table(index="object", columns="readout", values="confidence").reset_index()
    of_raw = read.loc[read["readout"] == "raw", ["image_id", "object", "is_said", "is_compound", "layer"]]
    data = wide.merge(of_raw, on="object").sort_values(["is_said", "raw"], ascending=[False, False])
    data = data[data["is_said"] | ((~data["is_said"]).cumsum() <= MOST_ABSENT)]
    if data.empty:
        return data.assign(state="")
    data = stated(data, judge, said)
    return data[["object", "state", "raw", "normed", "layer"]]


def object_map(run: dict[str, Any], picture: dict[str, Any], objects: list[str]) -> None:
    """The picture under the confidence of its image tokens in one object; why not, where that was not kept."""
    ask = resources.store().ask(HallucinationQueries)
    mapped = ask.mapped(run["run_id"], picture["image_id"], "raw")
    kept = [name for name in objects if name in mapped]
    grids = resources.store().ask(PictureQueries).grid(run["run_id"], picture["image_id"])
    try:
        image = pictures.displayed(picture["source"], picture["image_id"])
    except ImageError as error:
        st.info(f"The picture cannot be shown: {plain(error)}", icon=":material/broken_image:")
        return
    if not kept or grids is None:
        mount.show([Panel(image, picture["text"] or "the picture")], "hallucination")
        st.caption("No map: image tokens of this model have no place in the picture, or no object was named.")
        return
    labels = {plain(name): name for name in kept}
    if st.session_state.get("object") not in (None, *labels):  # of another picture
        del st.session_state["object"]
    state.tidy_address({"object": lambda text: next((one for one in labels if text in (one, labels[one])), None)})
    chosen = st.pills(
        "Map of", list(labels), default=next(iter(labels)), required=True, key="object", bind="query-params"
    )
    values = ask.object_map(run["run_id"], picture["image_id"], labels[chosen], "raw")
    look = pictures.look_at(image, grids, (picture["width"], picture["height"]), [values])
    places = Places(grids, (picture["width"], picture["height"]))
    measure = f"confidence in {chosen}"
    panel = Panel(overlay(image, look.heat, OPACITY), f"Where {chosen} is", "", places, measure, tuple(values))
    mount.show([panel], "hallucination")
    pictures.legend(float(np.nanmin(look.heat)), float(np.nanmax(look.heat)), measure)


def edits(run: dict[str, Any], view: View) -> None:
    """Captions after nouns were projected out, or the job that makes them."""
    st.subheader("ProjectAway")
    st.markdown(EDITED)
    job = study_page.measurement("hallucination", "project-away")
    if study_page.is_measured(run, job):
        study_page.guarded(partial(charts.show, "project-away", view))


page()
