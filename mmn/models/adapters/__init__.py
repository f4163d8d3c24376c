"""What differs between model families, and where in any of them the parts are that scores are read from.

`find_family` looks up a model's family (`families.py`); `find_anatomy` finds its parts by structure (`structure.py`,
`norms.py`) as its `Anatomy`: the very modules that scores are read from. `runs.doctor` proves that they are.
"""

from mmn.models.adapters.anatomy import Anatomy, Gains, find_anatomy, has_encoder
from mmn.models.adapters.families import CLASS_TOKENS, FAMILIES, OTHER_LAYOUTS, Family, find_family
from mmn.models.adapters.norms import Norm

__all__ = [
    "CLASS_TOKENS",
    "FAMILIES",
    "OTHER_LAYOUTS",
    "Anatomy",
    "Family",
    "Gains",
    "Norm",
    "find_anatomy",
    "find_family",
    "has_encoder",
]
