"""The Edit page's view of one edit: how well it did, beside its controls; its units, captions, checksums and file."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import streamlit as st

from app import charts, edit_captions, links, resources
from app.text import code, file_name, plain
from mmn.core import Neuron
from mmn.counts import counted
from mmn.names import ANOTHER, TOP
from mmn.studies.editing.queries import EditQueries
from mmn.studies.editing.shares import describe_own_edit, edit_label, own_share
from mmn.view import View

MEANINGS: Final = {
    "efficacy": "Share of the pictures that the edit was fitted to whose caption now says the new word",
    "generalisation": "The same share of other pictures of the noun",
    "locality": "Share of captions of pictures without the noun that stay the same",
}
COUNTS: Final = {"efficacy": "n_edited", "generalisation": "n_other", "locality": "n_unrelated"}
PERPLEXITY: Final = (
    "Per token of captions of the run that say neither word, read without a picture, before and after; an edit of "
    "one word should not change it"
)
NORM: Final = "The largest change of any edited column of W_out, as a share of its own length"
FLUENCY: Final = "n-gram entropy of the captions of pictures of the noun, in bits; lower than before means repetitive"
STOPS: Final = {"success": "stopped on success", "cap": "stopped at the cap", "steps": "stopped after its steps"}
MOST_UNITS: Final = 60  # more are told by layer


def overview(edits: pd.DataFrame, chosen: str) -> None:
    """All edits, controls beside each other: grouped by noun and new word."""
    shown = edits.assign(
        how=[edit_label(row) for row in edits.to_dict("records")],
        n_units=[len(units) for units in edits["units"]],
        shown=edits["edit_id"] == chosen,
    )
    number = st.column_config.NumberColumn
    shares = {name: number(name.capitalize(), format="%.0f %%", help=told) for name, told in MEANINGS.items()}
    shown = shown.assign(**{name: 100 * shown[name].astype(float) for name in MEANINGS})
    st.dataframe(
        shown,
        hide_index=True,
        placeholder="–",
        column_order=[
            "shown", "pair", "how", "n_units", "relative_norm", "efficacy", "generalisation", "locality", "fluency",
            "fluency_before", "captions_before", "captions_after", "plain_before", "plain_after", "created_at",
        ],
        column_config=shares
        | {
            "shown": st.column_config.CheckboxColumn("Below", width=50, help="The one that is shown below"),
            "pair": st.column_config.TextColumn("Edit", width=110),
            "how": st.column_config.TextColumn("How", width=230),
            "n_units": number("Units", format="%d", width=60),
            "relative_norm": number("‖Δ‖/‖w‖", format="%.2f", width=75, help=NORM),
            "fluency": number("Fluency", format="%.2f", width=70, help=FLUENCY),
            "fluency_before": number("Before", format="%.2f", width=65, help="The same before the edit"),
            "captions_before": number("Perplexity of captions", format="%.2f", help=f"{PERPLEXITY}. Here: before"),
            "captions_after": number("After", format="%.2f", width=70, help=PERPLEXITY),
            "plain_before": number("Of plain English", format="%.4g", help="The same of plain English sentences"),
            "plain_after": number("After", format="%.4g", width=70, help="The same of plain English sentences"),
            "created_at": st.column_config.DatetimeColumn("Made (UTC)", format="D MMM, HH:mm", width=110),
        },
    )  # fmt: skip


def show(run: dict[str, Any], edit: dict[str, Any], of_pair: pd.DataFrame) -> None:
    """Draws one edit.

    Args:
        run: the run's row.
        edit: its row of `EditQueries.edits`.
        of_pair: the rows of all edits of the same noun and new word, itself included.
    """
    st.subheader(plain(f"{edit['noun']} → {edit['target']}: {edit_label(edit)}"))
    _metrics(edit)
    if of_pair[list(COUNTS.values())].to_numpy().any():
        charts.show("edit", View(run["run_id"], edit=edit["edit_id"]))
    else:
        st.caption("It has not been measured on pictures yet.")
    _own(run, edit, of_pair)
    left, right = st.columns(2, gap="medium")
    with left:
        _units(run, edit)
    with right:
        _weights(edit)
    _file(run, edit)
    edit_captions.show(run, edit)


def _metrics(edit: dict[str, Any]) -> None:
    """The numbers as cards, each with its n."""
    with st.container(horizontal=True, gap="medium"):
        for name, told in MEANINGS.items():
            value = "–" if pd.isna(edit[name]) else f"{100 * edit[name]:.1f}".removesuffix(".0") + " %"
            _card(name.capitalize(), value, f"{told}.", counted(int(edit[COUNTS[name]]), "picture"))
        before = "" if pd.isna(edit["fluency_before"]) else f"bits; {edit['fluency_before']:.2f} before"
        _card("Fluency", "–" if pd.isna(edit["fluency"]) else f"{edit['fluency']:.2f}", FLUENCY, before)
        known = not pd.isna(edit["captions_after"])
        _card(
            "Perplexity",
            f"{edit['captions_after']:.2f}" if known else "–",
            PERPLEXITY,
            f"{edit['captions_before']:.2f} before" if known else "not measured",
        )
        stopped = STOPS.get(str(edit["settings"].get("stopped_by", "")), "largest column")
        _card("‖Δ‖/‖w‖", f"{edit['relative_norm']:.2f}", NORM, stopped)


def _own(run: dict[str, Any], edit: dict[str, Any], of_pair: pd.DataFrame) -> None:
    """Whether what the edit does is its units' own; or what measures the controls that are missing."""
    controls = of_pair[of_pair["selection"] == ANOTHER]
    alike = [one for one in controls.to_dict("records") if _is_control(one, edit)]
    if alike and edit["selection"] != ANOTHER:
        captions = resources.store().ask(EditQueries).captions(run["run_id"], edit["edit_id"], alike[0]["edit_id"])
        st.markdown(describe_own_edit(own_share(captions, edit["edit_id"], alike[0]["edit_id"])))
    elif edit["selection"] == TOP and edit["algorithm"] == "p2":
        told = f"python -m mmn edit {run['run_id'][:8]} --noun {edit['noun']} --to {edit['target']}"
        st.caption(
            "There is no edit of another noun's units to compare with, so it cannot be said whether the effect "
            f"belongs to these units: {code(told)} with the same options makes only the missing controls."
        )
    if pd.isna(edit["plain_after"]):
        st.caption("The perplexity of text was not measured: making the same edit again measures only that.")


