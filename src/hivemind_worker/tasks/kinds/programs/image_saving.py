"""How a picture is kept: under which name, in which format, within the format's limits, with the metadata it holds."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import GifImagePlugin, Image, ImageCms

import given
import image_metadata
import image_opening

_WRITTEN = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "tiff": ".tif", "bmp": ".bmp"}
_SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff"}
_MAX_SIDE = {"jpeg": 65_500, "webp": 16_383, "gif": 65_535}
"""Pixels: what each format, or the library that writes it, has room for; the others' limits lie beyond any memory."""

_SEVERAL = frozenset({"gif", "png", "webp", "tiff"})
"""Formats of several frames. A PNG of several is an animation (APNG), and no place for pages."""

_MAX_PLAYS = 65_535
_CLEAR = 255
"""The shade of a GIF that is transparent, beside that many others."""

_DEEP_MODES: Mapping[str, frozenset[str]] = {"png": frozenset({"I;16"}), "tiff": image_opening.DEEP}


def target(path: str, form: str, taken: set[str]) -> str:
    """Name the result of ``path`` in that format: its own name with the format's suffix, each name once."""
    source = PurePosixPath(path)
    right = source.suffix.lower() == _WRITTEN[form] or _SUFFIXES.get(source.suffix.lower()) == form
    name = source if right else source.with_suffix(_WRITTEN[form])
    unique, number = name, 2
    while str(unique).lower() in taken:
        unique, number = name.with_stem(f"{name.stem}-{number}"), number + 1
    taken.add(str(unique).lower())
    return f"images/{unique}"


def written_format(form: str) -> str:
    """The format in which a picture of ``form`` (as Pillow calls it) is kept where no step says another."""
    form = {"mpo": "jpeg"}.get(form.lower(), form.lower())
    return form if form in _WRITTEN else "png"


