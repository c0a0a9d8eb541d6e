"""Restores that are killed, given up, repeated, or follow one another within a second: nothing is lost or mixed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

import pool_parts
import pytest

from hivemind_worker import errors
from hivemind_worker.pool import backup, restore, server
from hivemind_worker.wire import calls

pb = calls.pb


class Broken(Exception):
    """The process ends here."""


def folders(data: Path) -> backup.Folders:
    return backup.Folders(data / "pool.sqlite", data / "logs", data / "artifacts")


async def put_back(source: Path, data: Path) -> restore.Summary:
    return await asyncio.to_thread(lambda: restore.restore(source, folders(data), replace=True))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A backup of a pool with one task, `a`."""

    async def filled() -> None:
        async with pool_parts.running(tmp_path / "pool") as at:
            await at.submit(pb.Task(id="a", command="true"))

    asyncio.run(filled())
    backup.make(folders(tmp_path / "pool"), tmp_path / "backup")
    return tmp_path / "backup"


async def test_what_a_restore_of_another_backup_left_is_not_mixed_in(tmp_path: Path, copy: Path) -> None:
    """It was killed as it made its copy a store of a new epoch: some of that is in the log beside the copy."""
    data, other = tmp_path / "restored", tmp_path / "other.sqlite"
    data.mkdir()
    shutil.copy(backup.open_current(copy)[0] / "pool.sqlite", other)
    with contextlib.closing(sqlite3.connect(other)) as sql:
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("UPDATE tasks SET id = 'stray'")
        sql.commit()
        for end in ("", "-wal", "-shm"):
            shutil.copy(f"{other}{end}", data / f"pool.sqlite.restoring{end}")
    await put_back(copy, data)
    assert sorted(path.name for path in data.glob("*restoring*")) == []
    async with pool_parts.running(data) as at:
        assert [task.id for task in (await at.tasks.ListTasks(pb.ListTasksRequest())).tasks] == ["a"]


async def test_restores_of_one_second_write_over_nothing(tmp_path: Path, copy: Path) -> None:
    data = tmp_path / "restored"
    async with pool_parts.running(data) as at:
        await at.submit(pb.Task(id="before", command="true"))
    aside = [(await put_back(copy, data)).set_aside for _ in range(4)]
    stores = [path for paths in aside for path in paths if path.name.startswith("pool.sqlite")]
    assert len(set(stores)) == len(stores) == 4
    assert all(path.exists() for paths in aside for path in paths)
    with contextlib.closing(sqlite3.connect(stores[0])) as sql:
        assert sql.execute("SELECT id FROM tasks").fetchall() == [("before",)]


@pytest.mark.parametrize("at_call", [2, 3, 5])
async def test_a_restore_that_is_given_up_costs_nothing_of_what_was_there(
    tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, at_call: int
) -> None:
    """Whoever does what the pool says has every task that was acknowledged, those in the log beside the store too."""
    data = tmp_path / "restored"
    async with pool_parts.running(tmp_path / "served") as at:
        await at.submit(pb.Task(id="before", command="true"))
        shutil.copytree(tmp_path / "served", data)  # as a pool that was killed leaves it
    assert (data / "pool.sqlite-wal").stat().st_size
    calls_made, replace = 0, Path.replace

    def broken(path: Path, target: Path) -> Path:
        nonlocal calls_made
        calls_made += 1
        if calls_made == at_call:
            raise Broken
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", broken)
        with contextlib.suppress(Broken):
            await put_back(copy, data)
    mark, message = data / "pool.sqlite.restoring", ""
    if mark.exists():
        for _ in range(2):  # to look twice changes nothing
            with pytest.raises(errors.BadSettings, match=f"remove {mark}") as caught:
                await server.NodePool(data).start()
            message = str(caught.value)
        mark.unlink()
    if message and "the store was not touched" not in message:
        assert "give what it set aside its old name back" in message
        for path in data.glob("pool.sqlite.replaced-*"):
            base, _, rest = path.name.partition(".replaced-")
            path.rename(data / (base + "".join(end for end in ("-wal", "-shm") if rest.endswith(end))))
    async with pool_parts.running(data) as at:
        assert (await at.info("before")).state == "queued"
