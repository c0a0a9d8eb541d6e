"""What is promised of a task in a container, read off the very specification that the engine is given."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hivemind_worker.runtime.capsule import defence_spec, system_calls
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening, own_image
from hivemind_worker.tasks import plan

_MOUNTS: Final = frozenset({"/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys", "/sys/fs/cgroup"})  # noqa: S108
_FILES: Final = frozenset({hardening.PROGRAM_FOLDER, "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"})
"""The engine mounts those of /etc, without our asking, and always its own."""

_ABSENT: Final = ("/var/run/docker.sock", "/run/docker.sock", "/var/lib/docker", "/etc/shadow", "/root", "/home")
_OWN_RUNTIMES: Final = frozenset({"", "runc", "crun", "io.containerd.runc.v2"})
"""Those that run a container on the machine's own kernel, so that its mounts are the kernel's word."""


async def promised(
    engine: engines.Engine, context: hardening.Surroundings, asked: plan.RunPlan
) -> defence_spec.DefenceSpec:
    """Return what a task with this plan is promised in our own image. Raises EngineLost, engine.Refused, NodeFault."""
    info = await engine.info()
    image = await own_image.ensure(engine)
    body = hardening.body(context, asked, image)
    runtime = context.runtime or str(info.get("DefaultRuntime") or "")
    options = " ".join(info.get("SecurityOptions") or ())
    inodes = own_namespaces() if engine.local else {}
    return spec_of(body, asked, image.machine, is_own_kernel=runtime in _OWN_RUNTIMES, label="apparmor" in options,
                   inodes=inodes)  # fmt: skip


def spec_of(
    body: Mapping[str, Any],
    asked: plan.RunPlan,
    machine: str,
    *,
    is_own_kernel: bool = True,
    label: bool = False,
    inodes: Mapping[str, int] | None = None,
) -> defence_spec.DefenceSpec:
    """Read what is promised off a container's specification. Pure."""
    host = body["HostConfig"]
    ulimits = {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]}
    folders = {path: _folder(options) for path, options in host["Tmpfs"].items()}
    folders.setdefault("/dev/shm", defence_spec.MemoryFolder(host.get("ShmSize", 0), 0))  # noqa: S108 - the task's own
    fresh = {"ipc", "mnt", "net", "pid", "uts", *(["cgroup"] if host.get("CgroupnsMode") == "private" else [])}
    return defence_spec.DefenceSpec(
        machine=machine,
        limits=asked.limits,
        memory_folders=folders,
        mounts=_MOUNTS,
        files=_FILES,
        open_files=ulimits["nofile"],
        file_bytes=ulimits["fsize"],
        masks=is_own_kernel,
        oom_score=host["OomScoreAdj"],
        label=label,
        first_apart="--users" in body["Cmd"],
        fresh_namespaces=frozenset(fresh) if is_own_kernel else frozenset(),
        own_namespaces=inodes or {},
        absent=_ABSENT,
        allowed_calls=frozenset(system_calls.allowed(machine)),
    )


def own_namespaces() -> Mapping[str, int]:
    """The inodes of this process's own namespaces, by name; without those that the kernel does not tell."""
    rows = {}
    for name in ("cgroup", "ipc", "mnt", "net", "pid", "uts"):
        with contextlib.suppress(OSError):
            rows[name] = Path(f"/proc/self/ns/{name}").stat().st_ino
    return rows


def _folder(options: str) -> defence_spec.MemoryFolder:
    pairs = dict(pair.partition("=")[::2] for pair in options.split(","))
    return defence_spec.MemoryFolder(int(pairs.get("size", 0)), int(pairs.get("nr_inodes", 0)))
