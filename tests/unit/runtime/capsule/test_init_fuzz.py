"""The program under AddressSanitizer, fed with what a broken or hostile worker could say."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hivemind_worker.runtime.capsule import conversation, frame_types, frames, payloads
from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule.frame_types import FrameType

REPORT = (b"AddressSanitizer", b"runtime error", b"hivemind-init:")
FUZZ = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(FUZZ, max_examples=3000)
KINDS = st.sampled_from([kind for kind in FrameType if kind < frame_types.FROM_CAPSULE])


def survives(program: Path, said: bytes, chunks: list[int]) -> bytes:
    """Feed the program, end its input, see that it ends by itself with 0; return what it said."""
    process = subprocess.Popen(
        [program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert process.stdin
    at = 0
    try:
        for size in [*chunks, len(said)]:
            at += process.stdin.write(said[at : at + size]) or 0
    except BrokenPipeError:
        at = len(said)  # a CLOSE among the bytes
    out, err = process.communicate(timeout=30)
    assert not any(mark in err for mark in REPORT), err.decode()
    assert process.returncode == 0, err.decode()
    return out


def a_life(workspace: str) -> list[tuple[FrameType, bytes]]:
    spec = m.Spec(
        argv=(b"/bin/sh", b"-c", b"cat; echo x > results/x; ln -s x results/y"),
        env=((b"PATH", b"/usr/bin:/bin"),),
        workspace=os.fsencode(workspace),
        stdin=m.Stdin.STREAM,
        limits=m.Limits(timeout_ms=3000, grace_ms=10),
        on_disconnect=m.OnDisconnect.STOP,
    )
    said: list[m.FromWorker] = [spec, m.File(b"a/b", b"in"), m.Start(), m.Input(b"text"), m.Input(b""), m.Signal(10)]
    said += [m.Ack(0), m.Stop(5), m.Resume(0, b"n" * 16), m.Ack(1)]
    return [payloads.encode(message) for message in said]


def numbered(said: list[tuple[FrameType, bytes]]) -> bytes:
    numbers, number = [], 0
    for kind, _ in said:
        number = 1 if kind is FrameType.RESUME else number + 1
        numbers.append(number)
    return b"".join(frames.encode(kind, number, load) for number, (kind, load) in zip(numbers, said, strict=True))


def _any_bytes(sanitized: Path, said: bytes, chunks: list[int]) -> None:
    survives(sanitized, said, chunks)


def _any_frames(sanitized: Path, said: list[tuple[FrameType, bytes]], chunks: list[int]) -> None:
    out = survives(sanitized, numbered(said), chunks)
    conversation.Conversation().receive(out)


def _mutated(sanitized: Path, data: st.DataObject, chunks: list[int]) -> None:
    with tempfile.TemporaryDirectory() as workspace:
        said = a_life(workspace)
        for _ in range(data.draw(st.integers(0, 3))):
            which = data.draw(st.integers(0, len(said) - 1))
            kind, payload = said[which]
            change = data.draw(st.sampled_from(["payload", "drop", "twice", "swap", "kind"]))
            if change == "payload":
                at = data.draw(st.integers(0, len(payload)))
                cut = data.draw(st.integers(0, 9))
                said[which] = kind, payload[:at] + data.draw(st.binary(max_size=9)) + payload[at + cut :]
            elif change == "drop" and len(said) > 1:
                del said[which]
            elif change == "twice":
                said.insert(which, said[which])
            elif change == "swap":
                said[which], said[0] = said[0], said[which]
            else:
                said[which] = data.draw(KINDS), payload
        whole = numbered(said)
        if data.draw(st.booleans()):
            bit = data.draw(st.integers(0, 8 * len(whole) - 1))
            whole = whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :]
        survives(sanitized, whole, chunks)


CHUNKS = st.lists(st.integers(1, 200), max_size=10)
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=80)), max_size=6)


@FUZZ
@given(said=st.binary(max_size=3000), chunks=CHUNKS)
def test_any_bytes(sanitized: Path, said: bytes, chunks: list[int]) -> None:
    _any_bytes(sanitized, said, chunks)


@FUZZ
@given(said=FRAMES, chunks=CHUNKS)
def test_any_frames_with_sound_checksums(
    sanitized: Path, said: list[tuple[FrameType, bytes]], chunks: list[int]
) -> None:
    _any_frames(sanitized, said, chunks)


@FUZZ
@given(data=st.data(), chunks=CHUNKS)
def test_a_life_with_mutations(sanitized: Path, data: st.DataObject, chunks: list[int]) -> None:
    _mutated(sanitized, data, chunks)


@pytest.mark.long
@pytest.mark.timeout(1800)
@LONG
@given(data=st.data(), chunks=CHUNKS)
def test_a_life_with_mutations_for_long(sanitized: Path, data: st.DataObject, chunks: list[int]) -> None:
    _mutated(sanitized, data, chunks)


@pytest.mark.long
@pytest.mark.timeout(1800)
@LONG
@given(said=FRAMES, chunks=CHUNKS)
def test_any_frames_for_long(sanitized: Path, said: list[tuple[FrameType, bytes]], chunks: list[int]) -> None:
    _any_frames(sanitized, said, chunks)
