"""What a test may leave behind: nothing. Threads, open files, child processes, asyncio tasks, things in the engine."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

import engine_api
import waiting

# Begun once per process by a library, and kept by it: no test's own.
LIBRARY_THREADS = ("grpc", "_poller", "Thread-grpc", "asyncio_")
# gRPC's core keeps its polling descriptors for the life of the process.
LIBRARY_FILES = ("anon_inode:", "/dev/", "/proc/", "/sys/")
# Closing is asynchronous: sockets linger until their last callback has run.
SECONDS_TO_SETTLE = float(os.environ.get("LEAK_SECONDS", "5"))
SECONDS_IN_ENGINE = 15  # INV-5: 15 s later nothing of a task is left
OURS = "io.hivemind.node-id"


def threads() -> set[threading.Thread]:
    """The threads that count."""
    found = (thread for thread in threading.enumerate() if not thread.name.startswith(LIBRARY_THREADS))
    return {thread for thread in found if "(_poll_wrapper)" not in thread.name}  # gRPC's, begun again at will


def files() -> set[str]:
    """What the open file descriptors lead to; sockets and pipes bear their inode, so each is told from the next."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        try:
            target = os.readlink(entry.path)  # noqa: PTH115  (a path for each costs every test two milliseconds)
        except FileNotFoundError:
            continue  # the one that listed the folder
        if not target.startswith(LIBRARY_FILES):
            found.add(target)
    return found


def children() -> set[int]:
    """The processes that are ours, zombies too."""
    path = Path(f"/proc/self/task/{threading.main_thread().native_id}/children")
    return {int(number) for number in path.read_text(encoding="ascii").split()} if path.exists() else set()


def in_engine(engine: str) -> set[str]:
    """The containers, volumes and networks of any of our nodes."""
    label = json.dumps({"label": [OURS]})
    found = {
        f"container {item['Id'][:12]}" for item in engine_api.get(engine, "/containers/json", all="1", filters=label)
    }
    volumes = engine_api.get(engine, "/volumes", filters=label)["Volumes"] or []
    found |= {f"volume {item['Name']}" for item in volumes}
    return found | {f"network {item['Name']}" for item in engine_api.get(engine, "/networks", filters=label)}


def tasks() -> set[asyncio.Task[object]]:
    """The unfinished tasks of the running loop that are not a library's."""
    found = asyncio.all_tasks() - {asyncio.current_task()}
    return {task for task in found if not _is_of_grpc(task)}


def _is_of_grpc(task: asyncio.Task[object]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is None or "/grpc/" in code.co_filename or code.co_filename.endswith(".pyx")


def settled(
    kind: str, look: Callable[[], AbstractSet[object]], before: AbstractSet[object], seconds: float = SECONDS_TO_SETTLE
) -> None:
    """Wait until nothing is there that was not there before.

    Raises:
        AssertionError: something stayed; tells what.
    """

    def none_left() -> bool:
        if look() <= before:
            return True
        gc.collect()  # what only a cycle holds is no leak
        return look() <= before

    try:
        waiting.wait_for(none_left, description=f"no {kind} left behind", seconds=seconds)
    except AssertionError:
        raise AssertionError(f"left behind: {kind} {sorted(map(str, look() - before))}") from None
