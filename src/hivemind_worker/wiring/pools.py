"""Builds a Node Pool."""

from __future__ import annotations

from hivemind_worker.pool import server
from hivemind_worker.settings import schema
from hivemind_worker.wiring import reload


def build(settings: schema.Settings, takers: list[reload.Handler] | None = None) -> server.NodePool:
    """Return a Node Pool, ready to ``start``; ``takers`` as for `workers.build`."""
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
