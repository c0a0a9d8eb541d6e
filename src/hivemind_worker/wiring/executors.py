"""Builds what fences tasks here: containers, or the sandbox."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

from hivemind_worker import errors
from hivemind_worker.artifacts import store as stores
from hivemind_worker.runtime import executor
from hivemind_worker.runtime.docker import command_records, docker_executor, ledger, pulled, pulling
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.egress import setup
from hivemind_worker.runtime.environments import answers, sources
from hivemind_worker.runtime.sandbox import sandbox_executor
from hivemind_worker.settings import schema
from hivemind_worker.wiring import housekeeping

Note = Callable[[str], None]


def build_store(folder: Path) -> stores.Store:
    """Return a store of artifacts in ``folder``, made ready. Blocks for a moment."""
    files = stores.Store(folder)
    files.prepare()
    return files


async def build(
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
            ledger.Ledger(cache / housekeeping.IMAGES_FOLDER),
            pulling.Terms(images.pull_timeout, images.pull_stall_seconds, images.docker_config),
            None if lasting else command_records.Record(cache, node_id, its.docker_host),
            setup.way_out(settings),
            pulled.access(images, its.default_image, cache),
        ),
    )


async def _sandbox(
    settings: schema.Settings, files: stores.Store, node_id: str, why: str, *, lasting: bool
) -> executor.Executor:

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
