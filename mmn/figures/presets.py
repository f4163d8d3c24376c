"""How wide a figure is and how large its letters are: the columns of the venues where it may be printed.

Sizes are points of 1/72 inch. `size` is that of axis labels, legends and the subtitle; axis titles are half a point
larger, the figure's title one and a half (`theme.paper_config`). Where a venue names sizes for the letters in a figure,
all of these are within them; elsewhere they stay below the caption's, and above 6 points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mmn.errors import UsageError

_CM_PER_IN, _MM_PER_IN = 2.54, 25.4
SINGLE, DOUBLE = "single", "double"
PPI: Final = (300, 600)  # pixels per inch of a PNG


@dataclass(frozen=True)
class Preset:
    """A venue's columns.

    Attributes:
        name: that people type.
        title: as people say it.
        single_in: inches of one column; of the text where there is but one.
        double_in: inches across the page.
        size: points of the smallest letters in a figure.
        caption_pt: of the venue's captions, in points.
        body_pt: of its text.
        source: where it says so.
    """

    name: str
    title: str
    single_in: float
    double_in: float
    size: float
    caption_pt: float
    body_pt: float
    source: str

    def inches(self, width: str | float) -> float:
        """`width` in inches: `single`, `double`, or a number from 1 to 20.

        Raises:
            UsageError: It is neither.
        """
        if width in (SINGLE, DOUBLE):
            return self.single_in if width == SINGLE else self.double_in
        try:
            value = float(width)
        except ValueError:
            value = 0.0
        if not 1 <= value <= 20:
            raise UsageError(f"{width!r} is not a width; use {SINGLE}, {DOUBLE} or inches from 1 to 20")
        return value


_ALL: Final = (
    Preset("plain", "Two columns", 3.25, 6.75, 7.0, 9.0, 10.0, "a usual page of two columns (OURS)"),
    Preset(
        "acl",
        "ACL",
        7.7 / _CM_PER_IN,
        16.0 / _CM_PER_IN,
        7.0,
        10.0,
        11.0,
        "acl-org.github.io/ACLPUB/formatting.html: columns of 7.7 cm, 0.6 cm between them; captions 10 pt, text 11 pt",
    ),
    Preset(
        "neurips",
        "NeurIPS",
        5.5,
        5.5,
        8.0,
        10.0,
        10.0,
        "neurips_2025.sty and .tex: text 5.5 in (33 picas) wide, 10 pt, captions as the text",
    ),
    Preset(
        "iclr",
        "ICLR",
        5.5,
        5.5,
        8.0,
        10.0,
        10.0,
        "ICLR/Master-Template, iclr2027_conference.tex: text 5.5 in (33 picas) wide, 10 pt, captions as the text",
    ),
    Preset(
        "cvpr",
        "CVPR",
        3.25,
        6.875,
        7.0,
        9.0,
        10.0,
        "cvpr-org/author-kit, sec/2_formatting.tex: columns of 3 1/4 in, 5/16 in between them; text 10 pt, captions "
        "9 pt",
    ),
    Preset(
        "ieee",
        "IEEE",
        3.5,
        7.16,
        8.0,
        8.0,
        10.0,
        "ieeeauthorcenter.ieee.org, size requirements for graphics: 3.5 in and 7.16 in; the conference template's "
        "figure labels are 8 pt, IEEEtran's captions 8 pt and its text 10 pt",
    ),
    Preset(
        "nature",
        "Nature",
        89 / _MM_PER_IN,
        183 / _MM_PER_IN,
        5.5,
        7.0,
        7.0,
        "research-figure-guide.nature.com, building and exporting figure panels: 89 and 183 mm, letters of 5 to 7 pt",
    ),
)
PRESETS: Final[Mapping[str, Preset]] = {one.name: one for one in _ALL}
NARROWEST: Final = min(_ALL, key=lambda one: one.single_in).name


@dataclass(frozen=True)
class Layout:
    """How a figure is laid out in a file: whose columns, which of them (or inches), and how fine a PNG is.

    Raises:
        UsageError: one of these is none of ours.
    """

    preset: str = "plain"
    width: str | float = SINGLE
    ppi: int = PPI[0]

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"no preset {self.preset!r}; there are {', '.join(PRESETS)}")
        if self.ppi not in PPI:
            raise UsageError(f"a PNG has {' or '.join(map(str, PPI))} pixels per inch, not {self.ppi}")
        _ = self.width_in

    @property
    def width_in(self) -> float:
        """Inches over all."""
        return PRESETS[self.preset].inches(self.width)

    @property
    def size(self) -> float:
        """Points of the smallest letters."""
        return PRESETS[self.preset].size
