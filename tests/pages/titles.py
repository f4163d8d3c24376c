"""The title of a chart: of one on a page, where it is text beside it, or of a file, where it is part of it."""

from __future__ import annotations

from typing import Any


def title_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Its `text`, in one line, and the lines of its `subtitle`."""
    title = spec["title"] if "title" in spec else spec["usermeta"]["title"]
    text = title["text"] if isinstance(title["text"], str) else " ".join(title["text"])
    return {"text": text, "subtitle": title["subtitle"]}
