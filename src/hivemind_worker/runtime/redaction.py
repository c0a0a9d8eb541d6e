"""Values of secrets in a task's output, masked before anything keeps or forwards it. A help, never a promise.

Each byte of a value becomes `*`, so that the offsets of the output stay what they are. A value that comes in pieces is
found: what may be its beginning is held back until more comes. What a task encodes, splits or reverses is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hivemind_worker.runtime.capsule import messages

MIN_BYTES = 8
"""A shorter value would be found where it is none: `yes`, `1234`."""

_MASK = b"*"


@dataclass(slots=True)
class _Stream:
    """``passed``: the last bytes that went on, as they were; ``held`` those that may begin a value, from ``offset``."""

    passed: bytes = b""
    held: bytes = b""
    offset: int = 0


class Redactor:
    """Masks values in the output of one attempt; without values it passes everything on as it is. No I/O."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        # As a shell's $(…) and many programs print them: without the line ends at their end.
        values = {value.rstrip("\r\n").encode() for value in secrets.values()}
        self._values = tuple(sorted((value for value in values if len(value) >= MIN_BYTES), key=len, reverse=True))
        self._longest = max(map(len, self._values), default=0)
        self._streams: dict[messages.Stream, _Stream] = {}

    @property
    def is_holding(self) -> bool:
        """Whether something of the output was held back."""
        return any(stream.held for stream in self._streams.values())

    def take(self, output: messages.Output) -> list[messages.Output]:
        """Return what can go on of the output so far, this piece included."""
        if not self._values:
            return [output]
        ready: list[messages.Output] = []
        stream = self._streams.setdefault(output.stream, _Stream(offset=output.offset))
        if output.offset != stream.offset + len(stream.held):  # something between was left out
            ready += self.flush(output.stream)
            stream.passed, stream.offset = b"", output.offset
        data = stream.held + output.data
        text = stream.passed + data
        hold = min(_begun(text, self._values), len(data))
        masked = _masked(text, self._values)[len(stream.passed) : len(text) - hold]
        passed = text[: len(text) - hold]
        if masked:
            ready.append(messages.Output(output.stream, stream.offset, masked))
        stream.offset += len(masked)
        stream.held = data[len(data) - hold :]
        stream.passed = passed[max(0, len(passed) - self._longest + 1) :]
        return ready

    def flush(self, *streams: messages.Stream) -> list[messages.Output]:
        """Return what was held back: no more comes, or it must go on. Of these streams, else of all."""
        ready = []
        for name in streams or tuple(self._streams):
            stream = self._streams.get(name)
            if stream is None or not stream.held:
                continue
            held, whole = stream.held, stream.passed + stream.held
            # So much of a value is as good as the value.
            data = _MASK * len(held) if len(held) >= MIN_BYTES else _masked(whole, self._values)[len(stream.passed) :]
            ready.append(messages.Output(name, stream.offset, data))
            stream.passed = whole[max(0, len(whole) - self._longest + 1) :]
            stream.offset, stream.held = stream.offset + len(held), b""
        return ready


def _masked(text: bytes, values: Collection[bytes]) -> bytes:
    """The text with each occurrence of a value masked, those that overlap too."""
    masked = bytearray(text)
    for value in values:
        at = text.find(value)
        while at >= 0:
            masked[at : at + len(value)] = _MASK * len(value)
            at = text.find(value, at + 1)
    return bytes(masked)


def _begun(text: bytes, values: Collection[bytes]) -> int:
    """How many bytes at the end of the text may be the beginning of a value."""
    longest = 0
    for value in values:
        start = max(0, len(text) - len(value) + 1)
        # A beginning of some length begins with the value's first bytes: few places do.
        lead = value[:MIN_BYTES]
        at = text.find(lead, start)
        while at >= 0 and len(text) - at > longest:
            if value.startswith(text[at:]):
                longest = max(longest, len(text) - at)
                break
            at = text.find(lead, at + 1)
        for size in range(min(MIN_BYTES - 1, len(text)), longest, -1):
            if text.endswith(value[:size]):
                longest = size
                break
    return longest
