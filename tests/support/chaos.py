"""Chaos: many tasks on a pool and three workers while all of them are killed, stopped, cut off and filled at random."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import random
import shutil
import signal
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import chaos_blows
import chaos_clients
import chaos_evidence
import chaos_pace
import chaos_plan
import chaos_record
import chaos_rollback
import chaos_service
import chaos_starvation
import chaos_world
import client_history
import history
import invariants
import left_processes

from hivemind_worker.concurrency import stopping
from hivemind_worker.tasks import outcome, resources, state

TASK_SECONDS = 1.5
"""Quiet seconds that a task may cost a large run, blows included; 0.7 were seen."""

AT_ONCE = 3
"""Blows that last at the same time, at most."""

ABANDONED_SECONDS = 300.0
"""What a node leaves that never comes back is ended by others of its machine: two minutes, a minute between looks."""

MAX_STRETCH = 3.0
"""Pauses between blows stretch with a slow machine by so much at most: most tasks wait more than they compute."""

HISTORY = "history.jsonl"
RESULT = "result.json"


@dataclasses.dataclass(frozen=True)
class Terms:
    """What is to be done. ``containers`` of the three workers use an engine of their own, which is struck as well.

    ``spinners``: processes that keep the cores busy beside it, see `neighbours`. ``before``: a source tree of the
    version before, which pool and workers begin as. ``kinds``: only these blows fall, to reduce what went wrong. Times
    in quiet seconds: they stretch with the machine.
    """

    seed: int
    tasks: int = 1_000
    sandboxes: int = 2
    containers: int = 1
    lease_seconds: float = 4.0
    with_disks: bool = True
    seconds: float = 1_200.0
    spinners: int = 0
    before: str = ""
    kinds: tuple[str, ...] = ()


@dataclasses.dataclass
class Result:
    """What came of it, as far as this process can tell; the clients' history is judged by `client_checker`."""

    violations: list[str]
    complaints: list[str]
    counts: Mapping[str, int]
    seconds: float
    slowest: float

    @property
    def text(self) -> str:
        """In lines, for a person."""
        lines = [f"{count:7d}  {name}" for name, count in self.counts.items()]
        lines += [f"{self.seconds:7.0f}  seconds", f"{self.slowest:7.1f}  times as slow as a quiet machine, at worst"]
        lines += [f"!! {complaint}" for complaint in self.complaints]
        lines += [f"!! VIOLATION {violation}" for violation in self.violations]
        return "\n".join(lines)


async def run(terms: Terms, folder: Path) -> Result:
    """Do it all; logs, stores and the clients' history are in ``folder`` afterwards."""
    recorder = chaos_record.Recorder(folder / HISTORY)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with chaos_pace.Pace() as pace:
            if terms.spinners:
                await asyncio.sleep(3 * chaos_pace.MEASURE_SECONDS)  # so that the lease fits
            return await _run(terms, folder, pace, recorder)
    finally:
        recorder.close()


async def _run(terms: Terms, folder: Path, pace: chaos_pace.Pace, recorder: chaos_record.Recorder) -> Result:
    began = time.monotonic()
    # Heartbeats late by a crowded machine are no fault of theirs: the lease follows it, as an operator's would.
    lease = terms.lease_seconds * min(max(pace.slowness / 3, 1.0), 8.0)
    pace.slow_start_seconds = lease / 4
    pool = chaos_service.Service("pool", folder, [], {}, '"pool_started"')
    before = Path(terms.before) if terms.before else None
    means = chaos_world.means(folder, disks=terms.with_disks, before=before)
    made = chaos_world.World(folder, terms.seed, pool, lease, 1.0, 4, pace, recorder, means, terms.tasks)
    draw = random.Random(f"old {terms.seed}")
    olds = {who: draw.random() < 0.5 for who in ("pool", "node 0", "node 1", "node 2")} if before else {}
    async with chaos_world.world(made, sandboxes=terms.sandboxes, containers=terms.containers, olds=olds) as world:
        world.counts["begun as the version before"] = sum(olds.values())
        with chaos_evidence.Watch({}, world.engine.url if world.engine else "") as watch:
            clients = await _through(world, terms, watch)
            remains = await _end(world, watch, terms.seed)
        _evidence(world, watch, remains, terms.lease_seconds)
        # Out of the small disk that goes with the world.
        shutil.copy(folder / "pool" / "pool.sqlite", folder / "pool-at-the-end.sqlite")
        stored = history.History(
            expected={task_id: plan.expected for task_id, plan in clients.current.items()},
            may_be_there={task_id: plan.expected for task_id, plan in clients.restored.items()},
            tasks=chaos_evidence.tasks(folder / "pool" / "pool.sqlite"),
            lease_seconds=lease,
            grace_seconds=world.grace_seconds,
            sightings=_sightings(clients, watch),
            absences=(*world.absences, *_stalls(world)),
            rooms={name: history.Room(_ANYTHING, world.slots) for name in world.nodes},
            stored=chaos_evidence.stored(folder / "pool" / "pool-artifacts"),
            left=remains,
            epoch_at=world.epoch_at,
        )
        counts = _counted(world, stored, watch)
    violations = [str(violation) for violation in invariants.check(stored)]
    if world.counts["clock pool"]:
        # By a clock that was set, the store's history cannot be laid beside what was seen; `client_checker` can.
        violations = [text for text in violations if not text.startswith("no_capsule_outlives_its_lease")]
    return Result(violations, world.complaints, counts, time.monotonic() - began, pace.slowest)


