"""One picture file, turned into upright 8-bit RGB or refused with a reason.

Steps: refuse what is no regular file (a pipe would block for ever) · read the header and refuse sizes that no model
should be shown, before a pixel is decoded · decode · scale deep pixels to 8 bit · lay transparency on white · turn
upright as EXIF says. The format is found from the bytes, whatever the file is called, among FORMATS only: Pillow's
other readers start programs (EPS), accept anything (TGA) or hold a picture of another size inside (ICO).

A picture of more than LARGE_PIXELS is opened at a quarter of its sides, still more than the processors keep, and one at
a time: at full size each takes 400 MB, and several times that while it is converted.

Left out: colour profiles. CMYK is converted by Pillow's plain formula.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import math
import os
import stat
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from PIL import Image, Jpeg2KImagePlugin, UnidentifiedImageError

from mmn.errors import ImageError
from mmn.images import heard
from mmn.safety.roots import is_inside

MIN_SIDE: Final = 8
MAX_SIDE: Final = 20_000
MAX_PIXELS: Final = 100_000_000
MAX_WEBP_PIXELS: Final = 50_000_000  # its decoder takes 16 bytes a pixel, and has no smaller size to give
LARGE_PIXELS: Final = 50_000_000  # a larger picture is opened smaller
REDUCTION: Final = 4  # times in each direction; a power of 2, as JPEG and JPEG 2000 decode such sizes at once
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
_BAND: Final = 512  # rows that are converted at a time; a multiple of REDUCTION
_one_large = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What listing needs of a picture: its bytes' sha-256 and number, and its upright size in pixels."""

    image_id: str
    n_bytes: int
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """How a picture is stored: its size, the size it has upright, and the EXIF orientation between them."""

    size: tuple[int, int]
    upright: tuple[int, int]
    orientation: int


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture at `path`: RGB, 8 bit, upright, fully loaded, its first frame if it moves, on white if transparent.

    It has the size of its header, `opened_size` of it if it is large.

    Raises:
        ImageError: it cannot be read or decoded, its pixels are no numbers, or its size is one that we refuse (see
            `check_size`).
    """
    heard.forget()
    with _open_regular(path) as stream, _undecodable(path):
        image = _read_header(stream, path)
        orientation = _orientation(image)
        if _is_large(*image.size):
            with _one_large, heard.quiet():
                upright = _turn(_reduced(image, path), orientation)
        else:
            with heard.quiet() if image.format == "TIFF" else contextlib.nullcontext():  # else decode in parallel
                image.load()
            upright = _turn(_to_rgb(image, _grey_range(image, path)), orientation)
    upright.info = {}  # else a reader of the EXIF tag would turn it once more
    return upright


def opened_size(width: int, height: int) -> tuple[int, int]:
    """The size in which `open_image` gives a picture whose header says (width, height)."""
    if not _is_large(width, height):
        return width, height
    return -(-width // REDUCTION), -(-height // REDUCTION)


def stored_frame(path: str | os.PathLike[str]) -> Frame:
    """How the picture at `path` is stored, from its header.

    Raises:
        ImageError: it cannot be read, its header makes no sense, or its size is one that we refuse.
    """
    heard.forget()
    with _open_regular(path) as stream, _undecodable(path):
        image = _read_header(stream, path)
        orientation = _orientation(image)
        upright = image.size[::-1] if orientation in _ON_ITS_SIDE else image.size
        return Frame(image.size, upright, orientation)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Size and identity of the picture at `path`, from its header and its bytes' hash alone.

    Raises:
        ImageError: it cannot be read, its header makes no sense, or its size is one that we refuse.
    """
    heard.forget()
    with _open_regular(path) as stream, _undecodable(path):
        image = _read_header(stream, path)
        width, height = image.size[::-1] if _orientation(image) in _ON_ITS_SIDE else image.size
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
    if image.format == "WEBP" and math.prod(image.size) > MAX_WEBP_PIXELS:
        raise ImageError(
            f"{os.fspath(path)} is {image.width} × {image.height} pixels, more than {MAX_WEBP_PIXELS // 1_000_000} "
            "million, and a WebP of that size takes gigabytes to decode: convert it to JPEG or PNG"
        )
    return image


