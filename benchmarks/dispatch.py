"""Dispatch alone: a task that does nothing, through pool and worker, every step durable; beside Celery.

Usage: python benchmarks/dispatch.py [--count N] [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable

import common
import ours
import peers


def main(count: int, rounds: int) -> None:
    """Measure and print: bursts of ``count`` tasks for the rate, then single ones for the latency."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(ours.dispatch_only())
        singles: dict[str, Callable[[], None]] = {"hivemind": lambda: ours.one(client)}
        bursts: dict[str, Callable[[], None]] = {"hivemind": lambda: ours.many(client, count)}
        if common.have("redis-server"):
            module = stack.enter_context(peers.celery(1))
            singles["celery, prefork 1"] = lambda: module.noop.delay().get(timeout=60)

            def burst() -> None:
                for result in [module.noop.delay() for _ in range(count)]:
                    result.get(timeout=120)

            bursts["celery, prefork 1"] = burst
        rates: dict[str, list[float]] = {name: [] for name in bursts}
        for number in range(rounds + 1):
            for name, once in bursts.items():
                begun = time.perf_counter()
                once()
                if number:
                    rates[name].append(count / (time.perf_counter() - begun))
        latencies: dict[str, list[float]] = {name: [] for name in singles}
        for number in range(220):
            for name, once in singles.items():
                begun = time.perf_counter()
                once()
                if number >= 20:
                    latencies[name].append(time.perf_counter() - begun)
    base = "celery, prefork 1" if "celery, prefork 1" in rates else "hivemind"
    rows = [
        [
            name,
            f"{statistics.median(rates[name]):.0f}",
            f"{statistics.median(a / b for a, b in zip(rates[name], rates[base], strict=True)):.2f}",
            common.milliseconds(statistics.median(latencies[name])),
            common.milliseconds(sorted(latencies[name])[-3]),
            f"{statistics.median(a / b for a, b in zip(latencies[name], latencies[base], strict=True)):.2f}",
        ]
        for name in rates
    ]
    head = ["way", "tasks/s", f"x {base}", "p50 ms", "p99 ms", f"÷ {base}"]
    common.table(f"Dispatch alone: bursts of {count} ({rounds} rounds in turn), then 200 single tasks", head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    main(**vars(parser.parse_args()))
