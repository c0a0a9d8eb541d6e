"""The golden container: every container is created from here, and no field of a task goes into it but numbers.

Each line fences one thing; where a class of escape has two independent layers, both are named. Pure.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hivemind_worker.runtime.capsule import system_calls, users
from hivemind_worker.tasks import outcome, plan, spec
from hivemind_worker.units import MIB

USER = 65534
"""uid and gid of what is filled from outside: `nobody` by convention. Tasks have those of their slots, see `users`."""

RIGHTS = ("CHOWN", "KILL", "SETGID", "SETPCAP", "SETUID")
"""What hivemind-init starts with, as root: to give the workspace to the task, become its own user, start the task under
the task's, take all of these from both, and signal the task. Then it has KILL in effect; the task has nothing."""

PROGRAM_FOLDER = "/.hivemind"
PROGRAM = f"{PROGRAM_FOLDER}/hivemind-init"
"""Where hivemind-init lies in every capsule, on a read-only volume."""

LABEL = "io.hivemind"
NODE_LABEL = f"{LABEL}.node-id"
ROLE_LABEL = f"{LABEL}.role"
FILLER = "filler"
"""What one of our objects is for: `capsule`, `filler`, `inspector`, `program`, `workspace`, `environment`."""

KEEPER_LABEL = f"{LABEL}.keeper"
"""On what outlives a node's process: which node made it."""

ENVIRONMENT_LABEL = f"{LABEL}.environment"
ASKED_LABEL = f"{LABEL}.asked"
CONTENTS_LABEL = f"{LABEL}.contents"
"""On an image with packages: its key, the key of what was asked for when it was made, its exact versions."""

OOM_SCORE = 500
"""When the whole machine runs out of memory, tasks go before the worker and the owner's programs."""

FILES = 1024
"""Open files of one process."""


HOSTNAME = "capsule"
"""What a task sees as its host's name, and can look up."""

INSPECTOR_LIMITS = outcome.Limits(512 * MIB, 2 * spec.CPU_PERIOD, 0.0, 64 * MIB, 64)
"""Of a container in which an image's Python says what it is: it took 20 MB where 400 packages were to be named."""

NO_VOLUMES = frozenset({"/", "/dev", "/dev/shm", "/proc"})  # noqa: S108 - the capsule's own
"""Folders that no image may declare as volumes: nothing of ours could cover the engine's volume there."""

_LEAST_QUOTA = 1_000  # the engine refuses less than 1 ms
_SCRATCH = 64 * MIB


@dataclass(frozen=True, slots=True)
class Image:
    """What is needed of a task's image: its id at the engine, what reports call it, its variables and volumes."""

    id: str
    digest: str
    machine: str
    environment: Mapping[str, str]
    volumes: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all tasks of this node.

    ``network`` is the id of the engine's network for tasks with egress, empty where the worker's filter is used;
    ``runtime`` the engine's, empty for its own.
    """

    node_id: str
    boot_id: str
    program_volume: str
    capsule_version: str
    network: str = ""
    runtime: str = ""


def name(around: Surroundings, asked: plan.RunPlan, number: int) -> str:
    """A container's name: nothing a task says can be read in it, and no two are the same."""
    said = "\0".join((around.node_id, around.boot_id, asked.task_id, str(asked.attempt), str(number)))
    return f"hivemind-{hashlib.sha256(said.encode()).hexdigest()[:24]}"


def workspace_in_memory(limits: outcome.Limits) -> bool:
    """Whether the workspace can be a tmpfs: its pages count as the task's memory, so it must fit in well."""
    return limits.disk_bytes <= limits.memory_bytes // 2


