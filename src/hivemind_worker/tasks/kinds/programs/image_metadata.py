"""What is known of a picture beside its pixels: read once, made true of the result, given to formats that hold it.

Which format holds what is decided here and nowhere else.
"""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import ExifTags, Image, ImageCms, PngImagePlugin

_ANY = 2**31 - 1


@dataclass(frozen=True)
class Holds:
    """What a format has room for: bytes of EXIF, colour profile and XMP (0: none), and dots per inch."""

    exif: int = 0
    icc: int = 0
    xmp: int = 0
    max_dpi: int = 0


FORMATS: Mapping[str, Holds] = {
    # One marker segment of 65,533 bytes for EXIF, and one less its name for XMP; a profile has up to 255 segments.
    "jpeg": Holds(exif=65_533, icc=255 * 65_519, xmp=65_504, max_dpi=65_535),
    "png": Holds(exif=_ANY, icc=_ANY, xmp=_ANY, max_dpi=round(_ANY * 0.0254)),
    "webp": Holds(exif=_ANY, icc=_ANY, xmp=_ANY),
    "gif": Holds(),
    "tiff": Holds(exif=_ANY, icc=_ANY, xmp=_ANY, max_dpi=_ANY),
    "bmp": Holds(max_dpi=round(_ANY * 0.0254)),
}

_NAMES = {"exif": "EXIF", "icc": "the colour profile", "xmp": "XMP"}
_ORIENTATION, _ACROSS, _DOWN = 274, 282, 283
_LAYOUT = frozenset(
    {254, 255, *range(256, 260), 262, 266, 273, 274, *range(277, 285), 296, 317, *range(320, 326), 330, 338, 339, 347}
)
"""Tags that say how a TIFF file is laid out, and its resolution, which is kept as such."""

_OTHERS = frozenset({700, 33723, 34377, 34675, *range(512, 522), 529, 530, 531, 532})
"""Tags that hold other metadata, or say how the pixels of JPEG and YCbCr are laid out."""

_MAIN, _XMP = 0, 700
_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_WIDTH, _HEIGHT = 0xA002, 0xA003
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_STALE = {
    _TIFF: "Orientation|ImageWidth|ImageLength|NativeDigest",
    _EXIF: "PixelXDimension|PixelYDimension|NativeDigest",
    "http://ns.adobe.com/xmp/note/": "HasExtendedXMP",
}
"""What XMP says of a picture that was turned, cut or scaled, and what it says of parts that are not with it."""

_SPACES = {b"RGB ": frozenset({"RGB", "RGBA"}), b"GRAY": frozenset({"L", "LA", "I;16"})}


@dataclass
class Metadata:
    """What is known of a picture."""

    exif: dict[int, dict[int, Any]] = field(default_factory=dict)
    """Its tables by the tag that points to them (the main one: 0); none is empty, which libtiff fails on."""

    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    orientation: int = 1
    """What the file says of it, 1 where it is upright: in none of the others, since pictures are opened upright."""

    notes: list[str] = field(default_factory=list)


def read(image: Image.Image) -> Metadata:
    """Gather it from a loaded picture, without what is not true of it upright, nor can be written by anybody."""
    metadata = Metadata(icc=image.info.get("icc_profile") or b"")
    _read_exif(image, metadata)
    raw = image.info.get("xmp") or b""
    raw = raw.encode() if isinstance(raw, str) else bytes(raw)
    xmp = _without_stale(raw.rstrip(b"\0 "))
    if xmp is None:
        metadata.notes.append("its XMP is not well-formed, and was left out")
    metadata.xmp = xmp or b""
    return metadata


def _read_resolution(image: Image.Image, exif: Mapping[int, object], metadata: Metadata) -> None:
    """Dots per inch where they are numbers; a TIFF that says nothing of them is 1 to Pillow."""
    written = [exif[tag] for tag in (_ACROSS, _DOWN) if tag in exif]
    resolution = image.info.get("dpi")
    if resolution is None or (image.format == "TIFF" and not written):
        resolution = ()
    values = []
    for value in (*resolution, *written):
        try:
            values.append(float(value))
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            values.append(math.nan)
    if not all(math.isfinite(value) and value > 0 for value in values):
        metadata.notes.append("its resolution is no number, and was left out")
    elif len(resolution) == 2:
        metadata.dpi = (values[0], values[1])


def strip(metadata: Metadata) -> None:
    """Forget all but the colours."""
    metadata.exif, metadata.xmp = {}, b""


