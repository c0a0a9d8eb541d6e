from __future__ import annotations

import asyncio

import waiting

from hivemind_worker.node import admission, room
from hivemind_worker.task import resources

ONE, THREE, FOUR = (resources.Resources(cores) for cores in (1.0, 3.0, 4.0))


def _room() -> room.Room:
    return room.Room(admission.Admission(resources.Resources(4.0, 1, 1), 0))


async def test_those_who_wait_come_in_in_order_and_a_large_one_is_not_overtaken() -> None:
    place = _room()
    await place.take("small", ONE)
    order: list[str] = []

    async def come(name: str, needs: resources.Resources) -> None:
        await place.take(name, needs)
        order.append(name)

    large = asyncio.create_task(come("large", FOUR))
    late = asyncio.create_task(come("late", ONE))
    await waiting.wait_until(lambda: place.paused and len(place._waiting) == 2, description="both wait")
    assert order == []
    place.leave("small")
    await waiting.wait_until(lambda: order == ["large"], description="the large one is in")
    place.leave("large")
    await asyncio.gather(large, late)
    assert order == ["large", "late"]


async def test_one_that_gives_up_waiting_leaves_no_trace() -> None:
    place = _room()
    await place.take("first", FOUR)
    waits = asyncio.create_task(place.take("second", ONE))
    await waiting.wait_until(lambda: place._waiting, description="the second waits")
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    place.leave("first")
    assert place.reservations.reserved == resources.Resources()
    assert not place._waiting


async def test_one_cancelled_in_the_moment_of_its_turn_can_still_leave() -> None:
    place = _room()
    await place.take("first", FOUR)
    waits = asyncio.create_task(place.take("second", ONE))
    await waiting.wait_until(lambda: place._waiting, description="the second waits")
    place.leave("first")
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    place.leave("second")
    assert place.reservations.reserved == resources.Resources()


async def test_a_room_closed_for_two_reasons_opens_when_both_are_gone() -> None:
    place = _room()
    place.close("pool")
    place.close("owner")
    place.reopen("pool")
    seen = [place.paused]
    place.changed.clear()
    place.reopen("owner")
    assert [*seen, place.paused] == [True, False]
    assert place.changed.is_set()
