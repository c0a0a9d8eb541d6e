"""Draw deploy/file.ico: the cell with a capsule in it that the window shows too, in every size that Windows wants.

Usage: python scripts/draw_icon.py [FILE]   (otherwise deploy/file.ico)
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
SIZES = (16, 24, 32, 48, 64, 128, 256)
LARGE = 1024
"""Drawn so large and made smaller: edges get smooth by that."""

AMBER, DARK, LIGHT = "#e69a1b", "#2b2417", "#ffd978"


def main(arguments: list[str]) -> int:
    """Write the icon."""
    place = Path(arguments[0]) if arguments else ROOT / "deploy" / "file.ico"
    drawn = draw()
    drawn.save(place, format="ICO", sizes=[(size, size) for size in SIZES])
    return 0


def draw() -> Image.Image:
    """Return the picture, on a transparent ground. The numbers are those of web/dashboard/static/icon.svg, of 64."""
    unit = LARGE / 64
    picture = Image.new("RGBA", (LARGE, LARGE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    pen.polygon(_cell(29 * unit), fill=AMBER)
    pen.polygon(_cell(21 * unit), fill=DARK)
    pen.rounded_rectangle((24 * unit, 19 * unit, 40 * unit, 45 * unit), radius=8 * unit, fill=LIGHT)
    return picture


def _cell(radius: float) -> list[tuple[float, float]]:
    """The corners of a cell of the comb, standing on one of them."""
    angles = (math.radians(60 * corner - 90) for corner in range(6))
    return [(LARGE / 2 + radius * math.cos(angle), LARGE / 2 + radius * math.sin(angle)) for angle in angles]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
