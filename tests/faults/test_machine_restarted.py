"""L13: the machine went down under a worker: what it may have begun is never begun again, what it had not goes on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import node_parts
import pool_parts
import pytest
import waiting

from hivemind_worker.cli import holding
from hivemind_worker.pool.scheduling import challenge
from hivemind_worker.settings import state_lock
from hivemind_worker.wire import calls
from hivemind_worker.worker.journal import former_boot, reader, records, writer

pb = calls.pb


@pytest.fixture(autouse=True)
def short_challenge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process before is known to be gone sooner than usual."""
    monkeypatch.setattr(challenge, "CHALLENGE_SECONDS", 0.5)


async def _ended(at: pool_parts.Running, task_id: str) -> pb.TaskInfo:
    async def has_ended() -> bool:
        return (await at.info(task_id)).state in {"completed", "failed"}

    look: Callable[[], bool | Awaitable[bool]] = has_ended
    await waiting.wait_until(look, description="it has ended", seconds=20)
    return await at.info(task_id)


@pytest.mark.parametrize(
    ("boot_id", "state", "reason"), [("this-boot", "completed", ""), ("boot-before", "failed", "worker_crash")]
)
async def test_l13_what_was_accepted_before_the_machine_went_down_may_have_begun(
    tmp_path: Path, boot_id: str, state: str, reason: str
) -> None:
    """Its worker was killed after it had accepted a task; the record of the start, if there was one, is lost."""
    folder = tmp_path / "node"
    folder.mkdir()
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0, max_attempts=1) as at:
        worker = await at.worker("node-1", "before")
        (task_id,) = await at.submit(pb.Task(command="echo ran"))
        (task,) = (await worker.poll(10, most=1)).tasks
        accepted = records.Accepted(task.id, task.attempt, task.SerializeToString(), task.store_epoch, "f" * 32)
        (folder / "worker.journal").write_bytes(records.header(boot_id) + records.encode(accepted))
        async with node_parts.running(at.pool.address, folder) as node:
            info = await _ended(at, task_id)
            assert (info.state, info.result.reason, info.attempt) == (state, reason, 1)
            assert (reader.RESTARTED in info.result.error) == bool(reason)
            assert len(node.runs.ran) == (0 if reason else 1)


@pytest.mark.parametrize(("max_attempts", "state", "attempt"), [(3, "completed", 2), (1, "failed", 1)])
async def test_l13_what_the_machine_forgot_altogether_uses_up_an_attempt(
    tmp_path: Path, max_attempts: int, state: str, attempt: int
) -> None:
    """Not even its acceptance reached the disk: the pool, which knows of it, counts it as lost with the machine."""
    folder = tmp_path / "node"
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0, max_attempts=max_attempts) as at:
        with holding.folder(folder) as lock:
            task_id = await _assigned_before_the_boot(at, folder, lock)
            async with node_parts.running(at.pool.address, folder, lock=lock):
                info = await _ended(at, task_id)
                assert (info.state, info.attempt, info.disruptions) == (state, attempt, 0)


async def _assigned_before_the_boot(at: pool_parts.Running, folder: Path, lock: state_lock.StateLock) -> str:
    """Have the node be given a task under another boot, of which the machine forgets all but the journal's header."""
    worker = await at.worker("node-1", "before", state_lock_id=lock.id_under("boot-before"))
    (task_id,) = await at.submit(pb.Task(command="echo ran"))
    assert len((await worker.poll(10, most=1)).tasks) == 1
    (folder / "worker.journal").write_bytes(records.header("boot-before"))
    return task_id


@pytest.mark.parametrize("boots", [("this-boot",), ("boot-between",), ("boot-between", "this-boot")], ids="-then-".join)
async def test_l13_however_often_a_worker_began_before_the_pool_heard_of_it(
    tmp_path: Path, boots: tuple[str, ...]
) -> None:
    """Those before it ended before they registered: the engine was not up yet, the power failed again."""
    folder = tmp_path / "node"
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0, max_attempts=3) as at:
        with holding.folder(folder) as lock:
            task_id = await _assigned_before_the_boot(at, folder, lock)
            for boot_id in boots:
                journal = writer.Journal(folder / "worker.journal", boot_id)
                await journal.open()
                await journal.close()
            async with node_parts.running(at.pool.address, folder, lock=lock):
                info = await _ended(at, task_id)
                assert (info.state, info.attempt, info.disruptions) == ("completed", 2, 0)
    assert not former_boot.path_beside(folder / "worker.journal").exists()


@pytest.mark.parametrize(
    "left_there",
    [b"boot-older", b"boot-older\n", b"boot-older\nboot-oldest\n", b"\0" * 36, b"\xff"],
    ids=["one", "a line", "two", "zeros", "garbage"],
)
async def test_l13_whatever_lies_there_of_a_boot_before_the_one_that_the_pool_heard_of(
    tmp_path: Path, left_there: bytes
) -> None:
    """A power cut brought it back, an older version left it, or a disk made something else of it."""
    folder = tmp_path / "node"
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0, max_attempts=3) as at:
        with holding.folder(folder) as lock:
            task_id = await _assigned_before_the_boot(at, folder, lock)
            former_boot.path_beside(folder / "worker.journal").write_bytes(left_there)
            async with node_parts.running(at.pool.address, folder, lock=lock):
                info = await _ended(at, task_id)
                assert (info.state, info.attempt, info.disruptions) == ("completed", 2, 0)
    assert not former_boot.path_beside(folder / "worker.journal").exists()


async def test_l13_a_copy_of_the_folder_names_its_own_former_boots_and_is_a_clash_all_the_same(tmp_path: Path) -> None:
    """It was copied with what lay beside the journal, and begins under another boot; its original is silent."""
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0, max_attempts=1) as at:
        with holding.folder(tmp_path / "one") as original:
            worker = await at.worker("node-1", "before", state_lock_id=original.id_under("boot-before"))
            (task_id,) = await at.submit(pb.Task(command="echo ran"))
            assert len((await worker.poll(10, most=1)).tasks) == 1
            (tmp_path / "one" / "worker.journal").write_bytes(records.header("boot-before"))
            former_boot.path_beside(tmp_path / "one" / "worker.journal").write_bytes(b"boot-before\nboot-older\n")
            await asyncio.to_thread(shutil.copytree, tmp_path / "one", tmp_path / "two")
            with holding.folder(tmp_path / "two") as copy:
                async with node_parts.running(at.pool.address, tmp_path / "two", lock=copy):
                    info = await _ended(at, task_id)
                    assert (info.state, info.attempt, info.disruptions) == ("completed", 2, 1)
