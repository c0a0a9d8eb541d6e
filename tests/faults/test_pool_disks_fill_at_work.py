"""Each disk of the pool, filled while tasks run: every one ends, none ran twice, and the pool says which disk it is."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import node_parts
import pool_parts
import pytest
import small_disk
import store_parts
import waiting

from hivemind_worker import errors
from hivemind_worker.client import asynchronous
from hivemind_worker.pool.store import sqlite
from hivemind_worker.tasks import outcome, state

can_mount = pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")

COUNT = 4
MIB = 1024**2


@dataclass
class World:
    """A pool, a worker, and tasks that run until ``finish``."""

    at: pool_parts.Running
    client: asynchronous.AsyncClient
    folder: Path
    task_ids: list[str]

    def finish(self) -> None:
        (self.folder / "go").touch()

    async def ended_once(self) -> None:
        """See that each has ended by its first attempt, and ran once, with its file."""
        tasks = await self.client.wait(self.task_ids, 30)
        assert {task.status for task in tasks} == {state.TaskState.COMPLETED}
        assert [task.attempt for task in tasks] == [1] * COUNT
        assert sorted((self.folder / "ran").read_text().split()) == sorted(str(number) for number in range(COUNT))
        for task in tasks:
            assert task.result is not None
            assert [file.name for file in task.result.results] == ["f"]
            assert task.result.logs.text.startswith(b"begun\n")

    async def until_unready(self, part: str) -> None:
        """Wait until the pool says this, to its operator and to its callers."""
        await waiting.wait_until(lambda: part in self.at.pool.health.ready()[1], description=f"unready: {part}")
        assert any(part in reason for reason in (await self.client.info()).unready_reasons)

    async def until_ready(self) -> None:
        await waiting.wait_until(lambda: self.at.pool.health.ready()[0], description="ready again")


@contextlib.asynccontextmanager
async def _running(folder: Path, output: str = "echo begun", **terms: Path) -> AsyncIterator[World]:
    async with (
        pool_parts.running(folder / "pool", lease_seconds=2, **terms) as at,
        node_parts.running(at.pool.address, folder / "node") as node,
        asynchronous.AsyncClient(at.pool.address) as client,
    ):
        go, ran = folder / "go", folder / "ran"
        task_ids = await client.submit(
            [
                {
                    "command": f"echo {number} >> {ran}; echo begun; until [ -e {go} ]; do sleep 0.02; done; {output}; "
                    f"head -c {MIB} /dev/urandom > results/f",
                    "memory_limit": "64m",
                    "cpu_quota": 20_000,
                    "max_attempts": 1,
                }
                for number in range(COUNT)
            ]
        )

        async def all_run() -> bool:
            return {task.status for task in [await client.task(each) for each in task_ids]} == {state.TaskState.RUNNING}

        look: Callable[[], bool | Awaitable[bool]] = all_run
        await waiting.wait_until(look, description="all run", seconds=20)
        assert node.runs.running == COUNT
        yield World(at, client, folder, task_ids)


@pytest.mark.long
@can_mount
async def test_the_disk_of_the_store(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 8) as disk:
        async with _running(tmp_path, store_path=disk.path / "pool.sqlite") as world:
            disk.fill()
            world.finish()
            await world.until_unready(f"look at the disk of {disk.path / 'pool.sqlite'}")
            since = world.at.pool.store.lease_time()
            # For longer than a lease: no heartbeat can be written down, and no node is to blame for that.
            await waiting.wait_until(
                lambda: world.at.pool.store.lease_time() - since > 2.5, description="more than a lease has passed"
            )
            with pytest.raises(errors.Unavailable, match="cannot be written"):
                await world.at.pool.store.submit([store_parts.task("unacknowledged")])
            disk.clear()
            await world.ended_once()
            await world.until_ready()


@can_mount
async def test_the_disk_of_files(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 8) as disk:
        async with _running(tmp_path, artifact_folder=disk.path / "artifacts") as world:
            disk.fill()
            world.finish()
            await world.until_unready(f"disk of {disk.path / 'artifacts'}")
            disk.clear()
            await world.ended_once()
            await world.until_ready()


@can_mount
@pytest.mark.parametrize("size", [2_000, 300_000])
async def test_the_disk_of_output_holds_up_no_end_and_is_read_while_it_is_full(tmp_path: Path, size: int) -> None:
    with small_disk.mounted(tmp_path / "pool" / "logs", 2) as disk:
        async with _running(tmp_path, f"head -c {size} /dev/zero | tr '\\0' x") as world:

            async def logs(task_id: str) -> bytes:
                return b"".join([piece.data async for piece in world.client.logs(task_id)])

            def all_begun() -> bool:
                return len([path for path in disk.path.glob("*/*/*") if path.stat().st_size]) == COUNT

            await waiting.wait_until(all_begun, description="the first line of each is there")
            disk.fill()
            world.finish()
            await world.ended_once()
            assert world.at.pool.health.ready() == (True, "")
            for task_id in world.task_ids:
                (task,) = await world.client.wait(task_id)
                assert task.result is not None
                text = await logs(task_id)
                assert text.startswith(b"begun\n")
                # What the report has whole is shown from it; of the rest it is said how much is nowhere.
                is_whole = text == b"begun\n" + b"x" * size
                assert is_whole is (size < 10_000)
                assert is_whole is not text.endswith(b" bytes of stdout are missing here]\n")
                assert is_whole is not (outcome.Flag.OUTPUT_INCOMPLETE in task.result.flags)


@contextlib.contextmanager
def _no_growth(file: Path) -> Iterator[Callable[[], None]]:
    """Let no file grow beyond what this one has; yield what ends that.

    To SQLite that is what a quota is: a write fails by an error that is not ENOSPC, and the disk has room.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, before[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_quota_that_no_look_at_the_disk_shows_makes_the_pool_unready(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path, lease_seconds=2) as at:
        worker = await at.worker()
        await at.submit()
        with _no_growth(tmp_path / "pool.sqlite-wal") as give_room:
            with pytest.raises(Exception, match="the pool's store cannot be written"):
                await at.submit()
            await waiting.wait_until(lambda: not at.pool.health.ready()[0], description="not ready")
            assert f"look at the disk of {tmp_path / 'pool.sqlite'}" in at.pool.health.ready()[1]
            give_room()
            await waiting.wait_until(lambda: at.pool.health.ready()[0], description="ready again", seconds=20)
        assert len((await worker.poll(10)).tasks) == 1


async def test_whoever_watches_leases_hears_that_a_disk_takes_nothing(tmp_path: Path) -> None:
    clock = store_parts.Clock()
    path = tmp_path / "pool.sqlite"
    kept = sqlite.SqliteStore(path, clock=clock, wall=clock)
    await kept.open()
    await kept.submit([store_parts.task("before")])
    reasons: list[str] = []
    kept.on_unusable(reasons.append)
    with _no_growth(path.with_name("pool.sqlite-wal")):
        with pytest.raises(errors.Unavailable):
            await kept.submit([store_parts.task("lost")])
        await kept.submit([store_parts.task("before")])  # it is there: nothing to write
        # Nothing has run out, so nothing would have to be written: no proof that heartbeats can be.
        with pytest.raises(errors.Unavailable):
            await kept.expire()
        assert [bool(reason) for reason in reasons] == [True]
    await kept.expire()
    assert [bool(reason) for reason in reasons] == [True, False]
    await kept.close()
