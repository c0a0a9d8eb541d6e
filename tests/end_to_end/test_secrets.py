"""`hivemind run --secret`: the task has the value; output, files, arguments and environments of our own do not."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import waiting
from installed import HIVEMIND, Shell

VALUE = "hunter2 of this\nvery task"
SHOW = 'printf "%s|" "$TOKEN"; printf %s "$TOKEN" | wc -c'


def shown_by_processes(value: bytes, spared: bytes) -> list[str]:
    """Processes, but for the task's own, whose command line or environment has the value."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
        except OSError:
            continue
        if spared not in variables and value in words + variables:
            found.append(words.decode(errors="replace"))
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def files_with(value: bytes, folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and value in path.read_bytes()]


def test_the_task_has_it_and_its_output_is_masked(fenced: Shell) -> None:
    (fenced.home / "key").write_text(VALUE)
    said = fenced.run(f"--secret=TOKEN=@{fenced.home / 'key'}", "--", "sh", "-c", SHOW)
    assert (said.code, said.text) == (0, "*" * len(VALUE) + f"|{len(VALUE)}\n"), said.err
    assert files_with(VALUE.encode(), fenced.home) == [str(fenced.home / "key")]


@contextlib.contextmanager
def up(shell: Shell, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`hivemind up` under one name, until it is killed at the end of the block."""
    words = [f"--listen=127.0.0.1:{port}", f"--state-dir={shell.home / 'state'}", f"--log-dir={shell.home / 'log'}"]
    with (shell.home / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [HIVEMIND, "up", *words, "--node-id=one", *shell.flags],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=shell.environment,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_nothing_has_it_while_the_task_runs_nor_after_a_kill(fenced: Shell) -> None:
    value, pool = "a-very-secret-value", f"--node-pool=127.0.0.1:{(port := free_port())}"
    task = json.dumps({"command": "echo $TOKEN; sleep 20; echo $TOKEN", "secrets": {"TOKEN": {"env": "TOKEN"}}})
    masked = b"*" * len(value) + b"\n"

    def submitted() -> str:
        said = fenced.feed(task.encode(), "submit", "-", pool, TOKEN=value)
        return said.text.strip() if said.code == 0 else ""

    with up(fenced, port):
        task_id = waiting.wait_for(submitted, description="the pool listens", seconds=40)
        waiting.wait_for(
            lambda: fenced.hivemind("logs", task_id, pool).out.startswith(masked),
            description="it has printed",
            seconds=40,
        )
        assert files_with(value.encode(), fenced.home) == []
        assert shown_by_processes(value.encode(), b"HIVEMIND_TASK_ID=") == []
    assert files_with(value.encode(), fenced.home) == []
    with up(fenced, port) as process:
        waiting.wait_for(
            lambda: fenced.hivemind("logs", task_id, pool).out == 2 * masked,
            description="a worker that entered it again masks as well",
            seconds=60,
        )
        assert fenced.hivemind("wait", task_id, pool).code == 0
        assert fenced.hivemind("retry", task_id, pool).code != 0
        assert value not in fenced.hivemind("status", task_id, pool, "--json").text
        process.terminate()
        process.wait(30)
    assert files_with(value.encode(), fenced.home) == []
