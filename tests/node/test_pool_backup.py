"""A backup of a pool that serves, and a restore: consistent, whole or not at all, and of a new epoch."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import sqlite3
from pathlib import Path

import grpc
import pool_parts
import pytest
import pytest_asyncio
import small_disk

from hivemind_worker import errors
from hivemind_worker.artifacts import store as artifact_store
from hivemind_worker.pool import backup, restore, server
from hivemind_worker.pool.store import database, locks
from hivemind_worker.wire import calls

pb = calls.pb


def folders(data: Path) -> backup.Folders:
    return backup.Folders(data / "pool.sqlite", data / "logs", data / "artifacts")


async def make(data: Path, target: Path) -> backup.Summary:
    return await asyncio.to_thread(backup.make, folders(data), target)


async def put_back(source: Path, data: Path, *, replace: bool = False) -> restore.Summary:
    return await asyncio.to_thread(lambda: restore.restore(source, folders(data), replace=replace))


async def append(worker: pool_parts.Worker, task: pb.Task, data: bytes, run_id: str, sequence: int = 0) -> None:
    chunk = pb.LogChunk(stream=pb.LOG_STREAM_STDOUT, data=data, sequence=sequence, offset=sequence)
    request = pb.AppendTaskLogsRequest(
        task_id=task.id,
        attempt=task.attempt,
        node_id=worker.name,
        session_id=worker.session_id,
        chunks=[chunk],
        store_epoch=task.store_epoch,
        run_id=run_id,
    )
    await worker.at.nodes.AppendTaskLogs(iter([request]))


async def report(worker: pool_parts.Worker, task: pb.Task, run_id: str, output: bytes | None = None) -> int:
    """Report that an attempt completed, with one result file, or that it runs."""
    status = "running" if output is None else "completed"
    request = pb.ReportTaskResultRequest(
        task_id=task.id,
        node_id=worker.name,
        session_id=worker.session_id,
        attempt=task.attempt,
        status=status,
        store_epoch=task.store_epoch,
        run_id=run_id,
    )
    if output is not None:
        request.result.CopyFrom(pb.TaskResult(status=status, result_data={"out": output}))
    return (await worker.at.nodes.ReportTaskResult(request)).verdict


async def run(worker: pool_parts.Worker, words: str) -> pb.Task:
    """Take a task and bring it to its end; its output and its result are ``words``."""
    task = await worker.take()
    run_id = hashlib.sha256(f"{words} {task.id}".encode()).hexdigest()[:32]
    await append(worker, task, f"{words} {task.id}".encode(), run_id)
    assert await report(worker, task, run_id, f"{words} {task.id}".encode()) == pb.VERDICT_ACCEPTED
    return task


async def output(at: pool_parts.Running, task_id: str) -> str:
    pages = at.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id=task_id))
    return b"".join([chunk.data async for page in pages for chunk in page.chunks]).decode()


async def result(at: pool_parts.Running, task_id: str) -> str:
    pages = at.tasks.DownloadResult(pb.DownloadResultRequest(task_id=task_id, name="out"))
    return b"".join([page.data async for page in pages]).decode()


async def uploaded(at: pool_parts.Running, data: bytes) -> pb.ArtifactRef:
    sha256 = hashlib.sha256(data).hexdigest()
    await at.tasks.UploadInput(iter([pb.UploadInputRequest(sha256=sha256, size=len(data), data=data)]))
    return pb.ArtifactRef(sha256=sha256, size=len(data))


async def test_a_restore_is_the_pool_of_the_backup_in_a_new_epoch(tmp_path: Path) -> None:
    data, copy = tmp_path / "pool", tmp_path / "backup"
    async with pool_parts.running(data) as at:
        worker = await at.worker()
        await at.nodes.RegisterNode(pb.RegisterNodeRequest(node_id="drained", boot_id="b"))
        await at.tasks.DrainNode(pb.DrainNodeRequest(node_id="drained"))
        with_input = pb.Task(id="ended", command="true", input_artifacts={"in": await uploaded(at, b"an input")})
        await at.submit(with_input)
        await run(worker, "before")
        await at.submit(*(pb.Task(id=name, command="true") for name in ("running", "assigned", "queued")))
        running = await worker.take()
        await report(worker, running, "1" * 32)
        assigned = await worker.take()
        await append(worker, running, b"of the old epoch", "1" * 32)
        made = await make(data, copy)
        assert not made.missing
        # What comes after it is lost with the pool: other ends, other attempts, other output.
        assert await report(worker, running, "1" * 32, b"lost") == pb.VERDICT_ACCEPTED
        assert await report(worker, assigned, "2" * 32, b"lost") == pb.VERDICT_ACCEPTED
        queued = await run(worker, "lost")
        epoch = queued.store_epoch
    shutil.rmtree(data)
    restored = await put_back(copy, data)
    async with pool_parts.running(data) as at:
        assert restored.epoch == (await at.tasks.GetPoolInfo(pb.GetPoolInfoRequest())).store_epoch != epoch
        states = {name: (await at.info(name)) for name in ("ended", "running", "assigned", "queued")}
        assert {name: info.state for name, info in states.items()} == {
            "ended": "completed",
            "running": "queued",
            "assigned": "queued",
            "queued": "queued",
        }
        assert [states[name].disruptions for name in states] == [0, 1, 1, 0]
        assert (await output(at, "ended"), await result(at, "ended")) == ("before ended", "before ended")
        # The former session is unknown; so is all that it still offers.
        gone = pool_parts.Worker(at, "n", worker.session_id)
        with pytest.raises(grpc.aio.AioRpcError, match="register again"):
            await report(gone, running, "1" * 32, b"lost")
        again = await at.worker()
        assert again.session_id != worker.session_id
        for task, run_id in ((running, "1" * 32), (assigned, "2" * 32), (queued, "3" * 32)):
            assert await report(again, task, run_id, b"lost") == pb.VERDICT_UNKNOWN
        # Not even of a worker that names no epoch.
        running.store_epoch = assigned.store_epoch = ""
        assert {ref.task_id for ref in (await again.beat(running, assigned)).drop} == {"running", "assigned"}
        assert await report(again, running, "1" * 32, b"lost") == pb.VERDICT_STALE
        for _ in range(3):
            await run(again, "after")
        for name in ("running", "assigned", "queued"):
            assert (await output(at, name), await result(at, name)) == (f"after {name}", f"after {name}")
        assert [event.event for event in (await at.info("running")).story].count("complete") == 1
        nodes = (await at.tasks.ListNodes(pb.ListNodesRequest())).nodes
        assert {node.node_id: node.draining for node in nodes} == {"drained": True, "n": False}


async def test_a_backup_while_tasks_end_names_nothing_that_it_lacks(tmp_path: Path) -> None:
    data, copy = tmp_path / "pool", tmp_path / "backup"
    async with pool_parts.running(data) as at:
        worker = await at.worker()
        ended = asyncio.Event()

        async def work() -> None:
            for number in range(400):
                await at.submit(pb.Task(id=f"t{number}", command="true"))
                await run(worker, "its own")
                if number == 20:
                    ended.set()

        working = asyncio.create_task(work())
        await ended.wait()
        made = [await make(data, copy) for _ in range(3)]
        assert not working.done(), "the backups were not made while tasks ended"
        working.cancel()
    assert all(not each.missing for each in made)
    assert sorted(path.name for path in copy.iterdir()) == sorted(["current", "objects", made[-1].path.name])
    await put_back(copy, tmp_path / "restored")
    async with pool_parts.running(tmp_path / "restored") as at:
        tasks = (await at.tasks.ListTasks(pb.ListTasksRequest(states=["completed"], page_size=1000))).tasks
        assert len(tasks) > 20
        for task in tasks:
            assert (await output(at, task.id), await result(at, task.id)) == (f"its own {task.id}",) * 2


async def test_the_same_place_again_copies_only_what_is_new(tmp_path: Path) -> None:
    data, copy = tmp_path / "pool", tmp_path / "backup"
    async with pool_parts.running(data) as at:
        worker = await at.worker()
        await at.submit(pb.Task(id="a", command="true", input_artifacts={"in": await uploaded(at, bytes(10**6))}))
        await run(worker, "x" * 10**5)
        first = await make(data, copy)
        second = await make(data, copy)
        store_bytes = (second.path / "pool.sqlite").stat().st_size
        assert first.copied > 10**6 + 2 * 10**5
        assert second.copied == store_bytes
        assert second.files == first.files
        await at.submit(pb.Task(id="b", command="true"))
        await run(worker, "new")
        third = await make(data, copy)
        assert third.copied < (third.path / "pool.sqlite").stat().st_size + 10_000
        assert third.files == first.files + 2
    await put_back(copy, tmp_path / "restored")


async def test_a_pool_that_does_not_run_is_backed_up_as_well(tmp_path: Path) -> None:
    data, copy = tmp_path / "pool", tmp_path / "backup"
    async with pool_parts.running(data) as at:
        await at.submit(pb.Task(id="a", command="true"))
    await make(data, copy)
    await put_back(copy, tmp_path / "restored")
    async with pool_parts.running(tmp_path / "restored") as at:
        assert (await at.info("a")).state == "queued"


class Broken(Exception):
    """The backup ends here."""


@pytest.mark.parametrize("at_call", range(1, 9))
async def test_a_backup_that_was_broken_off_is_never_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_call: int
) -> None:
    data, copy = tmp_path / "pool", tmp_path / "backup"
    async with pool_parts.running(data) as at:
        worker = await at.worker()
        for name in ("a", "b"):
            await at.submit(pb.Task(id=name, command="true"))
            await run(worker, name)
            if name == "a":
                await make(data, copy)
        calls_made, fsync = 0, os.fsync

        def broken(fd: int) -> None:
            nonlocal calls_made
            calls_made += 1
            if calls_made == at_call:
                raise Broken
            fsync(fd)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", broken)
            with contextlib.suppress(Broken):
                await make(data, copy)
        restored = await put_back(copy, tmp_path / "restored")
        assert not restored.missing
        made = await make(data, copy)  # and nothing that is left over is in the way
        assert sorted(path.name for path in copy.iterdir()) == sorted(["current", "objects", made.path.name])
    async with pool_parts.running(tmp_path / "restored") as at:
        for info in (await at.tasks.ListTasks(pb.ListTasksRequest())).tasks:
            assert (await output(at, info.id), await result(at, info.id)) == (f"{info.id} {info.id}",) * 2


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A backup with a task that ended."""

    async def filled() -> None:
        async with pool_parts.running(tmp_path / "pool") as at:
            await at.submit(pb.Task(id="a", command="true"))
            await run(await at.worker(), "a")
            await make(tmp_path / "pool", tmp_path / "backup")

    asyncio.run(filled())
    return tmp_path / "backup"


