"""What Pillow leaves out of a file's colours as it reads them: bits beyond eight a channel, and a gamma of its own."""

from __future__ import annotations

from PIL import Image

HEAD_BYTES = 65_536
"""How much of a file is looked through for its header."""

_COLOURED = frozenset({"RGB", "RGBA", "LA", "CMYK"})
"""Modes of more than one channel; grey is read with all of its bits."""

_USUAL_GAMMA = 1 / 2.2
_NEAR = 0.02


def notes(image: Image.Image, head: bytes) -> list[str]:
    """What is left out of an image that is open and not loaded yet; ``head`` are its file's first ``HEAD_BYTES``."""
    result = []
    if image.mode in _COLOURED and (bits := _bits(image, head)) > 8:
        result.append(f"had {bits} bits a channel, of which 8 were read: only grey is read with more")
    gamma = image.info.get("gamma")
    if gamma and not {"srgb", "icc_profile"} & image.info.keys() and abs(gamma - _USUAL_GAMMA) > _NEAR:
        result.append(
            f"has a gamma of {gamma:.4g} (gAMA), which is left out: programs that follow it show its shades otherwise"
        )
    return result


def _bits(image: Image.Image, head: bytes) -> int:
    """Bits a channel of the file, as far as they are more than eight."""
    if image.format == "AVIF":
        # ISO 14496-12's box of the codec: version, profile, then tier, high_bitdepth, twelve_bit from the top bit down.
        flags = _byte(head, b"av1C", 4 + 2)
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if image.format == "JPEG2000":
        # The markers SOC and SIZ, 38 bytes of SIZ, then the first channel's depth.
        return (_byte(head, b"\xff\x4f\xff\x51", 42) & 0x7F) + 1
    bits = 8
    for tile in getattr(image, "tile", ()):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if any(";16" in str(argument) for argument in arguments):
            bits = 16
        elif image.format == "PPM" and isinstance(arguments[-1], int):
            bits = max(bits, arguments[-1].bit_length())
    return bits


def _byte(head: bytes, mark: bytes, offset: int) -> int:
    at = head.find(mark)
    return head[at + offset] if 0 <= at < len(head) - offset else 0
