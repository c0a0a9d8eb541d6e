from __future__ import annotations

import itertools

import pytest

from hivemind_worker.runtime.capsule import conversation, frames, payloads, table
from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule.frame_types import FrameType
from hivemind_worker.runtime.capsule.table import TABLE, Phase

NONCE = bytes(range(16))
SPEC = m.Spec(
    argv=(b"true",),
    limits=m.Limits(
        output_head=100, output_tail=10, results_bytes=100, results_apparent=200, results_count=3, results_depth=2
    ),
)
EXITED = m.Exited(0, None, m.Why.OWN)
DONE = m.Done(0, 0)


class Capsule:
    """The other side, saying whatever a test wants, numbered as it should be."""

    def __init__(self) -> None:
        self.said = 0

    def say(self, *said: m.FromCapsule, skip: int = 0) -> bytes:
        return b"".join(self._one(message, skip) for message in said)

    def _one(self, message: m.FromCapsule, skip: int) -> bytes:
        kind, payload = payloads.encode(message)
        self.said += 0 if kind in frames.UNNUMBERED else 1 + skip
        return frames.encode(kind, 0 if kind in frames.UNNUMBERED else self.said, payload)


def running(spec: m.Spec = SPEC) -> tuple[conversation.Conversation, Capsule]:
    talk, capsule = conversation.Conversation(), Capsule()
    talk.receive(capsule.say(m.Ready(m.State.IDLE)))
    talk.send(spec)
    talk.send(m.Start())
    return talk, capsule


EXAMPLES: dict[FrameType, m.FromWorker] = {
    FrameType.SPEC: SPEC,
    FrameType.FILE: m.File(b"a", b""),
    FrameType.START: m.Start(),
    FrameType.INPUT: m.Input(b"x"),
    FrameType.SIGNAL: m.Signal(2),
    FrameType.STOP: m.Stop(),
    FrameType.ACK: m.Ack(0),
    FrameType.RESUME: m.Resume(0, NONCE),
    FrameType.CLOSE: m.Close(),
}
HEARD: dict[FrameType, m.FromCapsule] = {
    FrameType.OUT: m.Output(m.Stream.OUT, 0, b"x"),
    FrameType.ERR: m.Output(m.Stream.ERR, 0, b"x"),
    FrameType.TAKEN: m.Taken(0),
    FrameType.EXITED: EXITED,
    FrameType.DONE: DONE,
    FrameType.ERROR: m.Error(m.ErrorCode.FILE, "no space"),
    FrameType.RESULT_BEGIN: m.ResultBegin(b"a", 0o644, 1),
    FrameType.RESULT_DATA: m.ResultData(0, b"x"),
    FrameType.RESULT_END: m.ResultEnd(),
    FrameType.RESULT_DROPPED: m.ResultDropped(m.Skipped.TIME),
    FrameType.RESULT_SKIPPED: m.ResultSkipped(b"a", m.Skipped.FIFO),
}


@pytest.mark.parametrize(("phase", "kind"), list(itertools.product(Phase, EXAMPLES)))
def test_the_worker_says_in_each_phase_what_the_table_allows_and_nothing_else(phase: Phase, kind: FrameType) -> None:
    talk = conversation.Conversation()
    talk._phase = phase
    if (phase, kind) in TABLE:
        assert talk.send(EXAMPLES[kind])
        assert talk.phase is TABLE[phase, kind]
    else:
        with pytest.raises(conversation.ConversationError, match="impossible in phase"):
            talk.send(EXAMPLES[kind])
        assert talk.phase is phase


@pytest.mark.parametrize(("phase", "kind"), list(itertools.product(Phase, HEARD)))
def test_the_capsule_is_heard_in_each_phase_as_the_table_allows_and_not_else(phase: Phase, kind: FrameType) -> None:
    talk = conversation.Conversation(spec=SPEC)
    talk._promises.loosen()
    talk._phase = phase
    if (phase, kind) in TABLE:
        assert talk.receive(Capsule().say(HEARD[kind])) == [HEARD[kind]]
        assert talk.phase is TABLE[phase, kind]
    else:
        with pytest.raises(conversation.ConversationError, match="impossible in phase"):
            talk.receive(Capsule().say(HEARD[kind]))


