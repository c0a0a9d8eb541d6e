"""The only file that names concrete classes: settings in, working parts out.

Rooms that cost time to import are imported by the function that needs them: a command that only asks a pool shall not
wait for the container library.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import hivemind_worker
from hivemind_worker import errors
from hivemind_worker.settings import node_identity, schema, state_lock
from hivemind_worker.telemetry import tracing

if TYPE_CHECKING:
    from hivemind_worker.artifacts import store as stores
    from hivemind_worker.client import asynchronous
    from hivemind_worker.pool import server
    from hivemind_worker.runtime import executor
    from hivemind_worker.tasks import resources
    from hivemind_worker.web import hosts, serving
    from hivemind_worker.worker import worker_node
    from hivemind_worker.worker.housekeeping import place, sweep
    from hivemind_worker.worker.machine import monitor

CLIENT_PATIENCE = 3.0
"""Seconds for which a command tries a pool that does not answer: a person waits."""

IMAGES_FOLDER = "images"
"""Where in the cache folder it stands which images we fetched and made, and when each was used last."""

LOG_NAMES = ("worker", "pool", "up")
"""The names that the services log under, each a file in the log folder."""

Note = Callable[[str], None]
Progress = Callable[[str, int, int], None]
Taker = Callable[[schema.Settings], None]
"""Takes over settings while it runs: those marked as live; the others are what they were."""


def build_client(settings: schema.Settings, progress: Progress | None = None) -> asynchronous.AsyncClient:
    """Return a client of the pool that the settings name; ``progress`` is told of files on their way."""
    from hivemind_worker.client import asynchronous  # noqa: PLC0415  (slow to import)

    return asynchronous.AsyncClient(
        settings.node.node_pool_address,
        tls_ca_file=settings.security.tls_ca_file,
        insecure=settings.security.insecure,
        patience=CLIENT_PATIENCE,
        progress=progress,
        traceparent=os.environ.get(tracing.VARIABLE, ""),
    )


def worker_door(
    settings: schema.Settings, worker: worker_node.WorkerNode
) -> AbstractAsyncContextManager[serving.Door | None]:
    """Return the block within which a worker answers over HTTP and shows its window, as the settings say.

    Entering it raises BadSettings; it is given the door, None where there is none.
    """
    its = settings.monitoring
    if not its.http_enabled:
        return nullcontext()
    from hivemind_worker.web import (  # noqa: PLC0415  (slow to import)
        endpoints,
        finding,
    )
    from hivemind_worker.web.dashboard import app as window  # noqa: PLC0415  (slow to import)

    shown = window.routes(worker.snapshot, worker.health, hivemind_worker.__version__)
    return _door(settings, endpoints.app(worker.health, worker.metrics, shown), its.http_listen, finding.WORKER)


def pool_door(settings: schema.Settings, pool: server.NodePool) -> AbstractAsyncContextManager[serving.Door | None]:
    """Return the same for a pool, which has no window."""
    if not settings.pool.http_enabled:
        return nullcontext()
    from hivemind_worker.web import (  # noqa: PLC0415  (slow to import)
        endpoints,
        finding,
    )

    return _door(settings, endpoints.app(pool.health, pool.metrics), settings.pool.http_listen, finding.POOL)


def _door(settings: schema.Settings, app: hosts.App, listen: str, note: str) -> serving.Door:
    from hivemind_worker.web import serving  # noqa: PLC0415  (slow to import)

    return serving.Door(app, listen, note=settings.storage.state_dir / note, hosts_too=settings.monitoring.http_hosts)


def build_pool(settings: schema.Settings, takers: list[Taker] | None = None) -> server.NodePool:
    """Return a Node Pool, ready to ``start``; ``takers`` as for :func:`build_worker`."""
    from hivemind_worker.pool import server  # noqa: PLC0415  (slow to import)

    its, private = settings.pool, settings.security
    tls = None
    if private.tls_cert_file is not None and private.tls_key_file is not None:
        tls = server.Tls(private.tls_cert_file, private.tls_key_file)
    pool = server.NodePool(
        settings.storage.state_dir,
        its.listen,
        store_path=settings.pool_store,
        artifact_folder=settings.pool_artifact_dir,
        lease_seconds=its.lease_seconds,
        max_attempts=its.max_attempts,
        artifact_limit_bytes=its.artifact_limit_bytes,
        scrub_bytes_per_second=settings.storage.scrub_bytes_per_second,
        min_free_bytes=its.min_free_bytes,
        tls=tls,
        insecure=private.insecure,
        with_reflection=its.reflection,
        preload_images=its.preload_images,
    )
    if takers is not None:
        takers.append(lambda now: pool.adopt(now.pool.max_attempts, now.pool.preload_images))
    return pool


async def build_worker(
    settings: schema.Settings,
    note: Note,
    around: Callable[[executor.Executor], executor.Executor] | None = None,
    *,
    measured: bool = True,
    takers: list[Taker] | None = None,
    lock: state_lock.StateLock | None = None,
) -> worker_node.WorkerNode:
    """Return a worker node, ready to ``run``; ``note`` is told what fences its tasks where that needs a word.

    ``around`` may put something around the executor, to listen to it. Unless ``measured`` its heartbeats say nothing of
    how the machine is doing. ``lock``: of the state folder. ``takers`` is given what takes over settings as it runs.
    Raises :class:`errors.IsolationMissing` where nothing can, :class:`errors.BadSettings`.
    """
    from hivemind_worker.artifacts import outbox  # noqa: PLC0415  (slow to import)
    from hivemind_worker.artifacts import store as stores  # noqa: PLC0415  (slow to import)
    from hivemind_worker.runtime import former_driver, node_check  # noqa: PLC0415  (slow to import)
    from hivemind_worker.runtime.egress import setup  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker import worker_node  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker.journal import writer  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker.machine import capacity  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker.pool_link import channel, client  # noqa: PLC0415  (slow to import)

    node_id = node_identity.keep(settings.storage.state_dir, settings.node.node_id)
    files = stores.Store(settings.storage.work_dir)
    watched = _monitor(settings) if measured else None
    devices = watched.gpu_ids() if watched is not None else ()
    there = capacity.measure(settings.storage.work_dir, gpus=len(devices))
    runs = node_check.checked(await build_executor(settings, files, node_id, note, lasting=measured))
    authority = _contents(settings.security.tls_ca_file, "tls_ca_file")
    access = channel.Access(settings.node.node_pool_address, authority, insecure=settings.security.insecure)
    if settings.docker.allow_egress and not setup.is_offered(settings, runs.isolation):
        note("allow_egress is set, but egress_allow lists nothing that tasks may reach: no task with egress comes here")
    worker = worker_node.WorkerNode(
        _terms(settings, node_id, there, devices, runs.isolation),
        pool=client.NodePoolClient(access),
        runs=around(runs) if around else runs,
        files=files,
        journal=writer.Journal(settings.storage.state_dir / "worker.journal", state_lock.boot_id()),
        unsent=outbox.Outbox(settings.storage.state_dir / "outbox", *settings.undelivered_limits),
        watched=watched,
        lock=lock,
    )
    takers = [] if takers is None else takers
    takers.append(lambda now: worker.adopt(_terms(now, node_id, there, devices, runs.isolation)))
    if measured:  # a worker of one command has no time to grow old
        takers.append(_beside(worker, settings, files))
    returning, engine, state = node_id if measured else "", settings.docker.docker_host, settings.storage.state_dir
    former = former_driver.Node(runs.isolation, returning, engine, state)
    worker.beside("leftovers", former_driver.loop(former, settings.storage.cache_dir))
    return worker


def _beside(worker: worker_node.WorkerNode, settings: schema.Settings, files: stores.Store) -> Taker:
    """Have the worker's machine kept tidy while it works."""
    from hivemind_worker.artifacts import scrub  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker.housekeeping import artifacts, memory, policy  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker.machine import readings  # noqa: PLC0415  (slow to import)

    kept = artifacts.Artifacts(settings.storage.work_dir, files, lambda: worker.needed, since=time.time())
    pinned = _pinned(settings)
    house = build_housekeeping(settings, [kept], lambda: pinned | worker.announced_images)
    worker.beside("housekeeping", house.run)
    worker.beside("scrub", scrub.Scrub(files, settings.storage.scrub_bytes_per_second).run)
    if settings.cleanup.cleanup_enabled:
        relief = memory.Memory(
            readings.Readings(settings.storage.work_dir).numbers,
            allowed=settings.cleanup.cleanup_memory_percent,
            interval=settings.monitoring.monitor_interval,
        )
        worker.beside("memory", relief.run)

    def take(now: schema.Settings) -> None:
        nonlocal pinned
        pinned = _pinned(now)
        house.terms = policy.of(now.cleanup)

    return take


