"""At start: what an earlier process of this node left in its store is removed. Its capsules fall to the executor."""

from __future__ import annotations

from hivemind_worker.artifacts import store
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)


def clear(files: store.Store) -> int:
    """Remove every artifact from the node's own store and return how many there were. Blocks; before any attempt.

    Nothing on disk tells yet to which attempt a file belonged, so none can be delivered: the pool has given those
    attempts to others, or will when their lease ends.
    """
    removed = sum(files.remove(artifact.sha256) for artifact in list(files.artifacts()))
    if removed:
        log.log_system_event("leftovers_removed", {"artifacts": removed})
    return removed
