"""The boots of the machine under which the pool may last have heard of this node, until it hears of the present one.

The journal's first line names the present boot as soon as the journal is open. A process that ends before it has
registered would take with it what the next one has to tell, so that lies beside the journal meanwhile. The worker
cannot tell under which of several boots the pool heard last: a power cut brings back a file whose removal had not
reached the disk, and a worker of an older version leaves it. So all of them are told; one too many says nothing false,
as none of them can be the boot of a process that lives.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from hivemind_worker.filesystem import private_file
from hivemind_worker.worker.journal import compaction

MAX_BOOTS = 16
"""More in a row are hardly registered under none: the first and the newest are kept then."""

_BOOT_ID = re.compile(r"[!-~]{1,64}", re.ASCII)
"""A kernel's has 36 characters. Anything else is what a disk made of one."""

_MAX_BYTES = MAX_BOOTS * 65


def path_beside(journal: Path) -> Path:
    """Return where it lies."""
    return journal.with_name(f"{journal.name}.former-boot")


def keep(journal: Path, boot_id: str) -> tuple[str, ...]:
    """Add a boot's id, unless it is empty or no id, to those that are recorded; return all, the first one last.

    They are on the disk afterwards. Blocks. Raises OSError where they cannot be written.
    """
    path = path_beside(journal)
    recorded = _read(path)
    if boot_id in recorded or _BOOT_ID.fullmatch(boot_id) is None:
        return recorded
    boots = (boot_id, *recorded)
    boots = (*boots[: MAX_BOOTS - 1], *boots[MAX_BOOTS - 1 :][-1:])
    prepared = path.with_name(f"{path.name}.new")
    with private_file.open_binary(prepared, "wb") as file:
        file.writelines(f"{boot}\n".encode() for boot in boots)
        file.flush()
        os.fsync(file.fileno())
    prepared.replace(path)
    compaction.sync_folder(path.parent)
    return boots


def _read(path: Path) -> tuple[str, ...]:
    """Return the ids that are recorded; what cannot be read says nothing, and is written anew."""
    content = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        content = file.read(_MAX_BYTES)
    return tuple(line for line in content.decode("ascii", "replace").split("\n") if _BOOT_ID.fullmatch(line))


def forget(journal: Path) -> None:
    """The pool has heard of the present boot. Blocks. What the disk does not let go of is told again, to no effect."""
    with contextlib.suppress(OSError):
        path_beside(journal).unlink()
        compaction.sync_folder(journal.parent)
