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
from typing import Any

import fork_server

from hivemind_worker import units
from hivemind_worker.tasks import kinds, plan, resources, spec
from hivemind_worker.tasks.kinds import kind

NODE = kind.NodeLimits(
    default_image="python:3.11-slim",
    timeout_seconds=100.0,
    grace_seconds=3.0,
    caps=plan.Caps(1000, 100, 10_000, 10, 5, 60.0),
    most=resources.Resources(2.0, 8 * units.GIB, 8 * units.GIB, 0),
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


# The first run imports what all need; the libraries' seconds of processor time are paid once.
_ONE_AFTER_THE_OTHER = """
import contextlib, io, json, os, runpy, sys, traceback
answers = []
for folder, program in json.loads(sys.argv[1]):
    os.chdir(folder)
    sys.argv = [program]
    sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = 1
            traceback.print_exc()
    answers.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(answers))
"""


def run_in_one_process(
    folder: Path, tasks: Sequence[tuple[Mapping[str, bytes | Path], Mapping[str, object]]], seconds: int = 100
) -> list[Ran]:
    """As `run`, for several tasks of one program: one after the other in one interpreter.

    For what differs by its words alone: a run of its own costs seconds of processor time for the same imports.
    """
    folders = [folder / str(number) for number in range(len(tasks))]
    programs = [_lay_out(place, files, fields) for place, (files, fields) in zip(folders, tasks, strict=True)]
    places = [(str(place), arguments[-1]) for place, arguments in zip(folders, programs, strict=True)]
    driver = folder / "one_after_the_other.py"
    driver.write_text(_ONE_AFTER_THE_OTHER, encoding="utf-8")
    ended = _python(["-u", str(driver), json.dumps(places)], folders[0], seconds)
    assert ended.returncode == 0, ended.stderr
    answers = zip(folders, json.loads(ended.stdout), strict=True)
    return [Ran(code, out, err, place / "results") for place, (code, out, err) in answers]


_libraries = fork_server.Fixture()


@contextlib.contextmanager
def libraries(modules: Sequence[str], folder: Path, variables: dict[str, str]) -> Iterator[None]:
    """Let `run` use one process that has imported ``modules`` with these ``variables`` in its environment."""
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # else they begin more as they are imported
    with _libraries.start(modules, _environment(folder) | one_thread | variables):
        yield


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
    if _libraries.current:
        flag, *words = arguments
        assert flag == "-u"
        ended = _libraries.current.run(words, cwd=folder, env=_environment(folder / "tmp"), seconds=seconds)
        texts = (stream.decode() for stream in (ended.stdout, ended.stderr))
        return subprocess.CompletedProcess(ended.args, ended.returncode, *texts)
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
