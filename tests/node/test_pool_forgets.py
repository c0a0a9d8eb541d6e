"""Nodes come and go in thousands: what the pool has in memory of them goes with them."""

from __future__ import annotations

import asyncio
import types
from pathlib import Path

import pytest
import store_parts

from hivemind_worker.concurrency import stopping
from hivemind_worker.pool import server
from hivemind_worker.pool.store import records, sqlite
from hivemind_worker.wire import calls

pb = calls.pb

DAY = 86_400.0


def sizes(root: object) -> dict[str, int]:
    """Return the length of every container that objects of ours can reach, by its path."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    stack: list[tuple[str, object]] = [("pool", root)]
    while stack:
        path, thing = stack.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | set | list):
            found[path] = len(thing)
        if type(thing).__module__.startswith("hivemind_worker.pool"):
            names = list(getattr(thing, "__dict__", ()) or getattr(type(thing), "__slots__", ()))
            stack += [(f"{path}.{name}", getattr(thing, name, None)) for name in names]
    return found


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
async def test_nodes_that_are_gone_leave_nothing_in_memory(tmp_path: Path, count: int) -> None:
    clock = store_parts.Clock()
    pool = server.NodePool(tmp_path)
    pool.store = sqlite.SqliteStore(tmp_path / "pool.sqlite", store_parts.LEASE, clock)
    parts, store = pool._parts, pool.store
    parts.store = parts.dispatch._store = store
    await store.open()
    for listener in (parts.dispatch.heard, parts.followers.heard, parts.told.heard, parts.live.heard):
        store.listen(listener)
    store.answer(parts.dispatch.answered)
    stop = stopping.Stop()
    dispatching = asyncio.create_task(parts.dispatch.run(stop))
    before = sizes(pool)

    async def comes_and_goes(number: int) -> None:
        """It is given a task, is told to stop it, says what it uses, and is never heard again."""
        name, task_id = f"node {number}", f"task {number}"
        shape = store_parts.SMALL
        session = (await store.register(store_parts.node(name), ())).session_id
        await store.submit([store_parts.task(task_id, shape=shape, attempts=1)])
        given = await parts.dispatch.poll(records.Poll(name, session, None), 30)
        (handed,) = given.tasks
        ref = records.Ref(handed.task_id, handed.attempt)
        await store.cancel([handed.task_id])
        told = await store.heartbeat(records.Beat(name, session, held=(ref,)))
        parts.live.beat(name, [pb.AttemptRef(task_id=ref.task_id, attempt=ref.attempt, phase="running")], told.drop)
        held = frozenset({(ref.task_id, ref.attempt)})
        assert (await parts.dispatch.poll(records.Poll(name, session, None, held=held, paused=True), 30)).cancel

    for start in range(0, count, 250):
        await asyncio.gather(*(comes_and_goes(number) for number in range(start, start + 250)))
    grown = {path: size for path, size in sizes(pool).items() if size >= count / 2}
    assert {"pool._parts.live._of", "pool._parts.live._said", "pool._parts.dispatch._told"} <= grown.keys()
    while await store.nodes():
        clock.seconds += DAY + 1
        parts.forget((await store.expire()).nodes)
    after = sizes(pool)
    stop.request(stopping.StopLevel.DRAIN, "the test ends")
    await dispatching
    await store.close()
    parts.files.close()
    parts.audit.close()
    parts.logs.close()
    assert {path: size for path, size in after.items() if size > before.get(path, 0) + 10} == {}
