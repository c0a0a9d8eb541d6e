"""`hivemind status`: all that is known about tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import click

from hivemind_worker.cli import asking, look, options, words
from hivemind_worker.client import asynchronous, shapes
from hivemind_worker.task import outcome


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
            for name, value in _rows(task):
                shown.line(f"{name + ':':<13}{value}".rstrip())


def _rows(task: shapes.Task) -> Iterator[tuple[str, str]]:
    """What there is to say of a task, line by line; what is empty is left out."""
    said = task.result
    yield "task", task.id
    yield "type", task.type
    yield "status", words.ending(task)
    rows = [
        ("error", said.error if said else ""),
        ("waiting", task.waiting_because),
        ("attempt", f"{task.attempt} of {task.max_attempts}" if task.attempt else ""),
        ("node", task.node_id),
        ("submitted", words.moment(task.submitted_at)),
        ("started", words.moment(task.started_at)),
        ("ended", words.moment(task.ended_at)),
        ("labels", ", ".join(f"{name}={value}" for name, value in sorted(task.labels.items()))),
        ("retry of", task.retry_of),
        ("step", task.phase),
        ("uses", words.usage(task.usage)),
        ("trace", task.traceparent),
        *(_of_outcome(said) if said else ()),
        *(("story", f"{words.moment(told.at)} {told.event} {told.details}".rstrip()) for told in task.story),
    ]
    yield from ((name, value) for name, value in rows if value)


def _of_outcome(said: outcome.Outcome) -> Iterator[tuple[str, str]]:
    limits = dataclasses.asdict(said.limits) if said.limits else {}
    usage = {name: value for name, value in dataclasses.asdict(said.usage).items() if value is not None}
    longest_first = sorted(said.timings.items(), key=lambda step: -step[1])
    yield "isolation", " ".join(each for each in (said.isolation, said.runtime) if each)
    yield "image", said.image_digest
    yield "limits", _listed(limits)
    yield "limits hit", ", ".join(said.limits_hit)
    yield "flags", ", ".join(sorted(str(flag) for flag in said.flags))
    yield "usage", _listed(usage)
    yield "timings", _listed(dict(longest_first))
    for file in said.results:
        yield "result", f"{file.name} ({words.size(file.artifact.size)})"
    for skipped in said.skipped:
        yield "not taken", f"{skipped.name}: {skipped.why}"


def _listed(amounts: Any) -> str:
    return ", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in amounts.items())  # fmt: skip
