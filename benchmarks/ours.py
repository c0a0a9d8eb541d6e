"""Our own way: a pool and a worker as a user starts them, a client of the library, one task at a time or many."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import common

from hivemind_worker.client import client as clients
from hivemind_worker.wire import grpc_core

HIVEMIND = [sys.executable, "-m", "hivemind_worker"]


@contextlib.contextmanager
def pool(folder: Path) -> Iterator[str]:
    """A pool of its own with its files in ``folder``; yields its address."""
    address = f"127.0.0.1:{common.free_port()}"
    arguments = [*HIVEMIND, "pool", "--listen", address, "--store", str(folder / "pool.db")]
    with common.program(arguments, lambda: common.port_answers(int(address.rsplit(":", 1)[1])), **private(folder)):
        yield address


@contextlib.contextmanager
def worker(
    folder: Path, address: str, arguments: Sequence[str], ready: Callable[[], bool] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process started with ``arguments``; yields it once it is ``ready``: once the pool knows it."""

    def registered() -> bool:
        listed = subprocess.run(
            [*HIVEMIND, "nodes", "--json", "--node-pool", address], capture_output=True, check=False, text=True
        )
        nodes = [json.loads(line) for line in listed.stdout.splitlines()]
        return any(node["status"] in {"idle", "busy"} for node in nodes)

    with common.program([*arguments, "--node-pool", address], ready or registered, **private(folder)) as process:
        yield process


@contextlib.contextmanager
def system(isolation: str, slots: int) -> Iterator[clients.Client]:
    """Pool, worker and client; ``isolation`` is docker or sandbox."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(pool(folder))
        arguments = [*HIVEMIND, "worker", "--isolation", isolation, "--max-concurrent-tasks", str(slots)]
        arguments += ["--default-image", common.TINY, "--node-id", f"bench-{isolation}-{slots}"]
        stack.enter_context(worker(folder, address, arguments))
        yield stack.enter_context(clients.Client(address))


@contextlib.contextmanager
def dispatch_only() -> Iterator[clients.Client]:
    """Pool, and a whole worker node whose executor does nothing: what is left is dispatch."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(pool(folder))
        node = [sys.executable, str(Path(__file__).parent / "_noop_node.py"), "--folder", str(folder / "node")]
        stack.enter_context(worker(folder, address, node))
        yield stack.enter_context(clients.Client(address))


def one(client: clients.Client, isolation: str = "") -> None:
    """Submit one task and wait for its result; raises where it did not complete."""
    task = client.run({"command": ["true"], "cpu_quota": 100_000})
    expect(task.status == "completed", f"{task.id} {task.status}: {task.result}")
    if isolation:
        found = task.result.isolation if task.result else ""
        expect(found == isolation, f"ran in {found!r}, not in {isolation}")


def many(client: clients.Client, count: int) -> None:
    """Submit ``count`` tasks and wait for all of them."""
    tasks = client.wait(client.submit([{"command": ["true"], "cpu_quota": 100_000} for _ in range(count)]))
    wrong = [task for task in tasks if task.status != "completed"]
    expect(not wrong, f"{len(wrong)} of {count} did not complete, the first: {wrong[:1]}")


def expect(fine: bool, otherwise: str) -> None:  # noqa: FBT001  (reads as an assertion that survives python -O)
    """Stop a benchmark whose work went wrong: its figure would be of something else."""
    if not fine:
        raise RuntimeError(otherwise)


def private(folder: Path) -> dict[str, str]:
    """Environment of a pool or a worker that keeps all its files in ``folder``."""
    return {
        "HIVEMIND_STATE_DIR": str(folder / "state"),
        "HIVEMIND_WORK_DIR": str(folder / "work"),
        "HIVEMIND_LOG_DIR": str(folder / "log"),
        "PATH": os.environ["PATH"],
        **grpc_core.SETTINGS,  # as our programs set for themselves, and the node that does nothing must be told
        "HIVEMIND_OVERLOAD_CPU_PERCENT": "100",  # the peers beside it are no reason to rest
    }
