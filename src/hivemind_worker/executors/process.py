"""Runs plans in bubblewrap sandboxes, without any container engine; the same capsule, the same conversation."""

from __future__ import annotations

import asyncio
import dataclasses
import resource
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from hivemind_worker.artifacts import store as stores
from hivemind_worker.capsule import accounts, messages
from hivemind_worker.concurrency import clock, stopping, supervision
from hivemind_worker.executors import capsule_run, checkpoint, disk_watch, executor, live, verdict
from hivemind_worker.sandbox import environments, launch, limits, probe, usage, workspaces
from hivemind_worker.sandbox import process as processes
from hivemind_worker.settings import paths
from hivemind_worker.supplies import answers as answering
from hivemind_worker.supplies import sources as sourcing
from hivemind_worker.task import errors, outcome, plan, state
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

MIB: Final = 1024 * 1024
REMOVAL_SECONDS: Final = 60.0
_FILES: Final = 1024
_SCRATCH: Final = 64 * MIB
_UNLIMITED: Final = 2**64 - 1


@dataclasses.dataclass(slots=True)
class _Held:
    """What one attempt holds of this machine."""

    workspace: workspaces.Workspace | None = None
    group: limits.Group | None = None
    starting: asyncio.Task[processes.Sandbox] | None = None
    environment: environments.Environment | None = None


