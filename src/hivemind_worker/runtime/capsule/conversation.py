"""What may be said when, no I/O: the worker's side of the conversation with one capsule."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Final

from hivemind_worker import errors
from hivemind_worker.runtime.capsule import frame_types, frames, messages, payloads, promises, table, tunnels
from hivemind_worker.runtime.capsule import tunnel_messages as t
from hivemind_worker.runtime.capsule.frame_types import FrameType
from hivemind_worker.runtime.capsule.frames import FrameError
from hivemind_worker.runtime.capsule.messages import FromCapsule, FromWorker, Message
from hivemind_worker.runtime.capsule.table import TABLE, Phase

ACK_BYTES: Final = 256 * 1024
"""Acknowledge after so many bytes: a sixteenth of the default window, so the capsule never waits for it."""

CROWDED_BYTES: Final = 2 * 1024 * 1024
"""Half of the default window."""

ACK_FRAMES: Final = 256
"""... or so many frames."""

_STORY_LENGTH: Final = 40


class ConversationError(errors.CapsuleFault):
    """Something was said that may not be said then; the text ends with the story so far. Bytes that are no frames
    raise FrameError.
    """


class Conversation:
    """One conversation with one capsule. Feed it bytes, it gives messages; give it messages, it gives bytes.

    After ConversationError or FrameError from `receive` the capsule cannot be trusted: end it from outside. Messages
    that came before the fault in the same chunk are in `salvaged`.
    """

    def __init__(self, *, spec: messages.Spec | None = None, after: int = 0, inside_file: bool = False) -> None:
        """Begin a conversation.

        For a capsule that another worker process had talked to: give what it was asked (`spec`), the last sequence
        number that is safe (`after`), whether that was inside a result file, and begin with `resume`.
        """
        self._phase = Phase.WAITING
        self._reader = frames.FrameReader()
        self._said = 0
        self._heard = self._acknowledged = after
        self._inside_file = inside_file
        self._nonce = b""
        self._unacknowledged_bytes = 0
        self._end_heard = False
        self._sent_input = self._taken_input = 0
        self._input_known = spec is None and after == 0
        self._story: collections.deque[tuple[str, int, int]] = collections.deque(maxlen=_STORY_LENGTH)
        self._promises = promises.Promises(spec, fresh=after == 0)
        self._has_tunnels = spec is not None and bool(spec.proxy_port)
        self.tunnels = tunnels.Tunnels()
        """What is open of the task's connections to its proxy."""
        self.salvaged: list[FromCapsule] = []
        self.ready: messages.Ready | None = None
        """The last READY heard."""
        self.lost = 0
        """Frames that were acknowledged by someone else and cannot be repeated; 0 in an honest life."""

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return self._phase

    @property
    def heard(self) -> int:
        """The sequence number heard last; what `after` has to be to go on from here."""
        return self._heard

    @property
    def input_room(self) -> int:
        """How many bytes of stdin may be sent now; grows with each Taken."""
        return messages.INPUT_WINDOW - (self._sent_input - self._taken_input)

    def story(self) -> str:
        """The last forty things said, oldest first, repetitions folded into one, for a person."""
        return " · ".join(_told(*entry) for entry in self._story) or "nothing was said yet"

    def send(self, message: FromWorker) -> bytes:
        """Return the bytes that say `message`.

        Raises:
            ConversationError: it may not be said now, or is more stdin than `input_room`.
            ValueError: a field is out of its range; nothing is said then.
        """
        if isinstance(message, messages.Resume):
            return self.resume(message.nonce, message.key)
        kind, payload = payloads.encode(message)
        following = self._next(kind, "→")
        if isinstance(message, messages.Input):
            if len(message.data) > self.input_room:
                raise self._error(f"{len(message.data)} bytes of stdin, there is room for {self.input_room}")
            self._sent_input += len(message.data)
        if isinstance(message, messages.Ack):
            self._acknowledged = max(self._acknowledged, message.sequence)
        if isinstance(message, messages.Spec):
            self._promises = promises.Promises(message, fresh=True)
            self._has_tunnels = bool(message.proxy_port)
            self._input_known = True
        if isinstance(message, t.ToTunnel):
            self._check_tunnel(lambda: self.tunnels.send(message))
        return self._say(kind, payload, following)

    def resume(self, nonce: bytes, key: bytes = b"") -> bytes:
        """Return the first bytes for a new stream to the same capsule; what comes before the answer is thrown away.

        `nonce`: 16 random bytes, new for each call. `key`: the spec's `resume_key`. Files that were being sent are in
        doubt: in phase LOADING only CLOSE is of use.

        Raises:
            ValueError: the nonce or key has the wrong length.
            ConversationError: the conversation is closed.
        """
        kind, payload = payloads.encode(messages.Resume(self._heard, nonce, key))
        following = self._next(kind, "→")
        self._said = 0
        self.tunnels.cut()
        self._nonce = nonce
        self._inside_file = self._inside_file or self._phase is Phase.RECEIVING
        self._reader.expect_answer(nonce)
        return self._say(kind, payload, following)

    @property
    def crowded(self) -> bool:
        """Whether the capsule may soon have no room for more, should nothing be acknowledged: half a window is out.

        For a worker to whom an ACK costs a write to the disk; the others ask `acknowledgement` often.
        """
        return self._unacknowledged_bytes >= CROWDED_BYTES

    def acknowledgement(self, *, force: bool = False) -> bytes | None:
        """Return the bytes of an ACK of all that was heard, if it is time for one; call it when what was heard is safe.

        Time is after 256 KiB, 256 frames, EXITED or DONE; `force`: whenever there is something to acknowledge.
        """
        new = self._heard - self._acknowledged
        due = self._unacknowledged_bytes >= ACK_BYTES or new >= ACK_FRAMES or self._end_heard
        if new <= 0 or not (due or force) or (self._phase, FrameType.ACK) not in TABLE:
            return None
        self._unacknowledged_bytes = 0
        self._end_heard = False
        return self.send(messages.Ack(self._heard))

    def receive(self, data: bytes) -> list[FromCapsule]:
        """Take bytes from the capsule, return the messages they complete.

        Raises:
            FrameError: the bytes are no frames.
            ConversationError: a message that may not come now, out of sequence, or beyond what the spec allows.
        """
        self.salvaged = heard = []
        try:
            for frame in self._reader.feed(data):
                message = self._hear(frame)
                if message is not None:
                    heard.append(message)
        except FrameError as error:
            message_text = f"{error}. The story: {self.story()}"
            raise FrameError(message_text) from error
        return heard

    def _hear(self, frame: frames.Frame) -> FromCapsule | None:
        if not frame.kind & frame_types.FROM_CAPSULE:
            raise self._error(f"the capsule said {frame.kind.name}, which only a worker says")
        try:
            message = payloads.decode(frame.kind, frame.payload)
        except ValueError as error:
            raise self._error(str(error)) from error
        if isinstance(message, messages.Ready):
            return self._hear_ready(message, frame.sequence)
        if frame.kind in frames.NEVER_NUMBERED and frame.sequence:
            raise self._error(f"{frame.kind.name} has sequence number {frame.sequence}, and may have none")
        if not (frame.sequence == 0 and frame.kind in frames.UNNUMBERED):
            if 0 < frame.sequence <= self._heard:
                return None  # repeated
            if frame.sequence != self._heard + 1:
                raise self._error(f"{frame.kind.name} has sequence number {frame.sequence} after {self._heard}")
            self._heard = frame.sequence
        following = self._next(frame.kind, "←")
        self._remember(frame.kind, "←", len(frame.payload))
        self._keep_promise(message)
        self._phase = following
        if isinstance(message, t.FromTunnel):
            self._check_tunnel(lambda: self.tunnels.receive(message))
            return message
        self._unacknowledged_bytes += len(frame.payload) + frames.HEADER_BYTES
        self._end_heard = self._end_heard or frame.kind in {FrameType.EXITED, FrameType.DONE}
        return _from_capsule(message)

    def _hear_ready(self, ready: messages.Ready, sequence: int) -> messages.Ready:
        if sequence or ready.version != frames.VERSION or ready.nonce != self._nonce:
            raise self._error(f"READY of version {ready.version} is numbered {sequence} or answers someone else")
        if not (1 <= ready.kept_from <= ready.last + 1 and self._heard <= ready.last):
            raise self._error(f"READY keeps {ready.kept_from}..{ready.last}, {self._heard} was heard before")
        here = table.heard_in(ready, self._heard, inside_file=self._inside_file)
        following = TABLE.get((self._phase, (FrameType.READY, here)))
        if following is None:
            raise self._error(f"READY {ready.state.name} ← is impossible in phase {self._phase.value}")
        self.lost = max(0, ready.kept_from - 1 - self._heard)
        if self.lost:
            self._promises.loosen()
            self._heard = ready.kept_from - 1
        self._inside_file = False
        self._remember(FrameType.READY, f"{ready.state.name} ←", 0)
        self._phase = following
        self.ready = ready
        return ready

    def _check_tunnel(self, count: Callable[[], None]) -> None:
        if not self._has_tunnels:
            raise self._error("a tunnel, of a task that has none")
        try:
            count()
        except ValueError as error:
            raise self._error(str(error)) from error

    def _keep_promise(self, message: Message) -> None:
        if isinstance(message, messages.Taken):
            if not self._input_known:  # another process sent it
                self._sent_input = max(self._sent_input, message.total)
            if not self._taken_input <= message.total <= self._sent_input:
                raise self._error(f"{message.total} bytes of stdin taken of {self._sent_input} sent")
            self._taken_input = message.total
        try:
            self._promises.check(message)
        except ValueError as error:
            raise self._error(str(error)) from error

    def _next(self, kind: FrameType, arrow: str) -> Phase:
        following = TABLE.get((self._phase, kind))
        if following is None:
            raise self._error(f"{kind.name} {arrow} is impossible in phase {self._phase.value}")
        return following

    def _say(self, kind: FrameType, payload: bytes, following: Phase) -> bytes:
        self._said += 1
        self._remember(kind, "→", len(payload))
        self._phase = following
        return frames.encode(kind, self._said, payload)

    def _remember(self, kind: FrameType, arrow: str, size: int) -> None:
        word, times, total = f"{kind.name} {arrow}", 0, 0
        if self._story and self._story[-1][0] == word:
            _, times, total = self._story.pop()
        self._story.append((word, times + 1, total + size))

    def _error(self, what: str) -> ConversationError:
        return ConversationError(f"{what}. The story: {self.story()}")


def _told(word: str, times: int, size: int) -> str:
    return " ".join([word, *([f"{times} times"] if times > 1 else []), *([f"({size} bytes)"] if size else [])])


def _from_capsule(message: Message) -> FromCapsule:
    if isinstance(message, FromWorker):  # the direction bit of the type was checked: unreachable
        error = f"{type(message).__name__} is not said by a capsule"
        raise ConversationError(error)
    return message
