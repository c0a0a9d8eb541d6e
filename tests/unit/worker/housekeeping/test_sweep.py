"""One round: it acts only as decided, stops when there is room, goes on past troubles, and says what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from hivemind_worker import errors
from hivemind_worker.worker.housekeeping import policy, sweep

NOW = 1_800_000_000.0
OLD = NOW - 30 * policy.DAY


class Shelf:
    """A place with things on it, all on a disk of 1000 bytes of which somebody else uses ``others``."""

    name = "shelf"

    def __init__(self, *things: policy.Thing, others: int = 0) -> None:
        self.things = {thing.name: thing for thing in things}
        self.others = others
        self.stuck: set[str] = set()
        self.broken: set[str] = set()
        self.asked: list[str] = []

    async def look(self) -> Sequence[policy.Thing]:
        return list(self.things.values())

    async def remove(self, thing: policy.Thing) -> bool:
        self.asked.append(thing.name)
        if thing.name in self.broken:
            raise errors.EngineLost("the engine broke off")
        if thing.name in self.stuck:
            return False
        del self.things[thing.name]
        return True

    async def measure(self, _: Sequence[str]) -> Mapping[str, policy.Disk]:
        used = self.others + sum(thing.size_bytes for thing in self.things.values())
        return {"/": policy.Disk("/", used, 1000 - used)}

    def house(self, *more: object, enabled: bool = True) -> sweep.Housekeeping:
        places = [self, *more]
        return sweep.Housekeeping(
            places,  # type: ignore[arg-type]
            policy.Terms(50.0),
            enabled=enabled,
            measure=self.measure,
            now=lambda: NOW,
        )


class Closed:
    """A place that cannot be looked into."""

    name = "closed"

    async def look(self) -> Sequence[policy.Thing]:
        raise errors.EngineLost("there is no engine")

    async def remove(self, thing: policy.Thing) -> bool:
        raise AssertionError(f"asked to remove {thing}")


def image(name: str, size: int, age: float = 5 * policy.DAY, held: str = "") -> policy.Thing:
    return policy.Thing(kind=policy.Kind.IMAGE, name=name, size_bytes=size, last_used=NOW - age, disk="/", held=held)


async def test_only_as_much_goes_as_makes_room() -> None:
    shelf = Shelf(image("older", 200, 9 * policy.DAY), image("younger", 200), image("held", 200, held="pinned"))
    report = await shelf.house().round()
    assert [thing.name for thing in report.removed] == ["older"]
    assert report.freed_bytes == 200
    assert shelf.asked == ["older"]
    assert {each.decision.thing.name: each.decision.why for each in report.done}["held"] == "pinned"


async def test_a_look_removes_nothing_and_foretells_the_round() -> None:
    shelf = Shelf(image("a", 300), image("b", 300, 6 * policy.DAY), image("c", 300, 7 * policy.DAY))
    foretold = [each.decision.thing.name for each in (await shelf.house().look()).done if each.decision.goes]
    assert shelf.asked == []
    assert [thing.name for thing in (await shelf.house().round()).removed] == foretold == ["c", "b"]


async def test_when_it_is_switched_off_a_round_is_a_look() -> None:
    shelf = Shelf(image("a", 900))
    report = await shelf.house(enabled=False).round()
    assert shelf.asked == []
    assert report.removed == []
    assert [each.decision.goes for each in report.done] == [True]


async def test_room_made_by_others_meanwhile_spares_the_rest() -> None:
    shelf = Shelf(image("a", 100, 9 * policy.DAY), image("b", 100), others=500)
    taken = shelf.remove

    async def and_others_go(thing: policy.Thing) -> bool:
        shelf.others = 0
        return await taken(thing)

    shelf.remove = and_others_go  # type: ignore[method-assign]
    report = await shelf.house().round()
    assert [thing.name for thing in report.removed] == ["a"]
    assert [each.trouble for each in report.done if each.decision.thing.name == "b"] == ["there is room again"]


async def test_what_cannot_be_removed_does_not_keep_the_next_from_it() -> None:
    shelf = Shelf(image("busy", 200, 9 * policy.DAY), image("broken", 200, 8 * policy.DAY), image("c", 200), others=300)
    shelf.stuck, shelf.broken = {"busy"}, {"broken"}
    report = await shelf.house(Closed()).round()
    assert [thing.name for thing in report.removed] == ["c"]
    troubles = {each.decision.thing.name: each.trouble for each in report.done if each.trouble}
    assert troubles == {"busy": "it is needed after all", "broken": "the engine broke off"}
    assert report.troubles == {"closed": "there is no engine"}


async def test_what_was_freed_by_the_first_pass_is_looked_at_again() -> None:
    base = image("base", 0, 9 * policy.DAY, held="1 other image is made of it")
    shelf = Shelf(base, image("made-of-it", 300, 8 * policy.DAY), others=600)
    taken = shelf.remove

    async def and_free_the_base(thing: policy.Thing) -> bool:
        if thing.name == "made-of-it":
            shelf.things["base"] = image("base", 250, 9 * policy.DAY)
        return await taken(thing)

    shelf.remove = and_free_the_base  # type: ignore[method-assign]
    assert [thing.name for thing in (await shelf.house().round()).removed] == ["made-of-it", "base"]


@pytest.mark.parametrize("days", [0.0, 7.0])
async def test_days_of_zero_keep_for_good(days: float) -> None:
    log = policy.Thing(kind=policy.Kind.LOG, name="worker.log.1", size_bytes=1, last_used=OLD, disk="/")
    shelf = Shelf(log)
    house = sweep.Housekeeping([shelf], policy.Terms(50.0, days), measure=shelf.measure, now=lambda: NOW)
    assert len((await house.round()).removed) == (1 if days else 0)
