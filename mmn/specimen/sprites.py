"""Makes the sprite sheet from Noto Color Emoji: `python -m mmn.specimen.sprites FONT.ttf`.

Only needed to change the world's nouns: the sheet itself ships with the package, so training needs no font.
The font is © Google, SIL Open Font License 1.1 (see model/README.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mmn.specimen.render import NOTO, SHEETS, SPRITE_SIDE, SPRITES_PER_ROW
from mmn.specimen.world import GLYPHS

BITMAP_SIZE = 109  # the only size that the font's bitmaps come in


def main() -> None:
    font = ImageFont.truetype(Path(sys.argv[1]), BITMAP_SIZE)
    glyphs = [glyph for group in GLYPHS.values() for glyph in group.values()]
    n_rows = -(-len(glyphs) // SPRITES_PER_ROW)
    sheet = Image.new("RGBA", (SPRITES_PER_ROW * SPRITE_SIDE, n_rows * SPRITE_SIDE))
    for index, glyph in enumerate(glyphs):
        row, column = divmod(index, SPRITES_PER_ROW)
        sheet.paste(draw_glyph(glyph, font), (column * SPRITE_SIDE, row * SPRITE_SIDE))
    sheet.save(SHEETS[NOTO], quality=92, alpha_quality=100, method=6)
    print(f"{SHEETS[NOTO]}: {len(glyphs)} sprites, {SHEETS[NOTO].stat().st_size / 1e6:.2f} MB")


def draw_glyph(glyph: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The glyph, cropped to what is drawn of it and centred on a square sprite."""
    canvas = Image.new("RGBA", (2 * SPRITE_SIDE, 2 * SPRITE_SIDE))
    ImageDraw.Draw(canvas).text((20, 40), glyph, font=font, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    assert box is not None, f"the font draws nothing for {glyph!r}"
    drawn = canvas.crop(box)
    drawn.thumbnail((SPRITE_SIDE - 2, SPRITE_SIDE - 2), Image.Resampling.LANCZOS)
    sprite = Image.new("RGBA", (SPRITE_SIDE, SPRITE_SIDE))
    sprite.paste(drawn, ((SPRITE_SIDE - drawn.width) // 2, (SPRITE_SIDE - drawn.height) // 2))
    return sprite


if __name__ == "__main__":
    main()
