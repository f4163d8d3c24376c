"""The second run that is shown beside the first, where the page's view names one."""

from __future__ import annotations

from typing import Any

from app import compared, resources
from mmn.errors import UsageError


def of_view(run: dict[str, Any]) -> dict[str, Any] | None:
    """The run that the view compares with; None where it names none, none that is there, or the first itself."""
    named = compared.run_id()
    if not named:
        return None
    try:
        found = resources.store().run(named)
    except UsageError:
        return None
    return None if found["run_id"] == run["run_id"] else found | resources.store().summary(found["run_id"])
