"""Which of our defences this machine's own sandboxes have, from what the machine has to make them of."""

from __future__ import annotations

from hivemind_worker.runtime import executor
from hivemind_worker.runtime.sandbox import limits


def read(groups: limits.Parents, cannot_outlive: str, *, has_python: bool) -> tuple[executor.Defence, ...]:
    """Say what is in force and what is not. ``cannot_outlive``: why no sandbox outlives its worker. Pure."""

    def limited(check: str, controller: str, instead: str) -> executor.Defence:
        if controller in groups.enforced:
            return executor.Defence(check, in_force=True)
        return executor.Defence(check, in_force=False, why=f"{groups.why_not}; {instead}",
                                fix="run the worker as a service with Delegate=yes, or use Docker")  # fmt: skip

    no_python = "" if has_python else "no python3 in /usr, and the worker's own is not readable for tasks"
    return (
        executor.Defence("namespaces and system call filter", in_force=True),
        limited("memory limit", "memory", "limited per process instead (RLIMIT_DATA), shared memory not"),
        limited("process limit", "pids", "limited per user instead (RLIMIT_NPROC)"),
        limited("processor quota", "cpu", "tasks share all processors"),
        executor.Defence(executor.OUTLIVES, not cannot_outlive, cannot_outlive,
                         "set KillMode=process in its unit, or use Docker" if cannot_outlive else ""),
        executor.Defence("python3 for tasks", has_python, no_python,
                         "install the distribution's python3" if no_python else ""),
    )  # fmt: skip
