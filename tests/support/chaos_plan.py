"""What a chaos run will do, drawn from its seed alone: the tasks with the ends they must come to, and the blows."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import client_history
import history

MARK = "chaos:"
"""Begins the last word but one of each task's command line, so that its process can be told among all others."""

MAX_ATTEMPTS = 3
"""The product's default: what a run loses to its blows is bounded by `client_history.Bounds`, not by more attempts."""

IMAGE = "hivemind-test/busybox:1"
SMALL = {"cpu_quota": 20_000, "memory_limit": "64m", "disk_limit": "16m", "pids_limit": 32}
"""A fifth of a core: five fit beside one another, and what counts here is not how fast they are."""

NONCE_BYTES = 13
"""Of the nonce that each execution prints: the first two groups of a UUID, made by the kernel."""

OUTER = 'read n < /proc/sys/kernel/random/uuid; n=${n%-*-*-*}; exec /bin/sh -c "$1" "$0" "$n"'
"""Becomes the task's own program with a fresh nonce as its last word, where the watch of processes sees it."""

MANY_NAMES = 5_000
"""Result files of a task whose report is larger than a message: each name has about 900 bytes."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A task as it is submitted, and what it must come to. ``cancel_after``: seconds after which its submitter does.

    ``client`` says the same in the words of its clients' history. ``retry``: it is submitted anew once it has failed.
    """

    task: Mapping[str, object]
    expected: history.Expected
    client: client_history.Planned
    cancel_after: float | None = None
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault: after so many seconds from the last one, what is done to whom, and for how long."""

    pause: float
    kind: str
    target: str
    seconds: float


KINDS_OF_TASKS = {
    "short": 46, "bare": 16, "long": 8, "large": 5, "fails": 10, "times out": 4, "is cancelled": 10, "names": 1,
}  # fmt: skip
"""How often each kind is drawn, in parts."""


def tasks(seed: int, count: int, generation: int = 0) -> list[Planned]:
    """Return ``count`` tasks; the same for the same seed. Another generation has the same ids and other commands."""
    draw = random.Random(f"tasks {seed} {generation}")
    return [_task(draw, f"chaos-{seed}-{number:04d}", generation) for number in range(count)]


def _task(draw: random.Random, task_id: str, generation: int) -> Planned:
    kind = draw.choices(list(KINDS_OF_TASKS), weights=list(KINDS_OF_TASKS.values()))[0]
    label = f"{task_id}.{generation}"
    plan = client_history.Planned(task_id, label, max_attempts=MAX_ATTEMPTS)
    if kind == "times out":
        script, expected = "sleep 60", history.Expected("failed", "timeout", exit_code=None)
        plan = dataclasses.replace(plan, status="failed", reason="timeout", exit_code=None)
        return Planned(_described(plan, f"{_HEAD}; {script}", timeout=1), expected, plan)
    first, count = draw.randrange(10**6), draw.choice([1, 50, 2_000])
    seconds = {"short": draw.uniform(0, 1), "long": draw.uniform(3, 8)}.get(kind, draw.uniform(0.1, 2))
    lines = draw.choice([10, 1_000, 20_000]) if kind != "large" else 300_000
    cancel_after = draw.uniform(0.0, 6.0)
    plan = dataclasses.replace(plan, first=first, lines=count)
    written = len(plan.output("x" * NONCE_BYTES))
    script = f"{_HEAD}; {_lines(plan)}; sleep {seconds:.2f}"
    if kind == "bare":  # nothing to upload: its end is the first thing that an answer can be lost of
        return Planned(_described(plan, f"{script}; {_TAIL}"), history.Expected(stdout_bytes=written), plan)
    if kind == "names":
        return _with_names(plan, script, written)
    numbers = hashlib.sha256(_sequence(first, lines)).hexdigest()
    files = {"numbers": numbers, "deep/name": ""}
    script += (
        f"; mkdir -p results/deep; seq {first} {first + lines} > results/numbers"
        f"; echo $1 {label} > results/deep/name; {_TAIL}"
    )
    plan = dataclasses.replace(plan, files=files)
    expected = history.Expected(files=files, stdout_bytes=written)
    if kind == "fails":
        plan = dataclasses.replace(plan, status="failed", reason="nonzero_exit", exit_code=3)
        expected = dataclasses.replace(expected, status="failed", reason="nonzero_exit", exit_code=3)
        return Planned(_described(plan, script + "; exit 3"), expected, plan, retry=draw.random() < 0.5)
    if kind == "is cancelled":
        plan = dataclasses.replace(plan, may_be_cancelled=True)
        expected = dataclasses.replace(expected, may_be_cancelled=True)
        return Planned(_described(plan, script), expected, plan, cancel_after)
    return Planned(_described(plan, script), expected, plan)


def retried(plan: Planned, new_id: str, era: int) -> Planned:
    """The same submission under the id that a retry made: its program still prints the label of the first."""
    return dataclasses.replace(
        plan,
        client=dataclasses.replace(plan.client, task=new_id, era=era),
        task={**plan.task, "id": new_id},
        retry=False,
    )


_HEAD = "echo run $1 ${0#chaos:}"
_TAIL = "echo end $1"


def _lines(plan: client_history.Planned) -> str:
    return f'seq {plan.first} {plan.first + plan.lines - 1} | sed "s/^/$1 /"'


def _with_names(plan: client_history.Planned, script: str, written: int) -> Planned:
    """A report above the size of a message, by the names of its files alone."""
    deep = "/".join("n" * 200 for _ in range(4))
    script += (
        f"; d=results/{deep}; mkdir -p $d; i=0; while [ $i -lt {MANY_NAMES} ]; do : > $d/$i; i=$((i+1)); done; {_TAIL}"
    )
    plan = dataclasses.replace(plan, files={"*": str(MANY_NAMES)})
    expected = history.Expected(files=None, stdout_bytes=written)
    return Planned(_described(plan, script, disk_limit="64m"), expected, plan)


def _sequence(first: int, more: int) -> bytes:
    return "".join(f"{number}\n" for number in range(first, first + more + 1)).encode()


def _described(plan: client_history.Planned, script: str, **more: object) -> dict[str, object]:
    command = ["/bin/sh", "-c", OUTER, MARK + plan.label, script]
    return {"id": plan.task, "command": command, "docker_image": IMAGE, **SMALL, **more}


KINDS: Mapping[str, int] = {
    "kill": 10,  # -9, and started again after a while
    "stop": 5,  # SIGSTOP, then SIGCONT
    "part": 5,  # nobody gets through, and those who were through are cut off
    "freeze": 4,  # half-open: connections stand, and nothing comes
    "deafen": 6,  # what is asked is done, and the answer is lost
    "cut": 4,  # all lines break once
    "slow": 2,  # each piece comes late
    "jumble": 4,  # calls are delayed at random, overtake one another, and some come twice
    "fill": 2,  # the disk of its state
    "fill_artifacts": 1,  # a pool's result files, a worker's results that wait for their delivery
    "fill_logs": 1,  # the output of tasks
    "clock": 3,  # the wall clock steps forwards or back, by seconds to days
    "power": 3,  # all of it dies at once, and what was not synced to its disk is gone
    "replace": 1,  # a node never comes back, and a fresh one with a new id comes
    "clone": 1,  # a copy of its state folder is started beside it
    "register": 1,  # somebody registers with its id
}
"""How often each kind of blow falls, in parts."""

_LINES = ("part", "freeze", "deafen", "cut", "slow", "jumble")
_NODES = ("replace", "clone", "register")
_CANNOT = frozenset(
    {("pool", kind) for kind in (*_LINES, *_NODES)}
    | {("engine", kind) for kind in KINDS if kind not in {"kill", "stop"}}
)


def blows(seed: int, targets: list[str], lease_seconds: float, cannot: frozenset[str] = frozenset()) -> Iterator[Blow]:
    """Yield blows without end; the same for the same seed and targets. ``cannot``: kinds that this machine has not."""
    draw = random.Random(f"blows {seed}")
    while True:
        target = draw.choice(targets)
        kinds = [kind for kind in KINDS if (target, kind) not in _CANNOT]
        kind = draw.choices(kinds, weights=[KINDS[kind] for kind in kinds])[0]
        # Some are over before anybody notices, some outlast the lease.
        seconds = draw.choice([0.0, draw.uniform(0.1, 1), draw.uniform(0.5, 2) * lease_seconds])
        pause = draw.uniform(0.2, 2.0)
        if kind not in cannot:
            yield Blow(pause, kind, target, seconds)


def in_era(plan: Planned, era: int) -> Planned:
    """The same submission, made in a later era of the pool's store."""
    return dataclasses.replace(plan, client=dataclasses.replace(plan.client, era=era))
