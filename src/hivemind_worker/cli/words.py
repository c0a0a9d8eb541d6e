"""Small amounts of text: pairs read, times and sizes written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from hivemind_worker.tasks import outcome
from hivemind_worker.telemetry import untrusted

if TYPE_CHECKING:
    from hivemind_worker.client import shapes


def pairs(flag: str, given: Iterable[str]) -> dict[str, str]:
    """Read NAME=VALUE options. Raises click's UsageError, naming the flag."""
    parted = [each.partition("=") for each in given]
    for name, sign, _ in parted:
        if not sign or not name:
            raise click.UsageError(f"{flag} {name}: write NAME=VALUE")
    return {name: value for name, _, value in parted}


def seconds(task: shapes.Task) -> str:
    """How long a task has run; empty where it has not.

    One that was too short for news of its start began when it was given to its node, as near as we can know.
    """
    began = task.started_at or task.assigned_at
    return f"{task.ended_at - began:.2f}" if task.ended_at and began else ""


def share(part: float, whole: float) -> str:
    """Two amounts of bytes, the unit once where it is the same: 1.5 of 2.0 GiB."""
    less, more = size(part), size(whole)
    number, _, unit = less.partition(" ")
    return f"{number if more.endswith(f' {unit}') else less} of {more}"


def size(amount: float) -> str:
    """An amount of bytes for people: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def usage(used: Mapping[str, float]) -> str:
    """What a running task uses, in a few words; empty where nobody knows."""
    said = []
    if "cpu_percent" in used:
        said.append(f"{used['cpu_percent'] / 100:.2f} cores")
    if "memory_bytes" in used:
        of = f" of {size(used['memory_limit_bytes'])}" if "memory_limit_bytes" in used else ""
        said.append(f"{size(used['memory_bytes'])}{of}")
    if "disk_bytes" in used:
        said.append(f"{size(used['disk_bytes'])} on disk")
    if "processes" in used:
        said.append(count(int(used["processes"]), "process").replace("processs", "processes"))
    return ", ".join(said)


def count(number: int, what: str) -> str:
    """So many of something: `1 result file`, `2 result files`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def moment(at: float) -> str:
    """A moment in local time, to the second; empty for 0."""
    return dt.datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds") if at else ""


_STOPPED = frozenset({outcome.Reason.CANCELLED, outcome.Reason.TIMEOUT})


def amounts(said: Iterable[tuple[str, str]]) -> str:
    """Amounts with their names, those left out that nobody knows: `1.0 GiB memory, 2 cores`."""
    return ", ".join(f"{amount} {name}".rstrip() for amount, name in said if amount)


def not_taken(task: shapes.Task) -> list[str]:
    """A line for each file of a task that is not among its results, with the reason."""
    skipped = task.result.skipped if task.result else ()
    return [f"not among the results: {untrusted.line(f'{file.name}: {file.why}')}" for file in skipped]


def ending(task: shapes.Task) -> str:
    """How a task ended, in a few words: `failed (nonzero_exit, exit code 3)`.

    Of one that was stopped the exit code is that of our signal, and tells nothing.
    """
    said = [str(task.reason)] if task.reason and str(task.reason) != str(task.status) else []
    if task.exit_code and task.reason not in _STOPPED:
        said.append(f"exit code {task.exit_code}")
    return f"{task.status} ({', '.join(said)})" if said else str(task.status)
