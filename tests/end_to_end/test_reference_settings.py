"""The settings of the reference document's configuration example: each set by its plain name, each seen to act.

Workers started by the document's own command, told everything by their environment; the client looks at what they do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import draw_events
import engine_api
import installed
import pytest
import services
import waiting

from hivemind_worker import units
from hivemind_worker.client import shapes
from hivemind_worker.client.client import Client
from hivemind_worker.tasks import outcome, state

pytestmark = pytest.mark.sandbox
ROOT = Path(__file__).resolve().parents[2]
SMALL = {"memory_limit": "64m", "cpu_quota": 20_000, "disk_limit": "16m", "timeout": 90}


@dataclasses.dataclass(frozen=True)
class Worker:
    """A worker process that was told everything by its environment, and a client of its pool."""

    node_id: str
    address: str
    folder: Path
    client: Client

    def submit(self, command: str, **more: Any) -> str:
        (task_id,) = self.client.submit({"command": command, **SMALL, **more})
        return task_id

    def ended(self, command: str, **more: Any) -> shapes.Task:
        return self.client.wait(self.submit(command, **more), 40)[0]

    def node(self) -> shapes.Node:
        (found,) = self.client.nodes()
        return found

    def events(self) -> list[dict[str, Any]]:
        text = (self.folder / "logs" / "worker.log").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@contextlib.contextmanager
def worker(folder: Path, **variables: str) -> Iterator[Worker]:
    """A pool, and `python worker_node.py` with these variables and nothing on its command line."""
    folder.mkdir(parents=True, exist_ok=True)
    shell = installed.Shell(folder)
    node_id = f"ref-{secrets.token_hex(4)}"
    with services.Services(shell) as started, contextlib.ExitStack() as ending:
        _, address = started.pool()
        plain = {"NODE_ID": node_id, "NODE_POOL_ADDRESS": address, **variables}
        more = {"HIVEMIND_STATE_DIR": str(folder / "state"), "HIVEMIND_DRAIN_TIMEOUT": "0"}
        log = ending.enter_context((folder / "worker.err").open("wb"))
        process = subprocess.Popen(
            [sys.executable, ROOT / "worker_node.py"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env={**shell.environment, **more, **plain},
        )  # fmt: skip
        try:
            with Client(address) as client:
                waiting.wait_for(
                    lambda: [each for each in client.nodes() if each.status == "idle"],
                    description="the worker registered",
                    seconds=30,
                )
                yield Worker(node_id, address, folder, client)
        finally:
            process.terminate()
            assert process.wait(60) == 0, (folder / "worker.err").read_text()


@pytest.fixture(scope="module")
def told() -> Iterator[Worker]:
    variables: Mapping[str, str] = {
        "MAX_CPU_CORES": "1",
        "MAX_MEMORY_GB": "0.5",
        "MAX_DISK_GB": "0.25",
        "MAX_CONCURRENT_TASKS": "3",
        "HEARTBEAT_INTERVAL": "1",
        "DOCKER_ENABLED": "false",
        "WORK_DIR": "./work",
        "TEMP_DIR": "./temp",
        "LOG_DIR": "./logs",
    }
    # Not in pytest's own folder, which every session of pytest closes to the user that sandboxes are made under.
    with tempfile.TemporaryDirectory(prefix="hivemind-reference-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with worker(folder, **variables) as found:
            yield found


def running(told: Worker, tasks: Sequence[str]) -> list[str]:
    return [each for each in tasks if told.client.task(each).status is state.TaskState.RUNNING]


def test_node_id(told: Worker) -> None:
    assert told.node().node_id == told.node_id
    assert told.ended("true").node_id == told.node_id


@pytest.mark.long
def test_node_id_unset_is_made_once_and_kept(tmp_path: Path) -> None:
    with worker(tmp_path, NODE_ID="", DOCKER_ENABLED="false") as first:
        name = first.node().node_id
    with worker(tmp_path, NODE_ID="", DOCKER_ENABLED="false") as second:  # the same pool, which knows the first
        assert second.node().node_id == name != ""


def test_node_pool_address(told: Worker) -> None:
    (started,) = [event for event in told.events() if event["event_type"] == "worker_started"]
    assert started["details"]["pool"] == told.address
    assert told.node().node_id == told.node_id  # told by the pool that listens there


@pytest.mark.parametrize(
    ("capacity", "all_of_it", "more", "fitting", "too_large"),
    [
        ("cpu_cores", 1.0, "cpu", {"cpu_quota": 60_000}, {"cpu_quota": 110_000}),
        ("memory_bytes", units.GIB // 2, "memory", {"memory_limit": "300m"}, {"memory_limit": "513m"}),
        ("disk_bytes", units.GIB // 4, "disk", {"disk_limit": "150m"}, {"disk_limit": "257m"}),
    ],
    ids=["max_cpu_cores", "max_memory_gb", "max_disk_gb"],
)
def test_what_tasks_may_use_together(
    told: Worker, capacity: str, all_of_it: float, more: str, fitting: dict[str, Any], too_large: dict[str, Any]
) -> None:
    """The node offers so much; a task that wants more never runs here; two that do not fit together take turns."""
    assert getattr(told.node().capacity, capacity) == all_of_it
    never = told.submit("true", **too_large)
    said = told.client.task(never).waiting_because
    assert said.startswith(f"no node is large enough; {told.node_id}: ")
    assert more in said
    tasks = [told.submit("sleep 60", **fitting) for _ in range(2)]
    waiting.wait_for(lambda: running(told, tasks), description="one runs", seconds=60)
    assert told.ended("true").status is state.TaskState.COMPLETED  # there is a slot, and a small one fits beside it
    (first,) = running(told, tasks)
    (second,) = set(tasks) - {first}
    assert told.client.task(second).waiting_because == "waits for a node to have room"
    told.client.cancel(first)
    waiting.wait_for(lambda: running(told, [second]), description="the other has its turn", seconds=60)
    told.client.cancel([second, never])
    told.client.wait([*tasks, never], 40)


@pytest.mark.long
def test_task_timeout_and_rotated_logs(tmp_path: Path) -> None:
    rotated = {"HIVEMIND_LOG_FILE_BYTES": "1200", "HIVEMIND_LOG_FILE_COUNT": "2", "LOG_DIR": "./logs"}
    with worker(tmp_path, TASK_TIMEOUT="1.5", DOCKER_ENABLED="false", **rotated) as found:
        ended = found.ended("sleep 60")
        assert ended.reason is outcome.Reason.TIMEOUT
        assert ended.result is not None
        assert ended.result.limits is not None
        assert ended.result.limits.timeout_seconds == 1.5
        assert 1.0 < ended.ended_at - ended.started_at < 20.0  # as the pool has heard of it
        shorter, longer = found.ended("sleep 60", timeout=0.5), found.ended("sleep 60", timeout=50)
        assert [each.reason for each in (shorter, longer)] == [outcome.Reason.TIMEOUT] * 2
        limits = [
            each.result.limits.timeout_seconds for each in (shorter, longer) if each.result and each.result.limits
        ]
        assert limits == [0.5, 1.5]
    files = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in files] == ["worker.log", "worker.log.1", "worker.log.2"]
    for path in files:
        assert 0 < path.stat().st_size <= 1200
        assert all(json.loads(line)["event_type"] for line in path.read_text().splitlines())


def test_max_concurrent_tasks(told: Worker) -> None:
    tasks = [told.submit("sleep 60") for _ in range(4)]
    waiting.wait_for(lambda: len(running(told, tasks)) == 3, description="three run", seconds=60)
    (fourth,) = set(tasks) - set(running(told, tasks))
    assert told.client.task(fourth).waiting_because == "waits for a node to have room"
    assert len(told.node().attempts) == 3
    told.client.cancel(running(told, tasks)[0])
    waiting.wait_for(lambda: running(told, [fourth]), description="the fourth has its turn", seconds=60)
    told.client.cancel(tasks)
    told.client.wait(tasks, 40)


def test_heartbeat_interval(told: Worker) -> None:
    beats: list[float] = []

    def four() -> bool:
        at = told.node().last_heartbeat_at
        if at not in beats:
            beats.append(at)
        return len(beats) == 4

    waiting.wait_for(four, description="four heartbeats", seconds=60)
    assert 1.5 < beats[-1] - beats[0] < 12  # three intervals of a second; thirty would be the default's


def test_docker_enabled_false(told: Worker) -> None:
    assert "sandbox" in told.node().capabilities
    assert "docker" not in told.node().capabilities
    ended = told.ended("true")
    assert ended.result is not None
    assert ended.result.isolation == "sandbox"


@pytest.mark.long
@pytest.mark.docker
def test_docker_enabled_true_and_docker_network(tmp_path: Path, docker_url: str, python_image: str) -> None:
    network = f"ref-{secrets.token_hex(4)}"
    more = {"HIVEMIND_ALLOW_EGRESS": "true", "HIVEMIND_DEFAULT_IMAGE": python_image, "DOCKER_HOST": docker_url}
    more["HIVEMIND_EGRESS_PATH"] = "bridge"
    try:
        with worker(tmp_path, DOCKER_ENABLED="true", DOCKER_NETWORK=network, **more) as found:
            assert "docker" in found.node().capabilities
            script = "python3 -c 'import socket; print([name for _, name in socket.if_nameindex()])'; sleep 1000"
            task_id = found.submit(script, network="egress")
            # Not any capsule: the node tries its defences in capsules of its own, which have no network.
            wanted = json.dumps({"label": [f"io.hivemind.node-id={found.node_id}", f"io.hivemind.task-id={task_id}"]})

            def capsule() -> Any:
                there = engine_api.get(docker_url, "/containers/json", filters=wanted)
                return there and engine_api.get(docker_url, f"/containers/{there[0]['Id']}/json")

            inspected = waiting.wait_for(capsule, description="its container runs", seconds=30)
            (named,) = engine_api.get(docker_url, "/networks", filters=json.dumps({"name": [network]}))
            assert inspected["HostConfig"]["NetworkMode"] == named["Id"]
            logs = found.client.logs(task_id, follow=True)
            assert b"eth0" in next(logs).data
            logs.close()  # type: ignore[attr-defined]
            found.client.cancel(task_id)
            ended = found.client.wait(task_id, 40)[0]
            assert ended.result is not None
            assert ended.result.isolation == "docker"
    finally:
        for left in engine_api.get(docker_url, "/networks", filters=json.dumps({"name": [network]})):
            engine_api._call(docker_url, "DELETE", f"/networks/{left['Id']}")


def test_work_dir(told: Worker) -> None:
    content = secrets.token_bytes(3_000_000)
    path = told.folder / "large-input"
    path.write_bytes(content)
    (task_id,) = told.client.submit(
        {"command": "sleep 60", "input_files": {"in": {"file": "large-input"}}, **SMALL},
        base=told.folder,
    )

    def stored() -> bool:
        return any(each.read_bytes() == content for each in (told.folder / "work" / "objects").glob("??/*"))

    waiting.wait_for(stored, description="the input lies in the work folder", seconds=60)
    told.client.cancel(task_id)
    told.client.wait(task_id, 40)
    waiting.wait_for(lambda: not stored(), description="the input has gone with its task", seconds=60)


def test_temp_dir(told: Worker) -> None:
    doctor = installed.Shell(told.folder).hivemind("doctor", "--isolation=sandbox", "--json")
    enforced = {row["check"]: row["in_force"] for row in doctor.objects}
    if not enforced["sandbox: memory limit"]:
        pytest.skip("where memory cannot be limited every workspace lies in memory")
    task_id = told.submit("touch here; sleep 60", disk_limit="200m", memory_limit="64m")
    temp = told.folder / "temp"
    waiting.wait_for(
        lambda: list(temp.glob("hivemind-workspace-*/here")), description="a large workspace lies there", seconds=60
    )
    told.client.cancel(task_id)
    told.client.wait(task_id, 40)
    waiting.wait_for(lambda: not list(temp.iterdir()), description="the workspace has gone", seconds=60)


def test_log_dir(told: Worker) -> None:
    done = told.ended("true")

    def said() -> list[dict[str, Any]]:
        return [event for event in told.events() if event.get("task_id") == done.id]

    waiting.wait_for(lambda: len(said()) >= 2, description="the task's events are in the log folder")
    assert {event["node_id"] for event in said()} == {told.node_id}
    listed = {event.name for event in draw_events.events()} | {"library", "log_events_lost"}
    assert {event["event_type"] for event in told.events()} <= listed  # docs/events.md has them all
