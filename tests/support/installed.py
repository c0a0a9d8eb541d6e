"""The installed command as a user has it, in a home of its own; and `hivemind up` to point it at."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fork_server
import own_images
import waiting

HIVEMIND = Path(sys.executable).parent / "hivemind"
SECONDS = 60
LIMITS = ("OVERLOAD_CPU", "OVERLOAD_MEMORY", "UNHEALTHY_CPU", "UNHEALTHY_MEMORY", "UNHEALTHY_DISK")
WHATEVER = {**{f"HIVEMIND_{name}_PERCENT": "100" for name in LIMITS}, **own_images.VARIABLES}
"""Work whatever else this machine is busy with, however full it is, and in the tests' own images."""


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


class Shell:
    """A user's shell: its own home and environment, and nothing of this machine's settings."""

    def __init__(self, home: Path, *flags: str) -> None:
        self.home = home
        self.flags = flags
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HIVEMIND_", "XDG_"))}
        self.environment = {**kept, "HOME": str(home), "TMPDIR": str(home), "NO_COLOR": "1", "DOCKER_CONFIG": str(home)}
        self.environment["HIVEMIND_CACHE_DIR"] = str(home / "cache")
        self.environment |= WHATEVER

    def start(self, *words: str, **variables: str) -> subprocess.Popen[bytes]:
        return popen(
            [HIVEMIND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.home,
            env={**self.environment, **variables},
        )

    def hivemind(self, *words: str, **variables: str) -> Said:
        return self.feed(b"", *words, **variables)

    def feed(self, stdin: bytes, *words: str, **variables: str) -> Said:
        """A command with something on its standard input; VERB_SECONDS: longest that it may take, else a minute.

        In a fork of a process that has imported it, where there is one (`preloaded`).
        """
        seconds = float(variables.pop("VERB_SECONDS", SECONDS))
        environment = {**self.environment, **variables}
        options: dict[str, Any] = {"cwd": self.home, "env": environment}
        if _command.current:
            done = _command.current.run([HIVEMIND, *words], stdin=stdin, seconds=seconds, **options)
        else:
            done = subprocess.run(
                [HIVEMIND, *words], input=stdin, capture_output=True, timeout=seconds, check=False, **options
            )
        return Said(done.returncode, done.stdout, done.stderr.decode())

    def run(self, *words: str, **variables: str) -> Said:
        """`hivemind run`, with the isolation of this test."""
        return self.hivemind("run", *self.flags, *words, **variables)


_command = fork_server.Fixture()
# What `hivemind run` and the verbs that ask a pool import.
_MODULES = (
    "__main__",
    *(
        "cli.commands.cancel",
        "cli.embedded",
        "cli.commands.logs",
        "cli.commands.node",
        "cli.commands.nodes",
        "cli.commands.results",
        "cli.commands.retry",
        "cli.commands.run",
    ),
    *("cli.commands.status", "cli.commands.submit", "cli.commands.tasks", "cli.commands.wait"),
    "client.asynchronous",
    "runtime.sandbox.sandbox_executor",
    "runtime.former_driver",
    "runtime.node_check",
    "worker.worker_node",
    "pool.server",
    "worker.pool_link.client",
)


@contextlib.contextmanager
def preloaded() -> Iterator[None]:
    """Let the command run in forks of one process that has imported it."""
    with _command.start([f"hivemind_worker.{name}" for name in _MODULES], os.environ):
        yield


def popen(words: Sequence[str | Path], **more: Any) -> subprocess.Popen[bytes]:
    """As `subprocess.Popen`; HIVEMIND, and python with a file that calls it, are forks where it is `preloaded`.

    What is loaded before a program itself needs one of its own.
    """
    program = [*words[1:]] if words[0] == sys.executable else [*words]
    calls_it = Path(program[0]) == HIVEMIND or str(program[0]).endswith(".py")
    if _command.current and calls_it and "LD_PRELOAD" not in more.get("env", os.environ):
        return _command.current.popen(program, **more)
    return subprocess.Popen(words, **more)


@dataclass(frozen=True)
class Up:
    """`hivemind up`, running."""

    shell: Shell
    node: str
    address: str
    process: subprocess.Popen[bytes]

    def ask(self, verb: str, *words: str, stdin: bytes = b"") -> Said:
        return self.shell.feed(stdin, *verb.split(), *words, "--node-pool", self.address)

    def submit(self, **task: object) -> str:
        said = self.ask("submit", "-", "--json", stdin=json.dumps(task).encode())
        assert said.code == 0, said.err
        return str(said.objects[0]["id"])


@contextlib.contextmanager
def running_up(shell: Shell, *more: str) -> Iterator[Up]:
    """`hivemind up` on a free port, until the end of the block; it must then end well by itself."""
    log = shell.home / "up.log"
    # Its own name: at an engine that others use too, a node removes what a namesake left behind.
    node = f"here-{secrets.token_hex(4)}"
    with log.open("wb") as file:
        process = popen(
            [HIVEMIND, "up", "--listen=127.0.0.1:0", f"--state-dir={shell.home / 'state'}",
             f"--log-dir={shell.home / 'log'}", f"--node-id={node}", "--max-concurrent-tasks=2", *shell.flags, *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, env=shell.environment,
        )  # fmt: skip
    try:

        def registered() -> str | None:
            # Not by the command: each time that it is asked it takes half a second to start.
            written = log.read_text()
            assert process.poll() is None, written
            listening = re.search(r"listens at (\S+?),", written)
            return listening[1] if listening and '"registered"' in written else None

        address = waiting.wait_for(registered, description="the worker registered", seconds=30)
        assert address is not None
        yield Up(shell, node, address, process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in {0, 130}, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