def body(around: Surroundings, asked: plan.RunPlan, image: Image, workspace: str = "", slot: int = 0) -> dict[str, Any]:
    """What the engine is asked to create for one attempt. `workspace` names a volume, when it is not in memory.

    The capsule runs under the users of the `slot`.

    Raises ValueError when a workspace too large for memory comes without a volume.
    """
    limits = asked.limits
    if not workspace and not workspace_in_memory(limits):
        raise ValueError(f"{limits.disk_bytes} bytes of disk do not fit into {limits.memory_bytes} of memory")
    pair = users.of_slot(slot)
    labels = {
        NODE_LABEL: around.node_id,
        ROLE_LABEL: "capsule",
        f"{LABEL}.boot-id": around.boot_id,
        f"{LABEL}.task-id": asked.task_id,
        f"{LABEL}.attempt": str(asked.attempt),
        f"{LABEL}.capsule-version": around.capsule_version,
    }
    return {
        "Image": image.id,
        "Hostname": HOSTNAME,
        "User": "0:0",  # only until hivemind-init has become a user of its own
        "Entrypoint": [PROGRAM],
        "Cmd": ["--owner", plan.WORKSPACE, "--users", str(pair.init), str(pair.task)],
        "WorkingDir": "/",
        "Env": [],
        "Labels": labels,
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGKILL",
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "StdinOnce": False,  # a worker that comes back attaches again
        "Tty": False,
        "HostConfig": _host(around, asked, image, workspace, pair.task),
    }


def _host(around: Surroundings, asked: plan.RunPlan, image: Image, workspace: str, uid: int) -> dict[str, Any]:
    limits = asked.limits
    network = network_mode(around, asked)
    mounts = [_volume(around.program_volume, PROGRAM_FOLDER, read_only=True)]
    if workspace:
        mounts.append(_volume(workspace, plan.WORKSPACE, read_only=False))
    return {
        "NetworkMode": network,
        # On a network of its own the engine writes the container's address there.
        "ExtraHosts": [f"{HOSTNAME}:127.0.0.1"] if network == "none" else [],
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": list(RIGHTS),
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={profile(image.machine)}"],
        "ReadonlyRootfs": True,
        "Mounts": mounts,
        "Tmpfs": tmpfs(limits, image.volumes, uid, in_memory=not workspace),
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "CgroupnsMode": "private",
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # the sum of both: no swap
        "CpuPeriod": spec.CPU_PERIOD,
        "CpuQuota": max(_LEAST_QUOTA, limits.cpu_quota),
        "PidsLimit": limits.pids,
        "OomScoreAdj": OOM_SCORE,
        "Ulimits": [
            {"Name": "nofile", "Soft": FILES, "Hard": FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "fsize", "Soft": limits.file_bytes, "Hard": limits.file_bytes},
        ],
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,  # what the engine knows of the end is read before
        "Init": False,
        "PublishAllPorts": False,
        **({"Runtime": around.runtime} if around.runtime else {}),
        **({"DeviceRequests": [_gpus(asked)]} if asked.gpus else {}),
    }


def _gpus(asked: plan.RunPlan) -> dict[str, Any]:
    """The very devices that were reserved; a number alone would let the engine give the same ones twice."""
    if not asked.gpu_devices:
        raise ValueError(f"the task wants {asked.gpus} GPUs, and no devices were reserved for it")
    return {"DeviceIDs": list(asked.gpu_devices), "Capabilities": [["gpu"]]}


def network_mode(around: Surroundings, asked: plan.RunPlan) -> str:
    """`none`, or the owner's network by its id: a task with egress has it only where he wants that and no filter."""
    return "none" if asked.network is plan.Network.NONE else around.network or "none"


