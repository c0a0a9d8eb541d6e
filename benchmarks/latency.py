"""Submit to result of a no-op task, one at a time: whole system, peers and the bare floor, in turn in one run.

Usage: python benchmarks/latency.py [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib

import common
import ours
import peers

BASES = ("celery + docker-py", "aiodocker, bare sequence", "docker-py, none")


def ways(stack: contextlib.ExitStack) -> list[common.Way]:
    """Everything that can be measured on this machine."""
    found = [common.Way("fork + exec, no fence", peers.fork_and_exec)]
    if common.have("bwrap"):
        sandbox = stack.enter_context(ours.system("sandbox", 1))
        found.append(common.Way("hivemind, sandbox", lambda: ours.one(sandbox, "sandbox")))
    if common.have("docker"):
        contained = stack.enter_context(ours.system("docker", 1))
        found += [
            common.Way("hivemind, docker, cold", lambda: ours.one(contained, "docker")),
            common.Way("aiodocker, bare sequence", stack.enter_context(peers.bare_aiodocker())),
            common.Way("docker-py, none", stack.enter_context(peers.docker_py())),
            common.Way("docker run, none", peers.docker_run("none")),
            common.Way("docker run, bridge", peers.docker_run("bridge")),
        ]
    if common.have("docker", "redis-server"):
        module = stack.enter_context(peers.celery(1))
        found.append(
            common.Way("celery + docker-py", lambda: module.in_container.delay(common.TINY, ["true"]).get(timeout=60))
        )
    return found


def main(rounds: int) -> None:
    """Measure and print."""
    with contextlib.ExitStack() as stack:
        timings = common.in_turn(ways(stack), rounds)
    bases = [base for base in BASES if base in timings]
    rows = []
    for name, timing in timings.items():
        ratios = [f"{common.paired_ratio(timing, timings[base]):.3f}" for base in bases]
        cpu = sum(timing.cpu) / len(timing.cpu)
        rows.append(
            [name, common.milliseconds(timing.p50), common.milliseconds(timing.p99), common.milliseconds(cpu), *ratios]
        )
    head = ["way", "p50 ms", "p99 ms", "CPU ms", *[f"÷ {base}" for base in bases]]
    common.table(f"One no-op task at a time, {rounds} rounds in turn", head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    main(parser.parse_args().rounds)
