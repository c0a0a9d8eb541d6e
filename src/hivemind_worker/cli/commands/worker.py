"""`hivemind worker`: the worker node, in the foreground until it is told to stop."""

from __future__ import annotations

import sys
from typing import Any

import click

from hivemind_worker.cli import holding, look, options, rereading, service
from hivemind_worker.concurrency import stopping
from hivemind_worker.telemetry import logs
from hivemind_worker.wiring import http, workers

log = logs.StructuredLogger(__name__)


@click.command("worker")
@options.of(
    "tls_ca_file",
    "insecure",
    groups=("node", "limits", "docker", "storage", "monitoring", "logging", "images", "packages", "cleanup"),
)
@look.options()
def command(**given: Any) -> None:
    """Start the worker node. It registers with the Node Pool and runs the tasks it is given.

    SIGTERM or ^C lets running tasks finish (drain_timeout) and hands the rest back; a second one ends them at once.
    SIGHUP has the settings file read anew.
    """
    settings = options.load(given)
    reread = rereading.Rereading(settings, lambda: options.load(given))

    async def work(stop: stopping.Stop) -> None:
        with holding.folder(settings.storage.state_dir) as lock:
            worker = await workers.build(settings, _note, takers=reread.takers, lock=lock)
            async with http.of_worker(settings, worker):
                await worker.run(stop)

    sys.exit(service.run(reread, "worker", work, look.current()))


def _note(text: str) -> None:
    log.log_system_event("isolation_chosen", {"why": text}, level="warning")
