"""One sandbox as a process: started up to the moment before its first program, spoken with, ended for sure."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hivemind_worker import errors
from hivemind_worker.runtime.capsule import init, system_calls, users
from hivemind_worker.runtime.sandbox import launch

START_SECONDS: Final = 30.0
"""From bubblewrap's start to its word that the namespaces stand; 4 ms usually."""

READ: Final = 256 * 1024
BUFFER: Final = 1024 * 1024
COMPLAINT: Final = 4096


@dataclass(slots=True)
class Sandbox:
    """A sandbox that is made and waits: `pid` is its first process as the host sees it. `go` lets it begin."""

    process: asyncio.subprocess.Process
    pid: int
    _pidfds: tuple[int, ...]
    _block: int
    _complaint: bytearray = field(default_factory=bytearray)
    _listener: asyncio.Task[None] | None = None

    @property
    def complaint(self) -> str:
        """The last of what it said on stderr, where only bubblewrap and hivemind-init speak."""
        return self._complaint.decode(errors="replace").strip()

    @property
    def pidfds(self) -> tuple[int, ...]:
        """Its first processes, bubblewrap's included; none once it is closed."""
        return self._pidfds

    async def last_words(self) -> str:
        """What it said on stderr and its exit code, once it has ended by itself."""
        code = await self.process.wait()
        if self._listener is not None:
            await asyncio.wait({self._listener})
        return f"{self.complaint or 'it gives no reason'} (exit code {code})"

    def go(self) -> None:
        """Everything is in place around it (control groups): begin."""
        block, self._block = self._block, -1
        if block >= 0:
            with contextlib.suppress(BrokenPipeError):  # it has ended: reading tells
                os.write(block, b"\n")
            os.close(block)

    async def read(self) -> bytes:
        """Return the next bytes of its stdout, empty at the end."""
        assert self.process.stdout is not None
        return await self.process.stdout.read(READ)

    async def write(self, data: bytes) -> None:
        """Write to its stdin; one that has ended takes it in silence, reading tells."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(data)
            await self.process.stdin.drain()

    async def kill(self) -> None:
        """SIGKILL to its first process, with which all others end; nothing if it has ended."""
        # Never by asyncio's own `kill`, which looks for the end itself and so takes it from asyncio's watcher.
        for pidfd in self._pidfds:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def close(self) -> None:
        """Kill it, wait until it is gone, close what was open."""
        await self.kill()
        for fd in (*self._pidfds, self._block):
            if fd >= 0:
                os.close(fd)
        self._pidfds, self._block = (), -1
        await _end(self.process)
        if self._listener is not None:
            await asyncio.wait({self._listener})

    def listen(self) -> None:
        """Begin to keep what is said on stderr."""
        self._listener = asyncio.create_task(self._listen(), name="sandbox stderr")

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while said := await self.process.stderr.read(COMPLAINT):
            self._complaint += said
            del self._complaint[:-COMPLAINT]


async def start(
    furnishing: launch.Furnishing,
    room: launch.Room,
    machine: str,
    *,
    bwrap: str,
    drop_to: int | None,
    making: launch.Making | None = None,
    pair: users.Users | None = None,
) -> Sandbox:
    """Make a sandbox. Do not cancel it half-way.

    `drop_to`: the uid and gid that bubblewrap runs under, when we are root; with a `pair` they are the first one's.

    Raises IsolationMissing with bubblewrap's own words, LookupError for a machine there is no program for.
    """
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        fds, info, block, mapped = open_files(theirs, ours, machine)
        drop_to = drop_to if pair is None else pair.init
        files = {place: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for place, path in _files(making)}
        for fd in files.values():
            theirs.callback(os.close, fd)
        fds = dataclasses.replace(fds, files=files)
        process = await asyncio.create_subprocess_exec(
            *launch.arguments(furnishing, room, fds, bwrap, making, separate=pair is not None),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(*fds.own, *files.values()),
            limit=BUFFER,
            env={},
            cwd="/",
            user=drop_to,
            group=drop_to,
            extra_groups=None if drop_to is None else [],
            umask=0o022,  # what is made in there is not ours
        )
        theirs.close()
        try:
            pid = await _first_process(process, info)
            if pair is not None:
                map_ids(pid, pair, mapped)
            pidfds = []
            for each in (pid, process.pid):
                pidfds.append(os.pidfd_open(each))
                ours.callback(os.close, pidfds[-1])
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(_end(process))
            if isinstance(error, ProcessLookupError):
                raise errors.CapsuleFault(f"the sandbox ended while it was made: {await _said(process)}") from None
            raise
        ours.pop_all()
        os.close(info)
        os.close(mapped)
    sandbox = Sandbox(process, pid, tuple(pidfds), block)
    sandbox.listen()
    return sandbox


def _files(making: launch.Making | None) -> tuple[tuple[str, Path], ...]:
    return () if making is None else tuple(making.files.items())


def open_files(
    theirs: contextlib.ExitStack, ours: contextlib.ExitStack, machine: str
) -> tuple[launch.Fds, int, int, int]:
    """Open what a sandbox is made with; also our ends: where it says that it stands, what lets it go, what says mapped.

    Raises LookupError for a machine there is no program for.
    """
    info_end, info = pipe(theirs, ours, ours_reads=True)
    block_end, block = pipe(theirs, ours, ours_reads=False)
    mapped_end, mapped = pipe(theirs, ours, ours_reads=False)
    program = os.open(init.binary_path(machine), os.O_RDONLY | os.O_CLOEXEC)
    theirs.callback(os.close, program)
    passwd, group, hosts, services, calls = (
        _content(theirs, data)
        for data in (
            launch.PASSWD,
            launch.GROUP,
            launch.HOSTS,
            launch.NAME_SERVICES,
            system_calls.filter_program(machine),
        )
    )
    fds = launch.Fds(program, passwd, group, calls, info_end, block_end, mapped_end, hosts, services)
    return fds, info, block, mapped


def map_ids(pid: int, pair: users.Users, mapped: int) -> None:
    """Give a sandbox its two users, and say so to bubblewrap, which waits. For root. Raises ProcessLookupError."""
    try:
        for name in ("gid_map", "uid_map"):
            Path(f"/proc/{pid}/{name}").write_text(pair.id_map)
        os.write(mapped, b"\n")
    except (FileNotFoundError, BrokenPipeError):
        raise ProcessLookupError(f"process {pid} is gone") from None


def pipe(theirs: contextlib.ExitStack, ours: contextlib.ExitStack, *, ours_reads: bool) -> tuple[int, int]:
    """Open a pipe: their end and ours."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    their, our = (writing, reading) if ours_reads else (reading, writing)
    theirs.callback(os.close, their)
    ours.callback(os.close, our)
    return their, our


