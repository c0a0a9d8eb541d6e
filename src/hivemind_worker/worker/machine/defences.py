"""Tries what fences tasks: before the node takes any, each hour, and each minute while something is broken.

A node without a defence takes no task, tells the pool why, and takes tasks again by itself once it holds.
"""

from __future__ import annotations

import contextlib
from typing import Final

from hivemind_worker.concurrency import clock, periodic, stopping
from hivemind_worker.runtime import executor, proving
from hivemind_worker.runtime.capsule import defence_spec
from hivemind_worker.telemetry import logs
from hivemind_worker.worker.machine import fitness

RETRY_SECONDS: Final = 60.0
"""Between two trials while a defence is missing: the owner who mends it waits no longer."""

FIRST_RETRY_SECONDS: Final = 5.0
"""The same where the first trial did not come to its end: the node has taken no task yet."""

MAX_UNPROVED: Final = 3
"""Trials in a row that a busy machine was too slow for; then the node takes no task before one has come to its end."""

UNTRIED: Final = "what fences tasks has not been tried yet"

log = logs.StructuredLogger(__name__)


class DefenceTrials:
    """Tries the defences of ``runs`` and tells ``fit`` what is missing. Once it is made no task is taken untried."""

    def __init__(self, runs: executor.Executor, fit: fitness.Fitness) -> None:
        self._runs = runs
        self._fitness = fit
        fit.await_trial(UNTRIED)
        self._tried_at: float | None = None
        self._broken: tuple[defence_spec.Verdict, ...] = ()
        self._accepted: frozenset[str] = frozenset()
        self._unproved = 0
        self._was_proved = False

    async def run(self, stop: stopping.Stop) -> None:
        """Try whenever it is due, until the stop."""
        with contextlib.suppress(stopping.Stopped):
            async for _ in periodic.every(min(RETRY_SECONDS, self._fitness.limits.interval), stop):
                if self._is_due():
                    await stop.until(stopping.StopLevel.DRAIN, self.try_now())

    def _is_due(self) -> bool:
        if self._tried_at is None or self._fitness.limits.accepted_defences != self._accepted:
            return True
        pause = self._fitness.limits.defence_interval
        if self._broken or self._unproved or self._fitness.is_differing:
            pause = RETRY_SECONDS if self._was_proved else FIRST_RETRY_SECONDS
        return clock.now() - self._tried_at >= pause

    async def try_now(self) -> None:
        """Try each defence once, and say what follows."""
        self._accepted = self._fitness.limits.accepted_defences
        verdicts = await proving.prove(self._runs)
        self._tried_at = clock.now()
        broken = proving.broken(verdicts, self._accepted)
        self._unproved = 0 if proving.is_proved(verdicts) or broken else self._unproved + 1
        if self._unproved:
            why = f"what fences tasks could not be tried: {verdicts[0].evidence}"
            log.log_system_event("defences_not_tried", {"why": why, "in_a_row": self._unproved}, level="warning")
            if self._unproved >= MAX_UNPROVED:
                self._fitness.defences_tried((), why)
            return
        self._was_proved = True
        if {each.id for each in broken} != {each.id for each in self._broken}:
            if broken:
                details = {each.id: each.evidence for each in broken}
                log.log_system_event("defences_missing", {"defences": details}, level="error")
            else:
                log.log_system_event("defences_hold", {"missing_before": [each.id for each in self._broken]})
        self._broken = broken
        self._fitness.defences_tried(verdicts, describe(broken))


def describe(broken: tuple[defence_spec.Verdict, ...]) -> str:
    """Say in a line what is missing; empty for nothing. Pure."""
    if not broken:
        return ""
    problems = "; ".join(f"{each.promise}: {each.evidence}"[:200] for each in broken)
    return f"what fences tasks is not in force (`hivemind doctor` tells more): {problems}"[:1000]
