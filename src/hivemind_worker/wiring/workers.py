"""Builds a worker node."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import hivemind_worker
from hivemind_worker import errors
from hivemind_worker.artifacts import outbox, scrub
from hivemind_worker.artifacts import store as stores
from hivemind_worker.runtime import executor, former_driver, node_check
from hivemind_worker.runtime.egress import setup
from hivemind_worker.settings import node_identity, schema, state_lock
from hivemind_worker.tasks import resources
from hivemind_worker.tasks.kinds import kind
from hivemind_worker.wiring import executors, housekeeping, reload
from hivemind_worker.worker import worker_node
from hivemind_worker.worker.housekeeping import artifacts, memory, policy
from hivemind_worker.worker.journal import writer
from hivemind_worker.worker.machine import accelerators, capacity, fitness, monitor, readings
from hivemind_worker.worker.pool_link import channel, client


async def build(
    settings: schema.Settings,
    note: executors.Note,
    around: Callable[[executor.Executor], executor.Executor] | None = None,
    *,
    measured: bool = True,
    takers: list[reload.Handler] | None = None,
    lock: state_lock.StateLock | None = None,
) -> worker_node.WorkerNode:
    """Return a worker node, ready to ``run``; ``note`` is told what fences its tasks where that needs a word.

    ``around`` may put something around the executor, to listen to it. Unless ``measured`` its heartbeats say nothing of
    how the machine is doing. ``lock``: of the state folder. ``takers`` is given what takes over settings as it runs.
    Raises :class:`errors.IsolationMissing` where nothing can, :class:`errors.BadSettings`.
    """
    node_id = node_identity.keep(settings.storage.state_dir, settings.node.node_id)
    files = stores.Store(settings.storage.work_dir)
    watched = _monitor(settings) if measured else None
    devices = watched.gpu_ids() if watched is not None else ()
    there = capacity.measure(settings.storage.work_dir, gpus=len(devices))
    runs = node_check.checked(await executors.build(settings, files, node_id, note, lasting=measured))
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


def _beside(worker: worker_node.WorkerNode, settings: schema.Settings, files: stores.Store) -> reload.Handler:
    """Have the worker's machine kept tidy while it works."""
    kept = artifacts.Artifacts(settings.storage.work_dir, files, lambda: worker.needed, since=time.time())
    pinned = housekeeping.pinned_images(settings)
    house = housekeeping.build(settings, [kept], lambda: pinned | worker.announced_images)
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
        pinned = housekeeping.pinned_images(now)
        house.terms = policy.of(now.cleanup)

    return take


def _monitor(settings: schema.Settings) -> monitor.ResourceMonitor:

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


def _contents(path: Path | None, name: str) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise errors.BadSettings(f"{name}: {path} cannot be read: {error.strerror}") from None
