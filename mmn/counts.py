"""How many of what, in words: `1 picture`, `2 pictures`. For every command, page, chart and message that counts."""

from __future__ import annotations


def counted(n: float, noun: str, nouns: str = "") -> str:
    """`1 picture`, `2 pictures`, `1,024 classes`.

    Args:
        n: how many; rounded to a whole number.
        noun: of one, which may have words before it: `image token`.
        nouns: of several, where its end does not tell: `files or folders`.
    """
    return f"{round(n):,} {noun if round(n) == 1 else nouns or _several(noun)}"


def counted_are(n: float, noun: str, nouns: str = "") -> str:
    """`1 picture is`, `2 pictures are`."""
    return f"{counted(n, noun, nouns)} {'is' if round(n) == 1 else 'are'}"


def _several(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
