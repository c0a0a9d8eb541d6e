"""A pool and workers as processes of their own, each with its log, ended in order."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Self

import installed
import waiting


class Services:
    """Started with `pool` and `worker`; all are ended, newest first, and must end well, when the block does."""

    def __init__(self, shell: installed.Shell) -> None:
        self._shell = shell
        self._started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for process, _log in reversed(self._started):
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if kind is None:
            assert [process.returncode for process, _log in self._started] == [0] * len(self._started), self.logs()

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a verb with folders of its own below the shell's home."""
        log = self._shell.home / f"{name}.log"
        folders = (f"--state-dir={self._shell.home / name}", f"--log-dir={self._shell.home / 'log'}")
        with log.open("wb") as file:
            process = installed.popen(
                [installed.HIVEMIND, *words, *folders],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                cwd=self._shell.home,
                env=self._shell.environment,
            )
        self._started.append((process, log))
        return process

    def pool(self, *words: str, listen: str = "127.0.0.1:0") -> tuple[subprocess.Popen[bytes], str]:
        """Start a pool; returns the process and its address."""
        process = self.start("pool", "pool", f"--listen={listen}", *words)
        log = self._started[-1][1]
        said = waiting.wait_for(
            lambda: re.search(r"listens at (\S+)\n", log.read_text()), description="the pool listens", seconds=30
        )
        assert said is not None
        return process, said[1]

    def worker(self, name: str, address: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a worker; returns once the pool knows it."""
        process = self.start(name, "worker", f"--node-id={name}", f"--node-pool={address}", *words)
        log = self._started[-1][1]
        waiting.wait_for(lambda: '"registered"' in log.read_text(), description=f"{name} registered", seconds=30)
        return process

    def logs(self) -> str:
        """What all of them said."""
        return "\n".join(f"== {log.name}\n{log.read_text()}" for _, log in self._started)
