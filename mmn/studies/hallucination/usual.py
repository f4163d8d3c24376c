"""What the study takes where nobody chose."""

from __future__ import annotations

from typing import Final

LIMIT: Final = 50  # pictures
N_OBJECTS: Final = 80  # as many as COCO's categories, which Jiang et al. (arXiv 2410.02762) ask for
ALPHA: Final = 1.5  # of their demo; and there:
DEMO_LAYERS, DEMO_TEXT, DEMO_IMAGE = 32, 1, 3  # layers in all, behind the direction, and behind the edited tokens
