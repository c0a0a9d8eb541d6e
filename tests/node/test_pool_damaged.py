"""A damaged store: nothing is handed out, nothing is written over, and the pool says what to do."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pool_parts
import pytest
import waiting
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from hivemind_worker import errors
from hivemind_worker.pool import backup, restore
from hivemind_worker.pool.store import database, soundness, sqlite
from hivemind_worker.wire import calls

pb = calls.pb

PAGE = 4096
TASKS = 1_500
COMMAND = f"true {'x' * 500}"


def folders(data: Path) -> backup.Folders:
    return backup.Folders(data / "pool.sqlite", data / "logs", data / "artifacts")


def destroy(path: Path, seed: int, pages: int = 20) -> None:
    """Overwrite pages, not the first one, in another process: to open the file here would loosen SQLite's locks."""
    chosen = random.Random(seed).sample(range(1, path.stat().st_size // PAGE), pages)
    script = "import sys\nwith open(sys.argv[1], 'r+b') as file:\n"
    script += "".join(f"    file.seek({page * PAGE}); file.write(b'\\xaa' * {PAGE})\n" for page in chosen)
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


async def filled(data: Path) -> None:
    async with pool_parts.running(data) as at:
        await at.submit(*(pb.Task(id=f"t{number}", command=COMMAND) for number in range(TASKS)))


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def refuses(at: pool_parts.Running) -> None:
    """Nothing is handed out or taken, and the pool says why."""
    for call in (at.worker("new"), at.submit(pb.Task(command="true"))):
        with pytest.raises(grpc.aio.AioRpcError, match="hivemind pool restore") as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    ready, reason = at.pool.health.ready()
    assert not ready
    async with grpc.aio.insecure_channel(at.pool.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert "hivemind pool restore DIR --replace" in reason
    assert at.pool.health.live()
    info = await at.tasks.GetPoolInfo(pb.GetPoolInfoRequest())
    assert list(info.unready_reasons) == [reason]
    report = await at.pool.health.check_health()
    assert report["status"] == "unhealthy"


@pytest.mark.parametrize("seed", range(5))
async def test_twenty_destroyed_pages_are_seen_before_anything_is_handed_out(tmp_path: Path, seed: int) -> None:
    data = tmp_path / "pool"
    await filled(data)
    await asyncio.to_thread(backup.make, folders(data), tmp_path / "backup")
    destroy(data / "pool.sqlite", seed)
    before = sum_of(data / "pool.sqlite")
    async with pool_parts.running(data) as at:
        await refuses(at)
    assert sum_of(data / "pool.sqlite") == before
    with pytest.raises(database.Damaged):  # and the whole backup stays the current one
        await asyncio.to_thread(backup.make, folders(data), tmp_path / "backup")
    await asyncio.to_thread(lambda: restore.restore(tmp_path / "backup", folders(data), replace=True))
    async with pool_parts.running(data) as at:
        info = await at.tasks.GetPoolInfo(pb.GetPoolInfoRequest())
        assert (info.tasks_by_state["queued"], list(info.unready_reasons)) == (TASKS, [])
        assert (await (await at.worker()).take()).command == COMMAND


@pytest.mark.parametrize("seed", range(3))
async def test_damage_that_is_met_while_it_serves_ends_all_writing(tmp_path: Path, seed: int) -> None:
    await filled(tmp_path)
    async with pool_parts.running(tmp_path) as at:
        worker = await at.worker()
        path = tmp_path / "pool.sqlite"
        destroy(path, seed, pages=path.stat().st_size // PAGE // 2)

        async def read_all() -> None:
            for number in range(TASKS):
                await at.info(f"t{number}")

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError, match="hivemind pool restore"):
            await worker.poll(5)
        await refuses(at)
        before = sum_of(path)
    assert sum_of(path) == before


async def test_a_large_store_is_looked_into_beside_whoever_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tmp_path)
    destroy(tmp_path / "pool.sqlite", 1)
    sound = soundness.Soundness(tmp_path / "pool.sqlite")
    await sound.begin(0)
    await waiting.wait_until(lambda: sound.damage, description="the damage is found")
    await sound.end()
    # An end that comes before it is through is no damage.
    with monkeypatch.context() as patched:
        patched.setattr(soundness, "AT_OPEN_SECONDS", 0)
        whole = sqlite.SqliteStore(tmp_path / "other.sqlite")
        await whole.open()
        await whole.close()
        assert not whole.damage


async def test_a_store_whose_tables_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    await filled(tmp_path)
    path = tmp_path / "pool.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(PAGE - 100) + content[PAGE:])
    store = sqlite.SqliteStore(path)
    await store.open()
    assert "restore" in store.damage
    with pytest.raises(errors.Unavailable, match="restore"):
        await store.submit([])
    await store.close()


def replace_header(path: Path) -> None:
    path.write_bytes(b"\xaa" * PAGE + path.read_bytes()[PAGE:])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "first page destroyed": replace_header,
    "half of it cut off": lambda path: os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE),
    "cut off within a page": lambda path: os.truncate(path, path.stat().st_size - PAGE - 7),
    "emptied": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_store_that_is_no_database_any_more_waits_for_its_restore(tmp_path: Path, damage: str) -> None:
    """Never a new, empty pool in its place, and never an end without the way out."""
    data = tmp_path / "pool"
    async with pool_parts.running(data) as at:
        await at.submit(*(pb.Task(command=COMMAND) for _ in range(100)))
    await asyncio.to_thread(backup.make, folders(data), tmp_path / "backup")
    DAMAGES[damage](data / "pool.sqlite")
    before = sum_of(data / "pool.sqlite")
    async with pool_parts.running(data) as at:
        await refuses(at)
        with pytest.raises(grpc.aio.AioRpcError, match="hivemind pool restore"):
            await at.tasks.ListTasks(pb.ListTasksRequest())
    assert sum_of(data / "pool.sqlite") == before
    await asyncio.to_thread(lambda: restore.restore(tmp_path / "backup", folders(data), replace=True))
    async with pool_parts.running(data) as at:
        assert (await at.tasks.GetPoolInfo(pb.GetPoolInfoRequest())).tasks_by_state["queued"] == 100


async def test_a_store_that_was_removed_or_never_finished_begins_empty(tmp_path: Path) -> None:
    path = tmp_path / "pool.sqlite"
    for _ in range(2):
        path.touch()  # killed between the first lock and the first page
        async with pool_parts.running(tmp_path) as at:
            await at.submit(pb.Task(command="true"))
            info = await at.tasks.GetPoolInfo(pb.GetPoolInfoRequest())
            assert (info.tasks_by_state["queued"], list(info.unready_reasons)) == (1, [])
        path.unlink()
        async with pool_parts.running(tmp_path) as at:  # removed on purpose
            assert not list((await at.tasks.GetPoolInfo(pb.GetPoolInfoRequest())).unready_reasons)
        path.unlink()
        (tmp_path / "pool.sqlite.lock").unlink()


async def test_a_file_that_never_was_a_store_is_named_with_both_ways_out(tmp_path: Path) -> None:
    path = tmp_path / "pool.sqlite"
    path.write_text("a letter\n" * 1000)
    store = sqlite.SqliteStore(path)
    with pytest.raises(errors.BadSettings, match=r"--store.*hivemind pool restore DIR --replace"):
        await store.open()
    assert path.read_text() == "a letter\n" * 1000
