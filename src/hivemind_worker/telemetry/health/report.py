"""The health report in the reference document's shape; and whether the node lives, and whether it takes tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from hivemind_worker.telemetry.health import checks

PROBE_SECONDS: Final = 5.0
"""Longest that one probe may take, where nobody says."""

Probe = Callable[[], Awaitable[checks.Check]]


class Health(Protocol):
    """What is asked by whoever shows how the node is."""

    async def check_health(self) -> dict[str, object]:
        """Look at everything now; never raises, and takes no longer than one probe may."""

    def live(self) -> bool:
        """Whether the process does its work: its event loop turns and its loops go round."""

    def ready(self) -> tuple[bool, str]:
        """Whether it takes tasks now, and if not, why."""


class HealthChecker:
    """Makes the report from named probes, each within its deadline, all at once.

    ``probes`` in the order of the report; ``live`` and ``ready`` answer at once, from what is known already.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        *,
        live: Callable[[], bool],
        ready: Callable[[], tuple[bool, str]],
        seconds: float = PROBE_SECONDS,
    ) -> None:
        self._probes = dict(probes)
        self._live = live
        self._ready = ready
        self._seconds = seconds

    async def check_health(self) -> dict[str, object]:
        """Look at everything now; never raises, and takes no longer than one probe may."""
        looked = await asyncio.gather(*(self._look(name, probe) for name, probe in self._probes.items()))
        found = dict(zip(self._probes, looked, strict=True))
        ready, why = self._ready()
        return {
            "status": str(checks.together(found)),
            "timestamp": time.time(),
            "checks": {name: check.as_json() for name, check in found.items()},
            "live": self._live(),
            "ready": ready,
            "not_ready_because": why,
        }

    def live(self) -> bool:
        """Whether the process does its work: its event loop turns and its loops go round."""
        return self._live()

    def ready(self) -> tuple[bool, str]:
        """Whether it takes tasks now, and if not, why."""
        return self._ready()

    async def _look(self, name: str, probe: Probe) -> checks.Check:
        try:
            async with asyncio.timeout(self._seconds):
                return await probe()
        except TimeoutError:
            return checks.unhealthy(f"{name}: no answer within {self._seconds:g} s (health_probe_seconds)")
        except Exception as error:  # noqa: BLE001  (a check that cannot be made is one that failed)
            return checks.unhealthy(f"{name}: {type(error).__name__}: {error}")
