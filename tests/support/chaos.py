"""Chaos: many tasks on a pool and three workers while all of them are killed, stopped, cut off and filled at random."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import chaos_evidence
import chaos_plan
import chaos_world
import history
import invariants
import waiting

from hivemind_worker.client import asynchronous
from hivemind_worker.concurrency import stopping
from hivemind_worker.task import errors, outcome, resources, state

WAVE = 50
"""Tasks in one call: submissions fall into the middle of the blows, too."""

AT_ONCE = 3
"""Blows that last at the same time, at most."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """What is to be done. ``containers`` of the three workers use an engine of their own, which is struck as well."""

    seed: int
    tasks: int = 1_000
    sandboxes: int = 2
    containers: int = 1
    lease_seconds: float = 4.0
    with_disks: bool = True
    seconds: float = 1_200.0


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of it."""

    violations: list[invariants.Violation]
    complaints: list[str]
    counts: Mapping[str, int]
    seconds: float

    @property
    def text(self) -> str:
        """In lines, for a person."""
        lines = [f"{count:7d}  {what}" for what, count in self.counts.items()]
        lines.append(f"{self.seconds:7.0f}  seconds")
        lines += [f"!! {complaint}" for complaint in self.complaints]
        lines += [f"!! VIOLATION {violation}" for violation in self.violations]
        return "\n".join(lines)


async def run(terms: Terms, folder: Path) -> Result:
    """Do it all; logs and stores are in ``folder`` afterwards."""
    began = time.monotonic()
    planned = chaos_plan.tasks(terms.seed, terms.tasks)
    async with chaos_world.world(
        folder,
        seed=terms.seed,
        sandboxes=terms.sandboxes,
        containers=terms.containers,
        lease_seconds=terms.lease_seconds,
        with_disks=terms.with_disks,
    ) as world:
        engine = world.engine.url if world.engine else ""
        with chaos_evidence.Watch({}, engine) as watch:
            beside = [
                asyncio.create_task(world.keep_alive(), name="supervisor"),
                asyncio.create_task(_follow(world, watch), name="process numbers"),
            ]
            try:
                async with asyncio.timeout(terms.seconds):
                    await _through(world, terms, planned)
            except TimeoutError:
                world.complaints.append(f"not all tasks have ended after {terms.seconds:.0f} s")
            finally:
                await stopping.settle(*beside)
            nodes = {name: folder / name for name in world.nodes}
            temporary = {name: folder / f"{name}-temp" for name in world.nodes}
            with contextlib.suppress(AssertionError):
                await waiting.wait_until(
                    lambda: not chaos_evidence.left(nodes, temporary, engine, terms.seed),
                    description="nothing is left",
                    seconds=15 + terms.lease_seconds,
                )
            await world.end()
            if watch.blind:
                world.complaints.append(f"the watch of processes saw no more: {watch.blind}")
            remains = chaos_evidence.left(nodes, temporary, engine, terms.seed)
        # Out of the small disk that goes with the world.
        shutil.copy(folder / "pool" / "pool.sqlite", folder / "pool-at-the-end.sqlite")
        run_of_it = history.History(
            expected={str(each.task["id"]): each.expected for each in planned},
            tasks=chaos_evidence.tasks(folder / "pool" / "pool.sqlite"),
            lease_seconds=terms.lease_seconds,
            grace_seconds=world.grace_seconds,
            sightings=tuple(watch.sightings),
            absences=tuple(world.absences),
            rooms={name: history.Room(_ANYTHING, world.slots) for name in world.nodes},
            stored=chaos_evidence.stored(folder / "pool" / "pool-artifacts"),
            left=remains,
        )
        counts = _counted(world, run_of_it, folder)
    return Result(invariants.check(run_of_it), world.complaints, counts, time.monotonic() - began)


_ANYTHING = resources.Resources(1_000, 2**50, 2**50)
"""Its size is the machine's, which these tasks do not come near: what counts here is the number of slots."""


async def _follow(world: chaos_world.World, watch: chaos_evidence.Watch) -> None:
    while True:
        watch.workers.update({name: its.pid for name, its in world.nodes.items()})
        await asyncio.sleep(0.05)


