"""What is said of a run without nouns: no caption held one, or no picture was captioned.

Said by every command and page that looks at the units of nouns, in the same words.
"""

from __future__ import annotations

from mmn.counts import counted
from mmn.errors import UsageError


def require_nouns(run_id: str, n_images: int, n_concepts: int) -> None:
    """Raises `UsageError`, in one line, where a run has no noun."""
    if not n_concepts:
        raise UsageError(f"{why(n_images)} (run {run_id}); mmn show {run_id} tells more")


def why(n_images: int) -> str:
    """Why a run without nouns has none."""
    if not n_images:
        return "no picture of this run has been captioned, so there are no nouns whose units could be looked at"
    pictures = "its one picture" if n_images == 1 else f"its {counted(n_images, 'picture')}"
    return f"no caption of this run holds a noun ({pictures}), so there are no units of nouns to look at"
