"""Sandboxes that outlive their worker: held by a program of their own (`holder`), entered by whoever is the worker."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.runtime.capsule import users
from hivemind_worker.runtime.sandbox import holder, kill_mode, launch, process

T = TypeVar("T")

SOCKET: Final = "sandboxes.sock"
ASK_SECONDS: Final = 20.0
"""Longest that the holder may take: it forks, or waits for what it has killed."""

_END_SECONDS: Final = 5.0
_PLACE: Final = 1 << 48  # a number that no size and no open file has: stands for a file's place in the message


missing: Final = kill_mode.missing
"""Says why there can be none here."""


class Ground(Protocol):
    """What sandboxes on this machine are made of; see `probe.Ground`."""

    @property
    def bwrap(self) -> str:
        """The program."""

    @property
    def machine(self) -> str:
        """The kind of processor."""

    @property
    def drop_to(self) -> int | None:
        """The uid and gid that it runs under, when we are root."""


class Held:
    """The holder of one state folder: the one that is there, else a new one. Calls are made one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Its own thread, for one question at a time: a sandbox that is slow to be made holds up no other work.
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="holder")
        self._line: socket.socket | None = None
        self._started: subprocess.Popen[bytes] | None = None

    async def open(self) -> tuple[str, ...]:
        """Connect; the names of what is held from before. Raises OSError."""
        await self._on_thread(self._open)
        said, _ = await self.ask({"do": "names"})
        return tuple(said["names"])

    async def ask(self, what: Mapping[str, Any], files: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
        """Ask one thing. Raises CapsuleFault where the holder is gone or says no."""
        try:
            said, given = await self._on_thread(functools.partial(self._ask_whoever_is_there, what, files))
        except (OSError, ValueError) as error:
            raise errors.CapsuleFault(f"what holds the sandboxes does not answer: {error}") from error
        if "error" in said:
            raise errors.CapsuleFault(f"what holds the sandboxes says: {said['error']}")
        return said, given

    async def close(self) -> None:
        """Let go of it: it ends when it holds nothing."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._started is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await self._on_thread(functools.partial(self._started.wait, _END_SECONDS))
        self._thread.shutdown()

    async def dismiss(self) -> None:
        """End all that an earlier worker had held here, and the holder with it; starts none. `close` it then.

        For a worker that holds no sandboxes itself. A holder that does not answer ends after `holder.ALONE_SECONDS`.
        """
        with contextlib.suppress(errors.CapsuleFault, OSError):
            if await self._on_thread(self._join):
                answer, _ = await self.ask({"do": "names"})
                for name in answer["names"]:
                    await self.ask({"do": "drop", "name": name})

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        private_dir.make(self._folder)
        with self._place() as place:
            try:
                self._line = self._connected(place)
            except (FileNotFoundError, ConnectionRefusedError):
                self._start(place)
                self._line = self._connected(place)

    def _join(self) -> bool:
        """Connect to the holder that is there; false where none is."""
        try:
            with self._place() as place:
                self._line = self._connected(place)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    @contextlib.contextmanager
    def _place(self) -> Iterator[str]:
        """The socket's path by an open folder: a socket's name has at most 107 bytes, a folder's may have more."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{folder}/{SOCKET}"
        finally:
            os.close(folder)

    @staticmethod
    def _connected(place: str) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            line.connect(place)
            line.settimeout(ASK_SECONDS)
        except BaseException:
            line.close()
            raise
        return line

    def _start(self, place: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / SOCKET).unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            private_file.bind(listener, place)
            listener.listen(4)
            self._started = subprocess.Popen(
                # The folder is for whoever looks at the list of processes.
                [sys.executable, "-I", "-S", holder.__file__, str(listener.fileno()), str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                env={},
                cwd="/",
                start_new_session=True,
            )

    def _ask_whoever_is_there(self, what: Mapping[str, Any], files: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
        """One that was killed, and what it held with it, is no reason why the next sandbox should not be held."""
        try:
            return self._ask(what, files)
        except ConnectionError:
            if self._line is None or what["do"] != "start":
                raise
            self._line.close()
            self._open()
            return self._ask(what, files)

    def _ask(self, what: Mapping[str, Any], files: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
        if self._line is None:
            raise ConnectionError("not connected to it")
        socket.send_fds(self._line, [json.dumps(what).encode()], files)
        said, given, _, _ = socket.recv_fds(self._line, holder.MESSAGE_BYTES, holder.MOST_FILES)
        if not said:
            raise ConnectionError("it has ended")
        return json.loads(said), given


@dataclass(slots=True)
class Sandbox:
    """A sandbox that is held: `pid` is its first process as the host sees it. As `process.Sandbox` to talk to."""

    name: str
    pid: int
    held: Held
    locks: tuple[int, ...] = ()
    """Open files that came with it from an earlier worker; closed with it."""
    _pidfds: tuple[int, ...] = ()
    block: int = -1
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _transports: list[asyncio.BaseTransport] = field(default_factory=list)
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
        said, _ = await self.held.ask({"do": "drop", "name": self.name})
        return f"{self.complaint or 'it gives no reason'} (exit code {said['code']})"

    def go(self) -> None:
        """Everything is in place around it (control groups): begin."""
        block, self.block = self.block, -1
        if block >= 0:
            with contextlib.suppress(BrokenPipeError):  # it has ended: reading tells
                os.write(block, b"\n")
            os.close(block)

    async def read(self) -> bytes:
        """Return the next bytes of its stdout, empty at the end."""
        assert self._reader is not None
        return await self._reader.read(process.READ)

    async def write(self, data: bytes) -> None:
        """Write to its stdin; one that has ended takes it in silence, reading tells."""
        assert self._writer is not None
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def kill(self) -> None:
        """SIGKILL to its first process, with which all others end; nothing if it has ended."""
        for pidfd in self._pidfds:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def close(self) -> None:
        """Kill it, wait until it is gone, close what was open."""
        await self.kill()
        with contextlib.suppress(errors.CapsuleFault):  # then it ended with its holder
            await self.held.ask({"do": "drop", "name": self.name})
        for file in (*self._pidfds, *self.locks, self.block):
            if file >= 0:
                os.close(file)
        self._pidfds, self.locks, self.block = (), (), -1
        if self._listener is not None:
            await asyncio.wait({self._listener})
        for transport in self._transports:
            transport.close()

    async def connect(self, stdin: int, stdout: int, stderr: int) -> None:
        """Talk to it through these files, which are ours from here on."""
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=process.BUFFER)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        reading, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(stdout, "rb", 0))
        writing, control = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(stdin, "wb", 0))
        self._writer = asyncio.StreamWriter(writing, control, None, loop)
        complaints = asyncio.StreamReader()
        complaining, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(complaints), os.fdopen(stderr, "rb", 0)
        )
        self._transports = [reading, writing, complaining]
        self._listener = asyncio.create_task(self._listen(complaints), name="sandbox stderr")

    def watch(self, *pids: int) -> None:
        """Know these processes for sure, whatever becomes of their numbers. Raises ProcessLookupError."""
        for pid in pids:
            self._pidfds = (*self._pidfds, os.pidfd_open(pid))

    async def _listen(self, complaints: asyncio.StreamReader) -> None:
        while said := await complaints.read(process.COMPLAINT):
            self._complaint += said
            del self._complaint[: -process.COMPLAINT]


