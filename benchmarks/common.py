"""What all benchmarks share: rounds in turn, medians, ratios, CPU time of the whole machine, tables."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TINY = "hivemind-test/busybox:1"
"""The image that `make test` and `make bench` build from Debian's busybox-static."""


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to do the same thing; ``once`` does it a single time and returns when the result is there."""

    name: str
    once: Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of each round, and CPU seconds of the whole machine in each."""

    seconds: list[float]
    cpu: list[float]

    @property
    def p50(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """The slowest hundredth, or the slowest of fewer than a hundred."""
        return sorted(self.seconds)[max(0, int(len(self.seconds) * 0.99) - 1)]


def machine_cpu_seconds() -> float:
    """CPU time that the whole machine has spent so far, idle and waiting left out: /proc/stat."""
    fields = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def in_turn(ways: Sequence[Way], rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """Run all ways once per round, one after the other, so that a drift of the machine touches all alike."""
    timings = {way.name: Timing([], []) for way in ways}
    for number in range(warmup + rounds):
        for way in ways:
            cpu = machine_cpu_seconds()
            begun = time.perf_counter()
            way.once()
            took = time.perf_counter() - begun
            # Containers are torn down after their result is there: that work belongs to the way that caused it.
            time.sleep(0.15)
            if number >= warmup:
                timings[way.name].seconds.append(took)
                timings[way.name].cpu.append(machine_cpu_seconds() - cpu)
    return timings


def paired_ratio(ours: Timing, theirs: Timing) -> float:
    """Median over rounds of our seconds by theirs."""
    return statistics.median(a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True))


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose columns are as wide as they need to be."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n{title}")
    for row in [head, ["-" * width for width in widths], *rows]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    sys.stdout.flush()


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with a sensible number of digits."""
    return f"{seconds * 1000:.1f}"


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def program(
    arguments: Sequence[str], ready: Callable[[], bool], **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside us until the block ends; ``ready`` says when it can be used.

    Raises RuntimeError with the end of its output when it does not become ready within 60 s.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            list(arguments), stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
        )
        try:
            limit = time.monotonic() + 60
            while not ready():
                if process.poll() is not None or time.monotonic() > limit:
                    output.seek(0)
                    told = output.read()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{arguments[0]} did not become ready:\n{told}")
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def port_answers(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def have(*programs: str) -> bool:
    """Whether all programs are installed; says which are not."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        print(f"left out: {', '.join(missing)} not installed", file=sys.stderr)
    return not missing
