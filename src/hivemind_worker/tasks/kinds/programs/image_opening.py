"""Pictures from files: opened without harm, all frames of an animation or the first, upright, in workable modes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageCms, ImageMath

import given
import image_depth
import image_metadata

READ = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "ICO")
"""The formats that are read. Pillow knows more; those start other programs or unpack before their size is known."""

WORKABLE = frozenset({"L", "LA", "RGB", "RGBA"})
DEEP = frozenset({"I;16", "I", "F"})
"""One channel of 16 or 32 bits, which some steps and formats know; elsewhere it is brought to 8."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2
"""Tags of TIFF, and their values."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by the orientation that EXIF says."""


@dataclass
class Opened:
    """A picture in memory, upright, each frame in a mode of ``WORKABLE`` or ``DEEP``; and what is known of it."""

    frames: list[Image.Image]
    format: str
    mode: str
    size: tuple[int, int]
    metadata: image_metadata.Metadata
    durations: list[int] = field(default_factory=list)
    """Milliseconds of each frame; empty for pages, which have none."""

    plays: int = 1
    """How often an animation is played; 0: without end."""

    notes: list[str] = field(default_factory=list)

    @property
    def picture(self) -> Image.Image:
        """The first frame."""
        return self.frames[0]


def opened(path: str, max_pixels: int, frames: str) -> Opened:
    """Read a picture. ``frames`` is which of several are taken: all, first, or refuse.

    Raises Refusal for one with more pixels than allowed, before any of them is unpacked.
    """
    with Image.open(path, formats=READ) as image:
        width, height = image.size
        # What is not JPEG's main picture in MPO is a preview, and what is not the largest in ICO a smaller one.
        count = 1 if image.format in {"MPO", "ICO"} else int(getattr(image, "n_frames", 1))
        if count > 1 and frames == "refuse":
            raise given.Refusal(f"has {count} frames: options.frames says whether all are wanted, or the first")
        _allowed(width, height, count if frames == "all" else 1, max_pixels)
        left_out, clear = image_depth.notes(image, _head(path)), _clear_shade(image)
        image.load()
        first = image.mode, image.size
        known = Opened([], image.format or "", *first, image_metadata.read(image))
        if count > 1 and frames == "first":
            known.notes.append(f"has {count} frames, of which the first was taken")
            count = 1
        known.notes += [*left_out, *known.metadata.notes]
        turn = _TURNS.get(known.metadata.orientation)
        known.plays = _plays(image)
        first_frame = int(count > 1 and bool(getattr(image, "default_image", False)))
        if first_frame:
            known.notes.append("the picture that it has for programs without animation was left out")
        for frame in _frames(image, range(first_frame, count), max_pixels):
            if count > 1 and image.format != "TIFF":
                known.durations.append(round(float(frame.info.get("duration") or 0)))
            if clear is not None and "transparency" in frame.info:
                frame.info["transparency"] = clear
            picture = _workable(frame if turn is None else frame.transpose(turn), known)
            picture.info = {}
            known.frames.append(picture)
    if known.durations:
        _to_one_size(known)
    known.notes = list(dict.fromkeys(known.notes))
    return known


def _to_one_size(known: Opened) -> None:
    """Frames of an animation on one canvas: a later frame of a GIF may lie partly beyond what its header says."""
    widths, heights = zip(*(frame.size for frame in known.frames), strict=True)
    canvas = max(widths), max(heights)
    if {canvas} == {frame.size for frame in known.frames}:
        return
    known.notes.append(
        f"its frames were of several sizes, and are now of {canvas[0]}x{canvas[1]}, clear where they end"
    )
    known.frames = [frame.convert("RGBA").crop((0, 0, *canvas)) for frame in known.frames]


def eight_bits(picture: Image.Image, notes: list[str]) -> Image.Image:
    """A picture of ``DEEP`` in 8 bits: sixteen by their upper eight, wider ones from their least to their greatest."""
    if picture.mode not in DEEP:
        return picture
    notes.append("had more than 8 bits a channel, and was brought to 8")
    if picture.mode == "I;16":
        return picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    low, high = (float(value) for value in picture.getextrema())  # type: ignore[arg-type]  # of one band: two numbers
    if picture.mode == "I" and low >= 0 and high < 65_536:
        return picture.point(lambda value: value * (1 / 256)).convert("L")
    scale = 255 / (high - low) if high > low else 0.0
    return picture.convert("F").point(lambda value: value * scale + (-low * scale)).convert("L")


def _allowed(width: int, height: int, count: int, max_pixels: int) -> None:
    if width * height * count > max_pixels:
        several = f"{count} frames of " if count > 1 else ""
        raise given.Refusal(too_many(f"{several}{width}x{height}", max_pixels))


def too_many(count: str, max_pixels: int) -> str:
    """Why a picture of so many pixels is refused."""
    return (
        f"has {count} pixels, more than {max_pixels:,}: "
        "a larger options.max_pixels, and a memory_limit that holds them, would let it in"
    )


