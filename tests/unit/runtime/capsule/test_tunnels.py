from __future__ import annotations

import dataclasses

import pytest

from hivemind_worker.runtime.capsule import conversation, frames, payloads
from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule import tunnel_messages as t
from hivemind_worker.runtime.capsule.frame_types import FROM_CAPSULE, FrameType
from hivemind_worker.runtime.capsule.table import TABLE, Phase

SPEC = m.Spec(argv=(b"true",), proxy_port=3128)
FULL = bytes(t.WINDOW)


def spoken(*messages: m.FromCapsule, sequence: int = 0) -> bytes:
    return b"".join(frames.encode(kind, sequence, load) for kind, load in map(payloads.encode, messages))


def running(spec: m.Spec = SPEC) -> conversation.Conversation:
    talk = conversation.Conversation()
    talk.receive(spoken(m.Ready(m.State.IDLE)))
    talk.send(spec)
    talk.send(m.Start())
    return talk


def test_a_tunnel_from_its_opening_to_its_end() -> None:
    talk = running()
    talk.receive(spoken(t.TunnelOpened(1), t.TunnelUpload(1, b"ask"), t.TunnelUpload(1, b"")))
    talk.send(t.TunnelUploadCredit(1, 3))
    talk.send(t.TunnelDownload(1, b"answer"))
    assert talk.tunnels.room(1) == t.WINDOW - 6
    talk.receive(spoken(t.TunnelDownloadCredit(1, 6)))
    assert talk.tunnels.room(1) == t.WINDOW
    talk.send(t.TunnelDownload(1, b""))
    talk.send(t.TunnelClose(1))
    assert talk.tunnels.room(1) == 0
    talk.receive(spoken(t.TunnelClosed(1)))
    assert not talk.tunnels.is_open(1)
    assert talk.acknowledgement(force=True) is None, "nothing of a tunnel is kept inside to be acknowledged"


OPEN = (t.TunnelOpened(1),)


@pytest.mark.parametrize(
    "messages",
    [
        (t.TunnelUpload(1, b"x"),),
        (t.TunnelOpened(0),),
        (*OPEN, t.TunnelOpened(1)),
        (t.TunnelOpened(5), t.TunnelOpened(4)),
        (*OPEN, t.TunnelUpload(1, FULL), t.TunnelUpload(1, b"x")),
        (*OPEN, t.TunnelUpload(1, b""), t.TunnelUpload(1, b"x")),
        (*OPEN, t.TunnelUpload(1, b""), t.TunnelUpload(1, b"")),
        (*OPEN, t.TunnelDownloadCredit(1, 1)),
        (*OPEN, t.TunnelClosed(1), t.TunnelUpload(1, b"x")),
        (*OPEN, t.TunnelClosed(1), t.TunnelClosed(1)),
        tuple(t.TunnelOpened(number) for number in range(1, t.MAX_OPEN + 2)),
    ],
)
def test_a_capsule_that_goes_beyond_what_tunnels_allow_is_not_believed(messages: tuple[m.FromCapsule, ...]) -> None:
    with pytest.raises(conversation.ConversationError, match="tunnel"):
        running().receive(spoken(*messages))


def test_a_task_without_a_way_out_has_no_tunnels() -> None:
    with pytest.raises(conversation.ConversationError, match="has none"):
        running(dataclasses.replace(SPEC, proxy_port=0)).receive(spoken(t.TunnelOpened(1)))


def test_what_concerns_tunnels_bears_no_number() -> None:
    with pytest.raises(conversation.ConversationError, match="may have none"):
        running().receive(spoken(t.TunnelOpened(1), sequence=1))


def test_the_worker_sends_no_more_than_there_is_room_for() -> None:
    talk = running()
    talk.receive(spoken(t.TunnelOpened(1)))
    talk.send(t.TunnelDownload(1, FULL))
    for message in (t.TunnelDownload(1, b"x"), t.TunnelUploadCredit(1, 1), t.TunnelDownload(2, b"x")):
        with pytest.raises(conversation.ConversationError):
            talk.send(message)


def test_a_new_stream_ends_all_tunnels_and_their_numbers_go_on() -> None:
    talk = running()
    talk.receive(spoken(t.TunnelOpened(7)))
    talk.resume(bytes(16))
    talk.receive(spoken(m.Ready(m.State.RUNNING, bytes(16))))
    assert not talk.tunnels.is_open(7)
    with pytest.raises(conversation.ConversationError):
        talk.receive(spoken(t.TunnelOpened(7)))


def test_tunnels_are_spoken_of_while_the_task_runs_and_what_crosses_its_end_is_harmless() -> None:
    kinds = {kind for kind in FrameType if kind.name.startswith("TUNNEL")}
    assert len(kinds) == 7
    for phase in Phase:
        crossing = phase in {Phase.COLLECTING, Phase.RECEIVING, Phase.DONE, Phase.FAILED}
        for kind in kinds:
            possible = phase is Phase.RUNNING or (crossing and not kind & FROM_CAPSULE)
            assert ((phase, kind) in TABLE) is possible, (phase, kind)
