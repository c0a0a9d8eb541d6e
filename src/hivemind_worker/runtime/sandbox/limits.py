"""Limits of a sandbox by control groups, v1 and v2, where this worker may make some, with the kernel's accounts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivemind_worker.runtime.capsule import accounts, freezer
from hivemind_worker.runtime.sandbox import life
from hivemind_worker.tasks import outcome

_MOUNT: Final = Path("/sys/fs/cgroup")
_PERIOD: Final = 100_000
_LEAST_QUOTA: Final = 1_000
_WANTED: Final = ("memory", "pids", "cpu")

_PREFIX: Final = "hivemind-task-"

_NEW_SECONDS: Final = 60.0
"""A group of another PID namespace may be this old and empty while its worker is about to put a process into it."""

_GONE_SECONDS: Final = 5.0
"""How long a control group may take to be seen empty after its last process was waited for."""


@dataclass(frozen=True, slots=True)
class Parents:
    """Folders in which a group may be made, by controller; controller "" is v2. ``enforced`` says what can be limited.

    ``why_not`` tells for people why something is missing.
    """

    folders: Mapping[str, Path]
    enforced: frozenset[str]
    why_not: str = ""


def probe(mount: Path = _MOUNT, own: str | None = None) -> Parents:
    """Find where groups may be made: beneath our own, by making and removing one. Blocks for about a millisecond.

    Where only v2 is there and our own group is handed over to us, this process is moved into a group of its own
    (`worker`), since a v2 group that has children has no processes.
    """
    text = Path("/proc/self/cgroup").read_text() if own is None else own
    rows = (line.split(":", 2) for line in text.splitlines())
    places = {name: path for _, names, path in rows for name in names.split(",")}
    if (mount / "cgroup.controllers").exists():
        return _probe_v2(mount / places.get("", "/").lstrip("/"))
    folders = {}
    for controller in (*accounts.CONTROLLERS, accounts.FREEZER):
        folder = mount / controller / places.get(controller, "/").lstrip("/")
        if controller in places and _can_make(folder if folder.is_dir() else mount / controller):
            folders[controller] = folder if folder.is_dir() else mount / controller
    enforced = frozenset(folders) & frozenset(_WANTED)
    why = "" if len(enforced) == len(_WANTED) else f"no right to make control groups under {mount}"
    return Parents(folders, enforced, why)


class Group:
    """The control groups of one sandbox.

    The kernel changes groups one at a time for the whole machine, and moves a process only once no other is being
    forked: while an engine starts, or on a busy machine, a call that takes 0.1 ms took seconds. So changes are made on
    another thread; a worker whose event loop waited for one sent no heartbeat, and lost its leases.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """Take up those that are there, by controller."""
        self._folders = dict(folders)
        self._changing = threading.Lock()
        self._removed = False

    @classmethod
    def planned(cls, parents: Parents) -> Group:
        """Name new ones, which `make` makes: so that whoever is to remove them knows of them before they are there."""
        mine = life.current("")
        name = f"{_PREFIX}{mine.pid}-{_namespace()}-{mine.began}-{uuid.uuid4().hex}"
        return cls({controller: folder / name for controller, folder in parents.folders.items()})

    async def make(self, limits: outcome.Limits) -> None:
        """Make them and set the limits. Raises OSError, FileNotFoundError where they were removed already.

        A caller that is cancelled meanwhile leaves what `remove` removes.
        """
        await asyncio.to_thread(self._make, limits)

    @property
    def folders(self) -> Mapping[str, Path]:
        """Where they are, by controller."""
        return dict(self._folders)

    async def add(self, pid: int) -> None:
        """Put a process in, with all it will start. Raises OSError."""
        await asyncio.to_thread(self._add, pid)

    def read(self) -> accounts.Reading:
        """What the kernel has counted so far. Blocks briefly (files of the kernel, no disk)."""

        def text(controller: str, file: str) -> str | None:
            with contextlib.suppress(OSError, KeyError):
                return (self._folders[controller] / file).read_text()
            return None

        return accounts.read(text)

    async def remove(self) -> None:
        """Remove them; their processes have been waited for, yet the kernel may take a moment. Raises OSError."""
        await asyncio.to_thread(self._remove)

    def _make(self, limits: outcome.Limits) -> None:
        with self._changing:
            if self._removed:
                raise FileNotFoundError(errno.ENOENT, "these control groups were removed before they were made")
            try:
                for controller, folder in self._folders.items():
                    folder.mkdir()
                    for file, value in _settings(controller, limits):
                        if (folder / file).exists():
                            (folder / file).write_text(value)
            except OSError:
                self._remove_each()
                raise

    def _add(self, pid: int) -> None:
        with self._changing:
            for folder in self._folders.values():
                (folder / "cgroup.procs").write_text(str(pid))

    def _remove(self) -> None:
        with self._changing:
            self._removed = True
            self._remove_each()

    def _remove_each(self) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        for folder in self._folders.values():
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.002)
                else:
                    break