def test_every_phase_can_be_reached_and_left() -> None:
    reached = set(TABLE.values()) | {Phase.WAITING}
    left = {phase for phase, _ in TABLE}
    assert reached == set(Phase)
    assert left == set(Phase) - {Phase.CLOSED}


def test_the_picture_shows_every_move() -> None:
    picture = table.mermaid()
    assert picture.startswith("stateDiagram-v2")
    assert "running --> collecting: EXITED ←" in picture
    assert "loading --> running: START →" in picture


def test_a_whole_life() -> None:
    talk, capsule = running()
    said: list[m.FromCapsule] = [
        m.Output(m.Stream.OUT, 0, b"hello"),
        m.Exited(3, None, m.Why.OWN, out_total=5),
        m.ResultBegin(b"a", 0o644, 10),
        m.ResultData(2, b"xyz"),
        m.ResultEnd(),
        m.ResultSkipped(b"b", m.Skipped.SYMLINK),
        m.Done(1, 3, 1),
    ]
    assert talk.receive(capsule.say(*said)) == said
    assert talk.phase is Phase.DONE
    assert talk.acknowledgement() is not None
    assert talk.acknowledgement() is None
    assert talk.send(m.Close())
    assert talk.phase.value == "closed"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([m.Output(m.Stream.OUT, 0, b"x" * 121)], "more than 120 bytes of output"),
        ([m.Output(m.Stream.OUT, 5, b"x"), m.Output(m.Stream.OUT, 5, b"x")], "goes back"),
        ([m.Output(m.Stream.OUT, 0, b"")], "empty"),
        ([m.Output(m.Stream.OUT, 0, b"x"), EXITED], "other output"),
        ([m.Exited(0, None, m.Why.OWN, out_total=5)], "other output"),
        ([EXITED, m.ResultBegin(b"b", 0, 1), m.ResultEnd(), m.ResultBegin(b"a", 0, 1)], "out of order"),
        ([EXITED, m.ResultBegin(b"a", 0, 1), m.ResultEnd(), m.ResultBegin(b"a", 0, 1)], "out of order"),
        ([EXITED, m.ResultBegin(b"a", 0, 1), m.ResultEnd(), m.ResultBegin(b"a/b", 0, 1)], "inside another"),
        ([EXITED, m.ResultBegin(b"a/b/c", 0, 1)], "deeper"),
        ([EXITED, m.ResultBegin(b"a", 0, 201)], "more than 200"),
        ([EXITED, m.ResultBegin(b"a", 0, 150), m.ResultData(0, b"x" * 101)], "more than 100"),
        ([EXITED, m.ResultBegin(b"a", 0, 5), m.ResultData(0, b"x" * 6)], "shorter"),
        ([EXITED, m.ResultBegin(b"a", 0, 5), m.ResultData(2, b"x"), m.ResultData(2, b"x")], "goes back"),
        ([EXITED, *[m.ResultSkipped(b"a", m.Skipped.FIFO)] * 1001], "skipped"),
        ([EXITED, m.Done(1, 0)], "DONE counts"),
        ([EXITED, *(x for n in b"abcd" for x in (m.ResultBegin(bytes([n]), 0, 1), m.ResultEnd()))], "more than 3"),
        ([m.Taken(5)], "stdin"),
    ],
)
def test_a_capsule_that_breaks_a_promise_is_found_out(said: list[m.FromCapsule], why: str) -> None:
    talk, capsule = running()
    with pytest.raises(conversation.ConversationError, match=why) as found:
        talk.receive(capsule.say(*said))
    assert "SPEC →" in str(found.value)


def test_a_missing_frame_is_found_and_a_repeated_one_dropped() -> None:
    talk, capsule = running()
    first = capsule.say(m.Output(m.Stream.OUT, 0, b"a"))
    assert len(talk.receive(first)) == 1
    assert talk.receive(first) == []
    with pytest.raises(conversation.ConversationError, match="sequence"):
        talk.receive(capsule.say(m.Output(m.Stream.OUT, 1, b"b"), skip=1))


def test_what_came_before_a_fault_is_salvaged() -> None:
    talk, capsule = running()
    with pytest.raises(conversation.ConversationError):
        talk.receive(capsule.say(m.Output(m.Stream.OUT, 0, b"a"), DONE))
    assert talk.salvaged == [m.Output(m.Stream.OUT, 0, b"a")]


