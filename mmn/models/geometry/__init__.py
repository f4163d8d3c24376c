"""Where in the displayed picture each image token comes from: the processor's resize, padding, crop and tiles undone.

Every processor here treats the two axes alike and apart, so a grid is two axes, and an axis is a row of spans: the
stretch of the picture, in its own pixels, that one row or column of tokens was made from. Resizing scales spans,
cropping and padding shift them, merging patches joins them; nothing is sampled.

    picture ─► canvas (resized, padded, cropped) ─► patches ─► merged patches = tokens
            ◄─ pixels_of_canvas                  ◄─ spans (patch_size, merge)

A family names its kind of grid as data (`Family.grid`), a row of `kinds.GRIDS`. What no test has checked against the
real processor, with a bright square planted in a black picture, is refused: a heat map that is shifted by half a
picture still looks right.

Left out: several pictures in one prompt, video, and models whose image tokens have no place (a Q-Former's queries).
"""

from __future__ import annotations

from mmn.models.geometry.grids import Axis, Box, Cell, Grid, Grids
from mmn.models.geometry.kinds import GRIDS, WITHOUT_GRID, image_grid

__all__ = ["GRIDS", "WITHOUT_GRID", "Axis", "Box", "Cell", "Grid", "Grids", "image_grid"]
