"""ResourceMonitor: the newest look at this machine, in the reference document's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hivemind_worker import units
from hivemind_worker.worker.machine import accelerators, readings

CPU_PERCENT = 90.0
"""Above which no core counts as free: the reference document's own number."""

REMEMBERED_SECONDS = 600.0
"""How far back a glance at the machine goes; who wants more has the metrics."""

APART_SECONDS = 4.0
"""Moments remembered are so far apart at least: at the usual five seconds between looks each one is, 120 in all."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How busy the machine was at ``timestamp`` (seconds since the epoch), in percent; ``None``: cannot be told."""

    timestamp: float
    cpu_percent: float
    memory_percent: float
    disk_percent: float | None = None


class ResourceMonitor:
    """Holds the newest look. ``collect`` blocks for about a millisecond: call it in a thread, one at a time.

    ``needed`` are folders, beside ``work_dir``, on whose disks the worker needs room too.
    """

    def __init__(
        self, work_dir: Path, gpus: accelerators.Accelerators | None = None, needed: Iterable[Path] = ()
    ) -> None:
        self._gpus = gpus
        self._readings = readings.Readings(work_dir, gpus, needed)
        self.current: readings.Machine | None = None
        self.recent: tuple[Moment, ...] = ()

    def collect(self) -> readings.Machine:
        """Look at the machine now, and remember it."""
        self.current = self._readings.measure()
        # A new tuple each time: whoever reads it does so in another thread.
        self.recent = remembered(self.recent, self.current)
        return self.current

    def collect_metrics(self) -> dict[str, Any]:
        """Look at the machine now; the reference document's JSON."""
        return self.collect().as_json()

    def get_current_metrics(self) -> dict[str, Any]:
        """Return the newest look in that shape, empty before the first."""
        return {} if self.current is None else self.current.as_json()

    def numbers(self) -> Mapping[str, float]:
        """Return the newest look as a heartbeat's named numbers, empty before the first."""
        return {} if self.current is None else self.current.numbers()

    def is_resource_available(self, required_resources: Mapping[str, float]) -> bool:
        """Tell whether the machine has so much to spare as it was when last looked at; true before the first look.

        ``required_resources`` has the task file's names: cpu_cores, memory_gb, disk_gb (GiB), gpus.
        """
        return self.current is None or not missing(self.current, required_resources)

    def gpu_ids(self) -> tuple[str, ...]:
        """Name the GPUs there are now. Blocks."""
        return tuple(gpu.id for gpu in self._gpus.measure()) if self._gpus is not None else ()

    def close(self) -> None:
        """Let go of the GPUs' driver."""
        if self._gpus is not None:
            self._gpus.close()


def remembered(before: tuple[Moment, ...], now: readings.Machine) -> tuple[Moment, ...]:
    """Return the moments to remember after one more look, oldest first. A clock that was set back begins anew."""
    if before and now.timestamp < before[-1].timestamp:
        before = ()
    if before and now.timestamp - before[-1].timestamp < APART_SECONDS:
        return before
    percent = float(now.disk["percent"]) if now.disk else None
    moment = Moment(now.timestamp, now.cpu_percent, float(now.memory["percent"]), percent)
    return (*(each for each in before if now.timestamp - each.timestamp <= REMEMBERED_SECONDS), moment)


def missing(machine: readings.Machine, required: Mapping[str, float]) -> tuple[str, ...]:
    """Say what the machine has too little of now."""
    short = []
    if required.get("cpu_cores") and machine.cpu_percent > CPU_PERCENT:
        short.append(f"cpu: {machine.cpu_percent:.0f} % in use")
    if (wanted := required.get("memory_gb", 0.0) * units.GIB) > machine.memory["available"]:
        short.append(_short("memory", wanted, machine.memory["available"]))
    if machine.disk and (wanted := required.get("disk_gb", 0.0) * units.GIB) > machine.disk["free"]:
        short.append(_short("disk", wanted, machine.disk["free"]))
    if required.get("gpus", 0) > len(machine.gpus):
        short.append(f"gpus: wants {required['gpus']:g}, there are {len(machine.gpus)}")
    return tuple(short)


def _short(what: str, wanted: float, free: float) -> str:
    return f"{what}: wants {wanted / units.GIB:.2f} GiB, {free / units.GIB:.2f} GiB free"