def _plays(image: Image.Image) -> int:
    """How often it is played: GIF has the number of repetitions, none where it is shown once, the others of plays."""
    loop = image.info.get("loop")
    if loop is None:
        return 1
    return int(loop) + 1 if image.format == "GIF" and loop else int(loop)


def _frames(image: Image.Image, numbers: range, max_pixels: int) -> Iterator[Image.Image]:
    """The frames, as they look; of a TIFF the pages, each of its own size."""
    total = 0
    for number in numbers:
        image.seek(number)
        total += image.width * image.height
        _allowed(total, 1, 1, max_pixels)
        image.load()
        frame = image.copy() if numbers.stop > 1 else image
        yield _in_true_shades(frame, image) if image.format == "TIFF" else frame


def _in_true_shades(page: Image.Image, file: Image.Image) -> Image.Image:
    """A page of a TIFF, whose numbers Pillow takes for unsigned and light where they are great, whatever they are.

    Raises Refusal for numbers that no mode holds.
    """
    tags = file.tag_v2  # type: ignore[attr-defined]  # of a TIFF
    bits, kinds = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    if page.mode == "L" and bits[0] == 8 and kinds[0] == _SIGNED:
        raise given.Refusal("has signed numbers of 8 bits, which are not read: save it with 16 or 32")
    if page.mode == "I" and bits[0] == 32 and kinds[0] == _UNSIGNED:
        lowest, _ = page.getextrema()
        if isinstance(lowest, (int, float)) and lowest < 0:  # pages of several channels have pairs here
            raise given.Refusal(
                "has numbers beyond 2,147,483,647, which are not read: save it with 16 bits or as float"
            )
    if page.mode in DEEP and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        if page.mode != "I;16":
            raise given.Refusal("has 0 for white in more than 16 bits, which is not read: save it with 0 for black")
        white = 2 ** bits[0] - 1
        return page.convert("I").point(lambda value: value * -1 + white).convert("I;16")
    return page


def _head(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(image_depth.HEAD_BYTES)


def _clear_shade(image: Image.Image) -> int | tuple[int, ...] | None:
    """The one shade or colour that a PNG calls transparent, as its pixels will be read; None where it has none.

    The file has it in its own depth, and so has Pillow, whose pixels are of 8 bits.
    """
    shade = image.info.get("transparency")
    if image.format != "PNG" or isinstance(shade, bytes) or shade is None:
        return None
    raw = str(image.tile[0].args) if image.tile else ""  # type: ignore[attr-defined]  # of files alone
    if isinstance(shade, tuple):
        return tuple(value >> 8 for value in shade) if ";16" in raw else shade
    return int(shade) * {"L;2": 85, "L;4": 17}.get(raw, 1)


def _workable(image: Image.Image, known: Opened) -> Image.Image:
    """In a mode that every step knows; what is lost on the way is noted."""
    mode = image.mode
    if mode in {"1", "I;16"} and "transparency" in image.info:
        return _with_clear_shade(image, known)
    if mode in WORKABLE:
        if mode in {"L", "RGB"} and "transparency" in image.info:
            return image.convert("LA" if mode == "L" else "RGBA")
        return image.copy()
    if mode in {"P", "PA", "La", "RGBa"}:
        clear = mode != "P" or "transparency" in image.info
        return image.convert("RGBA" if clear else "RGB")
    if mode == "1":
        return image.convert("L")
    if mode.startswith("I;16"):
        return image.copy() if mode == "I;16" else image.convert("I").convert("I;16")
    if mode in DEEP:
        return image.copy()
    return _from_other_colours(image, known)


def _with_clear_shade(image: Image.Image, known: Opened) -> Image.Image:
    """Grey of 1 or 16 bits, of which one shade is transparent: with alpha there are 8."""
    shade = image.info.pop("transparency")
    numbers = image.convert("L").convert("I") if image.mode == "1" else image.convert("I")
    clear = ImageMath.lambda_eval(lambda bands: bands["grey"] == shade, grey=numbers)
    grey = image.convert("L") if image.mode == "1" else eight_bits(image, known.notes)
    grey.putalpha(clear.point(lambda value: value * -255 + 255).convert("L"))
    return grey


def _from_other_colours(image: Image.Image, known: Opened) -> Image.Image:
    """CMYK by its profile where it has one; the profile is then done with."""
    profile, known.metadata.icc = known.metadata.icc, b""
    if profile[16:20] == b"CMYK" and image.mode == "CMYK":
        try:
            converted = image_metadata.in_srgb(image, profile)
        except ImageCms.PyCMSError:
            known.notes.append("its colour profile is broken, and was left out")
        else:
            known.notes.append(f"was {image.mode}, and was brought to RGB by its colour profile")
            return converted
    known.notes.append(f"was {image.mode}, and was brought to RGB")
    return image.convert("RGB")
