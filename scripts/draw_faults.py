"""What happens when something fails, as pictures: each drawn from a run of the real store through that very fault.

Time is the run's own. `draw_docs.py` puts the pictures into docs/faults.md, so they cannot say what the code does not.
"""

from __future__ import annotations

import asyncio
import functools
import re
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from hivemind_worker import errors, units
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import moves, records, resting, sqlite
from hivemind_worker.tasks import outcome, resources, state
from hivemind_worker.wire import verdicts

LEASE = 60.0
ROOM = resources.Resources(4.0, 8 * units.GIB, 64 * units.GIB)
SHAPE = assignment.Shape("command", resources.Resources(1.0, units.GIB, units.GIB))


class Run:
    """One task, the pool's store, and whoever speaks to it; every word is drawn."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self._folder = folder
        self._clock = 0.0
        self._sessions: dict[str, str] = {}
        self._given: dict[str, records.Handed] = {}
        self._state = ""
        self._kept = self._make()

    def _make(self) -> sqlite.SqliteStore:
        return sqlite.SqliteStore(self._folder / "pool.sqlite", LEASE, lambda: self._clock)

    async def open(self) -> None:
        """Begin."""
        await self._kept.open()

    async def close(self) -> None:
        """End."""
        await self._kept.close()

    async def submit(self, attempts: int = 3) -> None:
        """The submitter hands in the task."""
        await self._kept.submit([records.NewTask("t", b"", "", SHAPE, max_attempts=attempts)])
        await self._say("submitter->>pool: SubmitTasks t")

    async def cancel(self) -> None:
        """The submitter wants it no more."""
        await self._kept.cancel(["t"])
        await self._say("submitter->>pool: CancelTasks t")

    async def register(self, name: str, boot: str = "1", *, holds: bool = False, quietly: bool = False) -> None:
        """A worker opens a session; ``quietly``: nobody needs to see it."""
        held = self._held(name) if holds else ()
        opened = await self._kept.register(records.NewNode(name, ROOM, boot, state_lock_id=name), held)
        self._sessions[name] = opened.session_id
        if not quietly:
            await self._say(f"{name}->>pool: RegisterNode, holding {_names(held)}")
            if opened.drop:
                await self._say(f"pool-->>{name}: drop {_names(opened.drop)}")

    async def poll(self, name: str, *, arrives: bool = True, holds: bool = True) -> None:
        """A worker asks for tasks; the answer may get lost."""
        held = frozenset((ref.task_id, ref.attempt) for ref in self._held(name)) if holds else frozenset()
        (given,) = await self._kept.hand_out([records.Poll(name, self._sessions[name], ROOM, held=held)])
        await self._say(f"{name}->>pool: GetAssignedTasks")
        for handed in given.tasks:
            self._given[name] = handed
            await self._say(
                f"pool-{'-' if arrives else ''}{'>>' if arrives else 'x'}{name}: t, attempt {handed.attempt}"
            )
        if given.again_in:
            await self._say(f"pool-->>{name}: nothing, for {given.again_in:g} s")
        for ref in given.cancel:
            await self._say(f"pool-->>{name}: cancel t, attempt {ref.attempt}")

    async def report(
        self,
        name: str,
        reason: outcome.Reason | None = None,
        check: outcome.NodeCheck = outcome.NodeCheck.NOT_NEEDED,
        *,
        arrives: bool = True,
    ) -> None:
        """A worker says how its attempt ended, and what it found out about itself; the answer may get lost."""
        handed = self._given[name]
        status = outcome.Status.COMPLETED if reason is None else outcome.Status.FAILED
        if reason is outcome.Reason.CANCELLED:
            status = outcome.Status.CANCELLED
        said = records.Report(
            "t", name, self._sessions[name], handed.attempt, status, str(reason or ""),
            try_again=outcome.is_nodes_fault(str(reason or "")), node_check=check,
        )  # fmt: skip
        answer = await self._kept.report(said)
        checked = "" if check is outcome.NodeCheck.NOT_NEEDED else f", its check of itself {check}"
        await self._say(f"{name}->>pool: ReportTaskResult t, attempt {handed.attempt}: {reason or status}{checked}")
        await self._say(f"pool-{'-' if arrives else ''}{'>>' if arrives else 'x'}{name}: {answer.verdict}")

    async def beat(self, name: str) -> None:
        """A worker's heartbeat, naming what it holds."""
        held = self._held(name)
        await self._say(f"{name}->>pool: UpdateNodeStatus, holding {_names(held)}")
        try:
            told = await self._kept.heartbeat(records.Beat(name, self._sessions[name], held=held))
        except errors.UnknownNode:
            await self._say(
                f"pool-->>{name}: {verdicts.Reason.UNKNOWN_NODE}: {verdicts.REASONS[verdicts.Reason.UNKNOWN_NODE][1]}"
            )
            return
        for word, refs in (("cancel", told.cancel), ("drop", told.drop)):
            if refs:
                await self._say(f"pool-->>{name}: {word} {_names(refs)}")
        await self._say("")

    async def time(self, seconds: float, why: str) -> None:
        """Time goes by, and the pool looks at its leases."""
        self._clock += seconds
        self.lines.append(f"Note over pool: {seconds:g} s later: {why}")
        await self._kept.expire()
        await self._say("")

    async def restart(self, away: float, *, forgets: bool = False) -> None:
        """The pool is killed and started again."""
        self.lines.append("Note over pool: kill -9" + (", and its store is lost" if forgets else ""))
        await self._kept.close()
        self._clock += away
        if forgets:
            for file in self._folder.glob("pool.sqlite*"):
                file.unlink()
        self._kept = self._make()
        await self._kept.open()
        self.lines.append(f"Note over pool: started {away:g} s later: every lease is a whole one again")

    def strike(self, name: str, what: str) -> None:
        """Something happens to a worker."""
        self.lines.append(f"Note over {name}: {what}")

    def _held(self, name: str) -> tuple[records.Ref, ...]:
        handed = self._given.get(name)
        return (records.Ref("t", handed.attempt, str(state.Phase.RUNNING)),) if handed else ()

    def forget(self, name: str) -> None:
        """A worker does not know any more what it was given."""
        self._given.pop(name, None)

    async def _say(self, line: str) -> None:
        if line:
            self.lines.append(line)
        try:
            (task,) = await self._kept.tasks(["t"])
        except errors.NoSuchTask:
            return
        held = task.state in {state.TaskState.ASSIGNED, state.TaskState.RUNNING}
        now = f"{task.state}{f', attempt {task.attempt}' if held else ''}"
        now += f" ({task.reason})" if task.reason else ""
        if now != self._state:
            self._state = now
            self.lines.append(f"Note over pool: t is {now}")