@pytest.mark.parametrize("which", ["*/pool.sqlite", "objects/*/*", "*/logs/*/*/0", "*/manifest.jsonl"])
@pytest.mark.parametrize("damage", ["changed", "gone", "cut"])
def test_a_damaged_backup_restores_nothing(tmp_path: Path, copy: Path, which: str, damage: str) -> None:
    (path,) = copy.glob(which)
    path.chmod(0o600)
    content = path.read_bytes()
    match damage:
        case "changed":
            path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        case "cut":
            path.write_bytes(content[:-1])
        case _:
            path.unlink()
    with pytest.raises(errors.BadSettings, match=r"damaged|whole"):
        restore.restore(copy, folders(tmp_path / "restored"))
    assert not (tmp_path / "restored").exists()


async def test_a_restore_refuses_a_pool_that_runs_and_one_that_is_there(tmp_path: Path, copy: Path) -> None:
    data = tmp_path / "other"
    async with pool_parts.running(data) as at:
        await at.submit(pb.Task(id="another", command="true"))
        with pytest.raises(errors.StateInUse, match="another pool"):
            await put_back(copy, data, replace=True)
    with pytest.raises(errors.BadSettings, match="--replace"):
        await put_back(copy, data)
    async with pool_parts.running(data) as at:
        assert (await at.info("another")).state == "queued"
    restored = await put_back(copy, data, replace=True)
    async with pool_parts.running(data) as at:
        assert await output(at, "a") == "a a"
        with pytest.raises(grpc.aio.AioRpcError):
            await at.info("another")
    # Nothing was overwritten: the store of before is whole.
    (aside,) = [path for path in restored.set_aside if "pool.sqlite" in path.name]
    with contextlib.closing(sqlite3.connect(aside)) as sql:
        assert sql.execute("SELECT id FROM tasks").fetchall() == [("another",)]


