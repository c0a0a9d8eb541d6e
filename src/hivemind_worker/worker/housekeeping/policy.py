"""What goes, what stays, and why: a function of the things there are, the disks, the owner's terms and the time. Pure.

Whether a thing is ours and whether somebody needs it is found out by whoever lists it, and said in ``held``. Nothing
that is held ever goes. Of the rest goes, in this order: what is abandoned; what has not been used for too long, where
its kind has an age; and while its disk is too full, what has been unused for longest.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hivemind_worker.settings import upkeep

RECENT_SECONDS: Final = 600.0
"""What was used so short a time ago is about to be used: between an image's arrival and its container lie seconds."""

DAY: Final = 86400.0


class Kind(enum.StrEnum):
    """What may be found."""

    CONTAINER = "container"
    VOLUME = "volume"
    WORKSPACE = "workspace"
    ARTIFACT = "artifact"
    LOG = "log"
    ENVIRONMENT = "environment"
    CACHE = "cache"
    IMAGE = "image"


HAVE_AN_AGE: Final = frozenset({Kind.ARTIFACT, Kind.LOG, Kind.ENVIRONMENT})
"""Kinds that go after some days however much room there is."""

GIVE_ROOM: Final = frozenset({Kind.ENVIRONMENT, Kind.CACHE, Kind.IMAGE})
"""Kinds that go when their disk is too full: all of them can be had again."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing that was found.

    ``size_bytes`` is what its removal frees, ``last_used`` Unix seconds, ``disk`` the name of the disk it lies on (or
    empty: that cannot be seen). ``held`` says why it must stay, ``abandoned`` why nobody will ever need it; each is
    empty where that is not so. ``contents`` are the packages of an environment.
    """

    kind: Kind
    name: str
    size_bytes: int
    last_used: float
    disk: str = ""
    held: str = ""
    abandoned: str = ""
    contents: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Disk:
    """How full a disk is. ``free_bytes`` is what ordinary users may still write."""

    name: str
    used_bytes: int
    free_bytes: int

    @property
    def percent(self) -> float:
        """Use in percent, as `df` counts it."""
        whole = self.used_bytes + self.free_bytes
        return 100.0 * self.used_bytes / whole if whole else 0.0

    def less(self, size_bytes: int) -> Disk:
        """Return it as it will be once so much is gone."""
        gone = min(size_bytes, self.used_bytes)
        return Disk(self.name, self.used_bytes - gone, self.free_bytes + gone)


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What the owner wants: use above which a disk is too full, and days after which the unused goes (0: never)."""

    disk_percent: float = 85.0
    days: float = 7.0


def of(its: upkeep.Cleanup) -> Terms:
    """The terms that the settings say."""
    return Terms(disk_percent=its.cleanup_disk_percent, days=its.cleanup_days)


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of one thing, and why. ``for_room``: it goes only while its disk is too full."""

    thing: Thing
    goes: bool
    why: str
    for_room: bool = False


def decide(things: Iterable[Thing], disks: Mapping[str, Disk], terms: Terms, now: float) -> list[Decision]:
    """Decide about each thing, those that go first, in the order in which they are to go."""
    going: list[Decision] = []
    left: list[Thing] = []
    for thing in sorted(things, key=_order):
        if why := _goes_anyway(thing, terms, now):
            going.append(Decision(thing, goes=True, why=why))
        else:
            left.append(thing)
    foreseen = dict(disks)
    for decision in going:
        _foresee(foreseen, decision.thing)
    staying: list[Decision] = []
    for thing in left:
        disk = foreseen.get(thing.disk)
        if disk is not None and disk.percent > terms.disk_percent and _may_give_room(thing, now):
            going.append(Decision(thing, goes=True, why=_full(thing, disk, terms, now), for_room=True))
            _foresee(foreseen, thing)
        else:
            staying.append(Decision(thing, goes=False, why=_stays(thing, disk, terms, now)))
    return going + staying


def too_full(disks: Mapping[str, Disk], terms: Terms) -> Sequence[Disk]:
    """Return the disks that are above what the owner wants."""
    return [disk for disk in disks.values() if disk.percent > terms.disk_percent]


def _order(thing: Thing) -> tuple[float, int, str, str]:
    """Longest unused first; of those unused alike the largest, and the same order every time."""
    return thing.last_used, -thing.size_bytes, str(thing.kind), thing.name


def _age(thing: Thing, now: float) -> float:
    return max(0.0, now - thing.last_used)


def _goes_anyway(thing: Thing, terms: Terms, now: float) -> str:
    if thing.held:
        return ""
    if thing.abandoned:
        return thing.abandoned
    if thing.kind in HAVE_AN_AGE and terms.days > 0 and _age(thing, now) > terms.days * DAY:
        return f"unused for {_days(_age(thing, now))}, and kept for {_days(terms.days * DAY)} (cleanup_days)"
    return ""


def _may_give_room(thing: Thing, now: float) -> bool:
    return thing.kind in GIVE_ROOM and not thing.held and thing.size_bytes > 0 and _age(thing, now) >= RECENT_SECONDS


def _foresee(disks: dict[str, Disk], thing: Thing) -> None:
    if thing.disk in disks:
        disks[thing.disk] = disks[thing.disk].less(thing.size_bytes)


def _full(thing: Thing, disk: Disk, terms: Terms, now: float) -> str:
    return (
        f"{disk.name} is {disk.percent:.1f} % full, above {terms.disk_percent:g} % (cleanup_disk_percent), and of what "
        f"may go this was unused for longest: {_days(_age(thing, now))}"
    )


def _stays(thing: Thing, disk: Disk | None, terms: Terms, now: float) -> str:
    if thing.held:
        return thing.held
    if thing.kind in GIVE_ROOM and _age(thing, now) < RECENT_SECONDS:
        return "used a moment ago"
    if thing.kind in HAVE_AN_AGE:
        aged = f"unused for {_days(_age(thing, now))}"
        return f"{aged}, and kept for {_days(terms.days * DAY)}" if terms.days > 0 else f"{aged}, and kept for good"
    if thing.kind not in GIVE_ROOM:
        return "somebody may need it"
    if disk is None:
        return "how full its disk is cannot be seen from here"
    if disk.percent > terms.disk_percent:
        return "its removal would free nothing"
    return f"there is room: {disk.name} is {disk.percent:.1f} % full, and {terms.disk_percent:g} % are allowed"


def _days(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 2 * DAY:
        return f"{seconds / 3600:.0f} hours"
    return f"{seconds / DAY:.1f} days"