_ANYTHING = resources.Resources(1_000, 2**50, 2**50)
"""Its size is the machine's, which these tasks do not come near: what counts here is the number of slots."""


async def _through(world: chaos_world.World, terms: Terms, watch: chaos_evidence.Watch) -> chaos_clients.Clients:
    """Submit, strike until all that is left could end without us, heal, and read everything once more."""
    striker = chaos_blows.Striker(world)
    # 3.6 s of work for 1,000 tasks, in the loop that carries every line: a standstill would excuse the first losses.
    planned = await asyncio.to_thread(chaos_plan.tasks, terms.seed, terms.tasks)
    async with chaos_record.Client(world.address, world.recorder, chaos_clients.PATIENCE_SECONDS) as client:
        clients = chaos_clients.Clients(world, client)
        beside = [
            asyncio.create_task(world.keep_alive(), name="supervisor"),
            asyncio.create_task(_follow(world, watch), name="process numbers"),
            asyncio.create_task(_watch_starvation(world), name="starvation"),
            asyncio.create_task(world.pace.watch_loop(), name="standstills"),
            asyncio.create_task(clients.observe_nodes(), name="nodes"),
        ]
        reading = [
            asyncio.create_task(clients.follow(), name="follower"),
            *(asyncio.create_task(clients.read(number), name="reader") for number in range(chaos_clients.READERS)),
        ]
        striking = asyncio.create_task(_strike(world, striker, terms), name="blows")
        work = asyncio.create_task(_submit_all(world, clients, terms, planned), name="submitting")
        try:
            await _until_done(world, work, terms.seconds, beside=(*beside, *reading, striking))
            # Nothing changes any more, and lists of 10,000 ended tasks, made again and again, take the pool's core.
            await stopping.settle(striking, *reading)
            await striker.settle()
            last = asyncio.create_task(clients.read_all(), name="last reads")
            await _until_done(world, last, terms.seconds, beside=beside)
        finally:
            await stopping.settle(work, striking, *reading, *beside)
            await clients.stop()
        return clients


async def _submit_all(
    world: chaos_world.World, clients: chaos_clients.Clients, terms: Terms, planned: Sequence[chaos_plan.Planned]
) -> None:
    acts = chaos_rollback.acts(terms.seed, terms.tasks)
    for start in range(0, len(planned), chaos_clients.WAVE):
        wave = planned[start : start + chaos_clients.WAVE]
        await clients.submit(wave, f"{terms.seed} wave {start}")
        for act in [act for act in acts if start <= act.after_tasks < start + chaos_clients.WAVE]:
            await asyncio.sleep(1.0)
            await act.do(world, clients)
        # About what is under way at once: the next wave meets other blows than this one.
        await clients.until_open(2 * chaos_clients.WAVE)
    await clients.until_open(0)
    clients.retrying = False
    await clients.settle()
    await clients.until_open(0)


async def _until_done(
    world: chaos_world.World, work: asyncio.Task[None], seconds: float, beside: Sequence[asyncio.Task[None]]
) -> None:
    """Wait for it, for so many quiet seconds; then it is cancelled, and that is a complaint."""
    limit = world.pace.quiet_seconds + seconds
    while not work.done():
        await asyncio.wait((work,), timeout=0.5)
        for task in beside:
            if task.done():
                task.result()  # what went wrong there is not waited for in vain
        if world.pace.quiet_seconds > limit:
            world.complaints.append(f"{work.get_name()} has not ended after {seconds:.0f} quiet seconds")
            await stopping.settle(work)
            return
    work.result()


