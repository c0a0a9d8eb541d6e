"""Bubblewrap: what a sandbox is made of, as a pure list of arguments.

All namespaces are new; the root is an empty memory file system, read-only when it is furnished: the host's programs and
libraries, a handful of files of /etc, a small /dev. hivemind-init is its first process: it mounts the memory file
systems, which bubblewrap cannot give a cap of files, sets the filter of system calls, and gives up the rights to do so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from hivemind_worker.runtime.capsule import users
from hivemind_worker.runtime.sandbox import life
from hivemind_worker.tasks import outcome, plan
from hivemind_worker.units import MIB

_SCRATCH: Final = 64 * MIB

USER: Final = users.INSIDE_TASK
"""uid and gid of a task inside. Outside it has its slot's when the worker is root, else the worker's own.

What a `Making` runs has it outside too, when the worker is root: the host's uid 0 is nobody's.
"""

PROGRAM: Final = "/.hivemind/hivemind-init"
FILTER: Final = "/.hivemind/system-calls"
HOSTNAME: Final = "capsule"

PASSWD: Final = b"root:x:0:0::/nonexistent:/usr/sbin/nologin\nnobody:x:65534:65534::/workspace:/bin/sh\n"
GROUP: Final = b"root:x:0:\nnogroup:x:65534:\n"
# Programs look up their own host: MPI, PyTorch's rendezvous, Java. There is no name server to ask.
HOSTS: Final = f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n".encode()
NAME_SERVICES: Final = b"passwd: files\ngroup: files\nhosts: files dns\n"


@dataclass(frozen=True, slots=True)
class Furnishing:
    """What of the host is seen inside, read-only. ``links`` are made anew; ``path`` is PATH inside.

    ``elsewhere`` are folders of the host that lie in another place inside: place inside → folder of the host. ``mark``
    says who made the sandbox, see `life`; empty: nobody looks for it.
    """

    folders: tuple[str, ...]
    links: Mapping[str, str]
    files: tuple[str, ...]
    path: str
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """Sizes of one sandbox in bytes, and the host's folder for its workspace when that is not in memory.

    ``scratch_bytes`` are /tmp's, ``shared_bytes`` those of /dev/shm.
    """

    workspace_bytes: int
    scratch_bytes: int
    workspace: Path | None = None
    shared_bytes: int = MIB

    @classmethod
    def of(cls, limits: outcome.Limits, workspace: Path | None = None) -> Self:
        """Return the sizes that a task's limits give."""
        scratch = max(MIB, min(_SCRATCH, limits.memory_bytes // 4, limits.disk_bytes))
        return cls(limits.disk_bytes, scratch, workspace, limits.shared_memory_bytes)


@dataclass(frozen=True, slots=True)
class Making:
    """A sandbox of another sort: it makes what tasks use later.

    ``argv`` runs in it instead of hivemind-init; ``files`` are copied into it and ``folders`` can be written: place
    inside → path on the host. ``network``: it has the host's; then nothing that an author wrote may run in it.
    """

    argv: tuple[str, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    network: bool = False


@dataclass(frozen=True, slots=True)
class Fds:
    """Open files handed to bubblewrap: its contents and how we speak with it. ``files`` are those of a `Making`."""

    program: int
    passwd: int
    group: int
    filter: int
    info: int
    block: int
    id_map: int
    hosts: int
    name_services: int
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def own(self) -> tuple[int, ...]:
        """Those of every sandbox, in the order of the fields."""
        return (self.program, self.passwd, self.group, self.filter, self.info, self.block, self.id_map, self.hosts,
                self.name_services)  # fmt: skip


def arguments(
    furnishing: Furnishing,
    room: Room,
    fds: Fds,
    bwrap: str = "bwrap",
    making: Making | None = None,
    *,
    separate: bool = False,
) -> list[str]:
    """Return the whole command line. Pure.

    ``separate``: its first process and its task have a uid each, by a map that the worker, which is root, writes.
    """
    words = [bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    # hivemind-init is made to be the first process; where it does not run, bubblewrap's own is.
    words += ["--as-pid-1"] if making is None else []
    words += ["--unshare-net"] if making is None or not making.network else []
    words += ["--userns-block-fd", str(fds.id_map)] if separate else ["--uid", str(USER), "--gid", str(USER)]
    words += ["--unshare-cgroup-try", "--hostname", HOSTNAME]
    words += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    words += ["--setenv", life.VARIABLE, furnishing.mark] if furnishing.mark else []
    # Those that bubblewrap makes itself are for its own user alone, which is not the task's.
    for parent in _parents((*furnishing.folders, *furnishing.files, *furnishing.elsewhere)):
        words += ["--perms", "0755", "--dir", parent]
    for folder in furnishing.folders:
        words += ["--ro-bind", folder, folder]
    for link, target in furnishing.links.items():
        words += ["--symlink", target, link]
    for file in furnishing.files:
        words += ["--ro-bind", file, file]
    for place, path in making.folders.items() if making is not None else ():
        words += ["--bind", str(path), place]
    for place, folder in furnishing.elsewhere.items():
        words += ["--ro-bind", folder, place]
    for place, fd in fds.files.items():
        words += ["--perms", "0555", "--ro-bind-data", str(fd), place]
    words += ["--perms", "0444", "--ro-bind-data", str(fds.passwd), "/etc/passwd"]
    words += ["--perms", "0444", "--ro-bind-data", str(fds.group), "/etc/group"]
    words += ["--perms", "0555", "--ro-bind-data", str(fds.program), PROGRAM]
    words += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    words += ["--info-fd", str(fds.info), "--block-fd", str(fds.block)]
    if making is None:
        return words + _with_init(room, fds, separate=separate)
    for place, size in {"/dev/shm": room.shared_bytes, "/tmp": room.scratch_bytes}.items():  # noqa: S108 - the task's
        words += ["--perms", "1777", "--size", str(size), "--tmpfs", place]
    if room.workspace is None:
        words += ["--perms", "0700", "--size", str(room.workspace_bytes), "--tmpfs", plan.WORKSPACE]
    else:
        words += ["--bind", str(room.workspace), plan.WORKSPACE]
    words += ["--remount-ro", "/", "--chdir", "/", "--seccomp", str(fds.filter)]
    return [*words, "--setenv", "PATH", furnishing.path, "--", *making.argv]


def _parents(places: Iterable[str]) -> list[str]:
    """Every folder on the way to these, the outer ones first."""
    return sorted({str(parent) for place in places for parent in Path(place).parents} - {"/"})


def _with_init(room: Room, fds: Fds, *, separate: bool) -> list[str]:
    """What hivemind-init is to find, the rights it starts with, and what it makes of them."""
    words = []
    for fd, place in ((fds.filter, FILTER), (fds.hosts, "/etc/hosts"), (fds.name_services, "/etc/nsswitch.conf")):
        words += ["--perms", "0444", "--ro-bind-data", str(fd), place]
    for right in ("SYS_ADMIN", "SETPCAP", *(("SETUID", "SETGID", "KILL") if separate else ())):
        words += ["--cap-add", f"CAP_{right}"]  # in its own user namespace only
    mounts = {"/dev/shm": _memory(room.shared_bytes, "1777"), "/tmp": _memory(room.scratch_bytes, "1777")}  # noqa: S108 - the task's
    if room.workspace is None:
        mounts[plan.WORKSPACE] = _memory(room.workspace_bytes, "0700")
    else:
        words += ["--bind", str(room.workspace), plan.WORKSPACE]
    for place in mounts:
        words += ["--dir", place] if place != "/dev/shm" else []  # noqa: S108 - it is in /dev
    words += ["--remount-ro", "/", "--chdir", "/", "--", PROGRAM]
    for place, options in mounts.items():
        words += ["--tmpfs", place, options]
    words += ["--users", str(users.INSIDE_INIT), str(users.INSIDE_TASK)] if separate else []
    return [*words, "--filter", FILTER]


def max_files(size: int) -> int:
    """Of a memory file system: one per 4 KiB, so that files without content cost no more than the bytes allowed."""
    return max(64, size // 4096)


def _memory(size: int, mode: str) -> str:
    return f"size={size},nr_inodes={max_files(size)},mode={mode},uid={USER},gid={USER}"
