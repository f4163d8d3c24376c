"""How much the benchmark asks where nobody says how much. No torch here: what is shown compares with it."""

from __future__ import annotations

from typing import Final

N_NOUNS: Final = 4
N_JUDGED: Final = 4  # pictures of each noun
N_BUILT: Final = 18
N_SAMPLED: Final = 384  # units whose effects are measured, besides the planted ones
