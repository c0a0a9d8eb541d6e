"""What makes a node healthy: each check a function of values, its answer in the reference document's words. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from hivemind_worker.units import GIB


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


def system_resources(limits: Thresholds, cpu_percent: float, memory_percent: float) -> Check:
    """Judge the CPU use of everything that is no task of ours, and the memory use of the whole machine; in percent."""
    if cpu_percent > limits.cpu_percent:
        return unhealthy(
            f"High CPU usage: {cpu_percent:.1f}% by others than this node's tasks; more than "
            f"{limits.cpu_percent:g}% (unhealthy_cpu_percent)"
        )
    if memory_percent > limits.memory_percent:
        return unhealthy(
            f"High memory usage: {memory_percent:.1f}%; more than {limits.memory_percent:g}% (unhealthy_memory_percent)"
        )
    return healthy("System resources OK")


def disk_space(limits: Thresholds, percent: float, free_bytes: float, where: str) -> Check:
    """Judge how full the disk is that holds ``where``."""
    if percent > limits.disk_percent:
        return unhealthy(
            f"Low disk space: {percent:.1f}% used, {free_bytes / GIB:.1f} GiB free at {where}; more than "
            f"{limits.disk_percent:g}% (unhealthy_disk_percent)"
        )
    return healthy("Disk space OK")


def docker(isolation: str, why_not: str) -> Check:
    """Judge what fences tasks; ``why_not`` is empty where it can. The sandbox needs no Docker, and is told as such."""
    if why_not:
        return unhealthy(f"Docker service failed: {why_not}" if isolation == "docker" else f"Sandbox failed: {why_not}")
    return healthy("Docker service OK" if isolation == "docker" else "Docker is not used: tasks run in the sandbox")


def healthy(message: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(Status.HEALTHY, message)


def unhealthy(message: str) -> Check:
    """Return a check that did."""
    return Check(Status.UNHEALTHY, message)


def together(checks: Mapping[str, Check]) -> Status:
    """Return the word for all: unhealthy as soon as one is."""
    return Status.UNHEALTHY if any(check.status is Status.UNHEALTHY for check in checks.values()) else Status.HEALTHY
