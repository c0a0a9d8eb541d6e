"""Formats, modes and metadata of pictures: the cases that came out wrong, and every format with every mode."""

from __future__ import annotations

import io
import itertools
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import program_runs
import pypdf
import pytest
from PIL import ExifTags, Image, ImageCms, ImageSequence, PngImagePlugin

import given
import image_metadata
import image_opening
import image_saving
import image_steps

LIBRARIES = ("PIL.Image", "PIL.ImageCms", "PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageOps")

CASES = Path(__file__).with_name("cases") / "image"
FORMATS = tuple(image_metadata.FORMATS)
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:{tiff}="http://ns.adobe.com/tiff/1.0/" {attribute}>{element}'
    "<{tiff}:Make>Bee</{tiff}:Make></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def work(folder: Path, files: dict[str, bytes], *steps: dict[str, object], **options: object) -> program_runs.Ran:
    fields: dict[str, Any] = {"input_data": list(files), "steps": steps, "options": options}
    return program_runs.run(folder, files, processing_type="image_processing", **fields)


def packed(image: Image.Image, form: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **more)
    return file.getvalue()


def gradient(mode: str, width: int = 24, height: int = 16) -> Image.Image:
    """A picture of that mode, different at every place, with parts that are clear where the mode has alpha."""
    y, x = np.mgrid[0:height, 0:width]
    if mode in {"I;16", "I", "F"}:
        values = (x * 2_700 + y * 20).astype(np.uint16)
        return Image.fromarray(values if mode == "I;16" else values.astype({"I": np.int32, "F": np.float32}[mode]))
    alpha = np.where(x < width // 2, 255, 0)
    coloured = np.stack([x * 10, y * 15, 255 - x * 10, alpha], axis=-1).astype(np.uint8)
    rgba = Image.fromarray(coloured)
    if mode in {"LA", "RGBA"}:
        return rgba.convert(mode)
    return rgba.convert("RGB").convert(mode)


def saved(image: Image.Image, form: str, tmp_path: Path, **known: Any) -> tuple[Image.Image, list[str]]:
    """A picture in memory through the program's own opening and saving."""
    source, place = tmp_path / "source.tif", tmp_path / "result"
    source.write_bytes(packed(image, "tiff", **known))
    opened = image_opening.opened(str(source), 10**6, "all")
    image_saving.save(opened, place, form, {"quality": 90, "lossless": True}, "#ffffff")
    with Image.open(place) as result:
        result.load()
        return result, opened.notes


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, program_runs.Ran]:
    half: dict[str, object] = {"op": "resize", "percent": 50}
    steps: dict[str, dict[str, object]] = {
        "i02_exif6_xmp6.jpg": half,
        "i09_rgb_icc.png": {"op": "grayscale"},
        "i10c_17000.png": {"op": "convert", "format": "webp"},
        "i12_la.png": {"op": "convert", "format": "gif"},
        "i13b_big_xmp.tif": {"op": "convert", "format": "jpeg"},
        "i14b_nan_dpi.tif": half,
        "i15f_exif_srational_neg.jpg": half,
    }
    folder = tmp_path_factory.mktemp("cases")
    return {
        name[:4].rstrip("_"): work(folder / name, {name: (CASES / name).read_bytes()}, step)
        for name, step in steps.items()
    }


def result_of(ran: program_runs.Ran) -> Image.Image:
    assert ran.code == 0, ran.err
    (told,) = ran.json()["images"]
    with Image.open(ran.results / told["result"]) as image:
        image.load()
        return image


def test_no_orientation_is_left_anywhere(cases: dict[str, program_runs.Ran]) -> None:
    image = result_of(cases["i02"])
    assert image.size == (40, 60)
    assert 274 not in image.getexif()
    assert b"Orientation" not in image.info.get("xmp", b"")


