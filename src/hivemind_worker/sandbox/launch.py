"""Bubblewrap: what a sandbox is made of, as a pure list of arguments.

All namespaces are new; the root is an empty memory file system, read-only when it is furnished: the host's programs and
libraries, a handful of files of /etc, a small /dev, two capped memory file systems. hivemind-init is its first process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hivemind_worker.sandbox import life
from hivemind_worker.task import plan

USER: Final = 65534
"""uid and gid of a task inside, and outside too when the worker is root: the host's uid 0 is never a task's."""

PROGRAM: Final = "/.hivemind/hivemind-init"
_MIB: Final = 1024 * 1024

PASSWD: Final = b"root:x:0:0::/nonexistent:/usr/sbin/nologin\nnobody:x:65534:65534::/workspace:/bin/sh\n"
GROUP: Final = b"root:x:0:\nnogroup:x:65534:\n"


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
    """Sizes of one sandbox in bytes, and the host's folder for its workspace when that is not in memory."""

    workspace_bytes: int
    scratch_bytes: int
    workspace: Path | None = None


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
    files: Mapping[str, int] = field(default_factory=dict)

    @property
    def own(self) -> tuple[int, ...]:
        """Those of every sandbox, in the order of the fields."""
        return (self.program, self.passwd, self.group, self.filter, self.info, self.block)


def arguments(
    furnishing: Furnishing, room: Room, fds: Fds, bwrap: str = "bwrap", making: Making | None = None
) -> list[str]:
    """Return the whole command line. Pure."""
    said = [bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    # hivemind-init is made to be the first process; where it does not run, bubblewrap's own is.
    said += ["--as-pid-1"] if making is None else []
    said += ["--unshare-net"] if making is None or not making.network else []
    said += ["--unshare-cgroup-try", "--uid", str(USER), "--gid", str(USER), "--hostname", "capsule"]
    said += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    said += ["--setenv", life.VARIABLE, furnishing.mark] if furnishing.mark else []
    for folder in furnishing.folders:
        said += ["--ro-bind", folder, folder]
    for link, target in furnishing.links.items():
        said += ["--symlink", target, link]
    for file in furnishing.files:
        said += ["--ro-bind", file, file]
    for place, path in making.folders.items() if making is not None else ():
        said += ["--bind", str(path), place]
    for place, folder in furnishing.elsewhere.items():
        said += ["--ro-bind", folder, place]
    for place, fd in fds.files.items():
        said += ["--perms", "0555", "--ro-bind-data", str(fd), place]
    said += ["--perms", "0444", "--ro-bind-data", str(fds.passwd), "/etc/passwd"]
    said += ["--perms", "0444", "--ro-bind-data", str(fds.group), "/etc/group"]
    said += ["--perms", "0555", "--ro-bind-data", str(fds.program), PROGRAM]
    said += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    said += ["--perms", "1777", "--size", str(_MIB), "--tmpfs", "/dev/shm"]  # noqa: S108 - the task's own
    said += ["--perms", "1777", "--size", str(room.scratch_bytes), "--tmpfs", "/tmp"]  # noqa: S108 - the task's own
    if room.workspace is None:
        said += ["--perms", "0700", "--size", str(room.workspace_bytes), "--tmpfs", plan.WORKSPACE]
    else:
        said += ["--bind", str(room.workspace), plan.WORKSPACE]
    said += ["--remount-ro", "/", "--chdir", "/"]
    said += ["--seccomp", str(fds.filter), "--info-fd", str(fds.info), "--block-fd", str(fds.block)]
    return (
        [*said, "--", PROGRAM] if making is None else [*said, "--setenv", "PATH", furnishing.path, "--", *making.argv]
    )
