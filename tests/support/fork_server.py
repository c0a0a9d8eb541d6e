"""A fork server: one process imports modules, and each program runs in a fork of it.

Importing a program's libraries takes from half a second to several seconds of processor time, and the tests start
hundreds of programs. A fork gets the working directory, environment, arguments, standard streams, umask, limits and
random numbers of a program of its own, and exits as an interpreter does. It differs in the process's name, in the
hashes of texts, which all forks share, and in what the interpreter reads of the environment as it starts. No module may
start a thread at import: a fork would lack it.

Theory of operation: requests and their streams go over a socket of packets. A fork is the server's child, not the
client's, so the client waits for its end on a pidfd (pidfd_open(2)), then asks the server for the exit status. The
server reaps it no sooner; until then the kernel gives its pid to no other process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

_MAX_REQUEST_BYTES = 200_000  # less than a socket's buffer

_LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]

_SERVER = """
import gc, importlib, json, os, random, resource, runpy, socket, sys, tempfile, time
for name in sys.argv[2:]:
    importlib.import_module(name)
ours = [vars(module).values() for name, module in sys.modules.items() if name.startswith("hivemind_worker")]
generators = [each for values in ours for each in values if isinstance(each, random.Random)]
if "numpy.random" in sys.modules:
    generators.append(sys.modules["numpy.random"])
assert len(os.listdir("/proc/self/task")) == 1, "a library began a thread"
gc.freeze()
gc.enable()
asker = socket.socket(fileno=int(sys.argv[1]))
asker.send(b"ready")
while True:
    order, streams, _, _ = socket.recv_fds(asker, 200_000, 3)
    if not order:
        sys.exit()
    order = json.loads(order)
    if "wait" in order:
        asker.send(str(os.waitpid(order["wait"], 0)[1]).encode())
        continue
    if not (child := os.fork()):
        break
    asker.send(str(child).encode())
    for each in streams:
        os.close(each)
for number, stream in enumerate(streams):
    os.dup2(stream, number)
asker.close()
os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
if order["session"]:
    os.setsid()
os.chdir(order["folder"])
os.environ.clear()
os.environ.update(order["environment"])
os.umask(order["umask"])
for name, pair in order["limits"].items():
    resource.setrlimit(getattr(resource, name), pair)
for each in generators:
    each.seed()
time.tzset()
tempfile.tempdir = None
sys.stdin = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, newline="\\n", closefd=False)
sys.argv = order["words"]
sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class ForkServer:
    """A process that has imported ``modules``, and runs programs in forks of itself; a context manager."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._one_at_a_time = threading.Lock()
        self._socket, servers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with servers:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, str(servers.fileno()), *modules],
                env=environment,
                pass_fds=[servers.fileno()],
            )
        try:
            self._answer()
        except AssertionError:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait()

    def popen(self, words: Sequence[Any], **more: Any) -> subprocess.Popen[bytes]:
        """As `subprocess.Popen`, for the Python program `words[0]`."""
        return _ForkedProcess(self, [*map(str, words)], **more)

    def run(
        self, words: Sequence[Any], *, stdin: bytes = b"", seconds: float | None = None, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """As `subprocess.run`, whose words these are but for ``input`` and ``timeout``."""
        pipe = subprocess.PIPE
        with self.popen(words, stdin=pipe, stdout=pipe, stderr=pipe, **more) as process:
            try:
                out, err = process.communicate(stdin, timeout=seconds)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess([*words], process.returncode, out, err)

    def ask(self, order: Mapping[str, object], streams: Sequence[int] = ()) -> int:
        """Return the number of the fork that does as ordered, or how one ended (`wait`: its number)."""
        written = json.dumps(order).encode()
        assert len(written) < _MAX_REQUEST_BYTES
        with self._one_at_a_time:
            socket.send_fds(self._socket, [written], streams)
            return int(self._answer())

    def _answer(self) -> bytes:
        answer = self._socket.recv(20)
        assert answer, "the process that runs the programs has ended"
        return answer


class Fixture:
    """The one fork server, `current` for as long as a fixture lasts; None at other times."""

    def __init__(self) -> None:
        self.current: ForkServer | None = None

    @contextlib.contextmanager
    def start(self, modules: Sequence[str], environment: Mapping[str, str]) -> Iterator[None]:
        """Start one that imports ``modules``, unless there is one."""
        if self.current is not None:
            yield
            return
        with ForkServer(modules, environment) as server:
            self.current = server
            try:
                yield
            finally:
                self.current = None


class _ForkedProcess(subprocess.Popen[bytes]):
    def __init__(self, server: ForkServer, words: list[str], **more: Any) -> None:
        self._server = server
        super().__init__(words, **more)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        """Replace fork and exec. `subprocess` passes no keywords: see the signature of its own `_execute_child`."""
        _, before, _, passed, folder, environment, _, _, _, *pipes = rest
        assert before is None, "preexec_fn cannot run in a fork of another process"
        assert not passed, "pass_fds is not supported: a fork gets the three streams"
        to_read, to_write, from_read, from_write, errors_read, errors_write = pipes[:6]
        _, *ids, umask, session, process_group = pipes[6:]
        assert (ids, process_group) == ([None] * 3, -1), "a fork gets no other user and no process group"
        order = {
            "words": args,
            "folder": str(Path(folder or ".").absolute()),
            "environment": dict(os.environ if environment is None else environment),
            "session": bool(session),
            "umask": _umask() if umask < 0 else umask,
            "limits": {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS},
        }
        streams = [own if pipe < 0 else pipe for own, pipe in enumerate((to_read, from_write, errors_write))]
        self.pid = self._server.ask(order, streams)
        self._ends = os.pidfd_open(self.pid)
        self._child_created = True
        self._close_pipe_fds(to_read, to_write, from_read, from_write, errors_read, errors_write)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """As waitpid(2)."""
        seconds = 0 if wait_flags & os.WNOHANG else None
        if not select.select([self._ends], [], [], seconds)[0]:
            return 0, 0
        status = self._server.ask({"wait": self.pid})
        os.close(self._ends)
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._child_created:
            with self._waitpid_lock:  # type: ignore[attr-defined]
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
        code: int | None = self.returncode
        return code


def _umask() -> int:
    """Ours, without setting it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("\nUmask:")[2].split(maxsplit=1)[0], 8)
