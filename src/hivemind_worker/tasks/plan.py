"""RunPlan: all that an executor needs to run one attempt, and nothing about why."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from hivemind_worker.tasks import outcome

WORKSPACE = "/workspace"
"""The task's working directory inside its capsule."""

RESULTS = "/workspace/results"
"""Where the task writes its result files."""


class Network(enum.StrEnum):
    """What a task may reach."""

    NONE = "none"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that lies in the workspace before the task starts.

    ``path`` is relative to the workspace and already checked. Exactly one of ``content`` and ``artifact`` is set; an
    artifact has been fetched into the node's artifact store before the plan is run.
    """

    path: str
    content: bytes | None = None
    artifact: outcome.Artifact | None = None
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Caps:
    """How much of a task's output and results is taken. Bytes, counts, seconds.

    ``output_head_bytes`` of both streams together are kept from the start and ``output_tail_bytes`` from the end.
    ``output_live_bytes`` are told while the task runs, where that is more than the head; they are not kept.
    """

    output_head_bytes: int
    output_tail_bytes: int
    results_bytes: int
    results_count: int
    results_depth: int
    results_seconds: float
    output_live_bytes: int = 0


SECRETS = "secrets"
"""The capability word of a node that gives tasks their secrets."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One attempt of one task, ready to be run.

    ``argv[0]`` without a ``/`` is looked up in the PATH in force inside: the image's own, or the sandbox's.
    ``gpu_devices`` names the GPUs that are the attempt's alone, as the node's admission gave them: as many as ``gpus``.
    ``requirements`` are PEP 508 names, checked and in canonical order; the executor runs the task in an environment
    that has them, whose ``python3`` comes first in PATH. ``traceparent`` is the W3C trace context of its submitter.
    """

    task_id: str
    attempt: int
    image: str
    argv: tuple[str, ...]
    limits: outcome.Limits
    caps: Caps
    files: tuple[InputFile, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    network: Network = Network.NONE
    grace_seconds: float = 10.0
    gpus: int = 0
    gpu_devices: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    traceparent: str = ""
