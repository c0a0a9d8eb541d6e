"""Runs plans in containers: one fresh capsule each, four calls to the engine before the task, none after it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final, TypeVar

from hivemind_worker.artifacts import store as stores
from hivemind_worker.capsule import accounts, messages
from hivemind_worker.concurrency import clock, stopping, supervision
from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import (
    environments,
    hardening,
    images,
    ledger,
    leftovers,
    networks,
    preloading,
    program,
    pulling,
    usage,
    workspaces,
)
from hivemind_worker.executors import capsule_run, disk_watch, executor, live, verdict
from hivemind_worker.settings import schema
from hivemind_worker.supplies import answers as answering
from hivemind_worker.supplies import sources as sourcing
from hivemind_worker.task import errors, outcome, plan, state
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)
T = TypeVar("T")

REMOVAL_SECONDS: Final = 60.0
"""How long `close` waits for removals under way; what is left is removed at the next start, by its label."""

_REMOVAL_PAUSES: Final = (0.5, 2.0, 10.0)  # seconds between tries while the engine does not answer


@dataclasses.dataclass(slots=True)
class _Capsule:
    """What one attempt holds at the engine, so that all of it is given back whatever happens."""

    name: str
    made: asyncio.Task[str] | None = None
    workspace: str = ""
    stream: engines.Attached | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Supply:
    """Where packages come from, what was asked before, which images are ours, how images are pulled."""

    sources: sourcing.Sources = dataclasses.field(default_factory=sourcing.Sources)
    answers: answering.Answers = dataclasses.field(default_factory=answering.Answers)
    ours: ledger.Ledger | None = None
    pulls: pulling.Terms = dataclasses.field(default_factory=pulling.Terms)


class DockerExecutor:
    """An executor on one container engine. `open` first; one event loop.

    `network` names the engine's network for tasks with egress, and is empty where the owner allows none.
    """

    def __init__(
        self,
        *,
        engine: engines.Engine,
        store: stores.Store,
        node_id: str,
        boot_id: str,
        network: str = "",
        runtime: str = "",
        pull_policy: schema.PullPolicy = schema.PullPolicy.IF_MISSING,
        supply: Supply | None = None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._around = hardening.Surroundings(node_id, boot_id, "", "", runtime=runtime)
        self._jobs = supervision.Jobs("containers", _job_failed)
        supply = supply or Supply()
        self._images = images.Images(engine=engine, policy=pull_policy, terms=supply.pulls, ours=supply.ours)
        self._preloader = preloading.TaskPreloader(pulls=self._images, jobs=self._jobs)
        self._program = program.Program(engine=engine, node_id=node_id, boot_id=boot_id)
        self._workspaces = workspaces.Workspaces(engine=engine, jobs=self._jobs, node_id=node_id, boot_id=boot_id)
        self._egress = networks.Egress(engine=engine, name=network)
        self._environments = environments.Environments(
            engine=engine,
            jobs=self._jobs,
            around=self._around,
            sources=supply.sources,
            answers=supply.answers,
            ours=supply.ours,
        )
        self._numbers = itertools.count()
        self._live = live.Live(self._jobs)

    @property
    def isolation(self) -> str:
        """What fences a task here."""
        return "docker"

    @property
    def images(self) -> tuple[str, ...]:
        """References of the images that tasks have used here."""
        return self._images.present

    def preload(self, references: Iterable[str]) -> None:
        """Have these images ready before a task asks for them; see `executor.Executor.preload`."""
        self._preloader.preload(references)

    async def open(self) -> None:
        """Connect, and remove what an earlier life of this node left behind. Raises EngineLost."""
        await self._engine.connect()
        await leftovers.remove(self._engine, self._around.node_id, boot_id=self._around.boot_id)

    async def close(self) -> None:
        """Finish removals that are under way and let go of the engine."""
        await self._preloader.close()
        await self._environments.close()
        await self._images.close()
        await self._jobs.close(REMOVAL_SECONDS)
        with contextlib.suppress(errors.NodeFault):  # what stays is removed at the next start
            await self._workspaces.close()
        await self._engine.close()

    async def run(self, plan: plan.RunPlan, stop: stopping.Stop, observer: executor.Observer) -> outcome.Outcome:
        """Run one attempt; see `executor.Executor.run`."""
        setting = verdict.Setting(self.isolation, self._around.runtime or "default", "", plan.limits)
        timings: dict[str, float] = {}
        began = clock.now()
        try:
            observer.phase(state.Phase.PREPARING)
            image = await stop.until(stopping.StopLevel.CANCEL, self._images.ensure(plan.image, observer.note))
            setting = dataclasses.replace(setting, image_digest=image.digest)
            timings["prepare"] = clock.now() - began
            if plan.requirements:
                making = self._environments.ensure(image, plan.requirements, observer.note)
                image = await _timed(timings, "environment", stop.until(stopping.StopLevel.CANCEL, making))
            return await self._in_capsule(plan, image, setting, stop, observer, timings)
        except stopping.Stopped:
            return verdict.stopped(setting, stop, timings)
        except (errors.HiveMindError, ValueError, OSError) as error:
            if isinstance(error, errors.NodeFault):
                self._program.forget()
            return verdict.failed(setting, error, timings)

    async def _in_capsule(
        self,
        asked: plan.RunPlan,
        image: hardening.Image,
        setting: verdict.Setting,
        stop: stopping.Stop,
        observer: executor.Observer,
        timings: dict[str, float],
    ) -> outcome.Outcome:
        # Goes on when we are stopped: the container that fills the volume is a lock, which must not stay.
        ensuring = self._jobs.start("ensure program", self._program.ensure(image))
        volume = await stop.until(stopping.StopLevel.CANCEL, _result(ensuring))
        around = dataclasses.replace(self._around, program_volume=volume, capsule_version=volume)
        if asked.network is not plan.Network.NONE:
            around = dataclasses.replace(around, network=await self._egress.id())
        capsule = _Capsule(hardening.name(around, asked, next(self._numbers)))
        try:
            if not hardening.workspace_in_memory(asked.limits):
                capsule.workspace = await stop.until(stopping.StopLevel.CANCEL, self._workspaces.take(image))
                self._workspaces.prepare(image)
            observer.phase(state.Phase.STARTING)
            body = hardening.body(around, asked, image, capsule.workspace)
            container = await stop.until(stopping.StopLevel.CANCEL, self._start(capsule, body, timings))
            return await self._converse(asked, image, setting, stop, observer, timings, capsule, container)
        finally:
            self._jobs.start(f"remove {capsule.name}", self._remove(capsule))

    async def _start(self, capsule: _Capsule, body: Mapping[str, Any], timings: dict[str, float]) -> str:
        # The creation goes on when we are cancelled: only a container whose creation has ended can be removed for sure.
        capsule.made = self._jobs.start(f"create {capsule.name}", self._engine.create(capsule.name, body))
        container = await _timed(timings, "create", asyncio.shield(capsule.made))
        capsule.stream = await _timed(timings, "attach", self._engine.attach(container))
        await _timed(timings, "start", self._engine.start(container))
        return container

    async def _converse(
        self,
        asked: plan.RunPlan,
        image: hardening.Image,
        setting: verdict.Setting,
        stop: stopping.Stop,
        observer: executor.Observer,
        timings: dict[str, float],
        capsule: _Capsule,
        container: str,
    ) -> outcome.Outcome:
        assert capsule.stream is not None  # `_start` has set it
        inner = stop.child()
        watch: asyncio.Task[int] | None = None
        if volume := capsule.workspace:
            told = self._live.measuring((asked.task_id, asked.attempt), lambda: self._workspaces.size(volume))
            keep = disk_watch.keep(asked.limits.disk_bytes, told, inner)
            watch = asyncio.create_task(keep, name="watch disk")
        run = capsule_run.CapsuleRun(
            pipe=capsule.stream,
            plan=asked,
            spec=capsule_run.spec_of(asked, image.environment, messages.OnDisconnect.KEEP),
            store=self._store,
            stop=inner,
            observer=observer,
            kill=lambda: self._engine.kill(container),
        )
        key = (asked.task_id, asked.attempt)
        self._live.begin(key, asked.limits.memory_bytes, lambda: usage.read(container), lambda: self._ask(container))
        seen = None
        try:
            heard = await run.run()
        finally:
            seen = self._live.end(key)
            if watch is not None:
                await stopping.settle(watch)
        heard.over_disk = disk_watch.verdict(watch, inner)
        if heard.exited is None and not heard.stopped and not heard.lost:
            await self._ask_why(container, heard)
        if heard.fault and capsule.stream.complaint:
            heard.fault += f" It complained: {capsule.stream.complaint.decode(errors='replace')}"
        counted = (await self._count(container, heard)).at_least(seen)
        if heard.exited is not None and not heard.fault:
            with contextlib.suppress(errors.NodeFault):  # it is removed by force anyway
                await capsule.stream.write(run.goodbye())
        if counted.memory_kills is None and _suspicious(heard):
            killed = await usage.killed_for_memory(self._engine, container)
            counted = dataclasses.replace(counted, memory_kills=int(killed))
        return verdict.judge(setting, heard, stop, counted, timings)

    async def _ask_why(self, container: str, heard: capsule_run.Heard) -> None:
        """A stream that ends early looks the same whether engine, container or only the capsule's word is gone."""
        try:
            known = (await self._engine.inspect(container)).get("State") or {}
            heard.fault += f"; the engine says: {known.get('Status')} {known.get('Error') or ''}".rstrip()
        except engines.NotThere:
            heard.fault += "; someone has removed its container"
        except errors.NodeFault as error:
            heard.lost = True
            heard.fault = str(error)

    async def _ask(self, container: str) -> accounts.Reading | None:
        return await usage.ask(self._engine, container)

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """What the capsules that run use; see `executor.Executor.usage`."""
        return await self._live.usage()

    async def _count(self, container: str, heard: capsule_run.Heard) -> accounts.Reading:
        found = usage.read(container)
        if found is None and heard.exited is not None:
            found = await usage.ask(self._engine, container)
        return found or accounts.Reading()

    async def _remove(self, capsule: _Capsule) -> None:
        if capsule.stream is not None:
            await capsule.stream.close()
        if capsule.made is not None:
            await asyncio.wait({capsule.made})
        for pause in (*_REMOVAL_PAUSES, None):
            try:
                if capsule.made is not None:
                    await self._engine.remove(capsule.name)
                if capsule.workspace:
                    await self._workspaces.give_back(capsule.workspace)
            except errors.NodeFault:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def fitness(self) -> executor.Fitness:
        """Ask the engine what it is and which of our defences it has."""
        try:
            version = await self._engine.connect()
            info = await self._engine.info()
        except errors.NodeFault as error:
            return executor.Fitness(usable=False, isolation=self.isolation, runtime="", why=str(error))
        runtime = self._around.runtime or str(info.get("DefaultRuntime", ""))
        known = runtime in (info.get("Runtimes") or {runtime: None})
        return executor.Fitness(
            usable=known,
            isolation=self.isolation,
            runtime=f"Docker {version.get('Version', '?')} ({runtime})",
            why="" if known else f"the engine has no runtime {runtime}; set docker_runtime to one it has",
            defences=_defences(info),
        )