def build_stock(settings: schema.Settings, pinned: Callable[[], Collection[str]] | None = None) -> list[place.Place]:
    """Return the places of what tasks need beside themselves: images, environments, packages.

    ``pinned`` tells the images that are never removed; without it those are that the settings name.
    """
    from hivemind_worker.runtime.docker import engine as engines  # noqa: PLC0415  (slow to import)
    from hivemind_worker.runtime.docker import ledger  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker.housekeeping import environments, images  # noqa: PLC0415  (slow to import)

    its, cache = settings.docker, settings.storage.cache_dir
    places: list[place.Place] = [environments.Environments(cache)]
    if its.docker_enabled and its.isolation is not schema.Isolation.SANDBOX:
        engine = engines.Engine(its.docker_host)
        places.insert(
            0, images.Images(engine, ledger.Ledger(cache / IMAGES_FOLDER), pinned or (lambda: _pinned(settings)))
        )
    return places


def build_housekeeping(
    settings: schema.Settings,
    more: Sequence[place.Place] = (),
    pinned: Callable[[], Collection[str]] | None = None,
) -> sweep.Housekeeping:
    """Return what keeps this machine tidy, the places given included. ``pinned`` as for :func:`build_stock`."""
    from hivemind_worker.worker.housekeeping import disks, logs, policy, sweep, workspaces  # noqa: PLC0415  (slow to import)

    its, kept = settings.cleanup, settings.storage
    places: list[place.Place] = [
        *build_stock(settings, pinned),
        workspaces.Workspaces(kept.temp_dir),
        logs.Logs(kept.log_dir, LOG_NAMES),
        *more,
    ]
    return sweep.Housekeeping(
        places,
        policy.of(its),
        watch=[
            disks.of(folder) for folder in (kept.state_dir, kept.work_dir, kept.cache_dir, kept.temp_dir, kept.log_dir)
        ],
        interval=its.cleanup_interval,
        enabled=its.cleanup_enabled,
    )


