"""Builds a client of the pool that the settings name."""

from __future__ import annotations

import os
from collections.abc import Callable

from hivemind_worker.client import asynchronous
from hivemind_worker.settings import schema
from hivemind_worker.telemetry import tracing

PATIENCE = 3.0
"""Seconds for which a command tries a pool that does not answer: a person waits."""

Progress = Callable[[str, int, int], None]


def build(settings: schema.Settings, progress: Progress | None = None) -> asynchronous.AsyncClient:
    """Return a client of the pool that the settings name; ``progress`` is told of files on their way."""
    return asynchronous.AsyncClient(
        settings.node.node_pool_address,
        tls_ca_file=settings.security.tls_ca_file,
        insecure=settings.security.insecure,
        patience=PATIENCE,
        progress=progress,
        traceparent=os.environ.get(tracing.VARIABLE, ""),
    )
