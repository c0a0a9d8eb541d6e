"""200 tasks of every sort through a pool and two workers: each in its right state, with its right bytes.

Each eighth of them in `make test`.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fences
import installed
import pytest
import waiting

from hivemind_worker.client import client as clients
from hivemind_worker.client import shapes

MIB = 2**20
SMALL = {"memory_limit": "128m", "cpu_quota": 50_000, "disk_limit": "160m"}

PRODUCE = """
import hashlib, pathlib, sys
seed, size = sys.argv[1], int(sys.argv[2])
block = hashlib.sha256(seed.encode()).digest()
pathlib.Path("results/deep/er").mkdir(parents=True)
pathlib.Path("results/deep/er/data.bin").write_bytes((block * (size // 32 + 1))[:size])
print(seed, "done")
print(seed, "on stderr", file=sys.stderr)
"""


@dataclass(frozen=True)
class Case:
    """A task, the state it must end in, and a look at what it left."""

    task: dict[str, object]
    ends: str
    right: Callable[[shapes.Task, Path], bool] = lambda _task, _folder: True
    cancel: str = ""


def produced(seed: str, size: int) -> bytes:
    return (hashlib.sha256(seed.encode()).digest() * (size // 32 + 1))[:size]


def python_case(number: int, size: int) -> Case:
    seed = f"python-{number}"

    def right(_task: shapes.Task, folder: Path) -> bool:
        return (folder / "deep/er/data.bin").read_bytes() == produced(seed, size)

    return Case({"code": PRODUCE, "args": [seed, str(size)], **SMALL}, "completed", right)


def command_case(number: int, size: int) -> Case:
    line = f"head -c {size} /dev/zero | tr '\\0' '{chr(97 + number % 26)}' > results/out.txt; echo {number}"

    def right(_task: shapes.Task, folder: Path) -> bool:
        return (folder / "out.txt").read_bytes() == chr(97 + number % 26).encode() * size

    return Case({"command": line, **SMALL}, "completed", right)


def failing_case(number: int) -> Case:
    code = (1, 2, 3, 125, 126, 127, 137, 143, 255)[number % 9]

    def right(task: shapes.Task, folder: Path) -> bool:
        return (task.exit_code, task.reason) == (code, "nonzero_exit") and (folder / "half").read_bytes() == b"way\n"

    return Case({"command": f"echo way > results/half; exit {code}", **SMALL}, "failed", right)


def raising_case(number: int) -> Case:
    def right(task: shapes.Task, _folder: Path) -> bool:
        told = task.result.logs.text.decode() if task.result else ""
        return task.exit_code == 1 and f"ValueError: number {number}" in told

    return Case({"code": f"raise ValueError('number {number}')", **SMALL}, "failed", right)


def slow_case(_number: int) -> Case:
    return Case(
        {"command": ["sleep", "600"], "timeout": 0.3, **SMALL}, "failed", lambda task, _: task.reason == "timeout"
    )


def cases() -> list[Case]:
    sleeps = {"command": ["sleep", "600"], **SMALL}
    made = [command_case(number, 2 ** (10 + number % 8)) for number in range(60)]
    made += [python_case(number, 1000 * (number + 1)) for number in range(60)]
    made += [python_case(100 + number, 5 * MIB + number) for number in range(10)]
    made += [python_case(200 + number, 50 * MIB) for number in range(2)]
    made += [failing_case(number) for number in range(25)]
    made += [raising_case(number) for number in range(13)]
    made += [slow_case(number) for number in range(15)]
    made += [Case(sleeps, "cancelled", cancel="when queued") for _ in range(8)]
    made += [Case(sleeps, "cancelled", cancel="when running") for _ in range(7)]
    assert len(made) == 200
    # The short ones between the long ones, the same in each run.
    return sorted(made, key=lambda case: hashlib.sha256(repr(case.task).encode()).digest())


@contextlib.contextmanager
def second_worker(up: installed.Up) -> Iterator[None]:
    """A worker process of its own, fenced by the sandbox."""
    shell = up.shell
    with (shell.home / "second.log").open("wb") as log:
        process = subprocess.Popen(
            [installed.HIVEMIND, "worker", f"--node-pool={up.address}", "--node-id=second", "--isolation=sandbox",
             f"--state-dir={shell.home / 'second'}", f"--log-dir={shell.home / 'log2'}", "--max-concurrent-tasks=2"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=shell.environment,
        )  # fmt: skip
    try:
        waiting.wait_for(
            lambda: "second" in up.ask("nodes", "-q").text, description="the second worker registered", seconds=30
        )
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0, (shell.home / "second.log").read_text()


# On an engine it is as many containers, and proves no more: the pool, the client and both workers are the same.
@pytest.mark.long
@fences.ANY
@pytest.mark.parametrize("one_in", [8, 1])
@pytest.mark.sandbox
@pytest.mark.timeout(600)
def test_two_hundred_tasks_end_as_they_must(up: installed.Up, tmp_path: Path, one_in: int) -> None:
    with second_worker(up), clients.Client(up.address) as client:
        wanted = cases()[::one_in]
        ids = client.submit([case.task for case in wanted])
        assert len(set(ids)) == 200 // one_in
        by_id = dict(zip(ids, wanted, strict=True))
        client.cancel([task_id for task_id, case in by_id.items() if case.cancel == "when queued"])
        for seen in client.watch([task_id for task_id, case in by_id.items() if case.cancel == "when running"]):
            if seen.status == "running":
                client.cancel(seen.id)
        tasks = client.wait(ids, seconds=500)
        wrong = []
        for task in tasks:
            case = by_id[task.id]
            folder = tmp_path / "fetched" / task.id
            client.download(task.id, folder)
            if task.status != case.ends or not case.right(task, folder):
                wrong.append(f"{case.task} must be {case.ends}: {task.status} {task.reason} {task.result}")
            for file in folder.rglob("*"):
                file.unlink() if file.is_file() else None
        assert not wrong, f"{len(wrong)} wrong, the first: {wrong[0]}"
        by_node = collections.Counter(task.node_id for task in tasks if task.status != "cancelled")
        assert set(by_node) == {up.node, "second"}, by_node
        assert all(task.attempt <= 1 for task in tasks), "no attempt was needed twice"
        counted = client.info().tasks_by_state
        ends = collections.Counter(case.ends for case in wanted)
        assert set(ends) == {"completed", "failed", "cancelled"}
        assert {name: number for name, number in counted.items() if number} == ends
