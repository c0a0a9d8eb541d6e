"""Programs run in forks of a process that has imported what they need.

To import a program's libraries takes from half a second to several of processor time, and the tests start hundreds.
Here one process imports them and forks for each run. The fork gets the folder, environment, words and streams that a
program of its own would have, and ends as an interpreter ends. What differs is the process's name, and what the
interpreter itself reads of the environment as it starts. No library may have begun a thread by then: a fork would not
have it.

The fork is a child of whoever asked, who waits for it as for any other: it is forked by a process between, which ends
at once, and its next ancestor that takes orphans (PR_SET_CHILD_SUBREAPER, see prctl(2)) is for that moment the asker.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

_PR_SET_CHILD_SUBREAPER = 36
_MOST = 200_000  # bytes of an order: less than a socket's buffer

_SERVER = """
import gc, importlib, json, os, runpy, socket, sys, tempfile
for name in sys.argv[2:]:
    importlib.import_module(name)
assert len(os.listdir("/proc/self/task")) == 1, "a library began a thread"
gc.freeze()
gc.enable()
asker = socket.socket(fileno=int(sys.argv[1]))
asker.send(b"ready")
while True:
    order, streams, _, _ = socket.recv_fds(asker, 200_000, 3)
    if not order:
        sys.exit()
    reading, writing = os.pipe()
    if not (between := os.fork()):
        if child := os.fork():
            os.write(writing, str(child).encode())
            os._exit(0)
        break
    os.close(writing)
    os.waitpid(between, 0)
    asker.send(os.read(reading, 20))
    for each in (reading, *streams):
        os.close(each)
order = json.loads(order)
for number, stream in enumerate(streams):
    os.dup2(stream, number)
asker.close()
os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
if order["session"]:
    os.setsid()
os.chdir(order["folder"])
os.environ.clear()
os.environ.update(order["environment"])
tempfile.tempdir = None
sys.stdin = open(0, closefd=False)
sys.argv = order["words"]
sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Warm:
    """A process that has imported ``modules``, and runs programs in forks of itself; a context manager."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._one_at_a_time = threading.Lock()
        self._line, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, str(its.fileno()), *modules], env=environment, pass_fds=[its.fileno()]
            )
        try:
            self._answer()
        except AssertionError:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        self._process.wait()

    def popen(self, words: Sequence[Any], **more: Any) -> subprocess.Popen[bytes]:
        """As `subprocess.Popen`, for the Python program `words[0]`."""
        return _Forked(self, [*map(str, words)], **more)

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

    def fork(self, order: Mapping[str, object], streams: Sequence[int]) -> int:
        """Return the id of a child of this process that does as ordered."""
        written = json.dumps(order).encode()
        assert len(written) < _MOST
        with self._one_at_a_time, _taking_orphans():
            socket.send_fds(self._line, [written], streams)
            return int(self._answer())

    def _answer(self) -> bytes:
        answer = self._line.recv(20)
        assert answer, "the process that runs the programs has ended"
        return answer


class _Forked(subprocess.Popen[bytes]):
    def __init__(self, process: Warm, words: list[str], **more: Any) -> None:
        self._forks = process
        super().__init__(words, **more)

    def _execute_child(self, args: Any, *its: Any) -> None:
        """Instead of fork and exec. What `subprocess` hands over has no names: see its own `_execute_child`."""
        _, _, _, _, folder, environment, _, _, _, *pipes = its
        to_read, to_write, from_read, from_write, errors_read, errors_write = pipes[:6]
        *_, session, _ = pipes
        order = {
            "words": args,
            "folder": str(Path(folder or ".").absolute()),
            "environment": dict(os.environ if environment is None else environment),
            "session": bool(session),
        }
        streams = [own if pipe < 0 else pipe for own, pipe in enumerate((to_read, from_write, errors_write))]
        self.pid = self._forks.fork(order, streams)
        self._child_created = True
        self._close_pipe_fds(to_read, to_write, from_read, from_write, errors_read, errors_write)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _taking_orphans() -> Any:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
