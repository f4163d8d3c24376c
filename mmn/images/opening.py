"""One picture file, turned into upright 8-bit RGB or refused with a reason.

Steps: refuse what is no regular file (a pipe would block for ever) · read the header and refuse sizes that no model
should be shown, before a pixel is decoded · decode · scale deep pixels to 8 bit · lay transparency on white · turn
upright as EXIF says. The format is found from the bytes, whatever the file is called, among FORMATS only: Pillow's
other readers start programs (EPS), accept anything (TGA) or hold a picture of another size inside (ICO).

Left out: colour profiles. CMYK is converted by Pillow's plain formula.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmn.errors import ImageError
from mmn.roots import is_inside

MIN_SIDE: Final = 8
MAX_SIDE: Final = 20_000
MAX_PIXELS: Final = 100_000_000
MAX_ASPECT: Final = 50  # a processor that resizes the short edge to 336 would make the long one 16,800
THUMBNAIL_SIDE: Final = 256
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")  # JPEG reads MPO too

# What Pillow's readers are seen to raise on damaged bytes.
_DECODER_ERRORS: Final = (
    ArithmeticError, AttributeError, EOFError, Image.DecompressionBombError, LookupError, MemoryError, OSError,
    RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what undoes it
_EXIF_ORIENTATION: Final = 0x0112
_ON_ITS_SIDE: Final = (5, 6, 7, 8)
_warnings_lock = threading.Lock()  # warnings.catch_warnings swaps a global; one of us at a time


@dataclass(frozen=True)
class Header:
    """What listing needs of a picture: its bytes' sha-256 and number, and its upright size in pixels."""

    image_id: str
    n_bytes: int
    width: int
    height: int


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture at `path`: RGB, 8 bit, upright, fully loaded, its first frame if it moves, on white if transparent.

    Raises:
        ImageError: it cannot be read or decoded, or its size is one that we refuse (see `check_size`).
    """
    with _open_regular(path) as stream, _undecodable(path):
        image = _read_header(stream, path)
        orientation = _orientation(image)
        is_large = (
            image.width * image.height > MAX_PIXELS // 2
        )  # near where Pillow warns again; else decode in parallel
        with _quiet() if is_large else contextlib.nullcontext():
            image.load()
        upright = _turn(_to_rgb(image), orientation)
    upright.info = {}  # else a reader of the EXIF tag would turn it once more
    return upright


def read_header(path: str | os.PathLike[str]) -> Header:
    """Size and identity of the picture at `path`, from its header and its bytes' hash alone.

    Raises:
        ImageError: it cannot be read, its header makes no sense, or its size is one that we refuse.
    """
    with _open_regular(path) as stream, _undecodable(path):
        image = _read_header(stream, path)
        width, height = image.size
        if _orientation(image) in _ON_ITS_SIDE:
            width, height = height, width
        stream.seek(0)
        image_id = hashlib.file_digest(stream, "sha256").hexdigest()
        return Header(image_id, stream.tell(), width, height)


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the first bytes of `path` are a picture's, of any size."""
    try:
        with _open_regular(path) as stream, _undecodable(path):
            _identify(stream)
    except ImageError:
        return False
    return True


def format_suffix(data: bytes) -> str:
    """The file name ending for encoded picture bytes (`.jpg`, `.png`, …); `.bin` when they are no picture."""
    try:
        with _undecodable("these bytes"):
            name = _identify(io.BytesIO(data)).format or "bin"
    except ImageError:
        name = "bin"
    return "." + {"jpeg": "jpg", "mpo": "jpg", "jpeg2000": "jp2", "tiff": "tif"}.get(name.lower(), name.lower())


def thumbnail(picture: str | os.PathLike[str] | Image.Image, side: int = THUMBNAIL_SIDE) -> bytes:
    """WebP bytes of the picture, made to fit a square of `side` pixels; a smaller picture keeps its size.

    Raises:
        ImageError: as `open_image`, when given a path.
    """
    image = picture.convert("RGB") if isinstance(picture, Image.Image) else open_image(picture)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=82, method=1)  # a third of the time, a seventh more bytes
    return buffer.getvalue()


def check_size(width: int, height: int, path: str | os.PathLike[str]) -> None:
    """Passes a size that a model can be shown.

    Raises:
        ImageError: a side below MIN_SIDE or above MAX_SIDE, more than MAX_PIXELS, or longer than MAX_ASPECT its width.
    """
    size = f"{os.fspath(path)} is {width} × {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{size}, below the least side of {MIN_SIDE}: leave it out or use a larger copy")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{size}, above the greatest side of {MAX_SIDE}: make it smaller")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{size}, more than {MAX_PIXELS // 1_000_000} million in all: make it smaller")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{size}, more than {MAX_ASPECT} times as long as wide: crop it")


def _open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """The open file; what is not a regular, non-empty, readable file is refused without being opened."""
    if not is_inside(path):
        raise ImageError(f"{os.fspath(path)!r} is outside the folders that this server may read: leave it out")
    try:
        status = os.stat(path)  # noqa: PTH116 - any path type
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{os.fspath(path)} is a folder, not a picture: give a file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{os.fspath(path)} is a pipe, socket or device, not a picture: give a file")
        if status.st_size == 0:
            raise ImageError(f"{os.fspath(path)} is empty (0 bytes): copy or download it again")
        return Path(path).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{os.fspath(path)!r} {_cannot_be_read(error)}") from error


def _cannot_be_read(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "does not exist: check the path"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return "may not be read by this user: change its permissions"
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"cannot be read ({reason}): check the path and the disk"


def _read_header(stream: IO[bytes], path: str | os.PathLike[str]) -> Image.Image:
    image = _identify(stream)
    check_size(*image.size, path)
    return image


def _identify(stream: IO[bytes]) -> Image.Image:
    with _quiet():
        return Image.open(stream, formats=FORMATS)


@contextlib.contextmanager
def _undecodable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what Pillow raises on damaged bytes into an ImageError."""
    name = os.fspath(path)
    try:
        yield
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise ImageError(f"{name} is not a picture of a kind that we read ({kinds}): convert it to PNG") from error
    except Image.DecompressionBombError as error:
        most = MAX_PIXELS // 1_000_000
        raise ImageError(f"{name} has more than {most} million pixels ({error}): make it smaller") from error
    except _DECODER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} is damaged or cut short ({reason}): copy or download it again") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Pillow's warnings of large pictures (`check_size` refuses them) and damaged EXIF (`_orientation`)."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1 to 8, from what the header holds; 1 (upright) when there is none or it is unreadable.

    TIFF is 1: Pillow turns it upright itself. Image.Image.getexif is called on purpose: PNG's own would decode all
    pixels to look for a tag behind them.
    """
    if image.format == "TIFF":
        return 1
    try:
        with _quiet():
            value = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    except _DECODER_ERRORS:
        return 1
    return value if value in range(1, 9) else 1


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bit(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(pixels: np.ndarray, mode: str) -> np.ndarray:
    """Grey levels scaled to 0..255; Pillow's own conversion clips, which turns a 16-bit picture white.

    White is the format's: 65,535 for 16-bit integers and for wider ones that stay below it, 1 for floats that stay
    below it (255 and 65,535 likewise); beyond these, the brightest pixel. Negative values shift black to the darkest.
    """
    levels = np.nan_to_num(pixels.astype(np.float64))
    levels -= min(0.0, levels.min())
    whites = (1.0, 255.0, 65_535.0) if mode.startswith("F") else (65_535.0,)
    white = next((white for white in whites if levels.max() <= white), levels.max())
    return np.rint(levels * (255.0 / white)).astype(np.uint8)
