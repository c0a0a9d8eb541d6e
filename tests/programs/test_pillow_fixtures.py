"""The pictures that Pillow is tested with, through each step and format, beside what Pillow itself makes of them.

Equal, or refused with the reason; never a traceback, and never called broken where Pillow opens it.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import program_runs
import pytest
import source_packages
from PIL import Image, ImageChops, ImageOps

import image_opening

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

Picture = Image.Image
MAX_PIXELS = 4_000_000
REASONS = re.compile(
    r"more than 4,000,000: a larger|holds one: options\.frames|ends at [\d,]+ pixels a side|cannot crop|"
    r"is no picture in a format known here|would lose its transparency as an animation|"
    r"signed numbers of 8 bits"  # Pillow takes -1 for 255
)
"""Why a picture that Pillow opens may be refused."""

OTHERWISE = {
    "brought from its profile to sRGB": "the format holds no profile, and Pillow leaves the numbers as they are",
    "to RGB by its colour profile": "CMYK by the profile, where Pillow takes the usual formula",
}
"""Notes of pictures whose pixels are meant to be others than Pillow's, and why."""

CLEAR = {"i_trns.png": "grey of 16 bits with a clear shade, which Pillow does not make clear"}


def half(picture: Picture) -> Picture:
    size = (max(1, round(picture.width / 2)), max(1, round(picture.height / 2)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def grey(picture: Picture) -> Picture:
    clear = picture.getchannel("A")
    plain = picture.convert("L")
    plain.putalpha(clear)
    return plain.convert("RGBA")


def same(picture: Picture) -> Picture:
    return picture


def as_jpeg(picture: Picture) -> Picture:
    plain, file = Image.new("RGBA", picture.size, "#ffffff"), io.BytesIO()
    Image.alpha_composite(plain, picture).convert("RGB").save(file, "jpeg", quality=85, progressive=True)
    return Image.open(file).convert("RGBA")


def hard(picture: Picture) -> Picture:
    picture.putalpha(picture.getchannel("A").point([0] * 128 + [255] * 128))
    return picture


STEPS: dict[str, tuple[list[dict[str, Any]], Callable[[Picture], Picture], float]] = {
    "png": ([], same, 0),
    "turned": ([{"op": "rotate", "degrees": 90}], lambda picture: picture.transpose(Image.Transpose.ROTATE_90), 0),
    "mirrored": ([{"op": "flip", "direction": "horizontal"}], ImageOps.mirror, 0),
    "cut": ([{"op": "crop", "width": 7, "height": 5}], lambda picture: ImageOps.fit(picture, (7, 5)), -1),
    "half": ([{"op": "resize", "percent": 50}], half, 1),
    "grey": ([{"op": "grayscale"}], grey, 1),
    "tiff": ([], same, 0),
    "bmp": ([], same, 0),
    "webp": ([], same, 0),
    "jpeg": ([], as_jpeg, 3),
    "gif": ([], hard, 12),
}
"""By name: the steps, the same by Pillow, and the largest mean difference of 255 (-1: of the size alone)."""


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = source_packages.unpack("pillow==13.0.0", tmp_path_factory.mktemp("pillow")) / "Tests" / "images"
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def frames_of(path: Path) -> list[Picture]:
    """What Pillow itself makes of a file: its frames, upright, in colours with alpha."""
    with Image.open(path, formats=image_opening.READ) as image:
        count = 1 if image.format in {"MPO", "ICO"} else getattr(image, "n_frames", 1)
        frames = [frame.copy() if is_deep(frame) else frame.convert("RGBA") for frame in _each(image, count)]
        if image.format != "GIF":
            return frames
        canvas = max(frame.width for frame in frames), max(frame.height for frame in frames)
        return [frame.crop((0, 0, *canvas)) for frame in frames]  # clear where a frame of several sizes ends


def _each(image: Picture, count: int) -> Iterator[Picture]:
    for number in range(count):
        image.seek(number)
        image.load()
        yield ImageOps.exif_transpose(image)


def is_deep(picture: Picture) -> bool:
    return picture.mode.startswith("I;16") or picture.mode in {"I", "F"}


def seen(picture: Picture) -> Picture:
    """In colours with alpha; of more than 8 bits as the docs say: sixteen by their upper eight, wider ones spread."""
    if is_deep(picture):
        values = np.nan_to_num(np.asarray(picture, dtype=float))
        sixteen = picture.mode.startswith("I;16") or (
            picture.mode == "I" and 0 <= values.min() <= values.max() < 65_536
        )
        low, span = (0.0, 256.0) if sixteen else (values.min(), (np.ptp(values) or 1) / 255)
        return Image.fromarray(((values - low) / span).clip(0, 255).astype(np.uint8)).convert("RGBA")
    return picture.convert("RGBA")


def difference(one: Picture, other: Picture) -> float:
    """Mean difference of two pictures over white, and of their alpha."""
    white = Image.new("RGBA", one.size, "#ffffff")
    off = ImageChops.difference(*(Image.alpha_composite(white, each) for each in (one, other)))
    return float(np.asarray(off)[..., :3].mean())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STEPS)
def test_each_fixture_is_equal_or_refused(name: str, fixtures: dict[str, Path], tmp_path: Path) -> None:
    steps, theirs, most = STEPS[name]
    form = name if name in {"tiff", "bmp", "webp", "jpeg", "gif"} else "png"
    quality = {"lossless": True} if form == "webp" else {}
    steps = [*steps, {"op": "convert", "format": form, **quality}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ran = program_runs.run(
            tmp_path / "workspace",
            fixtures,
            seconds=1200,
            processing_type="image_processing",
            input_data=list(fixtures),
            steps=steps,
            options={"max_pixels": MAX_PIXELS},
        )
        assert ran.code == 0, ran.err
        assert "Traceback" not in ran.err
        counts, wrong = Counter[str](), dict[str, object]()
        for told in ran.json()["images"]:
            verdict, detail = _judged(told, fixtures[told["file"]], ran.results, theirs, most)
            counts[verdict] += 1
            if verdict == "wrong":
                wrong[told["file"]] = detail
    assert not wrong
    assert counts["right"] > 400, counts


def _expected(frame: Picture, theirs: Callable[[Picture], Picture]) -> Picture:
    """Deep grey goes through the step in fractions, where Pillow has it right."""
    if not is_deep(frame) or theirs != half:
        return theirs(seen(frame))
    sixteen = frame.mode.startswith("I;16")
    numbers = frame.convert("I").convert("F") if sixteen else frame.convert("F")
    changed = theirs(numbers)
    return seen(Image.fromarray(np.asarray(changed).clip(0, 65_535).astype(np.uint16)) if sixteen else changed)


def _judged(
    told: dict[str, Any], source: Path, results: Path, theirs: Callable[[Picture], Picture], most: float
) -> tuple[str, object]:
    try:
        frames = frames_of(source)
    except Exception:  # noqa: BLE001 - what Pillow raises of broken bytes
        return ("refused by both", "") if "error" in told else ("wrong", "Pillow cannot read it")
    if "error" in told:
        return ("refused", "") if REASONS.search(told["error"]) else ("wrong", told["error"])
    with Image.open(results / told["result"]) as image:
        found = [seen(frame) for frame in _each(image, getattr(image, "n_frames", 1))]
    if len(found) != len(frames):
        # Frames alike, one after the other, become one that is shown for longer.
        return ("right", "") if 1 <= len(found) < len(frames) else ("wrong", f"{len(frames)} frames, {len(found)} now")
    notes = " ".join(told.get("notes", ()))
    if told["file"] in CLEAR or any(note in notes for note in OTHERWISE):
        return ("otherwise", "") if found[0].size == theirs(seen(frames[0])).size else ("wrong", found[0].size)
    for number, (one, other) in enumerate(zip(found, frames, strict=True)):
        expected = _expected(other, theirs)
        if one.size != expected.size:
            return "wrong", (number, one.size, expected.size)
        if most >= 0 and (off := difference(one, expected)) > most:
            return "wrong", (number, off)
    return "right", ""
