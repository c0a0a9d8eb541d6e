"""image_processing against numpy: each step reckoned again without Pillow's operations."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import program_runs
import pytest
from PIL import Image

LIBRARIES = ("PIL.Image", "PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageOps")

Pixels = npt.NDArray[np.uint8]
FORMATS = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG", "webp": b"RIFF", "gif": b"GIF8", "tiff": b"II*\0", "bmp": b"BM"}


def scene(width: int = 120, height: int = 80, channels: int = 3) -> Pixels:
    """Waves and a ramp: smooth enough for filters, and different at every place."""
    y, x = np.mgrid[0:height, 0:width]
    layers = [128 + 100 * np.sin(x / 9), 128 + 100 * np.cos(y / 7), (x + 2 * y) % 256, 255 * (x > width // 2)]
    return np.stack(layers[:channels], axis=-1).round().clip(0, 255).astype(np.uint8)


def packed(pixels: npt.NDArray[Any], form: str = "png", **more: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **more)
    return file.getvalue()


def work(tmp_path: Path, files: dict[str, bytes], *steps: dict[str, object], **options: object) -> program_runs.Ran:
    return program_runs.run(
        tmp_path / "workspace",
        dict(files),
        processing_type="image_processing",
        input_data=list(files),
        steps=list(steps),
        options=options,
    )


def pixels(ran: program_runs.Ran, name: str) -> npt.NDArray[np.float64]:
    assert ran.code == 0, ran.err
    with Image.open(ran.results / name) as image:
        return np.asarray(image, dtype=np.float64)


def lanczos(values: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Resample the first axis to ``size``: every output is a weighed mean of the inputs within three steps of it."""
    factor = len(values) / size
    stretch = max(factor, 1.0)
    out = np.empty((size, *values.shape[1:]))
    for at in range(size):
        middle = (at + 0.5) * factor
        near = np.arange(max(0, int(middle - 3 * stretch + 0.5)), min(len(values), int(middle + 3 * stretch + 0.5)))
        distance = (near + 0.5 - middle) / stretch
        weight = np.sinc(distance) * np.sinc(distance / 3) * (np.abs(distance) < 3)
        out[at] = np.tensordot(weight / weight.sum(), values[near], axes=1)
    return out


def test_cuts_turns_flips_and_grey_are_exact(tmp_path: Path) -> None:
    picture = scene()
    wide = picture.astype(np.int64)
    grey = (19595 * wide[..., 0] + 38470 * wide[..., 1] + 7471 * wide[..., 2] + 0x8000) >> 16
    expected: dict[str, tuple[dict[str, object], npt.NDArray[Any]]] = {
        "crop": ({"width": 30, "height": 20, "left": 7, "top": 11}, picture[11:31, 7:37]),
        "rotate": ({"degrees": 90}, np.rot90(picture)),
        "flip": ({"direction": "horizontal"}, picture[:, ::-1]),
        "grayscale": ({}, grey),
    }
    for name, (parameters, right) in expected.items():
        ran = work(tmp_path / name, {"a.png": packed(picture)}, {"op": name, **parameters})
        assert np.array_equal(pixels(ran, "images/a.png"), right), name
    middle = work(tmp_path, {"a.png": packed(picture)}, {"op": "crop", "width": 40, "height": 40})
    assert np.array_equal(pixels(middle, "images/a.png"), picture[20:60, 40:80])


def test_resize_is_lanczos(tmp_path: Path) -> None:
    picture = scene()
    files = {"a.png": packed(picture)}
    steps: list[tuple[dict[str, object], int, int]] = [
        ({"width": 50}, 50, 33),
        ({"width": 300, "height": 90}, 135, 90),
        ({"percent": 50}, 60, 40),
        ({"width": 31, "height": 77, "fit": "stretch"}, 31, 77),
    ]
    for at, (step, width, height) in enumerate(steps):
        ran = work(tmp_path / str(at), files, {"op": "resize", **step})
        across = lanczos(picture.astype(np.float64).swapaxes(0, 1), width).clip(0, 255).round().swapaxes(0, 1)
        right = lanczos(across, height).clip(0, 255)
        off = np.abs(pixels(ran, "images/a.png") - right)
        assert off.max() < 2, step  # each of the two passes rounds to whole numbers
        assert off.mean() < 0.3, step
    cover = work(tmp_path / "cover", files, {"op": "resize", "width": 40, "height": 40, "fit": "cover"})
    assert pixels(cover, "images/a.png").shape == (40, 40, 3)
    small = work(tmp_path / "small", files, {"op": "resize", "width": 900, "enlarge": False})
    assert np.array_equal(pixels(small, "images/a.png"), picture)
    thumb = work(tmp_path / "thumb", files, {"op": "thumbnail", "size": 60})
    assert pixels(thumb, "images/a.png").shape == (40, 60, 3)


