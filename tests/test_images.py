"""One picture: what is accepted, how it is made RGB, and that whatever is refused is refused with an ImageError."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmn.errors import ImageError
from mmn.images import MAX_SIDE, MIN_SIDE, open_image, opening, thumbnail
from mmn.images.opening import check_size, format_suffix, is_image, opened_size, read_header

ORIENTATION = 0x0112


def saved(image: Image.Image, path: Path, kind: str = "PNG", **options) -> Path:
    image.save(path, kind, **options)
    return path


def half_blue() -> Image.Image:
    """Red, 60 × 40, its left half blue."""
    image = Image.new("RGB", (60, 40), "red")
    image.paste("blue", (0, 0, 30, 40))
    return image


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing: only its header can be read."""
    import struct
    import zlib

    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\0IDAT"


def is_near(pixel, colour) -> bool:
    return all(abs(a - b) <= 4 for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied_once_in_every_format(tmp_path, kind):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored on its left side: the blue left half is the top
    path = saved(half_blue(), tmp_path / "x", kind, exif=exif)
    image = open_image(path)
    header = read_header(path)
    assert image.size == (header.width, header.height) == (40, 60)
    assert is_near(image.getpixel((20, 5)), (0, 0, 255))
    assert is_near(image.getpixel((20, 55)), (255, 0, 0))
    assert image.getexif().get(ORIENTATION, 1) == 1  # nobody turns it again


def test_every_exif_orientation_agrees_with_pillow(tmp_path):
    from PIL import ImageOps

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = saved(picture, tmp_path / f"{orientation}.png", exif=exif)
        with Image.open(path) as raw:
            assert open_image(path).tobytes() == ImageOps.exif_transpose(raw).tobytes(), orientation


def test_garbage_exif_leaves_a_good_picture_upright(tmp_path):
    path = saved(half_blue(), tmp_path / "x.jpg", "JPEG", exif=b"Exif\x00\x00garbage, no TIFF header")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(path).size == (60, 40)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    levels = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    path = tmp_path / f"deep.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 64 64 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(path)
    opened = np.asarray(open_image(path))
    assert np.abs(opened[..., 0].astype(int) - np.rint(levels / 257.0)).max() <= 1
    assert (opened[..., 0] == opened[..., 2]).all()


def test_a_dark_16_bit_picture_stays_dark(tmp_path):
    path = saved(Image.fromarray(np.full((16, 16), 257 * 3, dtype=np.uint16)), tmp_path / "dark.png")
    assert open_image(path).getpixel((0, 0)) == (3, 3, 3)


@pytest.mark.parametrize(
    ("level", "grey"),
    [(0.5, 128), (128.0, 128), (257.0 * 128, 128)],
    ids=["1", "255", "65535"],
)
def test_float_pictures_are_scaled_by_their_range(tmp_path, level, grey):
    path = saved(Image.fromarray(np.full((16, 16), level, dtype=np.float32)), tmp_path / "f.tif", "TIFF")
    assert open_image(path).getpixel((0, 0)) == (grey,) * 3


def test_transparency_is_laid_on_white_in_every_mode(tmp_path):
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([200, 0, 0] * 256)
    grey_key = Image.new("L", (16, 16), 7)
    assert open_image(saved(clear, tmp_path / "rgba.png")).getpixel((3, 3)) == (255, 255, 255)
    assert is_near(open_image(saved(half, tmp_path / "half.png")).getpixel((3, 3)), (127, 127, 127))
    assert open_image(saved(half.convert("LA"), tmp_path / "la.png")).getpixel((3, 3)) == (127, 127, 127)
    assert open_image(saved(palette, tmp_path / "p.png", transparency=0)).getpixel((3, 3)) == (255, 255, 255)
    assert open_image(saved(palette, tmp_path / "p.gif", "GIF", transparency=0)).getpixel((3, 3)) == (255, 255, 255)
    assert open_image(saved(grey_key, tmp_path / "l.png", transparency=7)).getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = Image.new(mode, (16, 12)) if mode != "P" else Image.new("RGB", (16, 12)).convert("P")
    opened = open_image(saved(image, tmp_path / "x.tif", "TIFF"))
    assert (opened.mode, opened.size) == ("RGB", (16, 12))


def test_white_cmyk_jpeg_is_white(tmp_path):
    path = saved(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), tmp_path / "x.jpg", "JPEG")
    assert is_near(open_image(path).getpixel((5, 5)), (255, 255, 255))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_a_moving_picture_is_its_first_frame(tmp_path, kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("lime", "red", "blue")]
    path = saved(frames[0], tmp_path / "x", kind, save_all=True, append_images=frames[1:])
    assert is_near(open_image(path).getpixel((8, 8)), (0, 255, 0))


