"""SIGHUP: a pool and a worker read their settings file anew, take over what can be, and say what needs a new start."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import installed
import pytest
import services
import waiting

from hivemind_worker.client import client

pytestmark = pytest.mark.sandbox

SMALL = {"cpu_quota": 10_000, "memory_limit": "64m"}


class Run:
    """A pool and a worker that runs one task at a time, with one settings file."""

    def __init__(self, home: Path, started: services.Services) -> None:
        self.file = home / "hivemind.toml"
        self.log = home / "log"
        self.write(max_concurrent_tasks=1)
        self.pool, self.address = started.pool(f"--config={self.file}")
        self.worker = started.worker("rereads", self.address, "--isolation=sandbox", f"--config={self.file}")

    def write(self, more: str = "", **limits: int) -> None:
        said = "\n".join(f"{name} = {value}" for name, value in limits.items())
        self.file.write_text(f"[limits]\n{said}\n{more}\n")

    def read_again(self, process: subprocess.Popen[bytes], name: str, event: str) -> dict[str, Any]:
        """Have it read its settings; the details of the event that tells of it."""
        before = len(self.events(name, event))
        process.send_signal(signal.SIGHUP)
        waiting.wait_for(lambda: len(self.events(name, event)) > before, description=event, seconds=20)
        return self.events(name, event)[-1]

    def events(self, name: str, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in (self.log / f"{name}.log").read_text().splitlines()]
        return [each["details"] for each in found if each["event_type"] == event]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    home = tmp_path_factory.mktemp("settings")
    with services.Services(installed.Shell(home)) as started:
        yield Run(home, started)


@pytest.fixture
def at(run: Run) -> Iterator[client.Client]:
    with client.Client(run.address) as made:
        yield made


def running(at: client.Client) -> int:
    return sum(task.status == "running" for task in at.tasks())


@pytest.mark.timeout(200)
def test_a_worker_takes_more_tasks_at_once_and_goes_on_with_what_runs(run: Run, at: client.Client) -> None:
    ids = at.submit([{"command": "sleep 600", **SMALL}] * 2)
    try:
        waiting.wait_for(lambda: running(at) == 1, description="one task runs", seconds=30)
        run.write('task_timeout = 77\n[node]\nlabels = {shelf = "top"}\npoll_wait_seconds = 5', max_concurrent_tasks=2)
        told = run.read_again(run.worker, "worker", "settings_read")
        assert told["taken_over"] == {"labels": "shelf=top", "max_concurrent_tasks": "2", "task_timeout": "77"}
        assert told["need_a_new_start"] == ["poll_wait_seconds"]
        waiting.wait_for(lambda: running(at) == 2, description="both run", seconds=30)
        waiting.wait_for(lambda: at.nodes()[0].max_concurrent_tasks == 2, description="the pool knows", seconds=20)
        assert at.nodes()[0].labels == {"shelf": "top"}
    finally:
        at.cancel(ids)
    ended = at.wait(ids, 30)
    assert [task.attempt for task in ended] == [1, 1]
    limits = [task.result.limits.timeout_seconds for task in ended if task.result and task.result.limits]
    assert sorted(limits) == [77, 3600]
    assert not run.events("worker", "internal_error")


def test_what_cannot_be_read_changes_nothing(run: Run, at: client.Client) -> None:
    before = at.nodes()[0].max_concurrent_tasks
    run.write("[logging]\nlog_level = 'loud'", max_concurrent_tasks=3)
    told = run.read_again(run.worker, "worker", "settings_refused")
    assert "log_level" in told["why"]
    assert at.nodes()[0].max_concurrent_tasks == before
    run.write("[logging]\nlog_level = 'debug'", max_concurrent_tasks=1)
    assert run.read_again(run.worker, "worker", "settings_read")["taken_over"]["log_level"] == "debug"
    (ended,) = at.wait(at.submit({"command": "echo works", **SMALL}), 30)
    assert ended.result is not None
    assert ended.result.logs.text == b"works\n"


def test_a_pool_takes_over_what_it_says_to_nodes_and_about_tasks(run: Run, at: client.Client) -> None:
    run.write("[pool]\nmax_attempts = 7\nlease_seconds = 90")
    told = run.read_again(run.pool, "pool", "settings_read")
    assert told["taken_over"]["pool_max_attempts"] == "7"
    assert told["need_a_new_start"] == ["pool_lease_seconds"]
    (ended,) = at.wait(at.submit({"command": "true", **SMALL}), 30)
    assert ended.max_attempts == 7
