"""The types of frames: one byte each, by which both ends know what a payload is."""

from __future__ import annotations

import enum
from typing import Final


class FrameType(enum.IntEnum):
    """The type byte of a frame; the highest bit says that the capsule speaks."""

    SPEC = 0x01
    FILE = 0x02
    START = 0x03
    INPUT = 0x04
    SIGNAL = 0x05
    STOP = 0x06
    ACK = 0x07
    RESUME = 0x08
    CLOSE = 0x09
    TUNNEL_DOWNLOAD = 0x21
    TUNNEL_UPLOAD_CREDIT = 0x22
    TUNNEL_CLOSE = 0x23
    READY = 0x81
    OUT = 0x82
    ERR = 0x83
    TAKEN = 0x84
    EXITED = 0x85
    DONE = 0x86
    ERROR = 0x87
    RESULT_BEGIN = 0x91
    RESULT_DATA = 0x92
    RESULT_END = 0x93
    RESULT_DROPPED = 0x94
    RESULT_SKIPPED = 0x95
    TUNNEL_OPENED = 0xA1
    TUNNEL_UPLOAD = 0xA2
    TUNNEL_DOWNLOAD_CREDIT = 0xA3
    TUNNEL_CLOSED = 0xA4


FROM_CAPSULE: Final = 0x80
