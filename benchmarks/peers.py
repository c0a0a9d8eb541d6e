"""The peers, each as it would be used: a bare process, docker run, aiodocker, Celery with docker-py."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiodocker
import common
import docker


def fork_and_exec() -> None:
    """The floor: a process without any fence."""
    subprocess.run(["/bin/true"], check=True)


def docker_run(network: str) -> Callable[[], None]:
    """The docker command line."""

    def once() -> None:
        subprocess.run(
            ["docker", "run", "--rm", "--network", network, common.TINY, "true"], check=True, stdout=subprocess.DEVNULL
        )

    return once


@contextlib.contextmanager
def docker_py() -> Iterator[Callable[[], None]]:
    """docker-py's containers.run with a client that stays open."""
    client = docker.from_env()

    def once() -> None:
        client.containers.run(common.TINY, ["true"], network_mode="none", remove=True)

    try:
        yield once
    finally:
        client.close()


@contextlib.contextmanager
def bare_aiodocker() -> Iterator[Callable[[], None]]:
    """The fewest calls there are: create, start, wait, remove, over one connection that stays open."""
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(_client())

    async def sequence() -> None:
        config: dict[str, Any] = {
            "Image": common.TINY,
            "Cmd": ["true"],
            "HostConfig": {"NetworkMode": "none", "Memory": 2**30, "CpuQuota": 100_000, "CpuPeriod": 100_000},
        }
        container = await client.containers.create(config)
        await container.start()
        await container.wait()
        await container.delete(force=True)

    try:
        yield lambda: loop.run_until_complete(sequence())
    finally:
        loop.run_until_complete(client.close())
        loop.close()


async def _client() -> aiodocker.Docker:
    return aiodocker.Docker()


@contextlib.contextmanager
def celery(concurrency: int) -> Iterator[Any]:
    """A Redis of our own and a Celery worker with ``concurrency`` processes; yields the module with the tasks."""
    port = common.free_port()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        # appendfsync always: our pool makes every step durable, so the peer's broker must as well.
        redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        redis += ["--appendonly", "yes", "--appendfsync", os.environ.get("PEER_FSYNC", "always")]
        stack.enter_context(common.program(redis, lambda: common.port_answers(port)))
        url = f"redis://127.0.0.1:{port}/0"
        os.environ["PEER_REDIS"] = url
        sys.path.insert(0, str(Path(__file__).parent))
        module = importlib.reload(importlib.import_module("celery_app"))
        worker = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--concurrency", str(concurrency)]
        worker += ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
        inspect = module.app.control.inspect(timeout=0.3)
        path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        stack.enter_context(
            common.program(worker, lambda: bool(inspect.ping()), PEER_REDIS=url, PYTHONPATH=path, C_FORCE_ROOT="1")
        )
        yield module
        module.app.close()
