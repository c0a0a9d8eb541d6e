"""The program of the capsule in its three shapes: as shipped, under AddressSanitizer, as PID 1 of a sandbox."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import capsules
import pytest

from hivemind_worker.runtime.capsule import init
from hivemind_worker.runtime.capsule.init import build

Start = Callable[..., capsules.Capsule]


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The binary in the wheel for this machine."""
    return init.binary_path(platform.machine())


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sources, built so that a wrong access or undefined arithmetic ends the program with a report."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NO C COMPILER: the AddressSanitizer build of hivemind-init is not tested; install gcc")
    output = tmp_path_factory.mktemp("sanitized") / "hivemind-init"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    names = [str(path) for path in build.sources() if path.suffix == ".c"]
    subprocess.run([compiler, *flags, "-o", output, *names], check=True)
    return output


@pytest.fixture(params=["shipped", "sanitized"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start the program as an ordinary process, once as shipped, once sanitized."""
    yield from _starter(lambda _: [request.getfixturevalue(request.param)])


@pytest.fixture
def start_shipped(shipped: Path) -> Iterator[Start]:
    """Start the program as shipped, as an ordinary process."""
    yield from _starter(lambda _: [shipped])


@pytest.fixture
def start_pid1(shipped: Path) -> Iterator[Start]:
    """Start the program as PID 1 of a sandbox that sees the given workspace as /workspace; for tests marked sandbox."""

    def command(workspace: Path) -> list[str | Path]:
        workspace.chmod(0o777)
        return [*capsules.sandboxed(shipped, workspace)]

    yield from _starter(command)


def _starter(command: Callable[[Path], list[str | Path]]) -> Iterator[Start]:
    started: list[capsules.Capsule] = []

    def begin(workspace: Path, *, discard: bool = False) -> capsules.Capsule:
        line = command(workspace)
        seen = Path("/workspace") if line[0] == "bwrap" else workspace
        started.append(capsules.Capsule(line, seen, discard=discard))
        return started[-1]

    yield begin
    for capsule in started:
        capsule.put_away()
