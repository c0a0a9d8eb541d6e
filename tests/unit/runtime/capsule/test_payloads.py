from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule import paths, payloads
from hivemind_worker.runtime.capsule import tunnel_messages as t
from hivemind_worker.runtime.capsule.frame_types import FrameType

U64 = st.integers(0, 2**64 - 1)
TUNNEL = st.integers(0, t.MAX_NUMBER)
PATH = st.binary(min_size=1, max_size=60).filter(lambda path: not paths.problem(path))
WORD = st.binary(max_size=40).filter(lambda word: b"\0" not in word)
NAME = WORD.filter(lambda word: bool(word) and b"=" not in word)
LINE = st.text(st.characters(categories=["L", "N", "P"]), max_size=50)
SKIPPED = st.sampled_from(m.Skipped)

SPEC = st.builds(
    m.Spec,
    argv=st.lists(WORD, min_size=1, max_size=5).map(tuple),
    env=st.lists(st.tuples(NAME, WORD), max_size=5).map(tuple),
    cwd=WORD,
    workspace=WORD,
    stdin=st.sampled_from(m.Stdin),
    limits=st.builds(m.Limits, **{field.name: U64 for field in dataclasses.fields(m.Limits)}),
    on_disconnect=st.sampled_from(m.OnDisconnect),
    resume_key=st.binary(max_size=64),
    expect_uid=st.none() | U64,
    rlimits=st.lists(st.builds(m.ResourceLimit, U64, U64, U64), max_size=3).map(tuple),
    proxy_port=st.integers(0, 65535),
)
ENDED = st.tuples(st.integers(0, 255), st.none()) | st.tuples(st.none(), st.integers(1, 64))
EXITED = st.builds(
    lambda ended, why, error, numbers: m.Exited(ended[0], ended[1], why, error, *numbers),
    ENDED,
    st.sampled_from(m.Why),
    LINE,
    st.tuples(*[U64] * 11),
)
MESSAGES = st.one_of(
    SPEC,
    st.builds(
        m.File, PATH, st.binary(max_size=50), st.integers(0, 0o7777), U64, begin=st.booleans(), end=st.booleans()
    ),
    st.builds(m.Start),
    st.builds(m.Input, st.binary(max_size=50)),
    st.builds(m.Signal, st.integers(0, 255)),
    st.builds(m.Stop, st.none() | st.integers(0, 2**64 - 2)),
    st.builds(m.Ack, U64),
    st.builds(m.Resume, U64, st.binary(min_size=16, max_size=16), st.binary(max_size=64)),
    st.builds(m.Close),
    st.builds(m.Ready, st.sampled_from(m.State), st.binary(max_size=16), U64, st.booleans(), *[U64] * 5),
    st.builds(m.Output, st.sampled_from(m.Stream), U64, st.binary(max_size=50)),
    st.builds(m.Taken, U64),
    EXITED,
    st.builds(m.ResultBegin, PATH, st.integers(0, 0o7777), U64),
    st.builds(m.ResultData, U64, st.binary(max_size=50)),
    st.builds(m.ResultEnd),
    st.builds(m.ResultDropped, SKIPPED),
    st.builds(m.ResultSkipped, PATH, SKIPPED),
    st.builds(m.Done, U64, U64, U64, st.integers(0, 15).map(m.Capped), LINE),
    st.builds(m.Error, st.sampled_from(m.ErrorCode), LINE),
    *(st.builds(form, TUNNEL, st.binary(max_size=50)) for form in (t.TunnelDownload, t.TunnelUpload)),
    *(st.builds(form, TUNNEL, U64) for form in (t.TunnelUploadCredit, t.TunnelDownloadCredit)),
    *(st.builds(form, TUNNEL) for form in (t.TunnelClose, t.TunnelOpened, t.TunnelClosed)),
)


@given(MESSAGES)
def test_every_message_survives_the_way_there_and_back(message: m.Message) -> None:
    kind, payload = payloads.encode(message)
    assert payloads.decode(kind, payload) == message


def _is_a_message_or_an_error(kind: FrameType, payload: bytes) -> None:
    complaint = ""
    try:
        said = payloads.frame_type(payloads.decode(kind, payload)).name
    except ValueError as error:
        complaint = said = str(error)
    assert kind.name in said, complaint


@given(st.sampled_from(FrameType), st.binary(max_size=200))
def test_any_payload_is_a_message_or_a_value_error(kind: FrameType, payload: bytes) -> None:
    _is_a_message_or_an_error(kind, payload)


@given(MESSAGES, st.data())
def test_a_mutated_payload_is_a_message_or_a_value_error(message: m.Message, data: st.DataObject) -> None:
    kind, payload = payloads.encode(message)
    at = data.draw(st.integers(0, len(payload)))
    changed = payload[:at] + data.draw(st.binary(max_size=3)) + payload[at + data.draw(st.integers(0, 3)) :]
    _is_a_message_or_an_error(kind, changed)


@pytest.mark.parametrize(
    "message",
    [
        m.Spec(argv=()),
        m.Spec(argv=(b"a\0b",)),
        m.Spec(argv=(b"a",), env=((b"", b"x"),)),
        m.Spec(argv=(b"a",), env=((b"A=B", b"x"),)),
        m.Spec(argv=(b"a",), resume_key=bytes(65)),
        m.Spec(argv=(b"x" * (1 << 20),)),
        m.Spec(argv=(b"a",), limits=m.Limits(timeout_ms=-1)),
        m.File(b"../x", b""),
        m.File(b"x", bytes(payloads.MAX_PAYLOAD)),
        m.Signal(256),
        m.Resume(0, b"short"),
    ],
)
def test_what_cannot_be_said_is_refused(message: m.Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        payloads.encode(message)


def test_text_from_a_capsule_cannot_steer_a_terminal() -> None:
    kind, payload = payloads.encode(m.Error(m.ErrorCode.FILE, "a\x1b[2Jb\nc" + "x" * 5000))
    heard = payloads.decode(kind, payload)
    assert isinstance(heard, m.Error)
    assert heard.text.isprintable()
    assert len(heard.text) == 1000
