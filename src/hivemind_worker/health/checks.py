"""What makes a node healthy: each check a function of values, its answer in the reference document's words. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Status(enum.StrEnum):
    """The two words of the reference document."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Check:
    """What one look came to. ``message`` says it for people, with what to do where something is wrong."""

    status: Status
    message: str

    def as_json(self) -> dict[str, object]:
        """Return it in the reference document's shape."""
        return {"status": str(self.status), "message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Above which use, in percent, the machine counts as not healthy."""

    cpu_percent: float = 95.0
    memory_percent: float = 95.0
    disk_percent: float = 90.0


def healthy(message: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(Status.HEALTHY, message)


def unhealthy(message: str) -> Check:
    """Return a check that did."""
    return Check(Status.UNHEALTHY, message)


def together(checks: Mapping[str, Check]) -> Status:
    """Return the word for all: unhealthy as soon as one is."""
    return Status.UNHEALTHY if any(check.status is Status.UNHEALTHY for check in checks.values()) else Status.HEALTHY
