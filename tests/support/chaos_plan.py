"""What a chaos run will do, drawn from its seed alone: the tasks with the ends they must come to, and the blows."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import history

MARK = "chaos:"
"""Begins the last word of each task's command line, so that its process can be told among all of this machine's."""

MAX_ATTEMPTS = 100
IMAGE = "hivemind-test/busybox:1"
SMALL = {"cpu_quota": 20_000, "memory_limit": "64m", "disk_limit": "16m", "pids_limit": 32}
"""A fifth of a core: five fit beside one another, and what counts here is not how fast they are."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A task as it is submitted, and what it must come to. ``cancel_after``: seconds after which its submitter does."""

    task: Mapping[str, object]
    expected: history.Expected
    cancel_after: float | None = None


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault: after so many seconds from the last one, what is done to whom, and for how long."""

    pause: float
    kind: str
    target: str
    seconds: float


def tasks(seed: int, count: int) -> list[Planned]:
    """Return ``count`` tasks; the same for the same seed."""
    draw = random.Random(f"tasks {seed}")
    return [_task(draw, f"chaos-{seed}-{number:04d}") for number in range(count)]


def _task(draw: random.Random, task_id: str) -> Planned:
    kind = draw.choices(
        ["short", "bare", "long", "large", "fails", "times out", "is cancelled"], weights=[46, 16, 8, 6, 10, 4, 10]
    )[0]
    if kind == "times out":
        script, expected = "sleep 60", history.Expected("failed", "timeout", exit_code=None)
        return Planned(_described(task_id, script, timeout=1), expected)
    first = draw.randrange(10**6)
    seconds = {"short": draw.uniform(0, 1), "long": draw.uniform(3, 8)}.get(kind, draw.uniform(0.1, 2))
    lines = draw.choice([10, 1_000, 20_000]) if kind != "large" else 300_000
    said = draw.choice([1, 50, 5_000])
    script = (
        f"seq {first} {first + said}; sleep {seconds:.2f}; mkdir -p results/deep;"
        f" seq {first} {first + lines} > results/numbers; echo {task_id} > results/deep/name"
    )
    output = _sequence(first, said)
    if kind == "bare":  # nothing to upload: its end is the first thing that an answer can be lost of
        bare = history.Expected(stdout_bytes=len(output), logs=output.decode())
        return Planned(_described(task_id, f"seq {first} {first + said}; sleep {seconds:.2f}"), bare)
    expected = history.Expected(
        files={
            "numbers": hashlib.sha256(_sequence(first, lines)).hexdigest(),
            "deep/name": hashlib.sha256(f"{task_id}\n".encode()).hexdigest(),
        },
        stdout_bytes=len(output),
        logs=output.decode(),
    )
    if kind == "fails":
        expected = history.Expected("failed", "nonzero_exit", 3, expected.files, len(output), expected.logs)
        script += "; exit 3"
    if kind == "is cancelled":
        expected = history.Expected(
            files=expected.files, stdout_bytes=len(output), logs=expected.logs, may_be_cancelled=True
        )
        return Planned(_described(task_id, script), expected, cancel_after=draw.uniform(0.0, 6.0))
    return Planned(_described(task_id, script), expected)


def _sequence(first: int, more: int) -> bytes:
    return "".join(f"{number}\n" for number in range(first, first + more + 1)).encode()


def _described(task_id: str, script: str, **more: object) -> dict[str, object]:
    command = ["/bin/sh", "-c", script, MARK + task_id]
    return {"id": task_id, "command": command, "docker_image": IMAGE, "max_attempts": MAX_ATTEMPTS, **SMALL, **more}


KINDS: Mapping[str, int] = {
    "kill": 10,  # -9, and started again after a while
    "stop": 5,  # SIGSTOP, then SIGCONT
    "part": 5,  # nobody gets through, and those who were through are cut off
    "freeze": 4,  # half-open: connections stand, and nothing comes
    "deafen": 6,  # what is asked is done, and the answer is lost
    "cut": 4,  # all lines break once
    "slow": 2,  # each piece comes late
    "fill": 3,  # the disk
}
"""How often each kind of blow falls, in parts."""

_CANNOT = frozenset(
    {("pool", kind) for kind in ("part", "freeze", "deafen", "cut", "slow")}
    | {("engine", kind) for kind in ("part", "freeze", "deafen", "cut", "slow", "fill")}
)


def blows(seed: int, targets: list[str], lease_seconds: float) -> Iterator[Blow]:
    """Yield blows without end; the same for the same seed and targets."""
    draw = random.Random(f"blows {seed}")
    while True:
        target = draw.choice(targets)
        kinds = [kind for kind in KINDS if (target, kind) not in _CANNOT]
        kind = draw.choices(kinds, weights=[KINDS[kind] for kind in kinds])[0]
        # Some are over before anybody notices, some outlast the lease.
        seconds = draw.choice([0.0, draw.uniform(0.1, 1), draw.uniform(0.5, 2) * lease_seconds])
        yield Blow(draw.uniform(0.1, 1.5), kind, target, seconds)
