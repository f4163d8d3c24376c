"""The rows of the edit figure."""

from __future__ import annotations

import pandas as pd

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.store import Store
from mmn.studies.editing.queries import EditQueries
from mmn.studies.editing.shares import labelled_shares


def edit(store: Store, asked: Asked) -> Rows:
    """An edit beside the others of the same noun and new word.

    Raises:
        UsageError: no such edit; none of these was measured on any picture.
    """
    queries, wanted = store.ask(EditQueries), asked.view.edit
    edits = queries.edits(asked.run_id)
    found = edits[edits["edit_id"].str.startswith(wanted)]
    if edits.empty:
        raise UsageError(f"run {asked.run_id} has no edits; mmn edit {asked.run_id} makes one")
    if found.empty:
        raise UsageError(f"no edit {wanted!r} of run {asked.run_id}; there are: {', '.join(edits['edit_id'])}")
    ids = list(found["edit_id"])
    chosen = found.iloc[ids.index(asked.one("edit", "edit", ids, None))]
    of_pair = edits[(edits["noun"] == chosen["noun"]) & (edits["target"] == chosen["target"])]
    rows = pd.concat([of_pair[of_pair["edit_id"] == chosen["edit_id"]], of_pair]).drop_duplicates("edit_id")
    data = labelled_shares(rows, queries.captions(asked.run_id, *rows["edit_id"]))
    if data.empty:
        raise UsageError(f"edit {chosen['edit_id']} was not measured on any picture")
    return Rows(data, asked.run, {"pair": f"“{chosen['noun']}” to “{chosen['target']}”"})
