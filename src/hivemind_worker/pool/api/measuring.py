"""What the pool's metrics are told: what happens as it happens, and how everything stands when somebody asks."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from hivemind_worker import __version__
from hivemind_worker.pool.store import records, store
from hivemind_worker.tasks import resources, state
from hivemind_worker.telemetry import metrics

STATUSES = frozenset({"idle", "busy", "draining", "unhealthy", "offline"})
"""The protocol's words for how a node is."""


class Measuring:
    """One pool's metrics."""

    def __init__(self) -> None:
        self._meters = metrics.Meters(metrics.POOL)

    def call(self, method: str, seconds: float, *, answered: bool) -> None:
        """A call has ended: with its answer, or with an error."""
        self._meters.observe(metrics.POOL_CALLS, seconds, method, "answered" if answered else "refused")

    def report(self, verdict: records.Verdict) -> None:
        """An attempt's end was judged."""
        self._meters.count(metrics.POOL_REPORTS, str(verdict))

    def artifacts(self, *, damaged: int, read_bytes: int) -> None:
        """How many stored files were found damaged, and how much was read to find them."""
        self._meters.set(metrics.POOL_DAMAGED, damaged)
        self._meters.set(metrics.POOL_SCRUBBED, read_bytes)

    def heard(self, changes: Sequence[records.Change]) -> None:
        """Take note of what the store has committed."""
        for change in changes:
            if change.new:
                self._meters.count(metrics.POOL_SUBMITTED)
            if change.state in state.ENDED:
                self._meters.count(metrics.POOL_ENDED, str(change.state), change.reason)
                if change.ran_seconds is not None:
                    self._meters.observe(metrics.POOL_WAITED, change.waited_seconds)
                    self._meters.observe(metrics.POOL_RAN, change.ran_seconds)

    async def exposition(self, kept: store.Store, polls: int) -> tuple[bytes, str]:
        """Return all of it in Prometheus' text format; ``polls``: workers that wait for tasks now."""
        alive, counts = await kept.survey(_Nodes.of), await kept.counts()
        statuses = alive.statuses
        if lost := await kept.lost_nodes():
            statuses["lost"] = lost
        meters = self._meters
        meters.set(metrics.POOL_INFO, 1, __version__)
        meters.set(metrics.POOL_POLLS, polls)
        meters.set_all(metrics.POOL_TASKS, {str(each): counts.get(str(each), 0) for each in state.TaskState})
        meters.set_all(metrics.POOL_NODES, statuses)
        meters.set_all(metrics.POOL_CAPACITY, amounts(alive.capacity))
        meters.set_all(metrics.POOL_USED, amounts(alive.used))
        oldest = await kept.oldest_queued()
        meters.set(metrics.POOL_QUEUE_AGE, max(kept.now() - oldest, 0.0) if oldest else 0.0)
        return meters.exposition()


@dataclasses.dataclass(slots=True)
class _Nodes:
    """How the living nodes are, and what they have and use together."""

    statuses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    capacity: resources.Resources = dataclasses.field(default_factory=resources.Resources)
    used: resources.Resources = dataclasses.field(default_factory=resources.Resources)

    @classmethod
    def of(cls, alive: Iterable[records.Node]) -> _Nodes:
        """Count them, one after the other."""
        total = cls()
        for node in alive:
            total.statuses[_word(node)] += 1
            total.capacity += node.capacity
            total.used += node.used
        return total


def _word(node: records.Node) -> str:
    """A node's status as a label: words that only that node knows would be labels without end."""
    return node.status if node.status in STATUSES else "other"


def amounts(total: resources.Resources) -> dict[str, float]:
    """Return amounts by name."""
    return {
        "cpu_cores": total.cpu_cores,
        "memory_bytes": total.memory_bytes,
        "disk_bytes": total.disk_bytes,
        "gpus": total.gpus,
    }
