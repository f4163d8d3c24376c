"""Text is text: whatever comes from files, models or people is shown letter by letter.

Streamlit reads nearly every string as Markdown: labels, captions, messages, tooltips, and the options of pills,
segmented controls, radios and select sliders. So a caption `![](http://…)` would make the browser fetch that address.
`plain` is the only way for such a string into Markdown; `code` where a command is meant to be copied.

Already plain, and to be given the string as it is: options of selectboxes and multiselects, placeholders, values of
inputs, `st.code`, cells of tables, pictures' `alt`, and the titles, axes, legends and tooltips of charts.
"""

from __future__ import annotations

import re
from typing import Final

MOST_LETTERS: Final = 2000
JOINER: Final = "\u2060"  # as wide as nothing; keeps apart what Streamlit looks for after Markdown's escapes are gone
_SPACE: Final = re.compile(r"[ \t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]+")
# Control characters, marks that turn the direction of all that follows, and halves of characters.
_INVISIBLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>$~|&]|:(?=\S)")
_AT_START: Final = re.compile(r"^([#+=-]|\d+(?=[.)]))")
# Where addresses, `:emoji:`, icons, and the arrows and dashes that Streamlit draws from signs are broken apart.
_JOINED: Final = re.compile(
    r"(?<=http)(?=:)|(?<=https)(?=:)|(?<=www)(?=\.)|(?<=[-.\w+]@)(?=[-\w]+\.)"
    r"|(?<=:)(?=[\w+-]+:|material/)"
    r"|(?<=(?<!\S)[<>~-])(?=[->=](?!\S))|(?<=(?<!\S)<)(?=->(?!\S))",
    re.IGNORECASE,
)


def plain(value: object, most: int = MOST_LETTERS) -> str:
    """The Markdown that shows `value` as it is, on one line, cut to `most` letters.

    What cannot be seen, or would turn what follows around, becomes �.
    """
    text = _clipped(_INVISIBLE.sub("\ufffd", _SPACE.sub(" ", str(value))).strip(), most)
    text = _SPECIAL.sub(r"\\\g<0>", _JOINED.sub(JOINER, text))
    return _AT_START.sub(lambda found: f"{found[1]}\\" if found[1].isdigit() else f"\\{found[1]}", text)


def sentence(said: object) -> str:
    """`plain`, as a sentence: with a capital, and a full stop where it has no sign at its end."""
    text = str(said).strip()
    return plain(text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else "."))


def code(value: object, most: int = MOST_LETTERS) -> str:
    """The same in the letters of code, to be copied: between more backticks than it has in a row."""
    text = _clipped(_INVISIBLE.sub("\ufffd", _SPACE.sub(" ", str(value))).strip(), most)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    text = text.replace(":material/", f":{JOINER}material/")  # Streamlit rewrites it even there
    padding = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def file_name(value: object) -> str:
    """`value` as the name of a file to download, without what folders, shells and headers make more of."""
    return re.sub(r"[^\w.,()+ -]+", "_", str(value)).lstrip(".")[-120:]


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