def test_blur_is_nearly_a_gaussian(tmp_path: Path) -> None:
    picture = scene()
    ran = work(tmp_path, {"a.png": packed(picture)}, {"op": "blur", "radius": 3})
    weight = np.exp(-0.5 * (np.arange(-12, 13) / 3.0) ** 2)
    weight /= weight.sum()
    right = picture.astype(np.float64)
    for axis in (0, 1):
        edges = [(12, 12) if each == axis else (0, 0) for each in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(right, edges, mode="edge"), 25, axis=axis)
        right = windows @ weight
    assert np.abs(pixels(ran, "images/a.png") - right).mean() < 1.5  # Pillow's is three box blurs


def test_the_colour_of_what_is_invisible_does_not_bleed(tmp_path: Path) -> None:
    picture = np.zeros((40, 40, 4), np.uint8)
    picture[:, :20] = (255, 0, 0, 255)
    picture[:, 20:] = (0, 255, 0, 0)  # green, but invisible
    for name, step in {"blur": {"radius": 4}, "resize": {"width": 13}, "rotate": {"degrees": 33}}.items():
        ran = work(tmp_path / name, {"a.png": packed(picture)}, {"op": name, **step})
        found = pixels(ran, "images/a.png")
        assert found[..., 1][found[..., 3] > 8].max() <= 8, name


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_holds_the_picture(form: str, tmp_path: Path) -> None:
    picture = scene(channels=4)
    lossless = {"lossless": True} if form == "webp" else {}
    ran = work(
        tmp_path, {"in/a.png": packed(picture)}, {"op": "convert", "format": form, **lossless}, background="#204060"
    )
    (told,) = ran.json()["images"]
    place = ran.results / told["result"]
    assert place.read_bytes().startswith(FORMATS[form])
    assert told["bytes"] == place.stat().st_size
    with Image.open(place) as image:
        found = np.asarray(image.convert("RGBA"), dtype=np.float64)
    if form in {"jpeg", "bmp"}:  # no transparency there: over the background
        alpha = picture[..., 3:] / 255
        right = picture[..., :3] * alpha + np.array([0x20, 0x40, 0x60]) * (1 - alpha)
        assert np.abs(found[..., :3] - right).mean() < (4 if form == "jpeg" else 0.6)
    else:
        seen = found[..., 3] > 127
        assert np.array_equal(seen, picture[..., 3] > 127)
        assert np.abs(found[seen] - picture[seen]).mean() < (6 if form == "gif" else 0.01)


def exif() -> Image.Exif:
    facts = Image.Exif()
    facts[274] = 6  # turned by a quarter
    facts[271] = "SecretCamera"
    facts.get_ifd(0x8825)[1] = "N"
    return facts


def test_pictures_come_out_upright_and_without_exif_where_asked(tmp_path: Path) -> None:
    picture = scene()
    files = {"a.jpg": packed(picture, "jpeg", exif=exif(), quality=95, comment=b"SecretComment")}
    kept = work(tmp_path / "kept", files, {"op": "flip", "direction": "vertical"})
    upright = np.rot90(picture, -1)
    assert np.abs(pixels(kept, "images/a.jpg") - upright[::-1]).mean() < 4
    with Image.open(kept.results / "images/a.jpg") as image:
        assert image.getexif()[271] == "SecretCamera"
        assert 274 not in image.getexif()
    stripped = work(tmp_path / "stripped", files, {"op": "strip_exif"}, quality=90)
    written = (stripped.results / "images" / "a.jpg").read_bytes()
    assert b"Secret" not in written
    assert b"Exif" not in written
    assert pixels(stripped, "images/a.jpg").shape == upright.shape


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is this large, and has nothing in it."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", head)
        + part(b"IDAT", zlib.compress(b"\0" * 1_000_000))
        + part(b"IEND", b"")
    )


