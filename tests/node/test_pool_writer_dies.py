"""The thread that writes dies by a defect: nobody waits for ever, nothing is handed out, the pool ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import grpc
import pool_parts
import pytest
import store_parts
import waiting
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from hivemind_worker import errors
from hivemind_worker.concurrency import supervision
from hivemind_worker.pool import server
from hivemind_worker.pool.store import schema, sqlite, writing
from hivemind_worker.wire import calls

pb = calls.pb

SECONDS = 30


class Defect(BaseException):
    """What no ``except Exception`` catches."""


def dies(_: writing.Transaction) -> NoReturn:
    raise Defect


async def kill_writer(store: sqlite.SqliteStore) -> None:
    with pytest.raises(errors.Unavailable, match="Defect"):
        await store._write.do(dies)


async def test_all_who_wait_and_all_who_come_later_hear_of_it(tmp_path: Path) -> None:
    store = sqlite.SqliteStore(tmp_path / "pool.sqlite")
    await store.open()
    await store.submit([store_parts.task("before")])
    reasons: list[str] = []
    store.on_unusable(reasons.append)
    async with asyncio.timeout(SECONDS):
        # One batch, then what came while it was done.
        pending = [asyncio.create_task(store.submit([store_parts.task(f"t{number}")])) for number in range(300)]
        await asyncio.sleep(0)
        await kill_writer(store)
        ended = await asyncio.gather(*pending, return_exceptions=True)
        assert {type(end) for end in ended} <= {tuple, errors.Unavailable}
        for _ in range(2):
            with pytest.raises(errors.Unavailable, match="start the pool again"):
                await store.submit([store_parts.task("later")])
        with pytest.raises(errors.HiveMindError, match="Defect"):
            await store.failed()
        assert (await store.counts())["queued"] >= 1  # what only reads goes on
        await store.close()
    assert [("Defect" in reason) for reason in reasons] == [True]
    async with asyncio.timeout(SECONDS):
        await store.open()
        acknowledged = [end[0] for end in ended if isinstance(end, tuple)]
        assert len(await store.tasks(["before", *acknowledged])) == len(acknowledged) + 1
        await store.close()


async def test_a_writer_that_dies_while_it_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = sqlite.SqliteStore(tmp_path / "pool.sqlite")
    with monkeypatch.context() as patched:
        patched.setattr(schema, "migrate", lambda *_: dies(None))  # type: ignore[arg-type]
        async with asyncio.timeout(SECONDS):
            with pytest.raises(errors.Unavailable, match="Defect"):
                await store.open()
    await store.open()
    await store.close()


async def is_serving(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service="nodepool.NodeManager")
        answer = await health_pb2_grpc.HealthStub(channel).Check(request)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until(address: str, *, serving: bool) -> None:
    async def look() -> bool:
        return await is_serving(address) is serving

    check: Callable[[], bool | Awaitable[bool]] = look
    await waiting.wait_until(check, description=f"grpc.health.v1 says serving: {serving}", seconds=SECONDS)


async def test_the_pool_is_unready_at_once_and_ends_with_an_error(tmp_path: Path) -> None:
    pool = server.NodePool(tmp_path)
    address = await pool.start()
    async with asyncio.timeout(SECONDS):
        assert await is_serving(address)
        await kill_writer(pool.store)
        ready, reason = pool.health.ready()
        assert not ready
        assert "Defect" in reason
        await until(address, serving=False)
        with pytest.raises(supervision.LoopFailed, match="Defect"):
            await pool.failed()
        assert not pool.health.live()
        with pytest.raises(supervision.LoopFailed):
            await pool.stop()
    async with pool_parts.running(tmp_path) as at:  # and the folder was let go
        await at.submit()


async def test_grpc_health_follows_readiness(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        address = at.pool.address
        for _ in range(2):
            await until(address, serving=True)
            at.pool._parts.readiness.set_unready("test", "the test says so")
            await until(address, serving=False)
            at.pool._parts.readiness.set_ready("test")
