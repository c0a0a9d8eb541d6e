"""L13: a journal torn, altered or of another version; a disk that fills: told, and everything else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import node_parts
import pool_parts
import pytest
import waiting

from hivemind_worker.pool.scheduling import challenge
from hivemind_worker.tasks import outcome
from hivemind_worker.wire import calls, translate
from hivemind_worker.worker.journal import records
from hivemind_worker.worker.machine import fitness

pb = calls.pb
NAMES = ("a", "b", "c")


def damage(lines: list[bytes]) -> list[bytes]:
    """A byte of b's end has turned."""
    at = next(place for place, line in enumerate(lines) if b'"kind":"ended","task_id":"b"' in line)
    lines[at] = lines[at].replace(b'"attempt":1', b'"attempt":7')
    return lines


def tear(lines: list[bytes]) -> list[bytes]:
    """The last line was being written."""
    return [*lines[:-2], lines[-2][:40]]


def age(lines: list[bytes]) -> list[bytes]:
    """Written by another version."""
    return [b"hivemind-journal 0", *lines[1:]]


CASES = {"altered": (damage, {"b"}, True), "torn": (tear, {"c"}, False), "of-another-version": (age, set(NAMES), True)}


async def _held_by_a_process_that_was_killed(at: pool_parts.Running, node: str) -> None:
    """The pool has given it three tasks."""
    worker = await at.worker(node, "boot-before")
    for name in NAMES:
        await at.submit(pb.Task(id=name, command=f"echo again > results/{name}"))
    given = await worker.poll(10, most=len(NAMES))
    assert {task.id for task in given.tasks} == set(NAMES)


def _journal() -> list[bytes]:
    """Of that process: all three had ended."""
    lines = [records.header("this-boot")[:-1]]
    for name in NAMES:
        task = pb.Task(id=name, attempt=1, type="command", command=f"echo again > results/{name}")
        ended = outcome.Outcome(outcome.Status.COMPLETED, exit_code=0, logs=outcome.Logs(b"kept\n", 5))
        result = translate.outcome_to_message(ended).SerializeToString()
        said = (
            records.Accepted(name, 1, task.SerializeToString(), run_id=f"run-{name}"),
            records.Started(name, 1, {}, run_id=f"run-{name}"),
            records.Ended(name, 1, result, run_id=f"run-{name}"),
        )
        lines += [records.encode(record)[:-1] for record in said]
    return [*lines, b""]


@pytest.mark.parametrize("case", CASES)
async def test_l13_a_damaged_journal_costs_what_it_must_and_is_told(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challenge, "CHALLENGE_SECONDS", 0.5)
    spoil, lost, told = CASES[case]
    folder = tmp_path / "node"
    folder.mkdir()
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0) as at:
        await _held_by_a_process_that_was_killed(at, "node-1")
        bad = b"\n".join(spoil(_journal()))
        (folder / "worker.journal").write_bytes(bad)
        async with node_parts.running(at.pool.address, folder) as node:
            for name in NAMES:
                info = await _ended(at, name)
                assert info.state == "completed"
                assert info.result.logs == ("" if name in lost else "kept\n"), (name, info.story)
                assert [file.name for file in info.result.files] == ([name] if name in lost else [])
            said = [each.said for each in node.node.snapshot().last_errors if "journal" in each.said]
            aside = [path.read_bytes() for path in folder.glob("worker.journal.damaged-*")]
            assert (len(said), aside) == ((1, [bad]) if told else (0, []))
            assert {name for name, _ in node.runs.ran} == lost


async def _ended(at: pool_parts.Running, task_id: str, seconds: float = 20) -> pb.TaskInfo:
    async def ended() -> bool:
        return (await at.info(task_id)).state in {"completed", "failed", "cancelled"}

    look: Callable[[], bool | Awaitable[bool]] = ended
    await waiting.wait_until(look, description=f"{task_id} ended", seconds=seconds)
    return await at.info(task_id)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own at the folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.asynccontextmanager
async def full(folder: Path) -> AsyncIterator[None]:
    """Nothing fits on it any more, within the block."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        await asyncio.to_thread((folder / "filler").unlink)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a file system of its own")
async def test_l13_a_full_disk_stops_what_is_new_loses_nothing_and_heals(tmp_path: Path) -> None:
    quick = fitness.Limits(interval=0.05, overload_cpu_percent=100.0)
    with small_disk(tmp_path / "books", "2m") as folder:
        async with (
            pool_parts.running(tmp_path / "pool") as at,
            node_parts.running(at.pool.address, tmp_path / "node", books=folder, fitness=quick) as node,
        ):
            (first,) = await at.submit(pb.Task(command="sleep 1; echo done"))
            await waiting.wait_until(lambda: node.runs.running == 1, description="it runs")
            async with full(folder):
                info = await _ended(at, first)  # what had begun ends, and is delivered from memory
                assert (info.state, info.attempt, info.result.logs) == ("completed", 1, "done\n")
                (second,) = await at.submit(pb.Task(command="echo later", input_files={"f": bytes(16_384)}))
                await waiting.wait_until(
                    lambda: "journal" in node.node.snapshot().holds, description="the node takes nothing", seconds=10
                )
                beats = node.node.snapshot().status
                assert str(beats) == "unhealthy"
            await waiting.wait_until(lambda: not node.node.snapshot().holds, description="fit again", seconds=10)
            assert (await _ended(at, second)).result.logs == "later\n"
