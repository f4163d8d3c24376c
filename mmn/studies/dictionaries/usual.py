"""What dictionaries are made of, for command lines, which are read without numpy."""

from __future__ import annotations

from typing import Final

LEAST: Final = 12  # pictures, for a dictionary of a noun
