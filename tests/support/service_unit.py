"""A control group as systemd makes one for a unit with KillMode=mixed or control-group: all in it ends together."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import waiting

MOUNTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))


class ServiceUnit:
    """The group of one unit. ``prefix`` starts a command in it, ``environment`` is what systemd would tell it."""

    def __init__(self, group: Path, folder: Path) -> None:
        self._group = group
        self.prefix = ("/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
        self.environment = {"INVOCATION_ID": "0" * 32, "PATH": f"{folder}:{os.environ['PATH']}"}

    async def kill(self) -> None:
        """SIGKILL to everything in the group, and wait until it is empty."""
        (self._group / "cgroup.kill").write_text("1")
        await waiting.wait_until(lambda: not self.pids(), description="the unit's group is empty", seconds=20)

    def pids(self) -> set[int]:
        """All that is in the group, and in groups below it."""
        found: set[int] = set()
        for at, _, _ in os.walk(self._group):
            with contextlib.suppress(OSError):  # a group that went meanwhile, with all in it
                found |= {int(word) for word in Path(at, "cgroup.procs").read_text(encoding="ascii").split()}
        return found


def mount() -> Path | None:
    """Return where control groups of version 2 can be made, ``None`` where they cannot."""
    for place in MOUNTS:
        probe = place / f"hivemind-test-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            probe.mkdir()
            can = (probe / "cgroup.kill").exists()
            probe.rmdir()
            if can:
                return place
    return None


@contextlib.contextmanager
def unit(folder: Path) -> Iterator[ServiceUnit]:
    """A unit within this block, with a `systemctl` in ``folder`` that says how it is killed."""
    place = mount()
    assert place is not None
    group = place / f"hivemind-test-{secrets.token_hex(4)}.service"
    group.mkdir()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "systemctl").write_text("#!/bin/sh\necho mixed\n")
    (folder / "systemctl").chmod(0o755)
    try:
        yield ServiceUnit(group, folder)
    finally:
        (group / "cgroup.kill").write_text("1")
        for at, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(at).rmdir()
        subprocess.run(["rmdir", group], check=False, capture_output=True)
