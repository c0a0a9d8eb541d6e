"""Amounts of CPU, memory, disk and GPUs, and whether a request fits into what is free."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.units import GIB, MIB

CPU_SLACK = 1e-9
"""Absorbs float sums such as 0.1 + 0.2 and nothing more: 256 amounts of up to 512 cores are off by 2e-11 at most."""

# Docker's own suffixes: binary multiples, one letter, an optional trailing "b" ("512m", "1g", "64kb").
_SUFFIXES = {"": 1, "b": 1, "k": 1024, "m": MIB, "g": GIB, "t": 1024**4}
_AMOUNT = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(?P<suffix>[bkmgt]?)i?b?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each thing a task can occupy.

    ``cpu_cores`` in cores (fractions allowed), ``memory_bytes`` and ``disk_bytes`` in bytes, ``gpus`` whole devices.
    """

    cpu_cores: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    gpus: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.cpu_cores + other.cpu_cores,
            self.memory_bytes + other.memory_bytes,
            self.disk_bytes + other.disk_bytes,
            self.gpus + other.gpus,
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            self.cpu_cores - other.cpu_cores,
            self.memory_bytes - other.memory_bytes,
            self.disk_bytes - other.disk_bytes,
            self.gpus - other.gpus,
        )

    def fits(self, room: Resources) -> bool:
        """Tell whether this request fits into ``room``."""
        return not self.lacking(room)

    def lacking(self, room: Resources) -> tuple[str, ...]:
        """Name every amount of which ``room`` holds too little, as ``"memory: wants 2.0 GiB, 1.5 GiB free"``."""
        short = []
        if self.cpu_cores > room.cpu_cores + CPU_SLACK:
            short.append(f"cpu: wants {self.cpu_cores:g} cores, {max(room.cpu_cores, 0):g} free")
        if self.memory_bytes > room.memory_bytes:
            short.append(f"memory: wants {_gib(self.memory_bytes)}, {_gib(room.memory_bytes)} free")
        if self.disk_bytes > room.disk_bytes:
            short.append(f"disk: wants {_gib(self.disk_bytes)}, {_gib(room.disk_bytes)} free")
        if self.gpus > room.gpus:
            short.append(f"gpus: wants {self.gpus}, {max(room.gpus, 0)} free")
        return tuple(short)

    def at_most(self, cap: Resources) -> Resources:
        """Return the smaller of each amount."""
        return Resources(
            min(self.cpu_cores, cap.cpu_cores),
            min(self.memory_bytes, cap.memory_bytes),
            min(self.disk_bytes, cap.disk_bytes),
            min(self.gpus, cap.gpus),
        )

    def at_least(self, floor: Resources) -> Resources:
        """Return the larger of each amount."""
        return Resources(
            max(self.cpu_cores, floor.cpu_cores),
            max(self.memory_bytes, floor.memory_bytes),
            max(self.disk_bytes, floor.disk_bytes),
            max(self.gpus, floor.gpus),
        )


def parse_bytes(field: str, value: object) -> int:
    """Read an amount of memory or disk as Docker writes it: ``512m``, ``1g``, or a count of bytes.

    Raises :class:`errors.InvalidTask` naming ``field`` when it is no positive, finite amount.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise errors.InvalidTask(field, f"{value!r} is no amount; write for instance '512m' or '1g'")
    if isinstance(value, str):
        match = _AMOUNT.fullmatch(value.strip())
        if match is None:
            raise errors.InvalidTask(field, f"{value[:40]!r} is no amount; write for instance '512m' or '1g'")
        number = float(match["number"]) * _SUFFIXES[match["suffix"].lower()]
    else:
        number = float(value) if abs(value) < 2**63 else math.inf
    if not math.isfinite(number) or number < 1 or number >= 2**63:
        raise errors.InvalidTask(field, f"must be between 1 byte and 8 EiB, not {str(value)[:40]}")
    return int(number)


def _gib(amount: int) -> str:
    return f"{max(amount, 0) / GIB:.2f} GiB"