def _identify(stream: IO[bytes]) -> Image.Image:
    with heard.quiet():
        return Image.open(stream, formats=FORMATS)


@contextlib.contextmanager
def _undecodable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what Pillow raises on damaged bytes into an ImageError."""
    name = os.fspath(path)
    try:
        yield
    except UnidentifiedImageError as error:
        kinds = "; ".join(filter(None, (", ".join(FORMATS), heard.told())))
        raise ImageError(f"{name} is not a picture of a kind that we read ({kinds}): convert it to PNG") from error
    except Image.DecompressionBombError as error:
        most = MAX_PIXELS // 1_000_000
        raise ImageError(f"{name} has more than {most} million pixels ({error}): make it smaller") from error
    except _DECODER_ERRORS as error:
        reasons = dict.fromkeys(filter(None, (str(error) or type(error).__name__, heard.told())))
        raise ImageError(f"{name} is damaged or cut short ({'; '.join(reasons)}): copy or download it again") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1 to 8, from what the header holds; 1 (upright) when there is none or it is unreadable.

    TIFF is 1: Pillow turns it upright itself. Image.Image.getexif is called on purpose: PNG's own would decode all
    pixels to look for a tag behind them.
    """
    if image.format == "TIFF":
        return 1
    try:
        with heard.quiet():
            value = Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    except _DECODER_ERRORS:
        return 1
    return value if value in range(1, 9) else 1


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _is_large(width: int, height: int) -> bool:
    return width * height > LARGE_PIXELS


def _reduced(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image:
    """A large picture as RGB, 1/REDUCTION of its sides: decoded so, or means of REDUCTION² pixels, band by band."""
    width, height = image.size
    wanted = opened_size(width, height)
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (width // REDUCTION, height // REDUCTION))
    elif isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        image.reduce = REDUCTION.bit_length() - 1
    image.load()
    grey_range = _grey_range(image, path)
    if image.size != (width, height):
        small = _to_rgb(image, grey_range)
        return small if small.size == wanted else small.resize(wanted, Image.Resampling.BOX)
    small = Image.new("RGB", wanted)
    for top, band in _bands(image):
        small.paste(_to_rgb(band, grey_range).reduce(REDUCTION), (0, top // REDUCTION))
    return small


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in stripes of whole rows, each with its first row."""
    for top in range(0, image.height, _BAND):
        yield top, image.crop((0, top, image.width, min(top + _BAND, image.height)))


def _to_rgb(image: Image.Image, grey_range: tuple[float, float] | None) -> Image.Image:
    if grey_range is not None:
        return Image.fromarray(_to_8_bit(np.asarray(image), *grey_range)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(pixels: np.ndarray, black: float, span: float) -> np.ndarray:
    """Grey levels from `black` on, as 0..255; Pillow's own conversion clips, which turns a 16-bit picture white."""
    return np.rint((pixels.astype(np.float64) - black) * (255.0 / span)).astype(np.uint8)


def _grey_range(image: Image.Image, path: str | os.PathLike[str]) -> tuple[float, float] | None:
    """The level of a deep grey picture that is black, and how far above it white lies; None for pictures of 8 bits.

    White is the format's: 65,535 for 16-bit integers and for wider ones that stay below it, 1 for floats that stay
    below it (255 and 65,535 likewise); beyond these, the brightest pixel. Negative values shift black to the darkest.

    Raises:
        ImageError: a pixel is no number.
    """
    if not image.mode.startswith(("I", "F")):
        return None
    darkest, brightest, n_wrong = [0.0], [-math.inf], 0
    for _, band in _bands(image):
        pixels = np.asarray(band)
        numbers = pixels[np.isfinite(pixels)]
        n_wrong += pixels.size - numbers.size
        if numbers.size:
            darkest.append(float(numbers.min()))
            brightest.append(float(numbers.max()))
    if n_wrong:
        size = f"{n_wrong:,} of {image.width * image.height:,} pixels"
        raise ImageError(f"{os.fspath(path)} has {size} that are no numbers (nan or infinite): fill them in")
    black = min(darkest)
    whites = (1.0, 255.0, 65_535.0) if image.mode.startswith("F") else (65_535.0,)
    reach = max(brightest) - black
    return black, next((white for white in whites if reach <= white), reach)