def _content(stack: contextlib.ExitStack, data: bytes) -> int:
    fd = os.memfd_create("hivemind", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def _first_process(process: asyncio.subprocess.Process, info: int) -> int:
    """Wait for bubblewrap's word that the namespaces stand."""

    async def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    said = await first_word(info, kill)
    if not said:
        raise errors.IsolationMissing(f"bubblewrap cannot make a sandbox here: {await _said(process)}")
    return int(json.loads(said)["child-pid"])


async def first_word(info: int, kill: Callable[[], Awaitable[None]]) -> bytes:
    """Read what bubblewrap says of the sandbox, empty where it ended instead; `kill` ends it, which ends our reading.

    Raises IsolationMissing when that takes too long.
    """
    reading = asyncio.create_task(_read_all(info), name="sandbox info")
    try:
        async with asyncio.timeout(START_SECONDS):
            return await asyncio.shield(reading)
    except BaseException as error:
        await kill()
        await asyncio.wait({reading})
        if isinstance(error, TimeoutError):
            raise errors.IsolationMissing(f"bubblewrap said nothing within {START_SECONDS} s") from error
        raise


async def _said(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    why = (await process.stderr.read(COMPLAINT)).decode(errors="replace").strip()
    return f"{why or 'it gives no reason'} (exit code {await process.wait()})"


async def _read_all(fd: int) -> bytes:
    """Read a pipe to its end, by no thread: many sandboxes are made at once, and one may hang."""
    os.set_blocking(fd, False)
    loop, readable, found = asyncio.get_running_loop(), asyncio.Event(), b""
    loop.add_reader(fd, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            with contextlib.suppress(BlockingIOError):
                while piece := os.read(fd, 4096):
                    found += piece
                return found
    finally:
        loop.remove_reader(fd)


async def _end(process: asyncio.subprocess.Process) -> None:
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()
        with contextlib.suppress(ConnectionError):
            await process.stdin.wait_closed()
