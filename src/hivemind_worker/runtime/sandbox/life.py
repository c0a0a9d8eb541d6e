"""Finds again what a worker's process has started, whatever the moment of its kill: by a mark that fork and exec keep.

Bubblewrap binds its child to its own life a few milliseconds after it has forked it. A kill in between leaves a process
that waits for a word from the dead, for ever, in no control group yet. So each sandbox is made with a mark in its
command line, which its first process has in its environment too: the node, and which process of it made the sandbox.

A node looks for its own at each start and each minute. A node may never return: its state folder was removed, or it has
another name now. What it left is found by any other worker or command of this machine, once it is old.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "_HIVEMIND_LIFE"
"""The environment variable that holds the mark."""

_PROC: Final = Path("/proc")
ABANDONED_SECONDS: Final = 120.0
"""How old a process is before it is looked at by other nodes than its own, which may be just starting again."""

_MARK: Final = re.compile(rb"(?:^|\0)" + VARIABLE.encode() + rb"[=\0]hivemind-life-([0-9a-f]{16})-(\d+)-(\d+)(?=\0)")
"""The variable with its value, as the environment and the words of ``--setenv`` have it: text that merely names a mark,
as the command line of a search or an editor does, is no mark."""

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_GONE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Life:
    """One process of one node. ``pid`` and ``began`` (in ticks since boot) name it for sure: a number is used again."""

    node: str
    pid: int
    began: int

    @property
    def mark(self) -> str:
        """The mark of what it starts: letters, digits and dashes."""
        return f"hivemind-life-{self.node}-{self.pid}-{self.began}"

    @property
    def is_over(self) -> bool:
        """Whether that process has ended.

        A worker in a container is another number out here; the kernel shows both. Where its stray can be seen, so can
        it: a PID namespace shows those below it.
        """
        return _began(self.pid) != self.began and not any(self._is(pid) for pid in _pids())

    def _is(self, pid: int) -> bool:
        return _innermost(pid) == self.pid and _began(pid) == self.began


@dataclass(frozen=True, slots=True)
class Stray:
    """A process that bears a mark."""

    pid: int
    life: Life


def current(node_id: str) -> Life:
    """Return the life of this very process, as a worker of this name."""
    return Life(_node(node_id), os.getpid(), _began(os.getpid()))


def one_command() -> str:
    """Return the name under which single commands, which have no node to return to, mark what they start.

    Of this user and in this process namespace alone: of others' it cannot be told whether they have ended.
    """
    return f"one command of user {os.geteuid()} in {(_PROC / 'self/ns/pid').stat().st_ino}"


def strays(node_id: str, holder_folder: Path | None = None) -> tuple[Stray, ...]:
    """Return every process that a life of this node has started, of lives that are over and of those that are not.

    Without those that the holder of ``holder_folder`` has started and still holds: it answers for them. Blocks for
    about 20 ms with a thousand processes.
    """
    holders = set() if holder_folder is None else set(_holders(holder_folder))
    node = _node(node_id)
    return tuple(stray for stray in _marked() if stray.life.node == node and holders.isdisjoint(_ancestors(stray.pid)))


def abandoned() -> tuple[Stray, ...]:
    """Return what lives of any node have left that are over, that nobody holds, and that is old enough.

    Not what could be ours from outside: in a sandbox, its own first process bears the mark of a life out there.
    """
    above = {1, *_ancestors(os.getpid())}
    old = [stray for stray in _marked() if stray.pid not in above and _age_seconds(stray.pid) >= ABANDONED_SECONDS]
    if not old:
        return ()
    holders = set(_holders(None))
    return tuple(stray for stray in old if stray.life.is_over and holders.isdisjoint(_ancestors(stray.pid)))


def _marked() -> Iterator[Stray]:
    for pid in _pids():
        life = _life_of(pid)
        if life is not None and pid != os.getpid():
            yield Stray(pid, life)


def _life_of(pid: int) -> Life | None:
    """The life whose mark a process bears."""
    mark = _MARK.search(_words(pid))
    return None if mark is None else Life(mark[1].decode(), int(mark[2]), int(mark[3]))


def sweep(node_id: str, holder_folder: Path | None = None, *, own_too: bool = False) -> tuple[int, ...]:
    """End what lives of this node that are over have left, and wait until it is gone; return the numbers. Blocks.

    With ``own_too`` also what this process has started. What other nodes or other living processes started stays.
    """
    ended: set[int] = set()
    until = time.monotonic() + _GONE_SECONDS
    mine = current(node_id)
    while True:
        left = [
            stray for stray in strays(node_id, holder_folder) if stray.life.is_over or (own_too and stray.life == mine)
        ]
        for stray in left:
            if _kill(stray):
                ended.add(stray.pid)
        if not left or time.monotonic() > until:
            return tuple(sorted(ended))
        time.sleep(_LOOK_SECONDS)


def sweep_abandoned() -> tuple[int, ...]:
    """End what nodes have left that may never return; return the numbers. What another user's left stays. Blocks."""
    return tuple(sorted(stray.pid for stray in abandoned() if _kill(stray)))


def _kill(stray: Stray) -> bool:
    """SIGKILL to the very process that was looked at: what took its number since does not bear the mark."""
    try:
        pidfd = os.pidfd_open(stray.pid)
    except OSError:
        return False
    try:
        if _life_of(stray.pid) != stray.life:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True


def _node(node_id: str) -> str:
    """A name may hold anything that a settings file can; a mark may not."""
    return hashlib.sha256(node_id.encode()).hexdigest()[:16]


def _pids() -> Iterator[int]:
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            yield int(folder.name)


def _words(pid: int) -> bytes:
    """Its command line and, where we may read it, its environment; empty once it has ended, a zombie included."""
    found = b""
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError):
            found += (_PROC / str(pid) / name).read_bytes() + b"\0"
    return found


def _stat(pid: int) -> list[str]:
    """The fields behind its name: state, parent, …; empty where there is none."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return []


def _began(pid: int) -> int:
    """When it began, in ticks since boot; -1 where it has ended."""
    fields = _stat(pid)
    return -1 if not fields or fields[0] in "ZX" else int(fields[19])


def _age_seconds(pid: int) -> float:
    """For how long it has been there; 0 where it has ended."""
    began = _began(pid)
    return 0.0 if began < 0 else time.clock_gettime(time.CLOCK_BOOTTIME) - began / _TICKS_PER_SECOND


def _innermost(pid: int) -> int:
    """The number that a process has for itself, in the PID namespace that it is in; -1 where it has ended."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return -1


def _ancestors(pid: int) -> Iterator[int]:
    """Its parents, up to the first process."""
    while pid > 1 and (fields := _stat(pid)):
        pid = int(fields[1])
        yield pid


def _holders(folder: Path | None) -> Iterator[int]:
    """The programs that hold sandboxes for whoever works in that state folder, or in any."""
    for pid in _pids():
        words = _words(pid).split(b"\0")
        if (folder is None or os.fsencode(folder) in words) and any(word.endswith(b"/holder.py") for word in words):
            yield pid
