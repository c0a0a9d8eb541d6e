"""Runs plans in containers: one fresh capsule each, five calls to the engine before the task, none after it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Awaitable, Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

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
    session_result,
    slots,
    undead,
    verdict,
)
from hivemind_worker.runtime.capsule import accounts, defence_spec, messages
from hivemind_worker.runtime.docker import (
    command_records,
    container_removal,
    engine_defences,
    environments,
    hardening,
    images,
    inquest,
    ledger,
    networks,
    own_image,
    preloading,
    program,
    promised,
    pulled,
    pulling,
    sweeper,
    taking_up,
    usage,
    workspaces,
)
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.environments import answers as answering
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.runtime.sandbox import workshop
from hivemind_worker.settings import paths, schema
from hivemind_worker.tasks import outcome, plan, state
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)
T = TypeVar("T")
_Attempt = run_call.RunCall
REMOVAL_SECONDS: Final = 60.0
"""How long `close` waits for removals under way; what is left is removed at the next start, by its label."""

_CONTAINER, _ID, _WORKSPACE, _DIGEST, _SLOT = "container", "id", "workspace", "image_digest", slots.KEY
"""What a keeper is told of a capsule, so that the next process finds it: names, and the image for the report."""


@dataclasses.dataclass(slots=True)
class _Capsule:
    """What one attempt holds at the engine, so that all of it is given back whatever happens."""

    name: str
    made: asyncio.Task[str] | None = None
    workspace: str = ""
    stream: engines.Attached | None = None
    found: bool = False  # made by an earlier process of this node
    id: str = ""
    slot: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Supply:
    """Where packages come from, what was asked before, which images are ours, how they are pulled, the way out.

    ``record``: of a command, which has no node that would come back and tidy. ``access``: which images tasks may run.
    """

    sources: sourcing.Sources = dataclasses.field(default_factory=sourcing.Sources)
    answers: answering.Answers = dataclasses.field(default_factory=answering.Answers)
    ours: ledger.Ledger | None = None
    pulls: pulling.Terms = dataclasses.field(default_factory=pulling.Terms)
    record: command_records.Record | None = None
    way: outbound.Gateway | None = None
    access: pulled.Access = dataclasses.field(default_factory=pulled.Access)


class DockerExecutor:
    """An executor on one container engine. `open` first; one event loop.

    `network` names the engine's network for tasks with egress, where the owner wants that instead of the filter.
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
        self._engine, self._store = engine, store
        self._around = hardening.Surroundings(node_id, boot_id, "", "", runtime=runtime)
        self._jobs = supervision.Jobs("containers", _job_failed)
        supply = supply or Supply()
        self._images = images.Images(
            engine=engine, policy=pull_policy, terms=supply.pulls, ours=supply.ours, access=supply.access
        )
        self._preloader = preloading.TaskPreloader(pulls=self._images, jobs=self._jobs)
        self._program = program.Program(engine=engine, node_id=node_id, boot_id=boot_id)
        self._workspaces = workspaces.Workspaces(engine=engine, jobs=self._jobs, node_id=node_id, boot_id=boot_id)
        self._bridge = networks.Egress(engine=engine, name=network) if network else None
        self._way = supply.way
        self._environments = environments.Environments(
            engine=engine,
            jobs=self._jobs,
            around=self._around,
            sources=supply.sources,
            answers=supply.answers,
            workshop=workshop.Workshop(cache=supply.answers.cache or paths.cache_dir(), sources=supply.sources),
            ours=supply.ours,
        )
        self._numbers, self._slots, self._undead = itertools.count(), slots.Slots(), undead.Registry()
        self._live, self._closing = live.Live(self._jobs), stopping.Stop()
        self._sweeper = sweeper.Sweeper(engine, node_id, boot_id, supply.record)

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

    async def open(self, covered: Collection[Mapping[str, str]] = ()) -> None:
        """Connect, and remove what an earlier life of this node left behind, but what is covered. Raises EngineLost."""
        await self._engine.connect()
        self._slots.reserve_of(covered)
        spared = {capsule.get(what, "") for capsule in covered for what in (_CONTAINER, _WORKSPACE)}
        await self._sweeper.open(spared)

    async def close(self) -> None:
        """Finish removals that are under way and let go of the engine."""
        self._closing.request(stopping.StopLevel.DRAIN, "the executor closes")
        await self._sweeper.settle()
        await self._preloader.close()
        await self._environments.close()
        await self._images.close()
        await self._jobs.close(REMOVAL_SECONDS)
        with contextlib.suppress(errors.NodeFault):  # what stays is removed at the next start
            await self._workspaces.close()
        await self._sweeper.close()
        await self._engine.close()

    async def run(
        self,
        plan: plan.RunPlan,
        stop: stopping.Stop,
        observer: executor.Observer,
        custody: checkpoint.Custody | None = None,
    ) -> outcome.Outcome:
        """Run one attempt; see `executor.Executor.run`."""
        setting = verdict.Setting(self.isolation, self._around.runtime or "default", "", plan.limits)
        its = _Attempt(plan, setting, stop, observer, {}, custody)
        try:
            if self._bridge is None:
                with_way, relay = outbound.prepare(self._way, plan, observer.note)
                its = dataclasses.replace(its, plan=with_way, relay=relay)
            if custody is not None and custody.after is not None:
                ended = await self._again(its, custody)
                if ended is not None:
                    return ended
                its = dataclasses.replace(its, custody=checkpoint.Custody(custody.keeper))
            observer.phase(state.Phase.PREPARING)
            if custody is not None:
                await custody.keeper.accepted()
            ensuring = stop.until(stopping.StopLevel.CANCEL, self._images.ensure(plan.image, observer.note))
            image = await _timed(its.timings, "prepare", ensuring)
            its = dataclasses.replace(its, setting=dataclasses.replace(setting, image_digest=image.digest))
            if plan.requirements:
                making = self._environments.ensure(image, plan.requirements, observer.note)
                image = await _timed(its.timings, "environment", stop.until(stopping.StopLevel.CANCEL, making))
            return await self._in_capsule(its, image)
        except stopping.Stopped:
            return verdict.stopped(its.setting, stop, its.timings)
        except (errors.HiveMindError, ValueError, OSError) as error:
            if isinstance(error, errors.NodeFault):
                self._program.forget()
            return verdict.failed(its.setting, error, its.timings)

    async def _in_capsule(self, its: _Attempt, image: hardening.Image) -> outcome.Outcome:
        asked, stop = its.plan, its.stop
        # Goes on when we are stopped: the container that fills the volume is a lock, which must not stay.
        ensuring = self._jobs.start("ensure program", self._program.ensure(image))
        volume = await stop.until(stopping.StopLevel.CANCEL, _result(ensuring))
        around = dataclasses.replace(self._around, program_volume=volume, capsule_version=volume)
        if asked.network is not plan.Network.NONE and self._bridge is not None:
            around = dataclasses.replace(around, network=await self._bridge.id())
        capsule = _Capsule(hardening.name(around, asked, next(self._numbers)), slot=self._slots.take())
        try:
            if not hardening.workspace_in_memory(asked.limits):
                capsule.workspace = await stop.until(stopping.StopLevel.CANCEL, self._workspaces.take())
                self._workspaces.prepare()
            its.observer.phase(state.Phase.STARTING)
            body = hardening.body(around, asked, image, capsule.workspace, capsule.slot or 0)
            container = await stop.until(stopping.StopLevel.CANCEL, self._start(its, image, capsule, body))
            if its.custody is not None:
                where = {_CONTAINER: capsule.name, _ID: container, _WORKSPACE: capsule.workspace, _DIGEST: image.digest}
                custody = checkpoint.Custody(its.custody.keeper, {**where, _SLOT: str(capsule.slot)})
                its = dataclasses.replace(its, custody=custody)
            spec = capsule_spec.spec_of(asked, image.environment, messages.OnDisconnect.KEEP)
            return (await self._converse(its, spec, capsule, container))[0]
        finally:
            self._jobs.start(f"remove {capsule.name}", self._remove(capsule, asked))

    async def _again(self, its: _Attempt, custody: checkpoint.Custody) -> outcome.Outcome | None:
        """Go on with a capsule of an earlier process; None, with the capsule gone, where the task had not begun."""
        if not custody.capsule.get(_ID):  # of another driver: the engine has nothing to say of it
            return verdict.crashed(its.setting, "the worker ended while the task ran, and its capsule was no container")
        where = {_CONTAINER: "", _ID: "", _WORKSPACE: "", _DIGEST: "", _SLOT: "0", "resume_key": "", **custody.capsule}
        its = dataclasses.replace(its, setting=dataclasses.replace(its.setting, image_digest=where[_DIGEST]))
        known = bool(where[_CONTAINER])
        capsule = _Capsule(where[_CONTAINER], None, where[_WORKSPACE], None, known, where[_ID], int(where[_SLOT]))
        try:
            its.observer.phase(state.Phase.PREPARING)
            its.observer.phase(state.Phase.STARTING)
            found = await taking_up.attach(self._engine, where[_ID], its.stop)
            if found.stream is None:
                why = f"the worker had ended while the task ran, and meanwhile {found.why}"
                return verdict.crashed(its.setting, why)
            capsule.stream = found.stream
            key = bytes.fromhex(where["resume_key"])
            spec = capsule_spec.spec_of(its.plan, {}, messages.OnDisconnect.KEEP, key)
            ended, not_begun = await self._converse(its, spec, capsule, where[_ID])
            return None if not_begun else ended
        finally:
            self._jobs.start(f"remove {capsule.name}", self._remove(capsule, its.plan))

    async def _start(self, its: _Attempt, image: hardening.Image, capsule: _Capsule, body: Mapping[str, Any]) -> str:
        # The creation goes on when we are cancelled: only a container whose creation has ended can be removed for sure.
        is_own = its.plan.image == own_image.REFERENCE
        creating = self._engine.create(capsule.name, body, image, is_own=is_own)
        capsule.made = self._jobs.start(f"create {capsule.name}", creating)
        container = capsule.id = await _timed(its.timings, "create", asyncio.shield(capsule.made))
        capsule.stream = await _timed(its.timings, "attach", self._engine.attach(container))
        await _timed(its.timings, "start", self._engine.start(container))
        return container

    async def _converse(
        self, its: _Attempt, spec: messages.Spec, capsule: _Capsule, container: str
    ) -> tuple[outcome.Outcome, bool]:
        """Hold the conversation to its end; also whether it came out that the task had not begun."""
        asked, custody = its.plan, its.custody
        inner = its.stop.child()
        watch: asyncio.Task[int] | None = None
        if volume := capsule.workspace:
            told = self._live.measuring((asked.task_id, asked.attempt), lambda: self._workspaces.size(volume))
            keep = disk_watch.keep(asked.limits.disk_bytes, told, inner)
            watch = asyncio.create_task(keep, name="watch disk")

        def conversation(custody: checkpoint.Custody | None) -> capsule_run.CapsuleRun:
            assert capsule.stream is not None
            return capsule_run.CapsuleRun(
                pipe=capsule.stream,
                plan=asked,
                spec=spec,
                store=self._store,
                stop=inner,
                observer=its.observer,
                kill=lambda: container_removal.kill(self._engine, container),
                custody=custody,
                relay=its.relay,
            )

        key = (asked.task_id, asked.attempt)
        ask = functools.partial(usage.ask, self._engine, container)
        self._live.begin(key, asked.limits.memory_bytes, lambda: usage.read(container), ask)
        seen = None
        try:
            run = conversation(custody)
            heard = await run.run()
            while custody is not None and run.reached is not None and heard.cut and not heard.stopped:
                if not await self._enter_again(capsule, container, inner, heard):
                    break
                began = run.began if custody.after is None else None  # an earlier process knew it, and wrote it down
                run = conversation(dataclasses.replace(custody, after=run.reached, began=began))
                heard = await run.run()
        finally:
            seen = self._live.end(key)
            if watch is not None:
                await stopping.settle(watch)
        self._undead.heard(asked, heard.undead)
        heard.over_disk = disk_watch.verdict(watch, inner)
        if inquest.is_unexplained(heard):
            await inquest.ask_why(self._engine, container, heard)
        assert capsule.stream is not None
        if heard.fault and capsule.stream.complaint:
            heard.fault += f" It complained: {capsule.stream.complaint.decode(errors='replace')}"
        counted = (await inquest.count(self._engine, container, heard)).at_least(seen)
        if counted.memory_kills is None and inquest.suspicious(heard):
            killed = await usage.killed_for_memory(self._engine, container)
            counted = dataclasses.replace(counted, memory_kills=int(killed))
        ended = await conclusion.conclude(its.setting, asked, heard, its.stop, counted, its.timings, custody)
        if heard.exited is not None and not heard.fault:
            with contextlib.suppress(errors.NodeFault):  # it is removed by force anyway
                await capsule.stream.write(run.goodbye())
        return ended, heard.not_begun

    async def _enter_again(
        self, capsule: _Capsule, container: str, stop: stopping.Stop, heard: session_result.SessionResult
    ) -> bool:
        """After a stream that ended before its time: have another one, if the capsule still runs; else say why not."""
        log.log_system_event("capsule_cut_off", {"container": capsule.name, "why": heard.fault}, level="warning")
        try:
            found = await taking_up.attach(self._engine, container, stop)
        except stopping.Stopped:
            heard.stopped = True
            return False
        if found.stream is None:
            # What ended with the engine has not ended by itself.
            heard.lost = found.away or heard.lost
            heard.fault = f"{heard.fault}; then {found.why}"
            return False
        if capsule.stream is not None:
            await capsule.stream.close()
        capsule.stream = found.stream
        return True

    async def usage(self) -> Mapping[tuple[str, int], accounts.Usage]:
        """What the capsules that run use; see `executor.Executor.usage`."""
        return await self._live.usage()

    @property
    def undead(self) -> tuple[undead.Undead, ...]:
        """See `executor.Executor.undead`."""
        return self._undead.all

    async def _remove(self, capsule: _Capsule, run: plan.RunPlan) -> None:
        if capsule.stream is not None:
            await capsule.stream.close()
        if capsule.made is not None:
            await asyncio.wait({capsule.made})

        async def remove_all() -> None:
            if capsule.made is not None or capsule.found:
                await self._engine.remove(capsule.name)
            if capsule.workspace:
                await self._workspaces.give_back(capsule.workspace)

        await container_removal.remove(capsule.id, remove_all, run, self._undead, self._closing)
        self._slots.release(capsule.slot)

    async def fitness(self) -> executor.Fitness:
        """Ask the engine what it is and which of our defences it has."""
        return await engine_defences.fitness(self._engine, self._around.runtime, self._engine.inspector.differences)

    async def promises(self, plan: plan.RunPlan) -> defence_spec.DefenceSpec | None:
        """What a task with this plan is promised; see `executor.Executor.promises`."""
        return await promised.promised(self._engine, self._around, plan)


async def _result(job: asyncio.Task[T]) -> T:
    return await asyncio.shield(job)


async def _timed(timings: dict[str, float], step: str, work: Awaitable[T]) -> T:
    began = clock.now()
    result = await work
    timings[step] = clock.now() - began
    return result


def _job_failed(name: str, error: BaseException) -> None:
    log.log_system_event("container_job_failed", {"job": name}, level="warning", error=error)
