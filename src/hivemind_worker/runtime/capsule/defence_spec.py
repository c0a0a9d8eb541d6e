"""What is promised of a capsule of one kind, in numbers and paths; and the verdict on one defence. Pure values."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hivemind_worker.tasks import outcome


class State(enum.StrEnum):
    """Whether a defence is in force."""

    HOLDS = "holds"
    BROKEN = "broken"
    UNTRIED = "untried"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one defence is in force; the evidence, and what to do, where it is not."""

    id: str
    promise: str
    state: State
    evidence: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class MemoryFolder:
    """A folder in memory that a task can write to: its caps in bytes and files (0: none is promised)."""

    max_bytes: int
    max_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DefenceSpec:
    """What is promised of a capsule of one kind.

    ``mounts``: points where the kernel's own file systems, or (``files``) any, may be; ``folders`` beneath which any
    read-only one may be. ``enforced``: which limits control groups keep. ``first_apart``: the first process runs
    as another user. ``own_namespaces``: inodes of the worker's, where both are on one machine. ``absent``: paths of the
    host.
    """

    machine: str
    limits: outcome.Limits
    memory_folders: Mapping[str, MemoryFolder]
    mounts: frozenset[str]
    files: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()
    enforced: frozenset[str] = frozenset({"memory", "pids", "cpu"})
    open_files: int = 1024
    file_bytes: int = 0
    masks: bool = False
    oom_score: int = 0
    label: bool = False
    first_apart: bool = False
    fresh_namespaces: frozenset[str] = frozenset({"ipc", "mnt", "net", "pid", "uts"})
    own_namespaces: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    allowed_calls: Collection[str] = ()
    host_name: str = "capsule"