async def _follow(world: chaos_world.World, watch: chaos_evidence.Watch) -> None:
    while True:
        watch.workers.update({name: service.pid for name, service in world.nodes.items()})
        await asyncio.sleep(0.05)


async def _watch_starvation(world: chaos_world.World) -> None:
    while True:
        pids = {service.name: service.pid for service in (world.pool, *world.nodes.values())}
        waited = {name: (pid, chaos_starvation.waited_seconds(pid)) for name, pid in pids.items() if pid}
        world.starvation.look(time.monotonic(), waited)
        await asyncio.sleep(world.lease_seconds / 20)


async def _strike(world: chaos_world.World, striker: chaos_blows.Striker, terms: Terms) -> None:
    under_way: set[asyncio.Task[None]] = set()
    try:
        others = frozenset(chaos_plan.KINDS.keys() - terms.kinds) if terms.kinds else frozenset()
        cannot = world.means.missing | others
        for blow in chaos_plan.blows(terms.seed, world.targets, world.lease_seconds, cannot):
            # On a slow machine about as many blows for as much work.
            await asyncio.sleep(blow.pause * min(world.pace.slowness, MAX_STRETCH))
            while len(under_way) >= AT_ONCE:
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in under_way:
                if task.done():
                    task.result()
            under_way = {task for task in under_way if not task.done()}
            under_way.add(asyncio.create_task(striker.strike(blow), name=f"{blow.kind} {blow.target}"))
    finally:
        # Each blow undoes itself: whoever is down gets up again.
        if under_way:
            await asyncio.shield(asyncio.wait(under_way))
        for task in under_way:
            if not task.cancelled() and (error := task.exception()) is not None:
                world.complaints.append(f"{task.get_name()} went wrong: {error!r}")


async def _end(world: chaos_world.World, watch: chaos_evidence.Watch, seed: int) -> tuple[str, ...]:
    """Wait until nothing of a task is there, end workers and pool, and return what is left."""
    engine = world.engine.url if world.engine else ""
    nodes = {name: world.folder / name for name in world.nodes}
    temporary = {name: world.folder / f"{name}-temp" for name in world.nodes}
    with contextlib.suppress(TimeoutError):
        await world.pace.wait_until(
            lambda: not chaos_evidence.left(nodes, temporary, engine, seed),
            "nothing is left",
            15 + 2 * world.lease_seconds,
        )
    young = {pid for pid in _of(world.retired, world) if left_processes.age_seconds(pid) < ABANDONED_SECONDS}
    await world.end()
    left_processes.end(young)
    if watch.blind:
        world.complaints.append(f"the watch of processes saw no more: {watch.blind}")
    return (*chaos_evidence.left(nodes, temporary, engine, seed), *await _left_processes(world))


async def _left_processes(world: chaos_world.World) -> tuple[str, ...]:
    """What bears the mark of a node, or its folder, once every worker has ended; of those that never came back, too."""
    names = (*world.nodes, *world.retired)

    def left() -> dict[int, str]:
        return _of(names, world)

    with contextlib.suppress(TimeoutError):
        await world.pace.wait_until(lambda: not left(), "no process of a node is left", 5.0)
    found = left()
    left_processes.end(found)
    return tuple(f"process {pid} of a node: {command}" for pid, command in found.items())


def _of(names: Iterable[str], world: chaos_world.World) -> dict[int, str]:
    return {pid: each for name in names for pid, each in left_processes.of_node(name, world.folder / name).items()}


def _stalls(world: chaos_world.World) -> list[history.Absence]:
    """Times in which this machine let nobody run, or not one of ours, by the wall clock."""
    offset = time.time() - time.monotonic()
    healing = chaos_world.HEALING_SECONDS
    spans = [("pool", begin, end) for begin, end in world.pace.stalls]
    spans += [(span.who, span.begin, span.end) for span in world.starvation.spans]
    return [history.Absence(who, begin + offset, end + offset + healing) for who, begin, end in spans]