class ProcessExecutor:
    """An executor on this machine's own kernel. `open` first; one event loop.

    `scratch`: a folder on a disk, reachable for everyone, for workspaces too large for memory; `cache`: another, for
    environments, which outlive us.
    """

    def __init__(
        self,
        *,
        store: stores.Store,
        scratch: Path = Path("/var/tmp"),  # noqa: S108 - see `workspaces`
        cache: Path | None = None,
        sources: sourcing.Sources | None = None,
    ) -> None:
        self._store = store
        self._scratch = scratch
        self._ground: probe.Ground | None = None
        self._jobs = supervision.Jobs("sandboxes", _job_failed)
        self._live = live.Live(self._jobs)
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

    async def open(self, covered: Collection[Mapping[str, str]] = ()) -> None:  # noqa: ARG002  (no sandbox outlives us)
        """Make one sandbox, to be sure, and remove what a dead worker left. Raises IsolationMissing."""
        self._ground = await probe.ground()
        await asyncio.to_thread(limits.sweep, self._ground.groups)
        await workspaces.sweep(self._scratch, self._ground.drop_to)
        await asyncio.to_thread(environments.sweep, self._cache)

    async def close(self) -> None:
        """Finish removals that are under way."""
        await self._environments.close()
        await self._jobs.close(REMOVAL_SECONDS)

    async def run(
        self,
        plan: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        custody: checkpoint.Custody | None = None,
    ) -> outcome.Outcome:
        """Run one attempt; see `executor.Executor.run`."""
        setting = verdict.Setting(self.isolation, "bubblewrap", "", plan.limits)
        timings: dict[str, float] = {}
        if custody is not None and custody.after is not None:
            return verdict.crashed(setting, "the worker ended while the task ran, and its sandbox with it")
        held = _Held()
        try:
            observer.phase(state.Phase.PREPARING)
            ground = await self._ready()
            return await self._in_capsule(ground, plan, setting, stop, observer, timings, held)
        except stopping.Stopped:
            return verdict.stopped(setting, stop, timings)
        except (errors.HiveMindError, ValueError, OSError) as error:
            return verdict.failed(setting, error, timings)
        finally:
            self._jobs.start("remove sandbox", _remove(held))

    async def _ready(self) -> probe.Ground:
        if self._ground is None:
            await self.open()
        assert self._ground is not None
        return self._ground

    async def _in_capsule(
        self,
        ground: probe.Ground,
        asked: plan.RunPlan,
        setting: verdict.Setting,
        stop: stopping.Stop,
        observer: executor.Observer,
        timings: dict[str, float],
        held: _Held,
    ) -> outcome.Outcome:
        if asked.network is not plan.Network.NONE or asked.gpus:
            raise errors.IsolationMissing("sandboxes give no network and no GPU; this task needs a node with Docker")
        began = clock.now()
        in_memory = "memory" not in ground.groups.enforced or asked.limits.disk_bytes <= asked.limits.memory_bytes // 2
        if not in_memory:
            held.workspace = await asyncio.to_thread(workspaces.Workspace, self._scratch, ground.drop_to)
        scratch = max(MIB, min(_SCRATCH, asked.limits.memory_bytes // 4, asked.limits.disk_bytes))
        folder = None if held.workspace is None else held.workspace.folder
        room = launch.Room(asked.limits.disk_bytes, scratch, folder)
        if ground.groups.folders:
            held.group = limits.Group(ground.groups, asked.limits)
        timings["prepare"] = clock.now() - began
        furnishing = ground.furnishing
        if asked.requirements:
            furnishing = await self._environment(ground, asked, stop, observer, timings, held)
        began = clock.now()
        observer.phase(state.Phase.STARTING)
        # Never broken off: bubblewrap's child is only bound to its life once the namespaces stand, 4 ms later.
        starting = processes.start(furnishing, room, ground.machine, bwrap=ground.bwrap, drop_to=ground.drop_to)
        held.starting = self._jobs.start("start sandbox", starting)
        sandbox = await stop.until(stopping.StopLevel.CANCEL, _result(held.starting))
        if held.group is not None:
            try:
                held.group.add(sandbox.pid)
            except ProcessLookupError:
                raise errors.CapsuleFault(
                    f"the sandbox ended while it was made: {await sandbox.last_words()}"
                ) from None
        sandbox.go()
        timings["start"] = clock.now() - began
        inner = stop.child()
        watch: asyncio.Task[int] | None = None
        if held.workspace is not None:
            told = self._live.measuring((asked.task_id, asked.attempt), held.workspace.size)
            keep = disk_watch.keep(asked.limits.disk_bytes, told, inner)
            watch = asyncio.create_task(keep, name="watch disk")
        spec = capsule_run.spec_of(asked, {"PATH": furnishing.path}, messages.OnDisconnect.STOP)
        run = capsule_run.CapsuleRun(
            pipe=sandbox,
            plan=asked,
            spec=dataclasses.replace(spec, rlimits=_rlimits(asked.limits, ground.groups)),
            store=self._store,
            stop=inner,
            observer=observer,
            kill=sandbox.kill,
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
        heard.over_disk = disk_watch.verdict(watch, inner)
        if heard.fault and sandbox.complaint:
            heard.fault += f" It complained: {sandbox.complaint}"
        counted = (accounts.Reading() if group is None else group.read()).at_least(seen)
        return verdict.judge(setting, heard, stop, counted, timings)

    async def _environment(
        self,
        ground: probe.Ground,
        asked: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        timings: dict[str, float],
        held: _Held,
    ) -> launch.Furnishing:
        began = clock.now()
        ensuring = self._environments.ensure(ground, asked.requirements, observer.note)
        held.environment = await stop.until(stopping.StopLevel.CANCEL, ensuring)
        timings["environment"] = clock.now() - began
        return held.environment.furnish(ground.furnishing)

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """What the capsules that run use; see `executor.Executor.usage`."""
        return await self._live.usage()

    async def fitness(self) -> executor.Fitness:
        """Say whether this machine can fence a task without an engine, and what is not in force."""
        try:
            ground = await self._ready()
        except errors.IsolationMissing as error:
            return executor.Fitness(usable=False, isolation=self.isolation, runtime="bubblewrap", why=str(error))
        groups = ground.groups

        def limited(what: str, controller: str, instead: str) -> executor.Defence:
            if controller in groups.enforced:
                return executor.Defence(what, in_force=True)
            return executor.Defence(what, in_force=False, why=f"{groups.why_not}; {instead}",
                                    fix="run the worker as a service with Delegate=yes, or use Docker")  # fmt: skip

        no_python = "" if ground.python else "no python3 in /usr, and the worker's own is not readable for tasks"
        return executor.Fitness(
            usable=True,
            isolation=self.isolation,
            runtime="bubblewrap",
            defences=(
                executor.Defence("namespaces and system call filter", in_force=True),
                limited("memory limit", "memory", "each process alone is limited instead (RLIMIT_DATA)"),
                limited("process limit", "pids", "limited per user instead (RLIMIT_NPROC)"),
                limited("processor quota", "cpu", "tasks share all processors"),
                executor.Defence("python3 for tasks", bool(ground.python), no_python,
                                 "install the distribution's python3" if no_python else ""),
            ),
        )  # fmt: skip


def _rlimits(asked: outcome.Limits, groups: limits.Parents) -> tuple[messages.ResourceLimit, ...]:
    """Limits per process; those of control groups that are missing are made up for as far as it goes."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    size = asked.disk_bytes + MIB
    found = [
        messages.ResourceLimit(resource.RLIMIT_NOFILE, files, files),
        messages.ResourceLimit(resource.RLIMIT_CORE, 0, 0),
        messages.ResourceLimit(resource.RLIMIT_FSIZE, size, size),
    ]
    if "memory" not in groups.enforced:
        found.append(messages.ResourceLimit(resource.RLIMIT_DATA, asked.memory_bytes, asked.memory_bytes))
    if "pids" not in groups.enforced:
        found.append(messages.ResourceLimit(resource.RLIMIT_NPROC, asked.pids, asked.pids))
    return tuple(found)


async def _result(starting: asyncio.Task[processes.Sandbox]) -> processes.Sandbox:
    return await asyncio.shield(starting)


async def _remove(held: _Held) -> None:
    if held.starting is not None:
        await asyncio.wait({held.starting})
        if not held.starting.cancelled() and held.starting.exception() is None:
            await held.starting.result().close()
    if held.environment is not None:
        held.environment.release()
    if held.group is not None:
        await asyncio.to_thread(held.group.remove)
    if held.workspace is not None:
        await held.workspace.remove()


def _job_failed(name: str, error: BaseException) -> None:
    log.log_system_event("sandbox_job_failed", {"job": name}, level="warning", error=error)
