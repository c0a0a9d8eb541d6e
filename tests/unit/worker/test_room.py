from __future__ import annotations

import asyncio

import pytest
import waiting

from hivemind_worker import errors
from hivemind_worker.tasks import resources
from hivemind_worker.worker.machine import admission, room

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


async def test_nobody_comes_in_while_the_node_is_not_fit_and_all_who_fit_do_afterwards() -> None:
    place = _room()
    place.hold({"disk": "disk: full"})
    assert place.paused
    waits = [asyncio.create_task(place.take(name, ONE)) for name in ("one", "two")]
    await waiting.wait_until(lambda: len(place._waiting) == 2, description="both wait")
    assert place.why(ONE) == "disk: full"
    place.leave("somebody else")
    assert place.reservations.reserved == resources.Resources()
    place.changed.clear()
    place.hold({})
    await asyncio.gather(*waits)
    assert place.changed.is_set()
    assert not place.paused


async def test_a_wait_for_room_ends_with_what_was_lacking() -> None:
    place = room.Room(admission.Admission(resources.Resources(4.0, 1, 1), 0), wait_seconds=0.05)
    await place.take("first", ONE)
    with pytest.raises(errors.NoRoom) as told:
        await place.take("large", FOUR)
    assert str(told.value) == "insufficient resources: waited 0.05 s for room: cpu: wants 4 cores, 3 free"
    assert place.reservations.reserved == ONE


async def test_whoever_gives_up_waiting_lets_others_by() -> None:
    place = _room()
    await place.take("first", ONE)
    large = asyncio.create_task(place.take("large", FOUR))
    await waiting.wait_until(lambda: place._waiting, description="the large one waits")
    small = asyncio.create_task(place.take("small", ONE))
    await waiting.wait_until(lambda: len(place._waiting) == 2, description="the small one waits behind it")
    large.cancel()
    await small
    assert place.reservations.reserved == ONE + ONE
    await asyncio.gather(large, return_exceptions=True)


async def test_what_comes_free_on_the_machine_lets_in_who_waits() -> None:
    place = _room()
    place.resize(resources.Resources(0.5, 1, 1))
    waits = asyncio.create_task(place.take("one", ONE))
    await waiting.wait_until(lambda: place._waiting, description="it waits")
    place.resize(FOUR + resources.Resources(0.0, 1, 1))
    await waits


async def test_a_room_at_rest_is_paused_for_a_moment_and_says_when_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "REST_SECONDS", 0.05)
    place = _room()
    place.rest()
    place.rest()  # the second of several that fail together is the same moment
    assert place.paused
    place.changed.clear()
    await place.changed.wait()
    resting = place.paused
    assert not resting
