"""A short notice of what was not loaded, with reason and remedy. Names are a stranger's: shown as text only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from mmn.errors import SetAside, were_set_aside
from mmn.printable import printable

MOST_SHOWN: Final = 20


def notice(broken: Sequence[SetAside]) -> None:
    """Says how many files or folders were set aside; which and why is folded away."""
    if not broken:
        return
    st.warning(f"{were_set_aside(len(broken))}. Everything else is loaded.", icon=":material/warning:")
    with st.expander("Details and remedies"):
        for one in broken[:MOST_SHOWN]:
            st.text(f"{printable(one.path)}\n{one.reason}.\nTo mend it: {one.remedy}.")
        if len(broken) > MOST_SHOWN:
            st.caption(f"And {len(broken) - MOST_SHOWN} more; `python -m mmn runs` lists them all.")
