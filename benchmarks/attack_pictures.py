"""Does any picture, however it was damaged, do harm? Seeded mutations of good ones, opened as scoring opens them.

A mutation changes, repeats, cuts out or swaps bytes of a small picture of one of the formats, lies about its size, puts
one picture's head before another's body; some have deep pixels of nan and infinity. Each is refused by name with a
reason (`ImageError`), or accepted: an upright 8-bit RGB picture of the size that its header says, and the same when
it is opened again. Harm is another outcome, a word on standard output or error, or a file that was changed.

    python benchmarks/attack_pictures.py [--pictures 1000] [--seed 0]
"""

from __future__ import annotations

import argparse
import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from benchmarks.tally import SLOW_S, Tally, table
from mmn.errors import ImageError
from mmn.images.opening import open_image, opened_size, read_header, stored_frame

SIDE: Final = 48
_ENDS: Final = (b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff")
_NUMBERS: Final = (0, 1, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**32 - 1)
Mutation = Callable[[random.Random, bytes], bytes]


def attack(workdir: Path, seed: int, n_pictures: int = 1000) -> Tally:
    """Opens `n_pictures` mutated pictures in an empty folder; the same seed gives the same ones."""
    tally = Tally()
    for number, data in enumerate(pictures(n_pictures, seed)):
        path = workdir / f"{number}.bin"
        path.write_bytes(data)
        tally += attempt(path, data)
        path.unlink()
    return tally


def attempt(path: Path, data: bytes) -> Tally:
    """What became of one picture."""
    started = time.monotonic()
    outcome = {"tried": 1}
    with _heard() as said:
        try:
            outcome |= {"accepted": 1} if _is_sound(path) else {"harmed": 1}
        except ImageError as error:
            is_told = str(path) in str(error) and "\n" not in str(error)
            outcome |= {"refused": 1} if is_told else {"harmed": 1}
        except Exception as error:  # any other is what is being looked for
            print(f"{path.name}: {type(error).__name__} {error}", file=sys.__stdout__)
            outcome |= {"raw": 1}
    if said() or path.read_bytes() != data:
        outcome |= {"harmed": 1}
    if time.monotonic() - started > SLOW_S:
        outcome |= {"slow": 1}
    return Tally(**outcome)


def pictures(n_pictures: int, seed: int) -> Iterator[bytes]:
    """Mutated pictures, in turn of each format and by each kind of mutation."""
    generator = random.Random(seed)
    good = list(good_pictures(seed))
    mutations: list[Mutation] = [_change, _cut, _repeat, _swap, _lie, _cut_out]
    for number in range(n_pictures):
        data = good[number % len(good)]
        if generator.random() < 0.1:
            other = generator.choice(good)
            at = generator.randrange(1, min(len(data), len(other)))
            data = data[:at] + other[at:]
        for _ in range(generator.randint(1, 3)):
            data = generator.choice(mutations)(generator, data)
        yield data


def good_pictures(seed: int) -> Iterator[bytes]:
    """One picture of each format and kind of pixel, some of them with pixels that are no numbers."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    colour = Image.fromarray(noise).resize((SIDE * 2, SIDE), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"):
        more = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
        yield _encoded(colour, kind, **more)
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        yield _encoded(colour, "TIFF", compression=compression)
    yield _encoded(colour.convert("CMYK"), "JPEG", progressive=True)
    yield _encoded(colour.convert("RGBA"), "PNG")
    yield _encoded(colour.quantize(16), "PNG", transparency=3)
    yield _encoded(colour, "GIF", save_all=True, append_images=[colour.rotate(180)])
    deep = noise[..., 0].astype(np.float32)
    yield _encoded(Image.fromarray(deep), "TIFF")
    for level in (np.nan, np.inf, -np.inf):
        wrong = deep.copy()
        wrong[3, 3] = level
        yield _encoded(Image.fromarray(wrong), "TIFF")
    yield _encoded(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG")


def _is_sound(path: Path) -> bool:
    header, image = read_header(path), open_image(path)
    size = opened_size(header.width, header.height)
    again = open_image(path)
    is_upright = image.size == size and stored_frame(path).upright == (header.width, header.height)
    return image.mode == "RGB" and is_upright and image.tobytes() == again.tobytes()


@contextmanager
def _heard() -> Iterator[Callable[[], bytes]]:
    """Inside, what is written to standard output and error by anyone, C libraries too, is kept and counted."""
    with tempfile.TemporaryFile() as kept:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [os.dup(1), os.dup(2)]
        texts: list[bytes] = []
        try:
            os.dup2(kept.fileno(), 1)
            os.dup2(kept.fileno(), 2)
            yield lambda: texts[0]
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, handle in enumerate(saved, start=1):
                os.dup2(handle, number)
                os.close(handle)
            kept.seek(0)
            texts.append(kept.read())


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _change(generator: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randint(1, 8)):
        changed[generator.randrange(len(changed))] = generator.choice(
            (generator.randrange(256), generator.choice(_ENDS)[0])
        )
    return bytes(changed)


def _cut(generator: random.Random, data: bytes) -> bytes:
    return data[: generator.randrange(1, len(data) + 1)]


def _cut_out(generator: random.Random, data: bytes) -> bytes:
    start = generator.randrange(len(data))
    return data[:start] + data[start + generator.randint(1, 40) :] or data


def _repeat(generator: random.Random, data: bytes) -> bytes:
    start = generator.randrange(len(data))
    piece = data[start : start + generator.randint(1, 200)]
    return data[:start] + piece * generator.randint(2, 20) + data[start:]


def _swap(generator: random.Random, data: bytes) -> bytes:
    first, second = sorted(generator.randrange(len(data)) for _ in range(2))
    return data[:first] + data[second:] + data[first:second]


def _lie(generator: random.Random, data: bytes) -> bytes:
    """A number of two or four bytes near the start, where headers keep sizes and offsets, becomes an extreme one."""
    width = generator.choice((2, 4))
    at = generator.randrange(min(len(data), 64))
    number = generator.choice(_NUMBERS) % 2 ** (8 * width)
    return data[:at] + number.to_bytes(width, generator.choice(("big", "little"))) + data[at + width :]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = attack(Path(folder), options.seed, options.pictures)
    print(table({"pictures": tally}))
    sys.exit(not tally.is_clean)


if __name__ == "__main__":
    main()
