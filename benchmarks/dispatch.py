"""Dispatch alone: a task that does nothing, through pool and worker, every step durable; beside Celery.

Twice: with nothing else queued, and beside 10,000 queued tasks of as many shapes, which fit no node. Ratios are medians
over rounds in which all ways take turns, so that what else the machine does touches all alike. The order of each round
is drawn anew: whoever follows a pool pays for what that pool does behind its result.

Before that one round in the store alone, CPU and wall, on a disk and in memory: `rounds.py`.

Usage: python benchmarks/dispatch.py [--count N] [--rounds N] [--singles N] [--shapes N] [--store-rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import time
from collections.abc import Callable, Mapping

import common
import ours
import peers
import rounds as store_rounds

from hivemind_worker.client import client as clients

BASE = "celery, prefork 1"
WARM_UP = 20
"""Single tasks that are not counted."""


def main(count: int, rounds: int, singles: int, shapes: int) -> None:
    """Measure and print: bursts of ``count`` tasks for the rate, then single ones for the latency."""
    many_shapes = f"hivemind, {shapes} shapes queued"
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(ours.dispatch_only())
        beside = stack.enter_context(ours.dispatch_only())
        submit_shapes(beside, shapes)
        one: dict[str, Callable[[], None]] = {
            "hivemind, one shape": lambda: ours.one(plain),
            many_shapes: lambda: ours.one(beside),
        }
        many: dict[str, Callable[[], None]] = {
            "hivemind, one shape": lambda: ours.many(plain, count),
            many_shapes: lambda: ours.many(beside, count),
        }
        if common.have("redis-server"):
            module = stack.enter_context(peers.celery(1))

            def burst() -> None:
                for result in [module.noop.delay() for _ in range(count)]:
                    result.get(timeout=120)

            one[BASE], many[BASE] = lambda: module.noop.delay().get(timeout=60), burst
        seconds = in_turn(many, rounds, warm_up=1)
        latencies = in_turn(one, singles, warm_up=WARM_UP)
    rates = {name: [count / each for each in taken] for name, taken in seconds.items()}
    base = BASE if BASE in rates else "hivemind, one shape"
    rows = [
        [
            name,
            f"{statistics.median(rates[name]):.0f}",
            f"{ratio(rates, name, base):.2f}",
            common.milliseconds(statistics.median(latencies[name])),
            common.milliseconds(sorted(latencies[name])[-max(1, singles // 100)]),
            f"{ratio(latencies, name, base):.2f}",
            f"{ratio(latencies, name, 'hivemind, one shape'):.2f}",
        ]
        for name in rates
    ]
    head = ["way", "tasks/s", f"x {base}", "p50 ms", "p99 ms", f"÷ {base}", "÷ one shape"]
    common.table(f"Dispatch alone: bursts of {count} ({rounds} rounds), {singles} single tasks, in turn", head, rows)


def submit_shapes(client: clients.Client, count: int) -> None:
    """Queue tasks that each want something else, and more than any node has: urgent ones, so that they come first."""
    client.submit(
        [
            {
                "command": ["true"],
                "priority": 5,
                "required_resources": {"cpu_cores": 2_000 + number, "memory_gb": 1 + number / 1_000},
            }
            for number in range(count)
        ]
    )


def in_turn(ways: Mapping[str, Callable[[], None]], rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of each round of each way; all take turns, in another order each time."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = random.Random(1)  # the same orders in every run
    for number in range(warm_up + rounds):
        for name in order.sample(list(ways), len(ways)):
            began = time.perf_counter()
            ways[name]()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(figures: Mapping[str, list[float]], name: str, base: str) -> float:
    """Median over rounds of one way's figure by another's."""
    return statistics.median(a / b for a, b in zip(figures[name], figures[base], strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=200)
    parser.add_argument("--shapes", type=int, default=10_000)
    parser.add_argument("--store-rounds", type=int, default=300)
    numbers = vars(parser.parse_args())
    store_rounds.main(numbers.pop("store_rounds"))
    main(**numbers)
