"""Locks by caller: one caller waits for itself, none for another, and nothing stays of who is gone."""

from __future__ import annotations

import asyncio

from hivemind_worker.pool.api import peer_locks


async def test_a_caller_waits_for_itself_in_turn_and_for_no_other() -> None:
    locks, order = peer_locks.PeerLocks(), list[str]()
    release = asyncio.Event()

    async def work(peer: str, name: str) -> None:
        async with locks.lock(peer):
            order.append(name)
            if name == "first":
                await release.wait()

    async with asyncio.TaskGroup() as group:
        for peer, name in (("a", "first"), ("a", "second"), ("a", "third"), ("b", "other")):
            group.create_task(work(peer, name))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["first", "other"]
        assert len(locks) == 1
        release.set()
    assert order == ["first", "other", "second", "third"]
    assert len(locks) == 0


async def test_a_caller_that_goes_while_it_waits_holds_up_nobody() -> None:
    locks = peer_locks.PeerLocks()

    async def wait_in_vain() -> None:
        async with locks.lock("a"):
            raise AssertionError("it was not cancelled")

    async with locks.lock("a"):
        waiting = asyncio.create_task(wait_in_vain())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
    async with locks.lock("a"):
        assert len(locks) == 1
    assert len(locks) == 0
