"""Running in the foreground until told to stop: the first signal drains, the second is at once; SIGHUP rereads."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from hivemind_worker.cli import exit_codes, folders, look, rereading
from hivemind_worker.concurrency import stopping
from hivemind_worker.filesystem import memory
from hivemind_worker.settings import schema
from hivemind_worker.telemetry import logs

if TYPE_CHECKING:
    from hivemind_worker.pool import server

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What asks to stop. SIGHUP too: the terminal has gone, and nothing would hear a second ^C."""


def run(
    settings: rereading.Rereading,
    name: str,
    work: Callable[[stopping.Stop], Awaitable[None]],
    shown: look.Look,
) -> int:
    """Do ``work``, with its log on standard error and in the log folder, until it ends or a signal does.

    SIGHUP has the settings read anew; but where a person started it at a terminal it means that this has gone, and
    stops it like the others. Returns the exit code: 130 after ^C, otherwise 0. What ``work`` raises goes on.
    """
    at_terminal = sys.stdin is not None and sys.stdin.isatty()

    async def within() -> int:
        stop = stopping.Stop()
        # What killed single commands left: nobody need wait for that.
        sweeping = asyncio.create_task(asyncio.to_thread(folders.sweep), name="folders of killed commands")
        with signals(stop, shown.note, on_hangup=None if at_terminal else settings.again) as received:
            await work(stop)
        await sweeping
        return exit_codes.INTERRUPTED if signal.SIGINT in received else exit_codes.OK

    memory.protect()
    with logging(settings.settings, name, shown) as written:
        settings.takers.append(lambda now: written.level(_level(now, shown)))
        return asyncio.run(within())


@contextlib.asynccontextmanager
async def serving(pool: server.NodePool) -> AsyncIterator[str]:
    """Have a pool serve within this block, and give its address."""
    await pool.start()
    try:
        yield pool.address
    finally:
        await pool.stop()


async def beside(pool: server.NodePool, stop: stopping.Stop, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work``, which ends by ``stop``, beside a pool that serves; a pool that fails asks for that stop.

    Raises what either of them raises.
    """
    failing = asyncio.create_task(_failed(pool, stop), name="pool")
    try:
        await work()
    finally:
        await stopping.settle(failing)
    if not failing.cancelled():
        failing.result()


async def _failed(pool: server.NodePool, stop: stopping.Stop) -> None:
    try:
        await pool.failed()
    finally:
        if not stop.requested:
            stop.request(stopping.StopLevel.CANCEL, "the pool failed")


@contextlib.contextmanager
def signals(
    stop: stopping.Stop,
    note: Callable[[str], None],
    first: stopping.StopLevel = stopping.StopLevel.DRAIN,
    on_hangup: Callable[[], None] | None = None,
) -> Iterator[list[signal.Signals]]:
    """Within this block signals ask ``stop`` for ``first``, and from the second on to kill; gives those received.

    ``on_hangup`` is done instead at SIGHUP. Without it, a SIGHUP that was ignored as the process began stays so: by
    nohup somebody wants it to outlive the terminal.
    """
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []

    def told(number: signal.Signals) -> None:
        received.append(number)
        if len(received) == 1:
            stop.request(first, f"{number.name} received")
            note(f"{number.name}: stopping in order; once more stops at once")
        else:
            stop.request(stopping.StopLevel.KILL, f"{number.name} received again")

    handled = [number for number in SIGNALS if number != signal.SIGHUP or not _is_ignored(number)]
    for number in handled:
        loop.add_signal_handler(number, told, number)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield received
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


@contextlib.contextmanager
def logging(settings: schema.Settings, name: str, shown: look.Look) -> Iterator[logs.Logs]:
    """Put logging in force within this block, as the settings and -q, -v, --json say."""
    its = settings.logging
    written = logs.configure(
        name,
        level=_level(settings, shown),
        style="json" if shown.json else its.log_format.value,
        log_dir=settings.storage.log_dir,
        file_bytes=its.log_file_bytes,
        file_count=its.log_file_count,
    )
    try:
        yield written
    finally:
        written.close()


def _level(settings: schema.Settings, shown: look.Look) -> logs.Level:
    its = settings.logging.log_level
    return "debug" if shown.verbose else "warning" if shown.quiet and its == "info" else its
