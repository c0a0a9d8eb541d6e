"""Whether this node is fit for tasks: looks at the machine and at what fences tasks, every few seconds, and acts on it.

A node that is not fit takes no task and tells the pool why; its heartbeats, running tasks and finished results go on,
and it is fit again by itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hivemind_worker import errors
from hivemind_worker.concurrency import clock, periodic, stopping
from hivemind_worker.runtime import executor, proving
from hivemind_worker.runtime.capsule import accounts, defence_spec
from hivemind_worker.tasks import resources, state
from hivemind_worker.telemetry import logs
from hivemind_worker.telemetry.health import checks, overload
from hivemind_worker.worker.machine import room, undead

if TYPE_CHECKING:  # psutil behind it costs 20 ms, which a worker that measures nothing need not wait for
    from hivemind_worker.settings import upkeep
    from hivemind_worker.worker.machine import monitor, readings

ISOLATION: Final = "isolation"
DISK: Final = "disk"
CPU: Final = "cpu"
MEMORY: Final = "memory"
DEFENCES: Final = "defences"
TRIAL: Final = "defences_untried"

JOURNAL: Final = "journal"
OUTBOX: Final = "outbox"

UNFIT: Final = frozenset({ISOLATION, DEFENCES, DISK, JOURNAL, undead.CAUSE})
"""Causes that make the node unhealthy in its own word; by the others it is only busy with other things."""

STANDSTILL: Final = 12
"""So many intervals without a look mean that the loop stands still: a minute, at the default of five seconds."""

log = logs.StructuredLogger(__name__)

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Turnover:
    """How many attempts have ended so far, and which are held, each with its phase."""

    ended: int
    held: tuple[tuple[Key, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When the machine counts as busy with other things or as not fit; percent, and seconds between looks."""

    interval: float = 5.0
    probe_seconds: float = 5.0
    overload_cpu_percent: float = 90.0
    overload_memory_percent: float = 90.0
    unhealthy: checks.Thresholds = field(default_factory=checks.Thresholds)
    defence_interval: float = 3600.0
    accepted_defences: frozenset[str] = frozenset()


def of(its: upkeep.Monitoring) -> Limits:
    """The limits that the settings say."""
    return Limits(
        interval=its.monitor_interval,
        probe_seconds=its.health_probe_seconds,
        overload_cpu_percent=its.overload_cpu_percent,
        overload_memory_percent=its.overload_memory_percent,
        unhealthy=checks.Thresholds(
            cpu_percent=its.unhealthy_cpu_percent,
            memory_percent=its.unhealthy_memory_percent,
            disk_percent=its.unhealthy_disk_percent,
        ),
        defence_interval=its.defence_interval,
        accepted_defences=frozenset(its.accept_missing_defences),
    )


