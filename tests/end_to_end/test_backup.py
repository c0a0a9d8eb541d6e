"""`hivemind pool backup` while it serves, kill -9, `hivemind pool restore`: each task ends once, its output its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

import pytest
import waiting
from installed import HIVEMIND, Shell


class Processes:
    """A pool and a worker, started in one home; whatever still runs is killed in the end."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.terminate()
        for process in reversed(self._started):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # it waits for its tasks to end
                process.terminate()
                process.wait(30)

    def start(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            command: list[str | Path] = [HIVEMIND, *words, f"--log-dir={self._shell.home / 'log'}"]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self._shell.environment
            )
        self._started.append(process)
        return process

    def pool(self, folder: Path, listen: str) -> tuple[subprocess.Popen[bytes], str]:
        log = folder.with_suffix(".log")
        log.write_bytes(b"")
        process = self.start(log, "pool", f"--listen={listen}", f"--state-dir={folder}")
        said = waiting.wait_for(
            lambda: re.search(r"listens at (\S+)\n", log.read_text()), description="the pool listens", seconds=30
        )
        assert said is not None, log.read_text()
        return process, said[1]


@pytest.mark.sandbox
@pytest.mark.long
@pytest.mark.timeout(400)
def test_every_task_of_the_backup_ends_once_with_its_own_output(shell: Shell, tmp_path: Path) -> None:
    folder, copy = tmp_path / "pool", tmp_path / "backup"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    with Processes(shell) as processes:
        pool, address = processes.pool(folder, listen)
        to_pool = f"--node-pool={address}"
        worker = ["worker", "--node-id=w", to_pool, "--isolation=sandbox", f"--state-dir={tmp_path / 'w'}"]
        processes.start(tmp_path / "worker.log", *worker)

        def submit(task_id: str, command: str) -> None:
            text = f'{{"id": "{task_id}", "command": "{command}"}}'
            assert shell.feed(text.encode(), "submit", "-", to_pool).code == 0

        for name in ("first", "second"):
            submit(name, f"echo {name} > results/out; echo {name} says $RANDOM$$")
        assert shell.hivemind("wait", "first", "second", "--timeout=60", to_pool).code == 0
        submit("long", f"echo began >> results/out; while [ ! -e {tmp_path}/never ]; do sleep 0.1; done")
        waiting.wait_for(
            lambda: '"running"' in shell.hivemind("tasks", "--json", to_pool).text, description="it runs", seconds=60
        )
        done = shell.hivemind("pool", "backup", str(copy), f"--state-dir={folder}", "--json")
        assert done.code == 0, done.err
        assert done.objects[0]["missing"] == []
        shell.hivemind("cancel", "long", to_pool)
        submit("lost", "echo of the time that was lost")
        assert shell.hivemind("wait", "long", "lost", "--timeout=60", to_pool).code != 0
        outputs = {name: shell.hivemind("logs", name, to_pool).text for name in ("first", "second")}

        refused = shell.hivemind("pool", "restore", str(copy), f"--state-dir={folder}", "--replace")
        assert refused.code != 0
        assert f"process {pool.pid}" in refused.err
        os.kill(pool.pid, signal.SIGKILL)
        pool.wait()
        refused = shell.hivemind("pool", "restore", str(copy), f"--state-dir={folder}")
        assert "--replace" in refused.err
        shutil.rmtree(folder)
        restored = shell.hivemind("pool", "--state-dir", str(folder), "restore", str(copy))
        assert restored.code == 0, restored.err

        processes.pool(folder, listen)
        tasks = {task["id"]: task for task in shell.hivemind("tasks", "--json", to_pool).objects}
        assert set(tasks) == {"first", "second", "long"}
        for name, text in outputs.items():
            assert shell.hivemind("logs", name, to_pool).text == text
            assert (tasks[name]["status"], tasks[name]["attempt"]) == ("completed", 1)
        # The worker registers again by itself and runs once more what it had: as another attempt.
        waiting.wait_for(
            lambda: shell.hivemind("status", "long", "--json", to_pool).objects[0]["status"] == "running",
            description="the worker took the task again",
            seconds=60,
        )
        shell.hivemind("cancel", "long", to_pool)
        shell.hivemind("wait", "long", "--timeout=60", to_pool)
        ended = shell.hivemind("status", "long", "--json", to_pool).objects[0]
        assert (ended["status"], ended["attempt"]) == ("cancelled", 2)