def _defences(info: Mapping[str, Any]) -> tuple[executor.Defence, ...]:
    options = " ".join(info.get("SecurityOptions") or ())

    def line(check: str, in_force: bool, why: str, fix: str) -> executor.Defence:  # noqa: FBT001 - a row of a table
        return executor.Defence(check, in_force, "" if in_force else why, "" if in_force else fix)

    kernel = "use a kernel with this controller, or one where it is not switched off at boot"
    return (
        line("memory limit", bool(info.get("MemoryLimit")), "the engine cannot limit memory", kernel),
        line("no swap", bool(info.get("SwapLimit")), "the engine cannot limit swap", "boot with swapaccount=1"),
        line("processor quota", bool(info.get("CpuCfsQuota")), "the engine cannot limit processors", kernel),
        line("process limit", bool(info.get("PidsLimit")), "the engine cannot limit processes", kernel),
        line("system call filter", "seccomp" in options, "the engine was built without seccomp", "use another build"),
        line("mandatory access control", "apparmor" in options or "selinux" in options, "no AppArmor or SELinux",
             "optional second layer: switch one on"),
        line("user namespace", "userns" in options or "rootless" in options, "container uids are the host's own",
             "optional second layer: set userns-remap in the engine's daemon.json"),
    )  # fmt: skip


def _suspicious(heard: capsule_run.Heard) -> bool:
    """Whether the engine must be asked about memory: the task, or the capsule itself, was killed by someone."""
    if heard.stopped:
        return False
    exited = heard.exited
    return exited is None or (exited.why is messages.Why.OWN and exited.status != 0)


async def _result(job: asyncio.Task[T]) -> T:
    return await asyncio.shield(job)


async def _timed(timings: dict[str, float], step: str, work: Awaitable[T]) -> T:
    began = clock.now()
    result = await work
    timings[step] = clock.now() - began
    return result


def _job_failed(name: str, error: BaseException) -> None:
    log.log_system_event("container_job_failed", {"job": name}, level="warning", error=error)
