"""The boot of the machine under which the pool last heard of this node, until the pool has heard of the present one.

The journal's first line names the present boot as soon as the journal is open. A process that ends before it has
registered would take with it what the next one has to tell, so that lies beside the journal meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hivemind_worker.journal import compaction

MAX_CHARS = 64
"""A kernel's boot id has 36."""


def path_beside(journal: Path) -> Path:
    """Return where it lies."""
    return journal.with_name(f"{journal.name}.former-boot")


def keep(journal: Path, boot_id: str) -> str:
    """Keep a boot's id, unless one is recorded already; return the recorded one, empty for none.

    It is on the disk afterwards. Blocks. Raises OSError.
    """
    path = path_beside(journal)
    try:
        recorded = path.read_text(encoding="ascii", errors="replace")[:MAX_CHARS]
    except FileNotFoundError:
        recorded = ""
    if recorded or not boot_id:
        return recorded
    prepared = path.with_name(f"{path.name}.new")
    with prepared.open("w", encoding="ascii") as file:
        file.write(boot_id)
        file.flush()
        os.fsync(file.fileno())
    prepared.replace(path)
    compaction.sync_folder(path.parent)
    return boot_id


def forget(journal: Path) -> None:
    """The pool has heard of the present boot. Blocks. What the disk does not let go of is told again, to no effect."""
    with contextlib.suppress(OSError):
        path_beside(journal).unlink(missing_ok=True)
