"""Runs plans in bubblewrap sandboxes, without any container engine; the same capsule, the same conversation."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import resource
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from hivemind_worker import errors
from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import clock, stopping, supervision
from hivemind_worker.runtime import (
    capsule_run,
    capsule_spec,
    checkpoint,
    conclusion,
    disk_watch,
    executor,
    live,
    outbound,
    run_call,
    slots,
    undead,
    verdict,
)
from hivemind_worker.runtime.capsule import accounts, defence_spec, messages, users
from hivemind_worker.runtime.environments import answers as answering
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.runtime.sandbox import (
    environments,
    launch,
    life,
    limits,
    outliving,
    probe,
    promised,
    reattaching,
    rlimits,
    sandbox_defences,
    sandbox_removal,
    usage,
    workspaces,
)
from hivemind_worker.runtime.sandbox import process as processes
from hivemind_worker.settings import paths
from hivemind_worker.tasks import outcome, plan, state
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

REMOVAL_SECONDS: Final = 60.0
SWEEP_SECONDS: Final = 60.0  # between two looks at what an earlier life of this node left, as of containers


@dataclasses.dataclass(slots=True)
class _Held:
    """What one attempt holds of this machine."""

    workspace: workspaces.Workspace | None = None
    group: limits.Group | None = None
    starting: asyncio.Task[processes.Sandbox | outliving.Sandbox] | None = None
    slot: int | None = None
    pair: users.Users | None = None  # the slot's, when we are root
    found: outliving.Sandbox | None = None  # one that an earlier worker had made
    environment: environments.Environment | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Attempt(run_call.RunCall):
    """One call of `run`, and what it holds."""

    held: _Held


class ProcessExecutor:
    """An executor on this machine's own kernel. `open` first; one event loop.

    `scratch`: a folder on a disk, reachable for everyone, for workspaces too large for memory; `cache`: another, for
    environments, which outlive us; `lasting`: one for the socket to what holds sandboxes beyond our end, where they
    shall last as long. ``node_id``: whose the sandboxes are, by which a later process finds what a killed one left.
    """

    def __init__(
        self,
        *,
        store: stores.Store,
        scratch: Path = Path("/var/tmp"),  # noqa: S108 - see `workspaces`
        cache: Path | None = None,
        sources: sourcing.Sources | None = None,
        lasting: Path | None = None,
        node_id: str = "",
        way: outbound.Gateway | None = None,
    ) -> None:
        self._way = way
        self._node_id = node_id if lasting is not None or not node_id else life.one_command()
        self._closing = stopping.Stop()
        self._sweeping: asyncio.Task[None] | None = None
        self._holder_folder = lasting
        self._store = store
        self._scratch = scratch
        self._lasting = outliving.Held(lasting) if lasting is not None and not outliving.missing() else None
        self._ground: probe.Ground | None = None
        self._jobs = supervision.Jobs("sandboxes", _job_failed)
        self._live = live.Live(self._jobs)
        self._slots, self._undead = slots.Slots(), undead.Registry()
        self._cache = cache or paths.cache_dir()
        self._environments = environments.Environments(
            folder=self._cache,
            sources=sources or sourcing.Sources(),
            jobs=self._jobs,
            answers=answering.Answers(self._cache),
        )

    @property
    def isolation(self) -> str:
        """What fences a task here."""
        return "sandbox"

    @property
    def images(self) -> tuple[str, ...]:
        """None: a sandbox has no image."""
        return ()

    def preload(self, references: Iterable[str]) -> None:
        """Nothing to do: a sandbox has no image."""

    async def open(self, covered: Collection[Mapping[str, str]] = ()) -> None:
        """Make one sandbox, to be sure, and remove what a dead worker left. Raises IsolationMissing."""
        ground = await self._ready()
        self._slots.reserve_of(covered)
        claimed = {each.get(reattaching.NAME, "") for each in covered}
        if self._lasting is not None and not await sandbox_removal.drop_unclaimed(self._lasting, claimed):
            self._lasting = None
        if self._node_id and self._holder_folder is not None:
            await self._sweep()
            if self._lasting is None:  # an earlier life may have had one
                await outliving.dismiss(self._holder_folder)
            self._sweeping = asyncio.create_task(self._sweep_again(), name="sandboxes/sweep")
        elif self._node_id:  # one command: for what others left that were killed nobody need wait
            self._jobs.start("strays", self._sweep())
        await asyncio.to_thread(limits.sweep, ground.groups)
        await workspaces.sweep(self._scratch, ground.drop_to)
        await asyncio.to_thread(environments.sweep, self._cache)

    async def _sweep(self, *, own_too: bool = False) -> None:
        """End the processes that earlier lives of this node have left, whatever the moment they were killed in."""
        groups = (await self._ready()).groups
        await asyncio.to_thread(limits.sweep, groups)  # first: what is frozen dies of no signal
        held = None if self._lasting is None else self._holder_folder
        ended = await asyncio.to_thread(life.sweep, self._node_id, held, own_too=own_too)
        if ended := (*ended, *await asyncio.to_thread(life.sweep_abandoned)):
            log.log_system_event("strays_ended", {"pids": list(ended)}, level="warning")
        # Not only at a start: then a group may still have a process that is just ending, or is held to go on.
        await asyncio.to_thread(limits.sweep, groups, own_too=own_too)

    async def _sweep_again(self) -> None:
        while not await self._closing.wait(timeout=SWEEP_SECONDS):
            await self._sweep()

    async def close(self) -> None:
        """Finish removals that are under way."""
        self._closing.request(stopping.StopLevel.DRAIN, "the executor closes")
        await self._environments.close()
        await self._jobs.close(REMOVAL_SECONDS)
        if self._sweeping is not None:
            await stopping.settle(self._sweeping)
            await self._sweep(own_too=True)
        if self._lasting is not None:
            await self._lasting.close()

    async def run(
        self,
        plan: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        custody: checkpoint.Custody | None = None,
    ) -> outcome.Outcome:
        """Run one attempt; see `executor.Executor.run`."""
        setting = verdict.Setting(self.isolation, "bubblewrap", "", plan.limits)
        held = _Held()
        its = _Attempt(plan, setting, stop, observer, {}, custody, held)
        try:
            with_way, relay = outbound.prepare(self._way, plan, observer.note)
            its = dataclasses.replace(its, plan=with_way, relay=relay)
            if custody is not None and custody.after is not None:
                ended = await self._again(its, custody)
                if ended is not None:
                    return ended
                self._jobs.start("remove sandbox", self._remove(held, plan))
                held = _Held()
                its = dataclasses.replace(its, custody=checkpoint.Custody(custody.keeper), held=held)
            observer.phase(state.Phase.PREPARING)
            ground = await self._ready()
            return await self._in_capsule(ground, its)
        except stopping.Stopped:
            return verdict.stopped(setting, stop, its.timings)
        except (errors.HiveMindError, ValueError, OSError) as error:
            self._ground = None  # what sandboxes are made of may have changed
            return verdict.failed(setting, error, its.timings)
        finally:
            self._jobs.start("remove sandbox", self._remove(held, plan))

    async def _ready(self) -> probe.Ground:
        if self._ground is None:
            self._ground = await probe.ground(life.current(self._node_id).mark if self._node_id else "")
        return self._ground

    async def _in_capsule(self, ground: probe.Ground, its: _Attempt) -> outcome.Outcome:
        asked, stop, timings, held = its.plan, its.stop, its.timings, its.held
        if asked.gpus:
            raise errors.IsolationMissing("sandboxes give no GPU; this task needs a node with Docker")
        began = clock.now()
        held.slot = self._slots.take()
        held.pair = None if ground.drop_to is None else users.of_slot(held.slot)
        in_memory = "memory" not in ground.groups.enforced or asked.limits.disk_bytes <= asked.limits.memory_bytes // 2
        if not in_memory:
            owner = None if held.pair is None else held.pair.task
            held.workspace = await asyncio.to_thread(workspaces.Workspace.made, self._scratch, owner)
        folder = None if held.workspace is None else held.workspace.folder
        room = launch.Room.of(asked.limits, folder)
        if ground.groups.folders:
            held.group = limits.Group.planned(ground.groups)
            await held.group.make(asked.limits)
        timings["prepare"] = clock.now() - began
        furnishing = ground.furnishing
        if asked.requirements:
            furnishing = await self._environment(ground, its)
        began = clock.now()
        its.observer.phase(state.Phase.STARTING)
        # Never broken off: bubblewrap's child is only bound to its life once the namespaces stand, 4 ms later.
        starting = self._start(ground, furnishing, room, its)
        held.starting = self._jobs.start("start sandbox", starting)
        sandbox = await stop.until(stopping.StopLevel.CANCEL, _result(held.starting))
        if held.group is not None:
            try:
                await held.group.add(sandbox.pid)
            except ProcessLookupError:
                raise errors.CapsuleFault(
                    f"the sandbox ended while it was made: {await sandbox.last_words()}"
                ) from None
        sandbox.go()
        timings["start"] = clock.now() - began
        keep = messages.OnDisconnect.STOP
        if isinstance(sandbox, outliving.Sandbox) and its.custody is not None:
            keep = messages.OnDisconnect.KEEP
            its = dataclasses.replace(
                its,
                custody=checkpoint.Custody(
                    its.custody.keeper, reattaching.token(sandbox, held.workspace, held.group, held.slot)
                ),
            )
        elif its.custody is not None:
            its = dataclasses.replace(its, custody=checkpoint.Custody(its.custody.keeper, reattachable=False))
        spec = capsule_spec.spec_of(asked, {"PATH": furnishing.path}, keep)
        spec = dataclasses.replace(spec, rlimits=rlimits.of(asked.limits, ground.groups))
        return (await self._converse(its, spec, sandbox))[0]

    async def _start(
        self, ground: probe.Ground, furnishing: launch.Furnishing, room: launch.Room, its: _Attempt
    ) -> processes.Sandbox | outliving.Sandbox:
        """One that outlives us where somebody keeps its record, and it can."""
        if self._lasting is None or its.custody is None:
            return await processes.start(
                furnishing, room, ground.machine, bwrap=ground.bwrap, drop_to=ground.drop_to, pair=its.held.pair
            )
        workspace, environment = its.held.workspace, its.held.environment
        locks = [each.lock for each in (workspace, environment) if each is not None]
        return await outliving.start(self._lasting, ground, furnishing, room, locks, its.held.pair)

    async def _again(self, its: _Attempt, custody: checkpoint.Custody) -> outcome.Outcome | None:
        """Go on with a sandbox of an earlier worker; None where the task had not begun."""
        where, held = custody.capsule, its.held
        if self._lasting is None or reattaching.NAME not in where:
            return verdict.crashed(its.setting, "the worker ended while the task ran, and its sandbox with it")
        its.observer.phase(state.Phase.PREPARING)
        its.observer.phase(state.Phase.STARTING)
        groups = json.loads(where[reattaching.GROUPS])
        held.slot = int(where[slots.KEY]) if slots.KEY in where else None
        held.group = limits.Group({name: Path(folder) for name, folder in groups.items()}) if groups else None
        try:
            if folder := where[reattaching.WORKSPACE]:
                held.workspace = await asyncio.to_thread(workspaces.Workspace, Path(folder))
            held.found = sandbox = await outliving.take(
                self._lasting, where[reattaching.NAME], int(where[reattaching.PID])
            )
        except (errors.CapsuleFault, OSError) as error:
            return verdict.crashed(its.setting, f"the worker had ended while the task ran, and meanwhile {error}")
        key = bytes.fromhex(where["resume_key"])
        spec = capsule_spec.spec_of(its.plan, {}, messages.OnDisconnect.KEEP, key)
        ended, not_begun = await self._converse(its, spec, sandbox)
        return None if not_begun else ended

    async def _converse(
        self, its: _Attempt, spec: messages.Spec, sandbox: processes.Sandbox | outliving.Sandbox
    ) -> tuple[outcome.Outcome, bool]:
        """Hold the conversation to its end; also whether it came out that the task had not begun."""
        asked, held = its.plan, its.held
        inner = its.stop.child()
        watch: asyncio.Task[int] | None = None
        if held.workspace is not None:
            told = self._live.measuring((asked.task_id, asked.attempt), held.workspace.size)
            keep = disk_watch.keep(asked.limits.disk_bytes, told, inner)
            watch = asyncio.create_task(keep, name="watch disk")
        run = capsule_run.CapsuleRun(
            pipe=sandbox,
            plan=asked,
            spec=spec,
            store=self._store,
            stop=inner,
            observer=its.observer,
            kill=lambda: sandbox_removal.kill(sandbox, held.group),
            custody=its.custody,
            relay=its.relay,
        )
        group, key = held.group, (asked.task_id, asked.attempt)
        self._live.begin(
            key, asked.limits.memory_bytes, group.read if group is not None else lambda: usage.read(sandbox.pid)
        )
        seen = None
        try:
            heard = await run.run()
        finally:
            seen = self._live.end(key)
            if watch is not None:
                await stopping.settle(watch)
        self._undead.heard(asked, heard.undead)
        heard.over_disk = disk_watch.verdict(watch, inner)
        if heard.fault and sandbox.complaint:
            heard.fault += f" It complained: {sandbox.complaint}"
        counted = (accounts.Reading() if group is None else await asyncio.to_thread(group.read)).at_least(seen)
        ended = await conclusion.conclude(its.setting, asked, heard, its.stop, counted, its.timings, its.custody)
        return ended, heard.not_begun

    async def _environment(self, ground: probe.Ground, its: _Attempt) -> launch.Furnishing:
        began = clock.now()
        ensuring = self._environments.ensure(ground, its.plan.requirements, its.observer.note)
        its.held.environment = await its.stop.until(stopping.StopLevel.CANCEL, ensuring)
        its.timings["environment"] = clock.now() - began
        return its.held.environment.furnish(ground.furnishing)

    @property
    def undead(self) -> tuple[undead.Undead, ...]:
        """Sandboxes that could not be killed yet; see `executor.Executor.undead`."""
        return self._undead.all

    async def _remove(self, held: _Held, run: plan.RunPlan) -> None:
        sandbox: processes.Sandbox | outliving.Sandbox | None = held.found
        if held.starting is not None:
            await asyncio.wait({held.starting})
            if not held.starting.cancelled() and held.starting.exception() is None:
                sandbox = held.starting.result()
        if sandbox is not None:
            await sandbox_removal.end(sandbox, held.group, run, self._undead, self._closing)
            await sandbox.close()
        if held.environment is not None:
            held.environment.release()
        if held.group is not None:
            await held.group.remove()
        if held.workspace is not None:
            await held.workspace.remove()
        self._slots.release(held.slot)

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """What the capsules that run use; see `executor.Executor.usage`."""
        return await self._live.usage()

    async def fitness(self) -> executor.Fitness:
        """Say whether this machine can fence a task without an engine, and what is not in force."""
        try:
            ground = await self._ready()
        except errors.IsolationMissing as error:
            return executor.Fitness(usable=False, isolation=self.isolation, runtime="bubblewrap", why=str(error))
        lacking = await asyncio.to_thread(outliving.missing)
        return executor.Fitness(
            usable=True,
            isolation=self.isolation,
            runtime="bubblewrap",
            defences=sandbox_defences.read(ground.groups, lacking, has_python=bool(ground.python)),
        )

    async def promises(self, plan: plan.RunPlan) -> defence_spec.DefenceSpec | None:
        """What a task with this plan is promised; see `executor.Executor.promises`."""
        ground = await self._ready()
        sizes = {each.resource: each.hard for each in rlimits.of(plan.limits, ground.groups)}
        room = launch.Room.of(plan.limits)
        return promised.promised(ground, plan, room, sizes[resource.RLIMIT_NOFILE], sizes[resource.RLIMIT_FSIZE])


async def _result(
    starting: asyncio.Task[processes.Sandbox | outliving.Sandbox],
) -> processes.Sandbox | outliving.Sandbox:
    return await asyncio.shield(starting)


def _job_failed(name: str, error: BaseException) -> None:
    log.log_system_event("sandbox_job_failed", {"job": name}, level="warning", error=error)
