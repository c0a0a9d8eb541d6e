"""What this machine has to make sandboxes of: bubblewrap, namespaces, control groups, a Python inside."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hivemind_worker import errors
from hivemind_worker.runtime.capsule import users
from hivemind_worker.runtime.sandbox import launch, limits, process

_PROGRAMS: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_FOLDERS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Of /etc only what programs need to be found and to run; certificates, never private keys.
_ETC: Final = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "mime.types", "ssl/certs",
               "pki/tls/certs", "fonts", "python3", "python3.11", "python3.12", "python3.13")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ground:
    """What sandboxes on this machine are made of."""

    bwrap: str
    machine: str
    drop_to: int | None
    furnishing: launch.Furnishing
    python: str
    groups: limits.Parents


async def ground(mark: str = "") -> Ground:
    """Look, and make one sandbox to be sure that it works (about 15 ms); all made of it bear the ``mark``, see `life`.

    Raises IsolationMissing saying what to do.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise errors.IsolationMissing("bubblewrap is not installed; install the package `bubblewrap`")
    root = os.geteuid() == 0
    furnishing, python = furnish(Path("/"), None if not root else launch.USER)
    furnishing = dataclasses.replace(furnishing, mark=mark)
    found = Ground(bwrap, platform.machine(), launch.USER if root else None, furnishing, python, limits.probe())
    room = launch.Room(workspace_bytes=1024 * 1024, scratch_bytes=1024 * 1024)
    try:
        pair = users.of_slot(0) if root else None
        trial = await process.start(furnishing, room, found.machine, bwrap=bwrap, drop_to=found.drop_to, pair=pair)
    except LookupError as error:
        raise errors.IsolationMissing(str(error)) from error
    try:
        trial.go()
        if not await trial.read():
            raise errors.IsolationMissing(f"a sandbox ended before its first word: {trial.complaint}")
    finally:
        await trial.close()
    return found


def furnish(root: Path, uid: int | None) -> tuple[launch.Furnishing, str]:
    """Look at the host's folders beneath `root`: what to show inside, and where the Python is (empty: none).

    `uid`: whom it must be readable for, when that is not us.
    """
    links, folders = {}, ["/usr"]
    for name in _FOLDERS:
        path = root / name.lstrip("/")
        if path.is_symlink():
            links[name] = str(path.readlink())
        elif path.is_dir():
            folders.append(name)
    files = [f"/etc/{name}" for name in _ETC if (root / "etc" / name).exists()]
    search = ":".join(_PROGRAMS)
    python = shutil.which("python3", path=search) or ""
    if not python and not getattr(sys, "frozen", False):
        prefix = Path(sys.base_prefix).resolve()
        if (prefix / "bin/python3").exists() and (uid is None or _reachable(prefix)):
            folders.append(str(prefix))
            search = f"{prefix}/bin:{search}"
            python = f"{prefix}/bin/python3"
    return launch.Furnishing(tuple(folders), links, tuple(files), search), python


def _reachable(path: Path) -> bool:
    """Whether everyone may go there: each folder on the way has the search bit for others."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
