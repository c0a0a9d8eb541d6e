"""`hivemind status`: all that is known about tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from hivemind_worker.cli import asking, look, options, words
from hivemind_worker.client import asynchronous, shapes
from hivemind_worker.tasks import outcome, spec
from hivemind_worker.telemetry import untrusted

SHOWN_SECONDS = 0.005
"""What took less would read as 0.00; `--json` has it all."""


@click.command("status")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@options.of(*options.TO_POOL)
@look.options()
def command(ids: Sequence[str], **given: Any) -> None:
    """Show all that is known about tasks."""
    shown = look.current()

    async def ask(client: asynchronous.AsyncClient) -> list[shapes.Task]:
        return [await client.task(task_id) for task_id in ids]

    for task in asking.pool(given, ask):
        if shown.json:
            shown.object(task.as_json())
        elif shown.quiet:
            shown.line(str(task.status))
        else:
            show(task, shown)


def show(task: shapes.Task, shown: look.Look) -> None:
    """Print all that there is to say of a task. An error may have lines; a name that has some is shown as one."""
    for name, value in _rows(task):
        text = value if name == "error" else untrusted.line(value)
        shown.line(f"{name + ':':<13}{text}".rstrip())


def _rows(task: shapes.Task) -> Iterator[tuple[str, str]]:
    """What there is to say of a task, line by line; what is empty is left out."""
    said = task.result
    yield "task", task.id
    yield "type", task.type
    yield "status", words.ending(task)
    rows = [
        ("error", said.error if said else ""),
        ("waiting", task.waiting_because),
        ("attempt", _attempt(task)),
        ("node", task.node_id),
        ("submitted", words.moment(task.submitted_at)),
        ("started", words.moment(task.started_at)),
        ("ended", words.moment(task.ended_at)),
        ("labels", ", ".join(f"{name}={value}" for name, value in sorted(task.labels.items()))),
        ("retry of", task.retry_of),
        ("cut", "a message has no room for all of it: some is left out here" if task.truncated else ""),
        ("step", task.phase),
        ("uses", words.usage(task.usage)),
        ("trace", task.traceparent),
        *(_of_outcome(said) if said else ()),
        *(("story", f"{words.moment(told.at)} {told.event} {told.details}".rstrip()) for told in task.story),
    ]
    yield from ((name, value) for name, value in rows if value)


def _attempt(task: shapes.Task) -> str:
    """The newest attempt, and how many of those that a task may use up are used up."""
    if task.disruptions:
        used = f"{task.attempt - task.disruptions} of {task.max_attempts} used up"
        return f"{task.attempt} ({used}, {words.count(task.disruptions, 'disruption')})"
    return f"{task.attempt} of {task.max_attempts}" if task.attempt else ""


_NODE_CHECKS = {
    outcome.NodeCheck.PASSED: "the node is sound: it started a capsule of its own after the failure",
    outcome.NodeCheck.FAILED: "the node is sick: it could not start a capsule of its own either",
    outcome.NodeCheck.NOT_DONE: "the node could not check itself after the failure",
}


def _of_outcome(said: outcome.Outcome) -> Iterator[tuple[str, str]]:
    yield "isolation", " ".join(each for each in (said.isolation, said.runtime) if each)
    yield "image", said.image_digest
    yield "node check", _NODE_CHECKS.get(said.node_check, "")
    yield "limits", _limits(said.limits) if said.limits else ""
    yield "limits hit", ", ".join(said.limits_hit)
    yield "flags", ", ".join(sorted(str(flag) for flag in said.flags))
    yield "usage", _usage(said.usage)
    yield "timings", _timings(said.timings)
    for file in said.results:
        yield "result", f"{file.name} ({words.size(file.artifact.size)})"
    for skipped in said.skipped:
        yield "not taken", f"{skipped.name}: {skipped.why}"


def _limits(limits: outcome.Limits) -> str:
    cores = limits.cpu_quota / spec.CPU_PERIOD
    return words.amounts((
        (words.size(limits.memory_bytes), "of memory"),
        (f"{cores:g}", "core" if cores == 1 else "cores"),
        (f"{limits.timeout_seconds:g} s", ""),
        (words.size(limits.disk_bytes), "on disk"),
        (str(limits.pids), "processes"),
    ))  # fmt: skip


def _usage(used: outcome.Usage) -> str:
    return words.amounts((
        (f"{used.wall_seconds:.2f} s", ""),
        (_seconds(used.cpu_seconds), "of CPU"),
        (_size(used.peak_memory_bytes), "of memory at its peak"),
        (_size(used.read_bytes), "read"),
        (_size(used.written_bytes), "written"),
        (words.count(used.processes, "process").replace("processs", "processes") if used.processes else "", ""),
        (_seconds(used.throttled_seconds), "waiting for CPU"),
        (_size(used.network_sent_bytes), "sent"),
        (_size(used.network_received_bytes), "received"),
        (str(used.network_refused or ""), "connections refused"),
    ))  # fmt: skip


def _seconds(amount: float | None) -> str:
    """Nothing for what is not known, and for what would read 0.00."""
    return f"{amount:.2f} s" if amount is not None and amount >= SHOWN_SECONDS else ""


def _size(amount: int | None) -> str:
    return words.size(amount) if amount else ""


def _timings(steps: Mapping[str, float]) -> str:
    """The steps that took any time worth a word, the longest first."""
    longest_first = sorted(steps.items(), key=lambda step: -step[1])
    return ", ".join(f"{name} {took:.2f} s" for name, took in longest_first if took >= SHOWN_SECONDS)
