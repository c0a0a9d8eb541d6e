"""The capsule's bytes ↔ frames, no I/O; every byte that comes in is hostile."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Final

from hivemind_worker import errors
from hivemind_worker.runtime.capsule import payloads
from hivemind_worker.runtime.capsule.frame_types import FrameType
from hivemind_worker.runtime.capsule.payloads import MAX_PAYLOAD

MAGIC: Final = b"HM"
VERSION: Final = 1
_HEAD = struct.Struct("<2sBBIQ")  # magic, version, type, payload length, sequence
_CRC = struct.Struct("<I")
HEADER_BYTES: Final = _HEAD.size + _CRC.size

NEVER_NUMBERED: Final = frozenset(
    {FrameType.TUNNEL_OPENED, FrameType.TUNNEL_UPLOAD, FrameType.TUNNEL_DOWNLOAD_CREDIT, FrameType.TUNNEL_CLOSED}
)
"""Bear the sequence number 0: a new stream ends all tunnels, so that nothing of them is kept to be repeated."""

UNNUMBERED: Final = NEVER_NUMBERED | {FrameType.READY, FrameType.ERROR}
"""May bear the sequence number 0; the last two because they tell a state, not an event, and are not repeated."""

MAX_ANSWER: Final = 512
"""Longest READY, bytes. Bounds what a false start in the garbage before it can make us wait for."""

MAX_GARBAGE: Final = 64 << 20
"""Most bytes thrown away while looking for the answer to RESUME: 16 times what is kept inside (`Limits.window`)."""


class FrameError(errors.CapsuleFault):
    """The bytes are not the frames that the capsule's program writes: it is broken, or someone else speaks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One frame, its checksum already found right."""

    kind: FrameType
    sequence: int
    payload: bytes


def encode(kind: int, sequence: int, payload: bytes) -> bytes:
    """Return the bytes of one frame. Raises ValueError if the payload is longer than 1 MiB."""
    if len(payload) > MAX_PAYLOAD:
        message = f"a frame carries at most {MAX_PAYLOAD} bytes, not {len(payload)}"
        raise ValueError(message)
    head = _HEAD.pack(MAGIC, VERSION, kind, len(payload), sequence)
    return head + _CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


class FrameReader:
    """Takes bytes in any chunks and gives whole frames; holds at most one incomplete frame (1 MiB) between calls."""

    def __init__(self) -> None:
        """Begin at the start of a stream."""
        self._buffer = bytearray()
        self._broken: FrameError | None = None
        self._nonce: bytes | None = None
        self._garbage = 0

    def expect_answer(self, nonce: bytes) -> None:
        """A new stream after RESUME: throw everything away up to the READY that repeats `nonce`; a former error is
        forgotten.
        """
        self._buffer.clear()
        self._broken = None
        self._nonce = nonce
        self._garbage = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take `data`, return the frames now complete.

        Frames that came whole before a fault are lost with it, and after a fault the reader refuses all until
        `expect_answer`.

        Raises:
            FrameError: wrong magic, version, type, length or checksum.
        """
        if self._broken is not None:
            raise FrameError(*self._broken.args)
        self._buffer += data
        try:
            return self._frames()
        except FrameError as error:
            self._broken = error
            self._buffer.clear()
            raise

    def _frames(self) -> list[Frame]:
        found: list[Frame] = []
        at = 0
        if self._nonce is not None:
            answer = self._answer(self._nonce)
            if answer is None:
                return found
            found.append(answer)
        while (frame := _take(self._buffer, at)) is not None:
            at += HEADER_BYTES + len(frame.payload)
            found.append(frame)
        del self._buffer[:at]
        return found

    def _answer(self, nonce: bytes) -> Frame | None:
        """Find the READY with our nonce at any byte; keep only what may still be its beginning."""
        at = keep = -1
        start = MAGIC + bytes([VERSION, FrameType.READY])
        while (at := self._buffer.find(start, at + 1)) >= 0:
            try:
                frame = _take(self._buffer, at)
            except FrameError:
                continue
            if frame is None:
                keep = at if keep < 0 and len(self._buffer) - at < HEADER_BYTES + MAX_ANSWER else keep
            elif frame.sequence == 0 and _says(frame.payload, nonce):
                del self._buffer[: at + HEADER_BYTES + len(frame.payload)]
                self._nonce = None
                return frame
        if keep < 0:
            keep = max(0, len(self._buffer) - len(start) + 1)
        self._garbage += keep
        if self._garbage > MAX_GARBAGE:
            message = f"no answer to RESUME in {self._garbage} bytes"
            raise FrameError(message)
        del self._buffer[:keep]
        return None


def _says(payload: bytes, nonce: bytes) -> bool:
    """Whether this READY repeats our nonce."""
    try:
        message = payloads.decode(FrameType.READY, payload)
    except ValueError:
        return False
    return getattr(message, "nonce", None) == nonce


def _take(buffer: bytearray, at: int) -> Frame | None:
    """Return the frame at `at`, None if it is incomplete. Raises FrameError as soon as a byte is wrong."""
    head = bytes(buffer[at : at + _HEAD.size])
    if not MAGIC.startswith(head[:2]):
        message = f"a frame begins with {head[:2].hex()} instead of {MAGIC.hex()}"
        raise FrameError(message)
    if len(head) < _HEAD.size:
        return None
    _, version, kind, length, sequence = _HEAD.unpack(head)
    if version != VERSION:
        message = f"frame version {version}, this worker speaks {VERSION}"
        raise FrameError(message)
    if length > MAX_PAYLOAD:
        message = f"frame {sequence} claims {length} bytes, at most {MAX_PAYLOAD} are allowed"
        raise FrameError(message)
    if kind not in _KINDS:
        message = f"frame {sequence} is of the unknown type {kind:#04x}"
        raise FrameError(message)
    begin, end = at + HEADER_BYTES, at + HEADER_BYTES + length
    if len(buffer) < end:
        return None
    with memoryview(buffer) as view:  # one copy instead of two
        payload = view[begin:end].tobytes()
    (crc,) = _CRC.unpack_from(buffer, at + _HEAD.size)
    if zlib.crc32(payload, zlib.crc32(head)) != crc:
        message = f"the checksum of frame {sequence} (type {kind:#04x}, {length} bytes) is wrong"
        raise FrameError(message)
    return Frame(FrameType(kind), sequence, payload)


_KINDS: Final = frozenset(int(kind) for kind in FrameType)
