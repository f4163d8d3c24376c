"""Pictures: open and validate one (`opening`), list a whole source of them (`sources`)."""

from __future__ import annotations

from mmn.images.opening import MAX_ASPECT, MAX_PIXELS, MAX_SIDE, MIN_SIDE, THUMBNAIL_SIDE, open_image, thumbnail
from mmn.images.sources import PICTURES_PATH, Listing, Progress, list_source

__all__ = [
    "MAX_ASPECT",
    "MAX_PIXELS",
    "MAX_SIDE",
    "MIN_SIDE",
    "PICTURES_PATH",
    "THUMBNAIL_SIDE",
    "Listing",
    "Progress",
    "list_source",
    "open_image",
    "thumbnail",
]
