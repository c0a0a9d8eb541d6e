"""A data or ml task's program, run as a capsule runs it but unfenced: its plan's files in a folder, its own argv."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hivemind_worker import kinds
from hivemind_worker.kinds import kind
from hivemind_worker.task import plan, resources, spec

NODE = kind.NodeLimits(
    default_image="python:3.11-slim",
    timeout_seconds=100.0,
    grace_seconds=3.0,
    caps=plan.Caps(1000, 100, 10_000, 10, 5, 60.0),
    most=resources.Resources(2.0, 8 * resources.GIB, 8 * resources.GIB, 0),
)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended, what it said, and where its results are."""

    code: int
    out: str
    err: str
    results: Path

    def json(self, name: str = "summary.json") -> Any:
        return json.loads((self.results / name).read_text(encoding="utf-8"))

    @property
    def files(self) -> list[str]:
        found = (path for path in self.results.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.results)) for path in found)


def run(folder: Path, files: Mapping[str, bytes | Path], seconds: int = 100, **fields: object) -> Ran:
    """Lay out the workspace of a task with these ``files`` and ``fields`` in ``folder``, and run its program there."""
    arguments = _lay_out(folder, files, fields)
    ended = _python(arguments, folder, seconds)
    return Ran(ended.returncode, ended.stdout, ended.stderr, folder / "results")


# Theory of operation: to import what a program needs takes seconds of processor time, each time. So one process
# imports it and forks for each run; the fork has the folder, environment, words and streams that a program of its own
# would have. No library has begun a thread by then: a fork would not have it.
_WARM = """
import importlib, json, os, runpy, signal, sys, tempfile, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
print(flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if not (child := os.fork()):
        code = 1
        try:
            signal.alarm(order["seconds"])
            for number, stream in enumerate((os.devnull, *order["streams"])):
                os.dup2(os.open(stream, os.O_RDWR | os.O_CREAT, 0o600), number)
            os.chdir(order["folder"])
            os.environ.clear()
            os.environ.update(order["environment"])
            tempfile.tempdir = None
            sys.argv = order["words"]
            sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Warm:
    """A process that has imported ``modules``, and runs programs in forks of itself; a context manager."""

    def __init__(self, modules: Sequence[str], folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WARM, *modules],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def run(self, words: Sequence[str], folder: Path, seconds: int) -> subprocess.CompletedProcess[str]:
        """Run a program with its ``words`` in ``folder``; one that takes longer than ``seconds`` ends with -14."""
        streams = [folder / "tmp" / name for name in (".stdout", ".stderr")]
        order = {
            "folder": str(folder),
            "words": [*words],
            "seconds": seconds,
            "environment": _environment(folder / "tmp"),
            "streams": [*map(str, streams)],
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._answer())
        return subprocess.CompletedProcess([*words], code, *(each.read_text(encoding="utf-8") for each in streams))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, "the process that runs the programs has ended"
        return answer


_warm: list[Warm] = []


@contextlib.contextmanager
def warm(modules: Sequence[str], folder: Path) -> Iterator[None]:
    """Let `run` use one process that has imported ``modules``."""
    with Warm(modules, folder) as process:
        _warm.append(process)
        try:
            yield
        finally:
            _warm.remove(process)


def _lay_out(folder: Path, files: Mapping[str, bytes | Path], fields: Mapping[str, object]) -> list[str]:
    """Fill the folder; return the words behind `python3`."""
    task = spec.parse({**fields, "input_files": dict.fromkeys(files, "")})
    made = kind.make_plan(kinds.of(task), task, "t1", 1, NODE)
    folder.mkdir(parents=True)
    for file in made.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        content = files.get(file.path, file.content)
        assert content is not None
        if isinstance(content, Path):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    (folder / "tmp").mkdir()
    program, *arguments = made.argv
    assert program == "python3"
    return arguments


def _python(arguments: Sequence[str], folder: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    if _warm:
        flag, *words = arguments
        assert flag == "-u"
        return _warm[-1].run(words, folder, seconds)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=_environment(folder / "tmp"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def _environment(scratch: Path) -> dict[str, str]:
    """As in a capsule: nothing of this process's surroundings, and a home that cannot be written to."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