def _evidence(
    world: chaos_world.World, watch: chaos_evidence.Watch, remains: tuple[str, ...], lease_seconds: float
) -> None:
    """Write down what really ran, and what is left, for the checker."""
    write = world.recorder.write
    for each in watch.executions():
        write("execution", **dataclasses.asdict(each))
    healing = max(chaos_world.HEALING_SECONDS, 2 * world.lease_seconds)
    lacks = [("stall", "machine", begin, end) for begin, end in world.pace.stalls]
    lacks += [("starvation", span.who, span.begin, span.end) for span in world.starvation.spans]
    for what, who, begin, end in lacks:
        write("fault", what=what, who=who, begin=begin, end=end, settled=end + healing, nodes=[])
    for name in remains:
        write("left", name=name)
    defaults = client_history.Bounds()
    slowest = world.pace.slowest
    write(
        "bounds",
        lease_seconds=world.lease_seconds,
        grace_seconds=world.grace_seconds,
        slack_seconds=defaults.slack_seconds * max(1.0, min(slowest / 3, 10.0)),
        max_recovery_seconds=defaults.max_recovery_seconds * max(1.0, slowest * lease_seconds / 4.0),
    )


def _sightings(clients: chaos_clients.Clients, watch: chaos_evidence.Watch) -> tuple[history.Sighting, ...]:
    """All but those whose program a second task has; those of submissions that count no more under their label."""
    plans = [*clients.current.values(), *clients.restored.values()]
    labels = collections.Counter(plan.client.label for plan in plans)
    tasks = {plan.client.label: plan.client.task for plan in plans}
    return tuple(
        dataclasses.replace(seen, task_id=tasks.get(seen.task_id, seen.task_id))
        for seen in watch.sightings
        if labels[seen.task_id] <= 1
    )


def _counted(world: chaos_world.World, stored: history.History, watch: chaos_evidence.Watch) -> dict[str, int]:
    """What happened, in numbers."""
    counts = collections.Counter[str]()
    for task in stored.tasks:
        counts[f"tasks {task.state}{f' ({task.reason})' if task.reason else ''}"] += 1
        counts["attempts"] += task.attempt
        attempts = [event.attempt for event in task.events if event.event == state.Move.ASSIGN]
        counts["takeovers (an attempt that its node had lost is its own again)"] += len(attempts) - len(set(attempts))
        for event in task.events:
            name = {"repeat": "lost answers repeated", "requeue": "put back into the queue"}.get(event.event)
            if name:
                counts[name] += 1
    reports = [report for task in stored.tasks for report in task.reports]
    counts["stale ends kept for the record"] = sum(report.verdict == "stale" for report in reports)
    counts["ends that were the node's fault"] = sum(
        report.reason in set(outcome.Reason) and outcome.FAULTS[outcome.Reason(report.reason)] is outcome.Fault.NODE
        for report in reports
    )
    counts["starvations (a node or the pool lacked a core for half a lease)"] = len(world.starvation.spans)
    counts["duplicates refused"] = 0
    services = {**world.nodes, **world.retired}
    for _, event_type, details in chaos_evidence.events({name: each.log for name, each in services.items()}):
        if event_type == "attempt_ended" and details.get("report") == "duplicate":
            counts["duplicates refused"] += 1
        elif event_type in {"reported_again", "attempt_taken_up"}:
            counts[event_type.replace("_", " ")] += 1
        elif event_type == "internal_error":
            counts["internal errors"] += 1
    counts["calls delayed or overtaken"] = sum(jumbler.delayed for jumbler in world.jumblers.values())
    counts["calls that came twice"] = sum(jumbler.repeated for jumbler in world.jumblers.values())
    counts["task processes seen"] = len({seen.capsule for seen in watch.sightings})
    return {**dict(sorted(world.counts.items())), **dict(sorted(counts.items()))}


def main(terms: Terms, folder: Path) -> int:
    """Run it, and write what came of it into ``folder``, whatever that is; 0 when this process saw nothing violated."""
    began = time.monotonic()
    try:
        result = asyncio.run(run(terms, folder))
    except asyncio.CancelledError:
        result = Result([], ["the run was told to end"], {}, time.monotonic() - began, 0.0)
    except Exception as error:  # noqa: BLE001  (a report without a verdict says more than no report)
        trace = folder / "harness-error.txt"
        trace.write_text(traceback.format_exc(), encoding="utf-8")
        result = Result([], [f"the harness broke off: {error!r}, see {trace}"], {}, time.monotonic() - began, 0.0)
    (folder / RESULT).write_text(json.dumps(dataclasses.asdict(result)), encoding="utf-8")
    return int(bool(result.violations or result.complaints))