def test_metadata_that_cannot_be_kept_loses_no_picture(cases: dict[str, program_runs.Ran]) -> None:
    for name, note in {
        "i13b": "XMP of .* was left out: jpeg holds 65,504",
        "i14b": "resolution",
        "i15f": "resolution",
    }.items():
        result_of(cases[name])
        (told,) = cases[name].json()["images"]
        assert any(re.search(note, each) for each in told["notes"]), told


def test_a_profile_belongs_to_its_colours(cases: dict[str, program_runs.Ran]) -> None:
    image = result_of(cases["i09"])
    assert image.mode == "L"
    assert "icc_profile" not in image.info


def test_what_is_transparent_in_grey_stays_so_in_gif(cases: dict[str, program_runs.Ran]) -> None:
    with Image.open(CASES / "i12_la.png") as source:
        expected = np.asarray(source.convert("RGBA"))
    found = np.asarray(result_of(cases["i12"]).convert("RGBA"))
    assert np.array_equal(found[..., 3], np.where(expected[..., 3] < 128, 0, 255))
    seen = expected[..., 3] > 127
    assert np.abs(found[seen].astype(int) - expected[seen])[:, :3].max() <= 4


def test_the_limit_of_a_format_is_said_plainly(cases: dict[str, program_runs.Ran]) -> None:
    (told,) = cases["i10c"].json()["images"]
    assert "webp ends at 16,383 pixels a side" in told["error"]
    assert "broken" not in told["error"]


@pytest.mark.parametrize("attribute", [True, False])
@pytest.mark.parametrize("prefix", ["tiff", "t0"])
@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
def test_xmp_loses_its_orientation_and_nothing_else(form: str, prefix: str, attribute: bool, tmp_path: Path) -> None:
    turned = {"attribute": f"{prefix}:Orientation='6'", "element": ""}
    if not attribute:
        turned = {"attribute": "", "element": f"<{prefix}:Orientation>\n6 </{prefix}:Orientation>"}
    xmp = XMP.format(tiff=prefix, **turned).encode()
    source = tmp_path / f"a.{form}"
    if form == "png":
        chunk = PngImagePlugin.PngInfo()
        chunk.add_itxt("XML:com.adobe.xmp", xmp.decode())
        more: dict[str, Any] = {"pnginfo": chunk}
    else:
        more = {"tiffinfo": {700: xmp}} if form == "tiff" else {"xmp": xmp}
    exif = Image.Exif()
    exif[274] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[0xA002] = 24
    if form != "tiff":
        more["exif"] = exif
    else:
        more["tiffinfo"] = more["tiffinfo"] | {274: 6}
    source.write_bytes(packed(gradient("RGB"), form, **more))
    opened = image_opening.opened(str(source), 10**6, "all")
    assert opened.picture.size == (16, 24)
    for into in ("jpeg", "png", "webp", "tiff"):
        place = tmp_path / into
        image_saving.save(opened, place, into, {"quality": 90}, "#ffffff")
        with Image.open(place) as image:
            assert image.size == (16, 24)
            assert 274 not in image.getexif() or image.getexif()[274] == 1
            assert b"Orientation" not in image.info["xmp"]
            assert b"Make>Bee<" in image.info["xmp"]
            if form != "tiff":
                assert image.getexif().get_ifd(ExifTags.IFD.Exif)[0xA002] == 16


@pytest.mark.parametrize(
    "xmp", [b"no xml", b"<a", b"\xff\xfe<\0a\0", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b"\0\0"]
)
@pytest.mark.parametrize("dpi", [(72, 72), (0, 0), (70_000, 70_000), (float("nan"), 72), None])
def test_odd_metadata_loses_no_picture(xmp: bytes, dpi: tuple[float, float] | None, tmp_path: Path) -> None:
    picture = gradient("RGB")
    for into in FORMATS:
        picture.info = {"xmp": xmp, "dpi": dpi, "icc_profile": b"no profile" * 20}
        metadata = image_metadata.read(picture)
        opened = image_opening.Opened([picture], "PNG", "RGB", picture.size, metadata)
        image_saving.save(opened, tmp_path / into, into, {"quality": 90}, "#ffffff")
        with Image.open(tmp_path / into) as image:
            image.load()
            assert image.size == picture.size


