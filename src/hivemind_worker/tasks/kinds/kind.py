"""The Protocol of a kind, and the part of a plan that is the same for all of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from hivemind_worker.settings import schema
from hivemind_worker.tasks import names, outcome, plan, resources, spec
from hivemind_worker.telemetry import tracing

THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
"""Variables that tell libraries how many threads to take; a task may say otherwise.

Left alone they count the machine's cores, and threads beyond the quota's cores only wait for each other.
"""


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """What the node's owner allows one task, and the defaults for a task that says nothing.

    ``most`` caps a task's needs. Seconds, bytes, and counts.
    """

    default_image: str
    timeout_seconds: float
    grace_seconds: float
    caps: plan.Caps
    most: resources.Resources


RESULTS_DEPTH = 32
"""Deepest folder in results: what hivemind-init promises at most."""

RESULTS_SECONDS = 600.0
"""Longest that collecting results may take: 4 GiB at 7 MB/s, slower than any disk that works."""


def limits(settings: schema.Limits, default_image: str, most: resources.Resources) -> NodeLimits:
    """What the settings allow one task, on a node that has ``most`` for it."""
    return NodeLimits(
        default_image=default_image,
        timeout_seconds=settings.task_timeout,
        grace_seconds=settings.grace_seconds,
        caps=plan.Caps(
            output_head_bytes=settings.output_head_bytes,
            output_tail_bytes=settings.output_tail_bytes,
            results_bytes=settings.results_limit_bytes,
            results_count=settings.results_limit_count,
            results_depth=RESULTS_DEPTH,
            results_seconds=RESULTS_SECONDS,
        ),
        most=most,
    )


@dataclass(frozen=True, slots=True)
class Program:
    """What a kind adds to a plan: the command, the files beside the task's inputs, and the packages it needs.

    ``requirements`` come before the task's own, which may narrow them.
    """

    argv: tuple[str, ...]
    files: tuple[plan.InputFile, ...] = ()
    requirements: tuple[str, ...] = ()


class Kind(Protocol):
    """Turns a task's own fields into a program. Pure: no I/O, no clock, no settings."""

    def program(self, task: spec.TaskSpec) -> Program:
        """Return what to run for ``task``.

        Raises :class:`hivemind_worker.errors.InvalidTask` where the fields cannot be run together.
        """


def make_plan(
    kind: Kind, task: spec.TaskSpec, task_id: str, attempt: int, node: NodeLimits, traceparent: str = ""
) -> plan.RunPlan:
    """Turn ``task`` into the plan of one attempt under the limits of ``node``; ``traceparent``: of the attempt's span.

    The task's own limits are clamped to the node's; those in the plan are the effective ones, for the report.
    """
    program = kind.program(task)
    limits = outcome.Limits(
        memory_bytes=min(task.memory_limit or spec.DEFAULT_MEMORY_BYTES, node.most.memory_bytes),
        cpu_quota=min(task.cpu_quota or spec.CPU_PERIOD, int(node.most.cpu_cores * spec.CPU_PERIOD)),
        timeout_seconds=min(task.timeout or node.timeout_seconds, node.timeout_seconds),
        disk_bytes=min(task.disk_limit or spec.DEFAULT_DISK_BYTES, node.most.disk_bytes),
        pids=task.pids_limit or spec.DEFAULT_PIDS,
    )
    given = tuple(
        plan.InputFile(path, content=content)
        if isinstance(content, bytes)
        else plan.InputFile(path, artifact=spec.stored_artifact(content))
        for path, content in task.input_files.items()
    )
    description = plan.InputFile("task.json", content=_description(task, task_id, attempt, limits))
    return plan.RunPlan(
        task_id=task_id,
        attempt=attempt,
        image=task.docker_image or node.default_image,
        argv=program.argv,
        limits=limits,
        caps=node.caps,
        files=(*given, *program.files, description),
        environment={
            **({tracing.VARIABLE: traceparent} if traceparent else {}),
            # A program of Python that is ended at its time limit has printed all that it has printed.
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(THREADS, str(max(1, round(limits.cpu_quota / spec.CPU_PERIOD)))),
            **task.environment,
            "HIVEMIND_TASK_ID": task_id,
            "HIVEMIND_ATTEMPT": str(attempt),
            "HIVEMIND_RESULTS": plan.RESULTS,
        },
        secrets=task.secrets,
        network=task.network,
        grace_seconds=node.grace_seconds,
        gpus=task.required.gpus,
        requirements=names.requirements("requirements", (*program.requirements, *task.requirements)),
        traceparent=traceparent,
    )


def _description(task: spec.TaskSpec, task_id: str, attempt: int, limits: outcome.Limits) -> bytes:
    # No values of variables: they may be secrets, and the task has them in its environment anyway.
    said = {
        "id": task_id,
        "attempt": attempt,
        "type": task.kind,
        "docker_image": task.docker_image,
        "args": list(task.args),
        "input_files": sorted(task.input_files),
        "environment": sorted(task.environment),
        "secrets": sorted(task.secrets),
        "labels": dict(task.labels),
        "network": str(task.network),
        "limits": {
            "memory_bytes": limits.memory_bytes,
            "cpu_quota": limits.cpu_quota,
            "timeout_seconds": limits.timeout_seconds,
            "disk_bytes": limits.disk_bytes,
            "pids": limits.pids,
        },
    }
    return json.dumps(said, sort_keys=True).encode() + b"\n"  # indented it would be written by Python, not in C
