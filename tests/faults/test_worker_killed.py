"""L01: `kill -9` of the worker at each step, then it is started again: the same capsule, one result, nothing left."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import engine_api
import mortal
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.journal import reader

MIB = 1024**2
SLOW = 'i=0; while [ $i -lt 40 ]; do echo "line $i"; i=$((i+1)); sleep 0.05; done; seq 1 20000 > results/numbers'
LINES = b"".join(b"line %d\n" % number for number in range(40))
NUMBERS = hashlib.sha256(b"".join(b"%d\n" % number for number in range(1, 20_001))).hexdigest()


@pytest_asyncio.fixture
async def worker(docker_url: str, busybox_image: str, tmp_path: Path) -> AsyncIterator[mortal.Mortal]:
    words = (f"--docker-host={docker_url}", f"--default-image={busybox_image}", "--heartbeat-interval=1")
    async with mortal.node(tmp_path, "--isolation=docker", "--log-format=json", *words) as made:
        yield made
    assert not of_node(docker_url, made.node_id)


def of_node(docker_url: str, node_id: str) -> list[str]:
    """Ids of its containers."""
    filters = f'{{"label":["io.hivemind.node-id={node_id}"]}}'
    return [found["Id"] for found in engine_api.get(docker_url, "/containers/json", all="1", filters=filters)]


def pids(docker_url: str, node_id: str) -> set[str]:
    """The host's numbers of the processes in its capsules."""
    found = set()
    for container in of_node(docker_url, node_id):
        try:
            said = engine_api.get(docker_url, f"/containers/{container}/top", ps_args="-o pid,args")
        except engine_api.EngineRefusedError:
            continue  # not begun, or gone
        found |= {row[0] for row in said["Processes"] if "while" in row[1]}
    return found


def owes_nothing(worker: mortal.Mortal) -> bool:
    return not worker.left() and not reader.read(worker.state / "worker.journal").holdings.attempts


@pytest.mark.docker
async def test_l01_the_tasks_own_process_outlives_its_worker_and_the_next_one_tells_all(
    worker: mortal.Mortal, docker_url: str
) -> None:
    await worker.start()
    task_id = await worker.submit(SLOW)
    await waiting.wait_until(lambda: pids(docker_url, worker.node_id), description="the task runs", seconds=30)
    before = pids(docker_url, worker.node_id)
    worker.kill()
    await worker.start()
    assert pids(docker_url, worker.node_id) == before
    info = await worker.ended(task_id)
    assert (info.state, info.attempt, info.result.logs.encode()) == ("completed", 1, LINES), worker.log()
    assert [(file.name, file.sha256) for file in info.result.files] == [("numbers", NUMBERS)]
    assert await worker.output(task_id) == LINES
    assert (await worker.events(task_id)).count("complete") == 1
    await waiting.wait_until(lambda: owes_nothing(worker), description="nothing is kept that nobody wants")


STEPS = {
    "pull": "containers.images:Images.ensure:before",
    "create": "executors.docker:DockerExecutor._start:before",
    "start": "executors.docker:DockerExecutor._start:after",
    "placed": "node.safekeeping:Safekeeping.placed:after",
    "ended": "node.safekeeping:Safekeeping.ended:before",
    "written": "node.safekeeping:Safekeeping.ended:after",
    "mid-upload": "node.transfers:_pieces:after:2",
    "before-the-ack": "node.safekeeping:Safekeeping.close:before",
    "after-the-ack": "node.safekeeping:Safekeeping.close:after",
}


@pytest.mark.docker
@pytest.mark.parametrize("step", STEPS)
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