class Fitness:
    """The looks, what follows of them for ``held`` (the node's room), and what was last seen.

    Without a ``watched`` machine nothing is measured, and only what fences tasks counts. ``turnover`` tells which
    attempts come and go; ``also`` what else speaks against further tasks, by cause.
    """

    def __init__(
        self,
        limits: Limits,
        held: room.Room,
        runs: executor.Executor,
        watched: monitor.ResourceMonitor | None,
        turnover: Callable[[], Turnover],
        also: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
    ) -> None:
        self.limits = limits
        self.usage: Mapping[Key, accounts.Usage] = {}
        self._others_cpu = (0.0, 0.0)
        self._turnover = turnover
        self._also = also
        self._before: Turnover | None = None
        self.isolation = checks.healthy("not looked at yet")
        self._read_defences: tuple[executor.Defence, ...] = ()
        self.verdicts: tuple[defence_spec.Verdict, ...] = ()
        """What the last trial of the defences found."""
        self.is_differing = False
        """Whether a capsule was made otherwise than it was asked, and none of ours as it was asked since."""
        self._unready: dict[str, str] = {}
        self.changed = asyncio.Event()
        self._room = held
        self._runs = runs
        self._monitor = watched
        self._cpu = overload.Watch(limits.overload_cpu_percent)
        self._memory = overload.Watch(limits.overload_memory_percent)
        self._looked_at = clock.now()
        self._causes: Mapping[str, str] = {}

    def adopt(self, limits: Limits) -> None:
        """Judge by other limits from the next look on; the interval stays."""
        self.limits = limits
        self._cpu = dataclasses.replace(self._cpu, limit=limits.overload_cpu_percent)
        self._memory = dataclasses.replace(self._memory, limit=limits.overload_memory_percent)

    async def run(self, stop: stopping.Stop) -> None:
        """Look until the stop. A look that fails is told and tried again: not to see is no reason to stop working."""
        told = ""
        # A worker of one command has proved what fences tasks a moment ago, and somebody waits for its first task.
        async for _ in periodic.every(self.limits.interval, stop, at_once=self._monitor is not None):
            try:
                await self.look()
                told = ""
            except Exception as error:  # noqa: BLE001  (whatever a kernel, a driver or an engine comes up with)
                if str(error) != told:
                    told = str(error)
                    log.log_system_event("look_failed", level="warning", error=error)

    @property
    def undead_count(self) -> int:
        """How many capsules cannot be killed."""
        return len(self._runs.undead)

    @property
    def machine(self) -> readings.Machine | None:
        """The machine as last seen."""
        return None if self._monitor is None else self._monitor.current

    @property
    def numbers(self) -> Mapping[str, float]:
        """What a heartbeat tells of the machine."""
        return {} if self._monitor is None else self._monitor.numbers()

    @property
    def standing(self) -> bool:
        """Whether this loop goes round no more."""
        return clock.now() - self._looked_at > STANDSTILL * self.limits.interval + self.limits.probe_seconds

    async def look(self) -> None:
        """One look at everything, and what follows."""
        found = {ISOLATION: await self._fenced()}
        self.usage = await self._runs.usage()
        if self._monitor is not None:
            self._judge(await asyncio.to_thread(self._monitor.collect), found)
        if self._also is not None:
            found |= await self._also()
        undead.reserve(self._room, self._runs.undead)
        found[undead.CAUSE] = undead.unready_reason(self._runs.undead)
        self._looked_at = clock.now()
        self._hold({**found, **self._unready})

    @property
    def defences(self) -> tuple[executor.Defence, ...]:
        """What fences tasks, as it was tried; what was only read before that."""
        return proving.merged(self._read_defences, proving.rows(self.verdicts))

    def await_trial(self, why: str) -> None:
        """Take no task before `defences_tried`."""
        self._unready = self._causes = {TRIAL: why}
        self._room.suspend(self._unready)

    def defences_tried(self, verdicts: tuple[defence_spec.Verdict, ...], missing: str) -> None:
        """Act at once upon a trial of the defences; ``missing``: what is not in force, empty for nothing."""
        self.verdicts = verdicts
        self._unready = {DEFENCES: missing} if missing else {}
        others = {cause: why for cause, why in self._room.holds.items() if cause not in {DEFENCES, TRIAL}}
        self._hold({**others, **self._unready})

    async def _fenced(self) -> str:
        """Why tasks cannot be fenced now; empty where they can."""
        try:
            async with asyncio.timeout(self.limits.probe_seconds):
                said = await self._runs.fitness()
            self._read_defences, self.is_differing = said.defences, bool(said.differences)
            why = "" if said.usable else said.why or "it says that it cannot be used"
        except TimeoutError:
            why = f"no answer within {self.limits.probe_seconds:g} s (health_probe_seconds)"
        except errors.HiveMindError as error:
            why = str(error)
        self.isolation = checks.docker(self._runs.isolation, why)
        return self.isolation.message if why else ""

    def _judge(self, machine: readings.Machine, found: dict[str, str]) -> None:
        if self._calm():
            ours = machine.worker_cpu_percent + sum(each.cpu_percent or 0.0 for each in self.usage.values())
            others = overload.others_cpu_percent(machine.cpu_percent, machine.cpu_count, ours)
            self._others_cpu = (self._others_cpu[1], others)
            self._cpu = self._cpu.look(others)
        self._memory = self._memory.look(machine.memory["percent"])
        if self._cpu.over:
            found[CPU] = (
                f"the machine is busy with other things: {self.others_cpu_percent:.0f} % CPU (overload_cpu_percent)"
            )
        if self._memory.over:
            found[MEMORY] = (
                f"the machine's memory is {machine.memory['percent']:.0f} % in use (overload_memory_percent)"
            )
        disk = self.disk_space()
        if disk.status is checks.Status.UNHEALTHY:
            found[DISK] = f"disk: {disk.message}"
        self._room.resize(_left(self._room.reservations.capacity, machine, self.usage))

    def _calm(self) -> bool:
        """Whether the look says anything about others: what the engine does to make and remove capsules for us, and
        tasks that began or ended between two looks, cannot be told from what others do.
        """
        now, before = self._turnover(), self._before
        self._before = now
        return now == before and all(phase == state.Phase.RUNNING for _, phase in now.held)

    @property
    def others_cpu_percent(self) -> float:
        """CPU use of everything that is no task of ours: the lower of the last two looks, for one moment is none."""
        return min(self._others_cpu)

    def system_resources(self) -> checks.Check:
        """The reference document's check of the machine."""
        machine = self.machine
        if machine is None:
            return checks.healthy("not measured here")
        return checks.system_resources(self.limits.unhealthy, self.others_cpu_percent, machine.memory["percent"])

    def disk_space(self) -> checks.Check:
        """The reference document's check of the disk."""
        machine = self.machine
        if machine is None or machine.fullest is None:
            return checks.healthy("not measured here")
        disk = machine.fullest
        return checks.disk_space(self.limits.unhealthy, disk.percent, disk.free_bytes, str(disk.folder))

    def _hold(self, found: Mapping[str, str]) -> None:
        before = self._causes  # not the room's: what an attempt met with is there already, and is told now
        now = {cause: why for cause, why in found.items() if why}
        self._room.hold(now)
        self._causes = now
        if before.keys() == now.keys():
            return
        self.changed.set()
        troubles = [why for cause, why in now.items() if cause != TRIAL]
        if troubles:
            log.log_system_event("node_not_fit", {"why": troubles}, level="warning")
        elif before.keys() - {TRIAL}:
            log.log_system_event("node_fit_again", {"was": list(before.values())})


def _left(
    capacity: resources.Resources, machine: readings.Machine, usage: Mapping[Key, accounts.Usage]
) -> resources.Resources:
    """What tasks may use together now: less than the capacity where others have taken of the memory or the disk.

    What our own tasks use is theirs already, and is not taken twice.
    """
    memory = machine.memory["available"] + sum(each.now.memory_bytes or 0 for each in usage.values())
    left = capacity.at_most(resources.Resources(capacity.cpu_cores, int(memory), capacity.disk_bytes, capacity.gpus))
    if machine.disk:
        disk = machine.disk["free"] + sum(each.disk_bytes or 0 for each in usage.values())
        left = left.at_most(resources.Resources(left.cpu_cores, left.memory_bytes, int(disk), left.gpus))
    return left
