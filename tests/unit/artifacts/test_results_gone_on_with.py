"""A result file that a checkpoint names can be gone on with from there, whatever came of it before the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hivemind_worker.artifacts import store
from hivemind_worker.runtime import results
from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.tasks import plan

CAPS = plan.Caps(1, 1, results_bytes=10_000, results_count=100, results_depth=4, results_seconds=1.0)


def _gone(receiver: results.Receiver) -> None:
    """What the system does to the files of a process that is killed."""
    for _, writer in (*receiver._ended, *([receiver._begun] if receiver._begun else [])):
        writer._close_fd()


async def _rest(receiver: results.Receiver) -> None:
    """What the capsule says from the checkpoint on."""
    await receiver.take(m.ResultData(3, b"def"))
    await receiver.take(m.ResultEnd())


async def _killed(receiver: results.Receiver) -> None:
    """The process goes without a word."""


async def _whole(receiver: results.Receiver) -> None:
    await _rest(receiver)
    await receiver.finish()


async def _ended(receiver: results.Receiver) -> None:
    await _rest(receiver)
    await receiver._write_waiting()


async def _further(receiver: results.Receiver) -> None:
    await receiver.take(m.ResultData(3, b"d"))
    await receiver._write_waiting()


async def _dropped(receiver: results.Receiver) -> None:
    await receiver.take(m.ResultDropped(m.Skipped.UNREADABLE))
    await receiver._write_waiting()


async def _next_checkpoint_unsaved(receiver: results.Receiver) -> None:
    await _rest(receiver)
    await receiver.take(m.ResultBegin(b"next", 0o644, 2))
    await receiver.progress()


COMES = (_killed, _further, _ended, _whole, _dropped, _next_checkpoint_unsaved)


@pytest.mark.parametrize("new_process", [True, False], ids=["killed", "cut"])
@pytest.mark.parametrize("second", COMES)
@pytest.mark.parametrize("first", COMES)
async def test_it_goes_on_from_a_checkpoint_as_often_as_need_be(
    tmp_path: Path,
    first: Callable[[results.Receiver], Awaitable[None]],
    second: Callable[[results.Receiver], Awaitable[None]],
    new_process: bool,
) -> None:
    files = store.Store(tmp_path)
    files.prepare()
    receiver = results.Receiver(files, CAPS)
    await receiver.take(m.ResultBegin(b"x", 0o644, 6))
    await receiver.take(m.ResultData(0, b"abc"))
    saved = await receiver.progress()
    assert saved.half is not None
    for comes in (first, second):
        await comes(receiver)
        if new_process:
            _gone(receiver)
            files.prepare([saved.half.staged_name])
        else:
            await receiver.abort()
        receiver = results.Receiver(files, CAPS, saved)
    await _rest(receiver)
    found = await receiver.finish()
    (file,) = found.files
    assert (file.name, b"".join(files.read(file.artifact.sha256))) == ("x", b"abcdef")
    files.let_go([saved.half.staged_name])
    left = [path.name for path in (tmp_path / "staging").iterdir() if path.name.startswith(saved.half.staged_name[:36])]
    assert left == []
    files.close()
