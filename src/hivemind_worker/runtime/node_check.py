"""Whose fault it was that a capsule failed, by evidence: the node starts a capsule of its own, then the task's again.

A task's capsule that does not start, a capsule of the node's own that does, and the task's again that does not: then it
is the task's image. Where the node's own does not start either, it is the node. Both are sent to the pool.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final

from hivemind_worker.concurrency import clock, stopping
from hivemind_worker.runtime import checkpoint, executor, trial, undead, verdict
from hivemind_worker.runtime.capsule import accounts, defence_spec
from hivemind_worker.runtime.docker import hardening
from hivemind_worker.tasks import outcome, plan, state
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
"""Trials begin at least so far apart: failures that come together share one, and many cost the node one a second."""

REMEMBERED: Final = 100
REMEMBERED_SECONDS: Final = 600.0
"""So many images that were to blame are remembered, each for so long: its next task costs one start less."""

Trial = Callable[[plan.RunPlan], Awaitable[str]]
"""Starts a capsule of the node's own, of the kind that a plan's is; returns why that failed, empty where it worked.

It has a deadline of its own and raises nothing: see `trial.fault`."""


def may_be_image(asked: plan.RunPlan, *, isolation: str) -> bool:
    """Whether a capsule that does not start, while the node's own does, proves that it is the task's image. Pure.

    A sandbox has no image. A GPU is no part of the node's own capsule: it may be the GPU that is broken.
    """
    return isolation == "docker" and not asked.gpus


def blame_image(ended: outcome.Outcome, image: str) -> outcome.Outcome:
    """Return the end of an attempt whose capsule did not start twice, while the node's own did in between. Pure."""
    error = (
        f"image {image} cannot be started: {ended.error}. This node started a container of its own in between, and the "
        "task's failed again: the fault is in the image, or in limits too small for it. Look at its VOLUME lines and "
        "at what it has at /tmp, /run, /workspace, /.hivemind, /etc/passwd, /proc and /dev, or name another image"
    )
    reason, check = outcome.Reason.IMAGE_UNAVAILABLE, outcome.NodeCheck.PASSED
    return dataclasses.replace(ended, reason=reason, error=error, node_check=check)


def with_evidence(ended: outcome.Outcome, check: outcome.NodeCheck, fault: str = "") -> outcome.Outcome:
    """Return a failed end with what the node found out about itself; the reason stays. Pure."""
    words = {
        outcome.NodeCheck.PASSED: "this node started a capsule of its own just then: the node itself is sound",
        outcome.NodeCheck.FAILED: f"it is this node: a capsule of its own did not start either ({fault})",
    }
    error = "; ".join(part for part in (ended.error, words.get(check, "")) if part)
    return dataclasses.replace(ended, error=error, node_check=check)


