"""L01: `kill -9` of the worker at each step, then it is started again: the same capsule, one result, nothing left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import in_containers
import mortal
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2
SLOW = 'i=0; while [ $i -lt 40 ]; do echo "line $i"; i=$((i+1)); sleep 0.05; done; seq 1 20000 > results/numbers'
LINES = b"".join(b"line %d\n" % number for number in range(40))
NUMBERS = hashlib.sha256(b"".join(b"%d\n" % number for number in range(1, 20_001))).hexdigest()


@pytest_asyncio.fixture
async def worker(docker_url: str, busybox_image: str, tmp_path: Path) -> AsyncIterator[mortal.Mortal]:
    async with in_containers.worker(docker_url, busybox_image, tmp_path) as made:
        yield made


def pids(docker_url: str, node_id: str) -> set[str]:
    return in_containers.pids(docker_url, node_id, "while")


def owes_nothing(worker: mortal.Mortal) -> bool:
    return in_containers.owes_nothing(worker)


@pytest.mark.docker
async def test_l01_the_tasks_own_process_outlives_its_worker_and_the_next_one_tells_all(
    worker: mortal.Mortal, docker_url: str
) -> None:
    await worker.start()
    task_id = await worker.submit(SLOW)
    before = await in_containers.runs(docker_url, worker)
    worker.kill()
    worker.begin()
    assert pids(docker_url, worker.node_id) == before
    info = await worker.ended(task_id)
    assert (info.state, info.attempt, info.result.logs.encode()) == ("completed", 1, LINES), worker.log()
    assert [(file.name, file.sha256) for file in info.result.files] == [("numbers", NUMBERS)]
    assert await worker.output(task_id) == LINES
    assert (await worker.events(task_id)).count("complete") == 1
    await waiting.wait_until(lambda: owes_nothing(worker), description="nothing is kept that nobody wants")


def in_sandbox(word: str) -> set[int]:
    """The host's numbers of the processes that have a word in their command line."""
    pids = {int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()}
    return {pid for pid in pids - {os.getpid()} if word in command_line(pid)}


def shells(word: str) -> set[int]:
    """Those that no other of them has started: until it runs a program, a child has the words of its shell."""
    found = in_sandbox(word)
    return {pid for pid in found if parent(pid) not in found}


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    return 0


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


@pytest_asyncio.fixture
async def sandboxed(tmp_path: Path) -> AsyncIterator[mortal.Mortal]:
    words = ("--isolation=sandbox", "--log-format=json", "--heartbeat-interval=1", "--grace-seconds=1")
    async with mortal.node(tmp_path, *words, pool={"lease_seconds": 3.0}) as made:
        yield made
    await waiting.wait_until(lambda: not in_sandbox(str(made.state)), description="nothing of it runs on")


@pytest.mark.sandbox
async def test_l01_a_sandbox_outlives_its_worker_and_the_next_one_tells_all(sandboxed: mortal.Mortal) -> None:
    word = f"mark-{sandboxed.node_id}"
    await sandboxed.start()
    task_id = await sandboxed.submit(f": {word}; {SLOW}", memory_limit="256m", disk_limit="1g")
    await waiting.wait_until(lambda: in_sandbox(word), description="the task runs", seconds=30)
    before = shells(word)
    sandboxed.kill()
    assert shells(word) == before
    sandboxed.begin()
    assert shells(word) == before
    info = await sandboxed.ended(task_id)
    assert (info.state, info.attempt, info.result.logs.encode()) == ("completed", 1, LINES), sandboxed.log()
    assert [(file.name, file.sha256) for file in info.result.files] == [("numbers", NUMBERS)]
    assert await sandboxed.output(task_id) == LINES
    await waiting.wait_until(lambda: owes_nothing(sandboxed), description="nothing is kept that nobody wants")


@pytest.mark.long
@pytest.mark.sandbox
async def test_l01_a_sandbox_that_no_lease_covers_is_buried_by_the_next_worker(sandboxed: mortal.Mortal) -> None:
    word = f"mark-{sandboxed.node_id}"
    await sandboxed.start()
    task_id = await sandboxed.submit(f": {word}; while true; do sleep 0.1; done")
    await waiting.wait_until(lambda: in_sandbox(word), description="the task runs", seconds=30)
    sandboxed.kill()

    async def queued() -> bool:
        return (await sandboxed.at.info(task_id)).state == "queued"

    look: Callable[[], bool | Awaitable[bool]] = queued
    await waiting.wait_until(look, description="its lease runs out", seconds=20)
    assert in_sandbox(word)
    await sandboxed.at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
    await sandboxed.start()
    await waiting.wait_until(lambda: not in_sandbox(word), description="it is buried", seconds=20)


@pytest.mark.long
@pytest.mark.sandbox
async def test_l01_what_holds_the_sandboxes_is_killed_and_the_next_task_is_held_anew(sandboxed: mortal.Mortal) -> None:
    word = f"mark-{sandboxed.node_id}"
    await sandboxed.start()
    task_id = await sandboxed.submit(f": {word}; {SLOW}")
    await waiting.wait_until(lambda: in_sandbox(word), description="the task runs", seconds=30)
    (holder,) = {pid for pid in in_sandbox(str(sandboxed.state)) if "holder.py" in command_line(pid)}
    os.kill(holder, signal.SIGKILL)
    info = await sandboxed.ended(task_id)
    assert (info.state, info.attempt, info.result.logs.encode()) == ("completed", 2, LINES), sandboxed.log()
    (anew,) = {pid for pid in in_sandbox(str(sandboxed.state)) if "holder.py" in command_line(pid)}
    assert anew != holder


STEPS = {
    "pull": "runtime.docker.images:Images.ensure:before",
    "create": "runtime.docker.docker_executor:DockerExecutor._start:before",
    "start": "runtime.docker.docker_executor:DockerExecutor._start:after",
    "placed": "worker.attempts.safekeeping:Safekeeping.placed:after",
    "ended": "worker.attempts.safekeeping:Safekeeping.ended:before",
    "written": "worker.attempts.safekeeping:Safekeeping.ended:after",
    "mid-upload": "worker.attempts.transfers:_pieces:after:2",
    "before-the-ack": "worker.attempts.safekeeping:Safekeeping.close:before",
    "after-the-ack": "worker.attempts.safekeeping:Safekeeping.close:after",
}


# Each in seconds, but together a minute: the one that only its result can tell is run always.
ALWAYS = {"before-the-ack"}


@pytest.mark.docker
@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in ALWAYS else pytest.mark.long) for step in STEPS]
)
async def test_l01_killed_at_each_step(worker: mortal.Mortal, step: str) -> None:
    await worker.start(STEPS[step])
    task_id = await worker.submit("echo once; head -c 5000000 /dev/zero > results/large; seq 1 20000 > results/numbers")
    await worker.killed()
    await worker.start()
    info = await worker.ended(task_id)
    assert (info.state, info.attempt, info.result.logs) == ("completed", 1, "once\n"), worker.log()
    found = {file.name: (file.size, file.sha256) for file in info.result.files}
    assert found == {
        "large": (5_000_000, hashlib.sha256(bytes(5_000_000)).hexdigest()),
        "numbers": (108_894, NUMBERS),
    }
    assert await worker.output(task_id) == b"once\n"
    assert (await worker.events(task_id)).count("complete") == 1
    await waiting.wait_until(lambda: owes_nothing(worker), description="nothing is kept that nobody wants")