def _names(refs: tuple[records.Ref, ...]) -> str:
    return ", ".join(f"{ref.task_id} attempt {ref.attempt}" for ref in refs) or "nothing"


async def _lost_lease(run: Run) -> None:
    await run.poll("a")
    run.strike("a", "killed, or cut off")
    await run.time(LEASE + 1, "nothing was heard of a for a whole lease")
    await run.poll("b")
    await run.report("b")
    run.strike("a", "is back, and still has its result")
    await run.report("a")


async def _lease_taken_up(run: Run) -> None:
    await run.poll("a")
    run.strike("a", "cut off")
    await run.time(LEASE + 1, "nothing was heard of a for a whole lease")
    run.strike("a", "is back before anybody else had room")
    await run.beat("a")
    await run.report("a")


async def _worker_killed(run: Run) -> None:
    await run.poll("a")
    run.strike("a", "kill -9, and its capsule ends with it")
    run.forget("a")
    await run.register("a", "2")
    await run.poll("b")
    await run.report("b")


async def _worker_remembers(run: Run) -> None:
    await run.poll("a")
    run.strike("a", "kill -9, its capsule lives on, its journal names it")
    await run.register("a", "2", holds=True)
    await run.report("a")


async def _pool_killed(run: Run) -> None:
    await run.poll("a", arrives=False)
    await run.restart(2 * LEASE)
    await run.poll("a", holds=False)
    await run.report("a")


async def _pool_forgets(run: Run) -> None:
    await run.poll("a")
    await run.restart(1, forgets=True)
    await run.beat("a")
    await run.register("a", holds=True)
    run.strike("a", "ends t without a report: this pool never had it")


async def _answer_lost(run: Run) -> None:
    await run.poll("a", arrives=False)
    await run.poll("a", holds=False)
    await run.report("a", arrives=False)
    await run.report("a")


async def _engine_lost(run: Run) -> None:
    await run.poll("a")
    run.strike("a", "its engine is gone, and starts no capsule of its own either")
    await run.report("a", outcome.Reason.ENGINE_LOST, outcome.NodeCheck.FAILED)
    run.forget("a")
    await run.poll("a")
    await run.poll("b")
    await run.report("b")


async def _unproven(run: Run) -> None:
    await run.poll("a")
    run.strike("a", "the capsule broke off, and a capsule of its own starts")
    await run.report("a", outcome.Reason.INTERNAL, outcome.NodeCheck.PASSED)
    run.forget("a")
    await run.poll("a")
    await run.poll("b")
    await run.report("b")


async def _image(run: Run) -> None:
    await run.poll("a")
    run.strike("a", "no container starts of the task's image, and one of its own does")
    await run.report("a", outcome.Reason.IMAGE_UNAVAILABLE, outcome.NodeCheck.PASSED)