def _is_control(control: dict[str, Any], edit: dict[str, Any]) -> bool:
    """Whether one edit is the other on other units."""
    kept = ("method", "n_units", "until", "success", "max_norm", "adam", "n_edited", "n_unrelated", "seed")
    return all(control["settings"].get(name) == edit["settings"].get(name) for name in kept)


def _card(name: str, value: str, told: str, below: str) -> None:
    with st.container(width=120, gap=None):
        st.metric(name, value, help=told)
        st.caption(below)


def _units(run: dict[str, Any], edit: dict[str, Any]) -> None:
    st.markdown(f"**{counted(len(edit['units']), 'unit')} touched**")
    units: list[Neuron] = edit["units"]
    if len(units) <= MOST_UNITS:
        st.markdown(" · ".join(f"[{unit}]({links.neuron_url(run, unit)})" for unit in sorted(units)))
        return
    per_layer = pd.Series([unit.layer for unit in units]).value_counts().sort_index()
    st.markdown("; ".join(f"layer {layer:d}: {n:,} of {int(run['d_mlp']):,}" for layer, n in per_layer.items()))


def _weights(edit: dict[str, Any]) -> None:
    """The checksum of all weights before, with and after the edit."""
    known = edit["settings"]
    before, edited, after = (known.get(f"checksum_{when}") for when in ("before", "edited", "after_undo"))
    st.markdown("**Weights**", help="sha-256 over all weights of the model in memory")
    if not before:
        st.caption("No checksums were kept.")
        return
    is_same = before == after
    st.markdown(
        f"before {code(str(before)[:12])}  \nedited {code(str(edited)[:12])}  \n"
        f"after undo {code(str(after)[:12])} " + (":green[same as before]" if is_same else ":red[not what it was]")
    )


def _file(run: dict[str, Any], edit: dict[str, Any]) -> None:
    """The delta to take away, and undo."""
    path = resources.store().edit_path(edit["edit_id"])
    with st.container(horizontal=True):
        if path.exists():
            st.download_button(
                f"Delta ({path.stat().st_size / 1024:,.0f} kB)",
                data=path.read_bytes,
                file_name=file_name(f"{edit['noun']}-{edit['target']}-{edit['edit_id'][:8]}.safetensors"),
                mime="application/octet-stream",
                icon=":material/download:",
                on_click="ignore",
                help="safetensors; `python -m mmn score --model M --delta FILE …` loads the edited model",
            )
        with st.popover("Undo", icon=":material/undo:"):
            st.markdown(
                "Removes this edit's file and all measurements of it. The model itself was never changed on disk. "
                "To get the edit back, make it again."
            )
            if st.button("Remove this edit", type="primary", key=f"undo-{edit['edit_id']}"):
                resources.store().delete_edit(run["run_id"], edit["edit_id"])
                st.toast(plain(f"Undone: {edit['noun']} → {edit['target']}"))
                st.rerun()
    if not path.exists():
        st.caption("Its file is no longer in the cache (`edits/`): make the edit again.")