def tmpfs(limits: outcome.Limits, image_volumes: Sequence[str], uid: int, *, in_memory: bool) -> dict[str, str]:
    """Every folder a task can write to that lies in memory, each with a cap of bytes and of files; `uid`: the task's.

    The volumes an image declares become small ones too: else the engine makes uncapped ones of the host's disk.
    """
    scratch = max(MIB, min(_SCRATCH, limits.memory_bytes // 4, limits.disk_bytes))
    folders = {path: _tmpfs(scratch, "mode=1777") for path in image_volumes if _overlayable(path)}
    folders["/tmp"] = _tmpfs(scratch, "mode=1777")  # noqa: S108 - the task's own
    # In place of the engine's own, which has 64 MiB and no cap of files.
    folders["/dev/shm"] = _tmpfs(limits.shared_memory_bytes, "noexec", "mode=1777")  # noqa: S108 - the task's
    folders["/run"] = _tmpfs(MIB, "noexec", "mode=0755", f"uid={uid}", f"gid={uid}")
    if in_memory:
        folders[plan.WORKSPACE] = _tmpfs(limits.disk_bytes, "mode=0700", f"uid={uid}", f"gid={uid}")
    return folders


def filler(around: Surroundings, image: str, mounts: Mapping[str, str]) -> dict[str, Any]:
    """A container that is never started: files reach the volumes mounted in it (name → folder) by archive."""
    return {
        "Image": image,
        "Entrypoint": [PROGRAM],
        "Cmd": [],
        "User": f"{USER}:{USER}",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {NODE_LABEL: around.node_id, ROLE_LABEL: FILLER, f"{LABEL}.boot-id": around.boot_id},
        "HostConfig": {
            "NetworkMode": "none",
            "LogConfig": {"Type": "none", "Config": {}},
            "Mounts": [_volume(volume, folder, read_only=False) for volume, folder in mounts.items()],
        },
    }


def inspector(
    around: Surroundings, image: Image, argv: Sequence[str], limits: outcome.Limits | None = None
) -> dict[str, Any]:
    """A golden container in which a program of ours runs by a program of the image's author: to be believed in nothing.

    As fenced as a task's: its user, no network, no capability, a read-only root; nothing of ours is mounted in it.
    """
    limits = limits or INSPECTOR_LIMITS
    asked = plan.RunPlan(
        task_id="inspector",
        attempt=0,
        image="",
        argv=(),
        limits=limits,
        caps=plan.Caps(0, 0, 0, 0, 0, 0.0),
        grace_seconds=0.0,
    )
    golden = body(around, asked, image)
    mounts = [mount for mount in golden["HostConfig"]["Mounts"] if mount["Target"] != PROGRAM_FOLDER]
    return {
        **golden,
        "User": f"{USER}:{USER}",  # no task's, and without a right from the start: hivemind-init is not in it
        "Entrypoint": list(argv),
        "Cmd": [],
        "StdinOnce": True,  # without its worker it ends
        "Labels": {NODE_LABEL: around.node_id, ROLE_LABEL: "inspector", f"{LABEL}.boot-id": around.boot_id},
        "HostConfig": {
            **golden["HostConfig"],
            "CapAdd": [],
            "Mounts": mounts,
            "Tmpfs": tmpfs(limits, image.volumes, USER, in_memory=True),
        },
    }


@functools.cache
def profile(machine: str) -> str:
    """The seccomp profile as the engine takes it: JSON text."""
    return json.dumps(system_calls.engine_profile(machine), separators=(",", ":"))


def _tmpfs(size: int, *more: str) -> str:
    # One file per 4 KiB, so that files without content cost no more than the bytes allowed.
    return ",".join(("rw", "nosuid", "nodev", *(() if "noexec" in more else ("exec",)), f"size={size}",
                     f"nr_inodes={max(64, size // 4096)}", *more))  # fmt: skip


def _volume(name: str, folder: str, *, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "volume",
        "Source": name,
        "Target": folder,
        "ReadOnly": read_only,
        "VolumeOptions": {"NoCopy": True},  # nothing of the image goes into it
    }


def _overlayable(path: str) -> bool:
    """Not what we mount ourselves, nor the root."""
    own = {"", "/tmp", "/run", plan.WORKSPACE, PROGRAM_FOLDER}  # noqa: S108
    return path.rstrip("/") not in own and path.rstrip("/") not in NO_VOLUMES
