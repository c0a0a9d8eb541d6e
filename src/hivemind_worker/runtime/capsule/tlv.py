"""Structured payloads: a row of (tag u16, length u32, bytes), little endian."""

from __future__ import annotations

import struct
from collections.abc import Iterable

_HEAD = struct.Struct("<HI")
_NUMBER = struct.Struct("<Q")
_MAX_ITEMS = 65_536  # no honest payload has more (argv and environment together); bounds the objects made of 1 MiB

UNLIMITED = 2**64 - 1


def number(value: int) -> bytes:
    """Eight bytes, unsigned. Raises ValueError outside 0..2**64-1."""
    if not 0 <= value <= UNLIMITED:
        message = f"{value} does not fit into 64 bits"
        raise ValueError(message)
    return _NUMBER.pack(value)


def encode(items: Iterable[tuple[int, bytes]]) -> bytes:
    """Join (tag, bytes) pairs into one payload."""
    return b"".join(_HEAD.pack(tag, len(data)) + data for tag, data in items)


class Fields:
    """A payload taken apart. Unknown tags are ignored, so that fields can be added; known ones are checked on
    reading.
    """

    def __init__(self, payload: bytes) -> None:
        """Take the payload apart.

        Raises:
            ValueError: a length points past the end, or there are more than 65,536 items.
        """
        self._items: dict[int, list[bytes]] = {}
        at = count = 0
        while at < len(payload):
            count += 1
            if count > _MAX_ITEMS or at + _HEAD.size > len(payload):
                message = f"item {count} at byte {at} is cut off or one too many"
                raise ValueError(message)
            tag, length = _HEAD.unpack_from(payload, at)
            at += _HEAD.size
            if at + length > len(payload):
                message = f"field {tag} claims {length} bytes, {len(payload) - at} are there"
                raise ValueError(message)
            self._items.setdefault(tag, []).append(payload[at : at + length])
            at += length

    def all(self, tag: int) -> tuple[bytes, ...]:
        """Every occurrence, in order."""
        return tuple(self._items.get(tag, ()))

    def bytes(self, tag: int, default: bytes = b"") -> bytes:
        """The only occurrence. Raises ValueError if there are several."""
        found = self._items.get(tag)
        if found is None:
            return default
        if len(found) > 1:
            message = f"field {tag} is there {len(found)} times"
            raise ValueError(message)
        return found[0]

    def number(self, tag: int, default: int = 0) -> int:
        """The only occurrence as a number. Raises ValueError if it is not eight bytes."""
        found = self.optional(tag)
        return default if found is None else found

    def optional(self, tag: int) -> int | None:
        """As `number`, None if it is not there."""
        if tag not in self._items:
            return None
        data = self.bytes(tag)
        if len(data) != _NUMBER.size:
            message = f"field {tag} is {len(data)} bytes long, a number has 8"
            raise ValueError(message)
        return int(_NUMBER.unpack(data)[0])

    def text(self, tag: int) -> str:
        """The only occurrence as one line of text to show: at most 1,000 characters, no control characters."""
        text = self.bytes(tag)[:4000].decode("utf-8", "replace")[:1000]
        return "".join(char if char.isprintable() else "�" for char in text)
