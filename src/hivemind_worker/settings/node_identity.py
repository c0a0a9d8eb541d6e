"""This node's own name: as set, else made once and kept in the state folder."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir, private_file

FILE_NAME = "node-id"
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def keep(state_dir: Path, set_name: str = "") -> str:
    """The node's name: `set_name` if there is one (it is not written down), else the kept one, made if need be.

    Two workers starting at once on one folder get the same name: the file appears whole or not at all, and the first
    one stays. Raises `errors.BadSettings` when the folder cannot be written or holds something that is no name.
    """
    if set_name:
        return set_name
    path = state_dir / FILE_NAME
    try:
        if not path.exists():
            _write_once(path, f"worker-{secrets.token_hex(4)}")
        name = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise errors.BadSettings(
            f"the node's name cannot be kept in {state_dir} ({error.strerror}): make the folder writable, "
            "set another state_dir, or set node_id"
        ) from error
    if not _SAFE.fullmatch(name):
        raise errors.BadSettings(f"{path} holds no node name: delete the file to have one made, or set node_id")
    return name


def _write_once(path: Path, name: str) -> None:
    """Stage the file beside its place and link it there, which fails if another process was first."""
    private_dir.make(path.parent)
    staged = path.with_name(f".{FILE_NAME}-{secrets.token_hex(8)}")
    try:
        with private_file.open_binary(staged, "xb") as file:
            file.write(f"{name}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(staged, path)
        except FileExistsError:
            return  # the other one's name is as good; it is read next
        except OSError:
            # A file system without hard links: still whole or not at all, though of two at once the later one stays.
            staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
