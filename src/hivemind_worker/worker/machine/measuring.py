"""What the node's metrics are told: what happens as it happens, and how everything stands when somebody asks."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING

from hivemind_worker.concurrency import clock
from hivemind_worker.runtime.capsule import defence_spec
from hivemind_worker.tasks import outcome, resources
from hivemind_worker.telemetry import metrics
from hivemind_worker.worker.machine import fitness, status

if TYPE_CHECKING:  # psutil behind it costs 20 ms, which a worker that measures nothing need not wait for
    from hivemind_worker.worker.machine import readings


class Measuring:
    """One node's metrics."""

    def __init__(self) -> None:
        self._meters = metrics.Meters(metrics.WORKER)

    def accepted(self) -> None:
        """An attempt was taken from the pool."""
        self._meters.count(metrics.WORKER_TAKEN)

    def ended(self, ended: outcome.Outcome) -> None:
        """An attempt has ended."""
        self._meters.count(metrics.WORKER_ENDED, str(ended.status), str(ended.reason or ""))
        self._meters.count(metrics.WORKER_CPU_USED, by=ended.usage.cpu_seconds or 0.0)
        if (used := ended.usage).network_connections:
            self._meters.count(metrics.WORKER_EGRESS_BYTES, "sent", by=used.network_sent_bytes or 0)
            self._meters.count(metrics.WORKER_EGRESS_BYTES, "received", by=used.network_received_bytes or 0)
            self._meters.count(metrics.WORKER_EGRESS_CONNECTIONS, by=used.network_connections)
            self._meters.count(metrics.WORKER_EGRESS_REFUSED, by=used.network_refused or 0)
        for step, seconds in ended.timings.items():
            self._meters.observe(metrics.WORKER_STEP, seconds, step)

    def beat(self, *, answered: bool) -> None:
        """A heartbeat was answered, or was not."""
        self._meters.count(metrics.WORKER_BEATS, "answered" if answered else "failed")

    def exposition(
        self, now: status.Snapshot, fit: fitness.Fitness, *, version: str, ready: bool, heard_at: float
    ) -> tuple[bytes, str]:
        """Return all of it in Prometheus' text format. ``heard_at``: the pool's last answer, by the loop's clock."""
        meters = self._meters
        meters.set(metrics.WORKER_INFO, 1, version, now.isolation)
        meters.set(metrics.WORKER_READY, ready)
        meters.set(metrics.WORKER_CONNECTED, now.connected)
        meters.set(metrics.WORKER_BEAT_AGE, time.time() - (clock.now() - heard_at) if heard_at else 0.0)
        meters.set_all(metrics.WORKER_HELD, collections.Counter(each.phase for each in now.attempts))
        meters.set_all(metrics.WORKER_HOLDS, dict.fromkeys(now.holds, 1))
        in_force = {each.id: each.state is not defence_spec.State.BROKEN for each in fit.verdicts}
        meters.set_all(metrics.WORKER_DEFENCES, in_force)
        meters.set_all(metrics.WORKER_CAPACITY, _amounts(now.capacity))
        meters.set_all(metrics.WORKER_RESERVED, _amounts(now.reserved))
        meters.set(metrics.WORKER_UNDEAD, fit.undead_count)
        used = [each.usage for each in now.attempts if each.usage is not None]
        meters.set(metrics.WORKER_TASK_CPU, sum(each.cpu_percent or 0.0 for each in used) / 100.0)
        meters.set(metrics.WORKER_TASK_MEMORY, sum(each.now.memory_bytes or 0 for each in used))
        if fit.machine is not None:
            self._host(fit.machine)
        return meters.exposition()

    def _host(self, machine: readings.Machine) -> None:
        meters = self._meters
        meters.set(metrics.WORKER_MEMORY, machine.worker_memory_bytes)
        meters.set(metrics.HOST_CPU, machine.cpu_percent / 100.0)
        meters.set(metrics.HOST_PROCESSES, machine.processes)
        meters.set_all(metrics.HOST_MEMORY, {kind: machine.memory[kind] for kind in ("total", "available")})
        if machine.disk:
            meters.set_all(metrics.HOST_DISK, {kind: machine.disk[kind] for kind in ("total", "free")})
        if machine.network:
            sent, received = machine.network["bytes_sent"], machine.network["bytes_recv"]
            meters.set_all(metrics.HOST_NETWORK, {"sent": sent, "received": received})
        if machine.load_avg is not None:
            meters.set(metrics.HOST_LOAD, machine.load_avg[0])
        for gpu in machine.gpus:
            if gpu.use_ratio is not None:
                meters.set(metrics.HOST_GPU, gpu.use_ratio, gpu.id)
            meters.set(metrics.HOST_GPU_MEMORY, gpu.memory_total_bytes, gpu.id, "total")
            meters.set(metrics.HOST_GPU_MEMORY, gpu.memory_used_bytes, gpu.id, "used")


def _amounts(amounts: resources.Resources) -> dict[str, float]:
    return {
        "cpu_cores": amounts.cpu_cores,
        "memory_bytes": amounts.memory_bytes,
        "disk_bytes": amounts.disk_bytes,
        "gpus": amounts.gpus,
    }
