"""A stranger's text as part of a sentence of ours: nothing in it moves a terminal's cursor or breaks an encoding."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""Returns `text` with what cannot be printed (control characters, halves of characters) written as `\x1b`."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in said)


def quoted(text: object, most: int = 80) -> str:
    """Returns `text`, printable and in quotation marks, cut after `most` characters."""
    said = printable(text)
    return f"'{said if len(said) <= most else said[: most - 1] + '…'}'"
