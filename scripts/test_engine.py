"""A Docker engine of the tests' own: socket, data, network and containerd apart from any other on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import engine_api
import system_packages
import test_network

READY_SECONDS = 60  # a first start on a slow disk took 6 s
PROGRAMS = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
}


def end_on_sigterm() -> None:
    """Have SIGTERM end this process as an exception does, so that private engines are ended on the way out."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)


@contextlib.contextmanager
def engine() -> Iterator[str | None]:
    """Give the address of the reachable engine, else of a private one for the block; None where neither can be."""
    usual = engine_api.address()
    if engine_api.answers(usual):
        print(f"== using the Docker engine at {usual}", flush=True)
        yield usual
        return
    if os.geteuid() != 0 or system_packages.install(PROGRAMS, "a private Docker engine"):
        _cannot("none is reachable, and none can be started here")
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(test_network.place())
        except (test_network.NoNetworkError, OSError) as error:
            _cannot(f"none is reachable, and no network can be made for one: {error}")
            yield None
            return
        yield stack.enter_context(_private(place))


def _cannot(reason: str) -> None:
    print(f"!! the tests that need a Docker engine do NOT run: {reason}", flush=True)


@contextlib.contextmanager
def _private(place: test_network.Place) -> Iterator[str | None]:
    process = start(place)
    try:
        if _ready(process, place.url):
            print(f"== started a private Docker engine (pid {process.pid}) at {place.url}", flush=True)
            yield place.url
        else:
            _cannot(f"a private one did not start. {_last_words(place.home / 'dockerd.log')}")
            yield None
    finally:
        end(process)


def start(place: test_network.Place, *more: str) -> subprocess.Popen[bytes]:
    """Start the engine of this place, with these further words; it does not answer yet."""
    # An engine has its containerd dump its stacks, in the folder for temporary files, before it replaces one that does
    # not answer: after a kill of the engine, or on a slow machine.
    temporary = place.home / "tmp"
    temporary.mkdir(exist_ok=True)
    with (place.home / "dockerd.log").open("ab") as log:
        return subprocess.Popen(
            [*_command(place), *more],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": system_packages.ADMIN_PATH, "TMPDIR": str(temporary)},
            start_new_session=True,
        )


def _command(place: test_network.Place) -> list[str]:
    # Should we be killed, it is told to end as well.
    setpriv = system_packages.program("setpriv")
    home, name = place.home, place.name
    return [
        *([setpriv, "--pdeathsig=TERM"] if setpriv else []),
        *place.inside(),
        system_packages.program("dockerd") or "dockerd",
        f"--host={place.url}",
        f"--data-root={home}/data",
        f"--exec-root={home}/exec",
        f"--pidfile={home}/docker.pid",
        f"--bip={test_network.BRIDGE}",
        f"--default-address-pool={test_network.POOL}",
        # Its loopback is not ours: a test's registry listens at our end of the line.
        f"--insecure-registry={test_network.HOST.format(place.number)}/32",
        # Where a system's containerd is shared, ours are other names in it.
        f"--containerd-namespace={name}",
        f"--containerd-plugins-namespace={name}-plugins",
        "--ip6tables=false",
    ]


def _ready(process: subprocess.Popen[bytes], address: str) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if engine_api.answers(address, seconds=2):
            return True
        time.sleep(0.1)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """End an engine in order; the hard way when it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        # Its containerd is in the same session: end both, or the data directory stays busy.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "Its last words:\n" + "\n".join(lines[-5:])
