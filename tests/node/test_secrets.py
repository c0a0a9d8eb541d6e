"""Secrets of tasks at a pool and a worker: delivered to the task, in clear text nowhere, erased when it has ended."""

from __future__ import annotations

import contextlib
from pathlib import Path

import node_parts
import pytest
import waiting

from hivemind_worker import errors
from hivemind_worker.client import asynchronous
from hivemind_worker.pool import backup, restore, server
from hivemind_worker.pool.api import requests
from hivemind_worker.pool.store import database
from hivemind_worker.tasks import state

VALUE = "hunter2-of-the-task"
TASK = {
    "command": 'test "$TOKEN" = hunter2-of-the-task && until [ -e "$GO" ]; do sleep 0.05; done',
    "secrets": {"TOKEN": VALUE},
    "memory_limit": "64m",
    "cpu_quota": 20_000,
}


def with_the_value(folder: Path) -> list[str]:
    """Files that have the value; the task's command, which this test wrote, has it once as well."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and VALUE.encode() in path.read_bytes().replace(b"= " + VALUE.encode(), b""):
                found.append(path.name)
    return found


def sealed_rows(store: Path) -> int:
    with contextlib.closing(database.reading(store)) as sql:
        return int(sql.execute("SELECT count(*) FROM sealed_secrets").fetchone()[0])


async def test_they_reach_the_task_and_nothing_else(tmp_path: Path) -> None:
    pool = server.NodePool(tmp_path / "pool", lease_seconds=5.0)
    await pool.start()
    task = {**TASK, "environment": {"GO": str(tmp_path / "go")}}
    try:
        async with asynchronous.AsyncClient(pool.address) as client:
            (task_id,) = await client.submit(task, key="again")
            assert await client.submit(task, key="again") == [task_id]
            with pytest.raises(errors.Conflict):
                await client.submit({**task, "secrets": {"TOKEN": "another"}}, key="again")
            assert with_the_value(tmp_path) == []
            assert sealed_rows(tmp_path / "pool" / "pool.sqlite") == 1
            async with node_parts.running(pool.address, tmp_path / "work"):
                journal = tmp_path / "work" / "worker.journal"
                await waiting.wait_until(
                    lambda: journal.exists() and b'"started"' in journal.read_bytes(), description="the task has begun"
                )
                assert with_the_value(tmp_path) == []
                (tmp_path / "go").touch()
                (ended,) = await client.wait(task_id, 20)
            assert ended.status is state.TaskState.COMPLETED
            assert VALUE not in str(ended.as_json())
            assert with_the_value(tmp_path) == []
            assert sealed_rows(tmp_path / "pool" / "pool.sqlite") == 0
            with pytest.raises(errors.Conflict, match="erased when it ended"):
                await client.retry(task_id)
    finally:
        await pool.stop()


async def test_without_the_key_a_task_fails_and_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    places = backup.Folders(folder / "pool.sqlite", folder / "logs", folder / "artifacts")
    pool = server.NodePool(folder, lease_seconds=5.0)
    await pool.start()
    async with asynchronous.AsyncClient(pool.address) as client:
        (task_id,) = await client.submit({**TASK, "environment": {"GO": "/"}})
    await pool.stop()
    backup.make(places, tmp_path / "plain")
    backup.make(places, tmp_path / "keyed", with_key=True)
    assert not list((tmp_path / "plain").rglob("*key*"))
    for name, unreadable in (("plain", 1), ("keyed", 0)):
        there = tmp_path / f"restored-{name}"
        target = backup.Folders(there / "pool.sqlite", there / "logs", there / "artifacts")
        assert restore.restore(tmp_path / name, target).unreadable == unreadable
        pool = server.NodePool(there, lease_seconds=5.0)
        await pool.start()
        async with asynchronous.AsyncClient(pool.address) as client, node_parts.running(pool.address, tmp_path / name):
            (ended,) = await client.wait(task_id, 20)
        await pool.stop()
        assert ended.result is not None
        assert ended.result.exit_code == (None if unreadable else 0)
        assert not unreadable or "its value is lost" in ended.result.error


async def test_a_pool_that_knows_none_is_sent_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "FEATURES", ())
    pool = server.NodePool(tmp_path / "pool")
    await pool.start()
    try:
        async with asynchronous.AsyncClient(pool.address) as client:
            for call in (client.submit(TASK), client.run(TASK, seconds=5)):
                with pytest.raises(errors.Rejected, match="knows no secrets"):
                    await call
    finally:
        await pool.stop()
    assert with_the_value(tmp_path) == []