def sweep(parents: Parents, *, own_too: bool = False) -> None:
    """Remove the groups of workers that are dead; the kernel refuses where a process still lives in one.

    One that a worker froze to kill it, and could not thaw, is thawed: no signal ends what is frozen (v1).
    ``own_too``: those of this process as well, once it makes none any more.
    Numbers of another PID namespace say nothing here (a worker in a container, beside this one): its groups go once
    they are old.
    """
    for controller, folder in parents.folders.items():
        for left in folder.glob(f"{_PREFIX}*-*"):
            pid, namespace, began, *_ = (*left.name.removeprefix(_PREFIX).split("-")[:-1], "", "")
            with contextlib.suppress(OSError, ValueError):
                is_old = namespace == _namespace() or time.time() - left.stat().st_mtime > _NEW_SECONDS
                if is_old and (_is_over(int(pid), began) or (own_too and pid == str(os.getpid()))):
                    freezer.thaw({controller: left})
                    left.rmdir()


def _is_over(pid: int, began: str) -> bool:
    """Whether the worker that made a group has ended; older versions' groups do not say when it began."""
    return life.Life("", pid, int(began)).is_over if began else not Path(f"/proc/{pid}").exists()


def _namespace() -> str:
    """Of the numbers of our processes; empty where the kernel does not say it."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    return ""


def _settings(controller: str, limits: outcome.Limits) -> Iterator[tuple[str, str]]:
    quota = max(_LEAST_QUOTA, limits.cpu_quota)
    if controller in {"memory", ""}:
        # v1 wants the smaller limit first; v2 has one for each.
        yield "memory.limit_in_bytes", str(limits.memory_bytes)
        yield "memory.memsw.limit_in_bytes", str(limits.memory_bytes)
        yield "memory.max", str(limits.memory_bytes)
        yield "memory.swap.max", "0"
        yield "memory.oom.group", "0"  # the task's processes one by one, so that hivemind-init can tell of it
    if controller in {"pids", ""}:
        yield "pids.max", str(limits.pids)
    if controller in {"cpu", ""}:
        yield "cpu.cfs_period_us", str(_PERIOD)
        yield "cpu.cfs_quota_us", str(quota)
        yield "cpu.max", f"{quota} {_PERIOD}"


def _can_make(folder: Path) -> bool:
    child = folder / f"hivemind-probe-{os.getpid()}"
    try:
        child.mkdir()
    except OSError:
        return False
    child.rmdir()
    return True


def _probe_v2(own: Path) -> Parents:
    if not _can_make(own):
        return Parents(
            {}, frozenset(), f"no right to make control groups under {own}: run the service with Delegate=yes"
        )
    control = own / "cgroup.subtree_control"
    wanted = [name for name in _WANTED if name in (own / "cgroup.controllers").read_text().split()]
    missing = [name for name in wanted if name not in control.read_text().split()]
    try:
        if missing and own != _MOUNT:
            leaf = own / "worker"
            leaf.mkdir(exist_ok=True)
            for pid in (own / "cgroup.procs").read_text().split():
                (leaf / "cgroup.procs").write_text(pid)
        control.write_text(" ".join(f"+{name}" for name in wanted))
    except OSError as error:
        return Parents({}, frozenset(), f"control groups under {own} cannot be used: {error.strerror}")
    return Parents({"": own}, frozenset(wanted), "" if len(wanted) == len(_WANTED) else "some controllers are missing")
