"""A store file that was put back by hand is another history: its epoch is renewed, and nothing of the other counts."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import grpc
import pool_parts
import pytest
import store_parts

from hivemind_worker.pool import backup, restore
from hivemind_worker.pool.store import history_mark, schema, sqlite
from hivemind_worker.wire import calls

pb = calls.pb


def copied(data: Path, to: Path) -> None:
    to.mkdir()
    for path in data.glob("pool.sqlite*"):
        if path.suffix not in {".lock", ".mark"}:
            shutil.copy(path, to / path.name)


def put_back(data: Path, copy: Path) -> None:
    for path in data.glob("pool.sqlite*"):
        if path.suffix not in {".lock", ".mark"}:
            path.unlink()
    for path in copy.iterdir():
        shutil.copy(path, data / path.name)


async def test_a_result_of_the_other_history_never_counts(tmp_path: Path) -> None:
    data = tmp_path / "pool"
    async with pool_parts.running(data) as at:
        await at.submit(pb.Task(id="nightly", command="true"))
        epoch = at.pool.store.epoch
    copied(data, tmp_path / "copy")
    async with pool_parts.running(data) as at:  # no epoch is renewed by an orderly restart
        assert at.pool.store.epoch == epoch
        worker = await at.worker()
        monday = await worker.take()
    put_back(data, tmp_path / "copy")
    async with pool_parts.running(data) as at:
        assert at.pool.store.epoch != epoch
        with pytest.raises(grpc.aio.AioRpcError):  # the session is of the other history
            await pool_parts.Worker(at, "n", worker.session_id).report(monday)
        worker = await at.worker()
        tuesday = await worker.take()
        assert (tuesday.id, tuesday.attempt) == (monday.id, monday.attempt)
        assert tuesday.store_epoch != monday.store_epoch
        request = pb.ReportTaskResultRequest(
            task_id=monday.id,
            node_id="n",
            session_id=worker.session_id,
            attempt=monday.attempt,
            status="completed",
            store_epoch=monday.store_epoch,
            result=pb.TaskResult(status="completed"),
        )
        assert (await at.nodes.ReportTaskResult(request)).verdict == pb.VERDICT_UNKNOWN
        assert (await worker.report(tuesday)).verdict == pb.VERDICT_ACCEPTED
        renewed = at.pool.store.epoch
    async with pool_parts.running(data) as at:  # once
        assert at.pool.store.epoch == renewed


async def test_a_worker_that_knows_no_epochs_drops_what_it_had_before_it_is_given_anything(tmp_path: Path) -> None:
    data = tmp_path / "pool"
    async with pool_parts.running(data) as at:
        await at.submit(pb.Task(id="nightly", command="true"))
    copied(data, tmp_path / "copy")
    async with pool_parts.running(data) as at:
        monday = await (await at.worker()).take()
    put_back(data, tmp_path / "copy")
    async with pool_parts.running(data) as at:
        held = [pb.AttemptRef(task_id=monday.id, attempt=monday.attempt)]
        opened = await at.nodes.RegisterNode(
            pb.RegisterNodeRequest(node_id="n", boot_id="b", cpu_cores=4, memory_gb=8, disk_gb=50, held=held)
        )
        assert [(ref.task_id, ref.attempt) for ref in opened.drop] == [(monday.id, monday.attempt)]
        late = await pool_parts.Worker(at, "n", opened.session_id).report(monday)
        assert late.verdict == pb.VERDICT_UNKNOWN


async def busy(store: sqlite.SqliteStore) -> None:
    session = (await store.register(store_parts.node(), ())).session_id
    await store.submit([store_parts.task()])
    await store_parts.take(store, "n", session)
    await store.expire()


async def test_a_copy_that_was_made_while_it_served_is_seen_after_a_kill(tmp_path: Path) -> None:
    data = tmp_path / "pool"
    store = sqlite.SqliteStore(data / "pool.sqlite")
    await store.open()
    epoch = store.epoch
    copied(data, tmp_path / "copy")
    await busy(store)
    copied(data, tmp_path / "killed")
    shutil.copy(history_mark.path_of(data / "pool.sqlite"), tmp_path / "mark")
    await store.close()
    for name, renewed in (("killed", False), ("copy", True)):
        put_back(data, tmp_path / name)
        shutil.copy(tmp_path / "mark", history_mark.path_of(data / "pool.sqlite"))
        store = sqlite.SqliteStore(data / "pool.sqlite")
        await store.open()
        assert (store.epoch != epoch) is renewed, name
        await store.close()


@pytest.mark.parametrize("step", range(8))
async def test_no_kill_at_any_step_is_taken_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """What is on the disk before and after each step of three openings, a busy life and a close is gone on with."""
    data = tmp_path / "pool"
    steps: list[Path] = []

    def keep() -> None:
        folder = tmp_path / f"step-{len(steps)}"
        shutil.copytree(data, folder)
        steps.append(folder)

    advance, write, replace = schema.advance_generation, history_mark.write, Path.replace

    def watched(name: str, work: object) -> object:
        def run(*arguments: object) -> object:
            keep()
            try:
                return work(*arguments)  # type: ignore[operator]
            finally:
                keep()

        run.__name__ = name
        return run

    with monkeypatch.context() as patched:
        patched.setattr(history_mark, "write", watched("write", write))
        patched.setattr(schema, "advance_generation", watched("advance", advance))
        patched.setattr(Path, "replace", watched("replace", replace))
        for _ in range(2):
            store = sqlite.SqliteStore(data / "pool.sqlite")
            await store.open()
            await busy(store)
            await store.close()
        epoch = history_mark.read(data / "pool.sqlite")
    assert epoch is not None
    assert len(steps) >= 30
    for folder in steps[step::8]:
        store = sqlite.SqliteStore(folder / "pool.sqlite")
        await store.open()
        assert store.epoch == epoch.epoch or not history_mark.read(folder / "pool.sqlite"), folder
        await store.close()


async def test_a_kill_while_the_epoch_is_renewed_renews_it_all_the_same(tmp_path: Path) -> None:
    data = tmp_path / "pool"
    store = sqlite.SqliteStore(data / "pool.sqlite")
    await store.open()
    epoch = store.epoch
    copied(data, tmp_path / "copy")
    await busy(store)
    await store.close()
    put_back(data, tmp_path / "copy")
    history_mark.check(data / "pool.sqlite", 0.0)  # and killed before anything is marked
    store = sqlite.SqliteStore(data / "pool.sqlite")
    await store.open()
    assert store.epoch != epoch
    assert (await store.counts())["queued"] == 0
    await store.close()


async def test_a_restore_is_no_copy_that_was_put_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "pool"
    folders = backup.Folders(data / "pool.sqlite", data / "logs", data / "artifacts")
    async with pool_parts.running(data) as at:
        await at.submit(pb.Task(id="nightly", command="true"))
        await asyncio.to_thread(backup.make, folders, tmp_path / "backup")
        await (await at.worker()).take()
    for _ in range(2):
        made = await asyncio.to_thread(lambda: restore.restore(tmp_path / "backup", folders, replace=True))
        async with pool_parts.running(data) as at:
            assert at.pool.store.epoch == made.epoch
    assert "store_put_back" not in caplog.text


async def test_a_mark_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    data = tmp_path / "pool"
    history_mark.path_of(data / "pool.sqlite").mkdir(parents=True)
    store = sqlite.SqliteStore(data / "pool.sqlite")
    await store.open()
    await busy(store)
    await store.close()
    assert history_mark.read(data / "pool.sqlite") is None


def test_which_marks_a_store_has_not_lived_through() -> None:
    newer = history_mark.is_newer
    assert not newer(history_mark.Mark("a", 3), ("a",), 3)
    assert not newer(history_mark.Mark("a", 3), ("a",), 4)  # killed before the mark was written
    assert newer(history_mark.Mark("a", 4), ("a",), 3)
    assert not newer(history_mark.Mark("a", 9), ("a", "b"), 3)  # a restore went on from it
    assert newer(history_mark.Mark("b", 1), ("a",), 9)  # of before a restore