def test_a_capsule_may_not_speak_as_a_worker() -> None:
    talk, _ = running()
    kind, payload = payloads.encode(m.Stop())
    with pytest.raises(conversation.ConversationError, match="only a worker"):
        talk.receive(frames.encode(kind, 1, payload))


def test_acknowledgements_come_by_bytes_by_frames_and_at_the_end() -> None:
    talk, capsule = running(m.Spec(argv=(b"x",)))
    talk.receive(capsule.say(m.Output(m.Stream.OUT, 0, b"x")))
    assert talk.acknowledgement() is None
    assert talk.acknowledgement(force=True)
    talk.receive(capsule.say(m.Output(m.Stream.OUT, 1, bytes(conversation.ACK_BYTES))))
    assert talk.acknowledgement()
    start = 1 + conversation.ACK_BYTES
    talk.receive(capsule.say(*(m.Output(m.Stream.OUT, start + n, b"x") for n in range(conversation.ACK_FRAMES))))
    assert talk.acknowledgement()
    talk.receive(capsule.say(m.Exited(0, None, m.Why.OWN, out_total=start + conversation.ACK_FRAMES)))
    assert talk.acknowledgement()


def test_stdin_is_sent_only_as_far_as_there_is_room() -> None:
    talk, capsule = running()
    talk.send(m.Input(bytes(m.INPUT_WINDOW)))
    with pytest.raises(conversation.ConversationError, match="room"):
        talk.send(m.Input(b"x"))
    talk.receive(capsule.say(m.Taken(10)))
    assert talk.input_room == 10
    assert talk.send(m.Input(bytes(10)))


def test_resuming_drops_garbage_and_what_was_heard() -> None:
    talk, capsule = running()
    one, two = capsule.say(m.Output(m.Stream.OUT, 0, b"a")), capsule.say(m.Output(m.Stream.OUT, 1, b"b"))
    talk.receive(one + two[:7])
    said = frames.FrameReader().feed(talk.resume(NONCE))
    assert payloads.decode(said[0].kind, said[0].payload) == m.Resume(1, NONCE)
    assert said[0].sequence == 1
    answer = capsule.say(m.Ready(m.State.RUNNING, NONCE, last=2))
    heard = talk.receive(two[7:] + answer + one + two)
    assert heard[1:] == [m.Output(m.Stream.OUT, 1, b"b")]
    assert talk.phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("after", "inside", "phase"),
    [
        (0, False, Phase.RUNNING),
        (4, False, Phase.RUNNING),
        (5, False, Phase.COLLECTING),
        (7, True, Phase.RECEIVING),
        (9, False, Phase.DONE),
    ],
)
def test_another_worker_takes_up_where_the_first_was(after: int, inside: bool, phase: Phase) -> None:
    talk = conversation.Conversation(spec=SPEC, after=after, inside_file=inside)
    talk.resume(NONCE)
    ready = m.Ready(m.State.DONE, NONCE, last=9, kept_from=1, exited_at=5, done_at=9)
    assert talk.receive(Capsule().say(ready)) == [ready]
    assert talk.phase is phase
    assert talk.lost == 0


def test_frames_that_nobody_has_any_more_are_counted() -> None:
    talk = conversation.Conversation(spec=SPEC, after=1)
    talk.resume(NONCE)
    talk.receive(Capsule().say(m.Ready(m.State.RUNNING, NONCE, last=9, kept_from=4)))
    assert talk.lost == 2
    assert talk.heard == 3


@pytest.mark.parametrize(
    "ready",
    [
        m.Ready(m.State.RUNNING, NONCE, last=2, kept_from=9),
        m.Ready(m.State.RUNNING, NONCE, last=2, kept_from=0),
        m.Ready(m.State.RUNNING, NONCE, last=0),
        m.Ready(m.State.RUNNING, NONCE, version=2, last=9),
    ],
)
def test_an_impossible_ready_is_refused(ready: m.Ready) -> None:
    talk = conversation.Conversation(spec=SPEC, after=1)
    talk.resume(NONCE)
    with pytest.raises(conversation.ConversationError):
        talk.receive(Capsule().say(ready))