def _pinned(settings: schema.Settings) -> frozenset[str]:
    return frozenset((*settings.cleanup.keep_images, *settings.images.preload_images))


def _monitor(settings: schema.Settings) -> monitor.ResourceMonitor:
    from hivemind_worker.worker.machine import accelerators, monitor  # noqa: PLC0415  (slow to import)

    its = settings.storage
    return monitor.ResourceMonitor(its.work_dir, accelerators.Accelerators(), (its.state_dir, its.temp_dir))


def _terms(
    settings: schema.Settings,
    node_id: str,
    there: resources.Resources,
    devices: tuple[str, ...],
    isolation: str,
) -> worker_node.Terms:
    """The node's terms on a machine that has all of ``there``."""
    from hivemind_worker.runtime.egress import setup  # noqa: PLC0415  (slow to import)
    from hivemind_worker.tasks.kinds import kind  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker import worker_node  # noqa: PLC0415  (slow to import)
    from hivemind_worker.worker.machine import (  # noqa: PLC0415  (slow to import)
        capacity,
        fitness,
    )

    its = settings.limits
    most = capacity.capped(
        there, max_cpu_cores=its.max_cpu_cores, max_memory_gb=its.max_memory_gb, max_disk_gb=its.max_disk_gb
    )
    return worker_node.Terms(
        node_id=node_id,
        version=hivemind_worker.__version__,
        limits=kind.limits(its, settings.docker.default_image, most),
        capacity=most,
        max_concurrent_tasks=its.max_concurrent_tasks,
        labels=settings.node.labels,
        heartbeat_seconds=settings.node.heartbeat_interval,
        poll_seconds=settings.node.poll_wait_seconds,
        drain_seconds=its.drain_timeout,
        allow_egress=setup.is_offered(settings, isolation),
        preload_images=settings.images.preload_images,
        preload_announced=settings.images.preload_announced,
        stop_past_lease=settings.node.past_lease is schema.PastLease.STOP,
        gpu_devices=devices,
        resource_wait_seconds=settings.monitoring.resource_wait_seconds,
        fitness=fitness.of(settings.monitoring),
    )