async def test_a_restore_that_was_broken_off_opens_as_no_pool(
    tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "restored"
    with monkeypatch.context() as patched:
        patched.setattr(artifact_store, "CHUNK", 1)  # whatever reads now reads a byte
        patched.setattr(restore, "_place", lambda *_: (_ for _ in ()).throw(Broken))
        with pytest.raises(Broken):
            await put_back(copy, data)
    with pytest.raises(errors.BadSettings, match="broken off"):
        await server.NodePool(data).start()
    await put_back(copy, data)
    async with pool_parts.running(data) as at:
        assert await output(at, "a") == "a a"


async def test_a_file_that_the_pool_has_lost_is_named_and_the_rest_is_whole(tmp_path: Path) -> None:
    data, copy = tmp_path / "pool", tmp_path / "backup"
    async with pool_parts.running(data) as at:
        worker = await at.worker()
        await at.submit(pb.Task(id="a", command="true"))
        await run(worker, "a")
        (lost,) = (data / "artifacts" / "objects").glob("*/*")
        lost.unlink()
        assert (await make(data, copy)).missing == (lost.name,)
    assert (await put_back(copy, tmp_path / "restored")).missing == (lost.name,)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    database.writing(tmp_path / "pool.sqlite").close()
    with pytest.raises(errors.BadSettings, match="no backup of a pool"):
        backup.make(folders(tmp_path), mine)
    assert [path.name for path in mine.iterdir()] == ["letter"]
    with pytest.raises(errors.BadSettings, match="no whole backup"):
        restore.restore(mine, folders(tmp_path / "restored"))
    with pytest.raises(errors.BadSettings, match="no pool's store"):
        backup.make(folders(tmp_path / "nowhere"), tmp_path / "b")


def test_two_backups_into_one_folder_are_one_too_many(tmp_path: Path) -> None:
    database.writing(tmp_path / "pool.sqlite").close()
    lock = locks.InodeLock(tmp_path / "b", "", is_folder=True)
    lock.take()
    with pytest.raises(errors.StateInUse, match="another backup"):
        backup.make(folders(tmp_path), tmp_path / "b")
    lock.release()


@pytest_asyncio.fixture
async def large_input(tmp_path: Path) -> bytes:
    """What the one task of a pool in `pool` has as its input."""
    data = os.urandom(700 * 1024)
    async with pool_parts.running(tmp_path / "pool") as at:
        await at.submit(pb.Task(id="a", command="true", input_artifacts={"in": await uploaded(at, data)}))
    return data


def has_input(artifacts: Path, data: bytes) -> bool:
    (found,) = artifacts.rglob(hashlib.sha256(data).hexdigest())
    return found.read_bytes() == data


@pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")
async def test_a_restore_that_says_so_is_whole_however_little_room_there_was(
    tmp_path: Path, large_input: bytes
) -> None:
    await make(tmp_path / "pool", tmp_path / "backup")
    refused = 0
    for kibibytes in range(100, 1_500, 100):
        with small_disk.mounted(tmp_path / "disk", 2) as disk:
            disk.fill(leave_bytes=kibibytes * 1024)
            try:
                await put_back(tmp_path / "backup", disk.path / "pool")
            except (OSError, sqlite3.Error, errors.HiveMindError):
                refused += 1
            else:
                assert has_input(disk.path / "pool" / "artifacts", large_input), f"{kibibytes} KiB were free"
    assert 0 < refused < 14


@pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")
async def test_a_backup_that_had_no_room_spoils_none_that_has(tmp_path: Path, large_input: bytes) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        for kibibytes in range(300, 700, 100):
            disk.fill(leave_bytes=kibibytes * 1024)
            with pytest.raises(OSError, match=re.escape(str(disk.path))):
                await make(tmp_path / "pool", disk.path / "backup")
            disk.clear()
        await make(tmp_path / "pool", disk.path / "backup")
        (found,) = (disk.path / "backup" / "objects").glob("*/*")
        os.truncate(found, 4096)  # as older versions left it
        await make(tmp_path / "pool", disk.path / "backup")
        await put_back(disk.path / "backup", tmp_path / "restored")
    assert has_input(tmp_path / "restored" / "artifacts", large_input)
