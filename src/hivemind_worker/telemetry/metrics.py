"""Every metric, in one list; counted in plain numbers here, and written in Prometheus' format when somebody asks.

Base units: seconds, bytes, ratios of 1. No label ever holds the id of a task, an image or a person: their number has no
end. The library is imported at the first scrape alone, so that counting costs nobody its time.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import metrics_core


class Kind(enum.Enum):
    """How a metric behaves: it only grows, it goes up and down, or it counts values by their size."""

    COUNTER = enum.auto()
    GAUGE = enum.auto()
    HISTOGRAM = enum.auto()


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0)
"""Upper bounds of durations: from a parked capsule's few milliseconds to the document's time limit of an hour."""


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One line of the list, equal to itself alone.

    ``help`` tells what is counted, and in which unit where the name does not.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _count(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, text, labels)


def _seconds(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, text, labels, SECONDS)


# ---- a worker's ----

WORKER_INFO = _gauge("hivemind_worker_info", "1; version and isolation are its labels.", "version", "isolation")
WORKER_READY = _gauge("hivemind_worker_ready", "1 while the node takes tasks.")
WORKER_CONNECTED = _gauge("hivemind_worker_pool_connected", "1 while the node has a session at its pool.")
WORKER_HELD = _gauge("hivemind_worker_attempts", "Attempts that the node holds now, by phase.", "phase")
WORKER_TAKEN = _count("hivemind_worker_attempts_accepted_total", "Attempts taken from the pool.")
WORKER_ENDED = _count(
    "hivemind_worker_attempts_ended_total", "Attempts that ended here, by status and reason.", "status", "reason"
)
WORKER_STEP = _seconds(
    "hivemind_worker_step_seconds", "How long each step of an attempt took (prepare, create, start, run, …).", "step"
)
WORKER_CPU_USED = _count("hivemind_worker_task_cpu_seconds_total", "CPU time of tasks that ended here.")
WORKER_EGRESS_BYTES = _count(
    "hivemind_worker_egress_bytes_total", "Bytes of tasks that ended here through the filter.", "direction"
)
WORKER_EGRESS_CONNECTIONS = _count(
    "hivemind_worker_egress_connections_total", "Connections of tasks that ended here to their proxy."
)
WORKER_EGRESS_REFUSED = _count(
    "hivemind_worker_egress_refused_total", "What tasks that ended here asked of their proxy and were refused."
)
WORKER_CAPACITY = _gauge("hivemind_worker_capacity", "What tasks may use together: cores, bytes, devices.", "resource")
WORKER_RESERVED = _gauge("hivemind_worker_reserved", "What is reserved for attempts now.", "resource")
WORKER_BEATS = _count("hivemind_worker_heartbeats_total", "Heartbeats, by whether the pool answered.", "result")
WORKER_BEAT_AGE = _gauge(
    "hivemind_worker_pool_last_answer_timestamp_seconds", "When the pool last answered, since the epoch; 0: never."
)
WORKER_HOLDS = _gauge("hivemind_worker_not_ready", "1 for each reason for which the node takes no task.", "cause")
WORKER_DEFENCES = _gauge(
    "hivemind_worker_defence_in_force", "1 for each defence that held when it was last tried, else 0.", "defence"
)
WORKER_UNDEAD = _gauge("hivemind_worker_undead_capsules", "Capsules that cannot be killed; they keep their resources.")
WORKER_TASK_CPU = _gauge("hivemind_worker_tasks_cpu_cores", "Cores that running tasks use together.")
WORKER_TASK_MEMORY = _gauge("hivemind_worker_tasks_memory_bytes", "Memory that running tasks use together.")
WORKER_MEMORY = _gauge("hivemind_worker_resident_memory_bytes", "Memory of the worker's own process.")
HOST_CPU = _gauge("hivemind_worker_host_cpu_ratio", "CPU use of the whole machine; 1: all cores.")
HOST_MEMORY = _gauge("hivemind_worker_host_memory_bytes", "Memory of the machine, total and available.", "kind")
HOST_DISK = _gauge("hivemind_worker_host_disk_bytes", "The disk of work_dir, total and free.", "kind")
HOST_NETWORK = _count("hivemind_worker_host_network_bytes_total", "Bytes over the machine's network.", "direction")
HOST_LOAD = _gauge("hivemind_worker_host_load1", "Load average over a minute.")
HOST_PROCESSES = _gauge("hivemind_worker_host_processes", "Processes on the machine.")
HOST_GPU = _gauge("hivemind_worker_host_gpu_ratio", "Use of each GPU; 1: busy all the time.", "gpu")
HOST_GPU_MEMORY = _gauge("hivemind_worker_host_gpu_memory_bytes", "Memory of each GPU, total and used.", "gpu", "kind")

WORKER = (
    WORKER_INFO, WORKER_READY, WORKER_CONNECTED, WORKER_HELD, WORKER_TAKEN, WORKER_ENDED, WORKER_STEP,
    WORKER_CPU_USED, WORKER_EGRESS_BYTES, WORKER_EGRESS_CONNECTIONS, WORKER_EGRESS_REFUSED, WORKER_CAPACITY,
    WORKER_RESERVED, WORKER_BEATS, WORKER_BEAT_AGE, WORKER_HOLDS, WORKER_DEFENCES, WORKER_TASK_CPU, WORKER_TASK_MEMORY,
    WORKER_MEMORY, HOST_CPU, HOST_MEMORY, HOST_DISK, HOST_NETWORK, HOST_LOAD, HOST_PROCESSES, HOST_GPU,
    HOST_GPU_MEMORY, WORKER_UNDEAD,
)  # fmt: skip
"""Of a worker node."""

# ---- a pool's ----

POOL_INFO = _gauge("hivemind_pool_info", "1; the version is its label.", "version")
POOL_TASKS = _gauge("hivemind_pool_tasks", "Tasks that the pool knows, by state.", "state")
POOL_NODES = _gauge("hivemind_pool_nodes", "Nodes, by their status.", "status")
POOL_CAPACITY = _gauge("hivemind_pool_capacity", "What the nodes that are alive have together.", "resource")
POOL_USED = _gauge("hivemind_pool_used", "What of it is given to tasks.", "resource")
POOL_QUEUE_AGE = _gauge("hivemind_pool_oldest_queued_seconds", "How long the oldest queued task has waited.")
POOL_SUBMITTED = _count("hivemind_pool_tasks_submitted_total", "Tasks accepted from submitters.")
POOL_ENDED = _count("hivemind_pool_tasks_ended_total", "Tasks that ended, by state and reason.", "state", "reason")
POOL_REPORTS = _count("hivemind_pool_reports_total", "Reports of ends, by the pool's verdict.", "verdict")
POOL_WAITED = _seconds("hivemind_pool_task_wait_seconds", "From a task's submission to the start of its last attempt.")
POOL_RAN = _seconds("hivemind_pool_task_run_seconds", "From the start of a task's last attempt to its end.")
POOL_CALLS = _seconds(
    "hivemind_pool_call_seconds",
    "How long calls took, by method and how they ended; polls wait on purpose.",
    "method",
    "result",
)
POOL_POLLS = _gauge("hivemind_pool_waiting_polls", "Workers that wait for tasks now.")
POOL_DAMAGED = _gauge(
    "hivemind_pool_damaged_artifacts", "Stored files that were found damaged, and set aside, since the pool began."
)
POOL_SCRUBBED = _gauge("hivemind_pool_scrubbed_bytes", "Bytes of stored files read again since then, to find those.")

POOL = (
    POOL_INFO, POOL_TASKS, POOL_NODES, POOL_CAPACITY, POOL_USED, POOL_QUEUE_AGE, POOL_SUBMITTED, POOL_ENDED,
    POOL_REPORTS, POOL_WAITED, POOL_RAN, POOL_CALLS, POOL_POLLS, POOL_DAMAGED, POOL_SCRUBBED,
)  # fmt: skip
"""Of a Node Pool."""


@dataclass(slots=True)
class _Histogram:
    counts: list[int]
    total: float = 0.0


class Meters:
    """The present values of a list of metrics. Safe on one event loop; each node and each pool has its own."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics
        self._values: dict[Metric, dict[tuple[str, ...], float]] = {
            each: {} if each.labels else {(): 0.0} for each in metrics if each.kind is not Kind.HISTOGRAM
        }
        self._histograms: dict[Metric, dict[tuple[str, ...], _Histogram]] = {
            each: {} for each in metrics if each.kind is Kind.HISTOGRAM
        }

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Add to a counter. ``labels`` in the order of the list. Raises KeyError for a metric of another list."""
        values = self._values[metric]
        key = self._key(metric, labels)
        values[key] = values.get(key, 0.0) + by

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Say what a gauge is now, or a counter that somebody else counts."""
        self._values[metric][self._key(metric, labels)] = float(value)

    def set_all(self, metric: Metric, values: Mapping[str, float]) -> None:
        """Say what a gauge of one label is now, for every value of it: what is not named is gone."""
        self._values[metric] = {self._key(metric, (label,)): float(value) for label, value in values.items()}

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Count a value by its size."""
        key = self._key(metric, labels)
        found = self._histograms[metric].get(key)
        if found is None:
            found = self._histograms[metric][key] = _Histogram([0] * (len(metric.buckets) + 1))
        found.counts[bisect.bisect_left(metric.buckets, value)] += 1
        found.total += value

    def value(self, metric: Metric, *labels: str) -> float:
        """Return what a counter or gauge is now; 0 where nothing was said."""
        return self._values[metric].get(labels, 0.0)

    def exposition(self) -> tuple[bytes, str]:
        """Return all of it in Prometheus' text format, and that format's content type."""
        import prometheus_client  # noqa: PLC0415  (30 ms that only a scrape needs)

        # The older of the two text formats: every scraper reads it, and our names need no more.
        return prometheus_client.generate_latest(_Registry(self.families)), "text/plain; version=0.0.4; charset=utf-8"

    def families(self) -> Iterator[metrics_core.Metric]:
        """Every metric as Prometheus' library has it, in the order of the list."""
        from prometheus_client import metrics_core  # noqa: PLC0415

        for metric in self._metrics:
            if metric.kind is Kind.HISTOGRAM:
                histogram = metrics_core.HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
                for key, found in self._histograms[metric].items():
                    histogram.add_metric(key, _cumulative(metric, found), found.total)
                yield histogram
                continue
            family = metrics_core.CounterMetricFamily if metric.kind is Kind.COUNTER else metrics_core.GaugeMetricFamily
            flat = family(metric.name, metric.help, labels=metric.labels)
            for key, value in self._values[metric].items():
                flat.add_metric(key, value)
            yield flat

    @staticmethod
    def _key(metric: Metric, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {labels}")
        return labels


def _cumulative(metric: Metric, found: _Histogram) -> list[tuple[str, float]]:
    reached, rows = 0, []
    for bound, count in zip((*map(str, metric.buckets), "+Inf"), found.counts, strict=True):
        reached += count
        rows.append((bound, float(reached)))
    return rows


class _Registry:
    """What the library's writer wants to be given: something that has ``collect``."""

    def __init__(self, collect: Callable[[], Iterator[metrics_core.Metric]]) -> None:
        self.collect = collect
