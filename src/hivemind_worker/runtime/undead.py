"""Capsules that outlive their tasks, because nothing kills them: known until they are gone; for drivers and node.

A process in an uninterruptible state of the kernel, or in a frozen control group that is not ours to thaw, dies when it
leaves that state, and not before. Its task has ended all the same; what its capsule holds of the machine is not free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from hivemind_worker.concurrency import clock
from hivemind_worker.tasks import outcome, plan
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)


@dataclass(frozen=True, slots=True)
class Undead:
    """A capsule that could not be killed: of which task and attempt, since when (on the loop's clock), what it holds.

    ``program`` names what runs in it, see :func:`program`.
    """

    key: tuple[str, int]
    reason: str
    since: float
    program: str
    limits: outcome.Limits
    gpu_devices: tuple[str, ...] = ()


class Registry:
    """The undead capsules of one driver."""

    def __init__(self) -> None:
        self._undead: dict[tuple[str, int], Undead] = {}

    @property
    def all(self) -> tuple[Undead, ...]:
        """Every one that is not gone yet, oldest first."""
        return tuple(self._undead.values())

    def add(self, run: plan.RunPlan, reason: str) -> None:
        """The capsule of this run was killed, and is still there."""
        key = (run.task_id, run.attempt)
        if key not in self._undead:
            self._undead[key] = Undead(key, reason, clock.now(), program(run), run.limits, run.gpu_devices)
            details = {"attempt": run.attempt, "why": reason}
            log.log_task_event("capsule_undead", run.task_id, details, level="error")

    def heard(self, run: plan.RunPlan, lives: bool) -> None:  # noqa: FBT001  (as `SessionResult` has it)
        """Its conversation is over: whether its stream went on after it was killed."""
        if lives:
            self.add(run, "it was killed, and its stream did not end")

    def remove(self, run: plan.RunPlan) -> None:
        """It is gone; nothing happens where it was never undead."""
        found = self._undead.pop((run.task_id, run.attempt), None)
        if found is not None:
            details = {"attempt": run.attempt, "seconds": round(clock.now() - found.since, 1)}
            log.log_task_event("capsule_gone", run.task_id, details, level="warning")


def program(run: plan.RunPlan) -> str:
    """Return what names the program of a run: its image, its command and its input files, as a digest."""
    digest = hashlib.sha256()
    for word in (run.image, *run.argv, *run.requirements):
        digest.update(b"%d:%s" % (len(word), word.encode(errors="surrogateescape")))
    for file in run.files:
        content = (
            file.artifact.sha256.encode() if file.artifact is not None else hashlib.sha256(file.content or b"").digest()
        )
        digest.update(b"%d:%s%s" % (len(file.path), file.path.encode(errors="surrogateescape"), content))
    return digest.hexdigest()


def like(run: plan.RunPlan, undead: Sequence[Undead]) -> Undead | None:
    """Return an undead capsule whose run is like this one; None where there is none.

    The same task, or the same program: what made the one undead may do the same to the other. Not the image alone: a
    sandbox has none, and half of all tasks share one. Not the resources: they say nothing about what a program does.
    """
    if not undead:
        return None
    name = program(run)
    return next((each for each in undead if each.key[0] == run.task_id or each.program == name), None)