def test_every_mode_in_every_format_looks_as_it_did(tmp_path: Path) -> None:
    """Against Pillow's own conversion: what each format holds of the mode, over white where it holds no alpha."""
    for mode, form in itertools.product(MODES, FORMATS):
        source = gradient(mode)
        result, notes = saved(source, form, tmp_path)
        if mode in {"I;16", "I", "F"}:
            deep = form == "tiff" or (form == "png" and mode != "F")
            values = np.asarray(source, dtype=float)
            if deep:
                assert np.array_equal(np.asarray(result, dtype=float), values), (mode, form)
                assert not notes
                continue
            assert notes == ["had more than 8 bits a channel, and was brought to 8"], (mode, form)
            scale = 255 / np.ptp(values) if mode == "F" else 1 / 256
            expected = np.repeat((values - (values.min() if mode == "F" else 0))[..., None] * scale, 3, axis=-1)
        else:
            rgba = source.convert("RGB").convert("RGBA") if mode in {"CMYK", "YCbCr"} else source.convert("RGBA")
            ground = Image.new("RGBA", rgba.size, "#ffffff")
            expected = np.asarray(Image.alpha_composite(ground, rgba).convert("RGB"), dtype=float)
        shown = Image.alpha_composite(Image.new("RGBA", result.size, "#ffffff"), result.convert("RGBA"))
        off = np.abs(np.asarray(shown.convert("RGB"), dtype=float) - expected)
        dithered = mode in {"1", "P"}  # noise, of which JPEG makes the most
        assert off.mean() < {"jpeg": 16 if dithered else 6, "gif": 8}.get(form, 1.1), (mode, form, off.mean())


def test_deep_grey_is_kept_through_the_steps_that_know_it(tmp_path: Path) -> None:
    source = gradient("I;16", 80, 60)
    exact = source.convert("I").convert("F")
    for step in (
        {"op": "resize", "width": 33, "height": 21, "fit": "stretch"},
        {"op": "resize", "width": 40, "height": 40, "fit": "cover"},
        {"op": "rotate", "degrees": 30},
        {"op": "rotate", "degrees": 90},
        {"op": "flip", "direction": "vertical"},
        {"op": "crop", "width": 20, "height": 10},
        {"op": "thumbnail", "size": 20},
    ):
        deep = image_steps.apply(source, step, "#000000", 10**6)
        right = image_steps.apply(exact, step, "#000000", 10**6)
        assert deep.mode == "I;16"
        off = np.abs(np.asarray(deep, dtype=float) - np.asarray(right).clip(0, 65_535))
        assert off.max() <= 1, (step, off.max())


def animation(form: str, count: int = 4) -> bytes:
    frames = [Image.new("RGBA", (30, 20), (at * 60, 0, 255 - at * 60, 255)) for at in range(count)]
    frames[1].putpixel((3, 3), (0, 255, 0, 255))
    more: dict[str, Any] = {"lossless": True} if form == "webp" else {}
    more |= {} if form == "tiff" else {"duration": [100, 200, 300, 400][:count], "loop": 3}
    return packed(frames[0], form, save_all=True, append_images=frames[1:], **more)


