from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.runtime.capsule import frames, messages, payloads
from hivemind_worker.runtime.capsule.frame_types import FrameType
from hivemind_worker.runtime.capsule.payloads import MAX_PAYLOAD

FRAMES = st.tuples(st.sampled_from(list(FrameType)), st.integers(0, 2**64 - 1), st.binary(max_size=300))
NONCE = bytes(range(16))


def answer(nonce: bytes = NONCE) -> bytes:
    kind, payload = payloads.encode(messages.Ready(messages.State.RUNNING, nonce=nonce))
    return frames.encode(kind, 0, payload)


def in_chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(borders)]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 5000)))
def test_any_frames_in_any_chunks_come_out_as_they_went_in(
    said: list[tuple[FrameType, int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(frames.encode(*frame) for frame in said)
    reader = frames.FrameReader()
    heard = [frame for chunk in in_chunks(data, cuts) for frame in reader.feed(chunk)]
    assert [(frame.kind, frame.sequence, frame.payload) for frame in heard] == said


@given(FRAMES, st.data())
def test_one_changed_bit_is_never_accepted(frame: tuple[FrameType, int, bytes], data: st.DataObject) -> None:
    whole = bytearray(frames.encode(*frame))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    reader = frames.FrameReader()
    try:
        assert reader.feed(bytes(whole)) == []
    except frames.FrameError:
        with pytest.raises(frames.FrameError):
            reader.feed(b"")


@given(FRAMES, st.data())
def test_a_cut_frame_is_waited_for(frame: tuple[FrameType, int, bytes], data: st.DataObject) -> None:
    whole = frames.encode(*frame)
    assert frames.FrameReader().feed(whole[: data.draw(st.integers(0, len(whole) - 1))]) == []


@given(st.lists(st.binary(max_size=100)))
def test_any_bytes_give_frames_or_a_frame_error(chunks: list[bytes]) -> None:
    reader = frames.FrameReader()
    try:
        for chunk in chunks:
            reader.feed(chunk)
    except frames.FrameError:
        assert reader._broken


def test_a_length_that_is_too_large_is_refused_before_anything_is_kept() -> None:
    head = b"HM\x01\x82" + (MAX_PAYLOAD + 1).to_bytes(4, "little") + bytes(12)
    with pytest.raises(frames.FrameError, match="at most"):
        frames.FrameReader().feed(head)


def test_the_largest_frame_passes() -> None:
    whole = frames.encode(FrameType.OUT, 1, bytes(MAX_PAYLOAD))
    assert len(frames.FrameReader().feed(whole)[0].payload) == MAX_PAYLOAD
    with pytest.raises(ValueError, match="at most"):
        frames.encode(FrameType.OUT, 1, bytes(MAX_PAYLOAD + 1))


@given(st.binary(max_size=2000), st.lists(st.integers(0, 5000), max_size=6), st.integers(0, 40))
def test_the_answer_to_resume_is_found_behind_any_garbage(garbage: bytes, cuts: list[int], torn: int) -> None:
    # Behind the garbage: answers to others, a READY that is cut off, then ours.
    stale = answer(b"someone else's!!") + answer()[:torn]
    after = frames.encode(FrameType.OUT, 7, b"x" * 8)
    reader = frames.FrameReader()
    reader.expect_answer(NONCE)
    heard = [f for chunk in in_chunks(garbage + stale + answer() + after, cuts) for f in reader.feed(chunk)]
    assert [frame.kind for frame in heard] == [FrameType.READY, FrameType.OUT]


def test_garbage_without_end_is_an_error() -> None:
    reader = frames.FrameReader()
    reader.expect_answer(NONCE)
    for _ in range(frames.MAX_GARBAGE // MAX_PAYLOAD):
        assert reader.feed(bytes(MAX_PAYLOAD)) == []
    with pytest.raises(frames.FrameError, match="no answer"):
        reader.feed(bytes(MAX_PAYLOAD))
