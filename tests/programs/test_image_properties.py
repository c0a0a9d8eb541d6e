"""Pictures drawn at random: every format, mode, metadata and number of frames comes out right, or with a reason."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps

import given
import image_metadata
import image_opening
import image_saving
import image_steps

FORMATS = tuple(image_metadata.FORMATS)
MODES = {
    "jpeg": ("L", "RGB", "CMYK"),
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "webp": ("RGB", "RGBA"),
    "gif": ("L", "P", "RGB", "RGBA"),
    "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    "bmp": ("1", "L", "P", "RGB"),
}
SEVERAL = frozenset({"png", "webp", "gif", "tiff"})
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTED = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"><tiff:Make>Bee</tiff:Make></x>'
STEPS: tuple[dict[str, object], ...] = (
    {"op": "resize", "percent": 50},
    {"op": "resize", "width": 9, "height": 9, "fit": "pad"},
    {"op": "rotate", "degrees": 90},
    {"op": "rotate", "degrees": 10},
    {"op": "blur"},
    {"op": "grayscale"},
    {"op": "watermark", "text": "B", "size": 4},
)
_exif_values = st.one_of(
    st.text("abé", max_size=5),
    st.binary(max_size=5),
    st.integers(-(2**31), 2**32 - 1),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)


@dataclass
class Drawn:
    """A file, and what it was made of."""

    content: bytes
    frames: list[Image.Image]
    orientation: int


@st.composite
def files(draw: st.DrawFn) -> Drawn:
    form = draw(st.sampled_from(FORMATS))
    mode = draw(st.sampled_from(MODES[form]))
    size = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    count = draw(st.integers(1, 3)) if form in SEVERAL and mode not in {"CMYK", "1", "I", "F", "I;16"} else 1
    drawn = np.random.default_rng(draw(st.integers(0, 99)))
    frames = [picture(mode, size, drawn) for _ in range(count)]
    more: dict[str, Any] = {"lossless": True} if form == "webp" else {}
    if count > 1:
        more |= {"save_all": True, "append_images": frames[1:]} | ({} if form == "tiff" else {"duration": 50})
    orientation = draw(st.integers(0, 9)) if form in {"jpeg", "png", "webp"} else 1
    if form in {"jpeg", "png", "webp"} and draw(st.booleans()):
        more["exif"] = exif(draw, orientation)
    else:
        orientation = 1
    if draw(st.booleans()) and form != "bmp":
        more["icc_profile"] = PROFILE
    if form in {"jpeg", "webp"} and draw(st.booleans()):
        more["xmp"] = draw(st.sampled_from([ORIENTED, b"", b"<a", b"\xff"]))
    file = io.BytesIO()
    frames[0].save(file, form, **more)
    return Drawn(file.getvalue(), frames, orientation)


def exif(draw: st.DrawFn, orientation: int) -> bytes:
    """A table with tables in it, some of them empty; what Pillow cannot write stays away."""
    made = Image.Exif()
    made[274] = orientation
    for ifd in (None, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        table = made if ifd is None else made.get_ifd(ifd)
        for tag in draw(st.sets(st.sampled_from([1, 4, 271, 282, 37500, 40962, 41729, 700]), max_size=3)):
            trial = Image.Exif()
            (trial if ifd is None else trial.get_ifd(ifd))[tag] = value = draw(_exif_values)
            try:
                trial.tobytes()
            except Exception:  # noqa: BLE001 - each kind of wrong value has an exception of its own
                continue
            table[tag] = value
    content = bytearray(made.tobytes())
    for at in draw(st.lists(st.integers(14, len(content) - 1), max_size=2)):  # behind the header
        content[at] = draw(st.integers(0, 255))
    return bytes(content)


def picture(mode: str, size: tuple[int, int], drawn: np.random.Generator) -> Image.Image:
    height, width = size
    if mode in {"I;16", "I", "F"}:
        kinds: dict[str, Any] = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
        return Image.fromarray(drawn.integers(0, 65_536, size).astype(kinds[mode]))
    rgba = Image.fromarray(drawn.integers(0, 256, (height, width, 4)).astype(np.uint8))
    return rgba.convert(mode) if mode in {"LA", "RGBA"} else rgba.convert("RGB").convert(mode)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of broken EXIF
@hypothesis.given(files(), st.sampled_from(FORMATS), st.lists(st.sampled_from(STEPS), max_size=2), st.booleans())
def test_what_is_drawn_comes_out_right_or_with_a_reason(
    drawn: Drawn, form: str, steps: list[dict[str, object]], strip: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, place = Path(folder, "source"), Path(folder, "result")
        source.write_bytes(drawn.content)
        opened = image_opening.opened(str(source), 10**6, "all")
        for frame, other in zip(opened.frames, _upright(source) or opened.frames, strict=True):
            assert frame.size == other.size
            if frame.mode not in image_opening.DEEP:
                assert np.array_equal(np.asarray(frame.convert("RGBA")), np.asarray(other.convert("RGBA")))
        if strip:
            image_metadata.strip(opened.metadata)
        for step in steps:
            if step["op"] not in image_steps.DEEP:
                opened.frames = [image_opening.eight_bits(frame, opened.notes) for frame in opened.frames]
            opened.frames = [image_steps.apply(frame, step, "#ffffff", 10**6) for frame in opened.frames]
        before = [frame.copy() for frame in opened.frames]
        try:
            image_saving.save(opened, place, form, {"quality": 100, "lossless": form == "webp"}, "#ffffff")
        except given.Refusal as refusal:
            assert "holds one: options.frames" in str(refusal)  # noqa: PT017 - most are not refused
            assert len(before) > 1
            return
        _is_right(place, form, before, opened)


def _is_right(place: Path, form: str, before: list[Image.Image], opened: image_opening.Opened) -> None:
    with Image.open(place) as result:
        found = [frame.copy() for frame in _each(result)]
        assert result.getexif().get(274, 1) == 1
        assert b"Orientation" not in bytes(result.info.get("xmp", b""))
        profile = result.info.get("icc_profile", b"")
    assert not profile or (profile[16:20] == b"RGB ") == (found[0].mode in {"RGB", "RGBA"})
    # Frames that are alike may become one, which is shown for longer.
    assert len(found) == len(before) or (len(before) > 1 and form in {"gif", "png", "webp"})
    assert {frame.size for frame in found} == {frame.size for frame in before}
    deep = before[0].mode in image_opening.DEEP
    if deep and (form == "tiff" or (form == "png" and before[0].mode == "I;16")):
        assert np.array_equal(np.asarray(found[0]), np.asarray(before[0]))
    elif deep:
        assert "had more than 8 bits a channel, and was brought to 8" in opened.notes
    elif form in {"png", "tiff", "webp"} and len(found) == len(before):
        for frame, other in zip(found, before, strict=True):
            one, two = (np.asarray(each.convert("RGBA")).astype(int) for each in (frame, other))
            assert np.array_equal(one[..., 3], two[..., 3])
            assert np.array_equal(one[one[..., 3] > 0], two[one[..., 3] > 0])


def _upright(source: Path) -> list[Image.Image]:
    """The frames as Pillow turns them; none where its EXIF is broken for Pillow."""
    with Image.open(source) as image:
        try:
            return [ImageOps.exif_transpose(frame) for frame in _each(image)]
        except Exception:  # noqa: BLE001 - broken bytes make it raise anything
            return []


def _each(image: Image.Image) -> Any:
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        image.load()
        yield image
