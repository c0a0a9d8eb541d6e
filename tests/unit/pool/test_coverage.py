"""What is missing of a run's output: found by what is there, filled from the report where it is certain."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.pool.api import attempt_logs, coverage
from hivemind_worker.runtime import logs
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import plan
from hivemind_worker.wire import calls

pb = calls.pb

TEXT = st.text(st.characters(codec="ascii", categories=("L", "N", "Zs"), include_characters="\n"), max_size=400)


def pieces_of(data: bytes, size: int, stream: int = 1) -> list[attempt_logs.Chunk]:
    return [
        attempt_logs.Chunk(number, stream, at, data[at : at + size])
        for number, at in enumerate(range(0, len(data), size))
    ]


def result_of(data: bytes, head: int, tail: int) -> pb.TaskResult:
    """What a worker reports of one stream that wrote this."""
    caps = plan.Caps(head, tail, results_bytes=1, results_count=1, results_depth=1, results_seconds=1.0)
    output = logs.Kept(caps)
    output.take(messages.Output(messages.Stream.OUT, 0, data))
    told = output.logs()
    return pb.TaskResult(logs=told.text.decode("utf-8", "replace"), stdout_bytes=told.stdout_bytes)


@given(TEXT, st.integers(1, 40), st.sets(st.integers(0, 40)), st.integers(0, 500), st.integers(0, 500))
def test_no_byte_is_wrong_and_none_is_missing_unsaid(
    text: str, size: int, lost: set[int], head: int, tail: int
) -> None:
    data = text.encode()
    report = coverage.reported(result_of(data, head, tail))
    seen = coverage.Coverage(report)
    arrived = [chunk for chunk in pieces_of(data, size) if chunk.sequence not in lost]
    told = [piece for chunk in arrived for piece in (*seen.chunk(chunk), chunk)] + seen.rest()
    assert all(data[piece.offset :].startswith(piece.data) for piece in told)
    places = [place for piece in told for place in range(piece.offset, piece.offset + len(piece.data))]
    assert places == sorted(set(places))
    assert len(places) + seen.missing_bytes == len(data)
    assert max((piece.offset + len(piece.data) for piece in told), default=0) == len(data)
    if head >= len(data):
        assert report.is_whole
        assert seen.missing_bytes == 0
    assert seen.rest() == []


def test_the_head_and_the_tail_of_a_report_fill_what_they_hold() -> None:
    data = b"".join(b"line %d\n" % number for number in range(1_000))
    report = coverage.reported(result_of(data, 500, 300))
    assert report.runs == ((0, data[:500]), (len(data) - 300, data[-300:]))
    seen = coverage.Coverage(report)
    middle = attempt_logs.Chunk(7, 1, 600, data[600:1000])
    assert [(piece.sequence, piece.data) for piece in seen.chunk(middle)] == [(-1, data[:500])]
    assert seen.missing_bytes == 100
    assert [(piece.offset, piece.data) for piece in seen.rest()] == [(len(data) - 300, data[-300:])]


@pytest.mark.parametrize(
    "result",
    [
        pb.TaskResult(logs="one\ntwo\n", stdout_bytes=4, stderr_bytes=4),  # whose is which?
        pb.TaskResult(logs="\N{REPLACEMENT CHARACTER}", stdout_bytes=3),  # three bytes, but which?
        pb.TaskResult(logs="[hivemind: 9 bytes of stdout are not kept]\n", stdout_bytes=100),  # the task's own words
    ],
)
def test_bytes_that_are_not_certain_are_missing(result: pb.TaskResult) -> None:
    report = coverage.reported(result)
    assert report.runs == ()
    assert coverage.missing_bytes([], report) == result.stdout_bytes + result.stderr_bytes
    marks = coverage.Coverage(report).rest()
    assert {(mark.stream, mark.offset, mark.data) for mark in marks} == {
        (stream, total, b"") for stream, total in report.totals.items() if total
    }


def test_a_node_that_counts_no_bytes_has_told_all() -> None:
    report = coverage.reported(pb.TaskResult(logs="from a node that streams nothing"))
    assert report.is_whole
    assert dataclasses.replace(report).runs == ()
