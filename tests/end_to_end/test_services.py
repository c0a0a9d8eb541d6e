"""Pool and worker as processes of their own, and what every command does when something is not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import waiting
from installed import HIVEMIND, Shell

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "127.0.0.1:9"  # discard: nothing of ours listens there


@pytest.mark.sandbox
def test_a_worker_joins_a_pool_by_the_reference_s_command(shell: Shell, tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(log: str, *words: str | Path) -> Path:
        with (tmp_path / log).open("wb") as file:
            started.append(
                subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=shell.environment)
            )
        return tmp_path / log

    where = (f"--state-dir={tmp_path / 'state'}", f"--log-dir={tmp_path / 'log'}")
    try:
        log = start("pool.log", HIVEMIND, "pool", "--listen=127.0.0.1:0", f"--state-dir={tmp_path / 'pool'}", where[1])
        said = waiting.wait_for(
            lambda: re.search(r"listens at (\S+)\n", log.read_text()), description="the pool listens", seconds=30
        )
        assert said is not None
        start("worker.log", sys.executable, ROOT / "worker_node.py", "--node-id=worker-001", f"--node-pool={said[1]}",
              "--isolation=sandbox", *where)  # fmt: skip
        submitted = shell.feed(b'{"command": "exit 9"}', "submit", "-", "--node-pool", said[1])
        waited = shell.hivemind("wait", submitted.text.strip(), "--timeout", "40", "--node-pool", said[1])
        assert waited.code == 9, (tmp_path / "worker.log").read_text()
        assert shell.hivemind("nodes", "-q", "--node-pool", said[1]).text == "worker-001\n"
    finally:
        for process in reversed(started):
            process.terminate()
        codes = [process.wait(timeout=30) for process in reversed(started)]
    assert codes == [0, 0]
    lines = (tmp_path / "worker.log").read_text().splitlines()
    events = [json.loads(line)["event_type"] for line in lines if line.startswith("{")]
    assert events[:2] == ["http_listening", "worker_started"]
    assert events[-1] == "worker_stopped"


@pytest.mark.parametrize(
    "words",
    [
        ["tasks"],
        ["run", "--", "true"],
        *(
            pytest.param(words.split(), marks=pytest.mark.long)
            for words in ("status x", "wait x", "logs x", "results x", "cancel x", "retry x", "nodes", "node drain x")
        ),
    ],
)
def test_without_a_pool_it_is_unavailable(shell: Shell, words: list[str]) -> None:
    at = words.index("--") if "--" in words else len(words)
    said = shell.hivemind(*words[:at], "--node-pool", NOBODY, *words[at:])
    assert said.code == 69
    assert NOBODY in said.err
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "variables", "code"),
    [
        (["nodes", "--no-such-flag"], {}, 2),
        (["fly"], {}, 2),
        (["status"], {}, 2),
        (["worker", "--max-concurrent-tasks", "many"], {}, 2),
        (["worker", "--isolation", "none"], {}, 2),
        (["nodes"], {"HEARTBEAT_INTERVAL": "soon"}, 78),
        (["worker", "--max-concurrent-tasks", "-1"], {}, 78),
        (["nodes", "--config", "nowhere.toml"], {}, 78),
        (["nodes", "--node-pool", "pool.example:50051"], {}, 78),
        (["nodes", "--tls-ca-file", "nowhere.pem"], {}, 78),
        (["pool", "--listen", "0.0.0.0:0", "--state-dir", "state", "--log-dir", "log"], {}, 78),
        (["submit", "nowhere.json"], {}, 2),
    ],
)
def test_what_is_wrong_is_told_by_its_code(
    shell: Shell, words: list[str], variables: dict[str, str], code: int
) -> None:
    said = shell.hivemind(*words, **variables)
    assert said.code == code, said.err
    assert said.err
    assert "Traceback" not in said.err


def test_debug_shows_where(shell: Shell) -> None:
    assert "Traceback" in shell.hivemind("nodes", "--config", "nowhere.toml", "--debug").err


def test_config_show_tells_value_and_source(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[limits]\ntask_timeout = 60\n")
    said = shell.hivemind(
        *("config", "show", "--json", "--config", "mine.toml", "--node-id", "by-flag"), NODE_POOL_ADDRESS="localhost:7"
    )
    rows = {row["setting"]: row for row in said.objects}
    assert rows["node_id"] == {"setting": "node_id", "value": "by-flag", "source": "--node-id"}
    assert rows["node_pool_address"]["source"] == "NODE_POOL_ADDRESS"
    assert rows["task_timeout"]["value"] == "60"
    assert rows["task_timeout"]["source"].endswith("mine.toml")
    assert rows["max_cpu_cores"]["source"] == "default"


@pytest.mark.sandbox
def test_doctor_proves_the_sandbox_by_a_task(shell: Shell) -> None:
    said = shell.hivemind("doctor", "--isolation", "sandbox", "--node-pool", NOBODY, "--json")
    rows = {row["check"]: row for row in said.objects}
    assert all(list(row) == ["check", "in_force", "why", "fix", "id"] for row in said.objects)
    assert said.code == 0
    for check in ("a task runs", "not root", "no capabilities", "no new privileges", "no network", "read-only root"):
        assert rows[f"sandbox: {check}"]["in_force"], check
    assert rows["pool"]["in_force"] is False
    assert rows["pool"]["fix"]


@pytest.mark.docker
def test_doctor_proves_containers_by_a_task(shell: Shell, docker_url: str, python_image: str) -> None:
    said = shell.hivemind(
        *("doctor", "--isolation", "docker", "--docker-host", docker_url, "--default-image", python_image, "--json"),
        *("--node-pool", NOBODY),
    )
    rows = {row["check"]: row for row in said.objects}
    assert said.code == 0
    assert rows["docker: no network"]["in_force"]
    assert rows["docker: system calls filtered"]["in_force"]


def test_doctor_without_any_fence_is_a_failure(shell: Shell, tmp_path: Path) -> None:
    said = shell.hivemind("doctor", "--docker-host", f"unix://{tmp_path}/none.sock", PATH="/nonexistent")
    assert said.code == 1
    assert "bubblewrap" in said.text


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion(shell: Shell, name: str) -> None:
    assert "_HIVEMIND_COMPLETE" in shell.hivemind("completion", name).text
    words = {"COMP_WORDS": "hivemind can", "COMP_CWORD": "1", "_HIVEMIND_COMPLETE": "bash_complete"}
    assert "cancel" in shell.hivemind(**words).text


def test_nothing_of_ours_is_in_the_home_of_whoever_only_asked(shell: Shell, tmp_path: Path) -> None:
    shell.hivemind("nodes", "--node-pool", NOBODY)
    shell.hivemind("config", "show")
    assert list(tmp_path.iterdir()) == []