def build_store(folder: Path) -> stores.Store:
    """Return a store of artifacts in ``folder``, made ready. Blocks for a moment."""
    from hivemind_worker.artifacts import store as stores  # noqa: PLC0415  (slow to import)

    files = stores.Store(folder)
    files.prepare()
    return files


async def build_executor(
    settings: schema.Settings, files: stores.Store, node_id: str, note: Note, *, lasting: bool = False
) -> executor.Executor:
    """Return what will fence the tasks of this machine: containers, or the sandbox where the settings leave it open.

    Raises :class:`errors.IsolationMissing`, saying what to install: a task never runs unfenced.
    """
    wanted = settings.docker.isolation
    why = "docker_enabled is false" if not settings.docker.docker_enabled else ""
    if wanted is not schema.Isolation.SANDBOX and not why:
        try:
            return await _containers(settings, files, node_id, lasting=lasting)
        except errors.EngineLost as error:
            why = str(error)
    if wanted is schema.Isolation.DOCKER:
        raise errors.IsolationMissing(f"isolation is docker, and {why}: start the engine, or set docker_host")
    if wanted is schema.Isolation.AUTO:
        note(f"tasks run in the sandbox, not in containers: {why}")
    return await _sandbox(settings, files, node_id, why, lasting=lasting)


async def _containers(
    settings: schema.Settings, files: stores.Store, node_id: str, *, lasting: bool
) -> executor.Executor:
    from hivemind_worker.runtime.docker import (  # noqa: PLC0415  (slow to import)
        command_records,
        docker_executor,
        ledger,
        pulled,
        pulling,
    )
    from hivemind_worker.runtime.docker import engine as engines  # noqa: PLC0415  (slow to import)
    from hivemind_worker.runtime.egress import setup  # noqa: PLC0415  (slow to import)
    from hivemind_worker.runtime.environments import answers, sources  # noqa: PLC0415  (slow to import)

    its, images, cache = settings.docker, settings.images, settings.storage.cache_dir
    engine = engines.Engine(its.docker_host, its.engine_patience)
    await engine.connect()
    return docker_executor.DockerExecutor(
        engine=engine,
        store=files,
        node_id=node_id,
        boot_id=uuid.uuid4().hex,
        network=setup.bridge(settings),
        runtime=its.docker_runtime,
        pull_policy=its.pull_policy,
        supply=docker_executor.Supply(
            sources.of(settings.packages),
            answers.Answers(cache),
            ledger.Ledger(cache / IMAGES_FOLDER),
            pulling.Terms(images.pull_timeout, images.pull_stall_seconds, images.docker_config),
            None if lasting else command_records.Record(cache, node_id, its.docker_host),
            setup.way_out(settings),
            pulled.access(images, its.default_image, cache),
        ),
    )


async def _sandbox(
    settings: schema.Settings, files: stores.Store, node_id: str, why: str, *, lasting: bool
) -> executor.Executor:
    from hivemind_worker.runtime.egress import setup  # noqa: PLC0415  (slow to import)
    from hivemind_worker.runtime.environments import sources  # noqa: PLC0415  (slow to import)
    from hivemind_worker.runtime.sandbox import sandbox_executor  # noqa: PLC0415  (slow to import)

    made = sandbox_executor.ProcessExecutor(
        store=files,
        scratch=settings.storage.temp_dir,
        cache=settings.storage.cache_dir,
        sources=sources.of(settings.packages),
        lasting=settings.storage.state_dir if lasting else None,
        node_id=node_id,
        way=setup.way_out(settings),
    )
    if why:  # nobody asked for it by name: know now whether it can be had, and say what both lack
        fit = await made.fitness()
        if not fit.usable:
            await made.close()
            raise errors.IsolationMissing(f"nothing can fence a task here. Containers: {why}. Sandbox: {fit.why}")
    return made


def _contents(path: Path | None, name: str) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise errors.BadSettings(f"{name}: {path} cannot be read: {error.strerror}") from None