def save(opened: image_opening.Opened, path: Path, form: str, chosen: Mapping[str, Any], background: str) -> None:
    """Write a picture with what is still known of it. ``chosen``: quality, lossless, max_bytes.

    Raises Refusal where the format has no place for it.
    """
    _fits(opened, form)
    if not image_metadata.FORMATS[form].icc:
        _to_srgb(opened)
    if form == "gif" and any("A" in frame.mode for frame in opened.frames):
        # In a mode for all, since a frame without a clear shade would show through the next one, where that is clear.
        opened.frames = [frame.convert("RGBA") for frame in opened.frames]
    frames = [_as_written(frame, form, background, opened.notes) for frame in opened.frames]
    opened.notes[:] = dict.fromkeys(opened.notes)
    more, notes = image_metadata.parameters(opened.metadata, form, frames[0])
    opened.notes += notes
    more |= _encoding(opened, form, chosen)
    if len(frames) > 1:
        more |= _animation(opened, form, frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "max_bytes" in chosen and form in {"jpeg", "webp"} and not more.get("lossless"):
        path.write_bytes(_small_enough(opened, frames[0], form, more, chosen["max_bytes"]))
    else:
        if form == "gif" and len(frames) > 1 and "transparency" in frames[0].info:
            path.write_bytes(_clear_animation(frames, opened))
        else:
            frames[0].save(path, form.upper(), **more)
        if form == "webp" and len(frames) > 1:
            _is_still_clear(path, frames)
        size = path.stat().st_size
        if size > chosen.get("max_bytes", size):
            raise given.Refusal(
                f"is {given.size(size)} as {form}, more than max_bytes: resize it, or convert to jpeg or webp, whose "
                "quality can be lowered"
            )


def _encoding(opened: image_opening.Opened, form: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """How well the format packs it, as ``Image.save`` takes it."""
    if form == "jpeg":
        return {"quality": chosen["quality"], "optimize": True, "progressive": True}
    if form == "webp":
        return {"quality": chosen["quality"], "lossless": chosen.get("lossless", False), "method": 4}
    if form == "png":
        return {"optimize": False, "compress_level": 6}
    # Pillow's own writer alone, which does not compress, writes the tables of EXIF.
    if form == "tiff" and not image_metadata.has_tables(opened.metadata):
        return {"compression": "tiff_adobe_deflate"}
    return {}


def flattened(picture: Image.Image, background: str) -> Image.Image:
    """Without transparency: over the background."""
    if picture.mode not in {"LA", "RGBA"}:
        return picture
    under = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(under, picture.convert("RGBA")).convert("RGB")


def _fits(opened: image_opening.Opened, form: str) -> None:
    limit = _MAX_SIDE.get(form, 2**31 - 1)
    for frame in opened.frames:
        if max(frame.size) > limit:
            raise given.Refusal(
                f"is {frame.width}x{frame.height}, and {form} ends at {limit:,} pixels a side: resize it, or convert "
                f"to {'png' if max(frame.size) > _MAX_SIDE['jpeg'] else 'jpeg or png'}"
            )
    if len(opened.frames) > 1:
        if form not in _SEVERAL:
            raise given.Refusal(
                f"has {len(opened.frames)} frames, and {form} holds one: options.frames 'first' takes the first, "
                "or convert to gif, webp, png or tiff"
            )
        if not opened.durations and form != "tiff":
            raise given.Refusal(
                f"has {len(opened.frames)} pages, and {form} holds one: options.frames 'first' takes the first, "
                "or convert to tiff"
            )


def _to_srgb(opened: image_opening.Opened) -> None:
    """For a format that holds no profile."""
    if opened.metadata.icc[16:20] != b"RGB " or opened.picture.mode not in {"RGB", "RGBA"}:
        return
    try:
        opened.frames = [image_metadata.in_srgb(frame, opened.metadata.icc) for frame in opened.frames]
    except (ImageCms.PyCMSError, OSError):
        opened.notes.append("its colour profile is broken, and was left out")
    else:
        opened.notes.append("its colours were brought from its profile to sRGB")
    opened.metadata.icc = b""


def _as_written(picture: Image.Image, form: str, background: str, notes: list[str]) -> Image.Image:
    """In a mode that the format holds."""
    if picture.mode in image_opening.DEEP and picture.mode not in _DEEP_MODES.get(form, ()):
        if form == "png" and picture.mode == "I" and _is_sixteen_bits(picture):
            return picture.convert("I;16")
        picture = image_opening.eight_bits(picture, notes)
    if form in {"jpeg", "bmp"}:
        return flattened(picture, background)
    if form == "gif":
        if picture.mode == "RGB":
            return picture.quantize(256, method=Image.Quantize.MEDIANCUT)
        return _clear_or_not(picture, notes) if picture.mode in {"LA", "RGBA"} else picture
    if form == "webp" and picture.mode in {"L", "LA"}:
        return picture.convert("RGB" if picture.mode == "L" else "RGBA")
    return picture


def _clear_or_not(picture: Image.Image, notes: list[str]) -> Image.Image:
    """Each pixel clear or opaque, by half: a GIF knows nothing between."""
    picture = picture.convert("RGBA")
    alpha = picture.getchannel("A")
    clear = alpha.point([255] * 128 + [0] * 128)
    if alpha.histogram()[1:255] != [0] * 254:
        notes.append("parts of it were half transparent, and are clear or opaque in gif")
    plain = picture.convert("RGB")
    plain.paste("#000000", mask=clear)  # one colour of the palette for all that is not seen
    indexed = plain.quantize(_CLEAR, method=Image.Quantize.MEDIANCUT)
    indexed.paste(_CLEAR, mask=clear)
    indexed.info["transparency"] = _CLEAR
    return indexed


def _is_sixteen_bits(picture: Image.Image) -> bool:
    low, high = (float(value) for value in picture.getextrema())  # type: ignore[arg-type]  # of one band: two numbers
    return low >= 0 and high < 65_536


def _animation(opened: image_opening.Opened, form: str, frames: list[Image.Image]) -> dict[str, Any]:
    """What makes a file of several frames: each replaces the one before it."""
    more: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    if form == "tiff":
        if opened.durations:
            opened.notes.append("its frames became pages, without their durations")
        return more
    more["duration"] = opened.durations
    if form == "gif":
        opened.durations = more["duration"] = _in_hundredths(opened)
        more |= {"disposal": 2, **({} if opened.plays == 1 else {"loop": _repetitions(opened)})}
        return more
    more["loop"] = min(opened.plays, _MAX_PLAYS)
    if form == "webp" and any("A" in frame.mode for frame in frames):
        more["kmax"] = 1  # each frame whole: of parts that are opaque libwebp makes a file without transparency
    return more


def _repetitions(opened: image_opening.Opened) -> int:
    """How often a GIF begins again after its first play; 0: without end. One that is played once does not say it."""
    return min(max(opened.plays - 1, 0), _MAX_PLAYS)


def _in_hundredths(opened: image_opening.Opened) -> list[int]:
    """Milliseconds of each frame as a GIF has them, in hundredths of a second, so that the whole lasts as long."""
    durations, end, rounded_end = [], 0, 0
    for duration in opened.durations:
        end += duration
        rounded = max(10 * round(end / 10) - rounded_end, 10) if duration else 0
        durations.append(rounded)
        rounded_end += rounded
    if durations != opened.durations:
        opened.notes.append("its durations were brought to whole hundredths of a second, at least one")
    return durations


def _clear_animation(frames: list[Image.Image], opened: image_opening.Opened) -> bytes:
    """A GIF of frames of which each has its own palette with a clear shade, and is removed before the next.

    Of Pillow's pieces, put together here: its own way of it takes the colour of the clear shade for the ground, and
    leaves out what has that colour.
    """
    parts = [b"GIF89a", struct.pack("<HHBBB", *frames[0].size, 0x70, 0, 0)]  # 8 bits a channel, no palette for all
    if opened.plays != 1:
        parts.append(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", _repetitions(opened), 0))
    for frame, duration in zip(frames, opened.durations, strict=True):
        options: dict[str, Any] = {
            "duration": duration,
            "disposal": 2,
            "transparency": _CLEAR,
            "include_color_table": True,
        }
        parts += GifImagePlugin.getdata(frame, **options)
    return b"".join(parts) + b";"


def _is_still_clear(path: Path, frames: list[Image.Image]) -> None:
    """Raise Refusal where libwebp wrote an animation without its transparency, as it does of some opaque parts."""
    if not any("A" in frame.mode and frame.getchannel("A").getextrema() != (255, 255) for frame in frames):
        return
    with Image.open(path) as written:
        if "A" not in written.mode:
            raise given.Refusal("would lose its transparency as an animation in webp: convert to png or gif")


def _small_enough(
    opened: image_opening.Opened, picture: Image.Image, form: str, more: dict[str, Any], max_bytes: int
) -> bytes:
    """The picture at the best quality, up to the chosen one, at which it is small enough: found by halving."""
    low, high, best, quality = 1, int(more["quality"]), b"", 0
    trial = high
    while low <= high:
        file = io.BytesIO()
        picture.save(file, form.upper(), **{**more, "quality": trial})
        if file.tell() <= max_bytes:
            best, quality, low = file.getvalue(), trial, trial + 1
        else:
            high = trial - 1
        trial = (low + high) // 2
    if not best:
        raise given.Refusal(f"is more than max_bytes ({max_bytes:,}) at the lowest quality: resize it")
    opened.notes.append(f"was kept at quality {quality}, the best of at most {max_bytes:,} bytes")
    return best
