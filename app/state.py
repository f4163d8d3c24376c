"""What a page address holds: the run and the filters, as the labels that the widgets show.

Widgets keep themselves in the address (`bind="query-params"`, the widget's key is the parameter), but only know the
exact labels of their options. `tidy_address` lets an address that people write by hand (`?run=3f2a&k=43`), or one from
another run, mean the same thing, and drops what means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

import streamlit as st
from streamlit.errors import StreamlitAPIException

SHARED: Final = ("concept", "general", "layers", "method", "ranking", "words")  # filters of several pages
OF_PAGE: Final = "until-page-is-left-"  # how keys of the session begin that are forgotten then
OWN: Final = (
    *("k", "size", "show", "units", "control", "metric", "nouns", "similarity", "sigma-unit"),
    *("rule", "by", "unsaid", "found", "concepts", "chance", "pictures"),
)  # of one page, which keeps them until one comes back to it
_KEPT, _SHOWN = "filters-kept", "filters-shown"


def tidy_address(meanings: Mapping[str, Callable[[str], str | None]]) -> None:
    """Rewrites the address to labels before the widgets of a page first take it up, and starts the script run again
    if that changed anything. All parameters of a page at once: a widget that was seeded twice warns of its default.

    Args:
        meanings: For each parameter (the widget's key) the label that a written value means, None for no meaning.
    """
    is_changed = False
    for key, label_of in meanings.items():
        if key in st.session_state or key not in st.query_params:
            continue
        given = st.query_params.get_all(key)
        labels = list(dict.fromkeys(label for value in given if (label := label_of(value)) is not None))
        is_changed |= labels != given
        if labels != given and labels:
            st.query_params[key] = labels
        elif labels != given:
            del st.query_params[key]
    if is_changed:
        st.rerun()  # widgets are seeded from the address that a script run began with


def usual(key: str, value: Any) -> Any:
    """`value`, which the filter `key` holds on this page while nobody chose anything; says that it is shown."""
    st.session_state.setdefault(_SHOWN, {})[key] = value
    return value


def carry_filters(page: str) -> None:
    """Gives a page that was just switched to what was chosen of the filters, before it shows them.

    Streamlit gives a page's widgets the values of the last page's one script run too late, and the defaults of one
    page to the next. So what was chosen is remembered here, also over pages that have no such filter. An address that
    says something itself wins.
    """
    kept, shown = st.session_state.setdefault(_KEPT, {}), st.session_state.get(_SHOWN, {})
    is_new = st.session_state.get("page-before", page) != page
    st.session_state["page-before"], st.session_state[_SHOWN] = page, {}
    if not is_new:
        return
    for key in [one for one in st.session_state if str(one).startswith(OF_PAGE)]:
        del st.session_state[key]
    for key, begun_with in shown.items():
        if key in st.session_state:
            chosen = st.session_state[key]
            kept[key] = None if chosen == begun_with else chosen
    for key in (*SHARED, *OWN):
        st.session_state.pop(key, None)
        if kept.get(key) is not None and key not in st.query_params:
            _hand_over(key, kept[key])
    st.rerun()  # widgets are seeded from the address that a script run began with


def _hand_over(key: str, value: Any) -> None:
    """Puts a filter into the address; where the last page's widget still holds that, only into the next widget."""
    try:
        st.query_params[key] = value if isinstance(value, str) else [str(one) for one in value]
    except StreamlitAPIException:
        st.session_state[key] = value


def not_shown(later: Sequence[str]) -> dict[str, list[str]]:
    """The filters of several pages that are set and that this page does not show, each with its values as text.

    They are remembered for the pages that do, also where only the address that one came by named them.

    Args:
        later: those that this page shows further down.
    """
    kept, shown = st.session_state.setdefault(_KEPT, {}), st.session_state.get(_SHOWN, {})
    found = {}
    for key in SHARED:
        if key in shown or key in later:
            continue
        given = st.query_params.get_all(key)
        if given and kept.get(key) is None:
            kept[key] = given[0] if key in ("general", "ranking", "words") else given
        if kept.get(key) is not None:
            found[key] = [kept[key]] if isinstance(kept[key], str) else [str(one) for one in kept[key]]
    return found


def reset_filters() -> None:
    """Every filter as at first, on this page and all others; to be called before a script run (`on_click`)."""
    shown = st.session_state.get(_SHOWN, {})
    st.session_state[_KEPT] = {}
    for key, value in shown.items():
        st.session_state[key] = value
    for key in (*SHARED, *OWN):
        if key not in shown:
            st.session_state.pop(key, None)
            st.query_params.pop(key, None)


def rename_address(names: Mapping[str, str]) -> None:
    """Gives parameters of an older address their present names, and starts the script run again if there were any."""
    if not any(old in st.query_params for old in names):
        return
    for old, new in names.items():
        if old in st.query_params:
            st.query_params[new] = st.query_params.get_all(old)
            del st.query_params[old]
    st.rerun()


def run_label(run: dict[str, Any]) -> str:
    """A run as words that survive in an address: its name, or model and pictures, and the id's first eight signs."""
    if run.get("name"):
        return f"{run['name']} {run['run_id'][:8]}"
    return f"{short(run['model'])} {short(run['images'])} {run['run_id'][:8]}"


def find_label(labels: Sequence[str], text: str) -> str | None:
    """The one of `labels` that `text` is, or whose last word (a run's id) is a beginning of it or begins with it."""
    if text in labels:
        return text
    found = [label for label in labels if text and (text.startswith(id8 := label.split()[-1]) or id8.startswith(text))]
    return found[0] if len(found) == 1 else None


def short(name: str) -> str:
    """The last part of a path, a hub id or `coco:FILE:FOLDER`, without spaces; uploads by the start of their hash."""
    last = PurePath(name.rpartition(":")[2].rstrip("/") or name).name.replace(" ", "_") or name
    return f"upload-{last[:8]}" if re.fullmatch(r"[0-9a-f]{64}", last) else last


def parse_k(text: str, n_units: int, top_k: int) -> int | None:
    """The k that `43`, `43 (1.4 %)` or `1.4 %` means; None if that is no number from 1 to `top_k`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.partition("(")[0].strip().replace(",", ""))
    if found is None:
        return None
    k = float(found[1]) * (n_units / 100 if found[2] else 1)
    whole = round(k)
    return whole if 1 <= whole <= top_k and (found[2] or whole == k) else None


def k_options(n_units: int, top_k: int) -> list[int]:
    """Useful k's up to the stored `top_k`: the papers' shares of all units, and round numbers (METHODS: k)."""
    shares = {round(n_units * share / 100) for share in (0.1, 0.3, 1, 1.4, 3, 5, 10, 25)}
    numbers = {1, 10, 50, 100, 200, 500, 1000, 5000, 10_000, top_k}
    return sorted(k for k in shares | numbers if 1 <= k <= top_k)


def default_ks(n_units: int, top_k: int) -> list[int]:
    """0.3, 1.4 and 5 % of all units where they are stored, or else the largest k that is."""
    wanted = [round(n_units * share / 100) for share in (0.3, 1.4, 5)]
    return [k for k in wanted if 1 <= k <= top_k] or [top_k]


def duration(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `3 min 20 s`, `2 h 5 min`, without a zero at the end."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def pace(rate: float) -> str:
    """Pictures per second as people say it: `8.3 pictures per second`, or `5.0 s a picture` when they are slow."""
    return f"{rate:.1f} pictures per second" if rate >= 1 else f"{1 / rate:.1f} s a picture"