def test_the_format_is_found_from_the_bytes(tmp_path):
    assert open_image(saved(half_blue(), tmp_path / "really-a.jpg", "PNG")).size == (60, 40)
    assert format_suffix((tmp_path / "really-a.jpg").read_bytes()) == ".png"
    assert format_suffix(b"nothing") == ".bin"


def refusal(path: Path) -> str:
    """The message, the same when the picture is only listed."""
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(path.name) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_picture_is_refused_by_name_and_with_a_remedy(tmp_path):
    (tmp_path / "notes.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n")
    assert "not a picture of a kind" in refusal(tmp_path / "notes.jpg")
    assert "0 bytes" in refusal(tmp_path / "empty.jpg")
    assert "not a picture of a kind" in refusal(tmp_path / "page.eps")  # would start Ghostscript
    assert "does not exist" in refusal(tmp_path / "absent.jpg")
    assert "is a folder" in refusal(tmp_path)
    with pytest.raises(ImageError, match="null byte"):
        open_image("nul\0.jpg")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))
    assert not is_image(tmp_path / "notes.jpg")


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "a pipe, socket or device" in refusal(tmp_path / "pipe.jpg")


def test_no_permission_says_so(tmp_path, monkeypatch):
    """Raised by hand: tests may run as root, whom no permission stops."""
    path = saved(half_blue(), tmp_path / "x.png")

    def deny(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert "permissions" in refusal(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_a_picture_cut_short_is_refused(tmp_path, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = saved(noise, tmp_path / "x", kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (MIN_SIDE - 1, 100, "least side"),
        (MAX_SIDE + 1, 1000, "greatest side"),
        (15_000, 15_000, "million"),  # Pillow raises at this size
        (10_100, 10_000, "million"),  # and only warns at this one
        (8, 401, "as long as wide"),
        (2**31 - 1, 2**31 - 1, "pixels"),
    ],
)
def test_sizes_are_refused_from_the_header_without_a_warning(tmp_path, width, height, reason):
    path = tmp_path / "x.png"
    path.write_bytes(png_header(width, height))  # decoding it would fail in another way
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason in refusal(path)


def test_the_largest_size_passes_without_a_warning(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png_header(10_000, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(path).width == 10_000
    check_size(MIN_SIDE, MIN_SIDE * 50, "x")


def test_pillow_is_left_as_it_was(tmp_path):
    from PIL import ImageFile

    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    open_image(saved(half_blue(), tmp_path / "x.png"))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_a_thumbnail_is_a_small_webp_of_the_upright_picture(tmp_path):
    path = saved(Image.new("RGBA", (600, 300), (0, 0, 0, 0)), tmp_path / "x.png")
    small = Image.open(io.BytesIO(thumbnail(path, side=64)))
    assert (small.format, small.size) == ("WEBP", (64, 32))
    assert is_near(small.convert("RGB").getpixel((5, 5)), (255, 255, 255))
    picture = half_blue()
    assert Image.open(io.BytesIO(thumbnail(picture, side=640))).size == (60, 40)
    assert picture.size == (60, 40)


STARTS = (
    b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\0\0\0WEBP", b"BM", b"II*\0", b"MM\0*",
    b"P6 9 9 255\n", b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x18ftypavif", png_header(9, 9),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_an_image_error(tmp_path, start, rest):
    path = tmp_path / "x"
    path.write_bytes(start + rest)
    try:
        image = open_image(path)
    except ImageError:
        return
    assert image.mode == "RGB"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_picture_with_changed_bytes_is_a_picture_or_an_image_error(tmp_path, kind, changes):
    buffer = io.BytesIO()
    half_blue().save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for where, value in changes:
        data[int(where * len(data))] = value
    path = tmp_path / "x"
    path.write_bytes(data)
    with contextlib.suppress(ImageError):
        assert open_image(path).mode == "RGB"


@pytest.mark.parametrize("level", [float("nan"), float("inf"), -float("inf")])
def test_a_tiff_with_pixels_that_are_no_numbers_is_refused_by_name(tmp_path, level):
    pixels = np.full((16, 16), 0.5, dtype=np.float32)
    pixels[3, 4:6] = level
    path = saved(Image.fromarray(pixels), tmp_path / "f.tif", "TIFF")
    assert "has 2 of 256 pixels that are no numbers" in refusal(path)


def test_negative_levels_shift_black(tmp_path):
    pixels = np.full((16, 16), -1.0, dtype=np.float32)
    pixels[0, 0], pixels[0, 1] = 254.0, 126.5
    opened = open_image(saved(Image.fromarray(pixels), tmp_path / "f.tif", "TIFF"))
    assert np.asarray(opened)[[5, 0, 0], [5, 0, 1], 0].tolist() == [0, 255, 128]


def damaged_tiff(path: Path) -> Path:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = bytearray(saved(noise, path, "TIFF", compression="tiff_lzw").read_bytes())
    data[2000:2100] = b"\xff" * 100
    path.write_bytes(data)
    return path


def test_what_libtiff_says_of_a_damaged_picture_is_in_the_message_and_not_on_the_terminal(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(damaged_tiff(tmp_path / "x.tif"))
    assert "not yet in table" in message or "LZW" in message
    assert capfd.readouterr() == ("", "")


def test_what_was_said_of_one_picture_is_not_told_of_the_next(tmp_path):
    refusal(damaged_tiff(tmp_path / "x.tif"))
    (tmp_path / "y.png").write_bytes(png_header(20, 20))
    assert "table" not in refusal(tmp_path / "y.png")


def test_a_tag_that_pillow_warns_of_is_silent_in_a_good_picture_and_told_of_a_bad_one(tmp_path, capfd):
    path = saved(half_blue(), tmp_path / "x.tif", "TIFF", tiffinfo={270: "a description"})
    data = bytearray(path.read_bytes())
    (entry,) = (at for at in range(10, 10 + 12 * data[8], 12) if data[at : at + 2] == b"\x0e\x01")
    data[entry + 4 : entry + 8] = (60_000).to_bytes(4, "little")  # as many letters as the file does not have
    path.write_bytes(data)
    (tmp_path / "cut.tif").write_bytes(data[:-200])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_image(path)
        message = refusal(tmp_path / "cut.tif")
    assert "Skipping tag 270" in message
    assert capfd.readouterr() == ("", "")


def test_warnings_of_others_pass(tmp_path):
    from mmn.images import heard

    with pytest.warns(UserWarning, match="ours"), heard.quiet():
        warnings.warn("ours", UserWarning, stacklevel=1)


def blocks(width: int, height: int) -> np.ndarray:
    """Grey levels that differ from block to block of 24 × 24 pixels."""
    rows, columns = np.mgrid[0:height, 0:width] // 24
    return ((rows * 37 + columns * 91) % 200 + 20).astype(np.uint8)


LARGE = [("PNG", "L"), ("BMP", "L"), ("JPEG", "L"), ("JPEG2000", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("TIFF", "F")]


@pytest.mark.parametrize(("kind", "mode"), [*LARGE, ("PNG", "I;16"), ("WEBP", "RGB")])
def test_a_large_picture_is_opened_at_a_quarter_of_its_sides(tmp_path, monkeypatch, kind, mode):
    levels = blocks(202, 130)
    image = Image.fromarray(levels)
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray((levels / 255).astype(np.float32))
    elif mode != "L":
        image = image.convert(mode)
    path = saved(image, tmp_path / "x", kind, **({"lossless": True} if kind == "WEBP" else {}))
    full = open_image(path)
    monkeypatch.setattr(opening, "LARGE_PIXELS", 202 * 130 - 1)
    monkeypatch.setattr(opening, "_BAND", 32)
    small = open_image(path)
    assert small.size == opened_size(202, 130) == (51, 33)
    assert full.size == (202, 130) == (read_header(path).width, read_header(path).height)
    difference = np.asarray(small, int) - np.asarray(full.reduce(4), int)
    assert np.abs(difference).mean() < (12 if kind == "JPEG2000" else 1.5)
    assert open_image(path).tobytes() == small.tobytes()


def test_a_picture_at_the_limit_keeps_every_pixel(tmp_path, monkeypatch):
    path = saved(Image.fromarray(blocks(200, 100)), tmp_path / "x.png")
    monkeypatch.setattr(opening, "LARGE_PIXELS", 200 * 100)
    assert np.array_equal(np.asarray(open_image(path))[..., 0], blocks(200, 100))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_large_picture_is_turned_upright_too(tmp_path, monkeypatch, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(half_blue(), tmp_path / "x.jpg", "JPEG", exif=exif)
    expected = open_image(path).reduce(4)
    monkeypatch.setattr(opening, "LARGE_PIXELS", 1000)
    small = open_image(path)
    assert small.size == expected.size
    assert np.abs(np.asarray(small, int) - np.asarray(expected, int)).mean() < 8


@pytest.mark.timeout(60)
def test_mutated_pictures_are_refused_or_opened_quickly_and_nothing_else(tmp_path: Path):
    from benchmarks.attack_pictures import attack

    tally = attack(tmp_path, seed=1, n_pictures=150)
    assert tally.tried == 150
    assert tally.refused + tally.accepted == 150
    assert (tally.harmed, tally.raw, tally.slow) == (0, 0, 0)
    assert tally.refused > 20
    assert tally.accepted > 5


def test_a_webp_that_would_take_gigabytes_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "large.webp"
    Image.new("RGB", (40, 30)).save(path)
    assert open_image(path).size == (40, 30)
    monkeypatch.setattr(opening, "MAX_WEBP_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"40 × 30 pixels, more than .* convert it to JPEG or PNG"):
        open_image(path)
