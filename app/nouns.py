"""A picture's caption and its nouns: which is chosen, how sure the model was of it, and what to beware of."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import streamlit as st

from app import resources, state
from app.text import plain
from mmn.reading.language import is_english
from mmn.statistics.interval_words import percent
from mmn.studies.hallucination.doubts import DOUBTED, doubted

HALLUCINATION: Final = (
    "Nouns that no reference caption of the picture says, by this or another word for the same object. References "
    "are incomplete: check the picture before you conclude."
)
UNSAID: Final = "not in the references"


def caption(picture: dict[str, Any]) -> None:
    """What the model said, and what people said."""
    st.markdown(f"#### “{plain(picture['text'] or 'no caption')}”")
    if picture["is_cut"]:
        st.caption("The token limit ended this caption; an unfinished last word is left out.")
    references = [plain(one) for one in picture["reference"] if one]
    if references:
        more = f" (and {len(references) - 3} more)" if len(references) > 3 else ""
        st.caption(f"People wrote: {' / '.join(references[:3])}{more}")


def pick(concepts: pd.DataFrame) -> dict[str, Any]:
    """The row of the chosen noun (`?noun=`), with what is worth knowing of it."""
    rows = {label(row): row for row in concepts.to_dict("records")}
    of_noun = {one: text for text, row in rows.items() for one in (row["noun"], text.partition(" (")[0])}
    if st.session_state.get("noun") not in (None, *rows):  # of another picture
        kept = of_noun.get(st.session_state.pop("noun").partition(" (")[0])
        if kept:
            st.session_state["noun"] = kept
    state.tidy_address({"noun": lambda text: of_noun.get(text.partition(" (")[0])})
    chosen = st.pills("Noun", list(rows), default=next(iter(rows)), required=True, key="noun", bind="query-params")
    row = rows[chosen]
    measures(row)
    for remark in remarks(row):
        st.caption(remark)
    return row


def doubts(run_id: str, image_id: str) -> None:
    """A mark for each noun that the model's own image tokens are not sure of; nothing where that was not measured."""
    found = doubted(resources.store(), run_id)
    for row in found[found["image_id"] == image_id].to_dict("records"):
        st.badge(
            f"{plain(row['noun'])}: doubted",
            icon=":material/question_mark:",
            color="orange",
            help=f"Internal confidence {row['confidence']:.2g}, threshold {row['threshold']:.2g}: no more than in "
            f"{percent(DOUBTED)} of the objects that captions of this run do not name (`mmn hallucination`).",
        )


def label(row: dict[str, Any]) -> str:
    """`dog`, or `dog (not in the references)`; `wolf (chosen word)` for one that the caption need not say."""
    noun = plain(row["noun"])
    if isinstance(row["target_at"], str):
        return f"{noun} (chosen word)"
    return f"{noun} ({UNSAID})" if is_unsaid(row) else noun


def is_unsaid(row: dict[str, Any]) -> bool:
    """Whether there are references and none of them says the noun."""
    return pd.notna(row["is_in_reference"]) and not row["is_in_reference"]


def is_known(flag: Any) -> bool:
    """Whether a flag that older runs do not have is there and set."""
    return bool(pd.notna(flag) and flag)


def why_none(picture: dict[str, Any]) -> str:
    """Why a caption has no nouns, a sentence."""
    if not is_english(picture["text"] or ""):
        return "The caption is not English; nouns are found only in English."
    return "The caption has no noun, so there is nothing to score."


def measures(row: dict[str, Any]) -> None:
    """Probability and logit, with the picture and over a grey one."""
    with st.container(horizontal=True, gap="medium"):
        st.metric("Probability", share(row["prob"]), width="content")
        st.metric("Logit", f"{row['logit']:.2f}", width="content")
        if pd.notna(row["blank_prob"]):
            why = "The same words over a uniform grey picture: what the language model predicts without the picture"
            st.metric("Prob., grey", share(row["blank_prob"]), width="content", help=why)
            st.metric("Logit, grey", f"{row['blank_logit']:.2f}", width="content", help=why)


def share(prob: float) -> str:
    """A probability with three digits, and no zero for one that is not."""
    return f"{prob:.3f}" if prob >= 0.0005 else "< 0.001"


def remarks(row: dict[str, Any]) -> list[str]:
    """What to beware of with this noun, a sentence each."""
    noun, found = plain(row["noun"]), []
    if isinstance(row["target_at"], str):
        found.append(f"“{noun}” is a word you chose, scored where the caption says “{plain(row['target_at'])}”.")
    if is_unsaid(row):
        found.append(
            f":orange[Possible hallucination:] no reference says “{noun}” or another word for it. References are "
            "incomplete."
        )
    if row["is_multi_token"]:
        found.append(f"“{noun}” has several tokens; all numbers are for its first one.")
    if row["is_shared_token"]:
        found.append(f"“{noun}” begins with the same token as another noun here, so their units cannot be told apart.")
    if is_known(row["is_modifier"]):
        found.append(f"“{noun}” modifies the noun after it: both are parts of a compound.")
    elif is_known(row["is_compound"]):
        found.append(f"“{noun}” is the head of a compound, which may mean something else: a hot dog is no dog.")
    if row["n_mentions"] > 1:
        found.append(f"Said {row['n_mentions']:,} times; the numbers are for the first mention.")
    return found