def test_one_bad_picture_does_not_lose_the_others(tmp_path: Path) -> None:
    good = packed(scene())
    files = {
        "a.png": good,
        "bomb.png": bomb(30_000, 30_000),
        "cut.png": good[: len(good) // 2],
        "flipped.png": good[:60] + bytes(byte ^ 0x55 for byte in good[60:90]) + good[90:],
        "empty.png": b"",
        "no.txt": b"not a picture",
        "z.png": good,
    }
    ran = work(tmp_path, files, {"op": "resize", "percent": 50})
    told = ran.json()
    assert ran.code == 0
    assert (told["done"], told["failed"]) == (2, 5)
    why = {image["file"]: image.get("error", "") for image in told["images"]}
    assert list(why) == list(files)
    assert "900,000,000 pixels, more than" in why["bomb.png"]
    assert why["cut.png"].startswith("is broken")
    assert why["flipped.png"].startswith("is broken")
    assert why["empty.png"] == why["no.txt"]
    assert why["no.txt"].startswith("is no picture in a format known here")
    assert ran.files == ["images/a.png", "images/z.png", "summary.json"]
    assert "cut.png: is broken" in ran.err


def test_where_all_are_bad_the_task_fails(tmp_path: Path) -> None:
    ran = work(tmp_path, {"a.png": packed(scene())}, {"op": "grayscale"}, max_pixels=9_599)
    assert ran.code == 1
    assert "has 9,600 pixels, more than 9,599" in ran.err
    grown = work(tmp_path / "grown", {"a.png": packed(scene())}, {"op": "resize", "percent": 1000}, max_pixels=9_600)
    assert "would become 1200x800" in grown.err
    beyond = work(tmp_path / "beyond", {"a.png": packed(scene())}, {"op": "crop", "width": 121, "height": 10})
    assert "cannot crop 121x10" in beyond.err


def test_results_of_the_same_name_are_both_there(tmp_path: Path) -> None:
    files = {"a.png": packed(scene()), "a.jpg": packed(scene(), "jpeg"), "A.bmp": packed(scene(), "bmp")}
    ran = work(tmp_path, files, {"op": "convert", "format": "webp"})
    assert [image["result"] for image in ran.json()["images"]] == [
        "images/a.webp",
        "images/a-2.webp",
        "images/A-3.webp",
    ]
    assert len(ran.files) == 4


def test_odd_modes_come_out_as_they_look(tmp_path: Path) -> None:
    deep = (np.arange(80 * 120, dtype=np.uint16).reshape(80, 120) * 6) % 65_521
    cmyk = io.BytesIO()
    Image.fromarray(scene()).convert("CMYK").save(cmyk, "tiff")
    files = {"deep.png": packed(deep), "cmyk.tif": cmyk.getvalue()}
    ran = work(tmp_path, files, {"op": "convert", "format": "webp", "lossless": True})
    assert np.abs(pixels(ran, "images/deep.webp")[..., 0] - deep / 256).max() <= 1
    assert np.abs(pixels(ran, "images/cmyk.webp") - scene()).max() <= 1
    notes = {image["file"]: image.get("notes") for image in ran.json()["images"]}
    assert notes == {
        "deep.png": ["had more than 8 bits a channel, and was brought to 8"],
        "cmyk.tif": ["was CMYK, and was brought to RGB"],
    }


def test_a_watermark_is_where_it_should_be(tmp_path: Path) -> None:
    picture = np.full((200, 300, 3), 100, np.uint8)
    step = {
        "op": "watermark",
        "text": "© 蜂巢",
        "position": "top_left",
        "size": 30,
        "opacity": 0.5,
        "colour": "#ff0000",
    }
    ran = work(tmp_path, {"a.png": packed(picture)}, step)
    changed = np.abs(pixels(ran, "images/a.png") - picture).sum(axis=-1) > 0
    rows, columns = np.nonzero(changed)
    assert 10 <= rows.min() <= 20
    assert rows.max() < 60
    assert 10 <= columns.min() <= 20
    assert columns.max() > 80  # the two characters of the CJK font are there
    full = pixels(ran, "images/a.png")[changed].max(axis=0)
    assert full[0] == pytest.approx(177.5, abs=1)  # half of 100, half of 255


def test_contact_sheets_show_every_picture_in_its_cell(tmp_path: Path) -> None:
    colours = {f"{at}.png": (at * 40, 255 - at * 40, 90) for at in range(5)}
    files = {name: packed(np.full((30, 30, 3), colour, np.uint8)) for name, colour in colours.items()}
    ran = work(
        tmp_path, files, {"op": "contact_sheet", "columns": 3, "size": 40, "labels": False}, background="#000000"
    )
    assert ran.json()["contact_sheets"] == ["contact_sheet.jpg"]
    sheet = pixels(ran, "contact_sheet.jpg")
    assert sheet.shape == (2 * 48 + 8, 3 * 48 + 8, 3)
    for at, colour in enumerate(colours.values()):
        middle = sheet[at // 3 * 48 + 28, at % 3 * 48 + 28]
        assert np.abs(middle - colour).max() <= 4
    many = {f"{at:02}.png": packed(scene(8, 8)) for at in range(30)}
    pages = work(tmp_path / "many", many, {"op": "contact_sheet", "columns": 5, "size": 1000})
    assert pages.json()["contact_sheets"] == ["contact_sheet.jpg", "contact_sheet-2.jpg"]
    assert math.prod(pixels(pages, "contact_sheet.jpg").shape[:2]) < 25_000_000
