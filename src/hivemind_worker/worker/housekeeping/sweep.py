"""The loop that tidies: look everywhere, decide, remove, and say what went, what stayed and why."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from hivemind_worker import errors
from hivemind_worker.concurrency import periodic, stopping
from hivemind_worker.telemetry import logs
from hivemind_worker.worker.housekeeping import disks, place, policy

log = logs.StructuredLogger(__name__)

_PASSES: Final = 4
"""Rounds in a row while a disk stays too full: what was made of an image goes first, then the image itself."""

_ROOM_AGAIN: Final = "there is room again"

_Key = tuple[policy.Kind, str]

Measure = Callable[[Sequence[str]], Awaitable[Mapping[str, policy.Disk]]]
"""Disks by name → how full they are."""


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """What became of one thing: ``removed``, or why not."""

    decision: policy.Decision
    removed: bool
    trouble: str = ""

    @property
    def spared(self) -> bool:
        """Whether it stayed only because there was room again."""
        return self.trouble == _ROOM_AGAIN


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """One round: what became of each thing, which places could not be looked into, how full the disks are now."""

    done: tuple[Done, ...]
    troubles: Mapping[str, str]
    disks: Mapping[str, policy.Disk]

    @property
    def acted(self) -> bool:
        """Return whether anything was removed, or tried to be: then it is worth looking again."""
        return any(each.removed or (each.trouble and not each.spared) for each in self.done)

    @property
    def removed(self) -> list[policy.Thing]:
        """Return the things that are gone."""
        return [each.decision.thing for each in self.done if each.removed]

    @property
    def freed_bytes(self) -> int:
        """Return how much that was."""
        return sum(thing.size_bytes for thing in self.removed)


def _key(done: Done) -> _Key:
    return done.decision.thing.kind, done.decision.thing.name


class Housekeeping:
    """Tidies the given places by the owner's terms.

    ``watch`` names disks to look at whether or not anything of ours is on them. ``enabled`` false: nothing is ever
    removed, and `round` only tells. ``measure`` and ``now`` (Unix seconds) are there to be set by whoever wants another
    disk or another day.
    """

    def __init__(
        self,
        places: Sequence[place.Place],
        terms: policy.Terms,
        *,
        watch: Sequence[str] = (),
        interval: float = 300.0,
        enabled: bool = True,
        measure: Measure = disks.measure,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._places = tuple(places)
        self.terms = terms
        """What counts from the next round on."""
        self._watch = tuple(watch)
        self._interval = interval
        self._enabled = enabled
        self._measure = measure
        self._now = now
        self._complained: frozenset[str] = frozenset()

    async def run(self, stop: stopping.Stop) -> None:
        """Tidy at once and then every interval, until the stop. Whatever goes wrong is logged, and tried again."""
        if not self._enabled:
            await stop.wait(stopping.StopLevel.DRAIN)
            return
        async for _ in periodic.every(self._interval, stop, jitter=0.1):
            try:
                self._tell(await self.round())
            except Exception as error:  # noqa: BLE001  (a worker that cannot tidy still works)
                log.log_system_event("cleanup_failed", level="error", error=error)

    async def look(self) -> Report:
        """Tell what a round would do now, and do nothing."""
        found, troubles, measured = await self._look()
        decided = policy.decide([thing for thing, _ in found], measured, self.terms, self._now())
        return Report(tuple(Done(each, removed=False) for each in decided), troubles, measured)

    async def round(self) -> Report:
        """Remove what is to go, and look again while that has not made room enough. Returns what was done in all."""
        if not self._enabled:
            return await self.look()
        gone: list[Done] = []
        failed: dict[_Key, Done] = {}
        passes = 0
        while True:
            report = await self._pass(failed)
            passes += 1
            gone += [each for each in report.done if each.removed]
            failed |= {_key(each): each for each in report.done if each.trouble and not each.spared}
            if passes == _PASSES or not report.acted or not policy.too_full(report.disks, self.terms):
                break
        left = [failed.get(_key(each), each) for each in report.done if not each.removed]
        return Report((*gone, *left), report.troubles, report.disks)

    async def _pass(self, failed: Mapping[_Key, Done]) -> Report:
        """Look, decide and act once; what could not be removed just now stays out of it, so that others are decided."""
        found, troubles, measured = await self._look()
        things = [
            dataclasses.replace(thing, held=failed[thing.kind, thing.name].trouble)
            if (thing.kind, thing.name) in failed
            else thing
            for thing, _ in found
        ]
        decided = policy.decide(things, measured, self.terms, self._now())
        done = await self._carry_out(decided, {(thing.kind, thing.name): where for thing, where in found})
        return Report(tuple(done), troubles, await self._measure(list(measured)))

    async def _look(
        self,
    ) -> tuple[list[tuple[policy.Thing, place.Place]], dict[str, str], Mapping[str, policy.Disk]]:
        found: list[tuple[policy.Thing, place.Place]] = []
        troubles: dict[str, str] = {}
        for where in self._places:
            try:
                found += [(thing, where) for thing in await where.look()]
            except (errors.HiveMindError, OSError) as error:
                troubles[where.name] = str(error)
        names = [*self._watch, *(thing.disk for thing, _ in found if thing.disk)]
        return found, troubles, await self._measure(names)

    async def _carry_out(self, decided: Sequence[policy.Decision], where: Mapping[_Key, place.Place]) -> list[Done]:
        """Remove, one after the other; for room only while the disk, measured again each time, is still too full."""
        done = []
        for decision in decided:
            if not decision.goes:
                done.append(Done(decision, removed=False))
            elif decision.for_room and not await self._full(decision.thing.disk):
                done.append(Done(decision, removed=False, trouble=_ROOM_AGAIN))
            else:
                done.append(await self._remove(decision, where[decision.thing.kind, decision.thing.name]))
        return done

    async def _full(self, disk: str) -> bool:
        return bool(policy.too_full(await self._measure([disk]), self.terms))

    async def _remove(self, decision: policy.Decision, where: place.Place) -> Done:
        try:
            removed = await where.remove(decision.thing)
        except (errors.HiveMindError, OSError) as error:
            return Done(decision, removed=False, trouble=str(error))
        return Done(decision, removed, "" if removed else "it is needed after all")

    def _tell(self, report: Report) -> None:
        for each in report.done:
            thing = each.decision.thing
            said = {"kind": thing.kind, "name": thing.name, "bytes": thing.size_bytes, "why": each.decision.why}
            if each.removed:
                log.log_system_event("cleanup_removed", said)
            elif each.trouble:
                log.log_system_event("cleanup_kept", {**said, "kept_because": each.trouble}, level="debug")
        for where, trouble in report.troubles.items():
            log.log_system_event("cleanup_place_closed", {"place": where, "error": trouble}, level="debug")
        full = policy.too_full(report.disks, self.terms)
        now_full = frozenset(disk.name for disk in full)
        for disk in full:
            if disk.name not in self._complained:  # once, not every five minutes
                fullness = {"disk": disk.name, "percent": round(disk.percent, 1), "allowed": self.terms.disk_percent}
                log.log_system_event("cleanup_not_enough", fullness, level="warning")
        self._complained = now_full
