"""Builds what answers over HTTP: health, metrics, and the dashboard of a worker."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

import hivemind_worker
from hivemind_worker.pool import server
from hivemind_worker.settings import schema
from hivemind_worker.web import endpoints, finding, hosts, serving
from hivemind_worker.web.dashboard import app as dashboard
from hivemind_worker.worker import worker_node


def of_worker(
    settings: schema.Settings, worker: worker_node.WorkerNode
) -> AbstractAsyncContextManager[serving.Door | None]:
    """Return the block within which a worker answers over HTTP and shows its window, as the settings say.

    Entering it raises BadSettings; it is given the door, None where there is none.
    """
    its = settings.monitoring
    if not its.http_enabled:
        return nullcontext()

    shown = dashboard.routes(worker.snapshot, worker.health, hivemind_worker.__version__)
    return _door(settings, endpoints.app(worker.health, worker.metrics, shown), its.http_listen, finding.WORKER)


def of_pool(settings: schema.Settings, pool: server.NodePool) -> AbstractAsyncContextManager[serving.Door | None]:
    """Return the same for a pool, which has no window."""
    if not settings.pool.http_enabled:
        return nullcontext()

    return _door(settings, endpoints.app(pool.health, pool.metrics), settings.pool.http_listen, finding.POOL)


def _door(settings: schema.Settings, app: hosts.App, listen: str, note: str) -> serving.Door:

    return serving.Door(app, listen, note=settings.storage.state_dir / note, hosts_too=settings.monitoring.http_hosts)
