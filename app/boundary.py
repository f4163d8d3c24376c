"""The app's error boundary: the one place that catches everything, so that nobody meets a bare traceback."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.text import plain, sentence
from mmn.errors import CacheLockedError, CacheNewerError, MmnError


@contextmanager
def error_boundary() -> Iterator[None]:
    """Shows what goes wrong inside: our own errors as one sentence, anything else with its traceback folded away.

    Around the page in `main.py`, and around each fragment: those are run again without `main.py`.
    """
    try:
        yield
    except (CacheLockedError, CacheNewerError) as error:
        st.header("The results cannot be opened")
        st.error(sentence(error), icon=":material/lock:")
        st.caption(
            "The app opens the folder that the environment variable MMN_CACHE names; without it, cache/ beside it."
        )
        st.button("Try again", icon=":material/refresh:")
    except MmnError as error:
        st.error(sentence(error), icon=":material/error:")
    except Exception as error:  # this is the boundary
        told = plain(f"{type(error).__name__}: {error}")
        st.error(f"This is a bug: {told}", icon=":material/bug_report:")
        st.caption("The rest of the app still works. If this happens again, report the text below.")
        with st.expander("Traceback"):
            st.code("".join(traceback.format_exception(error)), language=None)
