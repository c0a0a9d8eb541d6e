from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import node_parts
import pytest
import reference_pool
import waiting

from hivemind_worker.concurrency import stopping

TASKS: list[dict[str, Any]] = [
    {"id": "hello", "command": "echo hello; echo oops >&2; printf result > results/out.txt"},
    {"id": "inputs", "command": "cat in/name.txt > results/copy", "input_files": {"in/name.txt": "wörld"}},
    {"id": "fails", "command": "echo bad; exit 3", "memory_limit": "64m", "cpu_quota": 50_000, "timeout": 30.0},
    {"id": "hangs", "command": "sleep 60", "timeout": 0.3},
    {"id": "large", "command": "head -c 5000000 /dev/zero > results/large; printf small > results/small"},
    {"id": "../evil", "command": "true"},
]


class Pool:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{port}"

    def heard(self, call: str) -> list[dict[str, Any]]:
        path = self.folder / "heard.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [said for line in lines if (said := json.loads(line))["call"] == call]

    def ends(self) -> dict[str, dict[str, Any]]:
        return {said["task_id"]: said for said in self.heard("ReportTaskResult") if said["status"] != "running"}


@pytest.fixture
def start_pool(tmp_path: Path) -> Iterator[Callable[[list[dict[str, Any]]], Pool]]:
    started: list[subprocess.Popen[str]] = []

    def start(tasks: list[dict[str, Any]]) -> Pool:
        folder = tmp_path / "reference-pool"
        folder.mkdir()
        (folder / "tasks.json").write_text(json.dumps(tasks))
        program = [sys.executable, reference_pool.__file__, str(folder)]
        process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return Pool(folder, int(process.stdout.readline()))

    yield start
    for process in started:
        process.communicate()


async def test_a_pool_that_knows_four_calls_gets_its_tasks_done(
    tmp_path: Path, start_pool: Callable[[list[dict[str, Any]]], Pool]
) -> None:
    pool = start_pool(TASKS)
    async with node_parts.running(pool.address, tmp_path / "work") as node:
        await waiting.wait_until(lambda: len(pool.ends()) == len(TASKS), description="all tasks reported", seconds=30)
        snapshot = node.node.snapshot()
        assert snapshot.plain_pool
        assert snapshot.session_id == ""
        polls = len(pool.heard("GetAssignedTasks"))
        await waiting.wait_until(lambda: len(pool.heard("GetAssignedTasks")) > polls + 2, description="more polls")
        assert list(node.files.artifacts()) == []
    ends = pool.ends()
    result = {name: end["result"] for name, end in ends.items()}
    data = {
        name: {file: base64.b64decode(content) for file, content in each["result_data"].items()}
        for name, each in result.items()
    }
    assert (ends["hello"]["status"], result["hello"]["status"]) == ("completed", "completed")
    assert "hello" in result["hello"]["logs"]
    assert "oops" in result["hello"]["logs"]
    assert data["hello"] == {"out.txt": b"result"}
    assert data["inputs"] == {"copy": "wörld".encode()}
    assert (ends["fails"]["status"], result["fails"]["exit_code"]) == ("failed", 3)
    assert ends["hangs"]["status"] == "failed"
    assert (ends["large"]["status"], data["large"]) == ("completed", {"small": b"small"})
    assert ends["../evil"]["status"] == "failed"
    assert "id" in result["../evil"]["error"]


async def test_each_task_runs_once_however_often_it_is_handed_out(
    tmp_path: Path, start_pool: Callable[[list[dict[str, Any]]], Pool]
) -> None:
    gate = tmp_path / "gate"
    tasks = [{"id": f"t{number}", "command": "sleep 0.1"} for number in range(5)]
    pool = start_pool([{"id": "last", "command": f"while [ ! -e '{gate}' ]; do sleep 0.05; done"}, *tasks])

    def handed_out() -> int:
        return sum(len(said["given"]) for said in pool.heard("GetAssignedTasks"))

    async with node_parts.running(pool.address, tmp_path / "work", max_concurrent_tasks=2) as node:
        # With one of its two places free the node asks, and is given the one that still runs.
        await waiting.wait_until(lambda: handed_out() > 6, description="it was handed out again", seconds=30)
        gate.touch()
        await waiting.wait_until(lambda: len(pool.ends()) == 6, description="all tasks reported", seconds=30)
        assert sorted(node.runs.ran) == sorted((name, 1) for name in ("last", *(task["id"] for task in tasks)))
        assert node.runs.most_at_once == 2


async def test_registration_and_heartbeats_say_what_the_reference_says(
    tmp_path: Path, start_pool: Callable[[list[dict[str, Any]]], Pool]
) -> None:
    pool = start_pool([])
    async with node_parts.running(pool.address, tmp_path / "work") as node:
        await waiting.wait_until(lambda: len(pool.heard("UpdateNodeStatus")) >= 3, description="three heartbeats")
        assert pool.heard("RegisterNode") == [
            {"call": "RegisterNode", "node_id": "node-1", "cpu_cores": 4.0, "ip": "127.0.0.1"}
        ]
        node.stop.request(stopping.StopLevel.DRAIN, "enough")
        await waiting.wait_until(
            lambda: pool.heard("UpdateNodeStatus")[-1]["status"] == "offline", description="the last word"
        )
    assert pool.heard("UpdateNodeStatus")[0]["status"] == "idle"