@pytest.mark.parametrize("into", ["gif", "webp", "png", "tiff", "jpeg"])
@pytest.mark.parametrize("form", ["gif", "webp", "png", "tiff"])
def test_animations_come_whole_or_are_refused(form: str, into: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(animation(form))
    opened = image_opening.opened(str(source), 10**6, "all")
    assert len(opened.frames) == 4
    if into == "jpeg" or (form == "tiff" and into != "tiff"):
        with pytest.raises(given.Refusal, match=f"{into} holds one: options.frames 'first'"):
            image_saving.save(opened, tmp_path / "result", into, {"quality": 90}, "#ffffff")
        return
    image_saving.save(opened, tmp_path / "result", into, {"quality": 90, "lossless": True}, "#ffffff")
    with Image.open(source) as one, Image.open(tmp_path / "result") as other:
        assert other.n_frames == 4  # type: ignore[attr-defined]
        for first, second in zip(ImageSequence.Iterator(one), ImageSequence.Iterator(other), strict=True):
            off = np.abs(np.asarray(first.convert("RGBA"), float) - np.asarray(second.convert("RGBA"), float))
            assert off.max() <= 4
            if "tiff" not in {form, into}:
                assert first.info["duration"] == second.info["duration"]
        if "tiff" not in {form, into}:
            plays = [file.info["loop"] + (file.format == "GIF") for file in (one, other)]
            assert plays[0] == plays[1]
    with pytest.raises(given.Refusal, match=r"has 4 frames: options\.frames says"):
        image_opening.opened(str(source), 10**6, "refuse")
    with pytest.raises(given.Refusal, match="4 frames of 30x20 pixels, more than 2,399"):
        image_opening.opened(str(source), 2_399, "all")
    alone = image_opening.opened(str(source), 2_399, "first")
    assert alone.notes == ["has 4 frames, of which the first was taken"]


def png_of(depth: int, colours: int, row: bytes, clear: bytes) -> bytes:
    """A PNG of one row of two pixels, of which one is transparent by its shade or colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colours, 0, 0, 0)) + chunk(b"tRNS", clear)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colours", "row", "clear"),
    [
        (1, 0, b"\x80", b"\0\1"),
        (2, 0, b"\x40", b"\0\1"),
        (4, 0, b"\x12", b"\0\1"),
        (8, 0, b"\1\2", b"\0\1"),
        (16, 0, b"\x12\x34\x12\x35", b"\x12\x34"),
        (8, 2, b"\1\2\3\1\2\4", b"\0\1\0\2\0\3"),
        (16, 2, b"\1\2\3\4\5\6\2\2\3\4\5\6", b"\1\2\3\4\5\6"),
    ],
)
def test_the_clear_shade_of_a_png_is_clear(depth: int, colours: int, row: bytes, clear: bytes, tmp_path: Path) -> None:
    """Whatever its depth: Pillow compares the shade of the file with pixels of 8 bits."""
    source = tmp_path / "a.png"
    source.write_bytes(png_of(depth, colours, row, clear))
    picture = image_opening.opened(str(source), 10**6, "all").picture
    assert list(picture.getchannel("A").tobytes()) == [0, 255]


@pytest.mark.parametrize("form", ["gif", "webp", "png"])
def test_frames_with_clear_parts_do_not_show_through(form: str, tmp_path: Path) -> None:
    halves = [Image.new("RGBA", (8, 4)) for _ in range(3)]
    halves[0].paste("#ff0000", (4, 0, 8, 4))
    halves[1].paste("#ff0000", (0, 0, 4, 4))
    black = Image.new("RGBA", (8, 4), "#000000")
    frames = [black, Image.new("RGBA", (8, 4)), *halves, black, Image.new("RGBA", (8, 4), "#808080")]
    opened = image_opening.Opened(frames, "PNG", "RGBA", (8, 4), image_metadata.Metadata(), [50] * len(frames), 0)
    image_saving.save(opened, tmp_path / "a", form, {"quality": 90, "lossless": True}, "#ffffff")
    with Image.open(tmp_path / "a") as image:
        assert image.info["loop"] == 0
        found = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
    assert len(found) == len(frames)
    for one, other in zip(found, frames, strict=True):
        expected = np.asarray(other)
        assert np.array_equal(one[..., 3], expected[..., 3])
        assert np.array_equal(one[expected[..., 3] > 0], expected[expected[..., 3] > 0])


def test_frames_of_several_sizes_get_one_canvas(tmp_path: Path) -> None:
    """A GIF may grow: its second frame is larger than what its header says."""
    content = packed(
        Image.new("RGB", (2, 2), "#ff0000"),
        "gif",
        save_all=True,
        duration=50,
        append_images=[Image.new("RGB", (2, 2), "#0000ff")],
    )
    at = content.rindex(b",\0\0\0\0\2\0\2\0")
    source = tmp_path / "a.gif"
    source.write_bytes(content[: at + 1] + struct.pack("<HH", 1, 1) + content[at + 5 :])
    opened = image_opening.opened(str(source), 10**6, "all")
    assert [frame.size for frame in opened.frames] == [(3, 3), (3, 3)]
    assert "its frames were of several sizes, and are now of 3x3, clear where they end" in opened.notes
    for form in ("gif", "png", "webp"):
        try:
            image_saving.save(opened, tmp_path / form, form, {"quality": 90, "lossless": True}, "#ffffff")
        except given.Refusal as refusal:
            assert (form, "lose its transparency" in str(refusal)) == ("webp", True)  # noqa: PT017 - libwebp decides
            continue
        with Image.open(tmp_path / form) as image:
            found = [frame.convert("RGBA").getpixel((2, 2)) for frame in ImageSequence.Iterator(image)]
        assert found == [(0, 0, 0, 0), (0, 0, 255, 255)]


def test_a_watermark_fits_into_a_small_picture() -> None:
    step = {"op": "watermark", "text": "A long line of text", "opacity": 1, "colour": "#ff0000", "position": "top_left"}
    marked = np.asarray(image_steps.apply(Image.new("RGB", (64, 64), "#ffffff"), step, "#ffffff", 10**6))
    red = marked[..., 1] < 200
    assert red.any()
    assert not red[:, -2:].any()


def test_profiles_go_where_they_fit_and_colours_without_them_are_srgb(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for form in FORMATS:
        kept, _ = saved(gradient("RGB"), form, tmp_path, icc_profile=srgb)
        assert ("icc_profile" in kept.info) == bool(image_metadata.FORMATS[form].icc), form
        grey, notes = saved(gradient("L"), form, tmp_path, icc_profile=srgb)
        assert "icc_profile" not in grey.info or form == "webp"
        assert form == "webp" or any("colour profile" in note for note in notes)


def test_pad_and_a_size_in_bytes(tmp_path: Path) -> None:
    for mode, corner in (("RGB", (255, 0, 0)), ("RGBA", (0, 0, 0, 0)), ("L", 76), ("I;16", 76 * 257)):
        step = {"op": "resize", "width": 50, "height": 50, "fit": "pad"}
        padded = image_steps.apply(gradient(mode), step, "#ff0000", 10**6)
        assert padded.size == (50, 50)
        assert padded.getpixel((0, 0)) == corner
        middle = image_steps.apply(gradient(mode), {"op": "resize", "width": 50}, "#ff0000", 10**6)
        assert np.array_equal(np.asarray(padded)[8:41], np.asarray(middle))
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8))
    source = tmp_path / "a.png"
    source.write_bytes(packed(noise, "png"))
    for form in ("jpeg", "webp"):
        opened = image_opening.opened(str(source), 10**6, "all")
        image_saving.save(opened, tmp_path / form, form, {"quality": 95, "max_bytes": 20_000}, "#ffffff")
        assert 15_000 < (tmp_path / form).stat().st_size <= 20_000
        assert "the best of at most 20,000 bytes" in opened.notes[-1]
        with pytest.raises(given.Refusal, match="at the lowest quality: resize it"):
            image_saving.save(opened, tmp_path / form, form, {"quality": 95, "max_bytes": 300}, "#ffffff")


def test_a_contact_sheet_as_pdf_has_all_its_pages(tmp_path: Path) -> None:
    files = {f"{at:02}.png": packed(gradient("RGB"), "png") for at in range(40)}
    ran = work(tmp_path / "w", files, {"op": "contact_sheet", "columns": 4, "size": 100, "format": "pdf"})
    assert ran.json()["contact_sheets"] == ["contact_sheet.pdf"]
    assert len(pypdf.PdfReader(ran.results / "contact_sheet.pdf").pages) == 3
