"""Work done once for all who want it at the same time."""

from __future__ import annotations

import asyncio

import pytest

from hivemind_worker.concurrency import sharing


async def test_all_get_the_one_result_and_are_told_how_far_it_is() -> None:
    shared: sharing.Shared[int] = sharing.Shared("test")
    begun, go = 0, asyncio.Event()

    async def work(say: sharing.Tell) -> int:
        nonlocal begun
        begun += 1
        say("half")
        await go.wait()
        say("whole")
        return 7

    first: list[str] = []
    late: list[str] = []
    waiting = [asyncio.create_task(shared.get("k", work, first.append))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(shared.get("k", work, late.append)))
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*waiting) == [7, 7]
    assert (begun, first, late) == (1, ["half", "whole"], ["half", "whole"])
    assert shared.keys == frozenset()


async def test_an_error_reaches_all_and_the_next_begins_anew() -> None:
    shared: sharing.Shared[int] = sharing.Shared("test")
    tries = 0

    async def work(_say: sharing.Tell) -> int:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        if tries == 1:
            raise ValueError("first")
        return tries

    both = await asyncio.gather(*(shared.get("k", work, lambda _: None) for _ in range(2)), return_exceptions=True)
    assert [str(each) for each in both] == ["first", "first"]
    assert await shared.get("k", work, lambda _: None) == 2


async def test_the_last_to_leave_ends_it_and_who_comes_then_begins_anew() -> None:
    shared: sharing.Shared[str] = sharing.Shared("test")
    ended: list[str] = []

    async def work(say: sharing.Tell) -> str:
        say("begun")
        try:
            await asyncio.sleep(0 if ended else 60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "done"

    waiting = [asyncio.create_task(shared.get("k", work, lambda _: None)) for _ in range(2)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    assert ended == []
    waiting[1].cancel()
    await asyncio.wait({waiting[1]})
    await shared.close()
    assert ended == ["cancelled"]
    assert await shared.get("k", work, lambda _: None) == "done"


async def test_closing_ends_what_is_under_way() -> None:
    shared: sharing.Shared[None] = sharing.Shared("test")

    async def work(_say: sharing.Tell) -> None:
        await asyncio.sleep(60)

    waiting = asyncio.create_task(shared.get("k", work, lambda _: None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await shared.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