async def _given_up(run: Run) -> None:
    for name in ("a", "b"):
        await run.poll(name)
        await run.report(name, outcome.Reason.WORKER_CRASH)


async def _cancelled_while_away(run: Run) -> None:
    await run.poll("a")
    run.strike("a", "cut off")
    await run.cancel()
    await run.time(LEASE + 1, "nothing was heard of a for a whole lease")
    run.strike("a", "is back")
    await run.beat("a")


Scenario = Callable[[Run], Awaitable[None]]

SCENARIOS: dict[str, tuple[str, int, Scenario]] = {
    "A lease that is lost": (
        "The next attempt fences the first: its end is kept for the record and never becomes the result.",
        3, _lost_lease,
    ),
    "A lease that is lost and taken up again": (
        "While nobody else was given the task, it is its node's again as the same attempt.", 3, _lease_taken_up,
    ),
    "A worker that is killed": (
        "A new process says what it holds. What it does not name is given up at once, not after a lease.",
        3, _worker_killed,
    ),
    "A worker that is killed and remembers": (
        "What it names goes on as the same attempt.", 3, _worker_remembers,
    ),
    "The pool is killed": (
        "Sessions are in its store. What its last answer took with it is repeated to whoever does not name it.",
        3, _pool_killed,
    ),
    "The pool comes back with an empty memory": (
        "Its nodes register again. What it never handed out is nobody's.", 3, _pool_forgets,
    ),
    "Answers that are lost": (
        "Every call may be made again: a hand-out is repeated, a report is answered as a duplicate.", 3, _answer_lost,
    ),
    "An engine that is lost": (
        "The node's own fault: tried again, elsewhere if there is an elsewhere, and the node rests.", 3, _engine_lost,
    ),
    "A failure that nobody can explain": (
        "Such a task is not offered to that node for a while, all others are. The node rests if unrelated ones fail.",
        3, _unproven,
    ),
    "An image in which nothing starts": (
        "The task's own fault, as the node starts a container of its own: no other attempt, and no rest.", 3, _image,
    ),
    "A task that is given up": (
        "After its last attempt a task has failed, and its error tells how each attempt ended, on which node.",
        2, _given_up,
    ),
    "A cancellation while its node is away": (
        "It ends with the lease; the node hears that it is to drop it.", 3, _cancelled_while_away,
    ),
}  # fmt: skip


@functools.cache
def sequences() -> dict[str, tuple[str, str]]:
    """Title → what there is to say, and the picture."""
    return {title: (text, asyncio.run(_drawn(attempts, play))) for title, (text, attempts, play) in SCENARIOS.items()}


async def _drawn(attempts: int, play: Scenario) -> str:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        await run.open()
        try:
            for name in ("a", "b"):
                await run.register(name, quietly=True)
            await run.submit(attempts)
            await play(run)
        finally:
            await run.close()
    words = {word for line in run.lines for word in re.split(r"-x|-?->>|Note over |:", line)[:3]}
    speakers = [who for who in ("submitter", "pool", "a", "b") if who in words]
    heads = [f"participant {who}{f' as worker {who}' if who in 'ab' else ''}" for who in speakers]
    return "\n".join(["sequenceDiagram", *(f"    {line}" for line in (*heads, *run.lines))])


def blame() -> list[str]:
    """The table of reasons: whose fault each is, and what comes of it."""
    rows = ["| reason | whose fault | the task |", "| --- | --- | --- |"]
    for reason, fault in outcome.FAULTS.items():
        after = "is tried again, up to its `max_attempts`" if fault is outcome.Fault.NODE else "has ended"
        if reason is outcome.Reason.NODE_SHUTDOWN:
            after = f"is tried again, up to {moves.MAX_DISRUPTIONS} disruptions"
        rows.append(f"| {reason} | {fault} | {after} |")
    return rows


def courses() -> list[str]:
    """The table of refusals: what a worker does about each."""
    words = {
        verdicts.Course.RETRY: "the same call again, after a pause",
        verdicts.Course.REREGISTER: "registers again, keeps its tasks, then the same call again",
        verdicts.Course.GIVE_UP: "gives that call up",
        verdicts.Course.FALL_BACK: "does without that call",
    }
    rows = ["| the pool says | a worker |", "| --- | --- |"]
    rows += [f"| {reason} ({code.name}) | {words[course]} |" for reason, (code, course) in verdicts.REASONS.items()]
    return rows + [
        f"| {code.name}, with no reason of ours | {words[course]} |" for code, course in verdicts.CODES.items()
    ]


def rests() -> str:
    """How long a sick node rests."""
    return ", ".join(f"{resting.seconds(faults):g} s" for faults in range(1, 5))
