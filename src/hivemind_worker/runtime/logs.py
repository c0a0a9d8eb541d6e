"""What is kept of a task's output: the head, a line that says what is missing, the tail; as it arrived."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import outcome, plan


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """What is kept so far, for another process to go on from."""

    head: bytes = b""
    ends: Mapping[messages.Stream, int] = dataclasses.field(default_factory=dict)
    dropped: Mapping[messages.Stream, int] = dataclasses.field(default_factory=dict)
    tails: Mapping[messages.Stream, bytes] = dataclasses.field(default_factory=dict)


class Kept:
    """Collects the output of one attempt; never holds more than the head and two tails.

    ``after``: what an earlier process had kept.
    """

    def __init__(self, caps: plan.Caps, after: Progress = Progress()) -> None:
        self._head_room = caps.output_head_bytes
        self._tail = caps.output_tail_bytes
        self._head = bytearray(after.head)
        self._ends = {stream: after.ends.get(stream, 0) for stream in messages.Stream}
        self._dropped = {stream: after.dropped.get(stream, 0) for stream in messages.Stream}
        self._tails = {stream: bytearray(after.tails.get(stream, b"")) for stream in messages.Stream}

    def progress(self) -> Progress:
        """Tell what is kept so far."""
        tails = {stream: bytes(tail) for stream, tail in self._tails.items()}
        return Progress(bytes(self._head), dict(self._ends), dict(self._dropped), tails)

    @property
    def truncated(self) -> bool:
        """Whether anything is missing."""
        return any(self._dropped.values())

    def take(self, output: messages.Output) -> None:
        """Take a piece; a jump in its stream's offset is what the capsule has cut out."""
        stream = output.stream
        self._dropped[stream] += output.offset - self._ends[stream]
        self._ends[stream] = output.offset + len(output.data)
        fits = 0 if self.truncated or any(self._tails.values()) else self._head_room - len(self._head)
        self._head += output.data[:fits]
        tail = self._tails[stream]
        tail += output.data[max(0, fits) :]
        surplus = max(0, len(tail) - self._tail)
        self._dropped[stream] += surplus
        del tail[:surplus]

    def missed(self, stream: messages.Stream, total: int) -> None:
        """Be told how much a stream had in all: what was cut off at its end counts as missing."""
        self._dropped[stream] += max(0, total - self._ends[stream])
        self._ends[stream] = max(total, self._ends[stream])

    def logs(self) -> outcome.Logs:
        """What is kept. Half of the tail is for each stream; what one does not need is the other's."""
        text = bytes(self._head)
        for stream in messages.Stream:
            tail = self._tails[stream]
            others = sum(len(other) for name, other in self._tails.items() if name is not stream)
            room = max(self._tail // 2, self._tail - others)
            missing = self._dropped[stream] + max(0, len(tail) - room)
            if missing:
                begun = b"" if not text or text.endswith(b"\n") else b"\n"
                name = "stdout" if stream is messages.Stream.OUT else "stderr"
                text += begun + f"[hivemind: {missing} bytes of {name} are not kept]\n".encode()
            text += tail[max(0, len(tail) - room) :]
        return outcome.Logs(text, self._ends[messages.Stream.OUT], self._ends[messages.Stream.ERR])
