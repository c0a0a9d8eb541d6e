"""Contact sheets: many small pictures on one page, each with its name, on as many pages as it takes."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from PIL import Image, ImageCms, ImageColor, ImageDraw

import given
import image_metadata
import image_opening
import image_saving
import image_steps

_GAP = 8
_PAGE_PIXELS = 24_000_000
"""A page's size in memory is three times as many bytes: 72 MB."""

_SIDE = 65_500
"""Most pixels a side of a JPEG, as Pillow writes it."""

_QUALITY = 88
_DPI = 150
"""Of a page as PDF."""


class Sheets:
    """Takes the small pictures in their order, and writes a page whenever one is full."""

    def __init__(self, step: dict[str, Any], count: int, background: str) -> None:
        """For ``count`` pictures at most, as the step says."""
        self._size = step.get("size", 160)
        columns = step.get("columns") or min(8, math.ceil(math.sqrt(count)))
        self._columns = min(columns, max(1, count), (_SIDE - _GAP) // (self._size + _GAP))
        self._label = 18 if step.get("labels", True) else 0
        self._background = background
        row = self._columns * (self._size + _GAP) * (self._size + self._label + _GAP)
        self._pdf = step.get("format") == "pdf"
        highest = (_SIDE - _GAP) // (self._size + self._label + _GAP)
        self._rows = max(1, min(_PAGE_PIXELS // row, highest))
        if self._pdf:  # as many rows as a sheet of paper has, whose sides are as 1 to the root of 2
            width = self._columns * (self._size + _GAP) + _GAP
            self._rows = max(
                1, min(self._rows, int((width * math.sqrt(2) - _GAP) // (self._size + self._label + _GAP)))
            )
        self._page: list[tuple[str, Image.Image]] = []
        self.files: list[str] = []

    def small(self, picture: Image.Image, icc: bytes) -> Image.Image:
        """The picture as its cell shows it: in sRGB, since a page has pictures of many profiles."""
        flat = image_saving.flattened(image_opening.eight_bits(picture, []), self._background)
        small = image_steps.thumbnail(flat, {"size": self._size, "max_pixels": self._size**2})
        if image_metadata.is_of(icc, small):
            with contextlib.suppress(ImageCms.PyCMSError, OSError):  # broken: told where the picture itself needs it
                small = image_metadata.in_srgb(small, icc)
        return small.convert("RGB")

    def add(self, name: str, small: Image.Image) -> None:
        """Take the next picture."""
        self._page.append((name, small))
        if len(self._page) == self._rows * self._columns:
            self.finish()

    def finish(self) -> None:
        """Write what is not written yet."""
        if not self._page:
            return
        columns = min(self._columns, len(self._page))
        wide, high = self._size + _GAP, self._size + self._label + _GAP
        rows = math.ceil(len(self._page) / columns)
        page = Image.new("RGB", (columns * wide + _GAP, rows * high + _GAP), self._background)
        pen = ImageDraw.Draw(page)
        for at, (name, small) in enumerate(self._page):
            left, top = _GAP + at % columns * wide, _GAP + at // columns * high
            page.paste(small, (left + (self._size - small.width) // 2, top + (self._size - small.height) // 2))
            if self._label:
                words = self._fitting(pen, name.rsplit("/", 1)[-1])
                pen.text((left, top + self._size + 2), words, font=image_steps.font(11), fill=self._ink())
        self._page.clear()
        if self._pdf:
            place = given.RESULTS / "contact_sheet.pdf"
            again = place.exists()
            page.save(place, "PDF", quality=_QUALITY, resolution=_DPI, append=again)
            self.files[:] = [place.name]
            return
        number = len(self.files) + 1
        file = "contact_sheet.jpg" if number == 1 else f"contact_sheet-{number}.jpg"
        page.save(given.RESULTS / file, "JPEG", quality=_QUALITY, subsampling=0)
        self.files.append(file)

    def _fitting(self, pen: ImageDraw.ImageDraw, words: str) -> str:
        used = image_steps.font(11)
        if pen.textlength(words, font=used) <= self._size:
            return words
        while words and pen.textlength(f"{words}…", font=used) > self._size:
            words = words[:-1]
        return f"{words}…"

    def _ink(self) -> str:
        """Dark on a light ground, light on a dark one."""
        red, green, blue = ImageColor.getrgb(self._background)[:3]
        return "#333333" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#dddddd"
