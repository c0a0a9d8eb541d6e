"""The Protocol of everything that runs a plan: `run(plan, stop, observer) → Outcome`."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import checkpoint, undead
from hivemind_worker.runtime.capsule import accounts, defence_spec
from hivemind_worker.tasks import outcome, plan, state


class Stream(enum.StrEnum):
    """Which of the task's two output streams."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"
    """What the node says about the task, in its log beside its output: pulls, environment builds."""


OUTLIVES = "tasks outlive a worker that is killed"
"""How that is called among the defences."""


class Observer(Protocol):
    """Who wants to know while an attempt runs. Calls return at once and never raise; output is copied, not awaited."""

    def phase(self, phase: state.Phase) -> None:
        """Be told that the attempt has entered ``phase`` (preparing, starting, running, collecting)."""

    def output(self, stream: Stream, offset: int, data: bytes) -> None:
        """Be given the task's output as it arrives; ``offset`` in bytes within its own stream shows gaps."""

    def note(self, text: str) -> None:
        """Be told a line for the task's log that the task did not write: how far a pull is, what a resolver says."""

    def stored(self, artifacts: Collection[outcome.Artifact]) -> None:
        """Be told that result files of the attempt are in the store, whether or not its end will name them."""


@dataclass(frozen=True, slots=True)
class Defence:
    """One line of what fences a task here: what, whether it is in force, why not, and what to do about it.

    ``id``: of one that was tried in a capsule (`capsule/defences.IDS`), or is to be: then this is only what was read.
    """

    check: str
    in_force: bool
    why: str = ""
    fix: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Fitness:
    """Whether an executor can run tasks now, and by which defences."""

    usable: bool
    isolation: str
    runtime: str
    why: str = ""
    defences: tuple[Defence, ...] = ()
    differences: tuple[str, ...] = ()
    """What a capsule was made otherwise than it was asked; stays until a capsule of ours was made as it was asked."""


class Executor(Protocol):
    """Runs plans, each in a capsule of its own; safe to call many times at once."""

    @property
    def isolation(self) -> str:
        """What fences a task, as results name it: ``docker`` or ``sandbox``."""

    @property
    def images(self) -> tuple[str, ...]:
        """References of images that are here, used last at the end: the pool prefers this node for their tasks."""

    def preload(self, references: Iterable[str]) -> None:
        """Have these images ready before a task asks for them: in the background, one after the other.

        Returns at once; what cannot be had is logged. Does nothing where tasks have no image.
        """

    async def open(self, covered: Collection[Mapping[str, str]] = ()) -> None:
        """Make ready to run plans, and remove what an earlier process of this node left: all but ``covered``.

        Those are capsules, as that process had its keeper write them down, whose attempts are run again in custody.

        Raises :class:`hivemind_worker.errors.IsolationMissing` or
        :class:`hivemind_worker.errors.EngineLost` where this machine cannot.
        """

    async def run(
        self,
        plan: plan.RunPlan,
        stop: stopping.Stop,
        observer: Observer,
        custody: checkpoint.Custody | None = None,
    ) -> outcome.Outcome:
        """Run one attempt to its end and collect its results into the artifact store.

        In ``custody`` its keeper is told where the capsule is and how far it came. A custody that says how far an
        earlier process came (``after``) means that very capsule: it is entered again, and run anew only where it had
        not begun. One that is gone is a ``worker_crash``.

        Raises :class:`hivemind_worker.errors.NoRoom` where a disk of the node is full, or its keeper says so.
        Never raises for what a task, an image or an engine does: that is an outcome. ``stop`` at level cancel ends the
        task with SIGTERM, the plan's grace, then SIGKILL; at level kill at once. The capsule is gone, or its removal
        is under way in the background, when this returns. A cancelled asyncio task removes its capsule too.
        """

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """What the capsules that run use, by task and attempt of their plans; without those of which nothing is known.

        Never raises. Quick enough to be asked every second: what takes long to find out is as old as it was said last.
        """

    @property
    def undead(self) -> tuple[undead.Undead, ...]:
        """Capsules whose tasks have ended and which nothing has killed yet; each goes from here when it is gone."""

    async def fitness(self) -> Fitness:
        """Probe this machine: can tasks be run, and which defences are in force."""

    async def promises(self, plan: plan.RunPlan) -> defence_spec.DefenceSpec | None:
        """What a task with this plan is promised, for `proving.prove` to try; None where nothing is fenced.

        Raises as ``open``.
        """

    async def close(self) -> None:
        """Finish removals that are under way and let go of the engine."""