class NodeCheck:
    """Trials of one node, shared by failures that come together. One event loop."""

    def __init__(self, trial: Trial, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._trial = trial
        self._interval_seconds = interval_seconds
        self._running: dict[_Sort, asyncio.Task[str]] = {}
        self._next_at: dict[_Sort, float] = {}

    async def fault(self, asked: plan.RunPlan) -> str:
        """Return why a capsule of the node's own does not start, empty where it does; by a trial that ends after this.

        Goes on when its caller is cancelled: others may wait for it.
        """
        sort = (str(asked.network), hardening.workspace_in_memory(asked.limits))
        if sort not in self._running:
            self._running[sort] = asyncio.create_task(self._try(sort, asked), name="node check")
        return await asyncio.shield(self._running[sort])

    async def close(self) -> None:
        """End what is under way."""
        await stopping.settle(*self._running.values())

    async def _try(self, sort: _Sort, asked: plan.RunPlan) -> str:
        try:
            await asyncio.sleep(self._next_at.get(sort, 0.0) - clock.now())
            self._next_at[sort] = clock.now() + self._interval_seconds
            fault = await self._trial(asked)
            log.log_system_event("node_checked", {"fault": fault}, level="warning" if fault else "info")
            return fault
        finally:
            del self._running[sort]


_Sort = tuple[str, bool]
"""Capsules of one sort are tried by one trial: network, and whether the workspace is in memory."""


@dataclasses.dataclass(slots=True)
class _Watcher:
    """Passes on what it is told, and remembers whether the task may have begun."""

    observer: executor.Observer
    began: bool = False

    def phase(self, phase: state.Phase) -> None:
        self.began = self.began or phase in {state.Phase.RUNNING, state.Phase.COLLECTING}
        self.observer.phase(phase)

    def may_have_begun(self) -> bool:
        return self.began

    def output(self, stream: executor.Stream, offset: int, data: bytes) -> None:
        self.observer.output(stream, offset, data)

    def note(self, text: str) -> None:
        self.observer.note(text)

    def stored(self, artifacts: Collection[outcome.Artifact]) -> None:
        self.observer.stored(artifacts)


class CheckedExecutor:
    """``inner``, where each failure that may be the node's comes with evidence of whose it is."""

    def __init__(self, inner: executor.Executor, check: NodeCheck) -> None:
        self._inner = inner
        self._check = check
        self._blamed: dict[str, float] = {}
        """Images that were to blame, and when: what fails in one of them again needs no second try."""

    @property
    def isolation(self) -> str:
        """What fences a task."""
        return self._inner.isolation

    @property
    def images(self) -> tuple[str, ...]:
        """References of images that are here."""
        return self._inner.images

    def preload(self, references: Iterable[str]) -> None:
        """Have these images ready."""
        self._inner.preload(references)

    async def open(self, covered: Collection[Mapping[str, str]] = ()) -> None:
        """Make ready to run plans."""
        await self._inner.open(covered)

    async def run(
        self,
        plan: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        custody: checkpoint.Custody | None = None,
    ) -> outcome.Outcome:
        """Run one attempt; where its capsule failed and nobody knows why, find out whether it is the node."""
        watcher = _Watcher(observer, began=custody is not None and custody.after is not None)
        ended = await self._inner.run(plan, stop, watcher, custody)
        if ended.node_check is not outcome.NodeCheck.NOT_DONE or plan.task_id == trial.TASK_ID:
            return ended
        try:
            fault = await stop.until(stopping.StopLevel.CANCEL, self._check.fault(plan))
        except stopping.Stopped:
            return _stopped(ended, stop)
        if fault:
            return with_evidence(ended, outcome.NodeCheck.FAILED, fault)
        if watcher.may_have_begun():
            return with_evidence(ended, outcome.NodeCheck.PASSED)
        again = ended
        if ended.reason is outcome.Reason.ENGINE_LOST or not self._was_blamed(plan.image):
            observer.note("the capsule did not start, and one of this node's own did: once more")
            again = await self._inner.run(plan, stop, watcher, custody)
            if again.node_check is not outcome.NodeCheck.NOT_DONE:
                self._blamed.pop(plan.image, None)
                return again
        is_unproven = watcher.may_have_begun() or outcome.Reason.ENGINE_LOST in {ended.reason, again.reason}
        if is_unproven or not may_be_image(plan, isolation=self.isolation):
            return with_evidence(again, outcome.NodeCheck.PASSED)
        self._remember(plan.image)
        return blame_image(again, plan.image)

    def _was_blamed(self, image: str) -> bool:
        return clock.now() - self._blamed.get(image, -REMEMBERED_SECONDS) < REMEMBERED_SECONDS

    def _remember(self, image: str) -> None:
        self._blamed.pop(image, None)
        self._blamed[image] = clock.now()
        while len(self._blamed) > REMEMBERED:
            del self._blamed[next(iter(self._blamed))]

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """What the capsules that run use."""
        return await self._inner.usage()

    @property
    def undead(self) -> tuple[undead.Undead, ...]:
        """Capsules that could not be killed yet."""
        return self._inner.undead

    async def fitness(self) -> executor.Fitness:
        """Probe this machine."""
        return await self._inner.fitness()

    async def promises(self, plan: plan.RunPlan) -> defence_spec.DefenceSpec | None:
        """What a task is promised."""
        return await self._inner.promises(plan)

    async def close(self) -> None:
        """End trials and removals that are under way."""
        await self._check.close()
        await self._inner.close()


def checked(runs: executor.Executor) -> CheckedExecutor:
    """Return the executor with a check of its own: whether it starts a capsule that has nothing of a task in it."""
    return CheckedExecutor(runs, NodeCheck(functools.partial(trial.fault, runs)))


def _stopped(ended: outcome.Outcome, stop: stopping.Stop) -> outcome.Outcome:
    """Return the end of an attempt that was stopped while nobody knew yet whose fault it was."""
    assert ended.limits is not None
    setting = verdict.Setting(ended.isolation, ended.runtime, ended.image_digest, ended.limits)
    return verdict.stopped(setting, stop, ended.timings)
