"""Limits per process of a sandbox's task: always some, and those that stand in where a control group is missing."""

from __future__ import annotations

import resource
from typing import Final

from hivemind_worker.runtime.capsule import messages
from hivemind_worker.runtime.sandbox import limits
from hivemind_worker.tasks import outcome

_FILES: Final = 1024


def of(asked: outcome.Limits, groups: limits.Parents) -> tuple[messages.ResourceLimit, ...]:
    """Limits per process; those of control groups that are missing are made up for as far as it goes."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    size = asked.file_bytes
    found = [
        messages.ResourceLimit(resource.RLIMIT_NOFILE, files, files),
        messages.ResourceLimit(resource.RLIMIT_CORE, 0, 0),
        messages.ResourceLimit(resource.RLIMIT_FSIZE, size, size),
    ]
    if "memory" not in groups.enforced:
        found.append(messages.ResourceLimit(resource.RLIMIT_DATA, asked.memory_bytes, asked.memory_bytes))
    if "pids" not in groups.enforced:
        found.append(messages.ResourceLimit(resource.RLIMIT_NPROC, asked.pids, asked.pids))
    return tuple(found)
