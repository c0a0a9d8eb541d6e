"""What is promised of a task in a sandbox, read off what the sandbox is made of."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from hivemind_worker.runtime.capsule import defence_spec, system_calls
from hivemind_worker.runtime.sandbox import launch, probe
from hivemind_worker.tasks import plan

_MOUNTS: Final = frozenset({"/proc", "/dev", "/dev/pts", "/dev/shm"})  # noqa: S108 - the task's own
_FILES: Final = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", launch.PROGRAM, launch.FILTER)
_ABSENT: Final = ("/var/run/docker.sock", "/run", "/var", "/etc/shadow", "/root", "/home", "/boot", "/sys")


def promised(
    ground: probe.Ground, asked: plan.RunPlan, room: launch.Room, open_files: int, file_bytes: int
) -> defence_spec.DefenceSpec:
    """Return what a task with this plan is promised; limits that no control group keeps are not promised."""
    sizes = {
        "/tmp": room.scratch_bytes,  # noqa: S108 - the task's own
        "/dev/shm": room.shared_bytes,  # noqa: S108 - the task's own
        plan.WORKSPACE: room.workspace_bytes,
    }
    folders = {place: defence_spec.MemoryFolder(size, launch.max_files(size)) for place, size in sizes.items()}
    shown = {str(Path(folder)) for folder in ground.furnishing.folders}
    return defence_spec.DefenceSpec(
        machine=ground.machine,
        limits=asked.limits,
        memory_folders=folders,
        mounts=_MOUNTS,
        files=frozenset((*ground.furnishing.files, *_FILES)),
        folders=ground.furnishing.folders,
        enforced=ground.groups.enforced,
        open_files=open_files,
        file_bytes=file_bytes,
        first_apart=ground.drop_to is not None,
        fresh_namespaces=frozenset({"ipc", "mnt", "net", "pid", "user", "uts"}),
        own_namespaces=_own_namespaces(),
        absent=tuple(path for path in _ABSENT if not any(folder.startswith(path) for folder in shown)),
        allowed_calls=frozenset(system_calls.allowed(ground.machine)),
    )


def _own_namespaces() -> dict[str, int]:
    rows = {}
    for name in ("ipc", "mnt", "net", "pid", "user", "uts"):
        with contextlib.suppress(OSError):
            rows[name] = Path(f"/proc/self/ns/{name}").stat().st_ino
    return rows
