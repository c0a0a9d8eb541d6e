"""A private engine takes nothing from the engine that a user runs, and leaves nothing, however its run ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import engine_api
import private_engine
import pytest
import system_packages
import test_images
import test_network
import waiting

pytestmark = [
    pytest.mark.docker,
    pytest.mark.own_engine,
    pytest.mark.skipif(not private_engine.possible(), reason="needs root and dockerd"),
]
ROOT = Path(__file__).resolve().parents[2]
# As `make test` does where no engine answers, until it is told to end.
RUN = f"""
import sys
sys.path[:0] = [{str(ROOT / "scripts")!r}]
import test_engine, test_images
test_engine.end_on_sigterm()
with test_engine.engine() as url:
    print(url, test_images.busybox(url), flush=True)
    sys.stdin.read()
"""
# As chaos does; a second start of an engine in the user's own network took `docker0` away.
RESTARTED = f"""
import sys
sys.path[:0] = [{str(ROOT / "scripts")!r}, {str(ROOT / "tests/support")!r}]
import private_engine
with private_engine.running() as engine:
    engine.kill()
    engine.start()
    print(engine.url, True, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def users() -> Iterator[private_engine.PrivateEngine]:
    """The engine of a user, and its machine: with a network of its own, so that no real user's is put at risk."""
    with private_engine.running() as made:
        yield made


@pytest.mark.long
def test_the_users_engine_keeps_its_bridge(users: private_engine.PrivateEngine) -> None:
    lasting = _start(users, ["sleep", "1000"])
    before = _bridge(users)
    with _another(RESTARTED, *users.place.inside()) as run:
        url = _address(run)
        assert engine_api.get(url, "/info")["ContainersRunning"] == 0
        assert _bridge(users) == before
        assert _ends_well(users)
        run.communicate(timeout=60)
    assert run.returncode == 0
    assert _bridge(users) == before
    assert engine_api.get(users.url, f"/containers/{lasting}/json")["State"]["Running"]
    assert _ends_well(users)


@pytest.mark.long
def test_an_engine_that_ends_while_it_starts_is_started_again(users: private_engine.PrivateEngine) -> None:
    users.kill()
    before = users.pid

    def kill_it() -> None:
        waiting.wait_for(lambda: users.pid != before, description="it is being started")
        os.kill(users.pid, 9)

    # Not the other way round: an engine ends with the thread that has started it.
    killing = threading.Thread(target=kill_it)
    killing.start()
    users.start()
    killing.join()
    assert engine_api.answers(users.url)


@pytest.mark.long
def test_nothing_is_left_after_sigterm() -> None:
    with _another(RUN) as run:
        made = _place(_address(run))
        assert _left(made)
        dump = _dumped(made)
        run.terminate()
        run.communicate(timeout=60)
    assert run.returncode == 143
    assert _left(made) == []
    assert not dump.exists()


def test_what_a_killed_run_left_goes_with_the_next() -> None:
    with _another(RUN) as run:
        made = _place(_address(run))
        engine = private_engine.PrivateEngine(made, live_restore=False)
        _start(engine, ["sleep", "1000"])
        for pid in test_network._processes_of(made) | {run.pid}:  # shims and containers outlive their engine
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that was about to end
                if pid == run.pid or b"dockerd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, 9)
        run.communicate(timeout=60)
    assert _left(made)
    assert test_network._processes_of(made)
    groups = test_network._groups_of(made)
    assert groups
    test_network.sweep()
    assert _left(made) == []
    assert [group for group in groups if group.exists()] == []


def _another(script: str, *inside: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    return subprocess.Popen(
        [*inside, sys.executable, "-c", script],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _address(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    for line in run.stdout:
        if match := re.fullmatch(r"(unix://\S+) True\n", line):
            return match[1]
    raise AssertionError(f"no private engine started: {run.wait()}")


def _place(url: str) -> test_network.Place:
    home = url.removeprefix("unix://").removesuffix("/docker.sock")
    (claim,) = (path for path in test_network.CLAIMS.glob("[0-9]*") if path.read_text(encoding="utf-8") == home)
    return test_network.Place(Path(home), int(claim.name))


def _left(made: test_network.Place) -> list[str]:
    """What is there of it: each is a word for one thing."""
    rules = subprocess.run([_program("iptables-save")], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/mounts").read_text(encoding="utf-8")
    looks = {
        "processes": bool(test_network._processes_of(made)),
        "folder": made.home.exists(),
        "mounts": f"{made.home}/" in mounts,
    }
    if not _is_anothers(made):
        looks |= {
            "namespace": Path(f"/run/netns/{made.name}").exists(),
            "line": Path(f"/sys/class/net/{made.name}").exists(),
            "rules": re.search(rf"\b{made.name}\b", rules) is not None,
            "claim": (test_network.CLAIMS / str(made.number)).exists(),
        }
    return [name for name, is_left in looks.items() if is_left]


def _dumped(made: test_network.Place) -> Path:
    """Have its containerd write down what it does, as an engine does before it replaces one that does not answer."""
    (pid,) = (
        pid for pid in test_network._processes_of(made)
        if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "containerd"
    )  # fmt: skip
    name = f"containerd.{pid}.stacks.log"
    os.kill(pid, signal.SIGUSR1)
    places = (Path(tempfile.gettempdir()), made.home)
    waiting.wait_for(
        lambda: any(list(place.glob(f"**/{name}" if place == made.home else name)) for place in places),
        description="containerd has written down what it does",
    )
    (dump,) = (path for place in places for path in place.glob(f"**/{name}" if place == made.home else name))
    return dump


def _is_anothers(made: test_network.Place) -> bool:
    """Whether the number has been claimed anew since, by another run on this machine."""
    try:
        return (test_network.CLAIMS / str(made.number)).read_text(encoding="utf-8") != str(made.home)
    except FileNotFoundError:
        return False


def _bridge(engine: private_engine.PrivateEngine) -> tuple[object, ...]:
    """What would tell that the engine's bridge is another one, or has lost its address."""
    words = [_program("ip"), "-n", engine.place.name, "-4", "-j", "addr", "show", "dev", "docker0"]
    (link,) = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    return link["ifindex"], [address["local"] for address in link["addr_info"]]


def _start(engine: private_engine.PrivateEngine, command: list[str]) -> str:
    """Start a container on the engine's bridge; its id."""
    body = json.dumps({"Image": test_images.BUSYBOX, "Cmd": command, "HostConfig": {"NetworkMode": "bridge"}})
    headers = {"Content-Type": "application/json"}
    made = json.loads(engine_api._call(engine.url, "POST", "/containers/create", body=body, headers=headers))
    engine_api._call(engine.url, "POST", f"/containers/{made['Id']}/start")
    return str(made["Id"])


def _ends_well(engine: private_engine.PrivateEngine) -> bool:
    started = _start(engine, ["ping", "-c", "1", "10.213.64.1"])

    def state() -> dict[str, object]:
        return dict(engine_api.get(engine.url, f"/containers/{started}/json")["State"])

    waiting.wait_for(lambda: state()["Status"] == "exited", description="the container ends")
    return state()["ExitCode"] == 0


def _program(name: str) -> str:
    return system_packages.program(name) or name
