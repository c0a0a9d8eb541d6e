"""What every test gets: the real engine and its images where there is one, and a look at what the test left behind."""

from __future__ import annotations

import functools
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import engine_api
import grpc_environment  # noqa: F401  (before anything imports gRPC)
import hypothesis
import leaks
import pytest
import pytest_asyncio
import spreading
import test_images
import waiting

# An example that takes long on a busy machine is no failure; `too_slow` is the same verdict by another name.
# Few of them each time, other ones each time, and many in `make test-long`.
hypothesis.settings.register_profile(
    "here",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=int(os.environ.get("HIVEMIND_TEST_EXAMPLES", "12")),
)
hypothesis.settings.load_profile("here")

ROOT = Path(__file__).resolve().parent.parent
# Set by `make test`: the engine is there, and each test answers for what it leaves in it.
DOCKER = os.environ.get("HIVEMIND_TEST_DOCKER", "probe")
SANDBOX = os.environ.get("HIVEMIND_TEST_SANDBOX", "probe")


# Where the processes of a run tell its scheduler which tests are the engine's.
NOTE = pytest.StashKey[Path]()


def pytest_collection(session: pytest.Session) -> None:
    """Leave the garbage until all is collected."""
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what was collected out of each later look for garbage.

    Thousands of tests are millions of objects: a look through them takes half a second, and tests that ask whether
    anything of theirs stayed do it several times each.
    """
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each process where the note goes."""
    if NOTE not in node.config.stash:
        folder = tempfile.TemporaryDirectory(prefix="hivemind-tests-")
        node.config.add_cleanup(folder.cleanup)
        node.config.stash[NOTE] = Path(folder.name) / "engine"
    node.workerinput["note"] = str(node.config.stash[NOTE])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests where they are spread."""
    if (workerinput := getattr(config, "workerinput", None)) is not None:
        spreading.arrange(items, Path(workerinput["note"]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> spreading.Spreading:
    """Keep together what shares something."""
    return spreading.Spreading(config, log, config.stash[NOTE])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Leave the counts, and what did not hold, for whoever adds up several runs."""
    if path := os.environ.get("HIVEMIND_TEST_TALLY"):
        stats = terminalreporter.stats
        counts = {outcome: len(reports) for outcome, reports in stats.items() if outcome}
        broken = [_in_one_line(report) for outcome in ("failed", "error") for report in stats.get(outcome, ())]
        Path(path).write_text(json.dumps({"counts": counts, "broken": broken}), encoding="utf-8")


def _in_one_line(report: Any) -> str:
    """Name of a test that did not hold, at what step, and the first line of the reason."""
    crash = getattr(report.longrepr, "reprcrash", None)
    reason = crash.message if crash is not None else str(report.longrepr)
    return (
        f"{report.nodeid} ({getattr(report, 'when', None) or 'collect'}): {reason.strip().partition(chr(10))[0]:.300}"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose engine or sandbox is missing; fail it where they were promised."""
    if item.get_closest_marker("docker"):
        _need(DOCKER, there=_engine_answers(), what=f"a Docker engine at {engine_api.address()}")
    if item.get_closest_marker("sandbox"):
        _need(SANDBOX, there=_kernel_fences(), what="bubblewrap, and a kernel that lets it fence")


def _need(promise: str, *, there: bool, what: str) -> None:
    if there:
        return
    if promise == "required":
        pytest.fail(f"needs {what}, which `make test` was to provide", pytrace=False)
    pytest.skip(f"needs {what}")


@functools.cache
def _engine_answers() -> bool:
    return DOCKER != "absent" and engine_api.answers(engine_api.address())


@functools.cache
def _kernel_fences() -> bool:
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def docker_url() -> str:
    """The address of the real engine; the test must bear the mark `docker`."""
    return engine_api.address()


@pytest.fixture(scope="session")
def busybox_image(docker_url: str) -> str:
    """The name of an image of 2 MB with a shell and the usual tools."""
    _filled(docker_url, test_images.BUSYBOX)
    return test_images.BUSYBOX


@pytest.fixture(scope="session")
def python_image(docker_url: str) -> str:
    """The name of an image with `python` (Debian's, 3.11 or newer)."""
    _filled(docker_url, test_images.PYTHON)
    return test_images.PYTHON


def _filled(engine: str, name: str) -> None:
    if not engine_api.has_image(engine, name):
        subprocess.run([sys.executable, ROOT / "scripts" / "test_images.py"], check=True)


@pytest.fixture(scope="session")
def wait_until() -> object:
    """`await wait_until(look, description=…, seconds=…)`: waiting.wait_until, for tests that take it as a fixture."""
    return waiting.wait_until


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, an open file, a process, or something of ours in the engine."""
    looks: dict[str, Callable[[], AbstractSet[object]]] = {
        "threads": leaks.threads,
        "open files": leaks.files,
        "processes": leaks.children,
    }
    if DOCKER == "required" and spreading.is_of_the_engine(request.node):
        looks["in the engine"] = lambda: leaks.in_engine(engine_api.address())
    before = {kind: look() for kind, look in looks.items()}
    yield
    for kind, look in looks.items():
        seconds = leaks.SECONDS_IN_ENGINE if kind == "in the engine" else leaks.SECONDS_TO_SETTLE
        leaks.settled(kind, look, before[kind], seconds)


@pytest.fixture(autouse=True)
def _leaves_no_task(request: pytest.FixtureRequest) -> None:
    """Look for tasks behind the tests that have a loop; to make one for each of the others costs milliseconds."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("ends_its_tasks")


@pytest_asyncio.fixture
async def ends_its_tasks() -> AsyncIterator[None]:
    """Fail a test whose loop still has work when all its fixtures have been put away."""
    yield
    if leaks.tasks():
        try:
            await waiting.wait_until(
                lambda: not leaks.tasks(), description="every task ended", seconds=leaks.SECONDS_TO_SETTLE
            )
        except AssertionError:
            raise AssertionError(f"left behind: tasks {sorted(map(repr, leaks.tasks()))}") from None
