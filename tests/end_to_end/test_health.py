"""`hivemind health`, and what a worker and a pool answer over HTTP, as whoever watches them sees it."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import waiting
from installed import Said, Shell
from prometheus_client import parser
from services import Services

CHECKS = {"node_pool", "docker", "resources", "disk_space"}

pytestmark = pytest.mark.sandbox


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def _get(address: str, path: str, **headers: str) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _health(shell: Shell, name: str, *words: str) -> Said:
    return shell.hivemind("health", f"--state-dir={shell.home / name}", *words)


def _address(shell: Shell, name: str, what: str = "worker") -> str:
    return (shell.home / name / f"{what}-http").read_text().strip()


@pytest.mark.long
def test_a_worker_and_its_pool_are_well_until_the_pool_goes(shell: Shell) -> None:
    with Services(shell) as services:
        pool, address = services.pool("--pool-lease-seconds=6")
        services.worker("one", address, "--isolation=sandbox")
        well = _health(shell, "one")
        assert well.code == 0, well.err
        assert "node_pool:  Node Pool connection OK" in well.text
        assert _health(shell, "one", "-q").out == b""

        def tried() -> dict[str, Any] | None:
            """What it says once what fences its tasks was tried."""
            (report,) = _health(shell, "one", "--json").objects
            return None if report["not_ready_because"] else report

        said = waiting.wait_for(tried, description="the worker is ready", seconds=30)
        assert said is not None
        assert (said["what"], said["status"]) == ("worker", "healthy")
        assert set(said["checks"]) == CHECKS
        assert all(set(check) == {"status", "message"} for check in said["checks"].values())
        (of_pool,) = _health(shell, "pool", "--json").objects
        assert (of_pool["what"], of_pool["status"]) == ("pool", "healthy")
        assert shell.hivemind("health", "--address", _address(shell, "one")).code == 0

        task = shell.home / "task.json"
        task.write_text(json.dumps({"id": "one", "command": "echo hello"}))
        assert shell.hivemind("submit", str(task), f"--node-pool={address}").code == 0
        assert shell.hivemind("wait", "one", f"--node-pool={address}").code == 0
        samples = {
            sample.name: sample.value
            for where in (_address(shell, "one"), _address(shell, "pool", "pool"))
            for family in parser.text_string_to_metric_families(_get(where, "/metrics")[1])
            for sample in family.samples
        }
        assert samples["hivemind_worker_attempts_ended_total"] == 1
        assert samples["hivemind_pool_tasks_submitted_total"] == 1

        pool.terminate()
        pool.wait(30)
        assert _health(shell, "pool").code == 1

        def ill() -> bool:
            said = _health(shell, "one")
            return said.code == 1 and "node_pool:  UNHEALTHY: Node Pool connection failed" in said.text

        waiting.wait_for(ill, description="the worker misses its pool", seconds=20)
        where = _address(shell, "one")
        assert _get(where, "/healthz")[0] == 503
        assert _get(where, "/livez") == (200, "ok\n")  # it is well itself: starting it anew would bring nothing
        waiting.wait_for(lambda: _get(where, "/readyz")[0] == 503, description="it is not ready", seconds=20)
    gone = _health(shell, "one")
    assert gone.code == 1
    assert "neither a worker nor a pool answers over HTTP" in gone.err


@pytest.mark.long
def test_the_settings_of_the_door_and_of_the_limits_do_what_they_say(shell: Shell) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Services(shell) as services:
        _, address = services.pool("--no-pool-http-enabled")
        services.worker(
            "one", address, "--isolation=sandbox", f"--http-listen=127.0.0.1:{port}", "--http-hosts=worker.example",
            "--monitor-interval=0.2", "--unhealthy-disk-percent=0.01", "--unhealthy-memory-percent=0.01",
        )  # fmt: skip
        assert not (shell.home / "pool" / "pool-http").exists()
        assert _address(shell, "one") == f"127.0.0.1:{port}"
        assert _get(f"127.0.0.1:{port}", "/livez", Host="worker.example")[0] == 200
        assert _get(f"127.0.0.1:{port}", "/livez", Host="evil.example")[0] == 403
        assert _get(f"127.0.0.1:{port}", "/livez", Origin="http://evil.example")[0] == 403
        taken = shell.hivemind(
            "worker", f"--state-dir={shell.home / 'two'}", f"--http-listen=127.0.0.1:{port}",
            "--isolation=sandbox", f"--node-pool={address}",
        )  # fmt: skip
        assert taken.code == 78
        assert f"cannot listen for HTTP on 127.0.0.1:{port}: Address already in use; see http_listen" in taken.err

        def told() -> bool:
            (node,) = shell.hivemind("nodes", "--json", f"--node-pool={address}").objects
            return node["status"] == "unhealthy" and "unhealthy_disk_percent" in node["message"]

        waiting.wait_for(told, description="the pool is told why", seconds=20)
        (said,) = _health(shell, "one", "--json").objects
        unwell = {name for name, check in said["checks"].items() if check["status"] == "unhealthy"}
        assert unwell == {"resources", "disk_space"}
        assert "disk: Low disk space" in said["not_ready_because"]
