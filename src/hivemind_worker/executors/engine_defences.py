"""Which of our defences an engine has, from what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hivemind_worker.executors import executor


def read(info: Mapping[str, Any]) -> tuple[executor.Defence, ...]:
    """Read them from the engine's account of itself (`docker info`). Pure."""
    options = " ".join(info.get("SecurityOptions") or ())

    def line(check: str, in_force: bool, why: str, fix: str) -> executor.Defence:  # noqa: FBT001 - a row of a table
        return executor.Defence(check, in_force, "" if in_force else why, "" if in_force else fix)

    kernel = "use a kernel with this controller, or one where it is not switched off at boot"
    return (
        line(executor.OUTLIVES, True, "", ""),  # noqa: FBT003 - a row of a table
        line("memory limit", bool(info.get("MemoryLimit")), "the engine cannot limit memory", kernel),
        line("no swap", bool(info.get("SwapLimit")), "the engine cannot limit swap", "boot with swapaccount=1"),
        line("processor quota", bool(info.get("CpuCfsQuota")), "the engine cannot limit processors", kernel),
        line("process limit", bool(info.get("PidsLimit")), "the engine cannot limit processes", kernel),
        line("system call filter", "seccomp" in options, "the engine was built without seccomp", "use another build"),
        line("mandatory access control", "apparmor" in options or "selinux" in options, "no AppArmor or SELinux",
             "optional second layer: switch one on"),
        line("user namespace", "userns" in options or "rootless" in options, "container uids are the host's own",
             "optional second layer: set userns-remap in the engine's daemon.json"),
    )  # fmt: skip
