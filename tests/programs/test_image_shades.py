"""Which colours and shades the numbers of a file mean: TIFF's kinds of grey, and profiles on contact sheets."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, PngImagePlugin

import contact_sheet
import given
import image_depth
import image_metadata
import image_opening

ROWS, COLUMNS = 4, 6


def tiff(values: npt.NDArray[np.generic], photometric: int) -> bytes:
    """A TIFF of one strip of grey, as its specification has it."""
    data, bits = values.tobytes(), values.dtype.itemsize * 8
    form = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = [(256, COLUMNS), (257, ROWS), (258, bits), (259, 1), (262, photometric)]
    entries += [(273, 8), (277, 1), (278, ROWS), (279, len(data)), (339, form)]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    count = struct.pack("<H", len(entries))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + count + table + bytes(4)


def test_grey_whose_zero_is_white_is_no_negative(tmp_path: Path) -> None:
    values = (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) * 2_700).astype("<u2")
    path = tmp_path / "a.tif"
    for photometric, right in ((0, 65_535 - values), (1, values)):
        path.write_bytes(tiff(values, photometric))
        picture = image_opening.opened(str(path), 10**6, "all").picture
        assert picture.mode == "I;16"
        assert np.array_equal(np.asarray(picture), right)


@pytest.mark.parametrize(
    ("kind", "factor", "photometric", "reason"),
    [
        ("<u4", 180_000_000, 1, "numbers beyond 2,147,483,647"),
        ("i1", 5, 1, "signed numbers of 8 bits"),
        ("<f4", 1, 0, "has 0 for white"),
    ],
)
def test_numbers_that_no_mode_holds_are_refused(
    kind: str, factor: int, photometric: int, reason: str, tmp_path: Path
) -> None:
    values = (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) * factor).astype(kind)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(values, photometric))
    with pytest.raises(given.Refusal, match=reason):
        image_opening.opened(str(path), 10**6, "all")


def profile_of_swapped_colours() -> bytes:
    """The profile of sRGB, with red and blue in each other's place, under another name."""
    raw = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack(">I", raw[128:132])
    places = {bytes(raw[at : at + 4]): at + 4 for at in range(132, 132 + 12 * count, 12)}
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    raw[red : red + 8], raw[blue : blue + 8] = raw[blue : blue + 8], raw[red : red + 8]
    return bytes(raw).replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))


def test_a_contact_sheet_has_the_colours_of_each_profile(tmp_path: Path) -> None:
    path, icc = tmp_path / "a.png", profile_of_swapped_colours()
    picture = Image.new("RGB", (8, 8), "#ff0000")
    file = io.BytesIO()
    picture.save(file, "png", icc_profile=icc)
    path.write_bytes(file.getvalue())
    opened = image_opening.opened(str(path), 10**6, "all")
    right = np.asarray(image_metadata.in_srgb(picture, icc), int)[0, 0]
    assert right[2] > 200
    sheets = contact_sheet.Sheets({"size": 8}, 1, "#ffffff")
    for profile, colour in ((opened.metadata.icc, right), (b"", (255, 0, 0)), (b"broken" * 30, (255, 0, 0))):
        small = np.asarray(sheets.small(opened.picture, profile), int)
        assert np.abs(small[0, 0] - colour).max() <= 2


def deep_files() -> dict[str, tuple[bytes, str]]:
    """Files whose colours have more than Pillow reads, and what the notes say; and such as have not."""
    plain = Image.new("RGB", (8, 8), "#336699")
    files = {
        "binary.ppm": (b"P6 2 2 65535\n" + bytes(24), "16 bits"),
        "text.ppm": (b"P3 2 2 1023\n" + b"7 " * 12, "10 bits"),
        "plain.ppm": (b"P6 2 2 255\n" + bytes(12), ""),
    }
    for form in ("AVIF", "JPEG2000"):
        packed = io.BytesIO()
        plain.save(packed, form)
        files[f"plain.{form}"] = (packed.getvalue(), "")
    for gamma, note in ((100_000, "gamma of 1 "), (45_455, "")):
        packed, more = io.BytesIO(), PngImagePlugin.PngInfo()
        more.add(b"gAMA", gamma.to_bytes(4, "big"))
        plain.save(packed, "PNG", pnginfo=more)
        files[f"{gamma}.png"] = (packed.getvalue(), note)
    return files


@pytest.mark.parametrize("name", deep_files())
def test_what_is_left_out_of_colours_has_a_note(name: str, tmp_path: Path) -> None:
    content, note = deep_files()[name]
    path = tmp_path / name
    path.write_bytes(content)
    notes = " ".join(image_opening.opened(str(path), 10**6, "all").notes)
    assert note in notes if note else not notes


@pytest.mark.parametrize(
    ("form", "mark", "offset", "value", "bits"),
    [("AVIF", b"av1C", 6, 0x4C, 10), ("AVIF", b"av1C", 6, 0x6C, 12), ("JPEG2000", b"\xff\x51", 40, 15, 16)],
)
def test_headers_of_deep_files_are_understood(form: str, mark: bytes, offset: int, value: int, bits: int) -> None:
    """By the header that encoders of more bits write: Pillow writes none itself."""
    packed = io.BytesIO()
    Image.new("RGB", (8, 8)).save(packed, form)
    head = bytearray(packed.getvalue())
    head[head.index(mark) + offset] = value
    (note,) = image_depth.notes(Image.open(packed), bytes(head))
    assert f"{bits} bits" in note


def test_a_sheet_of_one_column_is_no_higher_than_a_jpeg_may_be() -> None:
    sheets = contact_sheet.Sheets({"columns": 1, "size": 16, "labels": False}, 5_000, "#ffffff")
    assert sheets._rows * 24 + 8 <= 65_500
