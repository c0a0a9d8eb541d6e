"""How a picture is kept: opened without harm, in a mode that can be worked with; saved with its metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, ImageOps

import given

READ = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "ICO")
"""The formats that are read. Pillow knows more; those start other programs or unpack before their size is known."""

_WRITTEN = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "tiff": ".tif", "bmp": ".bmp"}
_SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff"}
_WITH_EXIF = {"jpeg", "png", "webp", "tiff"}
_LAYOUT = frozenset({254, 255, *range(256, 260), 262, 266, 273, 274, *range(277, 280), 284, 317, *range(320, 326), 330})
_LAYOUT_TOO = frozenset({338, 339, 347, *range(512, 522), 529, 530, 531, 532, 700, 33723, 34377, 34675})
"""Tags that say how a TIFF file is laid out, or hold other metadata: they are no facts about the picture."""


@dataclass
class Opened:
    """A picture in memory: L, LA, RGB or RGBA, upright; and what is known of it beside its pixels."""

    picture: Image.Image
    format: str
    mode: str
    size: tuple[int, int]
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)


def opened(path: str, max_pixels: int) -> Opened:
    """Read a picture. Raises Refusal for one with more pixels than allowed, before any of them is unpacked."""
    with Image.open(path, formats=READ) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise given.Refusal(
                f"has {width}x{height} pixels, more than {max_pixels:,}: "
                "a larger options.max_pixels, and a memory_limit that holds them, would let it in"
            )
        known = Opened(image, image.format or "", image.mode, image.size)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # whose other pictures are previews of the first
            known.notes.append(f"has {frames} frames, of which the first was taken")
        image.load()
        exif = image.getexif()
        for tag in (_LAYOUT | _LAYOUT_TOO) & set(exif):
            if tag != 274:  # the orientation: exif_transpose needs it, and takes it out
                del exif[tag]
        upright = ImageOps.exif_transpose(image)
        exif.pop(274, None)
        known.exif = exif.tobytes() if len(exif) else b""
        known.icc = image.info.get("icc_profile") or b""
        xmp = image.info.get("xmp") or b""
        known.xmp = xmp if isinstance(xmp, bytes) else b""
        known.dpi = image.info.get("dpi")
        known.picture = _workable(upright, known)
        known.picture.info = {}
    return known


def target(path: str, form: str, taken: set[str]) -> str:
    """Name the result of ``path`` in that format: its own name with the format's suffix, each name once."""
    said = PurePosixPath(path)
    right = said.suffix.lower() == _WRITTEN[form] or _SUFFIXES.get(said.suffix.lower()) == form
    name = said if right else said.with_suffix(_WRITTEN[form])
    unique, again = name, 2
    while str(unique).lower() in taken:
        unique, again = name.with_stem(f"{name.stem}-{again}"), again + 1
    taken.add(str(unique).lower())
    return f"images/{unique}"


def written_format(form: str) -> str:
    """The format in which a picture of ``form`` (as Pillow calls it) is kept where no step says another."""
    form = {"mpo": "jpeg"}.get(form.lower(), form.lower())
    return form if form in _WRITTEN else "png"


def save(known: Opened, path: Path, form: str, how: dict[str, Any], background: str) -> None:
    """Write a picture with what is still known of it. ``how``: quality, lossless."""
    picture = known.picture
    more: dict[str, Any] = {}
    if form in {"jpeg", "bmp"}:
        picture = flattened(picture, background)
    if form == "jpeg":
        more = {"quality": how["quality"], "optimize": True, "progressive": True}
    elif form == "webp":
        more = {"quality": how["quality"], "lossless": how.get("lossless", False), "method": 4}
    elif form == "png":
        more = {"optimize": False, "compress_level": 6}
    elif form == "tiff":
        more = {"compression": "tiff_adobe_deflate"}
    elif form == "gif" and picture.mode == "RGB":
        picture = picture.quantize(256, method=Image.Quantize.MEDIANCUT)
    if form in _WITH_EXIF:
        more |= {name: value for name, value in (("exif", known.exif), ("icc_profile", known.icc)) if value}
    if form in {"jpeg", "webp"} and known.xmp:
        more["xmp"] = known.xmp
    if known.dpi and form in {"jpeg", "png", "tiff", "bmp"}:
        more["dpi"] = known.dpi
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, form.upper(), **more)


def flattened(picture: Image.Image, background: str) -> Image.Image:
    """Without transparency: over the background."""
    if picture.mode not in {"LA", "RGBA"}:
        return picture
    under = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(under, picture.convert("RGBA")).convert("RGB")


def _workable(image: Image.Image, known: Opened) -> Image.Image:
    """In one of the four modes that every step knows; what is lost on the way is noted."""
    mode = image.mode
    if mode in {"L", "LA", "RGB", "RGBA"}:
        if mode in {"L", "RGB"} and "transparency" in image.info:
            return image.convert("LA" if mode == "L" else "RGBA")
        return image.copy()
    if mode in {"P", "PA", "La", "RGBa"}:
        clear = mode != "P" or "transparency" in image.info
        return image.convert("RGBA" if clear else "RGB")
    if mode == "1":
        return image.convert("L")
    if mode.startswith("I;16") or mode in {"I", "F"}:
        known.notes.append("had more than 8 bits a channel, and was brought to 8")
        known.icc = b""
        return _eight_bits(image)
    known.notes.append(f"was {mode}, and was brought to RGB")
    known.icc = b""
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen bits by their upper eight; wider ones from their least to their greatest value."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    extrema = image.getextrema()
    least, most = float(extrema[0]), float(extrema[1])  # type: ignore[arg-type]  # of one band: two numbers
    if image.mode == "I" and least >= 0 and most < 65_536:
        return image.point(lambda value: value * (1 / 256)).convert("L")
    scale = 255 / (most - least) if most > least else 0.0
    return image.convert("F").point(lambda value: value * scale + (-least * scale)).convert("L")
