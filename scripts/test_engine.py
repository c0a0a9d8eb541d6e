"""A Docker engine of the tests' own: socket, data, bridge and containerd apart from any other on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import engine_api
import system_packages

BRIDGES = 16  # so many private engines at once, each with a bridge of its own
SUBNET = "10.213.{}.1/24"  # private, and off the beaten 172.17.0.0/16 that another engine here would use
NETWORKS = "10.213.{}.0/22"  # of each engine: 16 networks of 64 addresses that its users may make
OURS = "10.213.0.0/16"
# A short path, since a socket's name has at most 107 bytes; mkdtemp makes ours in it, and ours alone.
TEMPORARY = Path("/tmp")  # noqa: S108  (mkdtemp makes ours in it)
READY_SECONDS = 60  # a first start on a slow disk took 6 s
PROGRAMS = {"dockerd": "docker.io", "containerd": "containerd", "ip": "iproute2", "iptables": "iptables"}


@contextlib.contextmanager
def engine() -> Iterator[str | None]:
    """Give the address of the reachable engine, else of a private one for the block; None where neither can be."""
    there = engine_api.address()
    if engine_api.answers(there):
        print(f"== using the Docker engine at {there}", flush=True)
        yield there
        return
    if os.geteuid() != 0 or system_packages.install(PROGRAMS, "a private Docker engine"):
        print(
            "!! no Docker engine is reachable, and none can be started here: the engine's tests do NOT run", flush=True
        )
        yield None
        return
    _sweep()
    home = Path(tempfile.mkdtemp(prefix="hmtest-", dir=TEMPORARY))
    try:
        with _private(home) as address:
            yield address
    finally:
        _unmount_below(home)
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _private(home: Path) -> Iterator[str | None]:
    address = f"unix://{home}/docker.sock"
    number = _make_bridge()
    log_path = home / "dockerd.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            _command(home, address, number),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": system_packages.ADMIN_PATH},
            start_new_session=True,
        )
    _open_way_out(number)
    try:
        if _ready(process, address):
            print(f"== started a private Docker engine (pid {process.pid}) at {address}", flush=True)
            yield address
        else:
            print(f"!! a private Docker engine did not start: the engine's tests do NOT run. {_last_words(log_path)}")
            yield None
    finally:
        _end(process)
        _close_ways_out(f"hmtest{number}")
        subprocess.run([_ip(), "link", "delete", f"hmtest{number}"], check=False, capture_output=True)


def _command(home: Path, address: str, number: int) -> list[str]:
    # Should we be killed, it is told to end as well.
    setpriv = system_packages.program("setpriv")
    return [
        *([setpriv, "--pdeathsig=TERM"] if setpriv else []),
        system_packages.program("dockerd") or "dockerd",
        f"--host={address}",
        f"--data-root={home}/data",
        f"--exec-root={home}/exec",
        f"--pidfile={home}/docker.pid",
        f"--bridge=hmtest{number}",
        f"--default-address-pool=base={_networks(number)},size=26",
        # Where a system's containerd is shared, ours are other names in it.
        f"--containerd-namespace=hmtest{number}",
        f"--containerd-plugins-namespace=hmtest{number}-plugins",
        # Two engines that write the machine's firewall wipe out each other's rules. The few that are needed for the
        # way to the package index are ours, each bears our name, and they go with the engine.
        "--iptables=false",
        "--ip6tables=false",
        "--ip-masq=false",
    ]


def _networks(number: int) -> str:
    return NETWORKS.format(128 + 4 * number)


def _open_way_out(number: int) -> None:
    """Let containers reach the package index, as an engine that writes the firewall itself does."""
    name = ["-m", "comment", "--comment", f"hmtest{number}"]
    for addresses in (SUBNET.format(77 + number), _networks(number)):
        _iptables("-t", "nat", "-A", "POSTROUTING", "-s", addresses, "!", "-d", OURS, *name, "-j", "MASQUERADE")
        _iptables("-t", "filter", "-I", "FORWARD", "-s", addresses, *name, "-j", "ACCEPT")
        _iptables("-t", "filter", "-I", "FORWARD", "-d", addresses, *name, "-j", "ACCEPT")


def _close_ways_out(name: str) -> None:
    """Remove the rules that bear this name, or whose name begins with it."""
    for table, chain in (("nat", "POSTROUTING"), ("filter", "FORWARD")):
        for rule in _iptables("-t", table, "-S", chain).splitlines():
            words = rule.replace('"', "").split()
            if words[0] == "-A" and any(word.startswith(name) for word in words):
                _iptables("-t", table, "-D", *words[1:])


def _iptables(*words: str) -> str:
    """What it prints; nothing where it is missing or refuses: whoever needs the index then says that it is away."""
    found = system_packages.program("iptables")
    if found is None:
        return ""
    return subprocess.run([found, "--wait", *words], check=False, capture_output=True, text=True).stdout


def _make_bridge() -> int:
    for number in range(BRIDGES):
        name = f"hmtest{number}"
        # Creating it is what claims it: of two runs at once only one succeeds.
        if subprocess.run(
            [_ip(), "link", "add", "name", name, "type", "bridge"], check=False, capture_output=True
        ).returncode:
            continue
        subprocess.run([_ip(), "addr", "add", SUBNET.format(77 + number), "dev", name], check=True)
        subprocess.run([_ip(), "link", "set", name, "up"], check=True)
        return number
    raise SystemExit("no bridge can be made for a private Docker engine: see `ip link` for hmtest… left over")


def _sweep() -> None:
    """Remove what killed runs left: folders whose engine lives no more, and then all bridges when none lives."""
    homes = list(TEMPORARY.glob("hmtest-*"))
    living = [home for home in homes if _lives(home)]
    for home in homes:
        if home not in living:
            _unmount_below(home)
            shutil.rmtree(home, ignore_errors=True)
    if not living:
        _close_ways_out("hmtest")
        for number in range(BRIDGES):
            subprocess.run([_ip(), "link", "delete", f"hmtest{number}"], check=False, capture_output=True)


def _lives(home: Path) -> bool:
    try:
        os.kill(int((home / "docker.pid").read_text(encoding="ascii")), 0)
    except (FileNotFoundError, ValueError):
        return time.time() - home.stat().st_mtime < READY_SECONDS  # may be just starting, and have no number yet
    except ProcessLookupError:
        return False
    return True


def _ip() -> str:
    return system_packages.program("ip") or "ip"


def _ready(process: subprocess.Popen[bytes], address: str) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if engine_api.answers(address, seconds=2):
            return True
        time.sleep(0.1)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        # Its containerd is in the same session: end both, or the data directory stays busy.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _unmount_below(home: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for place in sorted((mount for mount in mounts if mount.startswith(f"{home}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "Its last words:\n" + "\n".join(lines[-5:])
