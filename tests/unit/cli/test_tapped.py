"""Output goes on in order, never holds the task back, and what is left out is counted."""

from __future__ import annotations

import threading

import pytest
import waiting

from hivemind_worker.cli import tapped
from hivemind_worker.client import following


def _output(offset: int, data: bytes, stream: str = "stdout") -> following.Output:
    return following.Output(stream, offset, data, 1)


async def test_what_came_before_it_was_opened_is_written_too_and_in_order() -> None:
    written: list[bytes] = []
    tap = tapped.Tap(lambda output: written.append(output.data), lambda _: None)
    tap.add(_output(0, b"a"))
    tap.open()
    tap.add(_output(1, b"b"))
    tap.add(_output(0, b"c", "stderr"))
    await tap.close()
    assert written == [b"a", b"b", b"c"]
    assert tap.left_out_bytes == 0


async def test_a_gap_is_counted() -> None:
    tap = tapped.Tap(lambda _: None, lambda _: None)
    tap.add(_output(0, b"ab"))
    tap.add(_output(10, b"c"))
    assert tap.left_out_bytes == 8


async def test_a_slow_reader_holds_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapped, "WAITING_BYTES", 10)
    go = threading.Event()
    written: list[bytes] = []

    def write(output: following.Output) -> None:
        go.wait()
        written.append(output.data)

    tap = tapped.Tap(write, lambda _: None)
    tap.open()
    for number in range(5):
        tap.add(_output(4 * number, b"1234"))
    go.set()
    await tap.close()
    assert written == [b"1234", b"1234"]
    assert tap.left_out_bytes == 12


async def test_a_reader_who_has_gone_is_told_once() -> None:
    told: list[OSError] = []

    def write(_: following.Output) -> None:
        raise BrokenPipeError

    tap = tapped.Tap(write, told.append)
    tap.open()
    tap.add(_output(0, b"a"))
    tap.add(_output(1, b"b"))
    await tap.close()
    await waiting.wait_until(lambda: told, description="the loop was told")
    assert len(told) == 1
