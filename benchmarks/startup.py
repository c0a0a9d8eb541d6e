"""How immediate it is: process start to first output, to a registered node; and what an idle worker costs.

Usage: python benchmarks/startup.py [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import ours
import psutil


def first_output(isolation: str) -> float:
    """Seconds from starting `hivemind run -- echo` to the first byte on its standard output."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [*ours.HIVEMIND, "run", "--isolation", isolation, "--image", common.TINY, "--", "echo", "hello"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "HIVEMIND_STATE_DIR": folder},
        )
        assert process.stdout is not None
        first = process.stdout.read(1)
        took = time.perf_counter() - begun
        _, told = process.communicate(timeout=60)
        ours.expect(first == b"h" and process.returncode == 0, f"hivemind run failed: {told.decode()}")
        return took


def version() -> float:
    """Seconds that `hivemind --version` takes."""
    begun = time.perf_counter()
    subprocess.run([*ours.HIVEMIND, "--version"], check=True, capture_output=True)
    return time.perf_counter() - begun


def bare_python() -> float:
    """Seconds that a Python interpreter takes to do nothing: the floor of all of these."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return time.perf_counter() - begun


def registered(isolation: str) -> tuple[float, float, float]:
    """Seconds from starting a worker to its registration; then, idle for 20 s, its memory in MB and its CPU in %."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(ours.pool(folder))
        client = stack.enter_context(ours.clients.Client(address))
        client.nodes()  # so that the client's own start is over
        begun = time.perf_counter()
        arguments = [*ours.HIVEMIND, "worker", "--isolation", isolation, "--node-id", "bench-idle"]
        process = stack.enter_context(ours.worker(folder, address, arguments, lambda: bool(client.nodes())))
        took = time.perf_counter() - begun
        measured = psutil.Process(process.pid)
        time.sleep(2)
        before = measured.cpu_times()
        time.sleep(20)
        after = measured.cpu_times()
        busy = (after.user + after.system) - (before.user + before.system)
        return took, measured.memory_info().rss / 1e6, busy / 20 * 100


def main(rounds: int) -> None:
    """Measure and print."""
    kinds = [name for name, program in (("sandbox", "bwrap"), ("docker", "docker")) if common.have(program)]
    cases: dict[str, Callable[[], float]] = {"python -c ''": bare_python, "hivemind --version": version}
    for kind in kinds:
        cases[f"hivemind run: first output, {kind}"] = lambda kind=kind: first_output(kind)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    rows = []
    for name, case in cases.items():
        case()
        found = [case() for _ in range(rounds)]
        rows.append([name, common.milliseconds(statistics.median(found)), common.milliseconds(max(found))])
    common.table(f"From the key press, {rounds} rounds", ["what", "p50 ms", "max ms"], rows)
    idle = [[kind, *registered(kind)] for kind in kinds]
    shown = [[str(kind), common.milliseconds(float(took)), f"{rss:.0f}", f"{cpu:.2f}"] for kind, took, rss, cpu in idle]
    common.table("A worker", ["isolation", "start to registered, ms", "idle MB", "idle CPU %"], shown)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    main(parser.parse_args().rounds)
