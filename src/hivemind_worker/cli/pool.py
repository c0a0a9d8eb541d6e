"""`hivemind pool`: the Node Pool, in the foreground until it is told to stop."""

from __future__ import annotations

import sys
from typing import Any

import click

from hivemind_worker import wiring
from hivemind_worker.cli import look, options, rereading, service
from hivemind_worker.concurrency import stopping


@click.command("pool")
@options.of(
    *("state_dir", "log_dir", "tls_cert_file", "tls_key_file", "insecure", "http_hosts"), groups=("pool", "logging")
)
@look.options()
def command(**given: Any) -> None:
    """Start the Node Pool: it takes tasks from submitters and hands them to worker nodes.

    SIGTERM or ^C stops it; SIGHUP has the settings file read anew.
    """
    settings = options.load(given)
    reread = rereading.Rereading(settings, lambda: options.load(given))
    shown = look.current()

    async def work(stop: stopping.Stop) -> None:
        pool = wiring.build_pool(settings, reread.takers)
        async with service.serving(pool) as address, wiring.pool_door(settings, pool):
            shown.note(f"the pool listens at {address}")
            await service.beside(pool, stop, lambda: _until(stop))

    sys.exit(service.run(reread, "pool", work, shown))


async def _until(stop: stopping.Stop) -> None:
    await stop.wait()
