"""Run a command, and fail where a process that it started outlives it, however far down: reap.py COMMAND…

Orphans become children of this program (PR_SET_CHILD_SUBREAPER), so none is missed, whatever its session, its mark or
its environment. What is left is named and ended; the exit code is then that of the command, or LEFT where that was 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LEFT_SECONDS = float(os.environ.get("LEFT_SECONDS", "40"))
"""What may end by itself meanwhile: what holds sandboxes waits 30 s for the worker that started it."""

TOLD_SECONDS = 3
"""So long that is waited for in silence."""

LEFT = 99
"""An exit code that neither pytest nor a shell gives."""

LOOK_SECONDS = 0.1
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
"""Numbers of prctl(2), from linux/prctl.h."""


def main(command: list[str]) -> int:
    """Return the command's exit code, or LEFT where it ended well and something outlived it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the command as well, whose end we wait for
    started = subprocess.Popen(command, preexec_fn=lambda: _as_command(libc))  # noqa: PLW1509  (one thread)
    code = _wait_for(started.pid)
    left = _outliving()
    for pid, words in left.items():
        print(f"!! outlives its test: process {pid}, {words}", flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return code or (LEFT if left else 0)


def _as_command(libc: ctypes.CDLL) -> None:
    """Between fork and exec: end with this program, and hear a terminal's SIGINT again."""
    libc.prctl(SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for(command: int) -> int:
    """Reap whatever ends until the command does; its exit code, as a shell has it."""
    while True:
        pid, status = os.wait()
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _outliving() -> dict[int, str]:
    """Wait until no descendant is left; those that are in the end, with their command lines."""
    until = time.monotonic() + LEFT_SECONDS
    told_at = time.monotonic() + TOLD_SECONDS
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return {}
        if time.monotonic() > until:
            return {pid: _words(pid) for pid in _descendants(os.getpid())}
        if time.monotonic() > told_at:
            told_at = until
            names = [f"{pid} {_words(pid)[:100]}" for pid in _descendants(os.getpid())]
            print(f"== waiting for what ends by itself: {'; '.join(names)}", flush=True)
        time.sleep(LOOK_SECONDS)


def _descendants(parent: int) -> Iterator[int]:
    for task in Path(f"/proc/{parent}/task").glob("*"):
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text(encoding="ascii").split():
                yield int(pid)
                yield from _descendants(int(pid))


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        if words := Path(f"/proc/{pid}/cmdline").read_bytes():
            return words.replace(b"\0", b" ").decode(errors="replace").strip()
    return "which has ended, but whose parent has not seen it"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
