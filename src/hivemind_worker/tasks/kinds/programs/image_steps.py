"""The operations on one picture, by name: each takes a picture and a step's parameters, and returns a new picture."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont, ImageOps

import given

Picture = Image.Image
Step = Mapping[str, Any]

_FONT = ("cvttf_NotoSansCJK_Regular", "NotoSansCJKtc-Regular.otf")
"""The package that has Chinese, Japanese and Korean characters; it is there where the task's words need it."""

_DEEPER = {"I;16": 257, "I": 257, "F": 1}
"""Modes of more than 8 bits, and by what a shade of 0 to 255 is multiplied in them."""

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


def apply(picture: Picture, step: Step, background: str, max_pixels: int) -> Picture:
    """Return the picture after one step. Raises Refusal where the step cannot be done with this picture.

    ``picture`` is in one of the modes L, LA, RGB, RGBA, for the steps of ``DEEP`` also I;16, I and F, and so is what
    comes back.
    """
    return OPERATIONS[step["op"]](picture, {"background": background, "max_pixels": max_pixels, **step})


def resize(picture: Picture, step: Step) -> Picture:
    """To a width, a height, both or a percentage.

    ``fit``: within them, covering them (cut to size), exactly so, or within them on a ground of just that size.
    """
    enlarge = step.get("enlarge", True)
    if "percent" in step:
        wanted = _scaled(picture.size, step["percent"] / 100)
        return _resampled(picture, wanted if enlarge else _least(wanted, picture.size), step["max_pixels"])
    width, height = step.get("width"), step.get("height")
    fit = step.get("fit", "inside")
    if fit in {"inside", "pad"}:
        factor = min(side / own for side, own in ((width, picture.width), (height, picture.height)) if side)
        wanted = _scaled(picture.size, factor if enlarge else min(1.0, factor))
        small = _resampled(picture, wanted, step["max_pixels"])
        return small if fit == "inside" else _padded(small, (width, height), step)
    box = (int(width or 0), int(height or 0))
    if not enlarge:
        box = _least(box, picture.size)
    if fit == "stretch":
        return _resampled(picture, box, step["max_pixels"])
    _few_enough(box, step["max_pixels"])
    return _alpha_safe(picture, lambda each: ImageOps.fit(each, box, Image.Resampling.LANCZOS))