def parameters(metadata: Metadata, form: str, picture: Image.Image) -> tuple[dict[str, Any], list[str]]:
    """Return what ``Image.save`` takes for a picture in this format, and what was left out and why."""
    holds, arguments, notes, missing = FORMATS[form], dict[str, Any](), [], []
    exif = _exif_bytes(metadata, form, picture)
    icc = metadata.icc
    if icc and not is_of(icc, picture):
        notes.append("its colour profile is not of the result's colours, and was left out")
        icc = b""
    for name, value in (("exif", exif), ("icc", icc), ("xmp", metadata.xmp)):
        room = getattr(holds, name)
        if not value:
            continue
        if len(value) <= room:
            arguments |= _as_saved(name, value, form)
        elif room:
            notes.append(f"{_NAMES[name]} of {len(value):,} bytes was left out: {form} holds {room:,}")
        else:
            missing.append(_NAMES[name])
    if metadata.dpi is not None:
        if min(metadata.dpi) >= 0.5 and max(metadata.dpi) <= holds.max_dpi:
            arguments["dpi"] = metadata.dpi
        elif form not in {"webp", "gif"} or not exif:
            missing.append("the resolution")
    if missing:
        notes.append(f"left out, since {form} holds none: {', '.join(missing)}")
    return arguments, notes


def is_of(icc: bytes, picture: Image.Image) -> bool:
    """Whether a profile is of this picture's colours."""
    return picture.mode in _SPACES.get(icc[16:20], ())


def in_srgb(picture: Image.Image, icc: bytes) -> Image.Image:
    """The same colours without the profile, for a format that holds none. Raises ImageCms.PyCMSError."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    if "srgb" in ImageCms.getProfileDescription(profile).lower():
        return picture if picture.mode in {"RGB", "RGBA"} else picture.convert("RGB")
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    plain = picture.convert("RGB") if alpha is not None else picture
    converted = ImageCms.profileToProfile(plain, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _read_exif(image: Image.Image, metadata: Metadata) -> None:
    try:
        exif = image.getexif()
        tables: dict[int, dict[int, Any]] = {_MAIN: dict(exif.items())}
        tables |= {ifd: dict(exif.get_ifd(ifd)) for ifd in _IFDS}
    except Exception:  # noqa: BLE001 - bytes of a stranger: the parser raises anything, and the pixels are whole
        metadata.notes.append("its EXIF cannot be read, and was left out")
        return
    _read_resolution(image, tables[_MAIN], metadata)
    orientation = exif.get(_ORIENTATION, 1)
    metadata.orientation = orientation if isinstance(orientation, int) else 1
    lost = 0
    for ifd, table in tables.items():
        for tag, value in table.items():
            if ifd == _MAIN and (tag in _LAYOUT or tag in _OTHERS or tag in _IFDS or tag == ExifTags.IFD.Interop):
                continue
            if _can_be_written(ifd, tag, value):
                metadata.exif.setdefault(ifd, {})[tag] = value
            else:
                lost += 1
    if lost:
        metadata.notes.append(f"{lost} entries of its EXIF break its own rules, and were left out")


def _written(tables: Mapping[int, Mapping[int, Any]]) -> bytes:
    exif = Image.Exif()
    for ifd, table in tables.items():
        (exif if ifd == _MAIN else exif.get_ifd(ifd)).update(table)
    return exif.tobytes()


def _can_be_written(ifd: int, tag: int, value: object) -> bool:
    try:
        _written({ifd: {tag: value}})
    except Exception:  # noqa: BLE001 - each kind of wrong value has an exception of its own
        return False
    return True


def _exif_bytes(metadata: Metadata, form: str, picture: Image.Image) -> bytes:
    tables = {ifd: dict(table) for ifd, table in metadata.exif.items()}
    inner = tables.get(ExifTags.IFD.Exif, {})
    for tag, side in ((_WIDTH, picture.width), (_HEIGHT, picture.height)):
        if tag in inner:
            inner[tag] = side
    if form == "tiff" and metadata.xmp:
        tables.setdefault(_MAIN, {})[_XMP] = metadata.xmp
    return _written(tables) if tables else b""


def has_tables(metadata: Metadata) -> bool:
    """Whether its EXIF has tables within the table: of the camera, of the place."""
    return any(ifd in metadata.exif for ifd in _IFDS)


def _as_saved(name: str, value: bytes, form: str) -> dict[str, Any]:
    if name == "icc":
        return {"icc_profile": value}
    if name == "xmp" and form == "png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", value.decode())
        return {"pnginfo": chunks}
    if name == "xmp" and form == "tiff":
        return {}  # a tag among those of EXIF
    return {name: value}


def _without_stale(xmp: bytes) -> bytes | None:
    """The packet without what is stale; None where it is not well-formed, and nobody can say what it would tell."""
    if not xmp:
        return b""
    try:
        text = xmp.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None
    for namespace, names in _STALE.items():
        for prefix in set(re.findall(rf"xmlns:([\w.-]+)\s*=\s*[\"']{re.escape(namespace)}[\"']", text)):
            name = f"{re.escape(prefix)}:(?:{names})"
            text = re.sub(rf"\s+{name}\s*=\s*(?:\"[^\"]*\"|'[^']*')", "", text)
            text = re.sub(rf"<({name})\b[^<>]*(?:/>|>[^<>]*</\1\s*>)", "", text)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        root = ET.fromstring(text)  # noqa: S314 - without a document type there are no entities to blow up
    except ET.ParseError:
        return None
    turned = f"{{{_TIFF}}}Orientation"
    if any(node.tag == turned or turned in node.attrib for node in root.iter()):
        return None
    return text.encode()
