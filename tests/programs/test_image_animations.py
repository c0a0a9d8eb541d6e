"""How often and how long the frames of an animation are shown, in every format of several frames."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageSequence

import image_opening
import image_saving

FORMATS = ("gif", "webp", "png")
FRAMES = [Image.new("RGB", (8, 6), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]


def packed(form: str, frames: list[Image.Image], **more: Any) -> bytes:
    file = io.BytesIO()
    lossless = {"lossless": True} if form == "webp" else {}
    frames[0].save(file, form, save_all=True, append_images=frames[1:], **lossless, **more)
    return file.getvalue()


def converted(content: bytes, into: str, folder: Path) -> tuple[Image.Image, list[str]]:
    (folder / "source").write_bytes(content)
    opened = image_opening.opened(str(folder / "source"), 10**6, "all")
    image_saving.save(opened, folder / "result", into, {"quality": 90, "lossless": True}, "#ffffff")
    return Image.open(io.BytesIO((folder / "result").read_bytes())), opened.notes


def plays(image: Image.Image) -> int:
    """As browsers do: a GIF says how often it is repeated, the others how often it is played; 0 is without end."""
    loop = image.info.get("loop")
    return 1 if loop is None else loop + (image.format == "GIF" and loop > 0)


@pytest.mark.parametrize(("form", "into"), list(itertools.product(FORMATS, FORMATS)))
def test_an_animation_is_played_as_often_as_before(form: str, into: str, tmp_path: Path) -> None:
    for loop in (None, 0, 1, 2, 5):
        more = {} if loop is None else {"loop": loop}
        content = packed(form, FRAMES, duration=100, **more)
        with Image.open(io.BytesIO(content)) as source:
            expected = plays(source)
        assert plays(converted(content, into, tmp_path)[0]) == expected, loop


@pytest.mark.parametrize("form", ["webp", "png"])
def test_durations_finer_than_a_gif_has_keep_the_whole_as_long(form: str, tmp_path: Path) -> None:
    colours = [Image.new("RGB", (8, 6), (at * 8, 0, 0)) for at in range(30)]
    result, notes = converted(packed(form, colours, duration=33), "gif", tmp_path)
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(result)]
    assert sum(durations) == 990
    assert set(durations) == {30, 40}
    assert any("hundredths" in note for note in notes)
    result, _ = converted(packed(form, FRAMES, duration=[4, 100, 200]), "gif", tmp_path)
    assert [frame.info["duration"] for frame in ImageSequence.Iterator(result)] == [10, 90, 200]
    _, notes = converted(packed(form, FRAMES, duration=[40, 100, 200]), "gif", tmp_path)
    assert not notes


@pytest.mark.parametrize("into", FORMATS)
def test_the_picture_that_stands_for_an_animation_is_no_frame(into: str, tmp_path: Path) -> None:
    still = Image.new("RGB", (8, 6), "#808080")
    content = packed("png", [still, *FRAMES], default_image=True, duration=100, loop=0)
    result, notes = converted(content, into, tmp_path)
    frames = [frame.convert("RGB").getpixel((2, 2)) for frame in ImageSequence.Iterator(result)]
    assert frames == [frame.getpixel((2, 2)) for frame in FRAMES]
    assert any("without animation" in note for note in notes)
    first = image_opening.opened(str(tmp_path / "source"), 10**6, "first")
    assert first.picture.convert("RGB").getpixel((2, 2)) == (128, 128, 128)
