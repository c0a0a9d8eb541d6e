"""`hivemind up`: a pool and a worker here, in one process, until told to stop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hivemind_worker import errors
from hivemind_worker.cli import holding, look, options, rereading, service
from hivemind_worker.concurrency import stopping
from hivemind_worker.settings import schema, state_lock
from hivemind_worker.wiring import http, pools, workers

if TYPE_CHECKING:
    from hivemind_worker.pool import server


@click.command("up")
@options.of(
    *("node_id", "labels", "heartbeat_interval", "tls_ca_file", "tls_cert_file", "tls_key_file", "insecure"),
    groups=("limits", "docker", "storage", "pool", "monitoring", "logging", "images", "packages", "cleanup"),
)
@look.options()
def command(**given: Any) -> None:
    """Start a pool and a worker here, and say how to submit.

    SIGTERM or ^C lets running tasks finish (drain_timeout), then the pool stops; a second one ends all at once.
    SIGHUP has the settings file read anew.
    """
    settings = options.load(given)
    reread = rereading.Rereading(settings, lambda: options.load(given))
    shown = look.current()

    async def work(stop: stopping.Stop) -> None:
        pool = pools.build(settings, reread.takers)
        with holding.folder(settings.storage.state_dir) as lock:
            await serve(pool, stop, lock)

    async def serve(pool: server.NodePool, stop: stopping.Stop, lock: state_lock.StateLock) -> None:
        async with service.serving(pool) as address:
            worker = await workers.build(_to(settings, address), shown.note, takers=reread.takers, lock=lock)
            async with http.of_pool(settings, pool), http.of_worker(settings, worker) as door:
                _say(address, settings.storage.state_dir, shown)
                if door is not None:
                    shown.note(f"watch:   http://{door.address}/")
                await service.beside(pool, stop, lambda: worker.run(stop))

    sys.exit(service.run(reread, "up", work, shown))


def _to(settings: schema.Settings, address: str) -> schema.Settings:
    """The worker's settings: its pool is the one here."""
    if settings.security.tls_cert_file is not None and settings.security.tls_ca_file is None:
        raise errors.BadSettings("the pool here uses TLS: set tls_ca_file too, so that the worker can know it")
    # A pool that listens at every address is reached by this machine's own.
    for everywhere, here in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if address.startswith(everywhere):
            address = here + address.removeprefix(everywhere)
    return settings.model_copy(update={"node": settings.node.model_copy(update={"node_pool_address": address})})


_FOUND_ANYWAY = frozenset({"127.0.0.1:50051", "localhost:50051"})
"""Where a command looks that is told nothing: the default of `node_pool_address`."""


def _say(address: str, state_dir: Path, shown: look.Look) -> None:
    shown.note(f"the pool listens at {address}, and a worker here takes its tasks")
    there = "" if address in _FOUND_ANYWAY else f" --node-pool {address}"
    shown.note(f"submit:  hivemind submit FILE{there}")
    shown.note(f"follow:  hivemind tasks{there}")
    shown.note(f"health:  hivemind health --state-dir {state_dir}")
