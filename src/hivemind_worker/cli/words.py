"""Small amounts of text: pairs read, times and sizes written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

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
    """How long a task has run; empty where it has not."""
    return f"{task.ended_at - task.started_at:.2f}" if task.ended_at and task.started_at else ""


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


def ending(task: shapes.Task) -> str:
    """How a task ended, in a few words: `failed (nonzero_exit, exit code 3)`."""
    said = [str(task.reason)] if task.reason else []
    if task.exit_code:
        said.append(f"exit code {task.exit_code}")
    return f"{task.status} ({', '.join(said)})" if said else str(task.status)