async def dismiss(folder: Path) -> None:
    """End the holder of this state folder and all that it holds; see `Held.dismiss`."""
    held = Held(folder)
    try:
        await held.dismiss()
    finally:
        await held.close()


async def start(
    held: Held,
    ground: Ground,
    furnishing: launch.Furnishing,
    room: launch.Room,
    locks: Sequence[int],
    pair: users.Users | None = None,
) -> Sandbox:
    """Make a sandbox that is held, with these locks. Do not cancel it half-way. Raises as `process.start`."""
    name = uuid.uuid4().hex
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        fds, info, block, mapped = process.open_files(theirs, ours, ground.machine)
        stdin, to_stdin = process.pipe(theirs, ours, ours_reads=False)
        stdout, from_stdout = process.pipe(theirs, ours, ours_reads=True)
        stderr, from_stderr = process.pipe(theirs, ours, ours_reads=True)
        sent = [stdin, stdout, stderr, *fds.own]
        kept = [to_stdin, from_stdout, from_stderr, *locks]
        places = launch.Fds(*range(_PLACE + 3, _PLACE + 3 + len(fds.own)))
        words = launch.arguments(furnishing, room, places, ground.bwrap, separate=pair is not None)
        said, _ = await held.ask(
            {
                "do": "start",
                "name": name,
                "argv": [_placed(word) for word in words],
                "kept": list(range(len(sent), len(sent) + len(kept))),
                "user": ground.drop_to if pair is None else pair.init,
            },
            [*sent, *kept],
        )
        theirs.close()
        made = Sandbox(name, 0, held)
        try:
            await _stands(made, info, from_stderr, int(said["pid"]))
            if pair is not None:
                process.map_ids(made.pid, pair, mapped)
        except BaseException as error:
            await made.close()
            if isinstance(error, ProcessLookupError):
                raise errors.CapsuleFault("the sandbox ended while it was made") from None
            raise
        ours.pop_all()
        os.close(info)
        os.close(mapped)
    made.block = block
    await made.connect(to_stdin, from_stdout, from_stderr)
    return made


async def take(held: Held, name: str, pid: int) -> Sandbox:
    """Enter a sandbox that an earlier worker had made, whose first process is `pid`.

    Raises CapsuleFault where it is there no more, or has ended.
    """
    said, files = await held.ask({"do": "take", "name": name})
    made = Sandbox(name, pid, held, tuple(files[3:]))
    try:
        _lives(said)
        # Bubblewrap is its holder's child, so its number is its own; while it lives so does the first process.
        made.watch(int(said["pid"]), pid)
        _lives((await held.ask({"do": "look", "name": name}))[0])
    except BaseException as error:
        for file in files[:3]:
            os.close(file)
        await made.close()
        if isinstance(error, ProcessLookupError):
            raise errors.CapsuleFault("its sandbox has ended") from None
        raise
    await made.connect(*files[:3])
    return made


async def _stands(made: Sandbox, info: int, stderr: int, bwrap: int) -> None:
    """Wait until its namespaces stand, and know its processes."""
    word = await process.first_word(info, made.close)
    if not word:
        raise errors.IsolationMissing(f"bubblewrap cannot make a sandbox here: {await _why(made, stderr)}")
    made.pid = int(json.loads(word)["child-pid"])
    made.watch(made.pid, bwrap)


def _lives(said: Mapping[str, Any]) -> None:
    if said["code"] is not None:
        raise errors.CapsuleFault(f"its sandbox has ended (exit code {said['code']})")


async def _why(made: Sandbox, stderr: int) -> str:
    """What bubblewrap said when it ended at once, with its exit code."""
    said = await asyncio.to_thread(os.read, stderr, process.COMPLAINT)
    made._complaint += said  # noqa: SLF001  (of our own making)
    return await made.last_words()


def _placed(word: str) -> str | dict[str, int]:
    return {"file": int(word) - _PLACE} if word.isdigit() and int(word) >= _PLACE else word