def crop(picture: Picture, step: Step) -> Picture:
    """A part of it: from ``left`` and ``top``, or from the middle."""
    width, height = step["width"], step["height"]
    left = step.get("left", (picture.width - width) // 2)
    top = step.get("top", (picture.height - height) // 2)
    if left < 0 or top < 0 or left + width > picture.width or top + height > picture.height:
        raise given.Refusal(
            f"cannot crop {width}x{height} at {left},{top} from a picture of {picture.width}x{picture.height}"
        )
    return picture.crop((left, top, left + width, top + height))


def rotate(picture: Picture, step: Step) -> Picture:
    """Counterclockwise. Quarter turns are exact; others leave corners, which are the background."""
    degrees = step["degrees"] % 360
    expand = step.get("expand", True)
    if degrees == 0:
        return picture
    if degrees in _TURNS and (expand or degrees == 180 or picture.width == picture.height):
        return picture.transpose(_TURNS[int(degrees)])
    if expand:
        turn = math.radians(degrees)
        wide = abs(picture.width * math.cos(turn)) + abs(picture.height * math.sin(turn))
        high = abs(picture.width * math.sin(turn)) + abs(picture.height * math.cos(turn))
        _few_enough((math.ceil(wide), math.ceil(high)), step["max_pixels"])
    corners = _ink(picture.mode, step["background"], 0)
    return _alpha_safe(picture, lambda each: each.rotate(degrees, Image.Resampling.BICUBIC, expand, fillcolor=corners))


def flip(picture: Picture, step: Step) -> Picture:
    """Left and right, or top and bottom, change places."""
    sideways = step["direction"] == "horizontal"
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT if sideways else Image.Transpose.FLIP_TOP_BOTTOM)


def blur(picture: Picture, step: Step) -> Picture:
    """A Gaussian blur of ``radius`` pixels."""
    return _alpha_safe(picture, lambda each: each.filter(ImageFilter.GaussianBlur(step.get("radius", 2))))


def sharpen(picture: Picture, step: Step) -> Picture:
    """An unsharp mask; what is transparent stays so."""
    mask = ImageFilter.UnsharpMask(step.get("radius", 2), step.get("percent", 150))
    sharp = picture.filter(mask)
    if "A" in picture.mode:
        sharp.putalpha(picture.getchannel("A"))
    return sharp


def grayscale(picture: Picture, _: Step) -> Picture:
    """Brightness alone, by the weights of ITU-R 601; what is transparent stays so."""
    if picture.mode in _DEEPER:
        return picture
    return picture.convert("LA" if "A" in picture.mode else "L")


def thumbnail(picture: Picture, step: Step) -> Picture:
    """Into a square of ``size`` pixels, its proportions kept; a smaller picture stays as it is."""
    factor = min(step["size"] / picture.width, step["size"] / picture.height, 1.0)
    return _resampled(picture, _scaled(picture.size, factor), step["max_pixels"])


def watermark(picture: Picture, step: Step) -> Picture:
    """A line of text over it, in a corner or in the middle."""
    size = step.get("size") or max(10, min(picture.size) // 16)
    colour = (*ImageColor.getrgb(step.get("colour", "#ffffff"))[:3], round(255 * step.get("opacity", 0.5)))
    over = Image.new("RGBA", picture.size, (*colour[:3], 0))
    pen = ImageDraw.Draw(over)
    used = font(size)
    left, top, right, bottom = pen.textbbox((0, 0), step["text"], font=used)
    margin = size // 2
    if "size" not in step and right - left > (room := picture.width - 2 * margin):
        # Chosen here, so made small enough here; a size that the step says is taken as it is.
        size = max(4, int(size * max(1, room) / (right - left)))
        used, margin = font(size), size // 2
        left, top, right, bottom = pen.textbbox((0, 0), step["text"], font=used)
    position = step.get("position", "bottom_right")
    x = margin if position.endswith("left") else picture.width - (right - left) - margin
    y = margin if position.startswith("top") else picture.height - (bottom - top) - margin
    if position == "center":
        x, y = (picture.width - (right - left)) // 2, (picture.height - (bottom - top)) // 2
    pen.text((x - left, y - top), step["text"], font=used, fill=colour)
    return Image.alpha_composite(picture.convert("RGBA"), over).convert(
        {"L": "RGB", "LA": "RGBA"}.get(picture.mode, picture.mode)
    )


OPERATIONS: Mapping[str, Callable[[Picture, Step], Picture]] = {
    "resize": resize,
    "crop": crop,
    "rotate": rotate,
    "flip": flip,
    "blur": blur,
    "sharpen": sharpen,
    "grayscale": grayscale,
    "thumbnail": thumbnail,
    "watermark": watermark,
}
"""What changes the picture itself; convert, strip_exif and contact_sheet are about how it is kept."""

DEEP = frozenset({"resize", "crop", "rotate", "flip", "thumbnail", "grayscale"})
"""Steps that keep more than 8 bits of grey; before the others it is brought to 8."""


@functools.cache
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font with Chinese, Japanese and Korean characters where the task brought it, else Pillow's own."""
    package, file = _FONT
    found = importlib.util.find_spec(package)
    if found is not None and found.submodule_search_locations:
        return ImageFont.truetype(str(Path(found.submodule_search_locations[0], file)), size)
    return ImageFont.load_default(size)


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _least(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return min(one[0], other[0]), min(one[1], other[1])


def _padded(picture: Picture, box: tuple[Any, Any], step: Step) -> Picture:
    """In the middle of a ground of that size: the background, and transparent where the picture has alpha."""
    _few_enough(box, step["max_pixels"])
    ground = Image.new(picture.mode, box, _ink(picture.mode, step["background"], 0))
    ground.paste(picture, ((box[0] - picture.width) // 2, (box[1] - picture.height) // 2))
    return ground


def _few_enough(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise given.Refusal(f"would become {size[0]}x{size[1]}, more than {max_pixels:,} pixels (options.max_pixels)")


def _resampled(picture: Picture, size: tuple[int, int], max_pixels: int) -> Picture:
    _few_enough(size, max_pixels)
    if size == picture.size:
        return picture
    if picture.mode == "I;16":
        return _in_numbers(picture, lambda each: each.resize(size, Image.Resampling.LANCZOS))
    return picture.resize(size, Image.Resampling.LANCZOS)  # which itself weighs colours by their alpha


def _alpha_safe(picture: Picture, change: Callable[[Picture], Picture]) -> Picture:
    """Change it with its colours weighed by alpha: the colour of what is invisible must not bleed into the rest."""
    if picture.mode == "I;16":
        return _in_numbers(picture, change)
    if picture.mode not in {"LA", "RGBA"}:
        return change(picture)
    return change(picture.convert({"LA": "La", "RGBA": "RGBa"}[picture.mode])).convert(picture.mode)


def _in_numbers(picture: Picture, change: Callable[[Picture], Picture]) -> Picture:
    """Change 16 bits as fractions: turning them as they are, Pillow mixes their bytes, and 65,535 becomes 16,000."""
    changed = change(picture.convert("I").convert("F"))
    return changed.point(lambda value: value * 1 + 0.5).convert("I").convert("I;16")


def _ink(mode: str, colour: str, alpha: int) -> tuple[int, ...] | int:
    """A colour in a picture's mode; with an alpha channel it is transparent there."""
    if mode in {"LA", "RGBA"}:
        return (0,) * (len(mode) - 1) + (alpha,)
    if mode in _DEEPER:
        grey = ImageColor.getcolor(colour, "L")
        assert isinstance(grey, int)
        return grey * _DEEPER[mode]
    ink = ImageColor.getcolor(colour, mode)
    return ink if isinstance(ink, int) else tuple(ink)
