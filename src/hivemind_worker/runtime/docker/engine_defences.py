"""Which of our defences an engine has, from what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hivemind_worker import errors
from hivemind_worker.runtime import executor
from hivemind_worker.runtime.docker import engine as engines


async def fitness(engine: engines.Engine, runtime: str, differences: tuple[str, ...]) -> executor.Fitness:
    """Ask the engine what it is; ``runtime``: the one to be used, empty for its own. Raises nothing but cancellation.

    ``differences``: what it made otherwise than it was told; such an engine is not to be used.
    """
    try:
        version = await engine.connect()
        info = await engine.info()
    except errors.NodeFault as error:
        return executor.Fitness(usable=False, isolation="docker", runtime="", why=str(error), differences=differences)
    runtime = runtime or str(info.get("DefaultRuntime", ""))
    why = ""
    if runtime not in (info.get("Runtimes") or {runtime: None}):
        why = f"the engine has no runtime {runtime}; set docker_runtime to one it has"
    elif differences:
        why = f"the engine makes other containers than it is told to: {'; '.join(differences)[:500]}"
    return executor.Fitness(
        usable=not why,
        isolation="docker",
        runtime=f"Docker {version.get('Version', '?')} ({runtime})",
        why=why,
        defences=read(info),
        differences=differences,
    )


def read(info: Mapping[str, Any]) -> tuple[executor.Defence, ...]:
    """Read them from the engine's account of itself (`docker info`). Pure."""
    options = " ".join(info.get("SecurityOptions") or ())

    def line(check: str, in_force: bool, why: str, fix: str, tried: str = "") -> executor.Defence:  # noqa: FBT001 - a row of a table
        return executor.Defence(check, in_force, "" if in_force else why, "" if in_force else fix, tried)

    kernel = "use a kernel with this controller, or one where it is not switched off at boot"
    return (
        line(executor.OUTLIVES, True, "", ""),  # noqa: FBT003 - a row of a table
        line("memory limit", bool(info.get("MemoryLimit")), "the engine cannot limit memory", kernel, "memory"),
        line("no swap", bool(info.get("SwapLimit")), "the engine cannot limit swap", "boot with swapaccount=1"),
        line("processor quota", bool(info.get("CpuCfsQuota")), "the engine cannot limit processors", kernel,
             "processor"),
        line("process limit", bool(info.get("PidsLimit")), "the engine cannot limit processes", kernel,
             "processes_limit"),
        line("system call filter", "seccomp" in options, "the engine was built without seccomp", "use another build",
             "system_calls"),
        line("mandatory access control", "apparmor" in options or "selinux" in options, "no AppArmor or SELinux",
             "optional second layer: switch one on", "label"),
        line("user namespace", "userns" in options or "rootless" in options, "container uids are the host's own",
             "optional second layer: set userns-remap in the engine's daemon.json"),
    )  # fmt: skip
