"""Programs run in forks of a process that has imported what they need.

To import a program's libraries takes from half a second to several of processor time, and the tests start hundreds.
Here one process imports them and forks for each run. The fork gets the folder, environment, words and streams that a
program of its own would have, and ends as an interpreter ends. No library may have begun a thread by then: a fork would
not have it. What differs is the process's name, and what the interpreter itself reads of the environment as it starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_SERVER = """
import gc, importlib, json, os, runpy, signal, sys, tempfile
for name in sys.argv[1:]:
    importlib.import_module(name)
assert len(os.listdir("/proc/self/task")) == 1, "a library began a thread"
gc.freeze()
gc.enable()
print(flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if not (child := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
signal.alarm(order["seconds"])
for number, stream in enumerate(order["streams"]):
    os.dup2(os.open(stream, os.O_RDWR), number)
sys.stdin = open(0, closefd=False)
os.chdir(order["folder"])
os.environ.clear()
os.environ.update(order["environment"])
tempfile.tempdir = None
sys.argv = order["words"]
sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Warm:
    """A process that has imported ``modules``, and runs programs in forks of itself; a context manager."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *modules],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._answer()
        except AssertionError:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def run(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: bytes = b"", seconds: int = 100
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the Python program `words[0]` in ``folder``; one that takes longer than ``seconds`` ends with -14."""
        with tempfile.TemporaryDirectory() as scratch:
            streams = [Path(scratch, name) for name in ("stdin", "stdout", "stderr")]
            for stream, content in zip(streams, (stdin, b"", b""), strict=True):
                stream.write_bytes(content)
            order = {
                "folder": str(folder),
                "words": [*words],
                "seconds": seconds,
                "environment": dict(environment),
                "streams": [*map(str, streams)],
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            code = int(self._answer())
            return subprocess.CompletedProcess([*words], code, *(each.read_bytes() for each in streams[1:]))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, "the process that runs the programs has ended"
        return answer
