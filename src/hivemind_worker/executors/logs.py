"""What is kept of a task's output: the head, a line that says what is missing, the tail; as it arrived."""

from __future__ import annotations

from hivemind_worker.capsule import messages
from hivemind_worker.task import outcome, plan


class Kept:
    """Collects the output of one attempt; never holds more than the head and two tails."""

    def __init__(self, caps: plan.Caps) -> None:
        self._head_room = caps.output_head_bytes
        self._tail = caps.output_tail_bytes
        self._head = bytearray()
        self._ends = dict.fromkeys(messages.Stream, 0)
        self._dropped = dict.fromkeys(messages.Stream, 0)
        self._tails = {stream: bytearray() for stream in messages.Stream}

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