async def _through(world: chaos_world.World, terms: Terms, planned: list[chaos_plan.Planned]) -> None:
    """Submit, strike until all that is left could end without us, heal, and wait for the ends."""
    async with asynchronous.AsyncClient(world.address, patience=120) as client:
        striking = asyncio.create_task(_strike(world, terms), name="blows")
        try:
            cancelling = []
            for start in range(0, len(planned), WAVE):
                wave = planned[start : start + WAVE]
                await _until_done(functools.partial(client.submit, [each.task for each in wave]))
                for each in wave:
                    if each.cancel_after is not None:
                        work = _cancel(client, str(each.task["id"]), each.cancel_after)
                        cancelling.append(asyncio.create_task(work, name="cancel"))
                # About what is under way at once: the next wave meets other blows than this one.
                await _until_open(client, 2 * WAVE, striking)
            await _until_open(client, 0, striking)
            await asyncio.gather(*cancelling)
        finally:
            await stopping.settle(striking)


async def _until_done(call: Callable[[], Awaitable[object]]) -> None:
    """Try again and again; the pool may be away for longer than a call is patient."""
    while True:
        with contextlib.suppress(errors.Unavailable):
            await call()
            return


async def _cancel(client: asynchronous.AsyncClient, task_id: str, after: float) -> None:
    await asyncio.sleep(after)
    await _until_done(functools.partial(client.cancel, [task_id]))


async def _until_open(client: asynchronous.AsyncClient, most: int, striking: asyncio.Task[None]) -> None:
    still = most + 1
    while still > most:
        if striking.done():
            striking.result()  # what went wrong there is not waited for in vain
        await asyncio.sleep(0.1)
        with contextlib.suppress(errors.Unavailable):
            info = await client.info()
            still = sum(info.tasks_by_state.get(word, 0) for word in set(state.TaskState) - state.ENDED)


async def _strike(world: chaos_world.World, terms: Terms) -> None:
    under_way: set[asyncio.Task[None]] = set()
    try:
        for blow in chaos_plan.blows(terms.seed, world.targets, terms.lease_seconds):
            await asyncio.sleep(blow.pause)
            while len(under_way) >= AT_ONCE:
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            under_way = {task for task in under_way if not task.done()}
            under_way.add(asyncio.create_task(world.strike(blow), name=f"{blow.kind} {blow.target}"))
    finally:
        # Each blow undoes itself: whoever is down gets up again.
        if under_way:
            await asyncio.shield(asyncio.wait(under_way))


def _counted(world: chaos_world.World, run_of_it: history.History, folder: Path) -> dict[str, int]:
    """What happened, in numbers."""
    counts = collections.Counter[str]()
    for task in run_of_it.tasks:
        counts[f"tasks {task.state}{f' ({task.reason})' if task.reason else ''}"] += 1
        counts["attempts"] += task.attempt
        attempts = [event.attempt for event in task.events if event.event == state.Move.ASSIGN]
        counts["takeovers (an attempt that its node had lost is its own again)"] += len(attempts) - len(set(attempts))
        for event in task.events:
            name = {"repeat": "lost answers repeated", "requeue": "put back into the queue"}.get(event.event)
            if name:
                counts[name] += 1
    counts["stale ends kept for the record"] = sum(
        report.verdict == "stale" for task in run_of_it.tasks for report in task.reports
    )
    counts["ends that were the node's fault"] = sum(
        report.reason in set(outcome.Reason) and outcome.FAULTS[outcome.Reason(report.reason)] is outcome.Fault.NODE
        for task in run_of_it.tasks
        for report in task.reports
    )
    counts["duplicates refused"] = 0
    for _, said, details in chaos_evidence.events({name: its.log for name, its in world.nodes.items()}):
        if said == "attempt_ended" and details.get("report") == "duplicate":
            counts["duplicates refused"] += 1
        elif said in {"reported_again", "attempt_taken_up"}:
            counts[said.replace("_", " ")] += 1
        elif said == "internal_error":
            counts["internal errors"] += 1
    counts["task processes seen"] = len({seen.capsule for seen in run_of_it.sightings})
    return {**dict(sorted(world.counts.items())), **dict(sorted(counts.items()))}


def main(seed: int, tasks: int, *, containers: int, keep: bool) -> int:
    """Run it with a line for each count; 0 when nothing was violated. Logs stay where something was."""
    folder = Path(tempfile.mkdtemp(prefix=f"hivemind-chaos-{seed}-", dir="/var/tmp"))
    folder.chmod(0o755)  # workspaces of sandboxes are entered by another user
    terms = Terms(seed, tasks, sandboxes=3 - containers, containers=containers)
    result = asyncio.run(run(terms, folder))
    print(f"== chaos, seed {seed}: {tasks} tasks\n{result.text}", flush=True)  # noqa: T201
    bad = bool(result.violations or result.complaints)
    if bad or keep:
        print(f"== see {folder}", flush=True)  # noqa: T201
    else:
        shutil.rmtree(folder)
    return int(bad)
