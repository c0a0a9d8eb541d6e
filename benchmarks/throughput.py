"""Many no-op tasks at once, a fresh fence for each: tasks per second of the whole system and of its peers.

Usage: python benchmarks/throughput.py [--count N] [--slots N] [--rounds N]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import statistics
import time
from collections.abc import Callable

import common
import ours
import peers

Batch = Callable[[int], None]


def batches(stack: contextlib.ExitStack, slots: int) -> dict[str, Batch]:
    """Everything that can be measured here; each takes a count of tasks and returns when all results are there."""
    found: dict[str, Batch] = {}
    if common.have("bwrap"):
        sandbox = stack.enter_context(ours.system("sandbox", slots))
        found["hivemind, sandbox"] = lambda count: ours.many(sandbox, count)
    if common.have("docker"):
        contained = stack.enter_context(ours.system("docker", slots))
        found["hivemind, docker"] = lambda count: ours.many(contained, count)
        once = stack.enter_context(peers.docker_py())
        threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(slots))
        found["docker-py, none"] = lambda count: _all(threads, once, count)
    if common.have("docker", "redis-server"):
        module = stack.enter_context(peers.celery(slots))

        def with_celery(count: int) -> None:
            for result in [module.in_container.delay(common.TINY, ["true"]) for _ in range(count)]:
                result.get(timeout=300)

        found["celery + docker-py"] = with_celery
    return found


def _all(threads: concurrent.futures.Executor, once: Callable[[], None], count: int) -> None:
    for done in [threads.submit(once) for _ in range(count)]:
        done.result()


def main(count: int, slots: int, rounds: int) -> None:
    """Measure and print."""
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        found = batches(stack, slots)
        for batch in found.values():
            batch(4)
        for _ in range(rounds):
            for name, batch in found.items():
                spent, begun = common.machine_cpu_seconds(), time.perf_counter()
                batch(count)
                rates.setdefault(name, []).append(count / (time.perf_counter() - begun))
                time.sleep(0.5)  # removals that are still under way belong to this batch
                cpu.setdefault(name, []).append((common.machine_cpu_seconds() - spent) / count)
    bases = [base for base in ("docker-py, none", "celery + docker-py") if base in rates]
    rows = []
    for name, found_rates in rates.items():
        ratios = [statistics.median(a / b for a, b in zip(found_rates, rates[base], strict=True)) for base in bases]
        rows.append(
            [
                name,
                f"{statistics.median(found_rates):.1f}",
                common.milliseconds(statistics.median(cpu[name])),
                *[f"{ratio:.2f}" for ratio in ratios],
            ]
        )
    head = ["way", "tasks/s", "CPU ms each", *[f"x {base}" for base in bases]]
    common.table(f"{count} no-op tasks, {slots} slots, {rounds} rounds in turn", head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    main(**vars(parser.parse_args()))
